"""What a task reports, taken in: every value a number under a name of its own, or an error that names what is not."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from trainables.api import Metric, test_metric
from trainables.errors import MetricError

_SHOWN = 60
_REAL = (numbers.Real, Decimal)


def taken(reported: object, source: str) -> dict[str, float]:
    """The metrics that ``source``, such as ``step()``, has reported, as plain floats.

    A number is an int, a float, a bool, or anything with one element and ``.item()`` (numpy, torch).

    Raises:
        MetricError: it is no mapping of names to numbers, with the metric, its value and its type.
    """
    if not isinstance(reported, Mapping):
        raise MetricError(f"{source} returns {_shown(reported)}: allowed is a mapping of names to numbers")
    return {_name(name, source): _number(name, value, source) for name, value in reported.items()}


def of_both_splits(val: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
    """The metrics of both splits; one of test under a name of val is called as `test_metric` says.

    Raises:
        MetricError: that name is taken as well.
    """
    renamed = {test_metric(name) if name in val else name: value for name, value in test.items()}
    if len(renamed) < len(test) or renamed.keys() & val.keys():
        both = ", ".join(sorted(val.keys() & test.keys()))
        raise MetricError(f"evaluate('val') and evaluate('test') both report {both}, and other metrics as test names")
    return {**val, **renamed}


def check_reported(metrics: Mapping[str, float], names: Iterable[str], source: str) -> None:
    """Raise MetricError if ``source`` has left out one of ``names``."""
    missing = [name for name in names if name not in metrics]
    if missing:
        found = ", ".join(metrics) or "nothing"
        raise MetricError(f"{source} does not report {', '.join(missing)}, which the search needs; it reports {found}")


def counts_of(rates: Iterable[Metric]) -> list[str]:
    """The counts that rates are made of."""
    return [rate.rate_of for rate in rates]


def _name(name: object, source: str) -> str:
    if not isinstance(name, str):
        raise MetricError(f"{source} reports a metric called {_shown(name)}: allowed is text")
    return name


def _number(name: object, value: Any, source: str) -> float:
    if type(value) is float:
        return value
    found = value
    try:
        if not isinstance(value, _REAL):
            found = value.item()
        if isinstance(found, _REAL):
            return float(found)
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):  # of more than one element, say
        pass
    raise MetricError(
        f"{source} reports {name} = {_shown(value)}: allowed is a number, or one element; leave a metric out where it "
        "has no value"
    )


def _shown(value: object) -> str:
    """The value on one line, with its type and its shape."""
    text = " ".join(repr(value).split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"{text} ({kind}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) and shape else ''})"
