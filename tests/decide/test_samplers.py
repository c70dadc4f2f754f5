"""Draws are functions of the history and of the plan's seed, whatever the sampler; what Optuna is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.api import RandomTrial, Space
from tests.worlds.family import EMPTY, SMALL, SPACE
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import SEEDS, ScriptedSource, Simulation, curve
from trainables.registry import build_config, get_family
from tune_rh.decide.extrapolation import Extrapolation
from tune_rh.decide.samplers import Draw, as_ended_trial, as_trial, inside, sampler_of
from tune_rh.plan.kinds import Sampler
from tune_rh.plan.schema import Plan
from tune_rh.record.events import (
    CandidateAdded,
    Evaluated,
    Event,
    JobEnded,
    JobStarted,
    MemberId,
    Promoted,
    SpaceExhausted,
    encode,
)
from tune_rh.record.history import History

optuna.logging.set_verbosity(optuna.logging.WARNING)
SAMPLERS = ["tpe", "tpe-extrapolating", "random", "grid", "qmc"]
FAMILY = get_family("tests.worlds.family:FAMILY")


def draw(settings: Sampler, space: Space, history: History, attempt: int = 0) -> Draw:
    return sampler_of(settings).draw(space, history, attempt)


def added(number: int, drawn: Draw | None, label: str = "") -> CandidateAdded:
    config = build_config(FAMILY, drawn.config if drawn else {}, preset=label or "control")
    params, distributions = (drawn.params, drawn.distributions) if drawn else ({}, {})
    origin = "control" if number == 0 else "preset" if label else "sampler"
    return CandidateAdded(
        f"c{number:04d}", config.model_dump(mode="json"), config.digest(), origin, label, params, distributions
    )


def arrive(candidate: str, value: float, step: int = 20) -> list[Event]:
    """Both seeds of the first stage reach ``step`` with ``value``."""
    events: list[Event] = []
    for seed in (7, 42):
        member = MemberId(candidate, seed)
        events += [
            JobStarted(member, 0, 20, 0.0),
            Evaluated(member, step, {"val_loss": value}, 0.0, 0.0),
            JobEnded(member, "parked", "", 0.0),
        ]
    return events


def search(sampler: Sampler, num: int, space: Space = SPACE) -> tuple[History, list[Event]]:
    """``num`` draws, each scored at the first gate by its floor; duplicates are passed over as a search does."""
    searched = plan(num_candidates=100, sampler=sampler.model_dump())
    events: list[Event] = [added(0, None)]
    history = fold(searched, events)
    for number in range(1, num + 1):
        for attempt in range(100):
            drawn = draw(sampler, space, history, attempt)
            new = added(number, drawn)
            if history.named(new.config_digest) is None:
                break
        else:
            new = SpaceExhausted(100)  # type: ignore[assignment]
        now: list[Event] = [new]
        if isinstance(new, CandidateAdded):
            now += arrive(new.candidate, float(new.config["floor"]))
        for event in now:
            history.apply(event)
        events += now
        if history.space_exhausted:
            break
    return history, events


def configs(history: History) -> list[dict[str, Any]]:
    return [dict(c.added.config) for c in history.candidates.values() if c.index]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_works_on_the_conditional_space(name: str) -> None:
    history, _ = search(Sampler(name=name, startup=3), 12)  # type: ignore[arg-type]
    drawn = [c.added for c in history.candidates.values() if c.index]
    assert len(drawn) == 12
    assert {a.config["kind"] for a in drawn} == {"plain", "bent"}
    for a in drawn:
        assert a.params.keys() == a.distributions.keys()
        assert ("bend" in a.params) == (a.config["kind"] == "bent")
        assert {"kind", "floor", "rate"} <= a.params.keys()
        assert all(a.config[field] == value for field, value in a.params.items())
        assert 0.1 <= a.config["floor"] <= 2.0
        assert 1e-3 <= a.config["rate"] <= 1e-1


AGAIN = """
import json, sys
from tests.worlds.family import SPACE
from tests.worlds.plans import plan
from tune_rh.record.events import decode
from tests.worlds.plans import fold
from tune_rh.plan.kinds import Sampler
from tune_rh.decide.samplers import sampler_of
given = json.load(sys.stdin)
for name, events in given.items():
    sampler = Sampler(name=name, startup=3)
    history = fold(plan(num_candidates=100, sampler=sampler.model_dump()), [decode(line) for line in events])
    print(json.dumps([name, *(sampler_of(sampler).draw(SPACE, history, attempt).config for attempt in (0, 1))]))
