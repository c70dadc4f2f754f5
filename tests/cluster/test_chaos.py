"""Things are taken away from a search on three hosts, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.cluster.bed import Bed
from tests.cluster.chaos import KINDS, Kill, draw, problems
from tests.cluster.searches import outcome
from tune_rh.record.journal import RunPaths

pytestmark = pytest.mark.timeout(3600)


def test_one_of_each_kind_is_taken_away(hosts: Bed, quiet: RunPaths) -> None:
    kills = [Kill(kind, 5 + 30 * i, 7 * i) for i, kind in enumerate(KINDS)]
    assert problems(hosts, hosts.common / "kinds", kills, outcome(quiet)) == []


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_twenty_are_taken_away(seed: int, hosts: Bed, quiet: RunPaths) -> None:
    assert problems(hosts, hosts.common / f"seed-{seed}", draw(seed, 20), outcome(quiet)) == []


def test_a_seed_draws_the_same_kills_in_order() -> None:
    assert draw(3, 20) == draw(3, 20) != draw(4, 20)
    assert [kill.at for kill in draw(3, 20)] == sorted({kill.at for kill in draw(3, 20)})
    assert {kill.kind for seed in range(1, 11) for kill in draw(seed, 20)} == set(KINDS)
