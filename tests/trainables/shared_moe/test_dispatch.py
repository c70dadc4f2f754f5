"""The sorted dispatch against the loop over experts, and the model against its slow form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.reference import shared_moe as reference
from tests.trainables.shared_moe.configs import VARIANTS, tiny
from trainables.shared_moe.dispatch import Experts
from trainables.shared_moe.model import Dense, SharedMoE

TOLERANCE = 5e-7
NAMES = ("y", "x", "weights", "w_in", "b_in", "w_out", "b_out")
Results = tuple[Tensor, ...]
Forward = Callable[[Tensor, Tensor, Tensor, Experts], tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def experts(num: int, width: int = 16, hidden: int = 24) -> Experts:
    """Weights of the size that keeps the variance, so that errors are told in units of the values."""
    torch.manual_seed(num)
    layer = Experts(num, width, hidden)
    for weight, fan_in in ((layer.w_in, width), (layer.w_out, hidden)):
        nn.init.normal_(weight, std=fan_in**-0.5)
    nn.init.normal_(layer.b_in)
    nn.init.normal_(layer.b_out)
    return layer


def drawn(num: int, k: int, tokens: int, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, distinct experts for each token, weights that sum to one."""
    return torch.randn(tokens, width), torch.rand(tokens, num).topk(k).indices, torch.rand(tokens, k).softmax(1)


def fast(x: Tensor, chosen: Tensor, weights: Tensor, layer: Experts) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = layer(x, chosen, weights)
    return result


