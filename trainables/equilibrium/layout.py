"""Which weights a config has, how each begins, and to which group it belongs: standard library only.

The model is built from this table, parameters are counted by it, and gradients are compared group by group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ATTENTION = ("wq", "wk", "wv", "wo")
HEAD = "head"
"""Group of the readout: its gradient needs no adjoint, and is exact whatever the estimator."""


@dataclass(frozen=True)
class Weight:
    """One tensor of weights.

    Attributes:
        shape: of the tensor; () is a number.
        group: ``wq``, ``wk``, ``wv``, ``wo``, ``fc``, ``pj``, ``ln``, ``emb``, ``a``, ``b``, ``v``, ``u`` or ``head``.
        std: of the normal distribution that it begins with; 0 begins at ``mean``.
        mean: of that distribution.
        recurrent: whether it is a matrix that multiplies the state in the field; spectral normalisation bounds these.
    """

    shape: tuple[int, ...]
    group: str
    std: float = 0.0
    mean: float = 0.0
    recurrent: bool = False

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def layout(config: Any) -> dict[str, Weight]:
    """The weights of ``config`` by name, in a fixed order."""
    c, vocabulary = config.width, config.vocab_size
    weights = {
        "tokens": Weight((vocabulary, c), "emb", 0.5),
        "positions": Weight((config.context, c), "emb", 0.5),
        **(_monotone(config) if config.mode in ("mono", "nemon") else _block(config)),
    }
    if config.readout_norm:
        weights |= _norm("norm_out", c, HEAD)
    return {**weights, "head": Weight((vocabulary, c), HEAD, 0.02)}


def group_of(config: Any) -> dict[str, str]:
    """The group of each weight."""
    return {name: weight.group for name, weight in layout(config).items()}


def _norm(name: str, width: int, group: str) -> dict[str, Weight]:
    return {f"{name}_gain": Weight((width,), group, mean=1.0), f"{name}_bias": Weight((width,), group)}


def _block(config: Any) -> dict[str, Weight]:
    """Attention and a feed-forward layer, beside each other."""
    c, f = config.width, config.d_ff
    std, out = c**-0.5, config.residual_init
    # Tied weights come in pairs, so each bears the root of what the product should be scaled by.
    first = math.sqrt(out) if config.tied else 1.0
    weights: dict[str, Weight] = {}
    if config.mode == "energy":
        weights |= {"norm_gain": Weight((), "ln", mean=1.0), "norm_bias": Weight((c,), "ln")}
        weights["null_key"] = Weight((config.n_heads, c // config.n_heads), "wk", std)
    else:
        weights |= {**_norm("norm_attention", c, "ln"), **_norm("norm_mlp", c, "ln")}
    weights |= {name: Weight((c, c), name, std * first, recurrent=True) for name in ("wq", "wk")}
    if not config.tied:
        weights["wv"] = Weight((c, c), "wv", std, recurrent=True)
        weights["wo"] = Weight((c, c), "wo", std * out, recurrent=True)
    weights["fc"] = Weight((f, c), "fc", std * first * (c / f if config.tied else 1.0) ** 0.5, recurrent=True)
    weights["fc_bias"] = Weight((f,), "fc")
    if not config.tied:
        weights["pj"] = Weight((c, f), "pj", f**-0.5 * out, recurrent=True)
    return {**weights, "pj_bias": Weight((c,), "pj")}


def _monotone(config: Any) -> dict[str, Weight]:
    """One layer whose matrix over the state makes a contraction, and attention over what comes before."""
    c = config.width
    std = c**-0.5
    weights = {name: Weight((c, c), name, std) for name in ("wq", "wk")}
    weights["a"] = Weight((c, c), "a", 0.5 * std if config.mode == "mono" else 0.5 / c)
    if config.mode == "mono":
        weights["b"] = Weight((c, c), "b", 0.5 * std)
    weights["v"] = Weight((c, c), "v", std * config.residual_init, recurrent=True)
    return {**weights, "u": Weight((c, c), "u", std), "bias": Weight((c,), "u")}
