"""Diagnostics by name, in the order of reports, and who puts them to a model or a run. A new one is a file and a line.

Importing this loads none of them: what each is for stands in the table, the rest is ``"module:attr"`` until it is asked
for. What they are is in `analysis.api`; what they look at is in `analysis.subject` and `analysis.records`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from analysis.api import Diagnostic, Finding
from trainables.registry import resolve

Needs = Literal["records", "checkpoint"]


@dataclass(frozen=True)
class Listed:
    """A diagnostic that nobody has imported yet; ``families`` and ``needs`` repeat its own (`analysis.api`)."""

    reference: str
    families: tuple[str, ...]
    needs: Needs


def _list(names: Sequence[str], family: str, needs: Needs = "checkpoint") -> dict[str, Listed]:
    return {name: Listed(f"analysis.{family}.{name}:DIAGNOSTIC", (family,), needs) for name in names}


# In the order A to P.
_OF_SPACING_MDN = (
    "slot_ablation",
    "slot_similarity",
    "slot_gradients",
    "readout",
    "slot_effect",
    "slot_norms",
    "rollout_drift",
    "cross_block",
    "attention_profile",
    "permutation",
    "gradient_rank",
    "id_only",
    "content_only",
    "calibration",
    "ladder",
    "prime_lines",
)

DIAGNOSTICS: dict[str, Listed] = {
    **_list(_OF_SPACING_MDN, "spacing_mdn"),
    **_list(("routing_balance", "depth_specialisation", "expert_importance"), "shared_moe"),
    **_list(("matched_tokens", "parameter_verdict", "aux_tradeoff", "efficiency"), "shared_moe", needs="records"),
}

SAMPLES: dict[str, str] = {
    "shared_moe": "trainables.shared_moe.sample:draw",
    "spacing_mdn": "trainables.spacing_mdn.sample:draw",
}
"""Family -> what draws the fixed sample of its data that diagnostics look at, from a task."""

Done = Callable[[Finding, float], None]


class OfFamily(Protocol):
    """A model: an `analysis.subject.Subject`, of which this module needs no more than its family."""

    @property
    def family(self) -> str:
        """As plans spell it."""
        ...


class OfPlan(Protocol):
    """A run: an `analysis.records.Records`, of which this module needs no more than its plan."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """With ``family`` as plans spell it."""
        ...


class UnknownDiagnostic(ValueError):
    """No diagnostic has that name, or it is not for that family, or it looks at something else."""


def offered(family: str, needs: Needs = "checkpoint") -> tuple[str, ...]:
    """Names of those for ``family`` that look at a checkpoint, or at the records of a run, in order; imports none.

    Empty for a family that nobody has written any for.
    """
    return tuple(
        name
        for name, listed in DIAGNOSTICS.items()
        if listed.needs == needs and (not listed.families or family in listed.families)
    )


def get_diagnostic(name: str) -> Diagnostic:
    """The diagnostic called ``name``.

    Raises:
        UnknownDiagnostic: with the names there are.
    """
    diagnostic: Diagnostic = resolve(_listed(name).reference)
    return diagnostic


def diagnostics_for(family: str, needs: Needs = "checkpoint") -> list[Diagnostic]:
    """Those that `offered` names, imported."""
    return [get_diagnostic(name) for name in offered(family, needs)]


def diagnose(subject: OfFamily, names: Sequence[str] | None = None, done: Done | None = None) -> list[Finding]:
    """Put one model before its family's diagnostics, one after the other.

    Args:
        subject: a model with its sample.
        names: which ones, in this order; None: all of its family that look at a checkpoint.
        done: called after each with the finding and the seconds that it took.

    Raises:
        UnknownDiagnostic: one of ``names`` does not exist, is not for this family, or looks at runs.
        Exception: whatever a diagnostic raises. Poor models give findings, so an exception is a fault of ours.
    """
    return _ask(subject, _chosen(subject.family, names, "checkpoint"), done)


def diagnose_run(records: OfPlan, names: Sequence[str] | None = None, done: Done | None = None) -> list[Finding]:
    """Put the records of one run before its family's diagnostics of runs; as `diagnose` in all else."""
    return _ask(records, _chosen(records.plan["family"], names, "records"), done)


def _listed(name: str) -> Listed:
    if name not in DIAGNOSTICS:
        raise UnknownDiagnostic(f"diagnostic = {name!r}: there is no such diagnostic; known: {', '.join(DIAGNOSTICS)}")
    return DIAGNOSTICS[name]


def _chosen(family: str, names: Sequence[str] | None, needs: Needs) -> Sequence[str]:
    if names is None:
        return offered(family, needs)
    looks_at = {"checkpoint": "a trained model", "records": "a whole run"}
    for name in names:
        listed = _listed(name)
        if listed.families and family not in listed.families:
            raise UnknownDiagnostic(f"diagnostic = {name!r}: is for {', '.join(listed.families)}, not for {family}")
        if listed.needs != needs:
            raise UnknownDiagnostic(f"diagnostic = {name!r}: looks at {looks_at[listed.needs]}, not {looks_at[needs]}")
    return names


def _ask(what: Any, names: Sequence[str], done: Done | None) -> list[Finding]:
    diagnostics = [get_diagnostic(name) for name in names]
    findings = []
    for diagnostic in diagnostics:
        began = time.perf_counter()
        finding = diagnostic(what)
        findings.append(finding)
        if done is not None:
            done(finding, time.perf_counter() - began)
    return findings
