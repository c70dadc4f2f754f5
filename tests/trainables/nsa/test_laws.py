"""What must hold of sparse attention whatever its weights: causality, caches, dense limits, exact reads, lists."""

from __future__ import annotations

import ast
import inspect
import math
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.reference import nsa as reference
from tests.trainables.nsa.layers import CONFIGS, sparse_layer
from tests.trainables.nsa.test_attention import shapes
from trainables.nsa import attention, branches, cache, selection
from trainables.nsa.attention import DenseAttention, Seen, SparseAttention
from trainables.nsa.branches import Memory, Reads, tile
from trainables.nsa.cache import Overfull
from trainables.nsa.selection import NONE, block_scores, choose_blocks, largest
from trainables.nsa.sparsity import Sparsity

TIME = 40


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)


def inputs(layer: SparseAttention | DenseAttention, time: int = TIME, batch: int = 1) -> Tensor:
    return torch.randn(batch, time, layer.out.in_features, dtype=torch.float64)


# --- causality -------------------------------------------------------------------------------------------------------


def moved_before(layer: SparseAttention, x: Tensor) -> list[int]:
    """Positions whose change moves an output before them."""
    before, _ = layer(x)
    leaks = []
    for position in range(x.shape[1]):
        other = x.clone()
        other[:, position] += torch.randn_like(other[:, position])
        if not torch.equal(layer(other)[0][:, :position], before[:, :position]):
            leaks.append(position)
    return leaks


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("way", ["gather", "union"])
def test_no_position_sees_a_later_one(name: str, way: str) -> None:
    layer = sparse_layer(**CONFIGS[name], selection=way)
    x = inputs(layer)
    assert moved_before(layer, x) == []
    x.requires_grad_()
    for position in (0, 7, 8, 21):
        (gradient,) = torch.autograd.grad(layer(x)[0][:, position].sum(), x)
        assert gradient[:, position].abs().sum() > 0.0
        assert not gradient[:, position + 1 :].any()


def test_a_leak_of_one_block_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = sparse_layer()
    compressed = branches._compressed

    def leaking(queries: Tensor, positions: Tensor, start: int, memory: Memory, sizes: Sparsity) -> Any:
        return compressed(queries, positions + sizes.stride, start, memory, sizes)

    monkeypatch.setattr(branches, "_compressed", leaking)
    x = inputs(layer)
    assert moved_before(layer, x)
    (gradient,) = torch.autograd.grad(layer(x.requires_grad_())[0][:, 9].sum(), x)
    assert gradient[:, 10:].any()


def test_a_window_that_is_cut_at_its_end_is_caught() -> None:
    # The newest tokens of a cache that was cut to the window, taken for the first ones.
    layer = sparse_layer()
    x = inputs(layer)
    queries, memory = layer._projected(x, 0, None)
    cut = tuple(part[:, :, -layer.sparsity.window :] for part in memory.window)
    at = torch.arange(layer.sparsity.window)
    wrong = Memory(memory.compressed, memory.selected, cut, 0, at)  # type: ignore[arg-type]
    right, _ = tile(queries, 0, memory, layer.sparsity, "gather")
    leaky, _ = tile(queries, 0, wrong, layer.sparsity, "gather")
    assert not torch.allclose(right[2], leaky[2])


# --- caches ----------------------------------------------------------------------------------------------------------


