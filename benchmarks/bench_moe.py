"""What the dispatch of tokens to experts costs: one layer and whole models, beside a loop, a dense layer and a peer.

On a CPU, one thread: forward, backward and AdamW of one layer with its router at width 128 and two experts a token, and
whole steps of preset ``cpu-tiny`` with as many experts. Variants take turns, each round begins with another one, and a
ratio is the median over rounds of two times of the same round. Time is CPU time of this process, so that what else the
machine does counts only where it empties caches. Freed memory stays with the process: otherwise a variant would pay or
not for pages that are given back and zeroed again, as its sizes happen to fall. What that costs by default is said.

On a GPU besides: preset ``half-notes`` in bfloat16 against a dense model of the same active width.

Tokens are random: how long a step takes hangs on how evenly the router spreads them, which it does before training.
The peer is the layer of Mixtral in transformers, which is optional and not in the lock file:
`pip install --no-deps transformers==5.23.0 regex` is enough for it. Without it the benchmark says that it is left out.

What it is not: a test; nothing fails here for being slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.results import hardware, record, table
from benchmarks.turns import Variant, page_faults, seconds, speed
from tests.reference.shared_moe import expert_loop
from trainables.registry import build_config, get_family
from trainables.shared_moe.accounting import active_ffn, count_params, matmul_params, memory_per_token
from trainables.shared_moe.config import SharedMoEConfig
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import Dense, SharedMoE
from trainables.training.step import OptimStep, parameter_group
from trainables.worker.allocator import keep_freed_memory

TITLE = "Expert dispatch of shared_moe"
EXPERTS = (16, 40, 60)
WIDTH, HIDDEN, TOKENS, TOP_K = 128, 256, 2048, 2
LOOP, DISPATCH, DENSE = "loop over experts", "sorted dispatch", "dense layer of the same active width"
GOAL = 0.8
"""Tokens a second of `half-notes` on a GPU, as a ratio to a dense model of the same active width."""


class Loop(Experts):
    """Experts whose forward pass is the loop of the slow model."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As the loop has it."""
        return expert_loop(x, chosen, weights, self)


class IndexedLoop(Experts):
    """The loop as it is often written: each expert indexes the stacked weights, whose gradient is as large as all."""

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As the loop has it."""
        mixed = torch.zeros_like(x)
        for expert in range(len(self.w_in)):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            hidden = F.gelu(x[token] @ self.w_in[expert] + self.b_in[expert])
            output = hidden @ self.w_out[expert] + self.b_out[expert]
            mixed.index_add_(0, token, output * weights[token, place].unsqueeze(1))
        return mixed, torch.bincount(chosen.flatten(), minlength=len(self.w_in))


def config_of(preset: str, **fields: Any) -> SharedMoEConfig:
    """A config of the family."""
    config = build_config(get_family("shared_moe"), fields, preset=preset)
    assert isinstance(config, SharedMoEConfig)
    return config


def with_experts(model: nn.Module, kind: type[Experts]) -> nn.Module:
    """The same model with the same weights, its experts computed by another class."""
    for module in model.modules():
        if isinstance(module, Experts):
            module.__class__ = kind
    return model


# --- one layer -------------------------------------------------------------------------------------------------------


def mixture(num: int, hidden: int = HIDDEN, kind: type[Experts] = Experts) -> nn.Module:
    """A router and its experts, initialised as the model does."""
    return with_experts(SharedMoE(config_of("cpu-tiny", num_experts=num, d_ff=hidden, depth=1)).block(0).ffn, kind)


def mixtral(num: int, hidden: int, implementation: str) -> nn.Module:
    """Mixtral's layer: softmax over the chosen, experts with SwiGLU (three matrices) and without biases."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=WIDTH,
        intermediate_size=hidden,
        num_local_experts=num,
        num_experts_per_tok=TOP_K,
        experts_implementation=implementation,
    )
    if config._experts_implementation != implementation:
        raise ValueError(f"transformers took {config._experts_implementation!r} for {implementation!r}")
    layer: nn.Module = MixtralSparseMoeBlock(config)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    return layer


def layer_step(name: str, layer: nn.Module) -> Variant:
    """Forward and backward pass of a layer, then AdamW on its parameters."""
    x = torch.randn(1, TOKENS, WIDTH, requires_grad=True)
    along = torch.randn(1, TOKENS, WIDTH)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4, fused=True)

    def gradients() -> None:
        y = layer(x)
        (y if isinstance(y, Tensor) else y[0]).backward(along)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return Variant(name, (gradients, update), TOKENS)


