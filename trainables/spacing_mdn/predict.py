"""Use a trained model: the density of the next spacing after a series. Needs the model, not its data set."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.features import table
from trainables.spacing_mdn.features.heights import block_log_heights, rounded
from trainables.spacing_mdn.model import Prediction, SpacingModel
from trainables.spacing_mdn.windows import RESIDUAL_GAIN


def min_past(model: SpacingModel) -> int:
    """How many spacings `predict_next` needs.

    Its fits lie so that one is made at the last position; where earlier positions are read too, the first of them is
    served by a fit up to ``refit_every - 1`` spacings (``height_every - 1``) before it.
    """
    config = model.config
    if config.layout == "mlp" or not config.has_features:
        return config.past
    return config.past + (config.height_every if config.height_source == "inferred" else config.refit_every) - 1


@torch.inference_mode()
def predict_next(model: SpacingModel, spacings: Float[Tensor, " past"], log_height: float | None = None) -> Prediction:
    """Density of the spacing that follows ``spacings``: the last prediction of a `Prediction` with batch 1.

    Args:
        model: from `trainables.load`.
        spacings: unfolded spacings in order, at least `min_past` of them; older ones are not looked at. Non-finite
            values give a non-finite density.
        log_height: log(g / 2 pi) at the end of the series, for a model with ``height_input`` or with lines of
            primes at a given height; float64 digits of it are the ordinate.
    """
    config = model.config
    if spacings.ndim != 1 or len(spacings) < min_past(model):
        raise ValueError(f"spacings: shape {tuple(spacings.shape)}; allowed is (n,) with n >= {min_past(model)}")
    asks = "height_input" if config.height_input else "prime_lines" if config.reads_height else ""
    if asks and log_height is None:
        raise ValueError(f"log_height = None: this model has {asks}, and needs log(g / 2 pi)")
    series = spacings[-min_past(model) :].double().unsqueeze(0)
    inputs = inputs_of(model, series, torch.tensor([log_height or 0.0], dtype=torch.float64))
    training = model.training
    model.eval()
    prediction: Prediction = model(inputs.to(next(model.parameters()).device))
    model.train(training)
    return prediction


def inputs_of(
    model: SpacingModel, series: Float[Tensor, "windows past"], log_height: Float[Tensor, " windows"]
) -> Float[Tensor, "windows positions channels"]:
    """Input channels of series of `min_past` float64 spacings, by the numbers that the model's buffers hold.

    ``log_height`` is read for a model that asks for one only. Float64 up to the last step, as `windows` has it: a
    residual is the small difference of two spacings. The fits of features are as fresh at the end as they can be, where
    those of a data set are up to ``refit_every - 1`` spacings old.
    """
    config = model.config
    context, order = config.context, config.ar_features
    channels = [series[:, -context:] - 1.0]
    if order:
        # Row i predicts what follows the i-th run of `order` spacings; the last one predicts the unseen spacing.
        lags = model.linear_predictor[1:].flip(0)
        predicted = model.linear_predictor[0] + series.unfold(1, order, 1) @ lags
        channels += [RESIDUAL_GAIN * (series[:, order:] - predicted[:, :-1]), predicted[:, 1:] - 1.0]
    if config.has_features:
        rows = [_features(model, one, float(height)) for one, height in zip(series, log_height, strict=True)]
        offsets, features = (torch.stack(column).to(series.device) for column in zip(*rows, strict=True))
        channels.append(offsets - 1.0)
    if config.height_input:
        mean, std = model.height_scale.tolist()
        known = torch.from_numpy(rounded(log_height.cpu().numpy(), config.height_rounding)).to(series.device)
        channels.append(((known - mean) / std).unsqueeze(1).expand(-1, context))
    inputs = torch.stack(channels, dim=-1)
    if config.has_features:
        inputs = torch.cat((inputs, features), dim=-1)
    if config.layout == "mlp":
        inputs = torch.cat((inputs[..., 0], inputs[:, -1, 1:]), dim=1).unsqueeze(1)
    return inputs.float()


def _features(
    model: SpacingModel, series: Float[Tensor, " past"], log_height: float
) -> tuple[Float[Tensor, " context"], Float[Tensor, "context features"]]:
    """Offsets and channels of the last ``context`` positions of one series; those without a whole past are zeros."""
    config, spacings = model.config, series.cpu().numpy()
    heights = block_log_heights(spacings, log_height, BLOCK)
    raw = table.compute(config, spacings, heights, anchor=len(spacings) - 1)
    numbers = table.Numbers.unpacked(model.feature_numbers.cpu().numpy(), config)
    rows = table.assemble(config, raw, numbers, len(spacings))
    last = slice(-config.context, None)
    return torch.from_numpy(rows.offset[last]).double(), torch.from_numpy(rows.channels[last]).double()
