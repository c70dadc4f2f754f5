"""Documents of one's own: the same text in every form gives the same set, and what cannot be read says where."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.trainables.text import text_sets
from trainables.errors import DataError
from trainables.text.folder import documents
from trainables.text.source import SOURCE

Write = Callable[[Path, list[str]], Path]


def texts_in(folder: Path, field: str = "text") -> list[str]:
    return [text for _, text in documents(folder, field)]


def test_200_documents_are_the_same_set_in_every_form(tmp_path: Path) -> None:
    texts = text_sets.documents(200)
    writers: dict[str, Write] = {
        "files": text_sets.write_texts,
        "lines": text_sets.write_lines,
        "table": text_sets.write_table,
    }
    digests = set()
    for name, write in writers.items():
        SOURCE.prepare_folder(write(tmp_path / "of" / name, texts), name, tmp_path, vocab_size=300)
        digests.add(SOURCE.digest(name, tmp_path))
    assert len(digests) == 1


def test_a_document_stays_in_its_split_whatever_its_file_is_called(tmp_path: Path) -> None:
    texts = text_sets.documents(20)
    first = dict(documents(text_sets.write_texts(tmp_path / "a", texts), "text"))
    other = dict(documents(text_sets.write_lines(tmp_path / "b", texts[::-1]), "text"))
    assert first == other
    assert len(first) == 20


def test_kinds_subfolders_and_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.MD").write_text("\ufeffone")
    (tmp_path / "b.json").write_text(json.dumps([{"text": "two"}, {"text": "three"}]))
    (tmp_path / "c.json").write_text(json.dumps({"text": "four"}))
    (tmp_path / "d.ndjson").write_text('{"text": "five"}\n\n{"text": "six"}\n')
    parquet.write_table(pyarrow.table({"text": ["seven", None]}), tmp_path / "e.parquet")
    (tmp_path / "sub" / "f.txt").write_text("eight")
    for ignored in ("picture.png", ".hidden.txt", ".git/g.txt"):
        (tmp_path / ignored).write_text("not this")
    assert texts_in(tmp_path) == ["one", "two", "three", "four", "five", "six", "seven", "", "eight"]


def test_another_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one", "text": 1}\n')
    parquet.write_table(pyarrow.table({"body": ["two"]}), tmp_path / "b.parquet")
    assert texts_in(tmp_path, "body") == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.jsonl",
            '{"text": "x"}\n{"body": "y", "id": 1}\n',
            "a.jsonl, line 2: has no field 'text'; there are body, id",
        ),
        ("a.jsonl", '{"text": "x"}\n\n{"text": 7}\n', "a.jsonl, line 3: text = '7' is no text"),
        ("a.jsonl", '{"text": "x"}\n{"text": ', "a.jsonl, line 2: is no JSON"),
        ("a.jsonl", '"x"\n', "a.jsonl, line 1: is no JSON record with a field 'text'"),
        ("a.json", '[{"text": "x"}, {}]', "a.json, record 2: has no field 'text'; there are none"),
        ("a.json", "{", "a.json: is no JSON"),
        ("a.json", "[" * 100_000, "a.json: is no JSON (maximum recursion depth exceeded"),
        ("a.txt", b"\xff\xfe", "a.txt: is not UTF-8"),
        # Far behind what is read at once.
        ("a.jsonl", b'{"text": "x"}\n' * 9_999 + b'{"text": "\xff"}\n', "a.jsonl, line 10000: is not UTF-8"),
        ("a.parquet", b"PAR1", "a.parquet: is no parquet file"),
        ("a.doc", "x", "holds no documents; allowed are .txt, .md, .json, .jsonl, .ndjson, .parquet"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, name: str, content: Any, said: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        texts_in(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_columns_of_a_table_are_named(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"id": [1], "body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="has no column 'text'; there are id, body; choose with --text-field"):
        texts_in(tmp_path)
    with pytest.raises(DataError, match=r"a\.parquet, row 1: id = '1' is no text"):
        texts_in(tmp_path, "id")


def test_a_null_is_a_document_without_text_in_every_form(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": null}, {"text": "one"}]')
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n{"text": null}\n')
    parquet.write_table(pyarrow.table({"text": [None, "three"]}), tmp_path / "c.parquet")
    assert texts_in(tmp_path) == ["", "one", "two", "", "", "three"]


def test_what_is_there_and_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"b\.txt: cannot be read \(.*No such file"):
        texts_in(tmp_path)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "sub").mkdir()
    scandir = os.scandir

    def forbidden(path: Any) -> Any:
        """As for somebody who is not root: root may read every folder."""
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    for folder in (tmp_path, tmp_path / "sub"):
        with pytest.raises(DataError, match=r"/sub: cannot be read \(.*Permission denied"):
            texts_in(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(DataError, match=f"{path}: no such folder"):
            texts_in(path)
