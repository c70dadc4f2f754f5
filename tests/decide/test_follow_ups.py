"""Follow-ups and references from the plan's file to the report: refused before launch, made, passed over, shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import model_validator

from analysis.reports.page.facts import gather
from analysis.reports.page.tables import candidates_table
from analysis.view import FunnelRow
from tests.simulation.test_simulate import Watched
from tests.simulation.test_simulate import plan as on_curves
from tests.simulation.test_simulate import table as curve_table
from tests.worlds.family import FAMILY, ScriptedConfig
from tests.worlds.plans import fields, plan
from tests.worlds.records import NoMirror, decided, finish, make, of, open_search, records
from tests.worlds.scripted import next_job
from tune_rh.api import load
from tune_rh.cli.main import main
from tune_rh.decide.scheduler import Finish
from tune_rh.errors import PlanError
from tune_rh.record.events import CandidateAdded, FollowUpSkipped, Promoted, decode, encode
from tune_rh.record.history import History
from tune_rh.record.ranking import describe, funnel, ranking
from tune_rh.run import runs
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.preflight import check_plan
from tune_rh.simulation.clock import Conditions
from tune_rh.simulation.table_source import repeat

pytestmark = pytest.mark.usefixtures("no_drawing")

# --- before launch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"references": ["same-as-control"]}, ["references: 'same-as-control' is the same config as another"]),
        (
            {"follow_ups": [{"after": 0, "changes": [{"rate": 0.5}, {"floor": 11.0}]}]},
            ["follow_ups[0]: no config that may win allows it", "preset 'control' with floor = 11.0: floor = 11.0"],
        ),
        (
            {"follow_ups": [{"after": 0, "changes": [{"nosuch": 1}]}]},
            ["preset 'control' with nosuch = 1: nosuch = 1: there is no such key"],
        ),
        (
            {"fixed": {"noise": 0.5}, "follow_ups": [{"after": 0, "changes": [{"noise": 0.1}]}]},
            ["follow_ups[0]: noise is in [fixed], so no candidate may change it"],
        ),
        (
            {"follow_ups": [{"after": 0, "changes": [{"data": "absent"}]}]},
            ["follow_ups[0]: data = 'absent' is another data set"],
        ),
    ],
)
def test_what_cannot_be_made_is_refused(changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(plan(**changes))
    assert [part for part in said if part not in str(caught.value)] == [], caught.value


# In this family a and b may be on only where c or d is.
BARRED: dict[str, Any] = {
    "family": "tests.worlds.compared:FAMILY",
    "space": "",
    "control": "A-barred",
    "num_candidates": 1,
}
BOTH = {"after": 0, "changes": [{"a": 1, "b": 1}]}


def test_what_some_winner_allows_is_no_mistake() -> None:
    check_plan(plan(**BARRED, presets=["B-barred"], follow_ups=[BOTH]))
    alone = {**BARRED, "num_candidates": 0}
    with pytest.raises(PlanError, match="no config that may win allows it\npreset 'A-barred' with a = 1, b = 1"):
        check_plan(plan(**alone, follow_ups=[BOTH]))
    # A follow-up of the table before may win, one of the same table may not.
    check_plan(plan(**alone, follow_ups=[{"after": 0, "changes": [{"c": 1}]}, BOTH]))
    with pytest.raises(PlanError, match="no config that may win allows it"):
        check_plan(plan(**alone, follow_ups=[{"after": 0, "changes": [{"c": 1}, *BOTH["changes"]]}]))


class NarrowConfig(ScriptedConfig):
    @model_validator(mode="after")
    def _together(self) -> NarrowConfig:
        if self.span * self.rate > 0.0625:
            raise ValueError(f"span x rate = {self.span * self.rate:g}, at most 0.0625")
        return self


NARROW = replace(
    FAMILY,
    config="tests.decide.test_follow_ups:NarrowConfig",
    presets={"control": {"floor": 1.0}, "wide": {"floor": 0.5}, "thin": {"floor": 0.25, "rate": 0.03125}},
)

# --- a search --------------------------------------------------------------------------------------------------------

SEARCH: dict[str, Any] = {
    "space": "tests.worlds.family:SPACE",
    "control": "control",
    "presets": ["good", "worse"],
    "references": ["flat"],
    "configs": {
        "worse": {"preset": "good", "fields": {"floor": 0.5}},
        "flat": {"fields": {"rate": 0.0}, "patience_steps": 20},
    },
    "num_candidates": 2,
    "seeds": [7, 42],
    "stages": [
        {"until_step": 20, "num_seeds": 1, "top": 1},
        {"until_step": 40, "num_seeds": 2, "top": 2},
        {"until_step": 60, "num_seeds": 2},
    ],
    "follow_ups": [
        {"after": 0, "changes": [{"floor": 0.5}, {"rate": 0.1}]},
        {"after": 0, "enters": 1, "changes": [{"kind": "bent", "bend": 0.0625}]},
    ],
    "resources": {"max_failures": 0},
}


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study, and no waiting for the disk: neither decides anything."""
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.mark.usefixtures("light")
def test_follow_ups_are_the_winners_config_with_its_changes(tmp_path: Path) -> None:
    check_plan(plan(**SEARCH))
    paths = make(tmp_path / "run", **SEARCH)
    history = finish(paths)
    added = {e.candidate: e for e in of(paths, CandidateAdded)}
    assert [(c.added.origin, c.added.label, c.added.parent) for c in history.candidates.values()] == [
        ("control", "control", None),
        ("reference", "flat", None),
        ("preset", "good", None),
        ("preset", "worse", None),
        # The winner is the preset `good`; with floor = 0.5 it is the preset `worse`, and is passed over.
        ("follow_up", "c0002 with rate = 0.1", "c0002"),
        ("follow_up", "c0004 with kind = bent, bend = 0.0625", "c0004"),
    ]
    assert of(paths, FollowUpSkipped) == [
        FollowUpSkipped("c0002", "c0002 with floor = 0.5", "c0003 is the same config")
    ]
    assert added["c0004"].config == {**added["c0002"].config, "rate": 0.1}
    assert added["c0005"].config == {**added["c0004"].config, "kind": "bent", "bend": 0.0625}
    assert [(c.id, c.added.ranked_from, c.stage) for c in history.candidates.values()] == [
        ("c0000", 0, 2),
        ("c0001", 3, 2),
        ("c0002", 0, 0),
        ("c0003", 0, 0),
        ("c0004", 0, 2),
        ("c0005", 1, 2),
    ]
    # Inside the space they are told to the sampler as presets are.
    assert added["c0004"].params == {"kind": "plain", "floor": 0.25, "rate": 0.1}
    assert added["c0005"].params == {"kind": "bent", "floor": 0.25, "rate": 0.1, "bend": 0.0625}
    assert isinstance(next_job(history.plan, history), Finish)
    before = records(paths)
    finish(paths)
    assert records(paths) == before


