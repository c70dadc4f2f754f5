"""The model: sizes, causality, caches through all layers, checkpointing, and the text that it generates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.nsa.configs import tiny
from trainables.language.generation import BadPrompt, Sampling, draw, generate
from trainables.nsa.accounting import count_params, memory_per_token
from trainables.nsa.model import NSAModel

VARIANTS: dict[str, dict[str, Any]] = {
    "sparse": {},
    "mean, softmax": {"phi": "mean", "gate": "softmax", "kv_groups": 1},
    "dense": {"attn": "dense"},
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)


def model_of(**fields: Any) -> NSAModel:
    """A model in float64 whose weights are large enough that every part matters."""
    model = NSAModel(tiny(**fields)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def ids(time: int = 96, batch: int = 1) -> Tensor:
    return torch.randint(257, (batch, time))


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_by_a_closed_form(variant: str) -> None:
    config = tiny(**VARIANTS[variant])
    assert count_params(config) == sum(parameter.numel() for parameter in NSAModel(config).parameters())


def kept_per_token(model: NSAModel, tokens: Tensor) -> float:
    """Numbers of four bytes that autograd keeps for one token, logits and what they come of left out."""
    others = {tensor.untyped_storage().data_ptr() for tensor in (tokens, *model.parameters())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(tokens).logits  # holds on to what it keeps, so no address is used twice
    assert logits.requires_grad
    return sum(kept.values()) / 4 / tokens.numel()


@pytest.mark.parametrize("fields", [{}, {"selection": "gather"}, {"attn": "dense"}, {"kv_groups": 4, "stride": 4}])
def test_memory_is_about_what_autograd_keeps(fields: dict[str, Any]) -> None:
    config = tiny(width=64, d_ff=256, context=256, num_select=5, depth=1, **fields)
    assert memory_per_token(config) == pytest.approx(kept_per_token(NSAModel(config), ids(256)), rel=0.15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_logit_depends_on_a_later_token(variant: str) -> None:
    model, tokens = model_of(**VARIANTS[variant]), ids()
    with torch.no_grad():
        before = model(tokens).logits
        for position in (1, 15, 16, 47, 48, 80, 95):
            other = tokens.clone()
            other[:, position] = (other[:, position] + 1) % 257
            after = model(other).logits
            assert torch.equal(after[:, :position], before[:, :position])
            assert not torch.equal(after[:, position], before[:, position])


@pytest.mark.parametrize("variant", VARIANTS)
def test_prefill_and_decoding_give_the_logits_of_one_pass(variant: str) -> None:
    model, tokens = model_of(**VARIANTS[variant]), ids(batch=2)
    with torch.no_grad():
        whole = model(tokens).logits
        for cut in (1, 15, 16, 50, 64, 95):
            caches = model.new_caches(2, 96)
            parts = [model(tokens[:, :cut], caches).logits]
            parts += [model(tokens[:, t : t + 1], caches).logits for t in range(cut, 96)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-10, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpointing_changes_no_gradient_and_no_list(variant: str) -> None:
    tokens, found = ids(), []
    for checkpointing in (False, True):
        torch.manual_seed(7)
        model = model_of(checkpointing=checkpointing, **VARIANTS[variant]).train()
        output = model(tokens, counted=True)
        output.logits.square().mean().backward()
        found.append(([p.grad for p in model.parameters()], [seen.reads.blocks for seen in output.seen]))
    for one, other in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_generated_tokens_are_those_of_whole_passes(variant: str) -> None:
    model, prompt, sampling = model_of(**VARIANTS[variant]), ids(20)[0].tolist(), Sampling(0.8, 0.9, seed=3)
    made = list(generate(model, prompt, 40, sampling))
    generator, text = torch.Generator().manual_seed(3), list(prompt)
    for token in made:
        with torch.no_grad():
            logits = model(torch.tensor([text])).logits[0, -1]
        assert token == draw(logits, sampling, generator)
        text.append(token)
    assert made == list(generate(model, prompt, 40, sampling))
    assert made != list(generate(model, prompt, 40, Sampling(0.8, 0.9, seed=4)))


def test_tokens_are_drawn_from_the_likeliest_that_have_the_share() -> None:
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    counts = {p: [0] * 4 for p in (0.5, 0.6, 1.0)}
    for p, count in counts.items():
        generator = torch.Generator().manual_seed(0)
        for _ in range(2000):
            count[draw(logits, Sampling(1.0, p), generator)] += 1
    assert counts[0.5] == [0, 2000, 0, 0]
    assert counts[0.6][0] == counts[0.6][2] == 0
    assert counts[0.6][1] / 2000 == pytest.approx(2 / 3, abs=0.05)
    assert [count / 2000 for count in counts[1.0]] == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.05)
    generator = torch.Generator().manual_seed(0)
    cold = [draw(logits, Sampling(0.05), generator) for _ in range(100)]
    assert cold == [1] * 100


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": 0.0}, "temperature = 0: allowed is a number above 0"),
        ({"temperature": -1.0}, "temperature = -1: allowed"),
        ({"temperature": float("nan")}, "temperature = nan: allowed"),
        ({"top_p": 0.0}, "top_p = 0: allowed"),
        ({"top_p": 1.5}, "top_p = 1.5: allowed"),
        ({"seed": -1}, "seed = -1: allowed"),
    ],
)
def test_a_way_to_draw_that_makes_no_sense_is_refused_by_name(fields: dict[str, float], said: str) -> None:
    with pytest.raises(BadPrompt, match=said.replace(".", r"\.")):
        Sampling(**fields)  # type: ignore[arg-type]
