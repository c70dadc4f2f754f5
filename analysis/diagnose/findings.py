"""Findings as strict JSON and back: what stands in ``members/<id>/findings.json`` and ``report/findings.json``.

NaN is null, infinities are the strings that the journal has for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from analysis.diagnose.api import Finding
from analysis.stats.interval import Interval

_SCHEMA = 1
_FINDINGS = TypeAdapter(list[Finding])


def to_json(findings: Iterable[Finding], seconds: Mapping[str, float] | None = None) -> str:
    """The findings as a text, in the order of the report; ``seconds`` that each diagnostic took stand beside them."""
    content = {"schema": _SCHEMA, "findings": [asdict(finding) for finding in findings], "seconds": seconds or {}}
    return json.dumps(spelt(content), indent=1, allow_nan=False, default=float)


def from_json(text: str) -> list[Finding]:
    """The inverse of `to_json`, with tuples for sequences; raises ValueError on what this version does not write."""
    try:
        content = json.loads(text)
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']!r}; this version reads {_SCHEMA}")
        return _FINDINGS.validate_python(read_json(content["findings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not findings of this version ({type(error).__name__}: {error})") from error


def spelt(value: Any) -> Any:
    """A value as strict JSON has it: intervals by their fields, NaN as null, infinities as words."""
    if isinstance(value, Interval):
        return spelt(value._asdict())
    if isinstance(value, Mapping):
        return {name: spelt(item) for name, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [spelt(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0.0 else "-Infinity"
    return value


def read_json(value: Any) -> Any:
    """The inverse of `spelt`: lists as tuples, and every null, which nothing but a NaN is, as NaN.

    Intervals and infinities are left for pydantic to read.
    """
    if isinstance(value, dict):
        return {name: read_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(read_json(item) for item in value)
    return math.nan if value is None else value
