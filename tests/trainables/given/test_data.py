"""Data of one's own: the digest is of the content, files are read once, and what is missing is named."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.given.data import GivenData


def test_the_digest_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_bytes(b"1,2")
    data = GivenData("numbers.csv", file)
    assert data.digest("numbers.csv", tmp_path / "data") == hashlib.sha256(b"1,2").hexdigest()
    assert data.prepare("numbers.csv", tmp_path / "data") == file
    file.write_bytes(b"1,2,3")
    assert data.digest("numbers.csv", tmp_path / "data") == hashlib.sha256(b"1,2,3").hexdigest()


def test_a_file_that_was_not_touched_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_bytes(b"1,2")
    before = file.stat()
    data = GivenData("numbers.csv", file)
    digest = data.digest("numbers.csv", tmp_path / "data")
    file.write_bytes(b"2,1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data.digest("numbers.csv", tmp_path / "data") == digest
    os.utime(file)
    assert data.digest("numbers.csv", tmp_path / "data") != digest


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"1")
    data, notes = GivenData("images", folder), tmp_path / "data"
    digests = [data.digest("images", notes)]
    (folder / "cat" / "2.png").write_bytes(b"2")
    digests.append(data.digest("images", notes))
    (folder / "cat" / "2.png").rename(folder / "2.png")
    digests.append(data.digest("images", notes))
    assert len(set(digests)) == 3
    (folder / "2.png").rename(folder / "cat" / "2.png")
    assert data.digest("images", notes) == digests[1]


def test_a_function_makes_its_data_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(data_dir: Path) -> Path:
        calls.append(data_dir)
        (data_dir / "made").write_bytes(b"1")
        return data_dir / "made"

    data = GivenData("make", make=make, key="k")
    with pytest.raises(DataMissing, match=r"make\(\): has not been called"):
        data.digest("make", tmp_path)
    assert data.prepare("make", tmp_path) == data.prepare("make", tmp_path) == tmp_path / "made"
    assert calls == [tmp_path]
    assert data.digest("make", tmp_path) == hashlib.sha256(b"1").hexdigest()
    (tmp_path / "made").unlink()
    with pytest.raises(DataCorrupt, match="is gone"):
        data.digest("make", tmp_path)


def test_what_is_no_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"make\(\): returns None: allowed is the path"):
        GivenData("make", make=lambda data_dir: None, key="k").prepare("make", tmp_path)
    with pytest.raises(DataError, match="nowhere': no such file or folder"):
        GivenData("nowhere", tmp_path / "nowhere").digest("nowhere", tmp_path)
