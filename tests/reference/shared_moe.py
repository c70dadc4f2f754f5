"""The model, its routing and its losses once more, slow and plain: one token, one head, one expert at a time.

What it is not: used in training. Tests compare `dispatch`, `routing` and `model` against it, values and gradients. It
is written from the definitions and shares no code with what it checks, except the names of parameters. Everything but
`expert_loop` computes in float64, so that what differs is the fast side's rounding; gradients reach the parameters
that were given, since autograd follows the loops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainables.shared_moe.config import Gate, SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import SharedMoE

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Use:
    """What the router said at one application of a block, token after token.

    Attributes:
        logits: of every expert, before any shift.
        chosen: experts of each token, best first.
    """

    logits: Sequence[Tensor]
    chosen: Sequence[Sequence[int]]


@dataclass(frozen=True)
class SlowOutput:
    """As `model.Output`: logits of the next token, and the uses of routers in order of depth (none if dense)."""

    logits: Float[Tensor, "batch time vocabulary"]
    uses: Sequence[Use]


def expert_loop(
    x: Float[Tensor, "tokens width"],
    chosen: Int[Tensor, "tokens k"],
    weights: Float[Tensor, "tokens k"],
    experts: Experts,
) -> tuple[Float[Tensor, "tokens width"], Int[Tensor, " experts"]]:
    """What `dispatch.Experts` computes, by a loop over its experts, in the precision of what it is given.

    Each expert picks its tokens out, works on them and adds its part where they came from. It asks the device how many
    there are, expert by expert; that is what `dispatch` avoids.

    Args:
        x: inputs.
        chosen: which experts, without repetition in a row.
        weights: of each choice.
        experts: whose parameters are used.

    Returns:
        The weighted sums, and how many assignments each expert got.
    """
    mixed = torch.zeros_like(x)
    counts = []
    # Taken apart once: the gradient of `w_in[expert]` would be as large as all experts, for each of them.
    parameters = (experts.w_in, experts.b_in, experts.w_out, experts.b_out)
    for expert, (w_in, b_in, w_out, b_out) in enumerate(zip(*(p.unbind(0) for p in parameters), strict=True)):
        token, place = (chosen == expert).nonzero(as_tuple=True)
        counts.append(len(token))
        output = torch.addmm(b_out, F.gelu(torch.addmm(b_in, x[token], w_in)), w_out)
        mixed.index_add_(0, token, output * weights[token, place].unsqueeze(1))
    return mixed, torch.tensor(counts, dtype=torch.int32, device=x.device)


def gates(logits: Float[Tensor, " experts"], chosen: Sequence[int], gate: Gate) -> list[Tensor]:
    """Weights of one token's chosen experts, as the gates are defined."""
    if gate == "sigmoid":
        return [1.0 / (1.0 + torch.exp(-logits[expert])) for expert in chosen]
    over = range(len(logits)) if gate == "prob" else chosen
    whole = sum(torch.exp(logits[expert]) for expert in over)
    return [torch.exp(logits[expert]) / whole for expert in chosen]


def choose(logits: Float[Tensor, " experts"], shift: Float[Tensor, " experts"], top_k: int) -> list[int]:
    """The experts with the largest shifted logits of one token, best first."""
    order = sorted(range(len(logits)), key=lambda expert: -float(logits[expert].detach() + shift[expert]))
    return order[:top_k]


def aux_loss(uses: Sequence[Use]) -> Tensor:
    """E times the sum over experts of mean probability times share of assignments, averaged over uses."""
    values = []
    for use in uses:
        num, tokens = len(use.logits[0]), len(use.logits)
        value = torch.zeros((), dtype=torch.float64)
        for expert in range(num):
            probability = sum(torch.exp(z[expert]) / torch.exp(z).sum() for z in use.logits) / tokens
            load = sum(row.count(expert) for row in use.chosen) / sum(len(row) for row in use.chosen)
            value = value + num * probability * load
        values.append(value)
    return torch.stack(values).sum() / len(values)


def z_loss(uses: Sequence[Use]) -> Tensor:
    """The square of the logarithm of the sum of exponentiated logits, averaged over tokens and uses."""
    squares = [torch.log(torch.exp(z).sum()) ** 2 for use in uses for z in use.logits]
    return torch.stack(squares).sum() / len(squares)


