"""Members that reach the last stage are diagnosed by the search itself: once, whatever happens on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.diagnose import in_worker
from analysis.diagnose.api import Finding, Verdict
from analysis.diagnose.findings import from_json
from tests.worlds.plans import fold, plan
from tests.worlds.records import NoMirror, events, finish, of, open_search
from tests.worlds.scripted import SEEDS, Simulation, check_accounts, curve, fates_by_seed, next_job, verdict
from tune_rh.decide.scheduler import RunMember
from tune_rh.errors import ExportError
from tune_rh.record.events import Diagnosed, Event, JobEnded, JobStarted, MemberId
from tune_rh.record.events import Tested as ReadOfTest
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import failed_requirements, ranking
from tune_rh.results.export import export
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner

pytestmark = pytest.mark.usefixtures("no_drawing")

TINY: dict[str, Any] = {
    "family": "spacing_mdn",
    "space": "cpu-quickstart",
    "control": "tiny",
    "presets": ["cpu-e0", "cpu-ar32"],
    "num_candidates": 2,
    "fixed": {"data": "first100k", "width": 8, "n_heads": 2, "batch_size": 4, "context": 64, "eval_stride": 512},
    "seeds": [7, 42],
    "eval_every": 2,
    "stages": [{"until_step": 2, "num_seeds": 1}, {"until_step": 4, "num_seeds": 2}],
    "diagnose": ["slot_norms", "readout"],
    "resources": {"max_failures": 1},
}
SHORT: dict[str, Any] = {
    **TINY,
    "presets": ["cpu-e0"],
    "num_candidates": 1,
    "seeds": [7],
    "stages": [{"until_step": 2, "num_seeds": 1}],
}
"""Everybody is at the end at once: two members."""


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture
def root(tmp_path: Path, first100k_dir: Path) -> Path:
    """A folder for runs, with the data beside them."""
    (tmp_path / "spacing_mdn").symlink_to(first100k_dir / "spacing_mdn")
    return tmp_path


def make(root: Path, **changes: Any) -> RunPaths:
    return runs.create(plan(**{**TINY, **changes}), root, root.parent)


def at_the_end(history: History) -> set[str]:
    """Members that came to the last step."""
    last = history.plan.stages[-1].until_step
    return {str(m.id) for c in history.candidates.values() for m in c.members.values() if m.step == last}


class Asked:
    """In place of the diagnostics: says what it is told to, and remembers of whom it was asked.

    The task and its checkpoint have been read by then, so what it stands for is only the long look at them.
    """

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.fails, self.error = fails, error
        self.members: list[str] = []

    def __call__(self, subject: Any, names: Sequence[str], done: Any = None) -> list[Finding]:
        self.members.append(subject.member)
        if self.error is not None:
            raise self.error
        said: Verdict = "fail" if self.fails and subject.member.startswith(self.fails) else "pass"
        return [Finding(name, said, "As the test says.") for name in names]


# --- whole searches --------------------------------------------------------------------------------------------------


def test_exactly_those_at_the_end_are_diagnosed_and_their_findings_lie_in_their_folders(root: Path) -> None:
    paths = make(root / "run")
    history = finish(paths)
    survivors = at_the_end(history)
    everybody = {str(m.id) for c in history.candidates.values() for m in c.members.values()}
    assert len(survivors) == 4  # two seeds of the control and of the better preset
    assert everybody > survivors
    assert Counter(str(e.member) for e in of(paths, Diagnosed)) == dict.fromkeys(survivors, 1)
    assert {p.parent.name for p in paths.root.glob("members/*/findings.json")} == survivors
    for event in of(paths, Diagnosed):
        findings = from_json((paths.member(event.member) / "findings.json").read_text())
        assert [f.name for f in findings] == ["readout", "slot_norms"]  # in the order of reports
        assert {f.name: f.verdict for f in findings} == event.verdicts
        member = history.member(event.member)
        assert event.step == member.curve.best_step
        assert member.status == "completed"
        assert member.diagnosed == event
    for name in survivors:
        ends = [e.outcome for e in of(paths, JobEnded) if str(e.member) == name]
        assert ends[-2:] == ["tested", "diagnosed"]


def test_an_empty_list_diagnoses_nobody(root: Path) -> None:
    paths = make(root / "run", diagnose=[])
    history = finish(paths)
    assert at_the_end(history)
    assert of(paths, Diagnosed) == []
    assert {e.purpose for e in of(paths, JobStarted)} == {"train", "test"}
    assert not list(paths.root.glob("members/*/findings.json"))


# --- a driver that dies ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9 inside this process: no handler of the code under test catches it."""


