"""Diagnostics A to F: models built to fail each, models built to pass, and models without evidence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from analysis.spacing_mdn import readout, slot_ablation, slot_effect, slot_gradients, slot_norms, slot_similarity
from analysis.stats.interval import Interval
from tests.analysis.conftest import MakeSubject, MakeTask, Subject
from tests.analysis.spacing_mdn.slot_models import FIELDS, NO_SLOTS, set_slots, spoiled, stirred
from tests.analysis.values import value

READ_ONLY = [slot_gradients.slot_gradients, readout.readout]
ALL = [
    slot_ablation.slot_ablation,
    slot_similarity.slot_similarity,
    *READ_ONLY,
    slot_effect.slot_effect,
    slot_norms.slot_norms,
]
ONE = math.log(math.e - 1.0)  # softplus gives 1
SPREAD = math.log(math.expm1(0.35))


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


@pytest.fixture
def built(make_task: MakeTask, make_subject: MakeSubject) -> Any:
    """A subject of `set_slots`."""

    def make(directions: list[int], means: list[float], **how: float) -> Subject:
        task = make_task(**FIELDS, n_slots=len(directions))
        return make_subject(set_slots(task, directions, means, **how), number=40)

    return make


def balanced(built: Any) -> Subject:
    """Three slots that differ and matter alike: two of them are wrong in opposite ways, all are needed."""
    return built([0, 1, 2], [ONE - 2.0, ONE, ONE + 2.0], spread=SPREAD)


def test_a_model_that_uses_its_slots_passes_all(built: Any) -> None:
    subject = balanced(built)
    assert {d.name: d(subject).verdict for d in ALL} == {d.name: "pass" for d in ALL}


def test_equal_slots_are_found_by_ablation_gradients_and_similarity(built: Any) -> None:
    subject = built([0, 0, 0, 0], [ONE] * 4, spread=SPREAD)
    verdicts = {diagnostic.name: diagnostic(subject).verdict for diagnostic in ALL}
    assert verdicts == {
        "slot_ablation": "fail",
        "slot_similarity": "warn",
        "slot_gradients": "fail",
        "readout": "pass",
        "slot_effect": "no_evidence",
        "slot_norms": "pass",
    }


def gaussian_nll(subject: Subject, mean: float, sigma: float) -> np.ndarray:
    targets = subject.sample.targets[:, -1].double().numpy()
    return 0.5 * ((targets - mean) / sigma) ** 2 + math.log(sigma * math.sqrt(2.0 * math.pi))


def test_ablation_is_the_change_of_the_nll(built: Any) -> None:
    subject = balanced(built)
    finding = slot_ablation.slot_ablation(subject)
    sigma = softplus(SPREAD) + 1e-4
    whole = gaussian_nll(subject, 1.0, sigma)
    # Without the slot that asks for less, the other two are pooled: ONE + 1 in place of ONE.
    single = gaussian_nll(subject, softplus(ONE + 1.0), sigma).mean() - whole.mean()
    assert value(finding, "nll") == pytest.approx(whole.mean(), abs=1e-3)
    assert value(finding, "slot_0") == pytest.approx(single, abs=2e-3)
    assert value(finding, "slot_1") == pytest.approx(0.0, abs=1e-4)
    # Without any slot, the head sees zero.
    nothing = gaussian_nll(subject, softplus(0.0), softplus(0.0) + 1e-4).mean() - whole.mean()
    assert value(finding, "none_left") == pytest.approx(nothing, abs=2e-3)
    expected = np.mean([value(finding, f"slot_{slot}") for slot in range(3)])
    assert value(finding, "random_1") == pytest.approx(expected)
    assert value(finding, "top_1") == max(value(finding, f"slot_{slot}") for slot in range(3))
    assert value(finding, "max_change") == max(value(finding, "top_1"), value(finding, "top_2"))


def test_ablation_judges_slots_together(built: Any) -> None:
    """Four slots in two pairs of copies: less is lost with one of them than with both."""
    finding = slot_ablation.slot_ablation(built([0, 0, 1, 1], [ONE + 0.3] * 2 + [ONE - 0.3] * 2, spread=SPREAD))
    assert value(finding, "max_change") == value(finding, "top_2") > 4.0 * value(finding, "top_1")
    assert finding.verdict in ("pass", "warn")
    assert value(finding, "random_2") < value(finding, "top_2")


def test_two_slots_leave_nothing_between_one_and_all(built: Any) -> None:
    """No set of several that is not all of them: the curve has one absent and both, and the first is judged."""
    finding = slot_ablation.slot_ablation(built([0, 1], [ONE + 1.0, ONE], spread=SPREAD))
    assert not {"top_2", "random_2"} & set(finding.values)
    assert value(finding, "max_change") == value(finding, "top_1") == max(value(finding, f"slot_{i}") for i in range(2))
    assert finding.plots[1].series[0].x == (1.0, 2.0)
    assert finding.plots[1].series[1].x == (1.0, 2.0)


def test_losing_every_slot_of_a_bottleneck_is_not_held_to_their_credit(built: Any) -> None:
    finding = slot_ablation.slot_ablation(built([0, 0, 0, 0], [ONE] * 4, spread=SPREAD))
    assert value(finding, "max_change") == pytest.approx(0.0, abs=1e-5)
    assert value(finding, "none_left") > 0.02
    assert finding.verdict == "fail"


def test_slots_that_only_cancel_one_another_get_a_warning(built: Any) -> None:
    """Each asks for nonsense, and what they ask for together is less sure than what the head says of nothing."""
    finding = slot_ablation.slot_ablation(built([0, 1, 2], [-6.0, 0.0, 6.0], spread=2.0))
    assert value(finding, "none_left") < 0.0
    assert value(finding, "max_change") > 0.02
    assert finding.verdict == "warn"


def test_decorative_slots_before_the_data_fail(make_task: MakeTask, make_subject: MakeSubject) -> None:
    """Attention's values are zero: whatever the slots are, nothing of them reaches the data."""
    task = stirred(make_task(**{**FIELDS, "layout": "prefix"}, n_slots=3))
    block = task.model.blocks[0]
    needed = slot_ablation.slot_ablation(make_subject(task))
    assert value(needed, "none_left") != 0.0
    assert value(needed, "windows") == 32
    with torch.no_grad():
        block.qkv.weight[2 * task.config.width :] = 0.0  # type: ignore[union-attr, operator]
    finding = slot_ablation.slot_ablation(make_subject(task))
    assert finding.verdict == "fail"
    assert value(finding, "max_change") == value(finding, "none_left") == 0.0
    assert slot_effect.slot_effect(make_subject(task)).verdict == "no_evidence"


