"""The fast model against the plain one, who sees whom, and what the modes of slots change."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from beartype import beartype
from torch import Tensor

from tests.reference import spacing_mdn as reference
from trainables.registry import build_config, get_family
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.loss import mixture_entropy, mixture_nll
from trainables.spacing_mdn.model import Prediction, SpacingModel, num_channels
from trainables.spacing_mdn.slots import SlotControl

SMALL: dict[str, Any] = {"context": 7, "width": 6, "depth": 2, "n_heads": 2, "n_components": 3, "eval_tail": 2}
PREFIX: dict[str, Any] = {"layout": "prefix", "n_slots": 3}
POSTFIX: dict[str, Any] = {"layout": "postfix", "n_slots": 3}
BATCH = 2

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "none, all inputs": ({"ar_features": 2, "height_input": True}, {}),
    "none, biases": ({"head_bias": True}, {}),
    "prefix": (PREFIX, {}),
    "prefix, permuted, one slot absent": (PREFIX, {"order": [2, 0, 1], "keep": [[1, 0, 1], [1, 1, 0]]}),
    "postfix": (POSTFIX, {}),
    "postfix, one layer": ({**POSTFIX, "depth": 1}, {}),
    "postfix, permuted": (POSTFIX, {"order": [1, 2, 0]}),
    "postfix, IDs off": (POSTFIX, {"ids": False}),
    "postfix, contents zeroed": (POSTFIX, {"content": False}),
    "postfix, slots absent": (POSTFIX, {"keep": [[1, 1, 0], [0, 1, 0]]}),
    "postfix, norm cap": ({**POSTFIX, "norm_cap": 0.2}, {}),
    "postfix, free weights, biases": ({**POSTFIX, "readout": "weights", "head_bias": True}, {}),
    "postfix, free weights, permuted, slots absent": (
        {**POSTFIX, "readout": "weights", "query_cuts": 2},
        {"order": [1, 2, 0], "keep": [[1, 1, 0], [0, 1, 1]]},
    ),
    "postfix, block norm": ({**POSTFIX, "block_norm": True}, {}),
    "postfix, block norm, all inputs": (
        {**POSTFIX, "block_norm": True, "ar_features": 2, "height_input": True},
        {},
    ),
    "query cuts": ({**POSTFIX, "query_cuts": 3}, {}),
    "query cuts, all inputs, permuted, one slot absent": (
        {**POSTFIX, "query_cuts": 2, "ar_features": 2, "height_input": True},
        {"order": [2, 1, 0], "keep": [[1, 1, 0], [1, 1, 1]]},
    ),
}


def build(fields: dict[str, Any]) -> tuple[SpacingConfig, SpacingModel]:
    """A small float64 model in evaluation, its weights large enough that every part matters."""
    config = build_config(get_family("spacing_mdn"), SMALL, fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = SpacingModel(config).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return config, model


def window(config: SpacingConfig, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.5 * torch.randn(batch, config.context, num_channels(config), generator=generator, dtype=torch.float64)


def control(switches: dict[str, Any]) -> SlotControl:
    keep, order = switches.get("keep"), switches.get("order")
    return SlotControl(
        None if order is None else torch.tensor(order),
        switches.get("ids", True),
        switches.get("content", True),
        None if keep is None else torch.tensor(keep, dtype=torch.float64),
    )


def plain(parameters: dict[str, Tensor], config: SpacingConfig, inputs: Tensor, switches: dict[str, Any]) -> Any:
    """The reference's mixtures, window by window."""
    rows = []
    for index, row in enumerate(inputs):
        own = dict(switches)
        if "keep" in own:
            own["keep"] = own["keep"][index]
        rows.append(reference.forward(parameters, config, row, reference.Setting(**own)))
    return rows


