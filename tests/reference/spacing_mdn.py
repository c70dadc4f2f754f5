"""The model and its loss once more, slow and plain: one window, one position, one head at a time.

What it is not: used in training. Tests compare `model` and `loss` against it, values and gradients, in float64. It is
written from the definition (which token sees which, token by token) and shares no code with what it checks, except
the names of parameters. Dropout is off. Autograd follows the loops, so gradients are those of the plain form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.spacing_mdn.config import SpacingConfig

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Token:
    """A place in the sequence: a spacing at ``position``, or slot ``slot`` of group ``group``."""

    position: int | None = None
    group: int = 0
    slot: int = 0


@dataclass(frozen=True)
class Setting:
    """As `slots.SlotControl`, for one window: ``keep`` has one number for each slot."""

    order: Sequence[int] | None = None
    ids: bool = True
    content: bool = True
    keep: Sequence[float] | None = None


@dataclass(frozen=True)
class Mixture:
    """One prediction: weights, means and standard deviations of its components, in units of spacings."""

    pi: Sequence[Tensor]
    mu: Sequence[Tensor]
    sigma: Sequence[Tensor]


def forward(parameters: Parameters, config: SpacingConfig, window: Tensor, setting: Setting) -> list[Mixture]:
    """The mixtures for one window.

    Args:
        parameters: a model's ``state_dict`` (or its parameters by name).
        config: the model's.
        window: (context, channels) inputs, as `model` documents them.
        setting: of the slots.

    Returns:
        A mixture for each position (layouts none and prefix) or for each cut (postfix).
    """
    center, scale = torch.tensor(1.0, dtype=window.dtype), torch.tensor(1.0, dtype=window.dtype)
    if config.block_norm:
        center, scale = _window_units(window)
        window = torch.stack([_in_units(row, center, scale, config) for row in window])
    tokens = _sequence(config)
    states = [_embed(parameters, config, token, window, setting) for token in tokens]
    for layer in range(config.depth):
        states = _block(parameters, config, layer, tokens, states)
        states = [state * _kept(token, setting) for token, state in zip(tokens, states, strict=True)]
    states = [_layer_norm(state, parameters["norm.weight"]) for state in states]
    by_token = dict(zip(tokens, states, strict=True))
    mixtures = []
    for last, state in _read(parameters, config, by_token, setting):
        guess = window[last, 2] if config.ar_features else None
        mixtures.append(_mixture(parameters, config, state, guess, center, scale))
    return mixtures


def nll(mixture: Mixture, target: Tensor) -> Tensor:
    """Negative log density, by the sum of densities as it is written (no logsumexp)."""
    density = torch.zeros((), dtype=target.dtype)
    for pi, mu, sigma in zip(mixture.pi, mixture.mu, mixture.sigma, strict=True):
        density = density + pi * torch.exp(-0.5 * ((target - mu) / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
    return -torch.log(density)


def entropy(mixture: Mixture) -> Tensor:
    """Entropy of the mixture's weights."""
    return -sum((pi * torch.log(pi) for pi in mixture.pi), start=torch.zeros((), dtype=mixture.pi[0].dtype))


def cuts(config: SpacingConfig) -> list[int]:
    """How many spacings each group of slots sees: even steps down from the whole window towards half of it."""
    step = config.context // (2 * config.query_cuts)
    return sorted(config.context - step * index for index in range(config.query_cuts))


def sees(config: SpacingConfig, token: Token, other: Token) -> bool:
    """Whether ``token`` sees ``other``, from the layouts' definitions."""
    if token.position is not None and other.position is not None:
        return other.position <= token.position
    if config.layout == "prefix":
        if token.position is not None:
            return True
        return other.position is None and other.slot <= token.slot
    if token.position is not None:
        return False
    if other.position is not None:
        return other.position < cuts(config)[token.group]
    return other.group == token.group


def _sequence(config: SpacingConfig) -> list[Token]:
    data = [Token(position=position) for position in range(config.context)]
    if config.layout == "none":
        return data
    groups = config.query_cuts if config.layout == "postfix" else 1
    slots = [Token(None, group, slot) for group in range(groups) for slot in range(config.n_slots)]
    return slots + data


def _embed(parameters: Parameters, config: SpacingConfig, token: Token, window: Tensor, setting: Setting) -> Tensor:
    positions = parameters["positions"]
    if token.position is not None:
        entered = _affine(parameters, config, "embed", window[token.position])
        return entered + positions[token.position]
    identity = token.slot if setting.order is None else setting.order[token.slot]
    vector = torch.zeros(config.width, dtype=window.dtype)
    if setting.content:
        vector = vector + parameters["slots.content"][token.slot]
    if setting.ids:
        vector = vector + parameters["slots.ids"][identity]
    if config.norm_cap > 0.0 and float(vector.detach().norm()) > config.norm_cap:
        vector = vector * config.norm_cap / vector.norm()
    if config.query_cuts > 1:
        vector = vector + positions[cuts(config)[token.group] - 1]
    return vector * _kept(token, setting)


