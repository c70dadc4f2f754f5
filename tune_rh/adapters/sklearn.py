"""A scikit-learn estimator with ``partial_fit`` as a task: a step is one call of it on the next mini-batch."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.api import Split
from trainables.training.seeding import derive_seed
from tune_rh.adapters.factory import Factory, seeded

Data = Mapping[str, tuple[Any, Any]]
"""``train``, ``val`` and ``test``, each ``(X, y)``."""


def task(
    estimator: Callable[[Any, int], Any],
    data: Callable[[Path], Data],
    *,
    batch_size: int = 64,
    metrics: Callable[[Any, Any, Any], Mapping[str, float]] | None = None,
) -> Factory:
    """A task for `tune_rh.search`; it reports ``val_score`` and ``test_score``, which is the estimator's ``score``.

    Args:
        estimator: called with the config and the seed, which is for its ``random_state``.
        data: called with the folder of the data; returns the three splits.
        batch_size: rows of a step.
        metrics: called with estimator, X and y for more numbers, which get ``val_`` or ``test_`` before their names.
    """
    return Factory(_Task, estimator, {"make": estimator, "data": data, "batch_size": batch_size, "metrics": metrics})


class _Task:
    def __init__(
        self,
        config: Any,
        *,
        seed: int,
        device: str,
        data_dir: Path,
        make: Any,
        data: Any,
        batch_size: int,
        metrics: Any,
    ) -> None:
        with seeded(0, "data"):  # the same for every seed
            self._data = data(data_dir)
        lacking = {"train", "val", "test"} - {*self._data}
        if lacking:
            raise ValueError(f"data: has no {' and no '.join(sorted(lacking))}; allowed are train, val and test")
        self._seed, self._step, self._batch_size, self._metrics = seed, 0, batch_size, metrics
        self.estimator = make(config, seed % 2**32)
        if not hasattr(self.estimator, "partial_fit"):
            raise ValueError(f"{type(self.estimator).__name__}: has no partial_fit, so that no step of it can be taken")
        labels = self._data["train"][1]
        self._classes = (
            {"classes": np.unique(labels)}
            if hasattr(self.estimator, "predict_proba") or _is_classifier(self.estimator)
            else {}
        )

    def step(self) -> dict[str, float]:
        """Fit one mini-batch; its loss is 1 - score, before it is fitted."""
        features, labels = self._data["train"]
        rows = self._rows(len(labels))
        batch, targets = features[rows], labels[rows]
        with seeded(self._seed, f"step {self._step}"):
            self.estimator.partial_fit(batch, targets, **self._classes)
        self._step += 1
        return {"train_loss": 1.0 - float(self.estimator.score(batch, targets))}

    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """The estimator's score on a split."""
        features, labels = self._data[split]
        shown = {"score": self.estimator.score(features, labels)}
        if self._metrics is not None:
            shown |= self._metrics(self.estimator, features, labels)
        return {f"{split}_{name}": float(value) for name, value in shown.items()}

    def state_dict(self) -> dict[str, Any]:
        """The estimator, pickled, and the place in the data."""
        return {"estimator": _pickled(self.estimator), "seed": self._seed, "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.estimator = _Estimators(io.BytesIO(state["estimator"]), type(self.estimator)).load()
        self._seed, self._step = state["seed"], state["step"]

    def _rows(self, num: int) -> Any:
        """The next batch: every epoch has an order of its own, and a rest that is no batch is left out."""
        size = min(self._batch_size, num)
        epoch, place = divmod(self._step, num // size)
        order = np.random.default_rng(derive_seed(self._seed, f"epoch {epoch}")).permutation(num)
        return order[place * size : (place + 1) * size]


def _pickled(estimator: Any) -> bytes:
    """The same bytes for equal estimators: without a memo it does not matter which of their parts are one object."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, 5)
    pickler.fast = True
    pickler.dump(estimator)
    return out.getvalue()


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


_NUMPY = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer", "__randomstate_ctor", "__bit_generator_ctor"}


class _Estimators(pickle.Unpickler):
    """Reads what a checkpoint holds of an estimator: classes of scikit-learn and of the estimator's own module.

    A checkpoint of another user's must not run other code; those of torch are read with ``weights_only``.
    """

    def __init__(self, file: io.BytesIO, estimator: type) -> None:
        super().__init__(file)
        self._own = estimator.__module__

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name, if it is one of them."""
        root = module.partition(".")[0]
        found = super().find_class(module, name) if root in ("sklearn", "numpy") or module == self._own else None
        if (root == "numpy" and (name in _NUMPY or (isinstance(found, type) and issubclass(found, _RANDOM)))) or (
            root != "numpy" and (isinstance(found, type) or name.startswith("__pyx_unpickle"))
        ):
            return found
        raise pickle.UnpicklingError(f"state['estimator']: names {module}.{name}, which is no part of an estimator")


_RANDOM = (np.random.RandomState, np.random.Generator, np.random.BitGenerator)
