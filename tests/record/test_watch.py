"""A run that is watched is read as it grows: the same as from the start, and each line once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tune_rh.record import journal
from tune_rh.record.journal import RunPaths, locked
from tune_rh.results.reading import Watch, read


def test_readings_of_a_growing_run_are_those_from_the_start(
    tmp_path: Path, copy_run: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = RunPaths(copy_run(tmp_path))
    lines = paths.journal.read_bytes().splitlines(keepends=True)
    watch, num_decoded = Watch(paths), 0
    decode = journal.decode

    def counted(fields: bytes) -> object:
        nonlocal num_decoded
        num_decoded += 1
        return decode(fields)

    with locked(paths):
        for number in (4, 4, 5, 11, 30, len(lines)):
            torn = b"" if number == len(lines) else lines[number][:20]
            paths.journal.write_bytes(b"".join(lines[:number]) + torn)
            monkeypatch.setattr(journal, "decode", counted)
            seen = watch.read()
            monkeypatch.setattr(journal, "decode", decode)
            assert num_decoded == number
            paths.journal.write_bytes(b"".join(lines[:number]))
            assert repr(seen.run) == repr(read(paths).run)
    paths.journal.write_bytes(b"".join(lines[:9]))
    assert repr(watch.read().run) == repr(read(paths).run)
    with locked(paths):
        assert repr(watch.read().run) == repr(read(paths).run)


def test_a_journal_that_is_another_one_is_read_anew(tmp_path: Path, copy_run: Callable[[Path], Path]) -> None:
    paths = RunPaths(copy_run(tmp_path))
    lines = paths.journal.read_bytes().splitlines(keepends=True)
    watch = Watch(paths)
    with locked(paths):
        watch.read()
        paths.journal.write_bytes(b"".join(lines[:9]))
        assert repr(watch.read().run) == repr(read(paths).run)
