"""Use a trained model: the density of the next spacing after a series. Needs the model, not its data set."""

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
    """Density of the spacing that follows ``spacings``: the last prediction of a `Prediction` with batch 1.

    Args:
        model: from `trainables.load`.
        spacings: unfolded spacings in order, at least `min_past` of them; older ones are not looked at. Non-finite
            values give a non-finite density.
        log_height: log(g / 2 pi) at the end of the series, for a model with ``height_input``.
    """
    config = model.config
    if spacings.ndim != 1 or len(spacings) < min_past(model):
        raise ValueError(f"spacings: shape {tuple(spacings.shape)}; allowed is (n,) with n >= {min_past(model)}")
    if config.height_input and log_height is None:
        raise ValueError("log_height = None: this model has height_input, and needs log(g / 2 pi)")
    series = spacings[-min_past(model) :].double().unsqueeze(0)
    inputs = inputs_of(model, series, torch.tensor([log_height or 0.0], dtype=torch.float64))
    training = model.training
    model.eval()
    prediction: Prediction = model(inputs.to(model.positions.device))
    model.train(training)
    return prediction


def inputs_of(
    model: SpacingModel, series: Float[Tensor, "windows past"], log_height: Float[Tensor, " windows"]
) -> Float[Tensor, "windows context channels"]:
    """Input channels of series of `min_past` float64 spacings, by the numbers that the model's buffers hold.

    ``log_height`` is read for a model with ``height_input`` only. Float64 up to the last step, as `windows` has it: a
    residual is the small difference of two spacings.
    """
    context, order = model.config.context, model.config.ar_features
    channels = [series[:, -context:] - 1.0]
    if order:
        # Row i predicts what follows the i-th run of `order` spacings; the last one predicts the unseen spacing.
        lags = model.linear_predictor[1:].flip(0)
        predicted = model.linear_predictor[0] + series.unfold(1, order, 1) @ lags
        channels += [RESIDUAL_GAIN * (series[:, order:] - predicted[:, :-1]), predicted[:, 1:] - 1.0]
    if model.config.height_input:
        mean, std = model.height_scale.tolist()
        channels.append(((log_height - mean) / std).unsqueeze(1).expand(-1, context))
    return torch.stack(channels, dim=-1).float()
