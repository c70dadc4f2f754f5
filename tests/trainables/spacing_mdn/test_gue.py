"""The control set: seeded, reproducible, and distributed as the bulk of GUE."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.spacing_mdn.data import gue


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(gue, "SIZE", 256)
    monkeypatch.setattr(gue, "PER_MATRIX", 128)


@pytest.mark.usefixtures("small")
def test_seed_decides_and_a_longer_series_begins_with_a_shorter():
    series = gue.spacings(400, seed=3)
    np.testing.assert_array_equal(gue.spacings(150, seed=3), series[:150])
    assert not np.array_equal(gue.spacings(400, seed=4), series)


@pytest.mark.usefixtures("small")
def test_progress_ends_at_the_total():
    seen = []
    gue.spacings(300, seed=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(128, 300), (256, 300), (300, 300)]


@pytest.mark.usefixtures("small")
def test_statistics_of_the_bulk():
    """Variance 0.1800 and lag-1 correlation -0.3116 in the limit; bounds are five standard errors of 25,600."""
    series = gue.spacings(25_600, seed=1)
    assert series.min() > 0.0
    assert series.mean() == pytest.approx(1.0, abs=2e-3)
    assert series.var() == pytest.approx(0.180, abs=0.009)
    assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(-0.31, abs=0.03)