def test_one_slot_that_makes_the_prediction_fails_the_effect(built: Any) -> None:
    subject = built([0, 1, 2, 3], [ONE, ONE + 2.0, ONE + 2.0, ONE + 2.0], spread=SPREAD, first=5.0)
    finding = slot_effect.slot_effect(subject)
    assert finding.verdict == "fail"
    weight = math.exp(5.0) / (math.exp(5.0) + 3.0)
    whole = softplus(ONE + 2.0 * (1.0 - weight))
    others = softplus(ONE + 2.0 * 2.0 / (math.exp(5.0) + 2.0))
    assert value(finding, "slot_0") == pytest.approx(softplus(ONE + 2.0) - whole, rel=1e-3)
    assert value(finding, "slot_1") == pytest.approx(whole - others, rel=1e-2)
    assert value(finding, "largest_share") == pytest.approx(
        value(finding, "slot_0") / sum(value(finding, f"slot_{slot}") for slot in range(4))
    )
    assert readout.readout(subject).verdict == "warn"


def test_even_effects_have_the_entropy_of_as_many_slots(built: Any) -> None:
    """Two are right by the same as the other two are wrong, on either side."""
    finding = slot_effect.slot_effect(built([0, 1, 2, 3], [0.05, 0.05, -0.05, -0.05], spread=SPREAD))
    assert finding.verdict == "pass"
    assert value(finding, "largest_share") == pytest.approx(0.25, abs=2e-3)
    assert value(finding, "entropy") == pytest.approx(math.log(4.0), abs=1e-3)


