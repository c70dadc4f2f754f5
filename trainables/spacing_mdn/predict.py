"""Use a trained model: the density of the next spacing after a series of spacings. Needs the model, not its data set.

What it is not: evaluation, which scores windows of a split (`task`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.spacing_mdn.model import Prediction, SpacingModel
from trainables.spacing_mdn.windows import RESIDUAL_GAIN


def min_past(model: SpacingModel) -> int:
    """How many spacings `predict_next` needs."""
    return model.config.context + model.config.ar_features


@torch.inference_mode()
def predict_next(model: SpacingModel, spacings: Float[Tensor, " past"], log_height: float | None = None) -> Prediction:
    """Density of the spacing that follows ``spacings``.

    Args:
        model: from `trainables.load`.
        spacings: unfolded spacings in order, at least `min_past` of them; older ones are not looked at. Non-finite
            values give a non-finite density.
        log_height: log(g / 2 pi) at the end of the series, for a model with ``height_input``.

    Returns:
        A `Prediction` with batch 1, whose last prediction is the next spacing's mixture.

    Raises:
        ValueError: too few spacings, or no height for a model that needs one.
    """
    config = model.config
    if spacings.ndim != 1 or len(spacings) < min_past(model):
        raise ValueError(f"spacings: shape {tuple(spacings.shape)}; allowed is (n,) with n >= {min_past(model)}")
    if config.height_input and log_height is None:
        raise ValueError("log_height = None: this model has height_input, and needs log(g / 2 pi)")
    series = spacings.double()
    channels = [series[-config.context :] - 1.0]
    if config.ar_features:
        channels += _linear_channels(model, series)
    if config.height_input and log_height is not None:
        mean, std = model.height_scale.tolist()
        channels.append(torch.full((config.context,), (log_height - mean) / std, dtype=torch.float64))
    inputs = torch.stack(channels, dim=-1).float().unsqueeze(0)
    training = model.training
    model.eval()
    prediction: Prediction = model(inputs.to(model.positions.device))
    model.train(training)
    return prediction


def _linear_channels(model: SpacingModel, series: Tensor) -> list[Tensor]:
    """The linear predictor's residual at each position of the window, and its prediction of what follows."""
    context, order = model.config.context, model.config.ar_features
    # Row i predicts what follows the i-th window of `order` spacings; the last one predicts the unseen spacing.
    past = series[-(context + order) :].unfold(0, order, 1)
    predicted = model.linear_predictor[0] + past @ model.linear_predictor[1:].flip(0)
    return [RESIDUAL_GAIN * (series[-context:] - predicted[:-1]), predicted[1:] - 1.0]
