"""Planted worlds are what they say, and no scheduler is fooled where there is nothing to be fooled by."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_planted
from benchmarks.settings import CHOSEN


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("world", bench_planted.WORLDS)
def test_a_world_is_what_it_says(world: str) -> None:
    table = bench_planted.planted(world, 0)
    values = np.array([[curve.values for curve in curves] for curves in table.curves])
    means = values.mean(axis=1)
    assert (np.diff(means, axis=1) < 0).all()
    np.testing.assert_allclose(table.truth, means[:, -1])
    early, noise = correlation(means[:, 1], means[:, -1]), values[:, :, -1].std(axis=1, ddof=1).mean()
    spread = float(np.sort(means[:, -1])[:60].std())
    if world == "ranks reverse":
        assert early < -0.8
    elif world == "schedules differ":
        assert early < 0.8
    else:
        assert early == pytest.approx(1.0)
    assert (noise > spread) == (world == "seeds lie")


def test_where_ranks_last_gates_that_learn_find_nearly_the_best() -> None:
    end, _, area = bench_planted.losses("ranks last", CHOSEN, 3)
    assert end < 0.05
    assert area < 0.2


def test_a_world_is_the_same_twice_and_another_for_each_number() -> None:
    one, again, other = (bench_planted.planted("seeds lie", number) for number in (1, 1, 2))
    np.testing.assert_array_equal(one.truth, again.truth)
    assert (one.truth != other.truth).any()
