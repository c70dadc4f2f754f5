"""A search by the value of information: what it prefers where the answer is known, its budget, and what is refused."""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.plans import fold, plan
from tests.worlds.records import finish, make
from tests.worlds.scripted import Simulation, check_accounts, curve, next_job
from tune_rh.decide.extrapolation import Extrapolation, current
from tune_rh.decide.scheduler import scheduler_of
from tune_rh.errors import PlanError
from tune_rh.plan import cost
from tune_rh.plan.file import resolve_plan
from tune_rh.record.events import CandidateAdded, Evaluated, Promoted
from tune_rh.record.ranking import about_packages
from tune_rh.results.lines import line
from tune_rh.results.reading import read

STAGES = [
    {"until_step": 20, "num_seeds": 1},
    {"until_step": 60, "num_seeds": 1},
    {"until_step": 120, "num_seeds": 1},
]


def by_value(metrics: Any = curve, slots: int = 1, **changes: Any) -> Simulation:
    fields = {"scheduler": "value", "stages": STAGES, "num_candidates": 60, "budget": {"max_steps": 3000}, **changes}
    return Simulation(plan(**fields), metrics, slots=slots, order=1).run()


def falling(level: Any, noise: float = 0.0) -> Any:
    """Curves of a level that is a function of (candidate, share of the run), with noise of seeds."""

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        wobble = noise * random.Random(f"{index} {seed}").gauss(0, 1)
        return {"val_loss": 30 * (1 - step / 120) + level(random.Random(index), step / 120) + wobble}

    return metrics


def num_by_stage(sim: Simulation) -> list[int]:
    """How many candidates came to each stage."""
    return [sum(c.stage >= k for c in sim.others()) for k in range(len(sim.plan.stages))]


# --- where the answer is known ---------------------------------------------------------------------------------------


def test_where_early_ranks_hold_few_are_taken_further() -> None:
    """Parallel curves without noise: the first reading says it all."""
    stable = by_value(falling(lambda rng, _share: rng.gauss(0, 1)))
    assert num_by_stage(stable)[0] > 2 * num_by_stage(stable)[1]
    best = min(stable.others(), key=lambda c: min(m.curve.best for m in c.members.values()))
    assert best.stage >= 2


def test_where_early_ranks_mean_nothing_more_go_the_whole_way() -> None:
    def crossing(rng: random.Random, share: float) -> float:
        early, late = rng.gauss(0, 1), rng.gauss(0, 1)
        return late if share == 1 else early

    stable = by_value(falling(lambda rng, _share: rng.gauss(0, 1)))
    luck = by_value(falling(crossing))
    share = [num_by_stage(sim)[2] / num_by_stage(sim)[0] for sim in (stable, luck)]
    assert share[1] > 1.5 * share[0], (num_by_stage(stable), num_by_stage(luck))


def test_seeds_are_bought_where_noise_leaves_the_choice_open() -> None:
    """Halving over steps buys none: all that get a second seed at the last step get it for what it is worth."""
    stages = [*STAGES, {"until_step": 120, "num_seeds": 2}, {"until_step": 120, "num_seeds": 3}]

    def bought(noise: float) -> int:
        level = falling(lambda rng, _share: 0.3 * rng.gauss(0, 1), noise)
        sim = by_value(level, stages=stages, budget={"max_steps": 6000}, num_candidates=100)
        assert {p.reason for p in sim.promoted() if p.gate >= 2} <= {"value", "control", "at_least"}
        return sum(p.gate >= 2 and p.reason == "value" for p in sim.promoted())

    assert bought(0.3) > 2 * bought(0.0)


# --- what is refused, and what it keeps to ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("gates = 'stop'", {"gates": "stop"}),
        ("follow_ups = ", {"follow_ups": [{"after": 0, "changes": [{"rate": 0.1}]}]}),
        ("rules.promote = ", {"rules": {"promote": {"margin": 0.1}}}),
        ("scoring.objective = 'best_of_k'", {"scoring": {"objective": "best_of_k", "band": 0, "extra_seeds": 0}}),
        ("scoring.band = 0.4", {"scoring": {"band": 0.4}}),
        ("scoring.extra_seeds = 0.9", {"scoring": {"extra_seeds": 0.9}}),
        (r"stages\[1\].top = 3", {"stages": [STAGES[0], {**STAGES[1], "top": 3}, STAGES[2]]}),
        (r"stages\[0\].when_idle = False", {"stages": [{**STAGES[0], "when_idle": False}, *STAGES[1:]]}),
    ],
)
def test_what_it_has_no_use_for_is_refused_by_name(field: str, changes: dict[str, Any]) -> None:
    plan(**changes)  # of a search by halving it may be said
    with pytest.raises(PlanError, match=f'{field}.*: scheduler = "value" decides by itself'):
        plan(scheduler="value", **changes)


@pytest.mark.parametrize("scoring", [{}, {"band": 0, "extra_seeds": 0}])
def test_what_is_off_or_left_out_is_allowed_and_kept_by_the_plan_on_disk(scoring: dict[str, Any]) -> None:
    searched = plan(scheduler="value", scoring=scoring)
    assert resolve_plan(tomllib.loads(searched.toml())) == searched


def test_it_is_of_searches_alone() -> None:
    with pytest.raises(PlanError, match="scheduler = 'value': is not for a race, which takes 'race'"):
        scheduler_of(
            plan(scheduler="value", unit="member", num_candidates=0, stages=[{"until_step": 20, "num_seeds": 3}])
        )


