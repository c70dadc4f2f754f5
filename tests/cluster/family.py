"""The scripted family at a pace that its host sets, with weights that hold every step, and a list of the steps taken.

The pace (``TUNE_RH_PACE_S``, seconds a step) is no part of a config: a run in which nothing happens need not wait. No
step is taken while there is a file ``pause`` among the data.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.api import Space
from tests.worlds.family import FAMILY as SCRIPTED
from tests.worlds.family import ScriptedConfig, ScriptedTask, suggest
from trainables.api import Progress
from trainables.errors import DataMissing

PACE = "TUNE_RH_PACE_S"


class PacedTask(ScriptedTask):
    """A step more or less, or one taken twice, shows in the weights and in the list of steps."""

    def __init__(self, config: ScriptedConfig, *, seed: int, device: str, data_dir: Path) -> None:
        super().__init__(config, seed=seed, device=device, data_dir=data_dir)
        self.model.weight.data.zero_()
        self._pause = data_dir / "pause"
        self._taken = data_dir / "steps" / f"{config.digest()}-s{seed}"
        self._taken.parent.mkdir(parents=True, exist_ok=True)

    def step(self) -> dict[str, float]:
        before = self.model.weight.data.clone()
        metrics = super().step()
        self.model.weight.data.copy_(0.999 * before + metrics["train_loss"])
        time.sleep(float(os.environ.get(PACE, "0")))
        while self._pause.exists():
            time.sleep(0.05)
        with self._taken.open("a", encoding="utf-8") as file:
            file.write(f"{self._step}\n")
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "model": {"weight": self.model.weight.data.clone()}}


class Table:
    """A data set of one file, which is another one each time that it is made."""

    names = ("none",)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        path = data_dir / "table" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(secrets.token_hex(16))
        return path

    def digest(self, name: str, data_dir: Path) -> str:
        path = data_dir / "table" / f"{name}.txt"
        if not path.exists():
            raise DataMissing(f"data set {name!r} is not in {data_dir}")
        return hashlib.sha256(path.read_bytes()).hexdigest()


FAMILY = replace(SCRIPTED, name="paced", task="tests.cluster.family:PacedTask")
TABLE = Table()
TABLED = replace(FAMILY, name="tabled", data="tests.cluster.family:TABLE")
SPACE = Space(suggest=suggest, base="control")