"""


def test_another_process_with_the_same_journal_draws_the_same() -> None:
    histories = {name: search(Sampler(name=name, startup=3), 6) for name in SAMPLERS}  # type: ignore[arg-type]
    given = json.dumps({name: [encode(e) for e in events] for name, (_, events) in histories.items()})
    done = subprocess.run(
        [sys.executable, "-c", AGAIN],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    there = [json.loads(line) for line in done.stdout.splitlines()]
    here = []
    for name, (history, _) in histories.items():
        sampler = Sampler(name=name, startup=3)  # type: ignore[arg-type]
        here.append([name, *(dict(draw(sampler, SPACE, history, attempt).config) for attempt in (0, 1))])
    assert there == here


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_leaves_no_trace_in_the_next(name: str) -> None:
    sampler = Sampler(name=name, startup=2)  # type: ignore[arg-type]
    history, _ = search(sampler, 5)
    first = draw(sampler, SPACE, history)
    draw(sampler, SPACE, history, attempt=3)
    assert draw(sampler, SPACE, history) == first


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_the_seed_and_the_number_of_the_draw_enter(name: str) -> None:
    def drawn(seed: int) -> list[dict[str, Any]]:
        return configs(search(Sampler(name=name, startup=3, seed=seed), 5)[0])  # type: ignore[arg-type]

    one = drawn(0)
    assert len({json.dumps(config) for config in one}) == 5
    assert one == drawn(0)
    assert one != drawn(1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_attempt_at_the_same_history_is_another_draw(name: str) -> None:
    sampler = Sampler(name=name, startup=3)  # type: ignore[arg-type]
    history, _ = search(sampler, 2)
    drawn = [json.dumps(draw(sampler, SPACE, history, attempt).config) for attempt in range(8)]
    # A grid has few configs: two draws may be the same.
    assert len(set(drawn)) >= (4 if name == "grid" else 8)


@pytest.mark.parametrize("name", ["tpe", "tpe-extrapolating"])
def test_tpe_learns_from_the_gates(name: str) -> None:
    """The score is the floor: after the random start its draws are lower than random ones."""
    sampler = Sampler(name=name, startup=8)
    history, _ = search(sampler, 30)
    floors = [config["floor"] for config in configs(history)]
    assert sum(floors[:8]) / 8 > 1.3 * sum(floors[-12:]) / 12


def grid_of_small_space(points: int) -> set[tuple[str, float, float, float]]:
    seen = set()
    for floor in range(points):
        for rate in range(points):
            seen.add(("plain", floor, rate, -1.0))
            seen.update(("bent", floor, rate, float(bend)) for bend in range(points))
    return seen  # type: ignore[return-value]


@pytest.mark.parametrize("points", [2, 3])
def test_a_grid_visits_each_config_once_and_then_the_space_is_exhausted(points: int) -> None:
    history, _ = search(Sampler(name="grid", grid_points=points), 100)
    assert history.space_exhausted
    visited = configs(history)
    assert len({json.dumps(c) for c in visited}) == len(visited) == len(grid_of_small_space(points))
    assert len({c["floor"] for c in visited}) == points
    rates = sorted({c["rate"] for c in visited})
    assert (rates[0], rates[-1]) == (1e-3, 1e-1)
    if points == 3:
        assert rates[1] == pytest.approx(1e-2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_space_of_two_is_exhausted_after_two(name: str) -> None:
    # The control is plain itself: one is left.
    history, _ = search(Sampler(name=name), 5, SMALL)  # type: ignore[arg-type]
    assert history.space_exhausted
    assert [c["kind"] for c in configs(history)] == ["bent"]


def test_a_space_that_draws_nothing_draws_the_base() -> None:
    history, _ = search(Sampler(), 3, EMPTY)
    assert (history.space_exhausted, configs(history)) == (True, [])


def test_what_lies_inside_is_replayed_as_it_would_have_been_drawn() -> None:
    trial = RandomTrial(3)
    config = build_config(FAMILY, SPACE.suggest(trial), preset="control").model_dump()
    for name in ("tpe", "random", "qmc"):
        found = inside(Sampler(name=name), SPACE, config)  # type: ignore[arg-type]
        assert found is not None
        assert found.params == trial.params
        assert found.distributions.keys() == trial.params.keys()
        assert build_config(FAMILY, found.config, preset="control").model_dump() == config
    assert inside(Sampler(), SPACE, {**config, "floor": 9.0}) is None
    # A grid visits its own points: a config between them would be none of these.
    assert inside(Sampler(name="grid"), SPACE, config) is None


def simulated(fates: dict[tuple[int, int], Any] | None = None, **changes: Any) -> History:
    class Drawn(ScriptedSource):
        def candidate(self, history: History) -> CandidateAdded:
            number = len(history.candidates)
            return added(number, params(number))

    searched = plan(num_candidates=3, **changes)
    return Simulation(searched, curve, fates=fates, source=Drawn(searched)).run().history


def params(number: int) -> Draw | None:
    if number == 0:
        return None
    return draw(Sampler(name="random"), SPACE, fold(plan(), []), attempt=number)


def test_the_states_that_optuna_is_told() -> None:
    lost = {(3, seed): ("diverge", 10) for seed in (7, 42, 1337)}
    history = simulated(lost)
    trials = {c.id: as_trial(c, history) for c in history.candidates.values()}
    assert trials["c0000"] is None
    stages = {c.id: c.stage for c in history.candidates.values() if c.index}
    finished = [c for c, stage in stages.items() if stage == 2]
    waiting = [c for c in ("c0001", "c0002") if c not in finished]
    assert len(finished) == len(waiting) == 1
    done, pruned, failed = trials[finished[0]], trials[waiting[0]], trials["c0003"]
    assert done is not None
    assert pruned is not None
    assert failed is not None
    index = history.candidates[finished[0]].index
    assert done.state == TrialState.COMPLETE
    assert done.value == history.gates[2].score(index)
    assert done.intermediate_values == {
        step: gate.score(index) for step, gate in zip((20, 60, 120), history.gates, strict=True)
    }
    assert pruned.state == TrialState.PRUNED
    assert pruned.intermediate_values == {20: history.gates[0].score(history.candidates[waiting[0]].index)}
    assert (failed.state, failed.value) == (TrialState.FAIL, None)


def test_what_is_expected_of_candidates_at_different_gates_is_on_one_scale() -> None:
    """Plain TPE puts the one that went on before all others, however bad; its extrapolating form goes by the end."""
    searched = plan(num_candidates=9)
    empty = fold(searched, [])
    events: list[Event] = [added(number, draw(Sampler(), SPACE, empty, number)) for number in range(8)]
    for number in range(1, 7):
        events += arrive(f"c000{number}", float(number))
    for number in (4, 5, 6):
        name = f"c000{number}"
        events += [Promoted(name, 0, "quota", float(number), 0, 6), *arrive(name, number - 0.5, 60)]
    history = fold(searched, events)
    known = Extrapolation(history)
    ended = {c.id: as_ended_trial(c, history, known) for c in history.candidates.values()}
    values = [trial.value for trial in ended.values() if trial and trial.state == TrialState.COMPLETE]
    assert values == sorted(values)  # type: ignore[type-var]
    assert len(values) == 6
    assert [trial.state for trial in ended.values() if trial and trial.value is None] == [TrialState.RUNNING] * 2
    plain = {c.id: as_trial(c, history) for c in history.candidates.values()}
    assert {trial.state for trial in plain.values() if trial} == {TrialState.PRUNED, TrialState.RUNNING}


def test_a_candidate_on_its_way_is_running_and_one_that_went_on_counts_with_its_newest_gate() -> None:
    searched: Plan = plan(num_candidates=3)
    sampler = Sampler()
    empty = fold(searched, [added(0, None)])
    one, two, three = (added(n, draw(sampler, SPACE, empty, n)) for n in (1, 2, 3))
    history = fold(searched, [added(0, None), one, two, three, *arrive("c0001", 1.0)])
    states = [as_trial(history.candidates[f"c000{n}"], history) for n in (1, 2)]
    assert [(t.state, t.intermediate_values) for t in states if t] == [
        (TrialState.PRUNED, {20: 1.0}),
        (TrialState.RUNNING, {}),
    ]


@pytest.mark.parametrize("name", ["c0000", "c0001"])
def test_one_that_was_first_at_the_last_gate_and_lost_all_there_is_a_failure(name: str) -> None:
    """Nobody has shown a value there, so its score is no number; the next draw must not stumble over it."""
    searched = plan(num_candidates=9)
    empty = fold(searched, [])
    events: list[Event] = [added(number, draw(Sampler(), SPACE, empty, number)) for number in range(3)]
    for stage, until in ((0, 20), (1, 60)):
        events += [*arrive(name, 1.0, until), Promoted(name, stage, "quota", 1.0, 0, 1)]
    for seed in SEEDS:
        member = MemberId(name, seed)
        events += [JobStarted(member, 2, 120, 0.0), JobEnded(member, "failed", "out of memory", 0.0)]
    history = fold(searched, events)
    lost = history.candidates[name]
    assert (lost.stage, history.is_complete(lost)) == (2, True)
    trial = as_trial(lost, history)
    assert trial is not None
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.FAIL, None, {20: 1.0, 60: 1.0})
    draw(Sampler(), SPACE, history)


def test_a_preset_outside_of_the_space_teaches_nothing() -> None:
    searched = plan()
    outside = added(1, None, "diverging")
    history = fold(searched, [added(0, None), outside, *arrive("c0001", 1.0)])
    assert as_trial(history.candidates["c0001"], history) is None
    without = fold(searched, [added(0, None)])
    assert draw(Sampler(), SPACE, history) == draw(Sampler(), SPACE, without)
