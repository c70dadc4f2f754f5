"""Does any prediction of this trained model depend on a later token?

What it is: one sequence, each of its tokens replaced in turn, and every logit before it compared, in float64; and the
gradient of predictions with respect to later embeddings, which must be exactly zero. Of sequences with more than
`_MOST_POSITIONS` tokens, positions at the edges of blocks and evenly spread ones are replaced.
What it is not: a proof for other weights; the laws of the attention are tested without any training.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from analysis.diagnose.api import Finding, NoEvidence, Value, answer, diagnostic
from analysis.nsa.looked import NOT_FINITE
from trainables.nsa.model import NSAModel

_MOST_POSITIONS = 64
_AT_ONCE = 8
_MOST_TOKENS = 1024
"""Of the sequence: longer ones are cut, for each position costs a pass."""
_NOISE = 1e-6
"""Difference of logits in float64 that rounding alone may make: batches are summed in other orders."""


@diagnostic("causality of the trained model")
def causality(subject: Any) -> Finding:
    """Return a finding with values ``positions`` that were replaced, ``leaks`` among them that moved an earlier logit,
    ``largest_move`` of an earlier logit, and ``leaking_gradients`` of the predictions that were differentiated."""
    model = copy.deepcopy(subject.task.model).double().eval()
    assert isinstance(model, NSAModel)
    tokens = subject.sample.sequences[:1, : min(_MOST_TOKENS, subject.config.context)].to(subject.task.device)
    places = positions(tokens.shape[1], subject.config.select_block)
    moves = moved_before(model, tokens, places)
    if not moves.isfinite().all():
        raise NoEvidence(NOT_FINITE)
    leaking = sum(_gradient_leaks(model, tokens, place) for place in places[:: max(1, len(places) // _AT_ONCE)])
    leaks = int((moves > _NOISE).sum())
    values: dict[str, Value] = {"positions": len(places), "leaks": leaks, "largest_move": float(moves.max())}
    values["leaking_gradients"] = leaking
    if leaks or leaking:
        first = places[int((moves > _NOISE).int().argmax())]
        summary = (
            f"Predictions depend on later tokens: {leaks} of {len(places)} replaced tokens move an earlier logit, the "
            f"first at position {first}. No loss of this model means anything."
        )
        return answer("fail", summary, values, {"leaks": 0, "leaking_gradients": 0})
    summary = f"None of {len(places)} replaced tokens moves an earlier logit, and gradients of later tokens are zero."
    return answer("pass", summary, values, {"leaks": 0, "leaking_gradients": 0})


def positions(time: int, block: int) -> list[int]:
    """Which tokens are replaced: all but the first, or edges of blocks and their neighbours first, then even ones."""
    if time - 1 <= _MOST_POSITIONS:
        return list(range(1, time))
    half = _MOST_POSITIONS // 2
    edges = sorted({place for edge in range(block, time, block) for place in (edge - 1, edge)})
    even = range(1, time, max(1, (time - 1) // half))
    return sorted({*edges[:: max(1, len(edges) // half)], *even, time - 1})


def moved_before(model: NSAModel, tokens: Tensor, places: list[int]) -> Tensor:
    """By how much the replacement of each token moves any logit before it."""
    vocabulary = model.config.vocab_size
    moves = []
    with torch.inference_mode():
        before = model(tokens.expand(_AT_ONCE, -1)).logits[:1]
        for first in range(0, len(places), _AT_ONCE):
            some = places[first : first + _AT_ONCE]
            rows = tokens.repeat(_AT_ONCE, 1)
            for row, place in enumerate(some):
                rows[row, place] = (rows[row, place] + vocabulary // 2) % vocabulary
            change = (model(rows).logits - before).abs().amax(dim=-1)
            moves += [change[row, :place].max() for row, place in enumerate(some)]
    return torch.stack(moves)


def _gradient_leaks(model: NSAModel, tokens: Tensor, place: int) -> int:
    """1 if the prediction at the position before ``place`` has a gradient of any embedding from there on."""
    kept: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    hook = model.tokens.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(model(tokens).logits[:, place - 1].sum(), kept)
    finally:
        hook.remove()
    return int(bool(gradient[:, place:].any()))
