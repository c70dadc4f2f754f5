"""The line of each event of a run, for people: on a terminal, and for a caller in Python."""

from __future__ import annotations

import math

from analysis.search.schedules import apart
from trainables.knowledge import knowledge_of
from tune_rh.decide import comparison
from tune_rh.plan.kinds import Comparison
from tune_rh.record.events import (
    CandidateAdded,
    Diagnosed,
    Evaluated,
    Event,
    FollowUpSkipped,
    Halted,
    JobEnded,
    JobRetried,
    JobStarted,
    MemberId,
    NodeJoined,
    NodeLost,
    Promoted,
    SeedAdded,
    SlotsChanged,
    Tested,
)
from tune_rh.record.failure import describe_loss
from tune_rh.record.history import History
from tune_rh.record.ranking import describe
from tune_rh.record.rules import out_of_bounds


def line(history: History, event: Event) -> str:
    """What happened, in a line; empty for what is seen elsewhere."""
    match event:
        case CandidateAdded(origin="midpoint"):
            return f"{event.candidate}  {_midpoint(history)}: {event.label}"
        case FollowUpSkipped():
            return passed_over(event)
        case CandidateAdded():
            refused = sum(event.passed_over.values())
            note = f" (draws before it that were no valid config: {refused})" if refused else ""
            label = describe(history.candidates[event.candidate]) + _knows(history, event)
            return f"{event.candidate}  new: {label}{note}{_gain(history, event)}"
        case JobStarted(purpose="train"):
            return f"{event.member}  starts towards step {event.until_step}"
        case Evaluated():
            value = event.metrics.get(history.plan.objective, math.nan)
            curve = history.member(event.member).curve
            best = history.shown(curve.best)
            sick = out_of_bounds(history.plan.rules.health, [curve])
            rate = history.plan.eval_every / max(event.train_s, 1e-9)
            return (
                f"{event.member}  step {event.step}: {history.plan.objective}={value:.4f} (best={best:.4f}) | "
                f"train:{rate:.1f} steps/s | eval:{event.eval_s:.1f} s{f' | {sick}' if sick else ''}"
            ) + "".join(f"\n{event.member}  {finding}" for finding in event.findings)
        case Promoted():
            who = event.candidate if event.seed is None else MemberId(event.candidate, event.seed)
            passed = f"{who}  passes gate {event.gate + 1} ({event.reason}{_place(event)}"
            return (
                f"{passed}{_gain(history, event)}{_learnt(event)}{_schedule(history, event)}){_knows(history, event)}"
            )
        case SeedAdded():
            return (
                f"{event.candidate}  near the cut of gate {event.gate + 1} ({event.chance:.0%} above it): "
                f"one more seed, {event.seed}"
            )
        case JobRetried():
            return describe_loss(event)
        case NodeJoined():
            return f"{event.node} has joined"
        case NodeLost():
            return f"{event.node} is gone"
        case SlotsChanged():
            return f"{event.slots} slots"
        case Halted():
            first, _, _ = event.error.partition("\n")
            return f"{', '.join(map(str, event.members))}  a mistake in the task: {first}"
        case JobEnded(outcome="stopped" | "diverged" | "failed"):
            first, _, _ = event.reason.partition("\n")
            return f"{event.member}  {event.outcome}: {first}"
        case Tested():
            return f"{event.member}  read the test split"
        case Diagnosed():
            return f"{event.member}  diagnosed: {_verdicts(event)}"
        case _:
            return ""


def passed_over(event: FollowUpSkipped) -> str:
    """Which follow-up was not made, and why."""
    return f"passed over: {event.label} ({' '.join(event.reason.split())})"


def _place(event: Promoted) -> str:
    """Its place at the gate; of an unranked candidate the place that it would take."""
    if event.reason == "control":
        return ""
    unranked = event.reason in ("reference", "follow_up")
    score = "" if event.score is None else f", score {event.score:.4f}"
    return f", {'would be ' * unranked}place {event.rank + 1} of {event.num_scored + unranked}{score}"


def _gain(history: History, event: CandidateAdded | Promoted) -> str:
    """What the final choice is expected to gain, where the value of information decided."""
    if event.gain is None or event.towards is None:
        return ""
    return f"; expected gain {event.gain:.2g} if taken to {history.plan.stages[event.towards].end}"


def _schedule(history: History, event: Promoted) -> str:
    """How its schedule differs from the control's, where the gate compares them before both have come to their end."""
    control, step = history.control, history.plan.stages[event.gate].until_step
    config = history.candidates[event.candidate].added.config
    mark = apart(config, None if control is None else control.added.config, step)
    return f"; {mark}" if mark else ""


def _learnt(event: Promoted) -> str:
    """What a gate has learnt, where it does."""
    if event.share is None:
        return ""
    return f"; the gate lets {event.share:.0%} through, ranks agree by {event.agreement:.2f}"


def _knows(history: History, event: CandidateAdded | Promoted) -> str:
    """`` [class II, past 256]`` for families whose models do not all know the same."""
    known = knowledge_of(history.plan.family, history.candidates[event.candidate].added.config)
    return f" [{known}]" if known else ""


def _verdicts(event: Diagnosed) -> str:
    """``12 pass, 1 warn; fails baselines, permutation``."""
    counts = [(verdict, sum(v == verdict for v in event.verdicts.values())) for verdict in ("pass", "warn")]
    failed = [name for name, verdict in event.verdicts.items() if verdict == "fail"]
    fails = f"fails {', '.join(failed)}" if failed else "none fails"
    return f"{', '.join(f'{count} {verdict}' for verdict, count in counts)}; {fails}"


def _midpoint(history: History) -> str:
    """Which midpoint this is, how many more there may be, and what is still suspected."""
    state, plan = comparison.bisection(history), history.plan
    assert state is not None
    assert isinstance(plan, Comparison)
    number = len(comparison.midpoints(history))
    left = min(state.at_most, plan.compare.max_probes - number + 1)
    suspects = ", ".join(sorted(state.remaining))
    return f"midpoint {number} (at most {left} to come, this one with it; suspects: {suspects})"
