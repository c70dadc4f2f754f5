"""Does every branch of sparse attention have a part in every layer, and have the gates learnt anything?

What it is: the mean share of each branch in the gates of a layer, held against the bounds of live health (H10): a share
between .05 and .9, entropy of at least .5 nats, at most a hundredth of the gates on one branch alone. Gates that hardly
moved from where they began are inert: even shares then mean nothing, and the verdict warns.
What it is not: a measure of use. A branch may have its share and say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.diagnose.api import Finding, Plot, Series, Value, answer, diagnostic
from analysis.nsa.looked import tallies
from trainables.nsa.tally import BRANCHES

_LEAST_SHARE, _MOST_SHARE = 0.05, 0.9
_LEAST_ENTROPY = 0.5
_MOST_COLLAPSED = 0.01
_LEAST_MOVED = 0.01
"""Mean distance of a gate from its start, below which it is called inert."""
_NAMES = {"cmp": "compressed", "sel": "selected", "win": "window"}


@diagnostic("gates of the branches, by layer")
def gate_shares(subject: Any) -> Finding:
    """Return a finding with values ``share_<branch>_layer_<i>``, ``entropy_layer_<i>`` in nats,
    ``collapsed_layer_<i>`` and ``moved_layer_<i>``."""
    return judge([tally.metrics() for tally in tallies(subject)])


def judge(layers: Sequence[Mapping[str, float]]) -> Finding:
    """The finding on what `Tally.metrics` says of each layer."""
    faults: list[str] = []
    values: dict[str, Value] = {}
    for i, layer in enumerate(layers):
        values |= {f"share_{branch}_layer_{i}": layer[f"share_{branch}"] for branch in BRANCHES}
        values |= {f"entropy_layer_{i}": layer["gate_entropy"], f"collapsed_layer_{i}": layer["gate_collapse"]}
        values[f"moved_layer_{i}"] = layer["gate_moved"]
        for branch in BRANCHES:
            share = layer[f"share_{branch}"]
            if not _LEAST_SHARE <= share <= _MOST_SHARE:
                faults.append(f"in layer {i} the {_NAMES[branch]} branch has {share:.3f} of the gates")
        if layer["gate_entropy"] < _LEAST_ENTROPY:
            faults.append(f"in layer {i} the entropy of the gates is {layer['gate_entropy']:.2f} nats")
        if layer["gate_collapse"] > _MOST_COLLAPSED:
            faults.append(f"in layer {i} {layer['gate_collapse']:.1%} of the gates are on one branch alone")
    moved = max(layer["gate_moved"] for layer in layers)
    inert = moved < _LEAST_MOVED
    if faults:
        said = "; ".join(faults)
        summary = f"{said[0].upper()}{said[1:]}: a branch is dead or the gate has collapsed."
    elif inert:
        summary = (
            f"Gates are at most {moved:.4f} from where they began: they have learnt nothing, and even shares say "
            "nothing."
        )
    else:
        summary = f"Every branch has a part in every layer, and gates have moved by up to {moved:.3f} from their start."
    x = tuple(range(len(layers)))
    series = tuple(Series(_NAMES[b], x, tuple(layer[f"share_{b}"] for layer in layers)) for b in BRANCHES)
    plot = Plot.bars("Share of each branch in the gates", "layer", "share", *series, lines={"least": _LEAST_SHARE})
    return answer("fail" if faults else "warn" if inert else "pass", summary, values, {}, (plot,))
