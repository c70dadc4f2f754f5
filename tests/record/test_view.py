"""A run read by its files alone is the run that the search knows: members, scores at gates, who went on."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.run_folders import read_run, simulate, write_run
from tests.worlds import journals
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import SEEDS, Simulation, curve, fates_by_seed
from tune_rh.errors import JournalCorrupt
from tune_rh.record import ranking
from tune_rh.record.events import Event, JobEnded, JobStarted, Promoted, SessionEnded, SessionStarted, encode
from tune_rh.record.history import History
from tune_rh.record.view import view

STATUS = {"waiting": "idle", "parked": "idle"}


BESIDE: dict[str, Any] = {
    "num_candidates": 6,
    "references": ["good"],
    "follow_ups": [
        {"after": 0, "changes": [{"rate": 0.5}]},
        {"after": 0, "enters": 2, "changes": [{"rate": 0.25}, {"rate": 0.125}]},
    ],
}
MANY: dict[str, Any] = {"num_candidates": 15}


def noisy(index: int, seed: int, step: int) -> dict[str, float]:
    """`curve`, with seeds that do something to everybody and something to each."""
    common = 0.1 * SEEDS.index(seed)
    return {"val_loss": curve(index, seed, step)["val_loss"] + common + random.Random(f"{index} {seed}").gauss(0, 0.1)}


def two_kinds(index: int, seed: int, step: int) -> dict[str, float]:
    """Seeds that find the good minimum, and seeds that do not."""
    found = random.Random(f"{index} {seed}").random() < 0.5
    return {"val_loss": (0.1 if found else 2.0) + 0.01 * index + 1 / step}


def assert_same_gates(folder: Path, history: History) -> None:
    run, sign = read_run(folder), 1.0 if history.plan.mode == "min" else -1.0
    for gate, entries in zip(history.gates, run.gates, strict=True):
        found = {e.candidate: e for e in entries}
        others = {c.id: c.index for c in history.candidates.values() if c.index and gate.has(c.index)}
        assert {name for name, e in found.items() if not e.is_control} == set(others)
        assert {name for name, e in found.items() if e.rank is not None} == {
            name for name, index in others.items() if index not in gate.unranked
        }
        for name, index in others.items():
            assert found[name].score == pytest.approx(sign * gate.score(index), abs=1e-12)
            assert found[name].rank == (None if index in gate.unranked else gate.rank(index))
            assert found[name].values == {
                seed: None if v is None else sign * v for seed, v in gate.values(index).items()
            }
            assert found[name].successes == gate.successes(index)
        control = [e for e in entries if e.is_control]
        assert [e.score for e in control] == pytest.approx([sign * (gate.control_score() or 0.0)] * len(control))
    for row in ranking.ranking(history):
        last = next(e for e in run.gates[-1] if e.candidate == row.candidate)
        assert last.score == pytest.approx(row.val, abs=1e-12)
        assert last.se == pytest.approx(row.entry.se, rel=1e-6, nan_ok=True)
        assert (len(last.values), last.num_lost) == (row.num_seeds, row.num_lost)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "max"},
        {"scoring": {"band": 0.3, "extra_seeds": 0.5}, "num_candidates": 20},
        {"scoring": {"objective": "best_of_k", "success": 1.0}, "metrics": two_kinds},
        {"scoring": {"objective": "best_of_k"}, "metrics": two_kinds, "num_candidates": 20},
        {"scoring": {"objective": "best_of_k"}, "num_candidates": 12},
        {"fates": fates_by_seed(3, 0.25)},
        BESIDE,
        {**BESIDE, "fates": fates_by_seed(3, 0.25), "scoring": {"band": 0.3, "extra_seeds": 0.5}},
    ],
    ids=[
        *("plain", "maximised", "extra seeds", "given success", "found success", "expected best", "lost seeds"),
        *("follow-ups", "follow-ups with lost seeds"),
    ],
)
def test_scores_and_ranks_are_those_that_the_search_decided_by(tmp_path: Path, changes: dict[str, Any]) -> None:
    metrics = changes.get("metrics", noisy)
    history = simulate(tmp_path / "run", metrics, **{k: v for k, v in changes.items() if k != "metrics"})
    assert_same_gates(tmp_path / "run", history)


def test_every_prefix_of_a_journal_is_the_state_that_the_search_was_in(tmp_path: Path) -> None:
    of = plan(num_candidates=6)
    events: list[Event] = Simulation(of, noisy, fates=fates_by_seed(1, 0.3), slots=3).run().events
    for end in range(0, len(events), 7):
        history = fold(of, events[:end])
        run = view(history, tmp_path)
        members = {str(m.id): m for c in history.candidates.values() for m in c.members.values()}
        assert {name: STATUS.get(m.status, m.status) for name, m in run.members.items()} == {
            name: m.status for name, m in members.items()
        }
        assert {name: (m.steps, m.stage, m.seconds) for name, m in run.members.items()} == {
            name: (m.step, m.stage, m.slot_seconds) for name, m in members.items()
        }
        assert (run.spent.steps, run.spent.slot_seconds) == (history.steps_spent, history.slot_seconds)


def test_a_killed_session_leaves_members_that_wait(tmp_path: Path) -> None:
    of = plan(num_candidates=2)
    events = Simulation(of, noisy, slots=2).run().events
    under_way = next(i for i, e in enumerate(events) if isinstance(e, JobStarted) and e.stage == 1) + 3
    assert "running" in {m.status for m in view(fold(of, events[:under_way]), tmp_path).members.values()}
    write_run(tmp_path / "run", of, events[:under_way])
    assert "running" not in {m.status for m in read_run(tmp_path / "run").members.values()}
    write_run(tmp_path / "run", of, [*events[:under_way], SessionStarted(2, 1.0, "local", 1)])
    after = read_run(tmp_path / "run")
    assert "running" not in {m.status for m in after.members.values()}
    assert not after.is_finished
    write_run(tmp_path / "run", of, [*events[:under_way], SessionEnded(1, 1.0, "interrupted")])
    assert read_run(tmp_path / "run").ended == "interrupted"


def test_a_lost_seed_keeps_what_it_had_at_the_gates_before(tmp_path: Path) -> None:
    fates = {(1, 7): ("diverge", 50)}
    simulate(tmp_path / "run", curve, fates=fates, num_candidates=1, stages=[
        {"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 2},
    ])  # fmt: skip
    run = read_run(tmp_path / "run")
    first, last = ({e.candidate: e for e in entries}["c0001"] for entries in run.gates)
    assert (first.num_lost, last.num_lost) == (0, 1)
    assert first.values[7] == pytest.approx(curve(1, 7, 20)["val_loss"])
    assert last.values[7] is None
    assert run.members["c0001-s7"].lost_stage == 1
    assert [(d.kind, d.gate, d.seed) for d in run.decisions if d.kind == "diverged"] == [("diverged", 1, 7)]


def test_decisions_carry_their_reasons(tmp_path: Path) -> None:
    history = simulate(tmp_path / "run", noisy, num_candidates=20, scoring={"band": 0.3, "extra_seeds": 0.5})
    decisions = read_run(tmp_path / "run").decisions
    promoted = [d for d in decisions if d.kind == "promoted"]
    assert {d.reason for d in promoted} >= {"control", "quota"}
    assert len([d for d in promoted if d.gate == 0 and d.candidate != "c0000"]) == history.gates[0].num_promoted
    added = [d for d in decisions if d.kind == "seed added"]
    assert len(added) == sum(gate.num_extra for gate in history.gates) > 0
    assert all(d.chance is not None and 0 <= d.chance <= 1 for d in added)


def test_a_reading_or_a_diagnosis_that_failed_loses_no_member(tmp_path: Path) -> None:
    of = plan(num_candidates=1)
    events = [e for e in Simulation(of, curve).run().events]
    looked_at = next(e.member for e in events if isinstance(e, JobEnded) and e.outcome == "tested")
    extra = [
        json.loads(encode(JobStarted(looked_at, 2, 120, 0.0))) | {"purpose": "diagnose"},
        json.loads(encode(JobEnded(looked_at, "failed", "Traceback", 0.0))),
        {
            "event": "Diagnosed",
            "member": str(looked_at),
            "step": 120,
            "verdicts": {"id_only": "pass"},
            "seconds": 2.0,
        },
    ]
    folder = write_run(tmp_path / "run", of, events)
    before = read_run(folder).members[str(looked_at)]
    journals.extend(folder / "journal.jsonl", map(json.dumps, extra))
    run = read_run(folder)
    member = run.members[str(looked_at)]
    assert (member.status, member.lost_stage, member.verdicts) == ("completed", None, {"id_only": "pass"})
    assert member.seconds == before.seconds + 2.0
    assert run.decisions[-1].kind == "not diagnosed"
    assert all(e.num_lost == 0 for e in run.gates[-1])


def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=1)
    path = tmp_path / "run" / "journal.jsonl"
    path.write_text(path.read_text()[:-5])
    with pytest.warns(UserWarning, match="torn last line"):
        assert not read_run(path.parent).is_finished


def test_unknown_events_are_passed_over_with_one_warning(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=1)
    path = tmp_path / "run" / "journal.jsonl"
    journals.write(path, ['{"event":"Invented","what":1}'] * 2 + journals.texts(path))
    with pytest.warns(UserWarning, match="does not know: Invented") as caught:
        assert read_run(path.parent).is_finished
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "plan.toml").unlink(), "plan.toml: cannot be read"),
        (lambda run: (run / "plan.toml").write_text("name = "), "plan.toml: cannot be read"),
        (lambda run: (run / "plan.toml").write_text('name = "x"'), "plan.toml: family: missing"),
        (lambda run: (run / "journal.jsonl").write_text("{\n{}\n"), "line 1 of 2"),
        (lambda run: (run / "journal.jsonl").write_text('[]\n{"event":"SpaceExhausted"}\n'), "line 1 of 2"),
        (
            lambda run: journals.write(run / "journal.jsonl", [encode(Promoted("c9", 0, "quota", 0.5, 0, 1))]),
            "event 1: Promoted does not follow from those before it",
        ),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_do(tmp_path: Path, break_it: Any, message: str) -> None:
    simulate(tmp_path / "run", curve, num_candidates=1)
    break_it(tmp_path / "run")
    with pytest.raises(JournalCorrupt, match=message):
        read_run(tmp_path / "run")


def test_a_run_that_has_only_begun_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", plan(), [])
    (folder / "journal.jsonl").unlink()
    (folder / "provenance.json").unlink()
    with pytest.warns(UserWarning, match="provenance cannot be read"):
        run = read_run(folder)
    assert (run.members, run.kind, run.is_finished) == ({}, "search", False)
    assert run.gates == ((), (), ())
    assert [row.entered for row in run.funnel] == [0, 0, 0]


def test_a_race_has_its_members_at_the_gates(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    history = simulate(tmp_path / "run", noisy, unit="member", num_candidates=0, stages=stages)
    run = read_run(tmp_path / "run")
    assert run.kind == "race"
    assert run.control is None
    first, last = run.gates
    assert [e.seed for e in first if e.promoted] == [e.seed for e in first[:2]]
    assert {e.seed for e in last} == {e.seed for e in first[:2]}
    for gate, entries in zip(history.gates, (first, last), strict=True):
        assert [e.score for e in entries] == pytest.approx([rank.score for rank in gate.order])
    assert [(r.entered, r.scored, r.passed) for r in run.funnel] == [(3, 3, 2), (2, 2, 2)]


def test_an_audit_is_counted_apart(tmp_path: Path) -> None:
    of = plan(
        num_candidates=4, stages=[{"until_step": 20, "num_seeds": 1, "top": 1}, {"until_step": 60, "num_seeds": 1}]
    )
    events: list[Event] = list(Simulation(of, curve).run().events)
    went_on = {e.candidate for e in events if isinstance(e, Promoted)}
    stopped = next(c for c in ("c0001", "c0002", "c0003") if c not in went_on)
    folder = write_run(tmp_path / "run", of, events)
    audit = {"event": "Promoted", "candidate": stopped, "gate": 0, "reason": "audit"}
    journals.extend(folder / "journal.jsonl", [json.dumps({**audit, "score": 1.0, "rank": 3, "num_scored": 4})])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = read_run(folder)
    assert run.candidates[stopped].audited
    assert (run.funnel[0].passed, run.funnel[0].audited) == (1, 1)
