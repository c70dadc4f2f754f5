"""Balance of routing and its specialisation by depth: routers built to fail, and to pass; known values."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from analysis.shared_moe import depth_specialisation, routing_balance
from analysis.shared_moe.depth_specialisation import distances, shuffled_distances
from analysis.shared_moe.routed import load, route
from analysis.shared_moe.routing_balance import highest_vio
from analysis.stats.bootstrap import interval
from analysis.stats.interval import Interval
from tests.analysis.shared_moe.moe_models import BY_HAND, SURE, by_depth, by_position, even, subject
from tests.analysis.values import value
from tests.trainables.shared_moe.conftest import MakeTask, make_task, pydoc_dir, trained
from trainables.language import task as task_module

__all__ = ["make_task", "pydoc_dir"]

BALANCE, DEPTHS = routing_balance.routing_balance, depth_specialisation.depth_specialisation


@pytest.mark.parametrize("blocks", ["shared", "indexed"])
def test_what_is_counted_is_what_the_routers_did(
    blocks: str, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = subject(make_task(blocks=blocks, depth=3), number=21).sample
    monkeypatch.setattr(task_module, "_EVAL_TOKENS", 64)  # four sequences at a time
    seen = route(sample)
    nll, routing = sample.task.score(sample.sequences)
    assert routing is not None
    assert seen.counts.shape == (21, 3, 4)
    assert seen.counts.sum(axis=0).tolist() == routing.counts.tolist()
    assert (seen.counts.sum(axis=2) == 16 * 2).all()
    assert seen.nll == pytest.approx(nll.mean(dim=1).numpy(), rel=1e-12)
    assert seen.reached == 1.0
    (_, alone) = sample.task.score(sample.sequences[5:6])
    assert alone is not None
    assert seen.counts[5].tolist() == alone.counts.tolist()
    assert load(seen.counts).sum(axis=1) == pytest.approx([1.0] * 3)
    assert not any(router._forward_hooks for router in sample.task.model.routers())


class TestBalance:
    def test_a_uniform_router(self, make_task: MakeTask) -> None:
        finding = BALANCE(subject(by_position(make_task(**BY_HAND, num_experts=8), even(8))))
        assert finding.verdict == "pass"
        assert value(finding, "balance_entropy") == pytest.approx(1.0, abs=1e-12)
        assert value(finding, "balance_entropy_min") == pytest.approx(1.0, abs=1e-12)
        assert value(finding, "max_vio") == pytest.approx(0.0, abs=1e-12)
        assert value(finding, "load_top4") == pytest.approx(0.5)
        assert (value(finding, "dead_share"), value(finding, "token_drop")) == (0.0, 0.0)
        assert value(finding, "even_experts") == pytest.approx(8.0)
        assert "no collapse" in finding.summary
        heat, bars = finding.plots
        assert np.asarray(heat.grid) == pytest.approx(np.full((2, 8), 1 / 8))
        assert bars.series[0].y == pytest.approx([1 / 8] * 8)
        assert bars.lines == {"fair share": 1 / 8}

    @pytest.mark.parametrize("top_k", [1, 2, 3])
    def test_all_tokens_to_as_many_experts_as_may_be(self, top_k: int, make_task: MakeTask) -> None:
        rows = [[SURE] * top_k + [0.0] * (8 - top_k)]
        finding = BALANCE(subject(by_position(make_task(**BY_HAND, num_experts=8, top_k=top_k), rows)))
        assert finding.verdict == "fail"
        assert value(finding, "balance_entropy") == pytest.approx(math.log(top_k) / math.log(8))
        assert value(finding, "max_vio") == pytest.approx(8 / top_k - 1)
        assert value(finding, "dead_share") == pytest.approx(1 - top_k / 8)
        assert value(finding, "even_experts") == pytest.approx(top_k)
        assert finding.summary.endswith(
            "(the load is spread too little, one expert gets too much, too many experts are idle)."
        )

    def test_dead_experts_alone(self, make_task: MakeTask) -> None:
        task = make_task(**BY_HAND, num_experts=8, context=20)
        finding = BALANCE(subject(by_position(task, even(5, experts=8))))
        assert finding.verdict == "fail"
        assert value(finding, "dead_share") == 3 / 8
        assert value(finding, "balance_entropy") == pytest.approx(math.log(5) / math.log(8))
        assert value(finding, "max_vio") == pytest.approx(8 / 5 - 1)
        assert finding.summary.endswith("the router has collapsed (too many experts are idle).")

    def test_one_expert_that_everybody_goes_to(self, make_task: MakeTask) -> None:
        """With 8 experts nothing could exceed 7; three quarters of what is possible, 2.25, is the limit."""
        rows = [[SURE, *row] for row in even(7, top_k=1)]
        finding = BALANCE(subject(by_position(make_task(**BY_HAND, num_experts=8, context=14), rows)))
        assert finding.verdict == "fail"
        assert value(finding, "max_vio") == pytest.approx(3.0)
        assert finding.threshold["max_vio"] == 2.25
        assert value(finding, "balance_entropy") == pytest.approx((math.log(2) + math.log(14)) / 2 / math.log(8))
        assert value(finding, "dead_share") == 0.0
        assert finding.summary.endswith("the router has collapsed (one expert gets too much).")

    def test_experts_of_a_depth_are_judged_by_themselves(self, make_task: MakeTask) -> None:
        """Depth 0 is even, depth 1 has collapsed onto two: each counts half."""
        task = by_position(make_task(**BY_HAND, num_experts=8, blocks="indexed"), even(8))
        router = task.model.routers()[1]
        with torch.no_grad():
            router.linear.bias[:2] = 2 * SURE
        finding = BALANCE(subject(task))
        assert value(finding, "balance_entropy") == pytest.approx((1.0 + 1.0 / 3.0) / 2.0)
        assert value(finding, "balance_entropy_min") == pytest.approx(1.0 / 3.0)
        assert value(finding, "max_vio") == pytest.approx((0.0 + 3.0) / 2.0)
        assert value(finding, "dead_share") == pytest.approx(3 / 8)
        assert finding.plots[1].series[0].y == pytest.approx([(1 / 8 + 1 / 2) / 2] * 2 + [1 / 16] * 6)
        assert "8 experts of a depth" in finding.summary

    @pytest.mark.parametrize(("num", "way"), [(8, 0.81), (16, 0.75), (40, 0.68)])
    def test_the_limits_on_entropy_and_on_the_busiest_agree(self, num: int, way: float) -> None:
        even, collapsed = np.full(num, 1 / num), np.array([0.5, 0.5] + [0.0] * (num - 2))
        loads = way * collapsed + (1 - way) * even
        assert -(loads * np.log(loads)).sum() / math.log(num) == pytest.approx(0.6, abs=0.01)

    @pytest.mark.parametrize(
        ("num", "top_k", "limit"),
        [(40, 2, 7.0), (60, 1, 7.0), (20, 2, 6.75), (16, 2, 5.25), (8, 1, 5.25), (8, 2, 2.25)],
    )
    def test_the_limit_on_the_busiest_can_be_reached(self, num: int, top_k: int, limit: float) -> None:
        assert highest_vio(num, top_k) == limit < num / top_k - 1

    @pytest.mark.parametrize(("share", "judgement"), [(0.36, "pass"), (0.40625, "warn"), (0.45, "fail")])
    def test_the_interval_decides_near_the_limit(self, share: float, judgement: str) -> None:
        """One of 8 experts gets ``share`` of the load, more in some sequences than in others; allowed is 0.41."""
        first = np.random.default_rng(3).permutation(np.linspace(share - 0.06, share + 0.06, 64))
        counts = np.empty((64, 2, 8), dtype=np.int64)
        counts[:] = np.stack([7000 * first, *[1000 * (1 - first)] * 7], axis=1).round()[:, None]
        finding = routing_balance.judge(counts, top_k=2, shared=True)
        assert (value(finding, "max_vio") + 1) / 8 == pytest.approx(share, abs=1e-3)
        assert finding.verdict == judgement
        assert ("close to what counts" in finding.summary) == (judgement == "warn")

    def test_intervals_are_those_of_the_statistic(self, make_task: MakeTask) -> None:
        one = subject(make_task())
        counts = route(one.sample).counts
        found = BALANCE(one).values["load_top4"]
        assert found == BALANCE(one).values["load_top4"]
        entropy = BALANCE(one).values["balance_entropy"]
        assert isinstance(entropy, Interval)

        def by_definition(drawn: Any) -> float:
            p = drawn.sum(axis=(0, 1)) / drawn.sum()
            return float(-(p * np.log(p)).sum() / math.log(4))

        again = interval(by_definition, counts, block=2, num=500)
        assert (entropy.value, entropy.low, entropy.high) == pytest.approx((again.value, again.low, again.high))


class TestDepth:
    def test_experts_of_their_own_for_each_depth(self, make_task: MakeTask) -> None:
        rows = [[SURE, SURE, 0.0, 0.0], [0.0, 0.0, SURE, SURE]]
        finding = DEPTHS(subject(by_depth(make_task(**{**BY_HAND, "depth_embedding": True}), rows)))
        # To the mean of two disjoint loads: h(1/4) - 1/2 bits, whatever the loads are.
        divergence = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)) - 0.5
        assert value(finding, "depth_specialisation") == pytest.approx(math.sqrt(divergence))
        assert [value(finding, f"depth_{i}") for i in range(2)] == pytest.approx([math.sqrt(divergence)] * 2)
        assert value(finding, "moved_share") == pytest.approx(0.5)
        assert finding.threshold["depth_specialisation"] == value(finding, "by_chance") < 0.3
        assert finding.verdict == "pass"
        assert np.asarray(finding.plots[1].grid) == pytest.approx(
            np.array([[0.25, 0.25, -0.25, -0.25], [-0.25, -0.25, 0.25, 0.25]])
        )

    def test_all_depths_alike(self, make_task: MakeTask) -> None:
        finding = DEPTHS(subject(by_position(make_task(**BY_HAND, depth=3), even(4))))
        assert finding.verdict == "warn"
        assert value(finding, "depth_specialisation") == pytest.approx(0.0, abs=1e-6)
        assert value(finding, "moved_share") == pytest.approx(0.0, abs=1e-12)
        assert "all depths use the experts alike" in finding.summary

    def test_chance_is_every_order_of_each_sequence(self) -> None:
        counts = np.random.default_rng(0).multinomial(30, [0.5, 0.3, 0.2], size=(3, 2))
        orders = list(product([(0, 1), (1, 0)], repeat=3))
        exact = [distances(np.stack([one[list(o)] for one, o in zip(counts, order, strict=True)])) for order in orders]
        drawn = shuffled_distances(counts, num=800)
        nearest = np.abs(drawn[:, None] - np.stack(exact)).max(axis=2).argmin(axis=1)
        assert drawn == pytest.approx(np.stack(exact)[nearest], abs=1e-12)
        assert np.bincount(nearest, minlength=8).min() > 50

    def test_depths_that_differ_by_chance_pass_as_seldom_as_it_says(self) -> None:
        """Tokens of a sequence go together, so that sequences and not tokens are what there are many of."""
        rng = np.random.default_rng(7)
        passed = 0
        for _ in range(150):
            shares = rng.dirichlet(np.full(6, 3.0), size=(24, 3))
            counts = np.stack([[rng.multinomial(200, p) for p in each] for each in shares])
            null = shuffled_distances(counts, num=199).mean(axis=1)
            passed += float(distances(counts).mean()) > np.quantile(null, 0.9)
        assert passed / 150 <= 0.1 + 2.0 * math.sqrt(0.1 * 0.9 / 150)

    def test_a_small_difference_that_is_everywhere_is_found(self) -> None:
        rng = np.random.default_rng(8)
        shares = np.array([[0.28, 0.26, 0.24, 0.22], [0.22, 0.24, 0.26, 0.28]])
        counts = np.stack([[rng.multinomial(400, p) for p in shares] for _ in range(64)])
        assert depth_specialisation.judge(counts).verdict == "pass"
        assert (
            depth_specialisation.judge(np.stack([counts[:, 0], counts[rng.permutation(64), 0]], axis=1)).verdict
            == "warn"
        )

    @pytest.mark.parametrize(
        ("fields", "why"), [({"blocks": "indexed"}, "experts of its own"), ({"depth": 1}, "there is one depth")]
    )
    def test_where_there_are_no_depths_to_compare(self, fields: dict[str, Any], why: str, make_task: MakeTask) -> None:
        finding = DEPTHS(subject(make_task(**fields)))
        assert (finding.verdict, finding.values) == ("no_evidence", {})
        assert why in finding.summary


def test_a_model_in_training_is_balanced(make_task: MakeTask) -> None:
    task = make_task(width=32, num_experts=8)
    trained(task, 40)
    one = subject(task)
    assert BALANCE(one).verdict == "pass"
    assert value(BALANCE(one), "max_vio") > 0.05


@pytest.mark.parametrize("diagnostic", [BALANCE, DEPTHS], ids=lambda diagnostic: str(diagnostic.name))
def test_a_router_that_chooses_nothing(diagnostic: Any, make_task: MakeTask) -> None:
    finding = diagnostic(subject(make_task(top_k=4)))
    assert finding.verdict == "no_evidence"
    assert "chooses nothing" in finding.summary
