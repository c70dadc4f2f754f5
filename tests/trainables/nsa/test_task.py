"""Training and evaluation: what resumes, what is reported, and what a count of reads that is wrong comes to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainables.nsa.configs import tiny
from tests.trainables.nsa.conftest import MakeTask
from tests.trainables.nsa.layers import sparse_layer
from trainables.nsa import FAMILY
from trainables.nsa.branches import Reads
from trainables.nsa.sparsity import Sparsity
from trainables.nsa.tally import Tally, mismatches


@pytest.mark.parametrize("fields", [{}, {"attn": "dense"}, {"gate": "softmax", "checkpointing": True}])
def test_a_saved_task_goes_on_bit_for_bit(make_task: MakeTask, fields: dict[str, Any]) -> None:
    task = make_task(1, **fields)
    for _ in range(3):
        task.step()
    other = make_task(2, **fields)
    other.load_state_dict(task.state_dict())
    assert [task.step() for _ in range(3)] == [other.step() for _ in range(3)]
    assert task.evaluate() == other.evaluate()


def test_micro_batches_add_up_to_the_batch(make_task: MakeTask) -> None:
    whole, parts = (make_task(0, accumulation=number) for number in (1, 4))
    for _ in range(3):
        one, other = whole.step(), parts.step()
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("selection", ["gather", "union"])
def test_reads_are_counted_and_right(make_task: MakeTask, selection: str) -> None:
    task = make_task(0, selection=selection, reads_every=1)
    report = [task.step() for _ in range(3)][-1] | task.evaluate()
    assert report["reads_mismatch"] == report["eval_reads_mismatch"] == 0.0
    sizes = task.config.sparsity
    expected = [sizes.reads(t + 1)[1] / (t + 1) for t in range(96)]
    assert report["coverage"] == pytest.approx(sum(expected) / 96, rel=1e-6)
    assert report["coverage_end"] == pytest.approx(sum(expected[-16:]) / 16, rel=1e-6)
    assert report["dense_rows"] == pytest.approx(48 / 96)
    assert report["pct_at_max"] == pytest.approx(4 / 96)


def test_a_wrong_read_is_counted_and_stops_a_member(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(0, reads_every=2)
    reads = Sparsity.reads
    # Reads that do not grow with what is visible.
    monkeypatch.setattr(Sparsity, "reads", lambda self, visible: reads(self, min(visible, 60)))
    reports = [task.step() for _ in range(3)]
    # Two layers, four sequences, two groups, 36 positions; at steps 0 and 2.
    each = 2 * 4 * 2 * 36
    assert [report["reads_mismatch"] for report in reports] == [each, each, 2 * each]
    other = make_task(1)
    other.load_state_dict(task.state_dict())
    assert other.step()["reads_mismatch"] == 2 * each
    stopping = {check.metric for check in FAMILY.health if check.stops}
    assert stopping == {"reads_mismatch", "eval_reads_mismatch"}
    assert task.evaluate()["eval_reads_mismatch"] > 0.0


def test_every_query_that_differs_counts_once() -> None:
    layer = sparse_layer()
    _, seen = layer(torch.randn(1, 20, 16, dtype=torch.float64), counted=True)
    assert seen is not None
    assert mismatches(seen.reads, layer.sparsity) == 0
    counts = seen.reads.counts.clone()
    counts[0, 0, 1, 5] += 1
    counts[1, 0, 1, 5] -= 1
    counts[2, 0, 0, 19] += 1
    assert mismatches(Reads(seen.reads.blocks, counts), layer.sparsity) == 2


def test_gates_are_told_by_their_shares() -> None:
    layer = sparse_layer()
    _, seen = layer(torch.randn(2, 20, 16, dtype=torch.float64), counted=True)
    assert seen is not None
    gates = torch.tensor([[0.2, 0.2, 0.4], [0.0, 0.0, 0.9]], dtype=torch.float64).repeat(2, 20, 2, 1)
    tally = Tally(layer.sparsity, "sigmoid")
    tally.add([type(seen)(seen.reads, gates)])
    report = tally.metrics()
    assert report["gate_entropy"] == pytest.approx(1.0397 / 2, abs=1e-4)
    assert report["gate_collapse"] == 0.5
    assert report["gate_sum"] == pytest.approx(0.85)
    assert [report[f"share_{name}"] for name in ("cmp", "sel", "win")] == pytest.approx([0.125, 0.125, 0.75])
    assert report["gate_max"] == pytest.approx(0.75)
    assert report["gate_moved"] == pytest.approx((0.3 + 0.3 + 0.1 + 0.5 + 0.5 + 0.4) / 6)


def test_a_model_that_was_never_trained_has_even_gates(make_task: MakeTask) -> None:
    report = make_task(0).evaluate()
    assert report["gate_moved"] == 0.0
    assert report["gate_entropy"] == pytest.approx(1.0986, abs=1e-4)


def test_the_dense_twin_reports_nothing_of_sparsity(make_task: MakeTask) -> None:
    task = make_task(0, attn="dense")
    report = task.step() | task.evaluate()
    assert not {check.metric for check in FAMILY.health} & report.keys()
    assert {metric.rate_of or metric.name for metric in FAMILY.metrics} > report.keys()


def test_the_same_text_is_seen_with_both_kinds_of_attention(make_task: MakeTask) -> None:
    one, other = make_task(3), make_task(3, attn="dense")
    assert torch.equal(one.sequences("val"), other.sequences("val"))
    assert one._order.take(5).tolist() == other._order.take(5).tolist()
    assert tiny().context == 96
