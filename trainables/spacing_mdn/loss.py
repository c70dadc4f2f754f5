"""Losses of the family, as pure functions of a prediction and what came.

Densities are computed in the prediction's type, float32 in training whatever the blocks' precision.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.spacing_mdn.config import NUM_STATISTICS
from trainables.spacing_mdn.model import Prediction

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def mixture_nll(
    prediction: Prediction, targets: Float[Tensor, "batch predictions"]
) -> Float[Tensor, "batch predictions"]:
    """Negative log density of ``targets`` in nats: -log sum_k pi_k N(target; mu_k, sigma_k).

    By logsumexp, so a target far from every mean costs much, not infinity. NaN in gives NaN out, target by target.
    Source: Bishop, Mixture Density Networks (1994), equation 29.
    """
    z = (targets.unsqueeze(-1) - prediction.mu) / prediction.sigma
    log_density = -0.5 * z.square() - prediction.sigma.log() - _LOG_SQRT_2PI
    return -torch.logsumexp(prediction.log_pi + log_density, dim=-1)


def mixture_entropy(log_pi: Float[Tensor, "batch predictions components"]) -> Float[Tensor, "batch predictions"]:
    """Entropy of the mixture's weights in nats, between 0 and log(components)."""
    return -(log_pi.exp() * log_pi).sum(dim=-1)


def ortho_loss(slots: Float[Tensor, "batch cuts slots width"]) -> Float[Tensor, ""]:
    """Mean squared cosine between different slots' states: 0 if all are orthogonal, 1 if all are parallel.

    A single slot has nothing to be orthogonal to: 0. A zero state has cosine 0 with all others.
    """
    number = slots.shape[-2]
    if number < 2:
        return slots.new_zeros(())
    directions = slots / slots.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    cosines = directions @ directions.transpose(-1, -2)
    off_diagonal = cosines.square().sum(dim=(-1, -2)) - cosines.diagonal(dim1=-2, dim2=-1).square().sum(dim=-1)
    loss: Tensor = off_diagonal.mean() / (number * (number - 1))
    return loss


def aux_loss(
    predicted: Float[Tensor, "batch outputs"], statistics: Float[Tensor, "batch statistics"]
) -> Float[Tensor, ""]:
    """Mean squared error of the predicted z-scored statistics.

    Args:
        predicted: one output for each of the 8 statistics (mode ``mean``), or one for each slot (mode ``diagonal``):
            slot i answers for statistic i modulo 8 only. Fewer than 8 slots leave the last statistics unasked.
        statistics: M0..M7 of each window.
    """
    if predicted.shape[-1] != NUM_STATISTICS:
        statistics = statistics[:, torch.arange(predicted.shape[-1], device=statistics.device) % NUM_STATISTICS]
    return (predicted - statistics).square().mean()
