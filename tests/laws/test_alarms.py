"""The laws of a pass sound: models that leak, models that see nothing, and sums where there should be means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import alone
from tests.laws.test_family_laws import LAYOUTS
from trainables.language.task import LanguageTask
from trainables.registry import build_config, get_family, resolve
from trainables.shared_moe.task import SharedMoETask
from trainables.spacing_mdn import windows
from trainables.spacing_mdn.features.table import Features
from trainables.spacing_mdn.model import SpacingModel
from trainables.spacing_mdn.windows import RESIDUAL_GAIN, Channels, Windows
from tune_rh.testing import FamilyConformance

Break = Callable[[pytest.MonkeyPatch], None]


def _attention_looks_ahead(patch: pytest.MonkeyPatch) -> None:
    attend = F.scaled_dot_product_attention
    patch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, is_causal=False, **rest: attend(q, k, v, **rest))


def _memory_sees_the_whole_window(patch: pytest.MonkeyPatch) -> None:
    """The leak of the notes: what every position reads has seen every position."""
    embed = SpacingModel._embed

    def remember(self: SpacingModel, inputs: Tensor) -> Tensor:
        data = embed(self, inputs)
        return data + 0.01 * data.mean(dim=1, keepdim=True)

    patch.setattr(SpacingModel, "_embed", remember)


def windows_begin_one_late(patch: pytest.MonkeyPatch) -> None:
    """The last input is the target."""
    inputs = Windows.inputs

    def late(self: Windows, starts: Tensor) -> Tensor:
        return inputs(self, (starts + 1).clamp(max=self.last))

    patch.setattr(Windows, "inputs", late)


def _a_feature_is_of_the_next(patch: pytest.MonkeyPatch) -> None:
    of = Channels.of

    def ahead(self: Channels, *args: Any) -> Any:
        channels = of(self, *args)
        channels[:-1, 0] += 0.01 * RESIDUAL_GAIN * channels[1:, 0]
        return channels

    patch.setattr(Channels, "of", ahead)


def _a_table_is_one_ahead(patch: pytest.MonkeyPatch) -> None:
    assemble = windows.assemble

    def ahead(*args: Any) -> Features:
        rows = assemble(*args)
        return replace(rows, channels=np.roll(rows.channels, -1, axis=0))

    patch.setattr(windows, "assemble", ahead)


def _nothing_is_read(patch: pytest.MonkeyPatch) -> None:
    embed = SpacingModel._embed
    patch.setattr(SpacingModel, "_embed", lambda self, inputs: embed(self, torch.zeros_like(inputs)))


def _laws(family: str, data_dir: Path, preset: str = "tiny") -> FamilyConformance:
    """The suite over a preset, whose data set is made, and with ``tiny`` over the layout of data alone."""
    torch.set_num_threads(1)
    with alone(data_dir):
        resolve(get_family(family).data).prepare(build_config(get_family(family), preset=preset).data, data_dir)
    alone_too = family == "spacing_mdn" and preset == "tiny"
    layouts = {"data alone": LAYOUTS[family]["data alone"]} if alone_too else {}
    own = {"family": family, "preset": preset, "layouts": layouts}
    laws: FamilyConformance = type("Laws", (FamilyConformance,), own)()
    return laws


@pytest.mark.parametrize(
    ("family", "preset", "spoil", "said"),
    [
        ("shared_moe", "tiny", _attention_looks_ahead, "what is predicted of place 1 moves by"),
        ("spacing_mdn", "tiny", _memory_sees_the_whole_window, "with places from"),
        ("spacing_mdn", "tiny", windows_begin_one_late, "with places from"),
        ("spacing_mdn", "tiny", _a_feature_is_of_the_next, "with places from"),
        ("spacing_mdn", "tiny-mlp", _a_table_is_one_ahead, "with places from"),
        ("spacing_mdn", "tiny", _nothing_is_read, "nothing that is predicted of places after"),
    ],
)
def test_a_leak_is_found_and_so_is_a_model_that_reads_nothing(
    family: str, preset: str, spoil: Break, said: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch)
    with pytest.raises(AssertionError, match=said):
        _laws(family, data_dir, preset).test_no_prediction_sees_what_it_is_to_predict(data_dir)


def test_sums_over_a_micro_batch_are_found(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]] = SharedMoETask._loss

    def summed(self: LanguageTask, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        mean, parts = loss(self, rows)
        return mean * len(rows), parts

    monkeypatch.setattr(SharedMoETask, "_loss", summed)
    with pytest.raises(AssertionError, match="tiny: train_loss is"):
        _laws("shared_moe", data_dir).test_micro_batches_have_the_gradient_of_one_batch(data_dir)
