"""Candidates on another schedule than the control's are marked wherever a gate has ranked them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.reports.page.facts import gather
from analysis.reports.page.words import answers
from analysis.search.schedules import apart, ranked_apart
from analysis.tables import RunTables
from tests.analysis.run_folders import read_run, write_run
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import Simulation
from tune_rh.record.events import CandidateAdded, Event, Promoted, SessionEnded
from tune_rh.results.lines import line

STAGES = [{"until_step": step, "num_seeds": 1} for step in (20, 60, 120)]
MARK = "schedule_steps = 20, the control's 120"


@pytest.mark.parametrize(
    ("config", "control", "step", "expected"),
    [
        ({"schedule_steps": 20}, {"schedule_steps": 120}, 20, MARK),
        ({"schedule_steps": 20}, {"schedule_steps": 120}, 119, MARK),
        ({"schedule_steps": 20}, {"schedule_steps": 120}, 120, ""),
        ({"schedule_steps": 120}, {"schedule_steps": 20}, 60, "schedule_steps = 120, the control's 20"),
        ({"schedule_steps": 20}, {"schedule_steps": 20}, 5, ""),
        ({"lr": 0.1}, {"schedule_steps": 20}, 5, ""),
        ({"schedule_steps": 20}, {}, 5, ""),
        ({"schedule_steps": 20}, None, 5, ""),
    ],
)
def test_schedules_differ_until_both_have_come_to_their_end(
    config: dict[str, Any], control: dict[str, Any] | None, step: int, expected: str
) -> None:
    assert apart(config, control, step) == expected


def events_with(lengths: dict[str, int]) -> list[Event]:
    """A finished search of four candidates, of which the first ones lead; its configs with lengths of schedules."""
    of = plan(num_candidates=4, stages=STAGES, seeds=[1])
    done = Simulation(of, lambda index, seed, step: {"val_loss": index + 1 / step}).run()
    return [
        replace(event, config={**event.config, "schedule_steps": lengths.get(event.candidate, 120)})
        if isinstance(event, CandidateAdded)
        else event
        for event in (*done.events, SessionEnded(1, 0.0, "finished"))
    ]


def test_the_line_of_a_gate_and_the_first_screen_say_so(tmp_path: Path) -> None:
    of, events = plan(num_candidates=4, stages=STAGES, seeds=[1]), events_with({"c0001": 20, "c0004": 20})
    history = fold(of, events)
    passes = [line(history, event) for event in events if isinstance(event, Promoted)]
    assert {text.split()[0] for text in passes if MARK in text} == {"c0001"}
    assert sum(MARK in text for text in passes) == 2
    run = read_run(write_run(tmp_path / "run", of, events))
    assert ranked_apart(run) == {"c0001": MARK, "c0004": MARK}
    (doubt,) = [answer for answer in answers(gather(RunTables(run), "finished")) if answer.word == "What to doubt"]
    (said,) = [point for point in doubt.points if "schedules" in point]
    assert f"than the control: c0001 ({MARK}) and c0004 ({MARK})." in said


def test_equal_schedules_are_not_spoken_of(tmp_path: Path) -> None:
    of, events = plan(num_candidates=4, stages=STAGES, seeds=[1]), events_with({})
    assert ranked_apart(read_run(write_run(tmp_path / "run", of, events))) == {}
    assert not any("schedule" in line(fold(of, events), event) for event in events if isinstance(event, Promoted))
