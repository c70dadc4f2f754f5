"""Candidates of a real family: the configs that the plan names, then draws from its space, follow-ups or midpoints.

Not here: which of them is due (the scheduler), or how a draw is made (`tune_rh.decide.samplers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces.api import Space, Unsatisfiable
from search_spaces.registry import get_space
from trainables.registry import build_config, get_family
from trainables.spelling import spelt, spelt_value
from tune_rh.decide import comparison
from tune_rh.decide.samplers import MAX_DRAWS, Draw, RefusedDraw, guarded, inside, sampler_of
from tune_rh.decide.scheduler import AskFollowUp
from tune_rh.plan import follow_ups
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import explain
from tune_rh.plan.kinds import Comparison, Search
from tune_rh.plan.schema import Plan
from tune_rh.record.events import OTHER_REASONS, CandidateAdded, FollowUpSkipped, Origin, SpaceExhausted
from tune_rh.record.history import History
from tune_rh.record.members import candidate_id
from tune_rh.run.session import Source

_MOST_REASONS = 5


class _Named:
    """The configs that a plan names and nothing else: all that a race has; see `tune_rh.run.session.Source`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._family = get_family(plan.family)

    def candidate(self, history: History) -> CandidateAdded | SpaceExhausted:
        """The control first, then what else the plan names; a config that is known is passed over."""
        for name, origin in self.plan.named:
            config, patience = named_config(self.plan, name)
            if history.named(config.digest(), patience) is None:
                ranked_from = len(self.plan.stages) if origin == "reference" else 0
                return self._add(history, config, origin, name, patience_steps=patience, ranked_from=ranked_from)
        return self._further(history)

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded | FollowUpSkipped:
        """Never asked: only a search has follow-ups."""
        raise AssertionError(f"{asked} in a {self.plan.kind}")

    def _further(self, history: History) -> CandidateAdded | SpaceExhausted:
        return SpaceExhausted(0)

    def _as_draw(self, config: Any) -> Draw | None:
        """How a sampler would have drawn the config; None where there is none, or it could not."""
        return None

    def _add(
        self, history: History, config: Any, origin: Origin, label: str = "", draw: Draw | None = None, **facts: Any
    ) -> CandidateAdded:
        draw = draw or self._as_draw(config)
        return CandidateAdded(
            candidate_id(len(history.candidates)),
            spelt(config),
            config.digest(),
            origin,
            label,
            params={name: spelt_value(value) for name, value in draw.params.items()} if draw else {},
            distributions=draw.distributions if draw else {},
            **facts,
        )


class _Searched(_Named):
    """Named configs, then draws; and the follow-ups around winners."""

    plan: Search

    def __init__(self, plan: Search) -> None:
        super().__init__(plan)
        space = get_space(plan.family, plan.space) if plan.space else None
        self._space = space and guarded(space)
        self._sampler = sampler_of(plan.sampler)

    def follow_up(self, history: History, asked: AskFollowUp) -> CandidateAdded | FollowUpSkipped:
        """Around the winner's resolved config and with its patience; skipped if it cannot be made, or is known."""
        change = follow_ups.changes(self.plan)[asked.number]
        parent = history.candidates[asked.parent].added
        label, patience = follow_ups.label(asked.parent, change.fields), parent.patience_steps
        try:
            config = build_config(self._family, written=[parent.config, change.fields])
        except ValidationError as error:
            return FollowUpSkipped(asked.parent, label, explain(error, label))
        known = history.named(config.digest(), patience)
        if known is not None:
            return FollowUpSkipped(asked.parent, label, f"{known} is the same config")
        facts: dict[str, Any] = {"parent": asked.parent, "ranked_from": change.follow_up.enters}
        return self._add(history, config, "follow_up", label, patience_steps=patience, **facts)

    def _further(self, history: History) -> CandidateAdded | SpaceExhausted:
        if self._space is None:  # presets that were passed over leave some of num_candidates open
            return SpaceExhausted(0)
        passed_over = Counter[str]()
        for attempt in range(MAX_DRAWS):
            try:
                draw = self._sampler.draw(self._space, history, attempt)
                config = self._resolve(draw.config, self._space)
            except RefusedDraw as error:
                passed_over[str(error)] += 1
                continue
            if history.named(config.digest()) is None:
                return self._add(history, config, "sampler", draw=draw, passed_over=_shortened(passed_over))
        return SpaceExhausted(MAX_DRAWS, _shortened(passed_over))

    def _as_draw(self, config: Any) -> Draw | None:
        """A preset as the space would have drawn it; without that the sampler learns nothing from it."""
        if self._space is None:
            return None
        try:
            draw = inside(self.plan.sampler, self._space, config.model_dump())
            return draw if draw and self._resolve(draw.config, self._space) == config else None
        except RefusedDraw:
            return None

    def _resolve(self, draw: Mapping[str, Any], space: Space) -> Any:
        try:
            config = build_config(self._family, draw, preset=space.base, written=[self.plan.fixed])
        except ValidationError as error:
            raise RefusedDraw(explain(error, "draw").removeprefix("draw: ").partition("\n")[0]) from error
        if space.check is not None:
            try:
                space.check(config.model_dump())
            except Unsatisfiable as error:
                raise RefusedDraw(str(error)) from error
        return config


def _shortened(passed_over: Counter[str]) -> dict[str, int]:
    """The most frequent reasons, and how many draws had others."""
    most = dict(passed_over.most_common(_MOST_REASONS))
    others = passed_over.total() - sum(most.values())
    return {**most, OTHER_REASONS: others} if others else most


class _Compared(_Named):
    """A and B, then the configs between them that a bisection asks for."""

    plan: Comparison

    def _further(self, history: History) -> CandidateAdded:
        keys = comparison.next_midpoint(history)
        assert keys is not None, "the scheduler asks only while a midpoint is wanted"
        fields = comparison.midpoint_fields(history, keys)
        patience = fields.pop(comparison.PATIENCE, None)
        label = f"{self.plan.control} with {', '.join(sorted(keys))} of {self.plan.presets[0]}"
        return self._add(
            history, build_config(self._family, written=[fields]), "midpoint", label, patience_steps=patience
        )


def family_source(plan: Plan) -> Source:
    """Where a session on ``plan`` takes its candidates from."""
    if isinstance(plan, Search):
        return _Searched(plan)
    return _Compared(plan) if isinstance(plan, Comparison) else _Named(plan)
