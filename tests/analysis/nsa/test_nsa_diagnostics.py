"""Diagnostics of sparse attention: a sound model passes, and each planted fault is what its diagnostic says."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.diagnose.api import Finding
from analysis.diagnose.registry import diagnose
from analysis.diagnose.subject import Subject
from analysis.language import finishers
from analysis.nsa import left_out, needle
from analysis.nsa.causality import positions
from analysis.stats.interval import Interval
from tests.conftest import alone
from tests.trainables.nsa.configs import tiny
from trainables.language.sample import draw
from trainables.nsa import branches
from trainables.nsa.branches import Memory
from trainables.nsa.sparsity import Sparsity
from trainables.nsa.task import NSATask
from trainables.text.source import BYTES

MakeSubject = Callable[..., Subject]


@pytest.fixture
def make_subject(data_dir: Path) -> MakeSubject:
    """A model of preset ``tiny`` with overrides, as diagnostics are handed it, its weights enlarged."""
    torch.set_num_threads(1)
    with alone(data_dir):
        BYTES.prepare("pydoc-257", data_dir)

    def make(**fields: Any) -> Subject:
        config = tiny(**fields)
        task = NSATask(config, seed=3, device="cpu", data_dir=data_dir)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        task.model.eval()
        return Subject("c0000-s3", "nsa", config, 3, task, draw(task, number=8), data_dir)

    return make


def ask(subject: Subject, name: str) -> Finding:
    (finding,) = diagnose(subject, [name])
    return finding


def bias_of_gates(subject: Subject, *biases: float, layer: int = 1) -> None:
    """Gates of one layer that no input moves."""
    gates = subject.task.model.layers()[layer].attention.gates
    with torch.no_grad():
        gates.outer.weight.zero_()
        gates.outer.bias.copy_(torch.tensor(biases).repeat(len(gates.outer.bias) // 3))


def test_a_causal_model_passes_and_a_leak_of_one_block_does_not(
    make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject()
    sound = ask(subject, "causality")
    assert (sound.verdict, sound.values["leaks"], sound.values["leaking_gradients"]) == ("pass", 0, 0)
    compressed = branches._compressed

    def leaking(queries: Tensor, at: Tensor, start: int, memory: Memory, sizes: Sparsity) -> Any:
        return compressed(queries, at + sizes.stride, start, memory, sizes)

    monkeypatch.setattr(branches, "_compressed", leaking)
    leaky = ask(subject, "causality")
    assert leaky.verdict == "fail"
    assert leaky.values["leaks"] > 0  # type: ignore[operator]
    assert leaky.values["leaking_gradients"] > 0  # type: ignore[operator]


def test_every_edge_of_a_block_is_among_the_replaced_positions() -> None:
    assert positions(40, 16) == list(range(1, 40))
    some = positions(512, 16)
    assert len(some) <= 100
    assert {15, 16, 511} <= set(some)
    assert max(b - a for a, b in pairwise(some)) <= 17


def test_a_dead_branch_and_a_collapsed_gate_fail(make_subject: MakeSubject) -> None:
    subject = make_subject()
    assert ask(subject, "gate_shares").verdict == "pass"
    bias_of_gates(subject, 0.0, -30.0, 0.0)
    dead = ask(subject, "gate_shares")
    assert dead.verdict == "fail"
    assert "in layer 1 the selected branch has 0.000 of the gates" in dead.summary.lower()
    bias_of_gates(subject, -30.0, -30.0, 5.0)
    collapsed = ask(subject, "gate_shares")
    assert collapsed.values["collapsed_layer_1"] == 1.0
    assert collapsed.values["entropy_layer_1"] == pytest.approx(0.0, abs=1e-6)
    assert collapsed.values["collapsed_layer_0"] < 0.1  # type: ignore[operator]


def test_gates_that_never_moved_are_called_inert(make_subject: MakeSubject) -> None:
    subject = make_subject()
    for layer in (0, 1):
        bias_of_gates(subject, 0.0, 0.0, 0.0, layer=layer)
    inert = ask(subject, "gate_shares")
    assert inert.verdict == "warn"
    assert "have learnt nothing" in inert.summary


def test_a_selection_that_is_dense_fails(make_subject: MakeSubject) -> None:
    sparse = ask(make_subject(), "coverage")
    assert sparse.verdict in ("pass", "warn")
    assert sparse.values["coverage_end"] == pytest.approx(np.mean([(32 + t % 16 + 1) / (t + 1) for t in range(80, 96)]))
    dense = ask(make_subject(num_select=6), "coverage")
    assert dense.verdict == "fail"
    assert dense.values["coverage_end"] == dense.values["dense_rows"] == 1.0


def test_reads_that_are_not_those_of_the_sizes_fail(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_subject()
    sound = ask(subject, "reads")
    assert (sound.verdict, sound.values["mismatches"]) == ("pass", 0.0)
    assert sound.values["saving_at_context"] == pytest.approx(subject.config.sparsity.saving(96))
    reads = Sparsity.reads
    monkeypatch.setattr(Sparsity, "reads", lambda self, visible: reads(self, min(visible, 95)))
    wrong = ask(subject, "reads")
    assert wrong.verdict == "fail"
    assert wrong.values["mismatches"] == 2 * 8 * 2  # layers, sequences, groups: the last position


def test_what_the_selection_leaves_out_is_the_loss_with_every_block(make_subject: MakeSubject) -> None:
    subject = make_subject()
    finding = ask(subject, "left_out")
    other = make_subject(num_select=6)
    rows = subject.sample.sequences
    losses = [s.task.score(rows).numpy() for s in (subject, other)]  # type: ignore[attr-defined]
    lost = finding.values["lost"]
    assert isinstance(lost, Interval)
    assert lost.value == pytest.approx((losses[0] - losses[1])[:, 48:].mean(), abs=1e-6)
    assert np.allclose(losses[0][:, :48], losses[1][:, :48], atol=1e-5)
    assert subject.task.model.layers()[0].attention.sparsity == subject.config.sparsity
    assert ask(other, "left_out").verdict == "no_evidence"


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "pass"), (0.5, "fail")])
def test_a_costly_selection_fails(shift: float, verdict: str) -> None:
    own = np.random.default_rng(0).normal(2.0, 0.01, (16, 96))
    assert left_out.judge(own + shift * (np.arange(96) >= 48), own, 48).verdict == verdict


def test_a_passage_comes_back_at_its_distance() -> None:
    texts = torch.zeros(4, 97, dtype=torch.int64)
    with_it, without = needle.planted(texts, 32, 257)
    assert torch.equal(with_it[:, -12:], with_it[:, -44:-32])
    assert torch.equal(with_it[:, -12:], without[:, -12:])
    assert not torch.equal(without[:, -12:], without[:, -44:-32])
    assert needle.distances(97) == [16, 32, 64]


def test_retrieval_is_told_by_distance() -> None:
    clear, nothing = Interval(1.0, 0.8, 1.2), Interval(0.0, -0.1, 0.1)
    assert needle.judge({16: clear, 64: clear}, 16).verdict == "pass"
    assert needle.judge({16: clear, 64: nothing}, 16).verdict == "warn"
    assert needle.judge({16: nothing, 64: nothing}, 16).verdict == "no_evidence"


def test_the_others_report_of_any_model(make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.nsa.decode_cost._LENGTHS", (8, 16, 4096 // 32))
    subject = make_subject()
    cost = ask(subject, "decode_cost")
    assert cost.verdict == "pass"
    assert all(math.isfinite(v) and v > 0.0 for v in cost.values.values() if isinstance(v, float))
    assert ask(subject, "needle").verdict in ("pass", "warn", "no_evidence")


def test_a_dense_model_has_nothing_sparse_to_look_at(make_subject: MakeSubject) -> None:
    subject = make_subject(attn="dense")
    verdicts = {finding.name: finding.verdict for finding in diagnose(subject)}
    assert verdicts.pop("causality") == "pass"
    assert verdicts.pop("needle") != "fail"
    assert set(verdicts.values()) == {"no_evidence"}


def test_runs_are_compared_with_the_dense_twin() -> None:
    sparse, dense = (SimpleNamespace(config=tiny(attn=attn).model_dump(mode="json")) for attn in ("nsa", "dense"))
    assert finishers._is_dense(sparse, "nsa") is False  # type: ignore[arg-type]
    assert finishers._is_dense(dense, "nsa") is True  # type: ignore[arg-type]
    assert finishers._is_dense(SimpleNamespace(config={"attn": "?"}), "nsa") is None  # type: ignore[arg-type]
