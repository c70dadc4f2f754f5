"""Layers of the field, each analytic in its input, so that a state may be complex; real ones take torch's kernels.

A holomorphic estimator moves the state off the real axis. There a norm takes means and squares without conjugates, a
softmax is shifted by a real number, and the GELU is that of the hyperbolic tangent.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Inexact
from torch import Tensor

EPS = 1e-5
"""Added to a variance before its root is taken."""
_GELU = math.sqrt(2.0 / math.pi)


def norm(
    z: Inexact[Tensor, "*batch width"], gain: Inexact[Tensor, ""] | Inexact[Tensor, " width"], bias: Tensor
) -> Inexact[Tensor, "*batch width"]:
    """Layer norm with a gain for each entry, or one for all."""
    if z.is_complex():
        return gain * standardised(z)[0] + bias
    if gain.ndim == 0:
        return gain * F.layer_norm(z, z.shape[-1:], eps=EPS) + bias
    return F.layer_norm(z, z.shape[-1:], gain, bias, EPS)


def standardised(z: Inexact[Tensor, "*batch width"]) -> tuple[Inexact[Tensor, "*batch width"], Tensor]:
    """``z`` without its mean over its standard deviation, and one over that deviation: (*batch, 1)."""
    centred = z - z.mean(dim=-1, keepdim=True)
    scale = (centred.square().mean(dim=-1, keepdim=True) + EPS).sqrt().reciprocal()
    return centred * scale, scale


def root_mean_square_norm(z: Inexact[Tensor, "*batch width"]) -> Inexact[Tensor, "*batch width"]:
    """``z`` over the root of its mean square."""
    return z * (z.square().mean(dim=-1, keepdim=True) + EPS).sqrt().reciprocal()


def linear(
    z: Inexact[Tensor, "*batch inner"], weight: Inexact[Tensor, "outer inner"], bias: Tensor | None = None
) -> Inexact[Tensor, "*batch outer"]:
    """``z weight' + bias``."""
    if z.is_complex():
        product = F.linear(z, weight.to(z.dtype))
        return product if bias is None else product + bias
    return F.linear(z, weight, bias)


def softmax(scores: Inexact[Tensor, "*batch keys"]) -> Inexact[Tensor, "*batch keys"]:
    """Softmax over the last dimension; entries whose real part is -inf get exactly 0."""
    if not scores.is_complex():
        return scores.softmax(dim=-1)
    powers = (scores - scores.real.amax(dim=-1, keepdim=True)).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def masked(scores: Inexact[Tensor, "*batch time keys"], hidden: Tensor) -> Inexact[Tensor, "*batch time keys"]:
    """``scores`` with -inf where ``hidden``."""
    return scores.masked_fill(hidden, -math.inf)


def gelu(z: Inexact[Tensor, "*batch"]) -> Inexact[Tensor, "*batch"]:
    """The GELU by the hyperbolic tangent."""
    if not z.is_complex():
        return F.gelu(z, approximate="tanh")
    return 0.5 * z * (1.0 + torch.tanh(_GELU * (z + 0.044715 * z * z * z)))
