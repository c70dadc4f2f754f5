"""The diagnostics of a family by name, and how they are asked: `trainables.api.Family.diagnostics` lists them.

Names are known without importing torch or a diagnostic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Diagnostic, Finding, Needs
from trainables.errors import UnknownFamily
from trainables.registry import get_family, get_part

_LOOKS_AT: Mapping[Needs, str] = {"checkpoint": "a trained model", "records": "a whole run"}

_Done = Callable[[Finding, float], None]


class UnknownDiagnostic(ValueError):
    """The family has no diagnostic of that name, or it looks at something else."""


def diagnostics_of(family: str) -> Mapping[str, Diagnostic]:
    """All diagnostics of a family by name, in the order of reports; raises `UnknownFamily` where they are not there."""
    listed = tuple(get_part(family, "diagnostics") or ())
    for diagnostic in listed:
        if getattr(diagnostic, "needs", None) not in _LOOKS_AT:
            reference = get_family(family).diagnostics
            raise UnknownFamily(f"family {family}: diagnostics = {reference!r}: {diagnostic!r} is no diagnostic")
    return {diagnostic.name: diagnostic for diagnostic in listed}


def offered(family: str, needs: Needs = "checkpoint") -> tuple[str, ...]:
    """Names of the diagnostics of ``family`` that look at a checkpoint, or at a whole run, in order."""
    return tuple(name for name, diagnostic in diagnostics_of(family).items() if diagnostic.needs == needs)


def get_diagnostic(family: str, name: str, needs: Needs | None = None) -> Diagnostic:
    """The diagnostic ``name`` of ``family``, which must look at what ``needs`` says; raises `UnknownDiagnostic`."""
    known = diagnostics_of(family)
    if name not in known:
        names = ", ".join(known) or "none"
        raise UnknownDiagnostic(f"diagnostic = {name!r}: {family} has no such diagnostic; known: {names}")
    diagnostic = known[name]
    if needs is not None and diagnostic.needs != needs:
        raise UnknownDiagnostic(
            f"diagnostic = {name!r}: looks at {_LOOKS_AT[diagnostic.needs]}, not {_LOOKS_AT[needs]}"
        )
    return diagnostic


def diagnose(subject: Any, names: Sequence[str] | None = None, done: _Done | None = None) -> list[Finding]:
    """Put one model before its family's diagnostics, one after the other.

    Whatever a diagnostic raises goes through: poor models give findings, so that an exception is a fault of the
    diagnostic.

    Args:
        subject: an `analysis.diagnose.subject.Subject`, or what the family's diagnostics need of one.
        names: which ones, in this order; None: all of its family that look at a checkpoint.
        done: called after each with the finding and the seconds that it took.

    Raises:
        UnknownDiagnostic: one of ``names`` does not exist, or looks at runs; before any is asked.
    """
    return _ask(subject, subject.family, names, "checkpoint", done)


def diagnose_run(run: Any, names: Sequence[str] | None = None, done: _Done | None = None) -> list[Finding]:
    """Put one `analysis.view.Run` before its family's diagnostics of runs; as `diagnose` in all else."""
    return _ask(run, run.plan["family"], names, "records", done)


def _ask(subject: Any, family: str, names: Sequence[str] | None, needs: Needs, done: _Done | None) -> list[Finding]:
    wanted = offered(family, needs) if names is None else names
    # All are looked up before the first is asked: a wrong name costs no time.
    diagnostics = [get_diagnostic(family, name, needs) for name in wanted]
    findings = []
    for diagnostic in diagnostics:
        began = time.perf_counter()
        finding = diagnostic(subject)
        findings.append(finding)
        if done is not None:
            done(finding, time.perf_counter() - began)
    return findings
