"""What a run left on disk, read as plain data: plan, provenance, members, candidates, decisions. Standard library only.

A reader of its own, so that a run can be looked at anywhere, while it is being written, and by a version that does not
know every event. Values are in the objective's own sign. Not here: what follows from the numbers
(`analysis.gate_scores` and its neighbours), nor the state that decisions are taken from, which is the search's own.
"""

from __future__ import annotations

import json
import math
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.record_types import CandidateRecord, Decision, MemberRecord, Report
from trainables.api import test_metric

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
AUDIT = "audit"
"""The reason of a promotion that only looks whether a gate was right."""


class RunUnreadable(Exception):
    """A folder is no run, or one of its files was damaged."""


class Records:
    """One run, folded from its files; made by `read_run`."""

    def __init__(self, root: Path, plan: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        self.root = root
        self.plan = plan
        self.provenance = provenance
        self.candidates: dict[str, CandidateRecord] = {}
        self.members: dict[str, MemberRecord] = {}
        self.decisions: list[Decision] = []
        self.slots = 0
        self.ended = ""
        """How the last session ended; empty while it runs, or if it was killed."""
        self.steps = 0
        self.slot_seconds = 0.0
        self._jobs: dict[str, Mapping[str, Any]] = {}

    @property
    def objective(self) -> str:
        """Name of the metric that decides."""
        return str(self.plan["objective"])

    @property
    def test_metric(self) -> str:
        """Name of the same metric on the test split."""
        return test_metric(self.objective)

    @property
    def sign(self) -> float:
        """1 where lower is better, else -1."""
        return 1.0 if self.plan.get("mode", "min") == "min" else -1.0

    @property
    def kind(self) -> str:
        """``search``, ``race`` or ``comparison``."""
        if self.plan.get("unit") == "member":
            return "race"
        return "comparison" if self.plan.get("compare") else "search"

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The plan's, each with ``until_step`` and ``num_seeds``."""
        return list(self.plan["stages"])

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.ended == "finished"

    @property
    def control(self) -> CandidateRecord | None:
        """The candidate that others must beat; A of a comparison, None in a race."""
        if self.kind == "race" or not self.plan.get("control"):
            return None
        return next(iter(self.candidates.values()), None)

    def stage_seeds(self, stage: int) -> tuple[int, ...]:
        """The seeds that a candidate needs at ``stage``."""
        return tuple(self.plan["seeds"][: self.stages[stage]["num_seeds"]])

    def best(self, member: MemberRecord, until_step: float = math.inf) -> Report | None:
        """The first report with the best finite value at or before a step; None if there is none."""
        finite = [r for r in member.reports if r.step <= until_step and math.isfinite(r.value)]
        return min(finite, key=lambda r: self.sign * r.value, default=None)

    def _member(self, name: str) -> MemberRecord:
        return self.members[name]

    def _need(self, candidate: CandidateRecord, seed: int, stage: int) -> None:
        name = f"{candidate.id}-s{seed}"
        if seed not in candidate.members:
            self.members[name] = candidate.members[seed] = MemberRecord(name, candidate.id, seed)
        candidate.members[seed].stage = stage

    def _on_candidate_added(self, event: Mapping[str, Any]) -> None:
        candidate = CandidateRecord(
            id=event["candidate"],
            origin=event["origin"],
            label=event.get("label", ""),
            config=event["config"],
            params=event.get("params", {}),
            distributions=event.get("distributions", {}),
            parent=event.get("parent"),
            enters=event.get("enters", 0),
        )
        self.candidates[candidate.id] = candidate
        for seed in self.stage_seeds(0):
            self._need(candidate, seed, 0)

    def _on_promoted(self, event: Mapping[str, Any]) -> None:
        candidate, gate, seed = self.candidates[event["candidate"]], event["gate"], event.get("seed")
        candidate.stage = max(candidate.stage, gate + 1)
        candidate.audited |= event["reason"] == AUDIT
        for needed in self.stage_seeds(candidate.stage) if seed is None else (seed,):
            self._need(candidate, needed, gate + 1)
        self.decisions.append(
            Decision(
                kind="promoted",
                candidate=candidate.id,
                gate=gate,
                reason=event["reason"],
                seed=seed,
                score=event["score"],
                rank=event["rank"],
                num_scored=event["num_scored"],
            )
        )

    def _on_seed_added(self, event: Mapping[str, Any]) -> None:
        candidate, gate, seed = self.candidates[event["candidate"]], event["gate"], event["seed"]
        candidate.extra_seeds.setdefault(gate, []).append(seed)
        self._need(candidate, seed, gate)
        self.decisions.append(
            Decision("seed added", candidate.id, gate, "near the cut", seed=seed, chance=event["chance"])
        )

    def _on_job_started(self, event: Mapping[str, Any]) -> None:
        self._jobs[event["member"]] = event
        if _trains(event):
            self._member(event["member"]).status = "running"

    def _on_reported(self, event: Mapping[str, Any]) -> None:
        member = self._member(event["member"])
        seconds = event["train_s"] + event["eval_s"]
        member.seconds += seconds
        self.slot_seconds += seconds
        before, step = member.steps, event["step"]
        if step <= before:
            return  # trained again after a restart: paid for twice, and counts once
        self.steps += step - before
        metrics = {name: _NON_FINITE.get(value, value) for name, value in event["metrics"].items()}
        value = metrics.get(self.objective, math.nan)
        member.reports.append(
            Report(
                step=step,
                value=value if math.isfinite(value) else math.nan,
                metrics=metrics,
                stage=self._jobs.get(member.id, {"stage": member.stage})["stage"],
                train_s=event["train_s"],
                eval_s=event["eval_s"],
                diverged=event["diverged"],
                member_s=member.seconds,
                total_steps=self.steps,
                total_s=self.slot_seconds,
            )
        )

    def _on_tested(self, event: Mapping[str, Any]) -> None:
        member = self._member(event["member"])
        member.tested = {name: _NON_FINITE.get(value, value) for name, value in event["metrics"].items()}
        member.seconds += event["eval_s"]
        self.slot_seconds += event["eval_s"]

    def _on_diagnosed(self, event: Mapping[str, Any]) -> None:
        member = self._member(event["member"])
        member.verdicts = dict(event["verdicts"])
        member.seconds += event["seconds"]
        self.slot_seconds += event["seconds"]

    def _on_job_ended(self, event: Mapping[str, Any]) -> None:
        member, outcome = self._member(event["member"]), event["outcome"]
        job = self._jobs.pop(member.id, {"stage": member.stage})
        kind = outcome
        if outcome == "interrupted":
            self._hand_back(member)
        elif outcome == "failed" and member.tested is not None:
            kind = "not diagnosed"  # its training is whole, only the look at it failed
        elif outcome == "failed" and not _trains(job) and member.status in ("stopped", "completed"):
            kind, member.tested = "not tested", {}
        elif outcome not in ("tested", "diagnosed"):
            member.status, member.reason = outcome, event["reason"]
            if outcome in ("diverged", "failed") and _trains(job):
                member.lost_stage = job["stage"]
        if kind in ("stopped", "diverged", "failed", "not tested", "not diagnosed"):
            self.decisions.append(Decision(kind, member.candidate, job["stage"], event["reason"], seed=member.seed))

    def _on_session_started(self, event: Mapping[str, Any]) -> None:
        self.slots, self.ended = event["slots"], ""
        for member in self.members.values():
            self._hand_back(member)
        self._jobs.clear()

    def _on_session_ended(self, event: Mapping[str, Any]) -> None:
        self.ended = event["reason"]
        for member in self.members.values():
            self._hand_back(member)
            # Its driver went away between the last report and what follows from it.
            if self.is_finished and member.status == "parked" and self._is_below_its_stage(member):
                member.status, member.reason = "stopped", "ended with its last report"

    def _hand_back(self, member: MemberRecord) -> None:
        if member.status != "running":
            return
        last = member.reports[-1] if member.reports else None
        if last is not None and last.diverged:
            member.status, member.lost_stage = "diverged", last.stage
        elif member.steps >= self.stages[-1]["until_step"]:
            member.status = "completed"
        else:
            member.status = "parked" if member.reports else "waiting"

    def _is_below_its_stage(self, member: MemberRecord) -> bool:
        return self.kind != "comparison" and member.steps < int(self.stages[member.stage]["until_step"])

    def _ignore(self, event: Mapping[str, Any]) -> None:
        """Says nothing about members or candidates."""


_HANDLERS = {
    "RunCreated": Records._ignore,
    "SpaceExhausted": Records._ignore,
    "FollowUpSkipped": Records._ignore,
    "SessionStarted": Records._on_session_started,
    "SessionEnded": Records._on_session_ended,
    "CandidateAdded": Records._on_candidate_added,
    "Promoted": Records._on_promoted,
    "SeedAdded": Records._on_seed_added,
    "JobStarted": Records._on_job_started,
    "Evaluated": Records._on_reported,
    "Tested": Records._on_tested,
    "Diagnosed": Records._on_diagnosed,
    "JobEnded": Records._on_job_ended,
}


def _trains(job: Mapping[str, Any]) -> bool:
    """Whether a job trains; the others look at the best checkpoint (journals before diagnoses say so by ``test``)."""
    return str(job.get("purpose", "test" if job.get("test") else "train")) == "train"


def read_run(folder: str | Path) -> Records:
    """Read a run folder as it is now, finished or not.

    A torn last line of the journal, unknown events and unreadable provenance are passed over with a warning.

    Raises:
        RunUnreadable: there is no run, or plan or journal are damaged; the message says what to do.
    """
    root = Path(folder)
    plan = _read_plan(root / "plan.toml")
    records = Records(root, plan, _read_provenance(root / "provenance.json"))
    unknown: set[str] = set()
    for number, event in read_events(root / "journal.jsonl"):
        kind = str(event.get("event"))
        handler = _HANDLERS.get(kind)
        if handler is None:
            unknown.add(kind)
            continue
        try:
            handler(records, event)
        except (KeyError, TypeError, IndexError) as error:
            raise RunUnreadable(
                f"{root / 'journal.jsonl'}, line {number}: {kind} cannot be read ({type(error).__name__}: {error}); "
                "the journal was changed, or belongs to another version"
            ) from error
    if unknown:
        warnings.warn(
            f"{root / 'journal.jsonl'}: passed over events that this version does not know: "
            + ", ".join(sorted(unknown)),
            stacklevel=2,
        )
    return records


def read_events(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, event) of a journal in order; a missing file has none.

    A torn last line is dropped with a warning: it is being written, or its writer died.

    Raises:
        RunUnreadable: a line before the last is no JSON object.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no newline at its end")
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number < len(lines):
                raise RunUnreadable(
                    f"{path}, line {number} of {len(lines)}: {error}. The journal was changed by something else; "
                    "restore it from a copy"
                ) from error
            warnings.warn(f"{path}: dropped a torn last line ({len(line)} bytes)", stacklevel=2)
            return
        yield number, event


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise RunUnreadable(f"{path.parent}: is no run folder: it has no {path.name}") from error
    except (OSError, ValueError) as error:
        raise RunUnreadable(f"{path}: cannot be read ({error}); restore it from a copy") from error
    missing = [key for key in ("objective", "seeds", "stages") if not plan.get(key)]
    if missing:
        raise RunUnreadable(f"{path}: is not the resolved plan of a run: {', '.join(missing)} missing")
    return plan


def _read_provenance(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text())
        if not isinstance(facts, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        warnings.warn(f"{path}: provenance cannot be read ({error})", stacklevel=3)
        return {}
    return facts