def results(forward: Forward, layer: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Results:
    """The output, and gradients of the sum of its rows along random unit vectors, in the order of `NAMES`."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    y, counts = forward(x, chosen, weights, layer)
    assert counts.tolist() == torch.bincount(chosen.flatten(), minlength=len(layer.w_in)).tolist()
    generator = torch.Generator().manual_seed(0)
    along = F.normalize(torch.randn(y.shape, generator=generator)).to(y.dtype)
    leaves = (x, weights, layer.w_in, layer.b_in, layer.w_out, layer.b_out)
    return (y.detach(), *torch.autograd.grad((y * along).sum(), leaves))


def check(layer: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> None:
    """The dispatch in float32 is the loop in float64, to `TOLERANCE` of the largest value or of one.

    The loop in float32 is no measure: it errs more, to a side that depends on the processor.
    """
    mine = results(fast, layer, x, chosen, weights)
    layer.double()
    exact = results(reference.expert_loop, layer, x.double(), chosen, weights.double())
    layer.float()
    for name, got, true in zip(NAMES, mine, exact, strict=True):
        scale = max(1.0, float(true.abs().max()))
        assert float((got - true).abs().max()) <= TOLERANCE * scale, name


# --- values and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("num", [2, 3, 16, 40, 60])
def test_dispatch_is_the_loop_in_values_and_all_gradients(num: int, k: int) -> None:
    if k > num:
        k = num
    check(experts(num), *drawn(num, k, 50))


@given(
    num=st.integers(2, 60),
    k=st.integers(1, 5),
    tokens=st.integers(1, 40),
    eighths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_the_shape(num: int, k: int, tokens: int, eighths: tuple[int, int]) -> None:
    width, hidden = (8 * part for part in eighths)
    check(experts(num, width, hidden), *drawn(num, min(k, num), tokens, width))


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("only", [[0], [5], [2, 4]])
def test_experts_may_stay_empty(only: list[int], tokens: int) -> None:
    """One expert gets everything, the first or the last; or two of six get all."""
    layer = experts(6)
    x, _, weights = drawn(6, len(only), tokens)
    chosen = torch.tensor(only).repeat(tokens, 1)
    check(layer, x, chosen, weights)
    gradients = dict(zip(NAMES, results(fast, layer, x, chosen, weights), strict=True))
    for name in ("w_in", "b_in", "w_out", "b_out"):
        used = gradients[name].flatten(1).any(dim=1)
        assert used.nonzero().flatten().tolist() == only, name


def test_inputs_may_be_strided() -> None:
    layer = experts(7)
    x, chosen, weights = drawn(7, 3, 20)
    x_strided = torch.stack([x, x + 1.0], dim=2)[..., 0]
    chosen_strided = chosen.T.contiguous().T
    weights_strided = torch.cat([weights, weights], dim=1)[:, :3]
    assert not any(part.is_contiguous() for part in (x_strided, chosen_strided, weights_strided))
    strided = results(fast, layer, x_strided, chosen_strided, weights_strided)
    for name, got, plain in zip(NAMES, strided, results(fast, layer, x, chosen, weights), strict=True):
        assert torch.equal(got, plain), name


def test_a_gradient_that_is_one_number_everywhere_goes_through() -> None:
    """The gradient of a sum is an expanded scalar, which the grouped product would refuse."""
    layer = experts(4)
    x, chosen, weights = drawn(4, 2, 11)
    by_sum = torch.autograd.grad(layer(x, chosen, weights)[0].sum(), layer.w_in)[0]
    by_loop = torch.autograd.grad(reference.expert_loop(x, chosen, weights, layer)[0].sum(), layer.w_in)[0]
    torch.testing.assert_close(by_sum, by_loop, atol=TOLERANCE * float(by_loop.abs().max()), rtol=0)


@pytest.mark.parametrize("num", [2, 5])
def test_equal_experts_are_one_dense_layer_whoever_is_chosen(num: int) -> None:
    layer, dense = experts(num), Dense(16, 24)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(weight[:1].expand_as(weight))
        dense.inner.weight.copy_(layer.w_in[0].T)
        dense.inner.bias.copy_(layer.b_in[0])
        dense.out.weight.copy_(layer.w_out[0].T)
        dense.out.bias.copy_(layer.b_out[0])
    for k in range(1, num + 1):
        x, chosen, weights = drawn(num, k, 30)
        x.requires_grad_()
        mixed, plain = layer(x, chosen, weights)[0], dense(x)
        torch.testing.assert_close(mixed, plain, atol=1e-6, rtol=0)
        along = torch.randn_like(plain)
        got, wanted = (torch.autograd.grad((y * along).sum(), x)[0] for y in (mixed, plain))
        torch.testing.assert_close(got, wanted, atol=2e-6, rtol=0)


def test_every_assignment_reaches_its_expert_with_its_weight() -> None:
    """Experts that return their own number: the output tells who was asked, and with which weight."""
    num, k = 12, 3
    layer = experts(num)
    x, chosen, weights = drawn(num, k, 40)
    with torch.no_grad():
        layer.w_out.zero_()
        layer.b_out.copy_(2.0 ** torch.arange(num).unsqueeze(1).expand_as(layer.b_out))
    y, counts = layer(x, chosen, torch.ones_like(weights))
    assert y[:, 0].tolist() == [float(sum(2**expert for expert in row)) for row in chosen.tolist()]
    assert int(counts.sum()) == chosen.numel()
    weighted = layer(x, chosen, weights)[0][:, 0]
    torch.testing.assert_close(weighted, (weights * 2.0**chosen).sum(dim=1))


def test_the_same_inputs_give_the_same_bits() -> None:
    layer = experts(16, 32, 64)
    inputs = drawn(16, 2, 256, 32)
    first, second = (results(fast, layer, *inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_bfloat16_is_near() -> None:
    """Under autocast: products and what lies between them are rounded to eight bits, weights and sums are not."""
    layer = experts(8, 32, 64)
    inputs = drawn(8, 2, 64, 32)
    exact = layer(*inputs)[0].detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = layer(*inputs)[0].detach()
    assert rounded.dtype == torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0.0 < float(error) < 2.0**-6


@pytest.mark.parametrize("blocks", ["shared", "indexed"])
def test_matrices_are_cast_once_however_often_they_are_applied(blocks: str) -> None:
    """What is kept for the backward pass holds each matrix once, in bfloat16."""
    model = model_of(blocks=blocks, depth=4, d_ff=24)
    ids = torch.randint(40, (2, 6))
    shape = model.mixtures()[0].experts.w_in.shape
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape == shape:
            kept[tensor.data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        model(ids)
    assert [tensor.dtype for tensor in kept.values()] == [torch.bfloat16] * len(model.mixtures())


def test_a_cast_that_is_shared_gives_the_same_values_and_the_sum_of_the_gradients() -> None:
    layer = experts(8, 32, 64)
    inputs = [drawn(8, 2, 64, 32) for _ in range(4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        apart = [layer(*batch)[0] for batch in inputs]
        with layer.cast_once():
            shared = [layer(*batch)[0] for batch in inputs]
    assert all(torch.equal(one, other) for one, other in zip(apart, shared, strict=True))
    matrices = (layer.w_in, layer.w_out)
    sums = (torch.autograd.grad(torch.cat(y).square().sum(), matrices) for y in (apart, shared))
    for exact, got in zip(*sums, strict=True):
        assert 0.0 < float((got - exact).norm() / exact.norm()) < 2.0**-7  # it is summed in bfloat16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer.w_in.mul_(2.0)
        assert not torch.equal(layer(*inputs[0])[0], apart[0])  # no longer shared


def test_shapes_are_what_the_annotations_say() -> None:
    checked = jaxtyping.jaxtyped(typechecker=beartype)(Experts.forward)
    layer = experts(4)
    x, chosen, weights = drawn(4, 2, 6)
    checked(layer, x, chosen, weights)
    with pytest.raises(jaxtyping.TypeCheckError):
        checked(layer, x, chosen, weights[:, :1])


# --- the whole model -------------------------------------------------------------------------------------------------


def model_of(**fields: Any) -> SharedMoE:
    """A model whose weights are large enough that every part matters, and whose routers are shifted."""
    model = SharedMoE(tiny(vocab_size=40, context=6, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for router in model.routers():
            router.shift.normal_()
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("drop", [False, True])
def test_the_model_is_its_slow_form_in_logits_losses_and_gradients(variant: str, drop: bool) -> None:
    torch.manual_seed(3)
    model = model_of(**VARIANTS[variant])
    ids = torch.randint(40, (2, 6))
    dropped = torch.tensor([False, True, False, False]) if drop and variant != "dense" else None
    output, slow = model(ids, dropped), reference.slow_forward(model, ids, dropped)
    torch.testing.assert_close(output.logits.double(), slow.logits, atol=5e-6, rtol=0)
    losses = [F.cross_entropy(logits.double().flatten(0, 1), ids.flatten()) for logits in (output.logits, slow.logits)]
    if output.routing is not None:
        counts = [Counter(expert for row in use.chosen for expert in row) for use in slow.uses]
        assert output.routing.counts.tolist() == [[count[expert] for expert in range(4)] for count in counts]
        aux, z = reference.aux_loss(slow.uses), reference.z_loss(slow.uses)
        assert output.routing.aux_loss().item() == pytest.approx(aux.item(), rel=1e-6)
        assert output.routing.z_loss().item() == pytest.approx(z.item(), rel=1e-6)
        losses[0] = losses[0] + output.routing.aux_loss() + output.routing.z_loss()
        losses[1] = losses[1] + aux + z
    parameters = dict(model.named_parameters())
    got, wanted = (torch.autograd.grad(loss, list(parameters.values())) for loss in losses)
    for name, mine, exact in zip(parameters, got, wanted, strict=True):
        torch.testing.assert_close(mine, exact, atol=5e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_dispatch_is_the_loop_on_a_gpu_and_repeats_bit_for_bit() -> None:
    layer = experts(16, 32, 64).cuda()
    inputs = [part.cuda() for part in drawn(16, 2, 256, 32)]
    with torch.autocast("cuda", dtype=torch.bfloat16):
        first, second = (layer(*inputs)[0] for _ in range(2))
    assert torch.equal(first, second)
    exact = reference.expert_loop(*inputs, layer)[0]
    assert float((first - exact).abs().max() / exact.abs().max()) < 2.0**-6
