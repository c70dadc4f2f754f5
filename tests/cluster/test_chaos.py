"""Things are taken away from a search on three hosts, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.cluster.bed import Bed
from tests.cluster.chaos import KINDS, Hit, Kill, draw, had_ended, problems
from tests.cluster.searches import outcome
from tune_rh.record.events import JobEnded, MemberId, Outcome
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


@pytest.mark.parametrize(
    ("member", "outcome", "after", "ended"),
    [
        (("c0001", 7), "parked", 0.4, True),
        (("c0001", 7), "parked", -0.1, False),  # the job before
        (("c0001", 7), "parked", 30.0, False),  # trained by another worker
        (("c0001", 7), "failed", 0.4, False),
        (("c0001", 42), "parked", 0.4, False),
    ],
)
def test_a_worker_that_had_reported_all_is_no_loss(
    member: tuple[str, int], outcome: Outcome, after: float, ended: bool
) -> None:
    hit = Hit("h0", 1620, "c0001 s7", 1000.0)
    assert had_ended(hit, [JobEnded(MemberId(*member), outcome, "", 1000.0 + after)]) is ended
