"""Comparisons in memory: a family of six switches without a model, and values that are a function of what is run."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator

from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation
from trainables.api import Family, Metric
from trainables.config import FrozenConfig
from tune_rh.decide import comparison as compare
from tune_rh.decide.ddmin import Keys
from tune_rh.plan.schema import Plan
from tune_rh.record.events import JobStarted
from tune_rh.record.members import Candidate, Member
from tune_rh.run.family_source import family_source

SIX = "abcdef"
Value = Callable[[Keys, int, int], float]
"""(keys as in B, seed, step) -> the objective."""


class Switches(FrozenConfig):
    """``tied``: e and f go together. ``barred``: a and b are not to be on without c or d."""

    data: Literal["none"] = "none"
    rule: Literal["free", "tied", "barred"] = "free"
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0
    f: int = 0

    @model_validator(mode="after")
    def _rules(self) -> Switches:
        if self.rule == "tied" and self.e != self.f:
            raise ValueError("e and f go together")
        if self.rule == "barred" and self.a and self.b and not (self.c or self.d):
            raise ValueError("a and b need c or d")
        return self


LOSS = Metric("val_loss", "min", "nats", "given")
PRESETS: dict[str, dict[str, Any]] = {"A": {}, "B": dict.fromkeys(SIX, 1)}
for _rule in ("tied", "barred"):
    PRESETS |= {f"{name}-{_rule}": {**PRESETS[name], "rule": _rule} for name in "AB"}
FAMILY = Family(
    name="switches",
    summary="six switches",
    config="tests.worlds.compared:Switches",
    model="tests.worlds.family:build_model",  # never built: a simulation trains nothing
    task="tests.worlds.family:ScriptedTask",
    data="tests.worlds.family:SOURCE",
    objective=LOSS,
    metrics=(LOSS,),
    presets=PRESETS,
)
MAXIMISED = replace(FAMILY, objective=replace(LOSS, mode="max"))


def comparison(*, steps: int = 10, num_seeds: int = 8, **changes: Any) -> Plan:
    """A against B, ``num_seeds`` pairs, an evaluation every 10 steps; keys of `Compare` go to ``compare``."""
    fields: dict[str, Any] = {
        "family": "tests.worlds.compared:FAMILY",
        "control": "A",
        "presets": ["B"],
        "num_candidates": 1,
        "seeds": list(range(num_seeds)),
        "stages": [{"until_step": steps, "num_seeds": num_seeds}],
        "compare": {},
        **changes,
    }
    return plan(**fields)


class Compared(Simulation):
    """A comparison whose values are ``value(keys as in B, seed, step)``; fates are by index: 0 is A, 1 is B."""

    def __init__(self, compared: Plan, value: Value, **options: Any) -> None:
        super().__init__(compared, value, **{"source": family_source(compared), **options})

    def reported(self, candidate: Candidate, seed: int, step: int) -> dict[str, float]:
        """See `Simulation`."""
        return {"val_loss": self.metrics(switched(candidate), seed, step)}

    def midpoints(self) -> list[Candidate]:
        """The configs between A and B that were run."""
        return list(self.history.candidates.values())[2:]

    def members(self) -> list[Member]:
        """All of them."""
        return [m for c in self.history.candidates.values() for m in c.members.values()]

    def trained(self) -> list[str]:
        """Members in the order in which they were started to train."""
        return [str(e.member) for e in self.events if isinstance(e, JobStarted) and e.purpose == "train"]


def switched(candidate: Candidate) -> Keys:
    """The switches that are on."""
    return frozenset(key for key in SIX if candidate.added.config[key])


def noise_free(*guilty: Collection[str]) -> Value:
    """0.3 and what the seed adds to all alike; 0.25 more where all keys of any of ``guilty`` are as in B."""

    def value(keys: Keys, seed: int, step: int) -> float:
        worse = any(frozenset(some) <= keys for some in guilty)
        return 0.3 + seed / 64 + 0.25 * worse + 10.0 / step

    return value


def by_pair(differences: Mapping[int, float] | list[float]) -> Value:
    """B is ``differences[seed]`` from A."""
    return lambda keys, seed, _step: 1.0 + (differences[seed] if keys else 0.0)


def bimodal(rng: random.Random) -> float:
    """One seed in three finds the good minimum."""
    return rng.gauss(0.19 if rng.random() < 1 / 3 else 0.335, 0.01)


def causes(sim: Compared) -> list[str] | None:
    """What a bisection that is over has found; None where there was none or it is not over."""
    state = compare.bisection(sim.history)
    return None if state is None or state.wanted else ["".join(sorted(cause)) for cause in state.causes]
