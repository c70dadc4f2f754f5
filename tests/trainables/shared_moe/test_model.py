"""The model: sizes, causality, what sharing means, and that its parts add up."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.shared_moe.configs import DENSE, NO_AUX, tiny
from trainables.registry import build_config, get_family
from trainables.shared_moe.accounting import count_params
from trainables.shared_moe.model import Attention, Block, Dense, Mixture, SharedMoE


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(7)


def ids_for(config: Any, batch: int = 3) -> Tensor:
    return torch.randint(config.vocab_size, (batch, config.context))


@pytest.mark.parametrize(
    ("blocks", "ffn", "tied", "depth_embedding"),
    list(itertools.product(("shared", "indexed"), ("moe", "dense"), (False, True), (False, True))),
)
def test_the_closed_form_counts_the_modules_parameters(
    blocks: str, ffn: str, tied: bool, depth_embedding: bool
) -> None:
    fields = DENSE if ffn == "dense" else {}
    config = tiny(**fields, blocks=blocks, tied=tied, depth_embedding=depth_embedding, depth=3, d_ff=24, n_heads=4)
    model = SharedMoE(config)
    assert sum(p.numel() for p in model.parameters()) == count_params(config)
    assert tuple(model(ids_for(config)).logits.shape) == (3, config.context, config.vocab_size)


def test_the_half_parameter_preset_has_exactly_the_published_count() -> None:
    config = build_config(get_family("shared_moe"), preset="half-notes")
    with torch.device("meta"):
        model = SharedMoE(config)
    assert sum(p.numel() for p in model.parameters()) == count_params(config) == 137_050_152


@pytest.mark.parametrize("fields", [{}, {"top_k": 1, "gate": "prob"}, {"gate": "sigmoid"}, DENSE])
def test_a_position_sees_nothing_of_what_follows(fields: dict[str, Any]) -> None:
    config = tiny(**fields)
    model, ids, cut = SharedMoE(config), ids_for(config), 9
    other = ids.clone()
    other[:, cut:] = torch.randint(config.vocab_size, other[:, cut:].shape)
    before, after = model(ids).logits, model(other).logits
    torch.testing.assert_close(before[:, :cut], after[:, :cut], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, cut:], after[:, cut:], atol=1e-3)


@pytest.mark.parametrize("fields", [{}, DENSE])
def test_shared_is_indexed_with_equal_weights_and_its_gradient_is_the_sum_over_depth(fields: dict[str, Any]) -> None:
    shared = SharedMoE(tiny(**fields, depth=3))
    indexed = SharedMoE(tiny(**fields, depth=3, blocks="indexed"))
    weights = shared.state_dict()
    indexed.load_state_dict(
        {
            name: weights[".".join(("blocks", "0", *name.split(".")[2:])) if "blocks" in name else name]
            for name in indexed.state_dict()
        }
    )
    ids = ids_for(shared.config)
    losses = []
    for model in (shared, indexed):
        output = model(ids)
        loss = output.logits.logsumexp(-1).mean()
        if output.routing is not None:
            loss = loss + output.routing.aux_loss() + output.routing.z_loss()
        loss.backward()
        losses.append(loss)
    assert torch.equal(losses[0], losses[1])
    stacked = dict(indexed.named_parameters())
    for name, parameter in shared.blocks[0].named_parameters():
        gradients = [stacked[f"blocks.{depth}.{name}"].grad for depth in range(3)]
        assert all(g is not None for g in gradients)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, sum(gradients), atol=1e-6, rtol=1e-5)


def test_indexed_is_the_stack_of_its_blocks() -> None:
    config = tiny(blocks="indexed", depth=3)
    model = SharedMoE(config)
    ids = ids_for(config)
    assert model.depths is not None
    x = model.tokens.weight[ids] + model.positions
    for depth, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        x = x + model.depths[depth]
        x = x + block.attention(block.norm_attention(x))
        assert isinstance(block.ffn, Mixture)
        x = x + block.ffn(block.norm_ffn(x))[0]
    assert model.head is not None
    torch.testing.assert_close(model(ids).logits, model.norm(x) @ model.head.weight.T, atol=1e-5, rtol=0)


def gelu_of_gpt2(x: Tensor) -> Tensor:
    """Hendrycks & Gimpel, Gaussian error linear units (arXiv 1606.08415), section 2."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def test_the_nonlinearity_is_gelu_or_its_form_with_tanh() -> None:
    x = torch.randn(5, 16)
    outputs = []
    for approximate, gelu in (
        ("none", lambda h: h * 0.5 * (1.0 + torch.erf(h / math.sqrt(2.0)))),
        ("tanh", gelu_of_gpt2),
    ):
        torch.manual_seed(1)
        layer = Dense(16, 64, approximate)
        torch.nn.init.normal_(layer.inner.weight)
        outputs.append(layer(x))
        torch.testing.assert_close(outputs[-1], layer.out(gelu(layer.inner(x))))
    assert not torch.equal(*outputs)