@pytest.mark.parametrize("case", list(CASES))
def test_values_and_gradients_equal_the_reference(case: str) -> None:
    fields, switches = CASES[case]
    config, model = build(fields)
    inputs = window(config).requires_grad_()
    names, parameters = zip(*model.named_parameters(), strict=True)
    wanted = [inputs, *parameters]

    prediction = model(inputs, control(switches))
    targets = torch.linspace(0.3, 1.9, prediction.mu[..., 0].numel(), dtype=torch.float64).view(BATCH, -1)
    nll = mixture_nll(prediction, targets)
    loss = nll.mean() - 0.1 * mixture_entropy(prediction.log_pi).mean()
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)

    rows = plain(dict(zip(names, parameters, strict=True)), config, inputs, switches)
    slow_nll = torch.stack(
        [
            torch.stack([reference.nll(mixture, target) for mixture, target in zip(row, goals, strict=True)])
            for row, goals in zip(rows, targets, strict=True)
        ]
    )
    slow_entropy = torch.stack([torch.stack([reference.entropy(mixture) for mixture in row]) for row in rows])
    slow_loss = slow_nll.mean() - 0.1 * slow_entropy.mean()
    slow_gradients = torch.autograd.grad(slow_loss, wanted, allow_unused=True, materialize_grads=True)

    torch.testing.assert_close(nll, slow_nll, rtol=1e-9, atol=1e-10)
    for name, fast, slow in zip(("inputs", *names), gradients, slow_gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_every_parameter_matters() -> None:
    """So the cases above do compare something."""
    config, model = build(POSTFIX)
    mixture_nll(model(window(config)), torch.ones(BATCH, 1, dtype=torch.float64)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def jacobian(model: SpacingModel, inputs: Tensor) -> Tensor:
    """(predictions, context): whether the mean of prediction p depends on the spacing at t."""

    def means(x: Tensor) -> Tensor:
        prediction: Prediction = model(x)
        return (prediction.log_pi.exp() * prediction.mu).sum(dim=-1)[0]

    full: Tensor = torch.autograd.functional.jacobian(means, inputs)  # type: ignore[no-untyped-call]
    return full[:, 0].abs().sum(dim=-1) > 0


@pytest.mark.parametrize("fields", [{}, PREFIX], ids=["none", "prefix"])
def test_a_position_sees_itself_and_its_past(fields: dict[str, Any]) -> None:
    config, model = build(fields)
    seen = jacobian(model, window(config, 1))
    assert torch.equal(seen, torch.ones(config.context, config.context).tril().bool())


def test_a_group_sees_the_data_up_to_its_cut() -> None:
    config, model = build({**POSTFIX, "query_cuts": 3})
    seen = jacobian(model, window(config, 1))
    assert seen.sum(dim=1).tolist() == reference.cuts(config) == [5, 6, 7]
    assert all(row[: int(row.sum())].all() for row in seen)


def slot_streams(model: SpacingModel, inputs: Tensor) -> list[Tensor]:
    """What enters each block and what leaves the last: (batch, tokens, width)."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _m, args, out: seen.extend((args[0], out))) for block in model.blocks]
    model(inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_prefix_slots_are_blind() -> None:
    config, model = build(PREFIX)
    one, other = (slot_streams(model, inputs) for inputs in (window(config), window(config) + 1.0))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[:, : config.n_slots], b[:, : config.n_slots])
        assert not torch.equal(a[:, config.n_slots :], b[:, config.n_slots :])


def test_data_before_postfix_slots_does_not_see_them() -> None:
    config, model = build(POSTFIX)
    before = slot_streams(model, window(config))
    with torch.no_grad():
        assert model.slots is not None
        model.slots.content.add_(1.0)
    after = slot_streams(model, window(config))
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, : config.context], b[:, : config.context])


def test_block_norm_is_equivariant_and_carries_its_jacobian() -> None:
    config, model = build({**POSTFIX, "block_norm": True})
    spacings, target = window(config) + 1.0, torch.tensor([[0.8], [1.3]], dtype=torch.float64)
    scale, shift = 2.5, 0.4
    nll = mixture_nll(model(spacings - 1.0), target)
    moved = mixture_nll(model(scale * spacings + shift - 1.0), scale * target + shift)
    torch.testing.assert_close(moved, nll + torch.log(torch.tensor(scale)).double())


def test_postfix_does_not_care_in_which_order_slots_stand() -> None:
    config, model = build(POSTFIX)
    inputs = window(config)
    before = model(inputs)
    with torch.no_grad():
        assert model.slots is not None
        for parameter in model.slots.parameters():
            parameter.copy_(parameter[[2, 0, 1]])
    torch.testing.assert_close(model(inputs).mu, before.mu)


def test_with_ids_off_permutations_change_nothing() -> None:
    config, model = build(POSTFIX)
    inputs, order = window(config), torch.tensor([2, 0, 1])
    assert torch.equal(model(inputs, SlotControl(order, ids=False)).mu, model(inputs, SlotControl(ids=False)).mu)
    assert not torch.allclose(model(inputs, SlotControl(order)).mu, model(inputs).mu)


def test_a_norm_cap_that_is_never_reached_changes_nothing() -> None:
    config, model = build({**POSTFIX, "norm_cap": 90.0})
    inputs = window(config)
    capped = model(inputs).mu
    assert model.slots is not None
    model.slots.norm_cap = 0.0
    torch.testing.assert_close(model(inputs).mu, capped)


def test_all_slots_absent_is_finite_and_sees_nothing() -> None:
    config, model = build(POSTFIX)
    nobody = SlotControl(keep=torch.zeros(1, 3, dtype=torch.float64))
    prediction = model(window(config), nobody)
    assert torch.isfinite(prediction.mu).all()
    assert torch.equal(prediction.mu[0], prediction.mu[1])


def test_readout_weights_sum_to_one_over_those_present() -> None:
    config, model = build({**POSTFIX, "query_cuts": 2})
    keep = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    readout = model(window(config), SlotControl(keep=keep)).readout
    torch.testing.assert_close(readout.sum(dim=-1), torch.ones(2, 2, dtype=torch.float64))
    assert (readout[0, :, 1] == 0).all()


@pytest.mark.parametrize("aux_mode", ["mean", "diagonal"])
def test_a_bias_of_the_statistics_head_shifts_what_it_says(aux_mode: str) -> None:
    config, model = build({**POSTFIX, "context": 32, "eval_tail": 2, "aux_mode": aux_mode, "head_bias": True})
    inputs, shift = window(config), torch.linspace(-1, 1, 8 if aux_mode == "mean" else 3, dtype=torch.float64)
    before = model(inputs).aux
    with torch.no_grad():
        assert model.aux is not None
        model.aux.bias.add_(shift)
    torch.testing.assert_close(model(inputs).aux, before + shift)


def test_free_weights_read_slots_whatever_the_data_say() -> None:
    config, model = build({**POSTFIX, "readout": "weights"})
    one, other = model(window(config)).readout, model(window(config) + 1.0).readout
    assert torch.equal(one, other)
    assert len(one[0, 0].unique()) == 3


@pytest.mark.parametrize("free", [{"ar_features": 2}, {**POSTFIX, "block_norm": True}], ids=["ar", "block_norm"])
def test_means_lie_on_both_sides_of_the_guess(free: dict[str, Any]) -> None:
    config, model = build(free)
    inputs = window(config, 8)
    guess = 1.0 + inputs[..., 2] if config.ar_features else 1.0 + inputs[..., 0].mean(dim=1, keepdim=True)
    difference = model(inputs).mu - guess.unsqueeze(-1)
    assert difference.min() < 0 < difference.max()


def test_plain_means_are_positive() -> None:
    config, model = build({})
    assert model(3.0 * window(config)).mu.min() > 0


@pytest.mark.parametrize("fields", [{}, PREFIX, {**POSTFIX, "query_cuts": 2}], ids=["none", "prefix", "postfix"])
def test_bfloat16_stays_between_float32_ends(fields: dict[str, Any]) -> None:
    config, model = build(fields)
    model.float()
    inputs, dtypes = window(config).float(), []
    model.embed.register_forward_hook(lambda _m, args, out: dtypes.extend((args[0].dtype, out.dtype)))
    model.head.register_forward_hook(lambda _m, args, out: dtypes.extend((args[0].dtype, out.dtype)))
    model.blocks[0].up.register_forward_hook(lambda _m, _args, out: dtypes.append(out.dtype))  # type: ignore[union-attr]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(inputs)
        nll = mixture_nll(prediction, torch.ones(prediction.mu.shape[:2]))
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16, torch.float32, torch.float32]
    assert prediction.log_pi.dtype == prediction.mu.dtype == prediction.sigma.dtype == nll.dtype == torch.float32


@pytest.mark.parametrize("case", ["none, all inputs", "prefix", "query cuts"])
def test_shapes_are_as_annotated(case: str) -> None:
    fields, switches = CASES[case]
    config, model = build(fields)
    forward = jaxtyping.jaxtyped(typechecker=beartype)(SpacingModel.forward)
    checked = jaxtyping.jaxtyped(typechecker=beartype)(mixture_nll)
    prediction = forward(model, window(config), control(switches))
    number = config.query_cuts if config.layout == "postfix" else config.context
    assert prediction.mu.shape == (BATCH, number, config.n_components)
    checked(prediction, torch.ones(BATCH, number))
    with pytest.raises(jaxtyping.TypeCheckError):
        forward(model, window(config)[0], control(switches))
