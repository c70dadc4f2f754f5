"""Single experts taken away: the cost in closed form, one that does all the work, idle ones; and models without any."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.diagnose.api import Finding
from analysis.diagnose.findings import from_json, to_json
from analysis.diagnose.registry import diagnose
from analysis.diagnose.subject import open_checkpoint
from analysis.shared_moe import depth_specialisation, expert_importance, routing_balance
from analysis.shared_moe.expert_importance import affordable, drop_each
from analysis.stats.interval import Interval
from tests.analysis.shared_moe.moe_models import (
    BY_HAND,
    SURE,
    Subject,
    blank,
    by_position,
    even,
    fitted,
    losses,
    mixture,
    speak,
    subject,
)
from tests.analysis.values import value
from tests.trainables.shared_moe.configs import DENSE, NO_AUX
from tests.trainables.shared_moe.conftest import MakeTask, make_task, pydoc_dir
from trainables.language.sample import draw
from trainables.worker import checkpoint

__all__ = ["make_task", "pydoc_dir"]

IMPORTANCE = expert_importance.expert_importance
ALL: list[Any] = [routing_balance.routing_balance, depth_specialisation.depth_specialisation, IMPORTANCE]


def cost(finding: Finding, expert: int) -> float:
    """Of an expert's absence, as the bars show it."""
    return finding.plots[0].series[0].y[expert]


def shared_work(make_task: MakeTask, num: int = 4, working: int = 4) -> Subject:
    """The working experts have a share of the positions each, whose targets they know; the others get no tokens."""
    context = 4 * working
    task = make_task(**BY_HAND, num_experts=num, top_k=1, context=context)
    by_position(task, even(working, top_k=min(2, working), experts=num))
    sample = draw(task)
    says = [fitted(sample, expert, working) for expert in range(working)] + [None] * (num - working)
    return subject(speak(task, says, first_axis=working))


def one_worker(make_task: MakeTask, strength: float = 1.0) -> Subject:
    """Expert 0 is everybody's first choice and knows the frequencies of tokens; the second choice writes nothing."""
    task = make_task(**BY_HAND)
    by_position(task, [[SURE, *row] for row in even(3, top_k=1)])
    logits = strength * fitted(draw(task))
    return subject(speak(task, [logits, None, None, None], first_axis=3))


def test_work_that_is_shared(make_task: MakeTask) -> None:
    one = shared_work(make_task)
    finding = IMPORTANCE(one)
    right = [losses(one.sample, fitted(one.sample, group, 4)) for group in range(4)]
    nll = np.stack([right[t % 4][:, t] for t in range(16)], axis=1)
    assert value(finding, "nll") == pytest.approx(nll.mean(), abs=1e-3)
    for expert in range(4):
        # Its positions are served by the next one.
        change = (right[(expert + 1) % 4] - right[expert])[:, expert::4].sum() / nll.size
        assert cost(finding, expert) == pytest.approx(change, abs=2e-3)
        assert change > 0.1
    worth = math.log(4096) - nll.mean()
    costs = [cost(finding, expert) for expert in range(4)]
    assert value(finding, "none_left") == pytest.approx(worth, abs=1e-3)
    assert value(finding, "top_share") == pytest.approx(max(costs) / worth, abs=1e-3)
    assert value(finding, "top_of_costs") == pytest.approx(max(costs) / sum(costs))
    assert value(finding, "idle_share") == 0.0
    assert finding.verdict == "pass"
    assert finding.threshold == {"top_share": 0.5, "idle_share": 0.5, "none_left": 0.01}
    assert finding.summary.endswith("the work is shared.")
    bars, points = finding.plots
    assert bars.series[0].y == points.series[0].y
    assert points.series[0].x == pytest.approx([0.25] * 4)
    assert [d(one).verdict for d in ALL] == ["pass", "warn", "pass"]


