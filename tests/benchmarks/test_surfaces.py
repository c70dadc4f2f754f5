"""Planted surfaces: the best is the best, seeds differ and end around the function, and draws are taken as they are."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.surfaces import NOISE, NUM_BLIND, Surface, surfaces

SURFACES = pytest.mark.parametrize("surface", surfaces(), ids=lambda surface: surface.name.partition(",")[0])


@SURFACES
def test_none_is_better_than_the_best(surface: Surface) -> None:
    assert surface.truth.argmin() == 0
    assert surface.prior > 0
    around = {name: float(at) + 1e-3 for name, at in surface.configs[0].items()}
    number = surface.nearest(around, set())
    assert 0 <= surface.truth[number] - surface.truth[0] < 0.05 * surface.prior


@SURFACES
def test_seeds_end_around_the_function_and_fall_on_the_way(surface: Surface) -> None:
    ends = np.array([[curve.values[-1] for curve in surface.curves[i]] for i in range(1, 200)])
    off = (ends - surface.truth[1:200, None]) / surface.spread
    assert off.std() == pytest.approx(NOISE, rel=0.2)
    assert all((np.diff(curve.values) < 0).all() for curve in surface.curves[7])
    again = surface.seeds(7)
    assert all((a.values == b.values).all() for a, b in zip(again, surface.curves[7], strict=True))


@SURFACES
def test_a_config_that_is_asked_for_is_made(surface: Surface) -> None:
    wanted = {name: 0.25 for name in surface.parameters}
    number = surface.nearest(wanted, set())
    assert number > NUM_BLIND
    assert surface.configs[number] == wanted
