"""The candidates of a recorded table: a search of this project on its configs, under `tune_rh.simulation.clock`.

A candidate is a config of the table, a member one of its replicates. Of the plan, stages, seeds, eta, rules on the
objective, follow-ups, sampler, budget and number of candidates count.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from search_spaces.api import Space, Trial
from tune_rh.decide.scheduler import AskFollowUp
from tune_rh.errors import PlanError
from tune_rh.plan import follow_ups
from tune_rh.plan.kinds import Search
from tune_rh.plan.rules import SearchRules
from tune_rh.record.events import (
    CandidateAdded,
    FollowUpSkipped,
    MemberId,
    Origin,
    SpaceExhausted,
)
from tune_rh.record.history import History
from tune_rh.record.members import candidate_id
from tune_rh.record.ranking import leader
from tune_rh.run.session import Session, Sink
from tune_rh.simulation.clock import Clock, Conditions, Table, Trace, eval_grid
from tune_rh.simulation.curve_table import Value


class TableSource:
    """A table's configs as candidates (`tune_rh.run.session.Source`), and where they lie in it
    (`tune_rh.simulation.clock.Side`).

    The sampler ``random`` takes the configs in an order drawn by seed; ``tpe`` draws as a search would
    (`tune_rh.decide.samplers`) from the table's parameters and takes the nearest config that was not tried yet; without
    parameters it is ``random``. The plan's seeds are the table's, in an order drawn by seed: the first of the plan is
    the same seed of the table for every config that has it.

    ``seed`` is of both orders. The plan is one that `_on_table` has made, the history that of the source's session.
    """

    def __init__(self, plan: Search, table: Table, history: History, seed: int = 0) -> None:
        self.plan, self.table, self.history = plan, table, history
        self._tried: dict[str, int] = {}
        rng = random.Random(seed)
        self._order = rng.sample(range(len(table.configs)), len(table.configs))
        salt = rng.getrandbits(64)
        # A seed's place is the same for all configs, whichever seeds each has.
        self._turn = cache(lambda seed: random.Random(f"{salt} {seed}").random())
        self._replicates: dict[int, list[int]] = {}

    def candidate(self, history: History) -> CandidateAdded | SpaceExhausted:
        """The next config that was not tried."""
        drawn = self._draw(history)
        if drawn is None:
            return SpaceExhausted(len(self._tried))
        config, distributions = drawn
        origin: Origin = "control" if self.plan.has_control and not history.candidates else "sampler"
        # The sampler learns about the config that ran, not about its own draw.
        fields = self.table.configs[config]
        params = {name: fields[name] for name in distributions if name in fields}
        distributions = {name: distributions[name] for name in params}
        return self._take(
            history, config, origin, self.table.labels[config], params=params, distributions=distributions
        )

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded | FollowUpSkipped:
        """The config of the table that is nearest to the winner's with the change, among those not tried yet."""
        change = follow_ups.changes(self.plan)[asked.number]
        label = follow_ups.label(asked.parent, change.fields)
        if len(self._tried) == len(self.table.configs):
            return FollowUpSkipped(asked.parent, label, f"{self.table.name} has no other config")
        config = self._nearest({**self.table.configs[self.config_of(asked.parent)], **change.fields})
        label = f"{label}: {self.table.labels[config]}"
        return self._take(history, config, "follow_up", label, parent=asked.parent, ranked_from=change.follow_up.enters)

    def config_of(self, candidate: str) -> int:
        """The table's config that a candidate is."""
        return self._tried[candidate]

    def place(self, member: MemberId) -> tuple[int, int]:
        """The config and the replicate that a member is."""
        config = self.config_of(member.candidate)
        if config not in self._replicates:
            seeds = [curve.seed for curve in self.table.curves[config]]
            self._replicates[config] = sorted(range(len(seeds)), key=lambda i: self._turn(seeds[i]))
        return config, self._replicates[config][self.plan.seeds.index(member.seed)]

    def incumbent(self) -> int | None:
        """The config of `tune_rh.record.ranking.leader`."""
        ahead = leader(self.history)
        return None if ahead is None else self._tried[ahead.id]

    def _take(self, history: History, config: int, origin: Origin, label: str, **facts: Any) -> CandidateAdded:
        candidate = candidate_id(len(history.candidates))
        self._tried[candidate] = config
        fields = dict(self.table.configs[config])
        return CandidateAdded(candidate, fields, f"config-{config}", origin, label, **facts)

    def _draw(self, history: History) -> tuple[int, dict[str, str]] | None:
        if len(self._tried) == len(self.table.configs):
            return None
        if self.plan.sampler.name == "random" or not self.table.parameters:
            return self._order[len(self._tried)], {}
        from tune_rh.decide.samplers import sampler_of

        drawn = sampler_of(self.plan.sampler).draw(space(self.table), history)
        return self._nearest(drawn.config), dict(drawn.distributions)

    def _nearest(self, config: Mapping[str, Value]) -> int:
        return self.table.nearest(config, set(self._tried.values()))


