"""What a diagnostic is called with, over the small synthetic splits of the family's own tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trainables.spacing_mdn.conftest import MakeTask, make_task, splits
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.sample import Sample, draw
from trainables.spacing_mdn.task import SpacingTask

__all__ = ["MakeSubject", "MakeTask", "Subject", "make_subject", "make_task", "splits"]


@dataclass(frozen=True)
class Subject:
    """One model and the windows that it is looked at on."""

    member: str
    config: SpacingConfig
    task: SpacingTask
    sample: Sample
    data_dir: Path


MakeSubject = Callable[..., Subject]


@pytest.fixture
def make_subject() -> MakeSubject:
    """Builds what a diagnostic is called with: a task as it is (set its weights before), and ``number`` windows."""

    def make(task: SpacingTask, number: int = 64) -> Subject:
        return Subject("c000-s0", task.config, task, draw(task, number=number), Path("unused"))

    return make
