"""The mixture density network: window of inputs in, Gaussian mixtures for the next spacings out.

Input channels of each position t of a window (`windows` makes them): s[t] - 1; with ``ar_features`` twice the linear
predictor's residual at t and its prediction of s[t + 1], minus 1; with features (`features.table`) their offset,
minus 1; with ``height_input`` the standardised log height; then the channels of the features. Layout ``mlp`` reads one
position, the last, whose first channels are all the spacings of the window.

Nothing is random here: permutations and dropped slots arrive as a `SlotControl`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.spacing_mdn.blocks import INIT_STD, Block, linear
from trainables.spacing_mdn.config import NUM_STATISTICS, SpacingConfig, num_channels
from trainables.spacing_mdn.features.options import num_numbers
from trainables.spacing_mdn.mlp import Mlp, mixture_head
from trainables.spacing_mdn.slots import PLAIN, SlotControl, Slots, SlotWeights

_MIN_SIGMA = 1e-4
_MIN_SCALE = 1e-3  # block_norm: a window without spread is not blown up


@dataclass(frozen=True)
class Prediction:
    """Gaussian mixtures in units of spacings, and what the slots were.

    ``none`` and ``prefix`` predict at every position (predictions = context), ``postfix`` once for each cut, ``mlp``
    once.

    Attributes:
        log_pi: log weights, normalised.
        sigma: at least 1e-4 (times the window's scale under ``block_norm``).
        slots: normed states that were read out; None unless postfix.
        readout: weights of the readout, each row sums to 1; None unless postfix.
        aux: (batch, 8) or, in mode ``diagonal``, (batch, slots) predicted statistics, z-scored; None if off.
    """

    log_pi: Float[Tensor, "batch predictions components"]
    mu: Float[Tensor, "batch predictions components"]
    sigma: Float[Tensor, "batch predictions components"]
    slots: Float[Tensor, "batch cuts slots width"] | None = None
    readout: Float[Tensor, "batch cuts slots"] | None = None
    aux: Float[Tensor, "batch statistics"] | None = None


def guess_channel(config: SpacingConfig) -> int | None:
    """The channel that the mixture's means are relative to, a prediction of the next spacing minus 1; None: no such."""
    spacings = config.context if config.layout == "mlp" else 1
    return spacings if config.has_features else spacings + 1 if config.ar_features else None


def cut_positions(config: SpacingConfig) -> tuple[int, ...]:
    """For each group of slots, how many spacings of the window it sees; it predicts the one after.

    Evenly spaced over the upper half of the window, so that every group has a long past; the last sees all.
    """
    spread = config.context // (2 * config.query_cuts)
    return tuple(config.context - spread * later for later in reversed(range(config.query_cuts)))


class SpacingModel(nn.Module):
    """See the module. Parameters are drawn from torch's global generator: build it inside an `RngStream`."""

    def __init__(self, config: SpacingConfig) -> None:
        super().__init__()
        self.config = config
        self.mlp = Mlp(config) if config.layout == "mlp" else None
        if self.mlp is None:
            self._build_blocks(config)
        else:
            self.head = mixture_head(config.width, config.n_components)
        self.slots = Slots(config.n_slots, config.width, config.norm_cap) if config.n_slots else None
        self.readout = _readout(config)
        outputs = {"off": 0, "mean": NUM_STATISTICS, "diagonal": config.n_slots}[config.aux_mode]
        self.aux = linear(config.width, outputs, bias=config.head_bias) if outputs else None
        # What makes inputs of spacings, fitted on the training split (`windows.Channels`): it travels with the weights,
        # so that a model can be used where its data is not. (1 + order,) intercept and lags 1..order; mean and std.
        self.linear_predictor: Tensor
        self.height_scale: Tensor
        lags = config.ar_features + 1 if config.ar_features else 0
        self.register_buffer("linear_predictor", torch.zeros(lags, dtype=torch.float64))
        self.register_buffer("height_scale", torch.tensor([0.0, 1.0], dtype=torch.float64))
        if config.has_features:  # in all, and the spread about the offset that the head counts in
            self.feature_numbers: Tensor
            self.register_buffer("feature_numbers", torch.zeros(num_numbers(config), dtype=torch.float64))
            self.spread: Tensor
            self.register_buffer("spread", torch.ones(()))
        self._guess = guess_channel(config)
        self._slot_mask: Tensor | None
        self.register_buffer("_slot_mask", _slot_mask(config), persistent=False)

    def _build_blocks(self, config: SpacingConfig) -> None:
        self.embed = linear(num_channels(config), config.width, bias=config.head_bias)
        self.positions = nn.Parameter(torch.randn(config.context, config.width) * INIT_STD)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.width, config.n_heads, config.dropout, config.depth) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = linear(config.width, 3 * config.n_components, bias=config.head_bias)

    def forward(self, inputs: Float[Tensor, "batch context channels"], control: SlotControl = PLAIN) -> Prediction:
        """Predict. ``inputs`` are float32 (or the parameters' type) also under autocast; see the module for them."""
        center: Tensor | float = 1.0
        scale: Tensor | float = 1.0
        if self.config.block_norm:
            inputs, center, scale = _normalise(inputs)
        guess = None if self._guess is None else inputs[..., self._guess]
        if self.mlp is not None:
            with torch.autocast(inputs.device.type, enabled=False):
                return Prediction(*self._mixture(self.mlp(inputs), guess, center, scale))
        data = self._embed(inputs)
        if self.config.layout != "postfix":
            states = self._causal(data, control)
            with torch.autocast(inputs.device.type, enabled=False):
                return Prediction(*self._mixture(self.norm(states.to(inputs.dtype)), guess, center, scale))
        states = self._postfix(data, control).to(inputs.dtype)
        if guess is not None:
            guess = guess[:, [cut - 1 for cut in cut_positions(self.config)]]
        with torch.autocast(inputs.device.type, enabled=False):
            slots, weights, pooled = self._read_slots(states, control)
            aux = None if self.aux is None else self._statistics(slots[:, -1])
            return Prediction(*self._mixture(pooled, guess, center, scale), slots, weights, aux)

    def _embed(self, inputs: Tensor) -> Tensor:
        # Spacings rounded to bfloat16 cost 0.10 nats of what a linear predictor knows: both ends stay in float32.
        with torch.autocast(inputs.device.type, enabled=False):
            return self.dropout(self.embed(inputs) + self.positions)  # type: ignore[no-any-return]

    def _causal(self, data: Tensor, control: SlotControl) -> Tensor:
        """Layouts none and prefix: states of the data's positions."""
        if self.slots is None:
            for block in self.blocks:
                data = block(data)
            return data
        number = self.config.n_slots
        slots = self.slots(control).expand(len(data), -1, -1)
        x = torch.cat((_present(slots, control.keep), data), dim=1)
        for block in self.blocks:
            x = block(x)
            if control.keep is not None:
                x = torch.cat((_present(x[:, :number], control.keep), x[:, number:]), dim=1)
        return x[:, number:]

    def _postfix(self, data: Tensor, control: SlotControl) -> Tensor:
        """Layout postfix: (batch, cuts * slots, width) states of the slots."""
        config, length = self.config, self.config.context
        slots = self.dropout(self.slot_vectors(control).expand(len(data), -1, -1))
        keep = None if control.keep is None else control.keep.repeat(1, config.query_cuts)
        x = torch.cat((data, _present(slots, keep)), dim=1)
        for block in self.blocks[:-1]:
            x = block(x, length, self._slot_mask)
            if keep is not None:
                x = torch.cat((x[:, :length], _present(x[:, length:], keep)), dim=1)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        return _present(last.slots_only(x, length, self._slot_mask), keep)

    def slot_vectors(self, control: SlotControl) -> Float[Tensor, "cuts_and_slots width"]:
        """Layout postfix: the slots of every group, as they enter the first block."""
        assert self.slots is not None
        slots: Tensor = self.slots(control).expand(self.config.query_cuts, -1, -1)
        if self.config.query_cuts > 1:
            # A group knows how far it sees by the position of the last spacing that it sees.
            slots = slots + self.positions[[cut - 1 for cut in cut_positions(self.config)]].unsqueeze(1)
        return slots.flatten(0, 1)

    def _read_slots(self, states: Tensor, control: SlotControl) -> tuple[Tensor, Tensor, Tensor]:
        """Normed states by cut and slot, the readout's weights, and the states pooled by them."""
        assert self.readout is not None
        slots = self.norm(states).unflatten(1, (self.config.query_cuts, self.config.n_slots))
        weights = self.readout(slots).squeeze(-1).softmax(dim=-1)
        if control.keep is not None:
            weights = weights * control.keep.unsqueeze(1)
            # With every slot absent the pooled state is zero, not undefined.
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-9)
        return slots, weights, (weights.unsqueeze(-1) * slots).sum(dim=2)

    def _statistics(self, slots: Tensor) -> Tensor:
        """The auxiliary outputs from the slots that see the whole window (batch, slots, width)."""
        assert self.aux is not None
        if self.config.aux_mode == "mean":
            slots = slots.mean(dim=1, keepdim=True)
            return self.aux(slots).squeeze(1)  # type: ignore[no-any-return]
        own = (slots * self.aux.weight).sum(dim=-1)
        return own if self.aux.bias is None else own + self.aux.bias

    def _mixture(
        self, states: Tensor, guess: Tensor | None, center: Tensor | float, scale: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and standard deviations of the mixtures that ``states`` stand for.

        Plain means are softplus of the head's output: spacings are positive. With a linear ``guess`` or under
        ``block_norm`` the head gives the difference from the guess or from the window's mean, which has either sign:
        there the softplus goes. A scaled and shifted Gaussian mixture is one, so undoing the normalisation on means
        and deviations gives its density the Jacobian, 1 / scale. With features both are in units of their spread.
        """
        pi, mean, spread = self.head(states).chunk(3, dim=-1)
        sigma = F.softplus(spread) + _MIN_SIGMA
        if self.config.has_features:
            mean, sigma = mean * self.spread, sigma * self.spread
        sigma = sigma * scale
        if guess is not None:
            mu = center + scale * (guess.unsqueeze(-1) + mean)
        elif self.config.block_norm:
            mu = center + scale * mean
        else:
            mu = F.softplus(mean)
        return pi.log_softmax(dim=-1), mu, sigma


def _readout(config: SpacingConfig) -> nn.Linear | SlotWeights | None:
    """What gives the slots their logits in the pool that the head reads."""
    if config.layout != "postfix":
        return None
    return linear(config.width, 1) if config.readout == "states" else SlotWeights(config.n_slots)


def _normalise(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs in units of each window's own mean and scale, and these two, (batch, 1, 1) each."""
    spacings = inputs[..., :1]
    mean = spacings.mean(dim=1, keepdim=True)
    scale = spacings.std(dim=1, keepdim=True, correction=0).clamp_min(_MIN_SCALE)
    channels = [(spacings - mean) / scale]
    if inputs.shape[-1] >= 3:
        channels += [inputs[..., 1:2] / scale, (inputs[..., 2:3] - mean) / scale]
    channels.append(inputs[..., len(channels) :])
    return torch.cat(channels, dim=-1), 1.0 + mean, scale


def _slot_mask(config: SpacingConfig) -> Tensor | None:
    """(cuts * slots, context + cuts * slots), True where a slot sees a token; None where slots see everything.

    Slots of a group see one another in both directions: an order among them would tell them apart whatever their ID.
    """
    if config.layout != "postfix" or config.query_cuts == 1:
        return None
    cuts = torch.tensor(cut_positions(config)).repeat_interleave(config.n_slots).unsqueeze(1)
    group = torch.arange(config.query_cuts).repeat_interleave(config.n_slots)
    return torch.cat((torch.arange(config.context) < cuts, group.unsqueeze(1) == group), dim=1)


def _present(slots: Tensor, keep: Tensor | None) -> Tensor:
    return slots if keep is None else slots * keep.unsqueeze(-1)
