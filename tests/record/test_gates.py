"""One gate: the order of arrival does not matter, and the sorted lists are those of a naive computation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worlds.plans import plan
from tune_rh.record.gate import Gate, Rank

PLAN = plan(seeds=[0, 1, 2])


def by_seed(values: Sequence[float | None]) -> dict[int, float | None]:
    return dict(enumerate(values))


# Few distinct values, so that ties are common.
VALUE = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(-5, 5))


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, tuple[float | None, ...], bool]]:
    """What arrives, in order: (index, one value a seed, eligible); index 0 is the control."""
    seeds = draw(st.integers(1, 3))
    values = draw(st.lists(st.tuples(*[VALUE] * seeds), min_size=1, max_size=9))
    eligible = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    rows = [
        (i, row, ok and any(v is not None for v in row))
        for i, (row, ok) in enumerate(zip(values, eligible, strict=True), start=draw(st.integers(0, 1)))
    ]
    return draw(st.permutations(rows))


def filled(rows: list[tuple[int, tuple[float | None, ...], bool]]) -> Gate:
    gate = Gate(PLAN, 0)
    for index, values, eligible in rows:
        if index:
            gate.arrive(index, by_seed(values), eligible=eligible)
        else:
            gate.arrive_control(by_seed(values))
    return gate


def naive(rows: list[tuple[int, tuple[float | None, ...], bool]]) -> dict[int, float]:
    seen = [v for _, values, _ in rows for v in values if v is not None]
    worst = max(seen, default=math.inf)
    return {index: fmean(worst if v is None else v for v in values) for index, values, _ in rows}


@given(arrivals())
def test_sorted_lists_are_those_of_a_naive_computation(rows: list[tuple[int, tuple[float | None, ...], bool]]) -> None:
    gate, scores = filled(rows), naive(rows)
    expected = sorted((score, index) for index, score in scores.items() if index)
    eligible = {index for index, _, ok in rows if ok and index}
    assert gate.order == expected
    assert gate.waiting == [row for row in expected if row[1] in eligible]
    assert [gate.rank(index) for _, index in expected] == list(range(len(expected)))
    assert {index: gate.score(index) for _, index in expected} == {i: s for i, s in scores.items() if i}
    assert gate.control_score() == scores.get(0)
    assert all(gate.has(index) for _, index in expected)
    assert not gate.has(99)
    assert all(gate.values(index) == by_seed(values) for index, values, _ in rows if index)


@given(arrivals(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(
    rows: list[tuple[int, tuple[float | None, ...], bool]], random: object
) -> None:
    other = list(rows)
    random.shuffle(other)  # type: ignore[attr-defined]
    one, two = filled(rows), filled(other)
    assert (one.order, one.waiting, one.control_score()) == (two.order, two.waiting, two.control_score())


@given(arrivals(), st.data())
def test_promotions_in_between_take_from_the_waiting_only(
    rows: list[tuple[int, tuple[float | None, ...], bool]], data: st.DataObject
) -> None:
    gate = Gate(PLAN, 0)
    gone: list[int] = []
    for position, (index, values, eligible) in enumerate(rows):
        if index:
            gate.arrive(index, by_seed(values), eligible=eligible)
        else:
            gate.arrive_control(by_seed(values))
        if gate.waiting and data.draw(st.booleans()):
            chosen = data.draw(st.sampled_from(gate.waiting)).entry
            gate.promote(chosen)
            gone.append(chosen)
        arrived = filled(rows[: position + 1])
        assert gate.order == arrived.order
        assert gate.waiting == [rank for rank in arrived.waiting if rank.entry not in gone]
        assert gate.num_promoted == len(gone)


def test_a_failed_seed_counts_as_the_worst_seen_then_and_later() -> None:
    gate = Gate(PLAN, 0)
    gate.arrive(1, by_seed((1.0, None)), eligible=True)
    assert gate.score(1) == 1.0
    gate.arrive(2, by_seed((2.0, 3.0)), eligible=True)
    assert gate.score(1) == 2.0
    gate.arrive_control(by_seed((9.0, 5.0)))
    assert gate.score(1) == 5.0
    assert gate.order == [Rank(2.5, 2), Rank(5.0, 1)]
    gate.arrive(3, by_seed((4.0, 4.0)), eligible=True)
    assert [rank.entry for rank in gate.waiting] == [2, 3, 1]


def test_where_all_fail_everybody_is_last_and_nobody_waits() -> None:
    gate = Gate(PLAN, 0)
    for index in (2, 1):
        gate.arrive(index, by_seed((None, None)), eligible=False)
    assert gate.order == [Rank(math.inf, 1), Rank(math.inf, 2)]
    assert gate.waiting == []
    gate.arrive_control(by_seed((None,)))
    assert gate.control_score() == math.inf


def test_ties_go_to_the_earlier_entry() -> None:
    gate = Gate(PLAN, 0)
    for index in (3, 1, 2):
        gate.arrive(index, by_seed((1.0,)), eligible=True)
    assert [rank.entry for rank in gate.waiting] == [1, 2, 3]
    assert gate.rank(2) == 1


@pytest.mark.parametrize("value", [0.1, 1e300, 5e-324])
def test_the_score_of_equal_seeds_is_their_value(value: float) -> None:
    gate = Gate(PLAN, 0)
    gate.arrive(1, by_seed((value,) * 3), eligible=True)
    assert gate.score(1) == pytest.approx(value)


def test_where_gates_cut_on_arrival_a_lost_seed_counts_as_the_worst_seen_with_those_that_arrive() -> None:
    gate = Gate(plan(seeds=[0, 1, 2], gates="stop", eta=1.5), 0)
    gate.arrive(1, by_seed((5.0, 5.0, 5.0)), eligible=True)
    # With the worst before it, 5, its score were 4.67 and it would lead; with its own, 9, it is 6.
    gate.arrive(2, by_seed((0.0, 9.0, None)), eligible=True)
    gate.arrive(3, by_seed((7.0, 7.0, 7.0)), eligible=True)
    assert gate.order == [Rank(5.0, 1), Rank(6.0, 2), Rank(7.0, 3)]
    gate = Gate(plan(seeds=[0, 1, 2], gates="stop", eta=3.0), 0)
    gate.arrive(1, by_seed((5.0, 5.0, 5.0)), eligible=True)
    gate.arrive(2, by_seed((0.0, 9.0, None)), eligible=True)
    assert [rank.entry for rank in gate.waiting] == [1]
    assert gate.cut == [Rank(6.0, 2)]


BEST_OF_K = plan(seeds=[0, 1, 2], scoring={"objective": "best_of_k", "k": 2, "success": 1.0})


def test_with_a_line_given_the_first_at_a_gate_has_a_score_whoever_it_is() -> None:
    """Also the control, a reference or a guest where nobody competes: a score goes into the journal as a number."""
    gate = Gate(BEST_OF_K, 0)
    gate.arrive_control(by_seed((0.5, 2.0)))
    gate.arrive_reference(1, by_seed((0.5, 2.0)))
    gate.arrive_unranked(2, by_seed((0.5, None)), eligible=True)
    scores = [gate.control_score(), gate.score(1), gate.score(2)]
    assert all(score is not None and math.isfinite(score) for score in scores), scores


def test_with_a_line_given_it_does_not_matter_when_the_control_shows_the_worst() -> None:
    first, last = Gate(BEST_OF_K, 0), Gate(BEST_OF_K, 0)
    first.arrive_control(by_seed((0.5, 9.0)))
    for gate in (first, last):
        gate.arrive(1, by_seed((0.25, None)), eligible=True)
        gate.arrive(2, by_seed((0.5, 0.5)), eligible=True)
    last.arrive_control(by_seed((0.5, 9.0)))
    assert first.order == last.order
    assert first.control_score() == last.control_score()
