"""Estimators with partial_fit as tasks: from the state on they go the same way, whatever seed they were built with."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.linear_model import LogisticRegression, SGDClassifier, SGDRegressor  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

from tune_rh.adapters.sklearn import task  # noqa: E402


def data(data_dir: Path) -> dict[str, Any]:
    """Two clouds of points."""
    points = np.random.default_rng(0).normal(size=(90, 3))
    labels = (points.sum(1) > 0).astype(int)
    return {name: (points[i : i + 30], labels[i : i + 30]) for i, name in enumerate(("train", "val", "test"))}


def made(estimator: Callable[[Any, int], Any], seed: int) -> Any:
    """A task of ten rows a step."""
    return task(estimator, data, batch_size=10, metrics=lambda e, x, y: {"spread": float(e.predict(x).std())})(
        {}, seed=seed, device="cpu", data_dir=Path()
    )


@pytest.mark.parametrize(
    "estimator",
    [
        lambda config, seed: SGDClassifier(loss="log_loss", random_state=seed),
        lambda config, seed: SGDRegressor(random_state=seed),
        lambda config, seed: MLPClassifier((4,), random_state=seed),
        lambda config, seed: GaussianNB(),
    ],
    ids=["sgd", "regressor", "mlp", "bayes"],
)
def test_it_goes_on_from_its_state(estimator: Callable[[Any, int], Any]) -> None:
    whole, other = made(estimator, 1), made(estimator, 2)
    for _ in range(4):
        whole.step()
    shown = whole.evaluate("val")
    assert shown == whole.evaluate("val")
    assert shown.keys() == {"val_score", "val_spread"}
    other.step()
    other.load_state_dict(whole.state_dict())
    assert other.state_dict() == whole.state_dict()
    assert [other.step() for _ in range(7)] == [whole.step() for _ in range(7)]
    assert other.evaluate("test") == whole.evaluate("test")
    assert other.state_dict() == whole.state_dict()


def test_what_is_no_estimator_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="LogisticRegression: has no partial_fit"):
        made(lambda config, seed: LogisticRegression(), 1)
    with pytest.raises(ValueError, match="data: has no test and no val"):
        task(lambda config, seed: GaussianNB(), lambda data_dir: {"train": ()})(
            {}, seed=1, device="cpu", data_dir=Path()
        )


class Evil:
    """Runs a function where it is read."""

    def __reduce__(self) -> Any:
        return eval, ("print('read')",)


def test_a_checkpoint_that_names_other_code_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    one = made(lambda config, seed: GaussianNB(), 1)
    one.step()
    with pytest.raises(pickle.UnpicklingError, match=r"names builtins\.eval, which is no part of an estimator"):
        one.load_state_dict({**one.state_dict(), "estimator": pickle.dumps(Evil())})
    assert capsys.readouterr().out == ""
