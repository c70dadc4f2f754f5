"""What a task may report, what it may not, and what is said of it."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.worker.test_member import job, train
from tests.worlds.family import ScriptedTask
from trainables.api import Metric
from trainables.errors import MetricError
from trainables.worker.member import MemberRun
from trainables.worker.metrics import of_both_splits, taken
from trainables.worker.report import REPORTS
from trainables.worker.report import Tested as ReadOfTest
from trainables.worker.state import Interval


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5), (3, 3.0), (True, 1.0), (10**30, 1e30), (Decimal("0.25"), 0.25), (Fraction(1, 4), 0.25),
        (np.float16(0.5), 0.5), (np.float32(0.25), 0.25), (np.float64(0.1), 0.1), (np.int64(7), 7.0),
        (np.uint8(255), 255.0), (np.bool_(False), 0.0), (np.longdouble(0.5), 0.5), (np.array(2.5), 2.5),
        (np.array([[2.5]]), 2.5), (torch.tensor(0.5), 0.5), (torch.tensor([2]), 2.0),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5), (torch.tensor([[0.5]], requires_grad=True), 0.5),
        (torch.nn.Parameter(torch.ones(1)), 1.0), (math.inf, math.inf), (np.float32(-math.inf), -math.inf),
    ],
)  # fmt: skip
def test_anything_with_one_element_is_a_number(value: Any, number: float) -> None:
    found = taken({"m": value}, "step()")
    assert found == {"m": number}
    assert type(found["m"]) is float


def test_nan_is_a_number() -> None:
    assert math.isnan(taken({"m": torch.tensor(math.nan)}, "step()")["m"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "m = None (NoneType)"),
        ("0.5", "m = '0.5' (str)"),
        ([0.5], "m = [0.5] (list)"),
        ({"a": 1.0}, "m = {'a': 1.0} (dict)"),
        ((), "m = () (tuple)"),
        (1j, "m = 1j (complex)"),
        (np.array([1.0, 2.0]), "m = array([1., 2.]) (ndarray of shape (2,))"),
        (np.array([]), "m = array([], dtype=float64) (ndarray of shape (0,))"),
        (np.complex64(1j), "m = np.complex64(1j) (complex64)"),
        (np.str_("x"), "m = np.str_('x') (str_)"),
        (np.array([None]), "m = array([None], dtype=object) (ndarray of shape (1,))"),
        (torch.zeros(2, 3), "m = tensor([[0., 0., 0.], [0., 0., 0.]]) (Tensor of shape (2, 3))"),
        (torch.zeros(1, device="meta"), "m = tensor(..., device='meta', size=(1,)) (Tensor of shape (1,))"),
        (10**400, f"m = 1{'0' * 59}... (int)"),
        (float, "m = <class 'float'> (type)"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_named_with_its_value_and_type(value: Any, shown: str) -> None:
    with pytest.raises(MetricError) as refused:
        taken({"fine": 1.0, "m": value}, "evaluate('val')")
    assert str(refused.value).startswith(f"evaluate('val') reports {shown}: allowed is a number")


@pytest.mark.parametrize("reported", [None, 0.5, [("m", 1.0)], "m"])
def test_what_is_no_mapping_is_refused(reported: Any) -> None:
    with pytest.raises(MetricError, match=r"step\(\) returns .*: allowed is a mapping of names to numbers"):
        taken(reported, "step()")


def test_a_name_is_text() -> None:
    with pytest.raises(MetricError, match=r"step\(\) reports a metric called 3 \(int\)"):
        taken({3: 1.0}, "step()")


def test_a_metric_of_test_under_a_name_of_val_gets_a_name_of_its_own() -> None:
    assert of_both_splits({"val_loss": 1.0}, {"test_loss": 2.0}) == {"val_loss": 1.0, "test_loss": 2.0}
    assert of_both_splits({"acc": 1.0, "val_n": 3.0}, {"acc": 2.0, "val_n": 4.0}) == {
        "acc": 1.0, "val_n": 3.0, "test_acc": 2.0, "test_n": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("val", "test"), [({"acc": 1.0}, {"acc": 2.0, "test_acc": 3.0}), ({"acc": 1.0, "test_acc": 4.0}, {"acc": 2.0})]
)
def test_no_metric_hides_another(val: dict[str, float], test: dict[str, float]) -> None:
    with pytest.raises(MetricError, match="both report acc"):
        of_both_splits(val, test)


def said(run: MemberRun) -> str:
    try:
        while True:
            run.advance()
    except MetricError as error:
        return str(error)


def test_a_member_says_which_metric_at_which_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(self: ScriptedTask, split: str = "val") -> dict[str, Any]:
        return {"val_loss": 1.0, "f1": 0.5 if self._step < 20 else None}

    monkeypatch.setattr(ScriptedTask, "evaluate", evaluate)
    run = MemberRun(job(tmp_path))
    assert said(run).startswith("c0001-s7, step 20: evaluate('val') reports f1 = None (NoneType): allowed is")


def test_a_member_says_that_the_objective_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedTask, "evaluate", lambda self, split="val": {"acc": 1.0, "f1": 0.5})
    assert said(MemberRun(job(tmp_path))) == (
        "c0001-s7, step 10: evaluate('val') does not report val_loss, which the search needs; it reports acc, f1"
    )


def test_a_member_says_that_the_training_loss_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedTask, "step", lambda self: {"loss": 1.0})
    assert said(MemberRun(job(tmp_path))) == (
        "c0001-s7, step 1: step() does not report train_loss, which the search needs; it reports loss"
    )


def test_the_one_reading_of_test_keeps_the_splits_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ScriptedTask, "evaluate", lambda self, split="val": {"val_loss": 1.0 if split == "val" else 2.0}
    )
    run = MemberRun(job(tmp_path))
    train(run, 60)
    report = run.advance()
    assert isinstance(report, ReadOfTest)
    assert report.metrics == {"val_loss": 1.0, "test_loss": 2.0}


def test_what_evaluation_leaves_out_is_not_made_up_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedTask, "step", lambda self: {"train_loss": 1.0, "val_loss": 0.25})
    monkeypatch.setattr(ScriptedTask, "evaluate", lambda self, split="val": {"acc": 1.0})
    assert "evaluate('val') does not report val_loss" in said(MemberRun(job(tmp_path)))


def test_numbers_of_numpy_and_torch_go_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedTask, "step", lambda self: {"train_loss": torch.tensor(0.5), "lr": np.float32(0.25)})
    monkeypatch.setattr(
        ScriptedTask,
        "evaluate",
        lambda self, split="val": {f"{split}_loss": np.float32(0.5), f"{split}_n": np.int64(3)},
    )
    run = MemberRun(job(tmp_path))
    reports = [*train(run, 60), run.advance()]
    assert isinstance(reports[-1], ReadOfTest)
    assert reports[-1].metrics == {"val_loss": 0.5, "val_n": 3.0, "test_loss": 0.5, "test_n": 3.0}
    assert reports[0].metrics == {"train_loss": 0.5, "lr": 0.25, "val_loss": 0.5, "val_n": 3.0}
    assert [REPORTS.decode(REPORTS.encode(report)) for report in reports] == reports


def test_a_training_metric_is_averaged_over_the_steps_that_report_it() -> None:
    interval = Interval()
    for step in range(1, 11):
        interval.add({"train_loss": float(step), **({"train_acc": step / 5} if step % 5 == 0 else {}), "lr": 0.1})
    assert interval.metrics(()) == {"train_loss": 5.5, "train_acc": 1.5, "lr": 0.1}


def test_a_rate_needs_its_count() -> None:
    rate = Metric("tokens_per_s", "max", "1/s", "", rate_of="tokens")
    interval = Interval(train_s=2.0)
    interval.add({"train_loss": 1.0, "tokens": 10.0})
    assert interval.metrics([rate])["tokens_per_s"] == 5.0
