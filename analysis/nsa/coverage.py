"""Is the selection sparse at the length of the run, and does it choose?

What it is: the share of the visible tokens that the selection reads, over all positions and at the end of a sequence,
where more than a half means that the selection saves next to nothing; and the ages of freely chosen blocks. A layer
whose free choices always have the same age chooses by position alone, which a window would do as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Finding, Plot, Series, Value, answer, diagnostic
from analysis.nsa.looked import tallies

_MOST_AT_END = 0.5
_LEAST_ENTROPY = 0.3


@diagnostic("coverage of the selection")
def coverage(subject: Any) -> Finding:
    """Return a finding with values ``coverage``, ``coverage_end``, ``dense_rows`` and ``pct_at_max`` as shares, and
    ``choice_entropy_layer_<i>``, 1 where free choices are spread evenly over all ages."""
    return judge([tally.metrics() for tally in tallies(subject)])


def judge(layers: Sequence[Mapping[str, float]]) -> Finding:
    """The finding on what `Tally.metrics` says of each layer; lists have the same lengths in all of them."""
    values: dict[str, Value] = {n: layers[0][n] for n in ("coverage", "coverage_end", "dense_rows", "pct_at_max")}
    entropies = [layer["choice_entropy"] for layer in layers]
    values |= {f"choice_entropy_layer_{i}": entropy for i, entropy in enumerate(entropies)}
    end, rigid = layers[0]["coverage_end"], [i for i, entropy in enumerate(entropies) if entropy < _LEAST_ENTROPY]
    read = f"At the end of a sequence the selection reads {end:.1%} of the visible tokens"
    if end > _MOST_AT_END:
        verdict, said = "fail", f"{read}: it is as good as dense at this length"
    elif rigid:
        verdict, said = "warn", f"{read}, and in layers {', '.join(map(str, rigid))} it chooses by age alone"
    else:
        verdict, said = "pass", f"{read}, and choices differ from query to query"
    plot = Plot.bars(
        "How evenly free choices are spread over ages",
        "layer",
        "entropy, as a share of an even choice's",
        Series("free choices", tuple(range(len(layers))), tuple(entropies)),
        lines={"by age alone": _LEAST_ENTROPY},
    )
    return answer(verdict, f"{said}.", values, {"coverage_end": _MOST_AT_END}, (plot,))  # type: ignore[arg-type]
