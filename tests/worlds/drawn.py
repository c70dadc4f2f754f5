"""Plans, and what becomes of them, drawn at random: every rule at once, every kind of loss."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.worlds.plans import health_bounds, plan
from tests.worlds.scripted import ScriptedSource, Simulation
from tune_rh.plan.schema import Plan
from tune_rh.record.events import MemberId
from tune_rh.record.members import Candidate

SEEDS = [7, 42, 1337, 2024]
STEPS = [20, 40, 70, 120]

# --- plans -----------------------------------------------------------------------------------------------------------


@st.composite
def gates(draw: st.DrawFn) -> dict[str, Any]:
    """What the gate of one stage may say."""
    drawn: dict[str, Any] = {}
    if draw(st.booleans()):
        drawn["top"] = draw(st.integers(1, 4))
    elif draw(st.booleans()):
        drawn["eta"] = draw(st.sampled_from([1.1, 1.5, 2.0, 9.0]))
    drawn["at_least"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        drawn["at_most"] = draw(st.integers(drawn["at_least"], 4))
    drawn["when_idle"] = draw(st.booleans())
    return drawn


RULES = st.fixed_dictionaries(
    {},
    optional={
        "patience_steps": st.sampled_from([10, 30, 60]),
        "gap": st.fixed_dictionaries({"first": st.sampled_from([0.0, 0.25, 1.0]), "widening": st.floats(0, 0.5)}),
        "promote": st.fixed_dictionaries(
            {
                "margin": st.sampled_from([0.0, 0.25, 9.0]),
                "tolerance": st.sampled_from([0.0, 0.5]),
                "healthier": st.just([{"metric": "pulse", "margin": 0.25}, {"metric": "health", "factor": 0.9}]),
            }
        ),
        "stop": st.fixed_dictionaries(
            {
                "delta": st.sampled_from([0.0, 0.1]),
                "window": st.integers(2, 4),
                "slope_steps": st.sampled_from([20, 40]),
                "unless": st.lists(
                    st.sampled_from([{"metric": "pulse", "rose_by": 0.5}, {"metric": "health", "fell_by": 0.1}]),
                    max_size=2,
                ),
            }
        ),
        "health": health_bounds(0, 20, 50),
    },
)
SCORING = st.sampled_from(
    [
        {"band": 0.0, "extra_seeds": 0.0},
        {"band": 0.3, "extra_seeds": 0.5},
        {"band": 0.01, "extra_seeds": 1.0, "band_quota": 3.0},
        {"objective": "best_of_k", "k": 2},
        {"objective": "best_of_k", "k": 2, "success": 1.0},
    ]
)
BUDGETS = st.sampled_from([{}, {}, {"max_steps": 150}, {"max_steps": 700}, {"max_slot_hours": 0.02}])


@st.composite
def by_halving(draw: st.DrawFn) -> Plan:
    """A search by halving with anything that such a plan may have."""
    num_stages = draw(st.integers(1, 4))
    num_seeds = sorted(draw(st.lists(st.integers(1, 4), min_size=num_stages, max_size=num_stages)))
    steps = STEPS[-num_stages:]
    for k in range(num_stages - 1, 0, -1):
        if num_seeds[k] > num_seeds[k - 1] and draw(st.booleans()):
            steps[k - 1] = steps[k]
    # Either each gate has bounds of its own, or quotas are large enough for a band, and for seeds to be bought.
    by_quota = draw(st.booleans())
    bounds = [{} if by_quota else draw(gates()) for _ in range(num_stages - 1)]
    cut_at_once = num_stages > 1 and draw(st.integers(0, 3)) == 0
    tables: list[dict[str, Any]] = []
    if num_stages > 1 and not cut_at_once:
        for after in sorted(draw(st.lists(st.integers(0, num_stages - 2), max_size=3))):
            enters, num = draw(st.integers(0, num_stages - 1)), draw(st.integers(1, 2))
            tables.append({"after": after, "enters": enters, "changes": [{"rate": 0.5}] * num})
            for gate in bounds[enters:after]:
                gate.pop("top", None)
    has_top = any("top" in gate for gate in bounds)
    searched = plan(
        num_candidates=draw(st.integers(5, 14) if by_quota else st.integers(0 if tables else 1, 7)),
        eta=draw(st.sampled_from([1.5, 2.0, 3.0])),
        references=draw(st.sampled_from([[], [], ["good"], ["good", "diverging"]])),
        seeds=SEEDS,
        stages=[
            {"until_step": until, "num_seeds": num, **bound}
            for until, num, bound in zip(steps, num_seeds, [*bounds, {}], strict=True)
        ],
        gates="stop" if cut_at_once else "promote" if has_top or draw(st.booleans()) else "adaptive",
        follow_ups=tables,
        rules=draw(RULES),
        scoring=draw(SCORING),
        audit=draw(st.sampled_from([0, 0, 1, 3])),
        budget=draw(BUDGETS),
    )
    required = ("solid",) if draw(st.booleans()) else ()
    return searched.model_copy(
        update={"require": required, "diagnose": required, "mode": draw(st.sampled_from(["min", "max"]))}
    )


@st.composite
def by_value(draw: st.DrawFn) -> Plan:
    """A search by value with anything that such a plan may have."""
    num_stages = draw(st.integers(1, 4))
    num_seeds = sorted(draw(st.lists(st.integers(1, 4), min_size=num_stages, max_size=num_stages)))
    steps = STEPS[-num_stages:]
    if num_stages > 1 and num_seeds[-2] < num_seeds[-1] and draw(st.booleans()):
        steps = [*steps[:-2], steps[-1], steps[-1]]  # steps first, then seeds
    bounds: list[dict[str, Any]] = []
    for _ in range(num_stages - 1):
        at_least = draw(st.integers(1, 3))
        capped = draw(st.booleans())
        bounds.append({"at_least": at_least} | ({"at_most": draw(st.integers(at_least, 4))} if capped else {}))
    rules = draw(RULES)
    rules.pop("promote", None)
    searched = plan(
        scheduler="value",
        num_candidates=draw(st.integers(1, 14)),
        eta=draw(st.sampled_from([1.5, 2.0, 3.0])),
        references=draw(st.sampled_from([[], [], ["good"], ["good", "diverging"]])),
        seeds=SEEDS,
        stages=[
            {"until_step": until, "num_seeds": num, **bound}
            for until, num, bound in zip(steps, num_seeds, [*bounds, {}], strict=True)
        ],
        rules=rules,
        audit=draw(st.sampled_from([0, 0, 1, 3])),
        budget=draw(st.sampled_from([{}, {"max_steps": 150}, {"max_steps": 1500}, {"max_slot_hours": 0.02}])),
    )
    required = ("solid",) if draw(st.booleans()) else ()
    return searched.model_copy(
        update={"require": required, "diagnose": required, "mode": draw(st.sampled_from(["min", "max"]))}
    )


SEARCHES = by_halving() | by_value()


# --- what becomes of them --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What is reported, and what is lost, as a function of one number; all of it the same however it is asked for."""

    number: int
    share_lost: float
    share_odd: float
    noise: float
    slots: int
    space: int

    def draw(self, *place: object) -> random.Random:
        """Random numbers of one place."""
        return random.Random(f"{self.number} {place}")

    def metrics(self, index: int, seed: int, step: int) -> dict[str, float]:
        """Few levels, so that some tie; now and then a value that is no number, or a metric that is not there."""
        level, at = self.draw(index), self.draw(index, seed, step)
        value = level.randint(0, 8) / 8 + self.noise * self.draw(index, seed).randint(-2, 2)
        value += math.exp(-step / 40)
        reported = {"val_loss": value, "health": level.randint(0, 3) / 2, "pulse": at.randint(0, 5) / 4}
        if at.random() < self.share_odd:
            reported["val_loss"] = at.choice([math.nan, math.inf, -math.inf, value + 1])
        if at.random() < self.share_odd:
            del reported[at.choice(["health", "pulse"])]
        return reported

    def fate(self, index: int, seed: int) -> tuple[Any, int]:
        """How and when a member is lost."""
        at = self.draw("fate", index, seed)
        # Some configs never come through, with any seed.
        share = 1.0 if self.draw("doomed", index).random() < self.share_lost / 2 else self.share_lost
        return (at.choice(["fail", "diverge"]), 10 * at.randint(1, 12)) if at.random() < share else ("none", 10**9)


