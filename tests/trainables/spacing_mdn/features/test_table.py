"""The table of features: it knows no future, is learnt from the training rows, kept with a digest, and used alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.spacing_mdn.conftest import MakeTask
from trainables.arrays import Array
from trainables.spacing_mdn.config import SpacingConfig
from trainables.spacing_mdn.data.sets import BLOCK
from trainables.spacing_mdn.data.spacings import Part, SpacingData
from trainables.spacing_mdn.data.zeros import unfolded_spacings
from trainables.spacing_mdn.features import table
from trainables.spacing_mdn.features.heights import heights_of
from trainables.spacing_mdn.features.options import channels_of_features, num_numbers
from trainables.spacing_mdn.loss import mixture_nll
from trainables.spacing_mdn.model import SpacingModel
from trainables.spacing_mdn.predict import min_past, predict_next

KINDS: dict[str, dict[str, Any]] = {
    "bank": {"ar_bank": 256},
    "fitted": {"prime_lines": 10, "prime_grid": True},
    "exact": {"prime_lines": 10, "prime_phases": "exact"},
    "inferred": {"prime_lines": 10, "prime_window": 300, "height_source": "inferred"},
    "bank and lines": {"ar_bank": 256, "prime_lines": 10, "prime_window": 100},
}


def config(**fields: Any) -> SpacingConfig:
    return SpacingConfig(layout="mlp", context=32, eval_tail=32, data="first100k", **fields)


@pytest.fixture(scope="module")
def whole(zeros_100k: Array) -> tuple[Array, Array]:
    """Spacings of 12 blocks of real zeros and the log heights of the blocks."""
    zeros = zeros_100k[20_000 : 20_001 + 12 * 256]
    return unfolded_spacings(zeros), np.log(zeros[:-1:256] / (2 * np.pi))


@pytest.fixture(scope="module")
def splits(whole: tuple[Array, Array]) -> SpacingData:
    """Real zeros in place of the synthetic splits: heights and spacings belong together."""
    spacings, heights = whole
    parts = [Part(spacings[256 * a : 256 * b], heights[a:b]) for a, b in ((0, 6), (6, 9), (9, 12))]
    return SpacingData("first100k", *parts, digest="real")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shuffled_future_moves_no_row_before_it(kind: str, whole: tuple[Array, Array]) -> None:
    fields, (spacings, heights) = config(**KINDS[kind]), whole
    cut = 7 * 256  # a block's start: its height is that of a zero that is known by then
    shuffled = spacings.copy()
    np.random.default_rng(0).shuffle(shuffled[cut:])
    raw, other = (table.compute(fields, part, heights) for part in (spacings, shuffled))
    numbers = table.learn(fields, raw, spacings, 5 * 256)
    one, two = (table.assemble(fields, part, numbers, len(spacings)) for part in (raw, other))
    assert np.array_equal(one.channels[:cut], two.channels[:cut])
    assert np.array_equal(one.offset[:cut], two.offset[:cut])
    assert not np.array_equal(one.channels[cut], two.channels[cut])
    again = table.learn(fields, other, shuffled, 5 * 256)
    assert np.array_equal(again.packed(), numbers.packed())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_has_its_declared_length_and_comes_back(kind: str, whole: tuple[Array, Array]) -> None:
    fields, (spacings, heights) = config(**KINDS[kind]), whole
    raw = table.compute(fields, spacings, heights)
    numbers = table.learn(fields, raw, spacings, 2560)
    assert len(numbers.packed()) == num_numbers(fields)
    back = table.Numbers.unpacked(numbers.packed(), fields)
    assert np.array_equal(back.packed(), numbers.packed())
    rows = table.assemble(fields, raw, numbers, len(spacings))
    assert rows.channels.shape == (len(spacings), channels_of_features(fields))
    learnt = rows.channels[raw.first : 2559]
    assert np.abs(learnt.mean(axis=0)).max() < 1e-4
    left = spacings[raw.first + 1 : 2560] - rows.offset[raw.first : 2559]
    assert numbers.spread == pytest.approx(np.sqrt(np.mean(left**2)), rel=1e-4)
    assert numbers.spread < 0.9 * spacings.std()


def test_a_table_is_made_once_and_again_where_it_is_damaged(
    tmp_path: Path, whole: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    compute = table.compute
    monkeypatch.setattr(table, "compute", lambda *args, **more: made.append(1) or compute(*args, **more))
    fields = config(ar_bank=256)

    def get(fields: SpacingConfig = fields, digest: str = "d") -> table.Features:
        return table.features(fields, *whole, 2560, digest=digest, folder=tmp_path)

    first, second = get(), get(fields.model_copy(update={"lr": 0.5}))
    assert len(made) == 1
    assert np.array_equal(first.channels, second.channels)
    assert np.array_equal(first.numbers.packed(), second.numbers.packed())
    (path,) = (tmp_path / "features").glob("*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    assert np.array_equal(get().channels, first.channels)
    assert len(made) == 2
    get(digest="another")
    get(fields.model_copy(update={"refit_every": 8}))
    assert len(made) == 4


def test_without_a_folder_nothing_is_kept(tmp_path: Path, whole: tuple[Array, Array]) -> None:
    table.features(config(ar_bank=256), *whole, 2560, digest="d", folder=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_too_little_to_learn_from_is_said(whole: tuple[Array, Array]) -> None:
    fields = config(ar_bank=256)
    with pytest.raises(ValueError, match="300 spacings to learn from"):
        table.learn(fields, table.compute(fields, *whole), whole[0], 300)


MLP: dict[str, Any] = {
    "layout": "mlp",
    "n_slots": 0,
    "slot_id_mode": "fixed",
    "eval_slot_id_mode": "fixed",
    "slot_dropout": 0.0,
    "aux_mode": "off",
    "eval_stride": 1,
}


@pytest.mark.parametrize(
    "fields",
    [
        {**MLP, "ar_bank": 256},
        {**MLP, "ar_features": 5, "height_input": True},
        {**MLP, "prime_lines": 5, "prime_grid": True, "prime_window": 100, "height_rounding": 0.0},
        {**MLP, "prime_lines": 5, "prime_phases": "exact"},
        {**MLP, "prime_lines": 5, "prime_grid": True, "prime_window": 300, "height_source": "inferred"},
        {**MLP, "layout": "none", "eval_tail": 1, "ar_bank": 256},
        {**MLP, "layout": "none", "eval_tail": 1, "prime_lines": 5, "prime_window": 300, "height_source": "inferred"},
    ],
)
def test_a_model_alone_predicts_what_the_evaluation_sees(
    fields: dict[str, Any], make_task: MakeTask, splits: SpacingData, whole: tuple[Array, Array]
) -> None:
    """Where the data set's fits are as fresh as those of a model alone: at multiples of what fits and heights serve."""
    task = make_task(**fields)
    for _ in range(3):
        task.step()
    alone = SpacingModel(task.config)
    alone.load_state_dict(task.state_dict()["model"])
    expected = task.target_nll("val")
    series, start = splits.whole, splits.start("val")
    place = start + 24 * 16  # of the last known spacing
    end = series.log_height_per_point()
    exact = heights_of(series.spacings, series.log_height, BLOCK, exact=True).log_height
    known = float(end[place] if task.config.height_input else exact[place + 1])
    target = torch.tensor(series.spacings[place + 1], dtype=torch.float32).reshape(1, 1)
    past = torch.from_numpy(series.spacings[: place + 1])
    assert len(past) >= min_past(alone)
    prediction = predict_next(alone, past, known if task.config.reads_height else None)
    nll = mixture_nll(prediction, target.expand(1, prediction.mu.shape[1]))[0, -1]
    first = task.windows("val").first + task.config.context
    assert nll.item() == pytest.approx(expected[place + 1 - start - first].item(), abs=2e-4)