def killed_at(paths: RunPaths, is_there: Any) -> None:
    """Search until the first such event, and no further."""
    run, search = open_search(paths)

    def watch(event: Event) -> None:
        if is_there(event):
            raise Killed

    search.listeners.append(watch)
    with pytest.raises(Killed):
        LocalRunner(run).run(search)
    run.journal.close()


@pytest.mark.parametrize(
    "is_there",
    [
        lambda e: isinstance(e, ReadOfTest),
        lambda e: isinstance(e, JobStarted) and e.purpose == "diagnose",
        lambda e: isinstance(e, Diagnosed),
        lambda e: isinstance(e, JobEnded) and e.outcome == "diagnosed",
    ],
    ids=["test read", "diagnosis begun", "diagnosis heard", "diagnosis over"],
)
def test_a_driver_that_dies_resumes_to_the_diagnosis_and_nobody_is_diagnosed_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch, is_there: Any
) -> None:
    asked = Asked()
    monkeypatch.setattr(in_worker, "ask", asked)
    paths = make(root / "run", **SHORT)
    killed_at(paths, is_there)
    heard = {str(e.member) for e in of(paths, Diagnosed)}
    assert asked.members == [str(e.member) for e in of(paths, Diagnosed)]
    history = finish(paths)
    survivors = at_the_end(history)
    assert heard < survivors
    assert Counter(asked.members) == dict.fromkeys(survivors, 1)
    assert Counter(str(e.member) for e in of(paths, Diagnosed)) == dict.fromkeys(survivors, 1)
    # Once finished there is nothing left to do.
    before = len(events(paths))
    finish(paths)
    assert not [e for e in events(paths)[before:] if isinstance(e, JobStarted)]


# --- a diagnosis that raises -----------------------------------------------------------------------------------------


