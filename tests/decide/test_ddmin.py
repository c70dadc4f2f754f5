"""Delta debugging over config keys: exact without noise, and how often it is right with noisy seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from itertools import chain, combinations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rh.decide.ddmin import Keys, Outcome, State, advance, differing, grafted, groups

Oracle = Callable[[Keys], Outcome]

SIX = "abcdef"


def keys(names: Collection[str]) -> Keys:
    return frozenset(names)


def alone(names: str) -> tuple[Keys, ...]:
    return tuple(keys(name) for name in names)


def all_sets(names: Collection[str]) -> list[Keys]:
    sizes = range(1, len(names) + 1)
    return [keys(some) for some in chain.from_iterable(combinations(sorted(names), size) for size in sizes)]


def carried_by(*causes: Collection[str]) -> Oracle:
    """No noise: a midpoint carries the regression if it holds all keys of at least one cause."""
    return lambda midpoint: "carries" if any(keys(cause) <= midpoint for cause in causes) else "clean"


def any_oracle(seed: int, whole: Keys) -> Oracle:
    """Each set has an outcome of its own: keys may cancel, and a superset tells nothing."""
    rng = random.Random(seed)
    share = rng.choice([0.1, 0.5, 0.9])
    drawn: dict[Keys, Outcome] = {
        some: rng.choices(["carries", "clean", "invalid"], [share, 0.8 * (1 - share), 0.2 * (1 - share)])[0]
        for some in all_sets(whole)
    }
    return lambda midpoint: "carries" if midpoint == whole else drawn[midpoint]


def search(made: Sequence[Keys], oracle: Oracle) -> tuple[State, dict[Keys, Outcome]]:
    """One midpoint at a time, to the end."""
    outcomes: dict[Keys, Outcome] = {}
    while (state := advance(made, outcomes)).wanted:
        assert state.wanted[0] not in outcomes
        outcomes[state.wanted[0]] = oracle(state.wanted[0])
    return state, outcomes


def test_differing_keys_and_grafts() -> None:
    a = {"lr": 0.1, "depth": 2, "warmup": 10, "same": (1, 2)}
    b = {"same": (1, 2), "depth": 3, "lr": 0.1, "decay": None}
    assert differing(a, b) == differing(b, a) == ("decay", "depth", "warmup")
    assert differing(a, a) == differing({}, {}) == ()
    assert grafted(a, b, keys([])) == a
    assert grafted(a, b, keys(differing(a, b))) == b
    assert grafted(a, b, keys(["warmup"])) == {"lr": 0.1, "depth": 2, "same": (1, 2)}
    assert grafted(a, b, keys(["decay", "depth"])) == {**a, "depth": 3, "decay": None}
    assert list(grafted(a, b, keys(["decay", "depth"]))) == ["lr", "depth", "warmup", "same", "decay"]
    with pytest.raises(ValueError, match=r"\['betas'\] are in neither config"):
        grafted(a, b, keys(["betas", "lr"]))


@given(
    st.dictionaries(st.sampled_from(SIX), st.integers(0, 2)),
    st.dictionaries(st.sampled_from(SIX), st.integers(0, 2)),
    st.sets(st.sampled_from(SIX)),
)
def test_a_graft_differs_from_each_by_what_it_took_and_what_it_left(
    a: dict[str, int], b: dict[str, int], some: set[str]
) -> None:
    whole = set(differing(a, b))
    made = grafted(a, b, keys(some & whole))
    assert set(differing(a, made)) == some & whole
    assert set(differing(made, b)) == whole - some


@pytest.mark.parametrize(
    ("is_valid", "expected"),
    [
        (lambda s: True, ["a", "b", "c", "d", "e", "f"]),
        (lambda s: ("b" in s) == ("e" in s), ["a", "be", "c", "d", "f"]),
        (lambda s: "b" in s or "e" not in s, ["a", "be", "c", "d", "f"]),
        (lambda s: len(s & {"a", "c", "f"}) in (0, 3), ["acf", "b", "d", "e"]),
        (lambda s: len(s & {"a", "c", "f"}) != 2, ["acf", "b", "d", "e"]),
        (lambda s: ("a" in s) == ("f" in s) and ("b" in s) == ("c" in s), ["af", "bc", "d", "e"]),
        (lambda s: len(s & {"a", "b", "c", "d"}) in (0, 4), ["a", "b", "c", "d", "e", "f"]),
        (lambda s: "c" not in s, ["a", "b", "c", "d", "e", "f"]),
    ],
    ids=["free", "pair", "one way", "triple", "not without one", "two pairs", "four are too many", "nothing helps"],
)
def test_keys_that_need_each_other_are_joined(is_valid: Callable[[Keys], bool], expected: list[str]) -> None:
    asked: list[Keys] = []

    def ask(some: Keys) -> bool:
        asked.append(some)
        return is_valid(some)

    made = groups(SIX, ask)
    assert made == tuple(keys(group) for group in expected)
    assert made == groups(SIX[::-1], is_valid)
    assert not {keys(""), keys(SIX)} & set(asked)


def test_two_keys_that_need_each_other_are_all_there_is() -> None:
    assert groups(["x", "y"], lambda s: False) == (keys("xy"),)
    assert groups(["x"], lambda s: False) == (keys("x"),)
    assert groups([], lambda s: False) == ()


@given(st.integers(1, 7), st.integers(0, 2**32))
def test_groups_are_a_partition_whatever_is_valid(num: int, seed: int) -> None:
    names = "abcdefg"[:num]
    valid = any_oracle(seed, keys(names))
    made = groups(names, lambda some: valid(some) != "invalid")
    assert sorted(chain.from_iterable(made)) == list(names)
    assert list(made) == sorted(made, key=min)
    assert made == groups(names[::-1], lambda some: valid(some) != "invalid")


@pytest.mark.parametrize("num", range(1, 8))
def test_keys_that_act_only_together_are_found_exactly(num: int) -> None:
    names = "abcdefg"[:num]
    for guilty in all_sets(names):
        state, _ = search(alone(names), carried_by(guilty))
        assert state.causes == (guilty,)
        assert state.rest_carries is False
        assert (state.remaining, state.at_most) == (guilty, 0)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (2, 2), (3, 2), (1, 1, 1), (2, 1, 2)])
def test_independent_causes_are_all_found(sizes: tuple[int, ...]) -> None:
    names = SIX
    for causes in combinations(all_sets(names), len(sizes)):
        if sorted(map(len, causes)) == sorted(sizes) and sum(sizes) == len(frozenset().union(*causes)):
            state, _ = search(alone(names), carried_by(*causes))
            assert set(state.causes) == set(causes)
            assert len(state.causes) == len(causes)
            assert state.rest_carries is False


def test_the_rest_is_checked_and_then_searched() -> None:
    made, oracle = alone("abcd"), carried_by("a", "cd")
    seen = []
    outcomes: dict[Keys, Outcome] = {}
    while (state := advance(made, outcomes)).wanted:
        wanted = ["".join(sorted(midpoint)) for midpoint in state.wanted]
        seen.append((["".join(sorted(cause)) for cause in state.causes], state.rest_carries, wanted))
        outcomes[state.wanted[0]] = oracle(state.wanted[0])
    assert seen == [
        ([], None, ["ab", "cd"]),
        ([], None, ["a", "b"]),
        (["a"], None, ["bcd"]),
        (["a"], True, ["bc", "d"]),
        (["a"], True, ["d"]),
        (["a"], True, ["b", "c", "cd", "bd"]),
        (["a"], True, ["c", "cd", "bd"]),
        (["a"], True, ["cd", "bd"]),
    ]
    # That b alone is clean is known by then.
    assert (len(outcomes), state) == (8, State((), keys("cd"), (keys("a"), keys("cd")), False, 0))


@pytest.mark.parametrize("pair", list(combinations(SIX, 2)), ids="".join)
def test_a_dependent_pair_goes_together(pair: tuple[str, str]) -> None:
    def builds(some: Keys) -> bool:
        return len(some & set(pair)) in (0, 2)

    made = groups(SIX, builds)
    for guilty in (some for some in all_sets(SIX) if len(some) <= 3):
        asked: list[Keys] = []

        def oracle(midpoint: Keys, asked: list[Keys] = asked, guilty: Keys = guilty) -> Outcome:
            asked.append(midpoint)
            return carried_by(guilty)(midpoint)

        state, _ = search(made, oracle)
        assert state.causes == (guilty | (keys(pair) if guilty & set(pair) else keys("")),)
        assert all(builds(midpoint) for midpoint in asked)


def test_what_cannot_be_taken_apart_is_the_cause_as_a_whole() -> None:
    state, _ = search(alone(SIX), lambda midpoint: "invalid" if "c" in midpoint else "clean")
    assert state.causes == (keys(SIX),)
    assert state.rest_carries is False


def test_a_rest_that_does_not_build_is_not_known() -> None:
    state, _ = search(alone("ab"), lambda midpoint: "carries" if midpoint == keys("a") else "invalid")
    assert (state.causes, state.rest_carries, state.wanted) == ((keys("a"),), None, ())


def test_a_superset_tells_nothing() -> None:
    """b undoes what a does, and c undoes b: no outcome here follows from another."""
    state, outcomes = search(alone("abcd"), lambda s: "carries" if "a" in s and ("b" not in s or "c" in s) else "clean")
    assert state.causes == (keys("a"),)
    assert outcomes[keys("ab")] == "clean"
    assert outcomes[keys("a")] == "carries"


@pytest.mark.parametrize("made", [[], [keys("a"), keys("")], [keys("ab"), keys("bc")], [keys("a"), keys("a")]])
def test_groups_that_are_no_partition_are_refused(made: list[Keys]) -> None:
    with pytest.raises(ValueError, match="at least one, none empty, no two may overlap"):
        advance(made, {})


def test_one_group_needs_no_midpoint() -> None:
    assert advance([keys("abc")], {}) == State((), keys("abc"), (keys("abc"),), False, 0)


FEW = st.integers(1, 6)
SEED = st.integers(0, 2**32)


@given(FEW, SEED)
def test_every_cause_is_minimal_and_none_is_left(num: int, seed: int) -> None:
    made = alone(SIX[:num])
    oracle = any_oracle(seed, keys(SIX[:num]))
    state, _ = search(made, oracle)
    rest = keys(SIX[:num])
    for cause in state.causes:
        assert oracle(cause) == "carries"
        assert not any(oracle(cause - group) == "carries" for group in made if group < cause)
        assert cause <= rest
        rest -= cause
    assert not rest or oracle(rest) == {False: "clean", None: "invalid"}[state.rest_carries]


@given(FEW, SEED)
def test_outcomes_decide_and_not_their_order(num: int, seed: int) -> None:
    made, whole = alone(SIX[:num]), keys(SIX[:num])
    oracle = any_oracle(seed, whole)
    done, outcomes = search(made, oracle)
    known = list(outcomes.items())
    for count, (needed, _) in enumerate(known):
        prefix = known[:count]
        state = advance(made, dict(prefix))
        assert state == advance(made, dict(reversed(prefix)))
        assert state.wanted[0] == needed
        assert len(set(state.wanted)) == len(state.wanted)
        assert not {*dict(prefix), keys(""), whole} & set(state.wanted)
    everything = {some: oracle(some) for some in all_sets(whole)}
    assert done == advance(made, outcomes) == advance(made, everything)
    assert done == advance(made, {**everything, keys(""): "carries", whole: "invalid"})


@given(FEW, SEED)
def test_wanted_is_what_is_needed_as_long_as_it_comes_out_clean(num: int, seed: int) -> None:
    made = alone(SIX[:num])
    oracle = any_oracle(seed, keys(SIX[:num]))
    outcomes: dict[Keys, Outcome] = {}
    while (state := advance(made, outcomes)).wanted:
        for count in range(1, len(state.wanted)):
            clean: dict[Keys, Outcome] = dict.fromkeys(state.wanted[:count], "clean")
            assert advance(made, outcomes | clean).wanted == state.wanted[count:]
        outcomes[state.wanted[0]] = oracle(state.wanted[0])


@given(FEW, SEED, st.integers(2, 5))
def test_idle_slots_change_no_result(num: int, seed: int, slots: int) -> None:
    made = alone(SIX[:num])
    oracle = any_oracle(seed, keys(SIX[:num]))
    outcomes: dict[Keys, Outcome] = {}
    rounds = 0
    while (state := advance(made, outcomes)).wanted:
        outcomes |= {midpoint: oracle(midpoint) for midpoint in state.wanted[:slots]}
        rounds += 1
    one_by_one, needed = search(made, oracle)
    assert state == one_by_one
    assert rounds <= len(needed)


def most_midpoints(made: Sequence[Keys], outcomes: dict[Keys, Outcome]) -> int:
    """Midpoints up to the first cause and the check of what is left, at worst over all outcomes that they may have."""
    state = advance(made, outcomes)
    if not state.wanted or (state.causes and state.rest_carries):
        return 0
    either: tuple[Outcome, ...] = ("carries", "clean")
    most = 1 + max(most_midpoints(made, {**outcomes, state.wanted[0]: outcome}) for outcome in either)
    assert most <= state.at_most
    return most


@pytest.mark.parametrize(("num", "expected"), [(1, 0), (2, 2), (3, 6), (4, 13), (5, 21)])
def test_at_most_bounds_every_course_and_is_nearly_met(num: int, expected: int) -> None:
    made = alone(SIX[:num])
    assert most_midpoints(made, {}) == expected
    assert advance(made, {}).at_most <= expected + 1


def test_how_many_midpoints_six_keys_take() -> None:
    placed = {
        "one": [(name,) for name in SIX],
        "two together": [("".join(some),) for some in combinations(SIX, 2)],
        "three together": [("".join(some),) for some in combinations(SIX, 3)],
        "either of two": list(combinations(SIX, 2)),
        "either of three": list(combinations(SIX, 3)),
    }
    counts = {
        name: [len(search(alone(SIX), carried_by(*causes))[1]) for causes in cases] for name, cases in placed.items()
    }
    assert {name: (round(fmean(some), 1), max(some)) for name, some in counts.items()} == {
        "one": (4.8, 6),
        "two together": (11.9, 19),
        "three together": (18.4, 25),
        "either of two": (8.6, 10),
        "either of three": (12.2, 14),
    }


def runs(rng: np.random.Generator, num: int = 8) -> np.ndarray:
    """Bimodal values of ``num`` seeds of one config: a third finds the good minimum. Lower is better."""
    return np.where(rng.random(num) < 1 / 3, 0.19, 0.335) + rng.normal(0.0, 0.01, num)


def simulated(seed: int, num_guilty: int, effect: float, bound: float) -> tuple[bool, int]:
    """Search once among six keys with noisy midpoints; whether the guilty set is found exactly, and the seeds spent.

    A midpoint carries the regression if its mean over seeds lies nearer to B than to A. It starts with 4 seeds and gets
    one more at a time, up to 8, while the |t| of its differences to the middle of A and B is below ``bound``.
    """
    rng = np.random.default_rng(seed)
    guilty = keys([str(name) for name in rng.choice(list(SIX), num_guilty, replace=False)])
    middle = (runs(rng) + runs(rng) + effect) / 2
    outcomes: dict[Keys, Outcome] = {}
    spent = 0
    while (state := advance(alone(SIX), outcomes)).wanted:
        midpoint = state.wanted[0]
        differences = runs(rng) + effect * (guilty <= midpoint) - middle
        num = 4
        while num < 8 and abs(differences[:num].mean()) < bound * differences[:num].std(ddof=1) / math.sqrt(num):
            num += 1
        spent += num
        outcomes[midpoint] = "carries" if differences[:num].mean() > 0 else "clean"
    return state.causes == (guilty,), spent


@pytest.mark.parametrize("bound", [math.inf, 2.0], ids=["8 seeds", "4 to 8 seeds"])
@pytest.mark.parametrize("effect", [0.2, 0.25])
@pytest.mark.parametrize("num_guilty", [1, 2])
def test_noisy_seeds_still_find_the_exact_set(num_guilty: int, effect: float, bound: float) -> None:
    found = [simulated(10_000 + i, num_guilty, effect, bound)[0] for i in range(100)]
    assert sum(found) >= 95


def test_stopping_midpoints_early_saves_a_third_of_the_seeds() -> None:
    full, early = ([simulated(20_000 + i, 2, 0.25, bound)[1] for i in range(100)] for bound in (math.inf, 2.0))
    assert sum(early) < 2 / 3 * sum(full)


def test_a_regression_within_the_noise_is_not_found() -> None:
    found = [simulated(30_000 + i, 1, 0.02, math.inf)[0] for i in range(100)]
    assert sum(found) < 50
