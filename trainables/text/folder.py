"""Documents of a folder of one's own: text, JSON or parquet.

One document a text file (.txt, .md), a record of JSON (.json: a list, or one record; .jsonl: one a line) or a row of a
table (.parquet). What a document says is its key, so that its split does not depend on names, order or form.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.errors import DataError
from trainables.text.pack import Document

_Texts = Callable[[Path, str], Iterator[str]]


def documents(folder: Path, text_field: str) -> Iterator[Document]:
    """All documents below ``folder``, in the order of their paths; hidden files and other kinds are passed over.

    ``text_field`` names the field of a JSON record, or column of a table, that holds the text. Raises `DataError` if
    there is nothing readable, or a file is not what its name says.
    """
    paths = _paths(folder)
    if not paths:
        raise DataError(f"{folder}: holds no documents; allowed are {', '.join(_KINDS)}")
    for path in paths:
        try:
            for text in _KINDS[path.suffix.lower()](path, text_field):
                yield _content_key(text), text
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: {_not_utf8(error)}") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def _paths(folder: Path) -> list[Path]:
    """The files to read. A folder or a link that cannot be followed is an error: a set without it would be another."""
    paths = []
    try:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        for at, folders, names in os.walk(folder, onerror=_unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            visible = (Path(at, name) for name in names if not name.startswith("."))
            paths += [path for path in visible if path.suffix.lower() in _KINDS and _holds_text(path)]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error})") from error
    return sorted(paths)


def _unreadable(error: OSError) -> None:
    raise error


def _holds_text(path: Path) -> bool:
    """Not of pipes and sockets, which have no end; of a link to nothing, so that reading it says so."""
    return path.is_file() or path.is_symlink()


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8 ({error.reason} at byte {error.start})"


def _content_key(text: str) -> str:
    words = " ".join(text.encode("utf-8", "replace").decode().split())
    return hashlib.sha256(words.encode()).hexdigest()


def _text_file(path: Path, _field: str) -> Iterator[str]:
    yield path.read_text(encoding="utf-8-sig")


def _json_file(path: Path, field: str) -> Iterator[str]:
    content = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    records = content if isinstance(content, list) else [content]
    for number, record in enumerate(records, 1):
        yield _field_of(record, field, f"{path}, record {number}")


def _json_lines(path: Path, field: str) -> Iterator[str]:
    # Decoded line by line: a decoder of the whole file tells a byte's place in its buffer, not in the file.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: {_not_utf8(error)}") from error
            if text.strip():
                yield _field_of(_parsed(text, where), field, where)


def _table(path: Path, field: str) -> Iterator[str]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
        if field not in names:
            raise DataError(f"{path}: has no column {field!r}; there are {', '.join(names)}; choose with --text-field")
        row = 0
        for batch in table.iter_batches(columns=[field]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _text_of(value, field, f"{path}, row {row}")
    except arrow.ArrowException as error:
        raise DataError(f"{path}: is no parquet file ({error})") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({error})") from error


def _field_of(record: Any, field: str, where: str) -> str:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: is no JSON record with a field {field!r}, but {json.dumps(record)[:40]}")
    if field not in record:
        names = ", ".join(map(str, record)) or "none"
        raise DataError(f"{where}: has no field {field!r}; there are {names}; choose with --text-field")
    return _text_of(record[field], field, where)


def _text_of(value: Any, field: str, where: str) -> str:
    """``value`` if it is text; a null is a document without any."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {field} = {str(value)[:40]!r} is no text; choose another with --text-field")
    return value


_KINDS: Mapping[str, _Texts] = {
    ".txt": _text_file,
    ".md": _text_file,
    ".json": _json_file,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _table,
}