def layers(num: int) -> list[Variant]:
    """Every layer with ``num`` experts; the loop, which the ratios are to, first."""
    made: dict[str, nn.Module] = {
        LOOP: mixture(num, kind=Loop),
        "loop that indexes stacked weights": mixture(num, kind=IndexedLoop),
        DISPATCH: mixture(num),
        DENSE: Dense(WIDTH, TOP_K * HIDDEN),
    }
    if importlib.util.find_spec("transformers"):
        made[f"{DISPATCH}, {3 * HIDDEN // 2} hidden units"] = mixture(num, 3 * HIDDEN // 2)
        made["Mixtral's layer (SwiGLU), eager"] = mixtral(num, HIDDEN, "eager")
        made["Mixtral's layer (SwiGLU), grouped_mm"] = mixtral(num, HIDDEN, "grouped_mm")
    return [layer_step(name, layer) for name, layer in made.items()]


# --- whole models ----------------------------------------------------------------------------------------------------


def loss_of(model: SharedMoE, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy and auxiliary loss, as in training."""
    output = model(ids[:, :-1])
    loss = F.cross_entropy(output.logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none").mean()
    if output.routing is None:
        return loss, {}
    aux = output.routing.aux_loss()
    return loss + 0.01 * aux, {"train_aux": aux}


def model_step(
    name: str, config: SharedMoEConfig, device: str = "cpu", batch: int | None = None, kind: type[Experts] = Experts
) -> Variant:
    """Optimiser steps of a model on random sequences, in the precision that the config asks for on that device."""
    torch.manual_seed(0)
    model = SharedMoE(config)
    with_experts(model, kind).to(device)
    ids = torch.randint(config.vocab_size, (batch or config.batch_size, config.context + 1), device=device)
    group = parameter_group(model.parameters(), lr_scale=1.0, weight_decay=config.weight_decay)
    optim = OptimStep([group], lr=lambda step: 1e-4, device=torch.device(device), amp=config.amp)
    return Variant(name, (lambda: optim.take(lambda index: loss_of(model, ids)),), ids[:, 1:].numel())


def dense_like(config: SharedMoEConfig) -> SharedMoEConfig:
    """The same with one dense layer that is as wide as a token's experts together."""
    off = {"ffn": "dense", "num_experts": 0, "top_k": 0, "gate": "topk_softmax", "balance": "none"}
    off |= {"aux_loss_coef_start": 0.0, "aux_loss_coef_end": 0.0, "aux_warmup_frac": 0.0, "aux_decay_end_frac": 0.0}
    fields = {**config.model_dump(), **off, "z_loss_coef": 0.0, "d_ff": config.d_ff * config.top_k}
    return SharedMoEConfig(**fields)


def models(num: int) -> list[Variant]:
    """Preset ``cpu-tiny`` with ``num`` experts, the loop first, and its dense twin."""
    config = config_of("cpu-tiny", num_experts=num)
    return [
        model_step(LOOP, config, kind=Loop),
        model_step("loop that indexes stacked weights", config, kind=IndexedLoop),
        model_step(DISPATCH, config),
        model_step(DENSE, dense_like(config)),
    ]


def against_dense(config: SharedMoEConfig, device: str, batch: int) -> list[Variant]:
    """A model and its dense twin, which the ratio is to, first."""
    return [
        model_step(DENSE, dense_like(config), device, batch),
        model_step(DISPATCH, config, device, batch),
    ]


def kept_per_token(config: SharedMoEConfig, batch: int = 2) -> float:
    """Numbers of four bytes that autograd keeps for one token of a forward pass: what `memory_per_token` predicts.

    Each storage counts once and as a whole, as long as it is neither a parameter nor the data.
    """
    model = SharedMoE(config)
    ids = torch.randint(config.vocab_size, (batch, config.context + 1))
    others = {tensor.untyped_storage().data_ptr() for tensor in (ids, *model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = loss_of(model, ids)  # holds on to what it keeps, so no address is used twice
    assert loss.requires_grad
    return sum(kept.values()) / 4 / ids[:, 1:].numel()


# --- the section -----------------------------------------------------------------------------------------------------


def compared(what: str, by_size: Mapping[int, Mapping[str, list[float]]]) -> str:
    """A table: a row for each variant, thousands of tokens a second and the ratio for each number of experts."""
    header = [what, *(head for num in by_size for head in (f"E = {num}", "ratio"))]
    rows = []
    for name in next(iter(by_size.values())):
        cells = [
            f"{value:.{digits}f}" for size in by_size.values() for value, digits in zip(size[name], (1, 2), strict=True)
        ]
        rows.append((name, *cells))
    return table(header, rows)


def on_a_cpu(rounds: int) -> str:
    """Layers, models and memory, on one thread."""
    torch.set_num_threads(1)
    faults, share = page_faults(model_step(DISPATCH, config_of("cpu-tiny")))
    kept = "stays with the process" if keep_freed_memory() else "is the allocator's, since it is not glibc's"
    passes, steps, whole = {}, {}, {}
    for num in EXPERTS:
        torch.manual_seed(num)
        variants = layers(num)
        times = seconds(variants, 2 * rounds)
        passes[num], steps[num] = speed(variants, times, 0), speed(variants, times, 1)
        variants = models(num)
        whole[num] = speed(variants, seconds(variants, rounds), 0)
    peer = (
        f"Mixtral's experts have three matrices and no biases: with as many parameters ours have {3 * HIDDEN // 2} "
        "hidden units."
        if importlib.util.find_spec("transformers")
        else "Mixtral's layer is left out: `pip install --no-deps transformers==5.23.0 regex` adds it."
    )
    return (
        f"Thousands of tokens per second of CPU time on one thread, and the ratio to the loop: one layer with its "
        f"router, width {WIDTH}, {HIDDEN} hidden units, {TOKENS:,} tokens, {TOP_K} experts a token, float32; median of "
        f"{2 * rounds} rounds. {peer}\n\n{compared('forward and backward', passes)}\n\n"
        f"{compared('and AdamW', steps)}\n\n"
        f"Preset `cpu-tiny` with other numbers of experts, whole optimiser steps; median of {rounds} rounds.\n\n"
        f"{compared('model', whole)}\n\nFreed memory {kept}. By default, a step of `cpu-tiny` has {faults:,.0f} page "
        f"faults, and {share:.0%} of its CPU time is the system's.\n\n"
        f"What autograd keeps for a token, in numbers of four bytes, and the closed form "
        f"(`accounting.memory_per_token`).\n\n{memory()}"
    )


def memory() -> str:
    """Measured and predicted, for presets that fit on a CPU."""
    tiny = {f"`cpu-tiny`, E = {num}": config_of("cpu-tiny", num_experts=num) for num in EXPERTS}
    tiny["`cpu-tiny`, one expert a token"] = config_of("cpu-tiny", top_k=1, gate="prob")
    tiny["`cpu-tiny-dense`"] = config_of("cpu-tiny-dense")
    rows = []
    for name, config in tiny.items():
        measured, predicted = kept_per_token(config), memory_per_token(config)
        rows.append((name, f"{measured:,.0f}", f"{predicted:,}", f"{predicted / measured:.3f}"))
    return table(("model", "kept", "closed form", "ratio"), rows)


def on_a_gpu(config: SharedMoEConfig, batch: int, rounds: int, device: str = "cuda") -> str:
    """A model against its dense twin."""
    twin = dense_like(config)
    variants = against_dense(config, device, batch)
    found = speed(variants, seconds(variants, rounds, device), 0)
    rows = [
        (
            name,
            f"{count_params(size) / 1e6:.1f}",
            f"{matmul_params(size) / 1e6:.1f}",
            f"{active_ffn(size) / 1e6:.1f}",
            f"{found[name][0]:.1f}",
            f"{found[name][1]:.2f}",
        )
        for name, size in ((DENSE, twin), (DISPATCH, config))
    ]
    head = ("model", "parameters, M", "in products, M", "active FFN, M", "thousand tokens/s", "ratio")
    return (
        f"Whole optimiser steps on a GPU: width {config.width}, depth {config.depth}, {config.num_experts} experts of "
        f"{config.d_ff}, {config.top_k} a token, {batch} sequences of {config.context} tokens; median of {rounds} "
        f"rounds. Goal: {GOAL}, {'reached' if found[DISPATCH][1] >= GOAL else 'not reached'} in this run.\n\n"
        f"{table(head, rows)}"
    )


def main() -> int:
    """Measure on the CPU, and on a GPU if there is one."""
    parser = argparse.ArgumentParser(description="What the dispatch of tokens to experts costs.")
    parser.add_argument("--rounds", type=int, default=15, help="of whole models; layers take twice as many")
    parser.add_argument("--gpu-batch", type=int, default=8, help="sequences in a step of half-notes")
    arguments = parser.parse_args()
    parts = [on_a_cpu(arguments.rounds)]
    if torch.cuda.is_available():
        parts.append(on_a_gpu(config_of("half-notes"), arguments.gpu_batch, arguments.rounds))
    else:
        parts.append("No GPU: `half-notes` in bfloat16 against its dense twin was not measured.")
    packages = ("torch", "transformers") if importlib.util.find_spec("transformers") else ("torch",)
    record(TITLE, "python -m benchmarks.bench_moe", hardware(*packages), "\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