def test_an_effect_of_next_to_nothing_is_no_credit(built: Any) -> None:
    finding = slot_effect.slot_effect(built([0, 1, 2, 3], [0.005, 0.005, -0.005, -0.005], spread=SPREAD))
    assert finding.verdict == "warn"
    assert "hardly" in finding.summary
    assert 0.0 < value(finding, "largest_effect") < 0.004


def test_readout_weights_are_those_of_the_softmax(built: Any) -> None:
    finding = readout.readout(built([0, 1, 2], [ONE] * 3, first=2.0))
    weights = np.array([math.exp(2.0), 1.0, 1.0]) / (math.exp(2.0) + 2.0)
    assert [value(finding, f"slot_{slot}") for slot in range(3)] == pytest.approx(weights.tolist(), abs=1e-4)
    entropy = -(weights * np.log(weights)).sum()
    assert value(finding, "entropy") == pytest.approx(entropy, abs=1e-4)
    assert value(finding, "entropy_of_mean") == pytest.approx(entropy, abs=1e-4)
    assert value(finding, "spread") == pytest.approx(0.0, abs=1e-6)
    assert finding.verdict == "pass"
    assert readout.entropies(np.array([1.0, 0.0])) == 0.0


def test_similarity_is_the_cosine(built: Any) -> None:
    subject = built([0, 0, 1], [ONE] * 3)
    with torch.no_grad():
        subject.task.model.slots.content[1] *= -3.0
    finding = slot_similarity.slot_similarity(subject)
    assert value(finding, "vectors_max") == pytest.approx(1.0, abs=1e-6)
    for name in ("vectors_mean", "contents_mean", "states_mean"):
        assert value(finding, name) == pytest.approx(1.0 / 3.0, abs=1e-5)
    assert value(finding, "ids_mean") == 0.0
    assert finding.plots[0].grid[0] == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)


def test_gradients_of_orthogonal_slots_correlate_as_by_hand(built: Any) -> None:
    """A LayerNorm takes out of the common pull what lies along the slot: of three even parts, one."""
    finding = slot_gradients.slot_gradients(built([0, 1, 2], [1.0, 1.0, 1.0], spread=1.0))
    assert value(finding, "mean_abs_correlation") == pytest.approx(0.5, abs=1e-4)
    assert value(finding, "silent_share") == 0.0
    assert finding.verdict == "pass"
    four = slot_gradients.slot_gradients(built([0, 1, 2, 3], [1.0] * 4, spread=1.0))
    assert value(four, "mean_abs_correlation") == pytest.approx(2.0 / 3.0, abs=1e-4)
    assert four.verdict == "fail"


def test_gradient_correlation_does_not_depend_on_the_numbering(make_task: MakeTask, make_subject: MakeSubject) -> None:
    task = stirred(make_task(n_slots=4, depth=2))
    before = slot_gradients.slot_gradients(make_subject(task))
    slots = task.model.slots
    assert slots is not None
    with torch.no_grad():
        for parameter in slots.parameters():
            parameter.copy_(parameter[[2, 3, 1, 0]])
    after = slot_gradients.slot_gradients(make_subject(task))
    assert value(after, "mean_abs_correlation") == pytest.approx(value(before, "mean_abs_correlation"), abs=1e-4)


def test_slots_that_nothing_pulls_at_have_no_correlation(built: Any) -> None:
    finding = slot_gradients.slot_gradients(built([0, 1], [0.0, 0.0], spread=0.0))
    assert finding.verdict == "no_evidence"
    table, silent = slot_gradients.correlations(np.array([[[1.0, -1.0], [2.0, -2.0], [0.0, 0.0], [-1.0, 1.0]]]))
    assert silent.tolist() == [[False, False, True, False]]
    assert table[0, 0, [1, 3]] == pytest.approx([1.0, -1.0])
    assert np.isnan(table[0, 2]).all()


