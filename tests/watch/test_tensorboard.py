"""What TensorBoard would read: one curve a member, whatever happened on the way."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event as Record

from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation, curve
from tune_rh.record.events import Evaluated, JobEnded, MemberId
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.watch.tensorboard import TensorBoard


def records(folder: Path) -> list[Record]:
    """All records of one member's files, in the order of their names."""
    found = []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack("<Q", content[at : at + 8])
            found.append(Record.FromString(content[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def curves(paths: RunPaths) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Member -> tag -> points."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for folder in sorted(paths.tensorboard.iterdir()):
        tags = defaultdict(list)
        for record in records(folder):
            for value in record.summary.value:
                if not value.tag.startswith("_hparams_"):
                    tags[value.tag].append((record.step, value.simple_value))
        found[folder.name] = dict(tags)
    return found


def follow(paths: RunPaths, sim: Simulation, cut: int | None = None) -> None:
    """A driver that watches the search, and another one after ``cut`` events."""
    history = History(sim.plan)
    board = TensorBoard(paths, history)
    for num, event in enumerate(sim.events):
        history.apply(event)
        board(event)
        if num == cut:
            board = TensorBoard(paths, history)


@pytest.mark.parametrize("cut", [None, 10, 57])
def test_every_member_has_one_curve_across_its_jobs(tmp_path: Path, cut: int | None) -> None:
    sim = Simulation(plan(num_candidates=6), curve, slots=3).run()
    assert any(isinstance(e, JobEnded) and e.outcome == "parked" for e in sim.events)
    paths = RunPaths(tmp_path)
    follow(paths, sim, cut)
    found = curves(paths)
    members = {str(m.id): m for c in sim.history.candidates.values() for m in c.members.values() if m.curve.steps}
    assert found.keys() == members.keys()
    for name, member in members.items():
        points = found[name]["val_loss"]
        assert [step for step, _ in points] == member.curve.steps
        assert [value for _, value in points] == pytest.approx(member.curve.values)
        assert ("test_loss" in found[name]) == (member.tested is not None)


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    sim = Simulation(plan(num_candidates=3), curve).run()
    follow(RunPaths(tmp_path), sim)
    control = sim.history.member(MemberId("c0000", 7))
    read = EventAccumulator(str(RunPaths(tmp_path).tensorboard / "c0000-s7")).Reload()
    assert [point.step for point in read.Scalars("val_loss")] == control.curve.steps
    session = read.SummaryMetadata("_hparams_/session_start_info")
    assert session.plugin_data.plugin_name == "hparams"


def test_a_report_that_is_heard_twice_is_written_once(tmp_path: Path) -> None:
    sim = Simulation(plan(num_candidates=1), curve).run()
    at = next(i for i, e in enumerate(sim.events) if isinstance(e, Evaluated) and e.step == 20)
    event = sim.events[at]
    assert isinstance(event, Evaluated)
    paths, history = RunPaths(tmp_path), History(sim.plan)
    board = TensorBoard(paths, history)
    for one in [*sim.events[: at + 1], Evaluated(event.member, 10, {"val_loss": 99.0}, 1.0, 0.5)]:
        history.apply(one)
        board(one)
    assert [step for step, _ in curves(paths)[str(event.member)]["val_loss"]] == [10, 20]


def test_hyperparameters_stand_once_in_each_member(tmp_path: Path) -> None:
    sim = Simulation(plan(num_candidates=3), curve).run()
    paths = RunPaths(tmp_path)
    follow(paths, sim)
    for folder in paths.tensorboard.iterdir():
        tags = [value.tag for record in records(folder) for value in record.summary.value]
        assert tags.count("_hparams_/session_start_info") == 1
