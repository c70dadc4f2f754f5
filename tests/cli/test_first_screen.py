"""What the first screen of a report says is true where the best one is not ahead, seeds were lost, or a run goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analysis.diagnose.api import Finding
from analysis.diagnose.findings import to_json
from tests.analysis.reports.report_files import tokens
from tests.analysis.run_folders import simulate, write_page, write_run
from tests.worlds.plans import plan
from tests.worlds.scripted import Metrics, Simulation
from tune_rh.record.events import Evaluated, Event, MemberId

STAGES = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 3}]
ONE_STAGE = [{"until_step": 20, "num_seeds": 3}]


def first_screen(folder: Path) -> str:
    write_page(folder)
    return (folder / "report" / "report.md").read_text().partition("Figures are in")[0]


def by_seed(values: Mapping[int, Mapping[int, float]]) -> Metrics:
    """What each candidate has with each seed, from the first report on; others are far behind."""
    return lambda index, seed, step: {"val_loss": values.get(index, {}).get(seed, 9.0), "health": 1.0}


def ended_before(folder: Path, metrics: Metrics, last: Callable[[Event], bool], **changes: Any) -> None:
    """A search that was killed before the first event that is ``last``."""
    of = plan(**changes)
    events = Simulation(of, metrics, fates=None, slots=1).run().events
    write_run(folder, of, events[: next(i for i, event in enumerate(events) if last(event))])


def test_who_ranks_first_for_a_narrower_error_is_not_called_ahead(tmp_path: Path) -> None:
    # The second is better in the mean by 0.1, and its seeds differ by so much that its bound is worse.
    values = {
        0: {7: 3.0, 42: 3.01, 1337: 2.99},
        1: {7: 1.0, 42: 1.01, 1337: 0.99},
        2: {7: -0.3, 42: 0.9, 1337: 2.1},
    }
    scoring = {"band": 0.0, "extra_seeds": 0.0}  # each by its own variance
    simulate(tmp_path / "run", by_seed(values), num_candidates=2, stages=ONE_STAGE, scoring=scoring)
    said = first_screen(tmp_path / "run")
    assert "**Best**: c0001" in said
    assert "Ahead of the control by 2.000" in said
    assert re.search(r"In pairs of seeds the next, c0002, is ahead of it by 0\.10\d* \(95% interval -[\d.]+ to ", said)
    assert "what ranks is the mean one standard error to the worse" in said
    assert "In pairs of seeds it is not ahead of c0002." in said
    assert "by -" not in said
    assert "may be chance" not in said


def test_who_lost_a_seed_can_be_ahead_in_those_that_are_left(tmp_path: Path) -> None:
    # The third is at 9, which is what the lost seed counts as.
    values = {0: {7: 1.0, 42: 1.1, 1337: 1.2}, 1: {7: 0.9, 42: 1.0, 1337: 1.1}}
    simulate(tmp_path / "run", by_seed(values), num_candidates=2, stages=ONE_STAGE, fates={(1, 42): ("diverge", 10)})
    said = first_screen(tmp_path / "run")
    assert "**Best**: c0000, the control" in said
    assert "No other candidate that was scored at that step ranks above the control." in said
    assert "In pairs of seeds the next, c0001, is ahead of it by 0.10" in said
    assert "where a lost seed counts as the worst value" in said


def test_a_control_that_is_gone_is_not_beaten_by_an_amount(tmp_path: Path) -> None:
    values = {0: {7: 1.0, 42: 1.1, 1337: 1.2}, 1: {7: 0.9, 42: 1.0, 1337: 1.1}, 2: {7: 1.9, 42: 2.0, 1337: 2.1}}
    # Alive at the first gate, and lost on the way to the end but for one seed that the best one loses.
    fates = {(0, 7): ("diverge", 10), (0, 42): ("diverge", 10), (1, 1337): ("diverge", 10)}
    simulate(tmp_path / "run", by_seed(values), num_candidates=2, stages=ONE_STAGE, fates=fates)
    said = first_screen(tmp_path / "run")
    assert "**Best**: c0001" in said
    assert "How far it is from the control is unknown: no seed came through in both." in said
    assert "It cannot be held against the control: no seed came through in both." in said


def test_lost_seeds_are_in_the_mean_and_not_in_the_deviation_and_that_is_said(tmp_path: Path) -> None:
    values = {0: {7: 5.0, 42: 5.1, 1337: 5.2}, 1: {7: 1.0, 42: 2.0, 1337: 1.2}}
    simulate(tmp_path / "run", by_seed(values), num_candidates=1, stages=ONE_STAGE, fates={(1, 1337): ("diverge", 10)})
    said = first_screen(tmp_path / "run")
    # (1.0 + 2.0 + 5.2) / 3, and the deviation of 1.0 and 2.0.
    assert re.search(
        r"val_loss 2\.73\d* ± 0\.707\d*.*over 3 seeds \(1 lost: the worst value at that gate, and not", said
    )


def test_references_are_no_candidates_that_the_best_was_chosen_from(tmp_path: Path) -> None:
    values = {0: {7: 3.0, 42: 3.0, 1337: 3.0}, 1: {7: 1.0, 42: 1.0, 1337: 1.0}, 2: {7: 2.0, 42: 2.0, 1337: 2.0}}
    simulate(tmp_path / "run", by_seed(values), num_candidates=3, references=["good"], stages=ONE_STAGE)
    said = first_screen(tmp_path / "run")
    assert re.search(r"\*\*Best\*\*: c0002.*, of 4 candidates \(1 reference beside them\)\.", said)


def test_that_the_control_is_best_is_said_of_those_that_were_scored(tmp_path: Path) -> None:
    values = {index: {seed: level for seed in (7, 42, 1337)} for index, level in ((0, 2.0), (1, 3.0), (2, 1.0))}
    ended_before(
        tmp_path / "run",
        by_seed(values),
        lambda event: isinstance(event, Evaluated) and event.member == MemberId("c0002", 1337),
        num_candidates=2,
        stages=ONE_STAGE,
    )
    said = first_screen(tmp_path / "run")
    assert "**Best**: c0000, the control" in said
    assert "Nothing that was tried" not in said


def test_a_limit_that_each_model_has_for_itself_is_shown_as_a_range(tmp_path: Path) -> None:
    simulate(tmp_path / "run", by_seed({}), num_candidates=1, stages=ONE_STAGE)
    for seed, limit in ((7, 0.0312345), (42, 0.0456789)):
        folder = tmp_path / "run" / "members" / f"c0001-s{seed}"
        folder.mkdir(parents=True)
        found = Finding("of_its_own", "pass", ".", {"far": 0.1, "near": 0.2}, {"far": limit, "near": 0.25})
        (folder / "findings.json").write_text(to_json([found]))
    write_page(tmp_path / "run")
    rows = tokens(tmp_path / "run" / "report" / "report.md")[1]
    assert ["far", "0.100", "0.0312 to 0.0457"] in rows
    assert ["near", "0.200", "0.25"] in rows