WORLDS = st.builds(
    World,
    number=st.integers(0, 10**6),
    share_lost=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
    share_odd=st.sampled_from([0.0, 0.0, 0.2]),
    noise=st.sampled_from([1 / 32, 1 / 4]),
    slots=st.integers(1, 6),
    space=st.sampled_from([3, 10**9]),
)


class Elastic(Simulation):
    """A search whose slots come and go."""

    def advance(self, member: MemberId) -> None:
        rng = random.Random(len(self.events))
        if rng.random() < 0.2:
            self.session.on_nodes((), (), rng.randint(1, 6))
        super().advance(member)


def drawn(searched: Plan, world: World, kind: type[Simulation] = Simulation) -> Simulation:
    """A search in a `World`, run to its end: diagnoses may fail or crash as well."""
    refused = {number for number in range(9) if world.draw("refused", number).random() < 0.2}

    def metrics(index: int, seed: int, step: int) -> dict[str, float]:
        reported = world.metrics(index, seed, step)
        return reported if searched.mode == "min" else {**reported, "val_loss": -reported["val_loss"]}

    def diagnosis(candidate: Candidate) -> dict[str, str] | None:
        verdict = world.draw("look", candidate.id).choice(["pass", "pass", "fail", "crash"])
        return None if verdict == "crash" else {"solid": verdict}

    return kind(
        searched,
        metrics,
        fates={(i, seed): world.fate(i, seed) for i in range(20) for seed in SEEDS},
        slots=world.slots,
        order=world.number,
        source=ScriptedSource(searched, space=world.space, refused=refused),
        diagnosis=diagnosis,
    ).run()
