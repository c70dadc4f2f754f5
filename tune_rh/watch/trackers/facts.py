"""What every tracker is told of a run and its members, in words and plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.view import best_of
from trainables.worker import checkpoint
from tune_rh.record.events import EndReason, MemberId, Outcome
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import best_member, describe, ranking

_SESSION = b'"event":"SessionStarted"'


def identity(root: Path) -> str:
    """A name that no other run has: the digest of the journal as far as its first session, with the time of that."""
    digest = hashlib.sha256()
    with RunPaths(root).journal.open("rb") as file:
        for line in file:
            digest.update(line)
            if _SESSION in line:
                break
    return digest.hexdigest()[:16]


def flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields as one level, their names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def tags(history: History, member: MemberId) -> dict[str, str]:
    """What a member is, for a tracker to group and filter by; the stage counts from 1."""
    candidate = history.candidates[member.candidate]
    return {
        "run": history.plan.name,
        "candidate": member.candidate,
        "seed": str(member.seed),
        "stage": str(history.member(member).stage + 1),
        "origin": candidate.added.origin,
        "label": describe(candidate),
    }


def status(ended: Outcome | EndReason) -> str | None:
    """``FINISHED``, ``FAILED`` or ``KILLED``; None for a member that is parked and may go on."""
    match ended:
        case "parked":
            return None
        case "failed" | "diverged":
            return "FAILED"
        case "interrupted":
            return "KILLED"
        case _:
            return "FINISHED"


def best(history: History, root: Path) -> tuple[MemberId, dict[str, Any], Path | None] | None:
    """The best of a run: its member, its config as it is written, its weights if they are there; None if none is."""
    standing = best_of(ranking(history))
    if standing is None:
        return None
    member = best_member(history, standing.candidate)
    folder = checkpoint.linked(RunPaths(root).member(member) / "checkpoints", "best")
    weights = None if folder is None else folder / checkpoint.WEIGHTS
    return member, dict(history.candidates[member.candidate].added.config), weights
