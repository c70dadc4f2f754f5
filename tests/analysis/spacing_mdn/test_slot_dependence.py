"""Models whose prediction hangs on permutations, contents or IDs by construction: each fails its own check only.

In all of them the blocks do nothing (one case aside), so a slot's state is its normed vector. The mixture's mean is the
linear predictor's, and its deviation depends on how much of direction `V` the state has: right if that is the normal
amount, too wide the less of it there is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.diagnose.api import Diagnostic
from analysis.spacing_mdn import content_only, id_only, permutation
from tests.analysis.conftest import MakeSubject, MakeTask, Subject
from tests.analysis.values import value
from trainables.spacing_mdn import task as task_module
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.features.linear import fit_ar
from trainables.spacing_mdn.task import SpacingTask

SIGMA, LAG2 = 0.1, 0.9
V = torch.tensor([1.0, -1, 0, 0, 0, 0, 0, 0])
W = torch.tensor([0.0, 0, 1, -1, 0, 0, 0, 0])
ZERO = torch.zeros(8)
CHECKS: dict[str, Diagnostic] = {
    "J": permutation.permutation,
    "L": id_only.id_only,
    "M": content_only.content_only,
}


def long_memory(num_blocks: int, seed: int) -> Part:
    """Spacings that follow the last but one: AR(1) knows nothing, AR(2) gains -log(1 - 0.9^2) / 2 nats."""
    noise = np.random.default_rng(seed).normal(size=num_blocks * BLOCK + 200)
    x = np.zeros_like(noise)
    for t in range(2, len(x)):
        x[t] = LAG2 * x[t - 2] + noise[t]
    return Part(1.0 + SIGMA * x[200:], np.linspace(2.0, 9.0, num_blocks))


@pytest.fixture
def build(make_task: MakeTask, make_subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds a model from the slots' contents and IDs, and the share of `V` that is normal for its states."""
    data = SpacingData("first100k", long_memory(12, 0), long_memory(4, 1), long_memory(4, 2), "synthetic")
    for module in (task_module, content_only):
        monkeypatch.setattr(module, "load", lambda name, data_dir: data)

    def make(contents: list[torch.Tensor], ids: list[torch.Tensor], normal: float = 1.0) -> Subject:
        task = make_task(ar_features=2, slot_dropout=0.0)
        model = task.model
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.fill_(1.0 if "norm" in name else 0.0)
            assert model.slots is not None
            model.slots.content.copy_(torch.stack(contents))
            model.slots.ids.copy_(torch.stack(ids))
            # V alone, normed, is 2 V, and 2 V . V = 4.
            model.head.weight[-2:] = V * math.log(math.expm1(SIGMA)) / (4.0 * normal)
        return make_subject(task, number=512)

    return make


def verdicts(subject: Subject) -> dict[str, str]:
    return {letter: asked(subject).verdict for letter, asked in CHECKS.items()}


def test_contents_alone_pass_everything(build: Any) -> None:
    subject = build([V, V], [ZERO, ZERO])
    assert verdicts(subject) == {"J": "pass", "L": "pass", "M": "pass"}
    gain = content_only.content_only(subject).values["gain"]
    assert gain.low < -0.5 * math.log(1 - LAG2**2) < gain.high
    assert value(content_only.content_only(subject), "share") == pytest.approx(0.0, abs=1e-9)


def test_roles_bound_to_ids_fail_under_permutation_alone(build: Any) -> None:
    # Own IDs and none: V + W and V - W. Swapped IDs: V - 3 W and V + 3 W.
    subject = build([V - W, V + W], [2 * W, -2 * W], normal=1 / math.sqrt(2))
    assert verdicts(subject) == {"J": "fail", "L": "pass", "M": "pass"}
    finding = permutation.permutation(subject)
    assert "hangs on which slot" in finding.summary
    swapped = math.log1p(math.exp(math.log(math.expm1(SIGMA)) / math.sqrt(5)))
    expected = math.log(swapped / SIGMA) - 0.5 * (1 - (SIGMA / swapped) ** 2)
    assert value(finding, "worst_increase") == pytest.approx(expected, rel=0.1)
    assert value(finding, "increase_percent") == pytest.approx(
        100 * value(finding, "increase") / abs(value(finding, "nll"))
    )