@pytest.mark.usefixtures("light")
def test_a_follow_up_keeps_the_patience_of_its_winner(tmp_path: Path) -> None:
    configs = {"patient": {"preset": "good", "patience_steps": 30}, **SEARCH["configs"]}
    paths = make(tmp_path / "run", **{**SEARCH, "configs": configs, "presets": ["patient"], "num_candidates": 1})
    finish(paths)
    patience = {e.candidate: e.patience_steps for e in of(paths, CandidateAdded) if e.origin == "follow_up"}
    assert patience == {"c0003": 30, "c0004": 30, "c0005": 30}


@pytest.mark.usefixtures("light")
def test_one_that_the_winner_does_not_allow_is_passed_over_and_the_search_goes_on(tmp_path: Path) -> None:
    """Over the control it is valid, so it is no mistake of the plan; over the winner it is not."""
    narrow = {"family": "tests.decide.test_follow_ups:NARROW", "space": "", "num_candidates": 2, "control": "control"}
    tables = [{"after": 0, "changes": [{"span": 3.0}, {"floor": 0.125}]}]
    changes = {**SEARCH, **narrow, "presets": ["wide", "thin"], "references": [], "configs": {}, "follow_ups": tables}
    check_plan(plan(**changes))
    paths = make(tmp_path / "run", **changes)
    finish(paths)
    (skipped,) = of(paths, FollowUpSkipped)
    assert (skipped.parent, skipped.label) == ("c0002", "c0002 with span = 3.0")
    assert skipped.reason == "c0002 with span = 3.0: span x rate = 0.09375, at most 0.0625"
    assert [e.label for e in of(paths, CandidateAdded)][3:] == ["c0002 with floor = 0.125"]


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("cut", [0.2, 0.4, 0.6, 0.8])
def test_a_search_that_was_cut_short_makes_the_same_follow_ups(tmp_path: Path, cut: float) -> None:
    whole = make(tmp_path / "whole", **SEARCH)
    finish(whole)
    paths = make(tmp_path / "run", **SEARCH)
    lines = whole.journal.read_text().splitlines(keepends=True)
    run, search = open_search(paths)
    runner, at = LocalRunner(run), int(cut * len(lines))
    search.listeners.append(lambda _event: search.request_stop() if len(records(paths)) >= at else None)
    runner.run(search)
    search.close("interrupted")
    finish(paths)
    assert decided(paths) == decided(whole)