@pytest.mark.parametrize("slots", [1, 4])
def test_the_budget_is_spent_and_no_candidate_begins_after_it(slots: int) -> None:
    sim = by_value(slots=slots)
    check_accounts(sim)
    spent, by_then = 0, 0
    for event in sim.events:
        if isinstance(event, Evaluated):
            spent += sim.plan.eval_every
        if isinstance(event, CandidateAdded) or (isinstance(event, Promoted) and event.reason in ("value", "quota")):
            by_then = spent
    assert by_then <= 3000
    # What is left is less than the shortest stage that could run, whoever the control waits for.
    assert 3000 - 40 < spent <= 3000
    assert sim.history.max_stage == 2


def test_without_a_budget_it_spends_what_halving_is_expected_to_cost() -> None:
    sim = by_value(budget={}, num_candidates=20)
    expected = sum(row.steps for row in cost.expected(sim.plan))
    assert 0.9 * expected <= sim.history.steps_spent <= 1.1 * expected


def test_it_ends_early_where_nothing_is_left_to_do() -> None:
    sim = by_value(num_candidates=3, budget={"max_steps": 10**6})
    check_accounts(sim)
    assert num_by_stage(sim) == [3, 3, 3]


def test_every_second_decision_is_one_of_halving() -> None:
    sim = by_value()
    reasons = [p.reason for p in sim.promoted() if p.reason != "control"]
    assert {"value", "quota"} <= set(reasons) <= {"value", "quota", "at_least"}


# --- what is said of it ----------------------------------------------------------------------------------------------


def test_all_that_was_chosen_for_its_value_says_what_is_expected_of_it() -> None:
    """Draws as well as promotions: in the journal, the log, the decisions and what is said of the whole run."""
    sim = by_value()
    chosen = [e for e in sim.events if isinstance(e, CandidateAdded | Promoted) and e.gain is not None]
    assert {type(event) for event in chosen} == {CandidateAdded, Promoted}
    assert [e for e in chosen if isinstance(e, Promoted)] == [p for p in sim.promoted() if p.reason == "value"]
    for event in chosen:
        assert event.gain is not None
        assert event.gain >= 0
        assert event.towards is not None
        assert (event.gate if isinstance(event, Promoted) else -1) < event.towards < len(STAGES)
        stage = STAGES[event.towards]
        assert f"; expected gain {event.gain:.2g} if taken to step {stage['until_step']} with 1 seed" in line(
            sim.history, event
        )
    decided = [(d.candidate, d.gain, d.towards) for d in sim.history.decisions if d.reason == "value"]
    assert decided == [(e.candidate, e.gain, e.towards) for e in chosen]
    num = sum(isinstance(event, CandidateAdded) for event in chosen)
    assert about_packages(sim.history)[0].startswith(
        f"Chosen by the value of information: draws {num}, promotions {len(chosen) - num}; last "
        f"{chosen[-1].candidate}, for an expected gain of {chosen[-1].gain:.2g} at step "
    )


def test_what_is_drawn_because_too_little_is_known_or_by_halvings_turn_has_no_gain() -> None:
    sim = by_value()
    drawn = [event for event in sim.events if isinstance(event, CandidateAdded)]
    assert [event.gain for event in drawn[:9]] == [None] * 9  # the control, and those before anything is weighed
    assert any(event.gain is None for event in drawn[9:])
    assert about_packages(fold(sim.plan, sim.events[:9])) == ()


def test_status_and_page_say_what_was_chosen_and_how_much_is_known_at_each_gate(tmp_path: Path) -> None:
    stages = [
        {"until_step": 20, "num_seeds": 1},
        {"until_step": 60, "num_seeds": 1},
        {"until_step": 120, "num_seeds": 2},
    ]
    paths = make(tmp_path / "run", scheduler="value", stages=stages)
    finish(paths)
    remarks = read(paths).run.remarks
    assert len(remarks) == 2
    assert re.match(
        r"Chosen by the value of information: draws \d, promotions \d; last c000\d, for an expected", remarks[0]
    )
    words = r"known at each gate, learnt from 9 of them: \d+% at step 20 with 1 seed, \d+% .* step 120 with 2 seeds\.$"
    assert re.search(words, remarks[1])
    finish(paths)  # and resumes
    assert read(paths).run.remarks == remarks


# --- the fit ---------------------------------------------------------------------------------------------------------


def test_a_fit_is_kept_while_a_new_one_would_be_the_same() -> None:
    sim = by_value()
    last: Extrapolation | None = None
    fits = 0
    for cut in range(1, len(sim.events), 5):
        history = fold(sim.plan, sim.events[:cut])
        now = current(history, None)
        assert now.chain == Extrapolation(history).chain
        fits += last is None or now.chain != last.chain
        last = now
    assert fits > 10
    history = fold(sim.plan, sim.events)
    kept = current(history, None)
    assert current(history, kept) is kept
    assert current(fold(sim.plan, sim.events), kept) is not kept


def test_a_scheduler_with_a_past_decides_as_one_without() -> None:
    sim = by_value(slots=3)
    for decided in sim.decisions[::7]:
        assert next_job(sim.plan, fold(sim.plan, sim.events[: decided.num_events]), decided.prefer) == decided.decision
