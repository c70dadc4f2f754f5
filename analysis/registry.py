"""Diagnostics by name, in the order of reports, and how a subject is put before them. A new one is a file and a line.

Importing this loads none of them: they are ``"module:attr"`` until they are asked for. What they are is in
`analysis.api`; what they look at is in `analysis.subject`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from analysis.api import Diagnostic, Finding
from trainables.registry import resolve

DIAGNOSTICS: dict[str, str] = {
    name: f"analysis.diagnostics.{name}:DIAGNOSTIC"
    for name in (
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
}
"""In the order A to P of the family `spacing_mdn`."""

GOLDEN: dict[str, str] = {
    "spacing_mdn": "trainables.spacing_mdn.golden:draw",
}
"""Family -> what draws the fixed sample of its data that diagnostics look at, from a task."""


class OfFamily(Protocol):
    """What is looked at: an `analysis.subject.Subject`, of which this module needs no more than its family."""

    @property
    def family(self) -> str:
        """As plans spell it."""
        ...


class UnknownDiagnostic(ValueError):
    """No diagnostic has that name, or it is not for that family."""


def get_diagnostic(name: str) -> Diagnostic:
    """The diagnostic called ``name``.

    Raises:
        UnknownDiagnostic: with the names there are.
    """
    if name not in DIAGNOSTICS:
        raise UnknownDiagnostic(f"diagnostic = {name!r}: there is no such diagnostic; known: {', '.join(DIAGNOSTICS)}")
    diagnostic: Diagnostic = resolve(DIAGNOSTICS[name])
    return diagnostic


def diagnostics_for(family: str) -> list[Diagnostic]:
    """Those for models of ``family``, in order; empty for a family that nobody has written any for."""
    every = map(get_diagnostic, DIAGNOSTICS)
    return [d for d in every if not d.families or family in d.families]


def diagnose(
    subject: OfFamily, names: Sequence[str] | None = None, done: Callable[[Finding, float], None] | None = None
) -> list[Finding]:
    """Put one subject before its family's diagnostics, one after the other.

    Args:
        subject: a model with its golden windows.
        names: which ones, in this order; None: all of its family.
        done: called after each with the finding and the seconds that it took.

    Raises:
        UnknownDiagnostic: one of ``names`` does not exist, or is not for this family.
        Exception: whatever a diagnostic raises. Poor models give findings, so an exception is a fault of ours.
    """
    chosen = diagnostics_for(subject.family) if names is None else [get_diagnostic(name) for name in names]
    for diagnostic in chosen:
        if diagnostic.families and subject.family not in diagnostic.families:
            raise UnknownDiagnostic(
                f"diagnostic = {diagnostic.name!r}: is for {', '.join(diagnostic.families)}, not for {subject.family}"
            )
    findings = []
    for diagnostic in chosen:
        if diagnostic.needs != "checkpoint":
            continue
        began = time.perf_counter()
        finding = diagnostic(subject)
        findings.append(finding)
        if done is not None:
            done(finding, time.perf_counter() - began)
    return findings
