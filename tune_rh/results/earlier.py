"""What a new plan takes along from earlier runs: see `tune_rh.plan.earlier`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from analysis.stats.agreement import agreement
from analysis.stats.scores import SeedScores
from analysis.stats.seeds import Prior
from tune_rh.errors import PlanError
from tune_rh.plan.earlier import Earlier, Observation, SeenGate
from tune_rh.plan.kinds import Search
from tune_rh.plan.schema import Plan
from tune_rh.record.gate import Gate
from tune_rh.record.history import History
from tune_rh.results.advice import moved
from tune_rh.results.reading import Reading

_FEW = 4
"""Fewer candidates that were seen at two gates say nothing of how ranks last."""


def learn_from(plan: Plan, readings: Sequence[Reading]) -> Search:
    """``plan`` with what the runs of ``readings`` have shown.

    Gates between the same stages pass on how long ranks lasted. Configs that ran to the same last step are observations
    for the sampler, where the run's fixed fields (its data among them) and objective are those of the plan.

    Raises:
        PlanError: naming the run, and what it is another one of.
    """
    if not isinstance(plan, Search):
        raise PlanError(f"--learn-from: {plan.name} is a {plan.kind}, and only a search learns from others")
    gates: list[SeenGate] = []
    observations: list[Observation] = []
    for reading in readings:
        history, name = reading.history, reading.paths.root.name
        before = history.plan
        if not isinstance(before, Search):
            raise PlanError(f"--learn-from {name}: is a {before.kind}, and a search learns only from searches")
        for field in ("family", "space", "objective", "mode"):
            if getattr(before, field) != getattr(plan, field):
                raise PlanError(
                    f"--learn-from {name}: its {field} is {getattr(before, field)!r}, and that of {plan.name} "
                    f"{getattr(plan, field)!r}: what it has seen says nothing here"
                )
        is_same = before.fixed == plan.fixed
        gates += _gates(before, history, is_same=is_same)
        if is_same and before.stages[-1].until_step == plan.stages[-1].until_step:
            observations += _observations(history)
    names = tuple(reading.paths.root.name for reading in readings)
    earlier = Earlier(runs=names, gates=tuple(gates), observations=tuple(observations))
    return plan.with_changes({"earlier": earlier.model_dump(mode="json")})


def in_words(earlier: Earlier) -> str:
    """What a plan takes along, in a sentence."""
    gates = f"{len(earlier.gates)} {'gate' if len(earlier.gates) == 1 else 'gates'}"
    seen = len(earlier.observations)
    configs = (
        f"{seen} {'config' if seen == 1 else 'configs'}" if seen else "no config (other fixed fields or last step)"
    )
    return f"Learnt from {', '.join(earlier.runs)}: how long ranks lasted at {gates}, and {configs} for the sampler."


def _gates(plan: Search, history: History, *, is_same: bool) -> Iterator[SeenGate]:
    for k, (here, there) in enumerate(zip(plan.stages, plan.stages[1:], strict=False)):
        gate, later = history.gates[k], history.gates[k + 1]
        num, distance = moved(gate, later)
        if num < _FEW:
            continue
        observed = 1.0 - 6.0 * distance**2 / (num * num - 1)
        found = agreement(observed, num, min(1.0, num / len(gate.order)), 0.0, 1e-9)
        noise = _noise(plan, gate, k)
        noise = noise if noise.df else _noise(plan, later, k + 1)
        known = is_same and noise.df > 0 and math.isfinite(noise.variance)
        yield SeenGate(
            until_step=here.until_step,
            num_seeds=here.num_seeds,
            to_step=there.until_step,
            to_seeds=there.num_seeds,
            agreement=found.value,
            pairs=num,
            seed_variance=noise.variance if known else 0.0,
            seed_df=noise.df if known else 0.0,
        )


def _noise(plan: Search, gate: Gate, k: int) -> Prior:
    """What the gate of stage ``k`` says of the variance of one seed."""
    scores = SeedScores("mean", 1, None, plan.stage_seeds(k))
    scores.fit([gate.values(rank.entry) for rank in gate.order], math.inf)
    return scores.prior


def _observations(history: History) -> Iterator[Observation]:
    gate = history.gates[-1]
    for rank in gate.order:
        added = history.candidate_at(rank.entry).added
        if added.params and math.isfinite(rank.score):
            yield Observation(params=dict(added.params), distributions=dict(added.distributions), score=rank.score)