@pytest.mark.usefixtures("light")
def test_presets_that_are_passed_over_leave_nobody_waiting(tmp_path: Path) -> None:
    changes = {**SEARCH, "space": "", "presets": ["good", "same-as-control", "good"], "num_candidates": 3}
    history = finish(make(tmp_path / "run", **changes))
    assert history.space_exhausted
    assert [c.added.origin for c in history.candidates.values()][:3] == ["control", "reference", "preset"]
    assert history.follow_ups[0].added.label == "c0002 with floor = 0.5"


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, History]:
    root = tmp_path_factory.mktemp("follow-ups") / "runs" / "scripted"
    root.parent.mkdir()
    paths = make(root, **SEARCH)
    return root, finish(paths)


def test_references_are_shown_and_are_never_the_best(searched: tuple[Path, History]) -> None:
    _, history = searched
    by_id = {row.candidate: row for row in ranking(history)}
    assert by_id.keys() == {"c0000", "c0001", "c0004", "c0005"}
    assert by_id["c0001"].is_reference
    assert by_id["c0001"].label == "reference: flat"
    assert [row.candidate for row in ranking(history) if row.may_win] == ["c0004", "c0005", "c0000"]
    assert describe(history.candidates["c0005"]) == "follow-up: c0004 with kind = bent, bend = 0.0625"
    # The control and references are left out; who does not compete at the first gate passes it beside its top.
    counts = [(20, 1, 4, 4, 2), (40, 2, 2, 2, 2), (60, 2, 2, 2, 2)]
    assert funnel(history) == [FunnelRow(*row, audited=0, lost_seeds=0) for row in counts]


@pytest.mark.usefixtures("light")
def test_guests_of_a_gate_take_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(**SEARCH)))
    places = ("--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data"))
    assert main(["search", str(tmp_path / "plan.toml"), "--runner", "local", *places]) == 0
    lines = [line.partition(", score")[0] for line in capsys.readouterr().out.splitlines() if "passes gate 1" in line]
    assert lines == [
        "c0004  passes gate 1 (top, place 1 of 3",
        "c0000  passes gate 1 (control)",
        "c0001  passes gate 1 (reference, would be place 4 of 4",
        "c0005  passes gate 1 (follow_up, would be place 2 of 4",
    ]