def slow_forward(
    model: SharedMoE, ids: Int[Tensor, "batch time"], dropped: Bool[Tensor, " experts"] | None = None
) -> SlowOutput:
    """`SharedMoE.forward` by hand: blocks one upon the other, each token for itself.

    Args:
        model: whose parameters are used; gradients reach them.
        ids: tokens.
        dropped: experts that cannot be chosen.
    """
    config = model.config
    parameters = {name: value.double() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    positions = parameters["positions"]
    streams = [[parameters["tokens.weight"][i] + positions[t] for t, i in enumerate(row)] for row in ids.tolist()]
    uses = []
    for depth in range(config.depth):
        prefix = f"blocks.{0 if config.blocks == 'shared' else depth}."
        block = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
        if config.depth_embedding:
            streams = [[state + parameters["depths"][depth] for state in states] for states in streams]
        streams = [_attend(block, config, states) for states in streams]
        logits: list[Tensor] = []
        chosen: list[list[int]] = []
        for states in streams:
            for at, state in enumerate(states):
                inner = _layer_norm(state, block, "norm_ffn")
                if config.ffn == "dense":
                    states[at] = state + _mlp(inner, *(block[f"ffn.{name}"] for name in _DENSE))
                    continue
                logits.append(_router_logits(block, inner, dropped))
                chosen.append(choose(logits[-1], block["ffn.router.shift"], config.top_k))
                states[at] = state + _mixture(block, config, inner, logits[-1], chosen[-1])
        if config.ffn == "moe":
            uses.append(Use(logits, chosen))
    head = parameters["tokens.weight" if config.tied else "head.weight"]
    rows = [torch.stack([head @ _layer_norm(state, parameters, "norm") for state in states]) for states in streams]
    return SlowOutput(torch.stack(rows), uses)


_DENSE = ("inner.weight", "inner.bias", "out.weight", "out.bias")


def _router_logits(block: Parameters, x: Tensor, dropped: Tensor | None) -> Tensor:
    logits = block["ffn.router.linear.weight"] @ x + block["ffn.router.linear.bias"]
    if dropped is None:
        return logits
    return torch.stack(
        [logits[expert] - math.inf if dropped[expert] else logits[expert] for expert in range(len(logits))]
    )


def _mixture(block: Parameters, config: SharedMoEConfig, x: Tensor, logits: Tensor, chosen: Sequence[int]) -> Tensor:
    mixed = torch.zeros_like(x)
    for expert, gate in zip(chosen, gates(logits, chosen, config.gate), strict=True):
        w_in, b_in, w_out, b_out = (block[f"ffn.experts.{name}"][expert] for name in ("w_in", "b_in", "w_out", "b_out"))
        mixed = mixed + gate * _mlp(x, w_in.T, b_in, w_out.T, b_out)
    return mixed


def _mlp(x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
    """Linear, exact GELU, linear; matrices as `torch.nn.Linear` keeps them."""
    hidden = w_in @ x + b_in
    return w_out @ (hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))) + b_out


def _layer_norm(x: Tensor, parameters: Parameters, name: str) -> Tensor:
    centred = x - x.mean()
    return parameters[f"{name}.weight"] * centred / torch.sqrt((centred**2).mean() + 1e-5) + parameters[f"{name}.bias"]


def _attend(block: Parameters, config: SharedMoEConfig, states: Sequence[Tensor]) -> list[Tensor]:
    """The stream of one sequence after attention: each position looks at itself and at what came before."""
    size = config.width // config.n_heads
    projected = [
        block["attention.qkv.weight"] @ _layer_norm(state, block, "norm_attention") + block["attention.qkv.bias"]
        for state in states
    ]
    results = []
    for at, state in enumerate(states):
        heads = []
        for head in range(config.n_heads):
            query, key, value = (
                slice(part * config.width + head * size, part * config.width + (head + 1) * size) for part in range(3)
            )
            shares = [torch.exp(projected[at][query] @ other[key] / math.sqrt(size)) for other in projected[: at + 1]]
            seen = torch.stack([share * other[value] for share, other in zip(shares, projected, strict=False)])
            heads.append(seen.sum(dim=0) / torch.stack(shares).sum())
        results.append(state + block["attention.out.weight"] @ torch.cat(heads) + block["attention.out.bias"])
    return results