def in_pieces(layer: SparseAttention | DenseAttention, x: Tensor, cuts: list[int]) -> tuple[Tensor, Tensor | None]:
    """Outputs and lists of a sequence that a cache is given in pieces."""
    kept = layer.new_cache(len(x), x.shape[1])
    outputs, lists = [], []
    for first, last in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        output, seen = layer(x[:, first:last], kept, counted=True)  # type: ignore[arg-type]
        outputs.append(output)
        if isinstance(seen, Seen):
            lists.append(seen.reads.blocks)
    return torch.cat(outputs, dim=1), torch.cat(lists, dim=2) if lists else None


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("way", ["gather", "union"])
def test_prefill_and_decoding_give_what_one_pass_gives(name: str, way: str) -> None:
    layer = sparse_layer(**CONFIGS[name], selection=way)
    time = 2 * max(layer.sparsity.window % 99, layer.sparsity.selected_tokens % 96, 12) + 5
    x = inputs(layer, time)
    with torch.no_grad():
        whole, seen = layer(x, counted=True)
        assert seen is not None
        # From each cut on token by token; the last is a prefill in pieces.
        starts = (1, 2, layer.sparsity.block, time // 2, time - 9, time - 1)
        for cuts in (*([*range(start, time)] for start in starts), [3, 4, 4 + time // 3, time - 2]):
            output, lists = in_pieces(layer, x, cuts)
            torch.testing.assert_close(output, whole, atol=1e-10, rtol=0)
            assert torch.equal(lists.sort().values, seen.reads.blocks.sort().values)  # type: ignore[union-attr]


@settings(max_examples=20, deadline=None)
@given(shape=shapes(), time=st.integers(2, 40), data=st.data())
def test_any_pieces_of_any_shape_give_what_one_pass_gives(
    shape: dict[str, Any], time: int, data: st.DataObject
) -> None:
    layer = sparse_layer(**shape)
    x = inputs(layer, time)
    cuts = sorted(data.draw(st.sets(st.integers(1, time - 1), max_size=6)))
    with torch.no_grad():
        torch.testing.assert_close(in_pieces(layer, x, cuts)[0], layer(x)[0], atol=1e-10, rtol=0)


def test_a_dense_cache_gives_what_one_pass_gives() -> None:
    layer = DenseAttention(16, 4, 2).double()
    x = inputs(layer, 20, batch=2)
    torch.testing.assert_close(layer(x)[0], reference.slow_dense(layer, x), atol=1e-9, rtol=0)
    with torch.no_grad():
        for cuts in ([1, 2, 3], [5, 12], [19]):
            torch.testing.assert_close(in_pieces(layer, x, cuts)[0], layer(x)[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("layer", [sparse_layer(), DenseAttention(16, 4, 2).double()], ids=["sparse", "dense"])
def test_a_cache_takes_no_more_than_it_was_made_for(layer: SparseAttention | DenseAttention) -> None:
    kept = layer.new_cache(1, 8)
    with torch.no_grad():
        layer(inputs(layer, 8), kept)  # type: ignore[arg-type]
        with pytest.raises(Overfull, match="9 tokens: the cache holds 8"):
            layer(inputs(layer, 1), kept)  # type: ignore[arg-type]


# --- dense limits ----------------------------------------------------------------------------------------------------


def branch_outputs(layer: SparseAttention, x: Tensor, way: str) -> tuple[Tensor, Tensor, Memory]:
    """Branch, batch, group, head, time, dim; the scaled queries; and what they look at."""
    queries, memory = layer._projected(x, 0, None)
    outputs, _ = tile(queries, 0, memory, layer.sparsity, way)  # type: ignore[arg-type]
    return outputs, queries, memory


def dense(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention, the same keys for all heads of a group."""
    time = queries.shape[3]
    logits = queries @ keys[:, :, None, :time].mT
    logits = logits.masked_fill(~torch.ones(time, time, dtype=torch.bool).tril(), -math.inf)
    return logits.softmax(-1) @ values[:, :, None, :time]


@pytest.mark.parametrize("way", ["gather", "union"])
@pytest.mark.parametrize("time", [16, 23, 24])
def test_a_selection_of_everything_is_dense_attention(way: str, time: int) -> None:
    layer = sparse_layer((8, 4, 8, 3, 1, 4))
    outputs, queries, memory = branch_outputs(layer, inputs(layer, time), way)
    torch.testing.assert_close(outputs[1], dense(queries, *memory.selected), atol=1e-12, rtol=0)
    outputs, queries, memory = branch_outputs(layer, inputs(layer, 25), way)
    assert not torch.allclose(outputs[1], dense(queries, *memory.selected))


@pytest.mark.parametrize("window", [30, 31, 64])
def test_a_window_of_everything_is_dense_attention(window: int) -> None:
    layer = sparse_layer((8, 4, 8, 3, 1, window))
    outputs, queries, memory = branch_outputs(layer, inputs(layer, 30), "gather")
    torch.testing.assert_close(outputs[2], dense(queries, *memory.window), atol=1e-12, rtol=0)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_each_branch_alone_goes_through_the_whole_layer(branch: int) -> None:
    layer = sparse_layer()
    with torch.no_grad():
        layer.gates.outer.weight.zero_()
        layer.gates.outer.bias.copy_(torch.where(torch.arange(12) % 3 == branch, 50.0, -50.0))
    x = inputs(layer, 33, batch=2)
    slow = reference.slow_attention(layer, x)
    alone = slow.branches[branch].transpose(1, 2).flatten(2) @ layer.out.weight.T
    torch.testing.assert_close(layer(x)[0], alone, atol=1e-9, rtol=0)


# --- reads and lists -------------------------------------------------------------------------------------------------


def reads_of(layer: SparseAttention, x: Tensor) -> Reads:
    _, seen = layer(x, counted=True)
    assert seen is not None
    return seen.reads


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("way", ["gather", "union"])
def test_reads_are_the_closed_form_at_every_position(name: str, way: str) -> None:
    layer = sparse_layer(**CONFIGS[name], selection=way)
    counts = reads_of(layer, inputs(layer, 70)).counts
    for t in range(70):
        predicted = torch.tensor(layer.sparsity.reads(t + 1)).view(3, 1, 1)
        assert torch.equal(counts[..., t], predicted.expand(3, 1, layer.groups))


def test_decoding_reads_what_one_pass_reads() -> None:
    layer = sparse_layer()
    x, kept = inputs(layer), layer.new_cache(1, TIME)
    counts = reads_of(layer, x).counts
    with torch.no_grad():
        for t in range(TIME):
            _, seen = layer(x[:, t : t + 1], kept, counted=True)
            assert seen is not None
            assert torch.equal(seen.reads.counts[..., 0], counts[..., t])


def test_the_published_savings() -> None:
    paper = Sparsity(32, 16, 64, 16, 2, 512)
    assert [round(paper.saving(2**n), 1) for n in (13, 14, 15, 16)] == [4.0, 6.4, 9.1, 11.6]


@settings(max_examples=30, deadline=None)
@given(shape=shapes(), time=st.integers(1, 60))
def test_lists_hold_forced_blocks_and_no_block_twice(shape: dict[str, Any], time: int) -> None:
    layer = sparse_layer(**shape)
    sizes = layer.sparsity
    blocks = reads_of(layer, inputs(layer, time)).blocks
    for row in blocks.flatten(0, 1):
        for t, chosen in enumerate(row.tolist()):
            newest = t // sizes.select_block
            real = [block for block in chosen if block != NONE]
            assert len(set(real)) == len(real) == min(newest + 1, sizes.num_select)
            assert {0, newest, max(0, newest - sizes.num_local + 1)} <= set(real)
            assert all(0 <= block <= newest for block in real)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 3.0, math.inf]), min_size=1, max_size=30), data=st.data())
def test_the_largest_are_those_of_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:number]
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert largest(torch.tensor(values, dtype=dtype), number).tolist() == expected


def test_ties_go_to_the_lower_block_in_bfloat16() -> None:
    sizes = Sparsity(8, 4, 8, 4, 1, 8)
    scores = torch.full((1, 10), 0.5, dtype=torch.bfloat16)
    assert choose_blocks(scores, torch.tensor([79]), sizes).sort().values.tolist() == [[0, 1, 2, 9]]


def test_scores_count_shared_pieces() -> None:
    # Blocks of 2 pieces at each piece; selection blocks of 4. Compressed block 3 lies half in each of two.
    sizes = Sparsity(8, 4, 16, 3, 1, 8)
    scores = block_scores(torch.eye(7, dtype=torch.float64), sizes, 2)
    assert scores.tolist() == [[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]


def test_keys_of_the_future_among_the_scores_would_show() -> None:
    layer = sparse_layer((8, 4, 8, 3, 1, 8))
    queries, memory = layer._projected(inputs(layer, 64), 0, None)
    keys = memory.compressed[0]
    future = (queries.flatten(2, 3) @ keys.mT).softmax(-1).unflatten(2, queries.shape[2:4]).sum(2)
    wrong = choose_blocks(block_scores(future, layer.sparsity, 8), torch.arange(64), layer.sparsity)
    _, reads = tile(queries, 0, memory, layer.sparsity, "gather", counted=True)
    assert reads is not None
    assert not torch.equal(wrong.sort().values, reads.blocks.sort().values)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["gather", "union"])
def test_gradients_are_those_of_finite_differences(way: str) -> None:
    layer = sparse_layer((4, 2, 4, 3, 1, 3), n_heads=2, groups=1, selection=way)
    x = inputs(layer, 13).requires_grad_()
    parameters = list(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x)[0], (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("way", ["gather", "union"])
def test_rows_without_a_compressed_block_give_nothing_and_finite_gradients(dtype: torch.dtype, way: str) -> None:
    layer = sparse_layer((8, 4, 8, 3, 1, 8), selection=way).to(dtype)
    x = inputs(layer, 30).to(dtype).requires_grad_()
    outputs, *_ = branch_outputs(layer, x, way)
    assert not outputs[0][:, :, :, :7].any()
    assert outputs[0][:, :, :, 7:].any()
    layer(x)[0].float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("name", ["overlapping", "large blocks"])
def test_autocast_gives_the_same_within_its_rounding(name: str) -> None:
    layer = sparse_layer(**CONFIGS[name]).float()
    x = inputs(layer, 33).float()
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = layer(x)
    assert F.cosine_similarity(exact.flatten(), rounded.float().flatten(), dim=0) > 0.95


def test_learnt_compression_begins_as_the_mean() -> None:
    torch.manual_seed(1)
    learnt = SparseAttention(16, 4, 2, Sparsity(8, 4, 8, 3, 1, 8)).double()
    mean = SparseAttention(16, 4, 2, Sparsity(8, 4, 8, 3, 1, 8), phi="mean").double()
    mean.load_state_dict(learnt.state_dict(), strict=False)
    x = inputs(mean)
    torch.testing.assert_close(learnt(x)[0], mean(x)[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("gate", "start"), [("sigmoid", 0.5), ("softmax", 1 / 3)])
def test_gates_begin_even(gate: str, start: float) -> None:
    layer = SparseAttention(16, 4, 2, Sparsity(8, 4, 8, 3, 1, 8), gate=gate)  # type: ignore[arg-type]
    assert torch.allclose(layer.gates(torch.randn(2, 5, 16)), torch.tensor(start))


def test_positions_are_turned_once_and_only_their_distance_matters() -> None:
    # With blocks of one token nothing but the distance is left to tell positions apart.
    layer = sparse_layer((1, 1, 1, 3, 1, 4))
    x = inputs(layer, 12)
    later = torch.cat([x[:, :0], x], dim=1)
    queries, memory = layer._projected(x, 0, None)
    shifted, there = layer._projected(later, 5, _Shifted())  # type: ignore[arg-type]
    for part, other in ((memory.selected[0], there[1]), (memory.window[0], there[2])):
        torch.testing.assert_close(queries @ part[:, :, None].mT, shifted @ other[:, :, None].mT, atol=1e-12, rtol=0)


class _Shifted:
    """A cache that gives back what it is given."""

    def extend(self, raw: Any, selected: Any, window: Any, compress: Any) -> Any:
        return raw[0], selected[0], window[0]


@pytest.mark.parametrize("module", [attention, branches, cache, selection])
def test_nothing_waits_for_the_device(module: ModuleType) -> None:
    waiting = {"item", "tolist", "nonzero", "cpu", "numpy", "unique", "argwhere", "masked_select"}
    calls = {
        node.func.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert calls & waiting == set()


def test_no_gradient_passes_through_the_choice() -> None:
    layer = sparse_layer()
    x = inputs(layer).requires_grad_()
    queries, memory = layer._projected(x, 0, None)
    _, reads = tile(queries, 0, memory, layer.sparsity, "gather", counted=True)
    assert reads is not None
    assert not reads.blocks.requires_grad
    # The selected branch alone leaves the compression without a gradient: its keys only choose.
    outputs, _ = tile(queries, 0, memory, layer.sparsity, "gather")
    gradients = torch.autograd.grad(outputs[1].sum(), list(layer.key_phi.parameters()), allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)