def test_status_shows_what_was_made_and_what_was_not(
    searched: tuple[Path, History], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = searched
    assert main(["status", "scripted", "--runs-dir", str(root.parent)]) == 0
    out = capsys.readouterr().out
    assert "follow-up: c0002 with rate = 0.1" in out
    assert "reference: flat" in out
    assert "passed over: c0002 with floor = 0.5 (c0003 is the same config)" in out
    assert "control and references left out" in out


def test_the_report_tells_follow_ups_and_references_from_others(searched: tuple[Path, History]) -> None:
    root, _ = searched
    facts = gather(load(root), "finished")
    rows = {row[0].text: row[1].text for row in candidates_table(facts).rows}
    assert rows == {
        "c0000": "control (control)",
        "c0001": "flat (reference)",
        "c0002": "good",
        "c0003": "worse",
        "c0004": "follow-up: c0002 with rate = 0.1",
        "c0005": "follow-up: c0004 with kind = bent, bend = 0.0625",
    }
    assert facts.best is not None
    assert facts.best.candidate == "c0004"
    assert facts.over_control is not None
    assert facts.over_control.other == "c0000"
    assert [(r.entered, r.scored, r.passed) for r in facts.run.funnel] == [(4, 4, 2), (2, 2, 2), (2, 2, 2)]
    assert {"reference", "follow_up"} <= {d.reason for d in facts.run.decisions}
    parents = facts.tables.candidates.set_index("candidate")["parent"]
    assert (parents["c0004"], parents["c0005"]) == ("c0002", "c0004")


def test_a_dry_run_shows_what_follows_and_what_it_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(**SEARCH)))
    assert main(["search", str(tmp_path / "plan.toml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "references flat" in out
    assert "After gate 1: its winner with rate = 0.1." in out
    assert "After gate 1: its winner with kind = bent, bend = 0.0625, ranked from gate 2 on." in out
    assert "Follow-ups are about" in out


def test_events_survive_their_journal(searched: tuple[Path, History]) -> None:
    root, _ = searched
    found = of(runs.find(str(root), root.parent), CandidateAdded, FollowUpSkipped, Promoted)
    assert [decode(encode(event)) for event in found] == found
    old = '{"event":"CandidateAdded","candidate":"c0001","config":{},"config_digest":"x","origin":"preset"}'
    assert decode(old) == CandidateAdded("c0001", {}, "x", "preset", parent=None, ranked_from=0)


# --- on recorded curves ----------------------------------------------------------------------------------------------

ON_TABLE: dict[str, Any] = {
    "follow_ups": [{"after": 0, "enters": 1, "changes": [{"rate": 0.3}, {"rate": 0.9}]}],
    "references": ["good"],
    "rules": {"gap": {"first": 0.5}},
}


def test_on_a_table_a_follow_up_is_the_nearest_config_that_was_not_tried() -> None:
    table = curve_table()
    for seed in range(5):
        watched = Watched(table, Conditions(workers=2), seed, **ON_TABLE)
        history = watched.history
        assert isinstance(watched.answer, Finish)
        assert not history.references
        tried = [watched.source.config_of(name) for name in history.candidates]
        for wanted, follow_up in zip((0.3, 0.9), history.follow_ups, strict=True):
            before = set(tried[: follow_up.index])
            free = [i for i in range(len(table.configs)) if i not in before]
            nearest = min(free, key=lambda i: abs(float(table.configs[i]["rate"]) - wanted))
            assert watched.source.config_of(follow_up.id) == nearest
            parent, rate = follow_up.added.parent, f"{wanted}"
            assert follow_up.added.label == f"{parent} with rate = {rate}: {table.labels[nearest]}"
        assert len({follow_up.added.parent for follow_up in history.follow_ups}) == 1
        assert all(c.stage >= 1 or c.barred for c in history.follow_ups)


def test_on_a_table_without_another_config_follow_ups_are_passed_over() -> None:
    table = curve_table(14)
    history = Watched(table, Conditions(workers=2), **ON_TABLE).history
    assert [(len(history.follow_ups), e.reason) for e in history.skipped] == [(1, "falling has no other config")]


def test_on_a_table_without_the_parameter_follow_ups_are_refused() -> None:
    tables = [{"after": 0, "changes": [{"rate": 0.3}, {"depth": 3}]}]
    with pytest.raises(PlanError, match=r"follow_ups\[0\].changes: depth is no parameter of falling, which has rate"):
        next(repeat(on_curves(follow_ups=tables), curve_table(), Conditions(), 1))
