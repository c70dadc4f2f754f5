"""Ways to set up our own search on a table: those that were tried, and the one that was chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tune_rh.plan.kinds import Budget, Sampler, Search
from tune_rh.plan.stages import Scoring, Stage, stage_steps
from tune_rh.simulation.curve_table import CurveTable

NINTH = (1 / 9, 1 / 3, 1.0)
TWENTIETH = (1 / 20, 1 / 4, 1.0)
MANY = (1 / 20, 1 / 9, 1 / 4, 1 / 2, 1.0)
"""Stage ends as fractions of a full run; a peer's shortest trial is the first of them."""
BARE = (("band", 0.0), ("extra_seeds", 0.0))


@dataclass(frozen=True)
class Setting:
    """One way to set up our own search.

    Attributes:
        ends: stage ends as fractions of a full run.
        seeds: of each stage; what is more than there are ends are stages at the last step, for seeds alone.
        load: share of the budget that the candidates are expected to need, if each gate promotes its quota. What
            comes early is promoted early, on little evidence, and the band promotes more: searches cost more than that.
            None: the plan has the budget, and as many candidates as the table has configs.
        scoring: fields of the plan's ``[scoring]`` that differ from its defaults.
    """

    eta: float = 3.0
    seeds: tuple[int, ...] = (2, 3, 5)
    ends: tuple[float, ...] = TWENTIETH
    sampler: Literal["random", "tpe"] = "random"
    gates: Literal["promote", "stop", "adaptive"] = "promote"
    load: float | None = 1.0
    scoring: tuple[tuple[str, Any], ...] = ()
    scheduler: Literal["halving", "value"] = "halving"

    def __str__(self) -> str:
        scoring = "".join(f", {name} {value}" for name, value in self.scoring)
        seeds, ends = "/".join(map(str, self.seeds)), "/".join(f"{end:.2g}" for end in self.ends)
        load = "the budget in the plan" if self.load is None else f"load {self.load:g}"
        gates = self.gates if self.scheduler == "halving" else "by value"
        return f"eta {self.eta:g}, seeds {seeds} to {ends}, {gates}, {self.sampler}, {load}{scoring}"


BEFORE = Setting(eta=2.5, seeds=(1, 1, 2))
"""What was chosen before gates learnt."""
CHOSEN = Setting(eta=2.0, seeds=(1, 1, 1, 1, 1, 2, 3), ends=MANY, gates="adaptive", load=None, scoring=BARE)
"""See ``docs/decisions/0012-gates-that-learn.md``."""
BY_VALUE = Setting(
    eta=2.0,
    seeds=(1, 1, 1, 1, 1, 1, 2, 3),
    ends=(1 / 20, 1 / 9, 1 / 4, 1 / 2, 3 / 4, 1.0),
    load=None,
    scheduler="value",
)
"""See ``docs/decisions/0013-value-of-information.md``."""


def stage_ends(curves: CurveTable, fractions: Sequence[float]) -> list[int]:
    """The steps of the table nearest to ``fractions`` of its length, each once."""
    steps = np.array(curves.steps)
    return sorted({int(steps[np.argmin(np.abs(steps - fraction * curves.max_step))]) for fraction in fractions})


def stages(curves: CurveTable, setting: Setting) -> tuple[Stage, ...]:
    """The stages of a search on ``curves``: where two ends fall on one step of the table, the later one's seeds."""
    num_ends = len(setting.ends)
    ends = stage_ends(curves, setting.ends)
    to_steps, at_end = setting.seeds[:num_ends], setting.seeds[num_ends:]
    most = min(len(replicates) for replicates in curves.curves)
    rows = [*zip(ends, to_steps[-len(ends) :], strict=True), *((ends[-1], num) for num in at_end)]
    return tuple(Stage(until_step=end, num_seeds=num) for end, num in rows if num <= most)


def plan_for(curves: CurveTable, setting: Setting, full_runs: int) -> Search:
    """The plan of a search on ``curves`` with a budget of so many full runs."""
    made, budget = stages(curves, setting), full_runs * curves.max_step
    num = len(curves.configs)
    if setting.load is not None:
        # Expected steps of a candidate where each gate lets 1 / eta go on.
        cost = sum(stage_steps(made, k) / setting.eta**k for k in range(len(made)))
        num = min(num, max(1, math.floor(setting.load * budget / cost)))
    return Search(
        name="simulated",
        family="table",
        space="table",
        control="",
        num_candidates=num,
        eta=setting.eta,
        seeds=tuple(range(max(stage.num_seeds for stage in made))),
        eval_every=1,
        stages=made,
        scoring=Scoring(**dict(setting.scoring)),
        gates=setting.gates,
        scheduler=setting.scheduler,
        budget=Budget(max_steps=budget if setting.load is None else None),
        sampler=Sampler(name=setting.sampler),
    )


def grid() -> list[Setting]:
    """Settings of our own to choose from."""
    at_end = ((), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5))
    learning = [
        Setting(eta, (*(1 for _ in ends), *seeds), ends, gates="adaptive", load=None, scoring=BARE)
        for eta in (2.0, 2.5, 3.0)
        for ends in (MANY, (1 / 20, 1 / 4, 1 / 2, 1.0), (1 / 20, 1 / 6, 1 / 2, 1.0), TWENTIETH)
        for seeds in at_end
    ]
    plain = [
        Setting(eta, seeds, ends, load=load, scoring=scoring)
        for eta in (2.0, 2.5, 3.0, 4.0)
        for seeds, ends in (
            ((1, 1, 2), TWENTIETH),
            ((1, 2, 3), TWENTIETH),
            ((2, 2, 3), NINTH),
            ((1, 1, 1, 1, 1), MANY),
            ((1, 1, 1, 1, 1, 3), MANY),
        )
        for load in (0.65, 1.0)
        for scoring in ((), BARE)
    ]
    return [*learning, *plain, Setting(3.0, (1, 1, 2), NINTH, gates="stop", load=0.65, scoring=BARE)]