def test_a_diagnosis_that_raises_is_a_failed_job_and_costs_nobody_their_place(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(error=RuntimeError("a fault of the diagnostic"))
    monkeypatch.setattr(in_worker, "ask", asked)
    paths = make(root / "run", **SHORT)
    history = finish(paths)
    survivors = at_the_end(history)
    assert Counter(asked.members) == dict.fromkeys(survivors, 2)  # once, and max_failures = 1 time more
    failed = {str(e.member): e.reason for e in of(paths, JobEnded) if e.outcome == "failed"}
    assert failed.keys() == survivors
    assert all(reason.endswith("RuntimeError: a fault of the diagnostic") for reason in failed.values())
    for name in survivors:
        member = history.member(MemberId.parse(name))
        assert (member.status, member.lost) == ("completed", False)
        assert member.value is not None
    rows = ranking(history)
    assert len(rows) == 2
    assert [row.num_lost for row in rows] == [0, 0]
    assert not list(paths.root.glob("members/*/findings.json"))
    # It is not tried for ever, by the next session neither.
    finish(paths)
    assert Counter(asked.members) == dict.fromkeys(survivors, 2)
    export(paths, history, root / "out")


def test_a_diagnosis_that_fails_once_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(error=RuntimeError("once"))

    def once(subject: Any, names: Sequence[str], done: Any = None) -> list[Finding]:
        try:
            return asked(subject, names)
        finally:
            asked.error = None

    monkeypatch.setattr(in_worker, "ask", once)
    paths = make(root / "run", **SHORT)
    survivors = at_the_end(finish(paths))
    assert len(asked.members) == len(survivors) + 1
    assert Counter(str(e.member) for e in of(paths, Diagnosed)) == dict.fromkeys(survivors, 1)
    assert {e.outcome for e in of(paths, JobEnded)} == {"completed", "tested", "diagnosed"}


# --- what a plan requires --------------------------------------------------------------------------------------------


def test_who_fails_what_is_required_is_not_exported_without_the_word(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_worker, "ask", Asked())
    first, second = (row.candidate for row in ranking(finish(make(root / "plain", **SHORT))))
    monkeypatch.setattr(in_worker, "ask", Asked(fails=first))
    # One stage, so that nothing but the export can be kept back.
    paths = make(root / "run", **SHORT, require=["permutation"])
    history = finish(paths)
    assert {tuple(e.verdicts) for e in of(paths, Diagnosed)} == {("readout", "slot_norms", "permutation")}
    assert failed_requirements(history, first) == ("permutation",)
    assert failed_requirements(history, second) == ()
    assert export(paths, history, root / "best").candidate == second
    with pytest.raises(ExportError, match=rf"--candidate {first}: fails permutation, which the plan requires; --desp"):
        export(paths, history, root / "asked", first)
    assert not (root / "asked").exists()
    assert export(paths, history, root / "asked", first, despite=True).candidate == first
    assert export(paths, history, root / "despite", despite=True).candidate == first


def test_where_all_fail_nobody_is_exported_without_the_word(root: Path) -> None:
    """A model that has trained for four steps is worse than a linear filter: the real check says so of everybody."""
    paths = make(root / "run", **{**SHORT, "diagnose": [], "require": ["baselines"]})
    history = finish(paths)
    assert {tuple(e.verdicts.items()) for e in of(paths, Diagnosed)} == {(("baselines", "fail"),)}
    with pytest.raises(ExportError, match=r"no candidate that finished passes .* does not pass baselines; --despite"):
        export(paths, history, root / "out")
    best = ranking(history)[0].candidate
    assert export(paths, history, root / "out", despite=True).candidate == best


# --- the policy ------------------------------------------------------------------------------------------------------


def simulated(seed: int, share: float, slots: int) -> Simulation:
    searched = plan(num_candidates=7).model_copy(update={"diagnose": ("slot_norms",)})
    return Simulation(searched, curve, fates=fates_by_seed(seed, share), slots=slots, order=seed).run()


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0], ids=["healthy", "some lost", "all lost"])
def test_every_survivor_is_tested_then_diagnosed(share: float, slots: int) -> None:
    for seed in range(3):
        sim = simulated(seed, share, slots)
        check_accounts(sim)
        members = [m for c in sim.history.candidates.values() for m in c.members.values()]
        tested = [e.member for e in sim.events if isinstance(e, ReadOfTest)]
        diagnosed = [e.member for e in sim.events if isinstance(e, Diagnosed)]
        assert Counter(diagnosed) == dict.fromkeys(tested, 1)
        assert {m.id for m in members if m.diagnosed} == set(diagnosed)
        for name in diagnosed:
            kinds = [type(e) for e in sim.events if getattr(e, "member", None) == name]
            assert kinds.index(ReadOfTest) < kinds.index(Diagnosed)


def test_whoever_waits_for_the_test_goes_before_whoever_waits_for_a_diagnosis() -> None:
    sim = simulated(0, 0.0, 3)
    both = 0
    history = History(sim.plan)
    for number, event in enumerate(sim.events, start=1):
        history.apply(event)
        kinds = {e.kind for e in history.pending}
        assert [e.kind for e in history.pending] == sorted(e.kind for e in history.pending)
        if len(kinds) > 1:
            both += 1
            first = next_job(sim.plan, history)
            if isinstance(first, RunMember):
                assert (first.purpose == "diagnose") == (min(kinds) == max(kinds)), number
    assert both


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_every_prefix_gives_the_recorded_decisions_again_with_diagnosis(seed: int) -> None:
    sim = simulated(seed, 0.2, 3)
    assert any(isinstance(d.decision, RunMember) and d.decision.purpose == "diagnose" for d in sim.decisions)
    for decided in sim.decisions:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
    for num_events, member, _, said in sim.verdicts:
        assert verdict(sim.plan, fold(sim.plan, sim.events[:num_events]), member) == said


def test_diagnosis_decides_nothing_of_the_search() -> None:
    """With one slot the same members train, in the same order, to the same steps."""

    def trained(sim: Simulation) -> list[Event]:
        starts = [e for e in sim.events if isinstance(e, JobStarted) and e.purpose == "train"]
        return [replace(e, at_s=0.0) for e in starts]

    searched = plan(num_candidates=7)
    without = Simulation(searched, curve, slots=1).run()
    assert not [e for e in without.events if isinstance(e, Diagnosed)]
    assert trained(simulated(0, 0.0, 1)) == trained(without)
