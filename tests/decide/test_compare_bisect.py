"""The bisection of a comparison, through the policy and without noise: what is run, and what is found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worlds.compared import Compared, Value, by_pair, causes, comparison, noise_free, switched
from tune_rh.decide import comparison as compare
from tune_rh.decide.ddmin import Keys

ASKED = {"bisect": True}
SLOTS = pytest.mark.parametrize("slots", [1, 4])


def bisected(value: Value, slots: int = 1, rule: str = "", **changes: Any) -> Compared:
    """A comparison that is to find the guilty keys."""
    named = {"control": f"A-{rule}", "presets": [f"B-{rule}"]} if rule else {}
    return Compared(comparison(**{"compare": ASKED, **named, **changes}), value, slots=slots, order=slots).run()


def tried(sim: Compared) -> list[str]:
    """The midpoints, in the order in which they were run."""
    return ["".join(sorted(switched(midpoint))) for midpoint in sim.midpoints()]


@SLOTS
@pytest.mark.parametrize("guilty", ["c", "af", "bcd", "abcdef"])
def test_the_guilty_keys_are_found(guilty: str, slots: int) -> None:
    sim = bisected(noise_free(guilty), slots)
    assert causes(sim) == [guilty]
    assert compare.claim(sim.history).verdict == "worse"
    assert len(set(tried(sim))) == len(sim.midpoints())


@SLOTS
def test_two_causes_that_each_suffice_are_told_apart(slots: int) -> None:
    assert sorted(causes(bisected(noise_free("a", "ef"), slots)) or []) == ["a", "ef"]


@SLOTS
def test_a_clear_midpoint_takes_four_seeds_and_a_and_b_are_never_run_again(slots: int) -> None:
    sim = bisected(noise_free("d"), slots)
    trained = sim.trained()
    assert trained[:16] == [f"c000{side}-s{seed}" for seed in range(8) for side in (0, 1)]
    assert len(set(trained)) == len(trained)
    for midpoint in sim.midpoints():
        seeds = [seed for seed, member in midpoint.members.items() if member.step]
        assert seeds[:4] == [0, 1, 2, 3]
    if slots == 1:
        assert len(trained) == 16 + 4 * len(sim.midpoints())


@SLOTS
def test_keys_that_cannot_be_changed_alone_are_taken_together(slots: int) -> None:
    sim = bisected(noise_free("e"), slots, "tied")
    assert causes(sim) == ["ef"]
    assert all(("e" in midpoint) == ("f" in midpoint) for midpoint in tried(sim))


@SLOTS
def test_what_is_no_valid_config_is_passed_over(slots: int) -> None:
    assert "ab" in tried(bisected(noise_free("af"), slots))
    sim = bisected(noise_free("af"), slots, "barred")
    assert causes(sim) == ["af"]
    assert not {"ab", "abe", "abf", "abef"} & set(tried(sim))


def test_the_most_midpoints_end_it_and_what_remains_is_said() -> None:
    whole = bisected(noise_free("ac"))
    sim = bisected(noise_free("ac"), compare={**ASKED, "max_probes": 3})
    assert len(whole.midpoints()) > 3
    assert tried(sim) == tried(whole)[:3]
    state = compare.bisection(sim.history)
    assert state is not None
    assert state.wanted
    assert state.causes == ()
    assert state.remaining == frozenset("abc")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([-0.2] * 8, "better"), ([0.001, -0.001] * 4, "equivalent"), ([0.1, -0.1] * 4, "undecided")],
)
def test_nothing_is_bisected_unless_b_is_worse(differences: list[float], verdict: str) -> None:
    sim = bisected(by_pair(differences))
    assert compare.claim(sim.history).verdict == verdict
    assert sim.midpoints() == []
    assert compare.bisection(sim.history) is None


def test_nothing_is_bisected_unless_it_was_asked_for() -> None:
    sim = bisected(noise_free("a"), compare={})
    assert compare.claim(sim.history).verdict == "worse"
    assert sim.midpoints() == []


def test_a_patience_of_its_own_is_a_suspect() -> None:
    """B gives up before the drop that comes late; its other keys do nothing."""

    def value(_keys: Keys, seed: int, step: int) -> float:
        return seed / 64 + (1.0 if step < 60 else 0.5)

    configs = {"A": {"preset": "A", "patience_steps": 70}, "B": {"preset": "B", "patience_steps": 20}}
    sim = bisected(value, steps=80, configs=configs)
    assert compare.suspects(sim.history) == ("a", "b", "c", "d", "e", "f", "patience_steps")
    assert causes(sim) == ["patience_steps"]
    assert {midpoint.added.patience_steps for midpoint in sim.midpoints()} == {20, 70}


@pytest.mark.parametrize("slots", [1, 3, 4, 8])
def test_seeds_under_way_when_a_midpoint_is_called_change_nothing(slots: int) -> None:
    """Their curves still stand far above those that came to the end."""

    def value(keys: Keys, seed: int, step: int) -> float:
        wobble = hash((tuple(map(ord, sorted(keys))), seed)) % 11 / 100
        return 100.0 / step + wobble + 0.25 * ("c" in keys)

    for order in range(5):
        sim = Compared(comparison(compare=ASKED, steps=80), value, slots=slots, order=order).run()
        assert causes(sim) == ["c"]


def test_a_midpoint_lies_where_its_mean_is_between_a_and_b() -> None:
    """Two keys that add up, two thirds and one third of it: each midpoint says which part it has."""

    def value(keys: Keys, seed: int, _step: int) -> float:
        return 1.0 + seed / 64 + 0.2 * ("a" in keys) + 0.1 * ("f" in keys) + (seed % 2 - 0.5) / 100 * (len(keys) == 3)

    sim = bisected(value)
    where = {
        name: compare.position(sim.history, midpoint)
        for name, midpoint in zip(tried(sim), sim.midpoints(), strict=True)
    }
    mean, low, high = where["abc"]
    assert mean == pytest.approx(2 / 3, abs=0.01)
    assert low < mean < high
    assert where["a"] == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert where["bcdef"] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