def test_one_expert_that_does_all_the_work(make_task: MakeTask) -> None:
    one = one_worker(make_task)
    finding = IMPORTANCE(one)
    gained = math.log(one.config.vocab_size) - losses(one.sample, fitted(one.sample)).mean()
    assert cost(finding, 0) == pytest.approx(gained, abs=1e-3)
    assert [cost(finding, expert) for expert in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert value(finding, "none_left") == cost(finding, 0)
    assert value(finding, "top_share") == value(finding, "top_of_costs") == 1.0
    assert value(finding, "idle_share") == 0.75
    assert finding.verdict == "fail"
    assert "one expert carries the model, and the model pays for experts that it does not use" in finding.summary
    assert "number 0, which is missed most" in finding.summary


def test_idle_experts(make_task: MakeTask) -> None:
    finding = IMPORTANCE(shared_work(make_task, num=8, working=3))
    assert finding.verdict == "warn"
    assert value(finding, "idle_share") == 5 / 8
    assert value(finding, "top_share") < 0.5
    assert finding.summary.endswith("the model pays for experts that it does not use.")
    assert "5 can be taken away" in finding.summary


def test_experts_that_are_worth_nothing_together(make_task: MakeTask) -> None:
    little = IMPORTANCE(one_worker(make_task, strength=0.001))
    assert 1e-4 < cost(little, 0) == value(little, "none_left") < 0.01
    nothing = IMPORTANCE(subject(blank(make_task())))
    assert (value(nothing, "none_left"), value(nothing, "idle_share")) == (0.0, 1.0)
    assert value(nothing, "nll") == pytest.approx(math.log(4096), abs=1e-5)
    for finding in (little, nothing):
        assert (finding.verdict, finding.threshold) == ("warn", {"idle_share": 0.5, "none_left": 0.01})
        assert finding.summary.endswith("the experts together are worth next to nothing.")
        assert "top_share" not in finding.values


def test_experts_that_can_each_be_replaced(make_task: MakeTask) -> None:
    """All say the same: together they are worth everything, and alone nothing."""
    task = by_position(make_task(**BY_HAND, top_k=1), even(4))
    speak(task, [fitted(draw(task)), None, None, None], first_axis=4)
    with torch.no_grad():
        mixture(task).experts.b_out[1:] = mixture(task).experts.b_out[0]
    finding = IMPORTANCE(subject(task))
    assert finding.verdict == "warn"
    assert value(finding, "none_left") > 1.0
    assert value(finding, "idle_share") == 1.0
    assert "top_share" not in finding.values


def test_of_two_experts_one_may_do_all(make_task: MakeTask) -> None:
    task = by_position(make_task(**BY_HAND, num_experts=2, top_k=1), [[SURE, 1.0]])
    finding = IMPORTANCE(subject(speak(task, [fitted(draw(task)), None], first_axis=1)))
    assert value(finding, "top_share") == 1.0
    assert (finding.verdict, finding.threshold) == ("pass", {"idle_share": 0.5, "none_left": 0.01})


def test_the_interval_of_the_share_can_reach_the_limit() -> None:
    costs = np.full((4, 40), 0.1)
    costs[0] = np.random.default_rng(0).normal(0.3, 0.2, 40)
    costs[0] += 0.3 - costs[0].mean()
    finding = expert_importance.judge(np.ones(40), costs, np.full(40, 0.6), np.full(4, 0.25))
    assert value(finding, "top_share") == pytest.approx(0.5)
    assert value(finding, "top_of_costs") == pytest.approx(0.5)
    assert finding.verdict == "warn"
    assert finding.summary.endswith("one expert may carry the model.")


def test_costs_below_zero_are_no_work() -> None:
    costs = np.tile([[0.2], [0.1], [-0.3], [0.1]], 20)
    finding = expert_importance.judge(np.ones(20), costs, np.full(20, 0.5), np.full(4, 0.25))
    assert value(finding, "top_of_costs") == pytest.approx(0.5)
    assert value(finding, "top_share") == pytest.approx(0.4)
    assert value(finding, "idle_share") == 0.25


def test_without_an_expert_is_without_it(make_task: MakeTask) -> None:
    one = subject(make_task(num_experts=5, top_k=2), number=12)
    own, costs, none_left, load = drop_each(one.sample)
    sequences, task = one.sample.sequences, one.task
    nll, routing = task.score(sequences, torch.arange(5) == 3)
    assert routing is not None
    assert (routing.counts[:, 3] == 0).all()
    assert own + costs[3] == pytest.approx(nll.mean(dim=1).numpy(), rel=1e-12)
    whole = task.score(sequences)[1]
    assert whole is not None
    assert task.score(sequences)[0].mean(dim=1).numpy() == pytest.approx(own, abs=0.0)
    with torch.no_grad():
        mixture(task).experts.w_out.zero_()
        mixture(task).experts.b_out.zero_()
    assert own + none_left == pytest.approx(task.score(sequences)[0].mean(dim=1).numpy(), rel=1e-12)
    assert load == pytest.approx(whole.counts.sum(dim=0).numpy() / whole.counts.sum().item())


def test_many_experts_are_looked_at_on_fewer_sequences(make_task: MakeTask) -> None:
    sample = draw(make_task(context=64))
    assert len(affordable(sample, 9).starts) == 64
    assert len(affordable(sample, 41).starts) == (1 << 17) // (41 * 64) == 49
    assert len(affordable(sample, 4001).starts) == 32
    assert value(IMPORTANCE(subject(make_task(), number=40)), "sequences") == 40.0


def test_where_each_depth_has_its_own_experts(make_task: MakeTask) -> None:
    finding = IMPORTANCE(subject(make_task(blocks="indexed")))
    assert (finding.verdict, finding.values) == ("no_evidence", {})
    assert "experts of its own" in finding.summary


def test_a_model_that_cannot_do_without_one(make_task: MakeTask) -> None:
    """Expert 1 is the next best everywhere, and what it says is not a number."""
    task = by_position(make_task(**BY_HAND, top_k=1), [[SURE, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        mixture(task).experts.b_out[1] = torch.nan
    finding = IMPORTANCE(subject(task))
    assert finding.verdict == "no_evidence"
    assert "not finite on sampled sequences without some expert" in finding.summary


@pytest.mark.parametrize("diagnostic", ALL, ids=lambda diagnostic: str(diagnostic.name))
class TestWithoutEvidence:
    def test_dense(self, diagnostic: Any, make_task: MakeTask) -> None:
        finding = diagnostic(subject(make_task(**DENSE)))
        assert (finding.name, finding.verdict, finding.values) == (diagnostic.name, "no_evidence", {})
        assert "dense" in finding.summary

    def test_nothing_finite(self, diagnostic: Any, make_task: MakeTask) -> None:
        task = make_task()
        with torch.no_grad():
            task.model.norm.weight.fill_(torch.nan)
        finding = diagnostic(subject(task))
        assert finding.verdict == "no_evidence"
        assert "not finite" in finding.summary

    def test_few_sequences(self, diagnostic: Any, make_task: MakeTask) -> None:
        finding = diagnostic(subject(make_task(), number=7))
        assert finding.verdict == "no_evidence"
        assert "too few" in finding.summary


@pytest.mark.parametrize(
    "fields",
    [
        {"gate": "prob", "top_k": 1},
        {"gate": "sigmoid", "top_k": 3, "tied": True},
        {**NO_AUX, "balance": "lossfree", "num_experts": 12},
        {"blocks": "indexed", "depth": 3},
        {"top_k": 4, "depth": 1},
    ],
    ids=["one choice", "three choices", "loss-free", "indexed", "all experts"],
)
def test_any_config_gets_its_findings(fields: dict[str, Any], make_task: MakeTask) -> None:
    task = make_task(**fields)
    task.step()
    one = subject(task, number=20)
    before = [parameter.clone() for parameter in task.model.parameters()]
    findings = diagnose(one)
    assert [finding.name for finding in findings] == [diagnostic.name for diagnostic in ALL]
    assert findings == diagnose(one)
    assert all(torch.equal(*pair) for pair in zip(before, task.model.parameters(), strict=True))
    assert [finding.values for finding in from_json(to_json(findings))] == [finding.values for finding in findings]
    for finding in findings:
        assert finding.summary.endswith(".")
        assert (finding.verdict == "no_evidence") == (not finding.values) == (not finding.plots)
        assert set(finding.threshold) <= set(finding.values)
        for estimate in finding.values.values():
            numbers = [estimate.value, estimate.low, estimate.high] if isinstance(estimate, Interval) else [estimate]
            assert np.isfinite(numbers).all()


def test_a_checkpoint_is_opened_and_diagnosed(make_task: MakeTask, pydoc_dir: Path, tmp_path: Path) -> None:
    task = make_task(seed=3)
    task.step()
    facts = {"family": "shared_moe", "config_digest": task.config.digest(), "member": "c0001-s3"}
    folder = checkpoint.save(tmp_path, 1, task.state_dict(), facts)
    fields = task.config.model_dump(mode="json")
    opened = open_checkpoint(folder, family="shared_moe", config=fields, seed=3, data_dir=pydoc_dir)
    assert torch.equal(opened.sample.sequences, draw(task).sequences)
    assert diagnose(opened) == diagnose(subject(task))