@pytest.mark.parametrize("gelu_approximate", ["none", "tanh"])
@pytest.mark.parametrize("gate", ["topk_softmax", "prob"])
def test_all_of_equal_experts_are_one_dense_layer(gate: str, gelu_approximate: str) -> None:
    config = tiny(**NO_AUX, num_experts=4, top_k=4, gate=gate, gelu_approximate=gelu_approximate)
    mixture, dense = Mixture(config), Dense(config.width, config.d_ff, gelu_approximate)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        for name in ("w_in", "b_in", "w_out", "b_out"):
            weight = getattr(mixture.experts, name)
            weight.copy_(weight[:1].expand_as(weight))
        dense.inner.weight.copy_(mixture.experts.w_in[0].T)
        dense.inner.bias.copy_(mixture.experts.b_in[0])
        dense.out.weight.copy_(mixture.experts.w_out[0].T)
        dense.out.bias.copy_(mixture.experts.b_out[0])
    x = torch.randn(2, 5, config.width)
    torch.testing.assert_close(mixture(x)[0], dense(x), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("gate", ["prob", "sigmoid"])
def test_with_one_expert_a_token_the_task_still_teaches_the_router(gate: str) -> None:
    config = tiny(**NO_AUX, top_k=1, gate=gate, z_loss_coef=0.0)
    model = SharedMoE(config)
    model(ids_for(config)).logits.logsumexp(-1).mean().backward()
    (router,) = model.routers()
    assert router.linear.weight.grad is not None
    assert router.linear.weight.grad.abs().max() > 0.0


def test_initial_weights_have_the_spread_that_the_depth_asks_for() -> None:
    config = tiny(width=64, d_ff=256, depth=8, n_heads=4)
    model = SharedMoE(config)
    block = model.block(0)
    assert isinstance(block.ffn, Mixture)
    assert isinstance(block.attention, Attention)
    dense = SharedMoE(tiny(**DENSE, width=64, d_ff=256, depth=8, n_heads=4)).block(0).ffn
    assert isinstance(dense, Dense)
    out = 0.02 / math.sqrt(16)
    wanted = {
        0.02: (
            model.tokens.weight,
            model.positions,
            block.attention.qkv.weight,
            block.ffn.experts.w_in,
            dense.inner.weight,
        ),
        out: (block.attention.out.weight, block.ffn.experts.w_out, dense.out.weight),
    }
    for std, weights in wanted.items():
        for weight in weights:
            assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert model.head is not None
    assert torch.equal(model.head.weight, model.tokens.weight)
    assert not block.attention.qkv.bias.any()
    assert SharedMoE(tiny(tied=True)).head is None


def test_a_dropped_expert_gets_nothing() -> None:
    config = tiny()
    model, dropped = SharedMoE(config), torch.tensor([False, True, False, False])
    routing = model(ids_for(config), dropped).routing
    assert routing is not None
    assert routing.counts[:, 1].sum() == 0
    assert routing.counts.sum(dim=1).tolist() == [3 * config.context * config.top_k] * config.depth
