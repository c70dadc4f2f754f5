"""A snapshot gives the history that its journal gives, or does not count."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.decide.test_policy_race_laws import races
from tests.worlds import journals
from tests.worlds.drawn import SEARCHES, WORLDS, World, drawn
from tests.worlds.plans import fold, plan
from tests.worlds.records import SMALL, events, finish, make, open_search
from tests.worlds.scripted import next_job
from tune_rh.errors import JournalCorrupt
from tune_rh.plan.schema import Plan
from tune_rh.record.events import Event, FindingAccepted, JobRetried, PlanChanged, decode, encode
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.snapshot import file as snapshot
from tune_rh.record.snapshot.codec import pack, unpack
from tune_rh.results.reading import read as read_run
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner


def state(value: Any, seen: dict[int, int] | None = None) -> Any:
    """All that an object holds, as plain data with types; an object that was met before is its number."""
    seen = {} if seen is None else seen
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if value is None or isinstance(value, int | str | bytes | BaseModel):
        return value
    if isinstance(value, Mapping):
        return ("mapping", [(state(key, seen), state(inner, seen)) for key, inner in value.items()])
    if isinstance(value, array):
        return (value.typecode, value.tobytes())
    if isinstance(value, Set):
        return ("set", sorted(value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, [state(inner, seen) for inner in value])
    if id(value) in seen:
        return ("again", seen[id(value)])
    if not dataclasses.is_dataclass(value):
        seen[id(value)] = len(seen)
    names = getattr(value, "__slots__", None) or list(vars(value))
    return (type(value).__name__, {name: state(getattr(value, name), seen) for name in names})


def again(history: History, begun: Plan) -> History:
    """Packed and unpacked."""
    lines, columns = pack(history)
    return unpack("\n".join(lines), memoryview(b"".join(columns)), begun)


def check(begun: Plan, told: Sequence[Event], at: int) -> None:
    """From a snapshot after ``at`` events on, all is as from the start: now, next, and once the others are in."""
    history = fold(begun, told[:at])
    restored = again(history, begun)
    assert state(restored) == state(history)
    if at:
        assert next_job(begun, restored) == next_job(begun, history)
    for event in told[at:]:
        history.apply(event)
        restored.apply(event)
    assert state(restored) == state(history)
    assert [m.reports for c in restored.candidates.values() for m in c.members.values()] == [
        m.reports for c in history.candidates.values() for m in c.members.values()
    ]


@settings(max_examples=60)
@given(searched=SEARCHES | races(), world=WORLDS, share=st.floats(0.0, 1.0))
def test_a_history_from_a_snapshot_is_the_one_from_the_journal(searched: Plan, world: World, share: float) -> None:
    told = [decode(encode(event)) for event in drawn(searched, world).events]
    check(searched, told, round(share * len(told)))


def test_so_is_one_whose_plan_has_grown_and_that_lost_tries(small: RunPaths) -> None:
    begun, _ = runs.replay(small)
    told = events(small)
    member = next(iter(fold(begun, told).candidates["c0001"].members.values())).id
    more: list[Event] = [
        FindingAccepted("P20", "slots", "few"),
        JobRetried(member, 10, "h1", 7, "node", "gone", 1.0),
        JobRetried(member, 10, "", 0, "exception", "ValueError: no", 2.0),
        PlanChanged({"num_candidates": 6, "resources": {**begun.resources.model_dump(mode="json"), "cpu": 2}}),
    ]
    for at in (len(told), len(told) + 3, len(told) + 4):
        check(begun, [*told, *more], at)


def test_what_a_history_cannot_hold_is_refused() -> None:
    history = History(plan())
    history.skipped.append(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="object: is nothing that a history holds"):
        pack(history)


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = make(tmp_path_factory.mktemp("finished") / "run", **SMALL)
    finish(paths)
    return paths.root


@pytest.fixture
def small(tmp_path: Path, finished: Path) -> RunPaths:
    """A run that is finished, without a snapshot."""
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    return RunPaths(tmp_path / "run")


def save(paths: RunPaths, num_events: int) -> None:
    """The snapshot that a writer leaves after so many events."""
    begun, _ = runs.replay(paths)
    prefix = snapshot.Prefix(paths.journal)
    prefix.advance(num_events // 2)
    prefix.advance(num_events)
    assert snapshot.save(fold(begun, events(paths)[:num_events]), prefix, paths)


class Read:
    """How many lines of a journal are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tune_rh.record import journal

        self.num = 0
        decode = journal.decode

        def counted(fields: bytes) -> Event:
            self.num += 1
            return decode(fields)

        monkeypatch.setattr(journal, "decode", counted)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_only_what_came_after_a_snapshot_is_folded(
    small: RunPaths, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = events(small)
    expected = state(runs.replay(small)[1])
    at = max(1, round(share * len(told)))
    save(small, at)
    decoded = Read(monkeypatch)
    for writer in (False, True):
        decoded.num = 0
        assert state(runs.replay(small, writer=writer)[1]) == expected
        assert decoded.num == len(told) - at
    decoded.num = 0
    assert read_run(small).history.num_events == len(told)
    assert decoded.num == len(told) - at


def test_a_torn_line_after_a_snapshot_is_dropped_and_damage_is_refused(small: RunPaths) -> None:
    lines = small.journal.read_bytes().splitlines(keepends=True)
    save(small, len(lines) - 3)
    small.journal.write_bytes(b"".join(lines)[:-5])
    with pytest.warns(UserWarning, match="dropped a torn last line"):
        assert runs.replay(small, writer=True)[1].num_events == len(lines) - 1
    small.journal.write_bytes(b"".join([*lines[:-2], lines[-1]]))
    with pytest.raises(JournalCorrupt, match=f"line {len(lines) - 1} of {len(lines) - 1}: numbered {len(lines)}"):
        runs.replay(small)


def _other_code(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "_code", lambda: "another version")


def _other_user(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("XDG_STATE_HOME", str(paths.root / "another"))


def _no_key(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "signature", lambda _references: None)


def _changed(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    content = bytearray(paths.snapshot.read_bytes())
    content[-1] ^= 1
    paths.snapshot.write_bytes(content)


def _renumbered(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    header, rest = paths.snapshot.read_bytes().split(b"\n", 1)
    facts = json.loads(header)
    paths.snapshot.write_bytes(json.dumps({**facts, "num_events": facts["num_events"] - 1}).encode() + b"\n" + rest)


def _cut(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    paths.snapshot.write_bytes(paths.snapshot.read_bytes()[:-100])


def _empty(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    paths.snapshot.write_bytes(b"")


def _nonsense(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    paths.snapshot.write_bytes(b"[]\n[]\n[]")


def _pipe(paths: RunPaths, patch: pytest.MonkeyPatch) -> None:
    import os

    paths.snapshot.unlink()
    os.mkfifo(paths.snapshot)


@pytest.mark.parametrize(
    "happens", [_other_code, _other_user, _no_key, _changed, _renumbered, _cut, _empty, _nonsense, _pipe]
)
def test_in_any_doubt_the_journal_is_folded(
    small: RunPaths, happens: Callable[[RunPaths, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = events(small)
    expected = state(runs.replay(small)[1])
    save(small, len(told))
    happens(small, monkeypatch)
    decoded = Read(monkeypatch)
    assert state(runs.replay(small)[1]) == expected
    assert decoded.num == len(told)


@pytest.mark.parametrize("number", [1, 8])
def test_a_journal_that_another_snapshot_is_of_is_read_whole(small: RunPaths, number: int) -> None:
    """Also one that its own chain has nothing against: it was written again with another line in it."""
    texts = journals.texts(small.journal)
    save(small, len(texts))
    journals.write(small.journal, texts[:number])
    assert runs.replay(small)[1].num_events == number
    changed = [*texts[:-1], texts[-1].replace('"finished"', '"failed"')]
    journals.write(small.journal, changed)
    assert runs.replay(small)[1].ended == "failed"


def test_a_changed_byte_of_the_journal_before_a_snapshot_is_noticed(small: RunPaths) -> None:
    save(small, len(events(small)))
    content = bytearray(small.journal.read_bytes())
    content[len(content) // 3] ^= 1
    small.journal.write_bytes(content)
    with pytest.raises(JournalCorrupt):
        runs.replay(small)


def test_a_snapshot_of_other_events_than_the_prefix_is_not_written(small: RunPaths) -> None:
    prefix = snapshot.Prefix(small.journal)
    prefix.advance(5)
    with pytest.raises(ValueError, match="a history of 4 events, 5 lines"):
        snapshot.save(fold(runs.replay(small)[0], events(small)[:4]), prefix, small)
    with pytest.raises(ValueError, match="has fewer than 1000 lines"):
        prefix.advance(1000)
    assert not small.snapshot.exists()


def test_where_no_key_can_be_kept_there_is_no_snapshot(small: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_key(small, monkeypatch)
    prefix = snapshot.Prefix(small.journal)
    prefix.advance(len(events(small)))
    assert not snapshot.save(runs.replay(small)[1], prefix, small)
    assert not small.snapshot.exists()


def test_a_search_that_goes_on_from_a_snapshot_decides_the_same(tmp_path: Path, small: RunPaths) -> None:
    from tests.worlds.records import decided

    paths = make(tmp_path / "again", **SMALL)
    run, session = open_search(paths)
    session.listeners.append(lambda _event: session.request_stop() if session.history.num_events > 25 else None)
    LocalRunner(run).run(session)
    session.close("interrupted")
    save(paths, len(events(paths)) - 2)
    finish(paths)
    assert decided(paths) == decided(small)


def test_reading_one_loads_nothing_heavy(small: RunPaths) -> None:
    save(small, len(events(small)))
    code = (
        "import sys; from pathlib import Path; from tune_rh.record.journal import RunPaths\n"
        "from tune_rh.plan.file import load_frozen; from tune_rh.record.snapshot import file\n"
        "paths = RunPaths(Path(sys.argv[1])); before = set(sys.modules)\n"
        "assert file.load(paths, load_frozen(paths.plan)) is not None\n"
        "print(sorted({'torch', 'ray', 'optuna', 'numpy', 'scipy', 'pickle', 'marshal'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(small.root)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
