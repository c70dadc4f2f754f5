"""The model: its weights, and the prediction at the state that relaxation comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainables.equilibrium.field import make_field
from trainables.equilibrium.layout import layout
from trainables.equilibrium.readout import logits_of
from trainables.equilibrium.relaxation import Relaxed, relax

_AVERAGE = "average_"


@dataclass(frozen=True)
class _Output:
    """Logits of the next token, and the free phase that they were read from."""

    logits: Float[Tensor, "batch time vocabulary"]
    free: Relaxed


class EquilibriumModel(nn.Module):
    """See the module; built from a config alone. With ``ema`` it predicts by its averaged weights."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self._layout = layout(config)
        for name, weight in self._layout.items():
            values = torch.full(weight.shape, weight.mean)
            if weight.std:
                values += weight.std * torch.randn(weight.shape)
            self.register_parameter(name, nn.Parameter(values))
            if config.ema is not None:
                self.register_buffer(_AVERAGE + name, values.clone())

    def forward(self, ids: Int[Tensor, "batch time"]) -> _Output:
        """Predict the token after each position."""
        weights = self.evaluated
        free = relax(
            make_field(self.config, weights, ids), self.config.t1, self.config.eps, anderson=self.config.anderson
        )
        return _Output(logits_of(weights, free.z, normed=self.config.readout_norm), free)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights in training by name, which ask for gradients."""
        return {name: getattr(self, name) for name in self._layout}

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights that predictions are made by, without gradients."""
        prefix = "" if self.config.ema is None else _AVERAGE
        return {name: getattr(self, prefix + name).detach() for name in self._layout}

    def average(self, step: int) -> None:
        """Move the averaged weights to those after ``step`` steps; the first steps weigh more, as their mean would."""
        if self.config.ema is None:
            return
        share = 1.0 - min(self.config.ema, step / (step + 1))
        with torch.no_grad():
            for name in self._layout:
                getattr(self, _AVERAGE + name).lerp_(getattr(self, name), share)

    def matrices(self) -> Iterator[nn.Parameter]:
        """Those that decay."""
        return (parameter for parameter in self.parameters() if parameter.ndim == 2)

    def recurrent(self) -> Mapping[str, nn.Parameter]:
        """Matrices that multiply the state in the field."""
        return {name: getattr(self, name) for name, weight in self._layout.items() if weight.recurrent}