def test_norms_are_those_of_content_and_id(built: Any) -> None:
    subject = built([0, 1, 2], [ONE] * 3)
    slots = subject.task.model.slots
    with torch.no_grad():
        slots.ids.copy_(slots.content * torch.tensor([[2.0], [0.0], [-0.5]]))
    finding = slot_norms.slot_norms(subject)
    assert [value(finding, f"slot_{slot}") for slot in range(3)] == pytest.approx([3.0, 1.0, 0.5], abs=1e-5)
    assert value(finding, "shortest_to_longest") == pytest.approx(1.0 / 6.0, abs=1e-5)
    assert (value(finding, "contents_mean"), value(finding, "ids_mean")) == pytest.approx((1.0, 2.5 / 3.0), abs=1e-5)
    assert finding.verdict == "pass"
    with torch.no_grad():
        slots.ids[1] = -0.995 * slots.content[1]
    gone = slot_norms.slot_norms(subject)
    assert gone.verdict == "warn"
    assert "next to nothing" in gone.summary


def test_norms_say_how_many_slots_reach_their_cap(make_task: MakeTask, make_subject: MakeSubject) -> None:
    task = make_task(**FIELDS, n_slots=2, norm_cap=0.5)
    assert task.model.slots is not None
    with torch.no_grad():
        task.model.slots.ids.zero_()
        task.model.slots.content.copy_(torch.tensor([[0.1], [2.0]]) * torch.eye(8)[:2])
    finding = slot_norms.slot_norms(make_subject(task))
    assert value(finding, "capped_share") == 0.5
    assert value(finding, "slot_1") == pytest.approx(0.5, abs=1e-6)
    assert finding.plots[0].lines == {"norm_cap": 0.5}


@pytest.mark.parametrize("diagnostic", ALL, ids=lambda diagnostic: diagnostic.name)
class TestWithoutEvidence:
    def test_no_slots(self, diagnostic: Any, make_task: MakeTask, make_subject: MakeSubject) -> None:
        finding = diagnostic(make_subject(make_task(**NO_SLOTS)))
        assert (finding.name, finding.verdict) == (diagnostic.name, "no_evidence")

    def test_nothing_finite(self, diagnostic: Any, make_task: MakeTask, make_subject: MakeSubject) -> None:
        finding = diagnostic(make_subject(spoiled(make_task(**FIELDS, n_slots=3))))
        assert finding.verdict == "no_evidence"
        assert "finite" in finding.summary

    def test_one_slot(self, diagnostic: Any, make_task: MakeTask, make_subject: MakeSubject) -> None:
        finding = diagnostic(make_subject(make_task(**FIELDS, n_slots=1)))
        assert finding.verdict == ("pass" if diagnostic.name == "slot_norms" else "no_evidence")


@pytest.mark.parametrize("diagnostic", ALL, ids=lambda diagnostic: diagnostic.name)
@pytest.mark.parametrize(
    "fields",
    [
        {"layout": "prefix", "aux_mode": "off"},
        {"query_cuts": 3, "ar_features": 2, "height_input": True},
        {"content_mode": "zeroed", "eval_slot_id_mode": "off", "depth": 2},
        {"block_norm": True, "norm_cap": 0.5, "n_slots": 12},
    ],
    ids=["prefix", "cuts", "neither content nor ID", "twelve slots"],
)
def test_any_layout_gets_a_finding(
    diagnostic: Any, fields: dict[str, Any], make_task: MakeTask, make_subject: MakeSubject
) -> None:
    subject = make_subject(stirred(make_task(**{"n_slots": 3, "context": 48, **fields})), number=20)
    finding = diagnostic(subject)
    assert finding == diagnostic(subject)
    assert finding.summary.endswith(".")
    assert (finding.verdict == "no_evidence") == (not finding.values)
    assert set(finding.threshold) <= set(finding.values)
    for estimate in finding.values.values():
        numbers = [estimate.value, estimate.low, estimate.high] if isinstance(estimate, Interval) else [estimate]
        assert np.isfinite(numbers).all()
    if fields.get("layout") == "prefix" and diagnostic in READ_ONLY:
        assert finding.verdict == "no_evidence"


def test_their_faces_are_those_of_a_diagnostic() -> None:
    assert [diagnostic.title[:3] for diagnostic in ALL] == ["A: ", "B: ", "C: ", "D: ", "E: ", "F: "]
    assert all(diagnostic.needs == "checkpoint" for diagnostic in ALL)
