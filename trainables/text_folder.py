"""Documents of a folder of one's own: text, JSON or parquet.

What it is: one document a text file (.txt, .md), a record of JSON (.json: a list, or one record; .jsonl: one a line) or
a row of a table (.parquet). What a document says is its key, so that its split does not depend on names, order or form.
What it is not: splits and tokens (`text_pack`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.errors import DataError
from trainables.text_pack import Document

Texts = Callable[[Path, str], Iterator[str]]


def documents(folder: Path, text_field: str) -> Iterator[Document]:
    """All documents below ``folder``, in the order of their paths; hidden files and other kinds are passed over.

    Args:
        folder: where to look, subfolders included.
        text_field: field of a JSON record, or column of a table, that holds the text.

    Raises:
        DataError: the folder is not there or holds nothing readable, or a file is not what its name says.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = [path for path in sorted(folder.rglob("*")) if _is_wanted(path.relative_to(folder)) and path.is_file()]
    if not paths:
        raise DataError(f"{folder}: holds no documents; allowed are {', '.join(_KINDS)}")
    for path in paths:
        try:
            for text in _KINDS[path.suffix.lower()](path, text_field):
                yield _content_key(text), text
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in _KINDS and not any(part.startswith(".") for part in path.parts)


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
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield _field_of(_parsed(line, where), field, where)


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
                # A null is a document without text.
                yield _text_of(value if value is not None else "", field, f"{path}, row {row}")
    except arrow.ArrowException as error:
        raise DataError(f"{path}: is no parquet file ({error})") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: is no JSON ({error})") from error


def _field_of(record: Any, field: str, where: str) -> str:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: is no JSON record with a field {field!r}, but {json.dumps(record)[:40]}")
    if field not in record:
        names = ", ".join(map(str, record)) or "none"
        raise DataError(f"{where}: has no field {field!r}; there are {names}; choose with --text-field")
    return _text_of(record[field], field, where)


def _text_of(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {field} = {str(value)[:40]!r} is no text; choose another with --text-field")
    return value


_KINDS: Mapping[str, Texts] = {
    ".txt": _text_file,
    ".md": _text_file,
    ".json": _json_file,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _table,
}