def test_slots_that_only_pass_data_on_fail_the_content_check_alone(build: Any) -> None:
    subject = build([ZERO, ZERO], [ZERO, ZERO])
    block = subject.task.model.blocks[0]
    with torch.no_grad():
        subject.task.model.positions.copy_(V.expand(32, 8))
        block.qkv.weight[16:] = torch.eye(8)
        block.out.weight.copy_(torch.eye(8))
    assert verdicts(subject) == {"J": "pass", "L": "fail", "M": "pass"}
    assert "next to nothing" in id_only.id_only(subject).summary


def test_contents_that_need_their_ids_fail_without_them_alone(build: Any) -> None:
    subject = build([V + 4 * W, V + 4 * W], [-4 * W, -4 * W])
    assert verdicts(subject) == {"J": "pass", "L": "pass", "M": "fail"}
    finding = content_only.content_only(subject)
    assert value(finding, "share") == pytest.approx(value(finding, "change") / value(finding, "gain"))


def test_prediction_from_ids_alone_fails_both_ways(build: Any) -> None:
    assert verdicts(build([ZERO, ZERO], [V, V])) == {"J": "pass", "L": "fail", "M": "fail"}


def test_a_model_that_gains_nothing_can_lose_nothing(build: Any) -> None:
    subject = build([ZERO, ZERO], [ZERO, ZERO])
    finding = content_only.content_only(subject)
    assert (finding.verdict, "gains nothing" in finding.summary) == ("no_evidence", True)
    assert finding.values["gain"].high < 0


def test_ar1_is_scored_on_the_windows_own_targets(
    make_task: MakeTask, make_subject: MakeSubject, splits: SpacingData
) -> None:
    subject = make_subject(make_task(**NO_SLOTS, eval_tail=3), number=5)
    model = fit_ar(splits.train.spacings, 1)
    scores = content_only.ar1_nll(subject.sample, splits.train.spacings)
    for start, score in zip(subject.sample.starts.tolist(), scores, strict=True):
        around = splits.val.spacings[start + 32 - 3 : start + 32 + 1]
        assert score == pytest.approx(model.nll(around))
    slots = make_subject(make_task(), number=5)
    start = int(slots.sample.starts[0])
    assert content_only.ar1_nll(slots.sample, splits.train.spacings)[0] == pytest.approx(
        model.nll(splits.val.spacings[start + 31 : start + 33])
    )


NO_SLOTS: dict[str, Any] = {
    "layout": "none",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
}


@pytest.mark.parametrize("letter", "JLM")
@pytest.mark.parametrize(
    ("fields", "letters"),
    [
        (NO_SLOTS, "JLM"),
        ({"n_slots": 1}, "J"),
        ({"layout": "prefix", "aux_mode": "off"}, "J"),
        ({"content_mode": "zeroed"}, "JL"),
        ({"eval_slot_id_mode": "off"}, "JM"),
    ],
)
def test_where_there_is_nothing_to_change_there_is_no_evidence(
    letter: str,
    fields: dict[str, Any],
    letters: str,
    make_task: MakeTask,
    make_subject: MakeSubject,
    splits: SpacingData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(content_only, "load", lambda name, data_dir: splits)
    finding = CHECKS[letter](make_subject(make_task(**fields), number=16))
    if letter in letters:
        assert (finding.verdict, finding.summary != "") == ("no_evidence", True)
    else:
        assert finding.values


@pytest.mark.parametrize("letter", "JLM")
def test_a_model_of_nan_is_no_evidence(letter: str, make_task: MakeTask, make_subject: MakeSubject) -> None:
    task: SpacingTask = make_task()
    with torch.no_grad():
        task.model.head.weight.fill_(math.nan)
    subject = make_subject(task, number=16)
    assert subject.data_dir == Path("unused")
    finding = CHECKS[letter](subject)
    assert (finding.verdict, "not finite" in finding.summary) == ("no_evidence", True)