def _kept(token: Token, setting: Setting) -> float:
    return 1.0 if token.position is not None or setting.keep is None else setting.keep[token.slot]


def _layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - x.mean()
    return weight * centred / torch.sqrt((centred**2).mean() + 1e-5)


def _block(
    parameters: Parameters, config: SpacingConfig, layer: int, tokens: Sequence[Token], states: Sequence[Tensor]
) -> list[Tensor]:
    weight = {
        name: parameters[f"blocks.{layer}.{name}.weight"]
        for name in ("attention_norm", "qkv", "out", "mlp_norm", "up", "down")
    }
    size = config.width // config.n_heads
    projected = [weight["qkv"] @ _layer_norm(state, weight["attention_norm"]) for state in states]
    results = []
    for token, state, own in zip(tokens, states, projected, strict=True):
        seen = [other for other_token, other in zip(tokens, projected, strict=True) if sees(config, token, other_token)]
        heads = []
        for head in range(config.n_heads):
            query, key, value = (
                slice(part * config.width + head * size, part * config.width + (head + 1) * size) for part in range(3)
            )
            scores = [torch.exp(own[query] @ other[key] / math.sqrt(size)) for other in seen]
            mixed = sum((score * other[value] for score, other in zip(scores, seen, strict=True)), start=own[value] * 0)
            heads.append(mixed / sum(scores))
        state = state + weight["out"] @ torch.cat(heads)
        hidden = weight["up"] @ _layer_norm(state, weight["mlp_norm"])
        results.append(state + weight["down"] @ (hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))))
    return results


def _read(
    parameters: Parameters, config: SpacingConfig, states: Mapping[Token, Tensor], setting: Setting
) -> list[tuple[int, Tensor]]:
    """For each prediction: the last position that it sees, and the state that the head reads."""
    if config.layout != "postfix":
        return [(position, states[Token(position=position)]) for position in range(config.context)]
    pooled = []
    for group, cut in enumerate(cuts(config)):
        slots = [Token(None, group, slot) for slot in range(config.n_slots)]
        shares = [torch.exp(_logit(parameters, config, slot, states)) * _kept(slot, setting) for slot in slots]
        whole = sum(shares)
        state = sum(
            (share / whole * states[slot] for share, slot in zip(shares, slots, strict=True)),
            start=torch.zeros(config.width, dtype=states[slots[0]].dtype),
        )
        pooled.append((cut - 1, state))
    return pooled


def _logit(parameters: Parameters, config: SpacingConfig, slot: Token, states: Mapping[Token, Tensor]) -> Tensor:
    """How much a slot is read, before the exponential: by its state, or by its place."""
    weight = parameters["readout.weight"]
    return weight[0] @ states[slot] if config.readout == "states" else weight[slot.slot]


def _affine(parameters: Parameters, config: SpacingConfig, name: str, x: Tensor) -> Tensor:
    result = parameters[f"{name}.weight"] @ x
    return result + parameters[f"{name}.bias"] if config.head_bias else result


def _mixture(
    parameters: Parameters, config: SpacingConfig, state: Tensor, guess: Tensor | None, center: Tensor, scale: Tensor
) -> Mixture:
    raw = _affine(parameters, config, "head", state)
    number = config.n_components
    weights = [torch.exp(raw[k]) for k in range(number)]
    pi = [weight / sum(weights) for weight in weights]
    sigma = [scale * (torch.log1p(torch.exp(raw[2 * number + k])) + 1e-4) for k in range(number)]
    mu = []
    for k in range(number):
        mean = raw[number + k]
        if guess is not None:
            mu.append(center + scale * (guess + mean))
        elif config.block_norm:
            mu.append(center + scale * mean)
        else:
            mu.append(torch.log1p(torch.exp(mean)))
    return Mixture(pi, mu, sigma)


def _window_units(window: Tensor) -> tuple[Tensor, Tensor]:
    spacings = window[:, 0] + 1.0
    center = spacings.mean()
    return center, torch.sqrt(((spacings - center) ** 2).mean())


def _in_units(row: Tensor, center: Tensor, scale: Tensor, config: SpacingConfig) -> Tensor:
    channels = [(row[0] + 1.0 - center) / scale]
    if config.ar_features:
        channels += [row[1] / scale, (row[2] + 1.0 - center) / scale]
    if config.height_input:
        channels.append(row[-1])
    return torch.stack(channels)
