"""Models of `equilibrium` as diagnostics are handed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.diagnose.subject import Subject
from tests.conftest import alone
from tests.trainables.equilibrium.configs import tiny
from trainables.equilibrium.task import EquilibriumTask
from trainables.language.sample import draw
from trainables.text.source import TEXT_AND_BYTES

MakeSubject = Callable[..., Subject]
PLAIN: dict[str, Any] = {
    "navg": 1,
    "accumulation": 1,
    "warm_switch_step": 0,
    "spec_rho": None,
    "resreg": 0.0,
    "ema": None,
    "mode": "mono",
    "margin": 0.5,
    "kappa": 1.0,
    "t1": 100,
    "t2": 60,
    "beta": 0.01,
    "jr_mode": "fixed",
    "jr": 0.01,
}
"""A field that is stable whatever its weights, a long free phase, a weak nudge, and no more than the estimator."""


@pytest.fixture
def make_subject(data_dir: Path) -> MakeSubject:
    """A model of preset ``tiny`` with an enlarged antisymmetric part: stable, and far from normal."""
    torch.set_num_threads(1)
    with alone(data_dir):
        TEXT_AND_BYTES.prepare("pydoc-257", data_dir)

    def make(**fields: Any) -> Subject:
        config = tiny(**{**PLAIN, **fields})
        task = EquilibriumTask(config, seed=3, device="cpu", data_dir=data_dir)
        with torch.no_grad():
            for name, weight in task.model.weights.items():
                weight.mul_({"b": 2.0, "u": 0.3, "head": 10.0}.get(name, 1.0))
        task.model.eval()
        return Subject("c0000-s3", "equilibrium", config, 3, task, draw(task), data_dir)

    return make