def space(table: Table) -> Space:
    """The search space that a table's parameters span."""

    def suggest(trial: Trial) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for name, parameter in table.parameters.items():
            if parameter.kind == "categorical":
                config[name] = trial.suggest_categorical(name, parameter.choices)
            elif parameter.kind == "int":
                config[name] = trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
            else:
                config[name] = trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
        return config

    return Space(suggest, base="", summary=f"the parameters of {table.name}")


def _on_table(plan: Search, table: Table, seed: int) -> Search:
    """The plan as it is simulated: with the table's objective, no configs by name, and the rules that it can feed."""
    promote = plan.rules.promote
    if promote is not None:
        promote = promote.model_copy(update={"tolerance": None, "healthier": ()})
    return plan.model_copy(
        update={
            "objective": table.objective,
            "mode": table.mode,
            "presets": (),
            "references": (),
            "diagnose": (),
            "require": (),
            "rules": SearchRules(promote=promote, patience_steps=plan.rules.patience_steps, gap=plan.rules.gap),
            "sampler": plan.sampler.model_copy(update={"seed": seed}),
        }
    )


def check_steps(plan: Search, table: Table) -> None:
    """Raise PlanError if a stage ends at a step that the table has not."""
    for i, stage in enumerate(plan.stages):
        if stage.until_step not in table.steps:
            raise PlanError(
                f"the plan's stages[{i}].until_step = {stage.until_step} is not among the steps of {table.name}: "
                f"{_listed(table.steps)}"
            )


def check(plan: Search, table: Table) -> None:
    """Refuse, before anything runs, what the table cannot give.

    Raises:
        PlanError: naming the plan's field or the curve, the value and what is there.
    """
    if plan.sampler.name not in ("random", "tpe", "tpe-extrapolating"):
        raise PlanError(
            f"sampler.name = {plan.sampler.name!r}: on recorded configs it is random, tpe or tpe-extrapolating"
        )
    check_steps(plan, table)
    for change in follow_ups.changes(plan):
        unknown = [name for name in change.fields if name not in table.parameters]
        if unknown:
            raise PlanError(
                f"follow_ups[{change.table}].changes: {unknown[0]} is no parameter of {table.name}, which has "
                f"{', '.join(table.parameters) or 'none'}; --set follow_ups=[] leaves follow-ups out"
            )
    last = plan.stages[-1]
    needed = plan.num_candidates + plan.has_control
    if needed > len(table.configs):
        raise PlanError(
            f"num_candidates = {plan.num_candidates}{', and a control' if plan.has_control else ''}: "
            f"{table.name} has {len(table.configs)} configs; at most {len(table.configs) - plan.has_control} candidates"
        )
    grid = eval_grid(table, plan.eval_every)
    grid = grid[grid <= last.until_step]
    for i, replicates in enumerate(table.curves):
        if len(replicates) < len(plan.seeds):
            raise PlanError(
                f"the plan's seeds are {len(plan.seeds)}: {_listed(plan.seeds)}; config {table.labels[i]!r} of "
                f"{table.name} has {len(replicates)} replicates"
            )
        for curve in replicates:
            missing = np.setdiff1d(grid, curve.steps)
            if curve.is_lost:
                missing = missing[missing < curve.steps[-1]]
            if len(missing):
                raise PlanError(
                    f"eval_every = {plan.eval_every}: config {table.labels[i]!r}, seed {curve.seed} of {table.name} "
                    f"has no reading at step {missing[0]}; it has {_listed(curve.steps.tolist())}"
                )


def table_session(
    plan: Search, table: Table, clock: Clock, seed: int = 0, sink: Sink = lambda _event: None
) -> tuple[Session, TableSource]:
    """A session of ``plan`` on ``table`` in the time of ``clock``, and its source; ``seed`` is of all that is drawn."""
    searched = _on_table(plan, table, seed)
    history = History(searched)
    source = TableSource(searched, table, history, seed)
    session = Session(searched, history, sink, source, clock.time, runner=clock.name, slots=clock.slots)
    return session, source


def simulate(plan: Search, table: Table, conditions: Conditions, seed: int = 0) -> Trace:
    """One search of ``plan`` on ``table``."""
    clock = clock_for(plan, table, conditions, seed)
    return clock.run(*table_session(plan, table, clock, seed))


def clock_for(plan: Search, table: Table, conditions: Conditions, seed: int = 0) -> Clock:
    """A clock for a search of ``plan`` on ``table``."""
    return Clock(table, plan.eval_every, [stage.until_step for stage in plan.stages], conditions, seed)


def repeat(plan: Search, table: Table, conditions: Conditions, repeats: int, seed: int = 0) -> Iterator[Trace]:
    """``repeats`` simulated searches, each with an order of configs and seeds of its own.

    Raises:
        PlanError: see `check`; or ``repeats`` is below 1.
    """
    if repeats < 1:
        raise PlanError(f"repeats = {repeats}: at least 1")
    check(plan, table)
    for number in range(seed, seed + repeats):
        yield simulate(plan, table, conditions, number)


def _listed(numbers: Sequence[int]) -> str:
    head = ", ".join(str(number) for number in numbers[:8])
    return f"{head}, ..., {numbers[-1]}" if len(numbers) > 8 else head
