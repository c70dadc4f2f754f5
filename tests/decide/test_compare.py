"""A against B by pairs of seeds, through the policy: when it ends, what counts, and the laws."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.stats.claims import judge
from tests.decide.test_policy import everything, shuffled
from tests.worlds.compared import SIX, Compared, Value, by_pair, comparison, noise_free
from tests.worlds.plans import fold
from tests.worlds.scripted import Fate, next_job, verdict
from tune_rh.decide import comparison as compare
from tune_rh.decide.ddmin import Keys
from tune_rh.decide.scheduler import Finish, Wait
from tune_rh.record.events import Evaluated, JobEnded, JobStarted, MemberId
from tune_rh.record.history import History

SLOTS = pytest.mark.parametrize("slots", [1, 4])
UP_AND_DOWN = [0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1]
WORSE = [0.20, 0.21, 0.19, 0.22, 0.20, 0.18, 0.21, 0.19]


def run(
    value: Value, slots: int = 1, order: int = 0, fates: dict[tuple[int, int], Fate] | None = None, **changes: Any
) -> Compared:
    return Compared(comparison(**changes), value, slots=slots, order=order, fates=fates).run()


def names(num: int) -> list[str]:
    """The members of the first pairs, in the order in which they are to start."""
    return [f"c000{side}-s{seed}" for seed in range(num) for side in (0, 1)]


# --- pairs -----------------------------------------------------------------------------------------------------------


@SLOTS
def test_pairs_run_seed_by_seed(slots: int) -> None:
    sim = run(by_pair(WORSE), slots)
    assert sim.trained() == names(8)
    said = compare.claim(sim.history)
    assert (said.verdict, said.num_pairs) == ("worse", 8)
    assert said.difference.value == pytest.approx(0.2)


@SLOTS
def test_the_test_split_is_read_once_for_each_of_a_and_b_and_for_no_midpoint(slots: int) -> None:
    sim = run(noise_free("c"), slots, compare={"bisect": True})
    assert len(sim.midpoints()) >= 3
    read = [str(e.member) for e in sim.events if isinstance(e, JobStarted) and e.purpose == "test"]
    assert sorted(read) == sorted(names(8))
    assert {str(m.id) for m in sim.members() if m.tested} == set(read)


def test_looks_are_at_prefixes_of_the_seeds_whoever_is_first() -> None:
    sim = Compared(comparison(), by_pair(WORSE), slots=4)
    both = None
    seen = []
    for name in ("", "c0001-s1", "c0000-s1", "c0001-s0", "c0000-s0"):
        if name:
            sim.advance(MemberId.parse(name))
        sim.fill()
        both = compare.sides(sim.history)
        seen.append(compare.pairs(sim.history, *both).seeds)
    assert seen == [(), (), (), (), (0, 1)]
    assert compare.pairs(sim.history, *both).differences == pytest.approx(WORSE[:2])


def test_a_maximised_objective_is_turned() -> None:
    sim = run(by_pair(WORSE), family="tests.worlds.compared:MAXIMISED")
    said = compare.claim(sim.history)
    assert (said.verdict, said.difference.value) == ("better", pytest.approx(-0.2))


# --- lost seeds ------------------------------------------------------------------------------------------------------

NEARLY_ALIKE = [0.001, -0.002, 0.002, -0.001, 0.001, -0.001, 0.0, 0.0]


def wobbling(keys: Keys, seed: int, _step: int) -> float:
    return 1.0 + seed / 8 + (NEARLY_ALIKE[seed] if keys else 0.0)


def lost(*who: tuple[int, int]) -> dict[tuple[int, int], Fate]:
    return {key: ("diverge" if key[1] % 2 else "fail", 10) for key in who}


@SLOTS
def test_a_lost_seed_is_beyond_the_worst_by_as_much_as_the_best_is_before_it(slots: int) -> None:
    sim = run(wobbling, slots, fates=lost((1, 0), (1, 5), (0, 5)), compare={"test": "t"})
    both = compare.sides(sim.history)
    pairs = compare.pairs(sim.history, *both)
    assert pairs.lost == (1, 2)
    # The best that came through is A's seed 0, the worst A's and B's seed 7.
    assert pairs.b[0] == pytest.approx(1.875 + 0.875)
    assert pairs.differences[5] == 0.0


@SLOTS
@pytest.mark.parametrize("test", ["sign_flip", "t"])
def test_who_is_lost_throughout_is_worse(slots: int, test: str) -> None:
    for side, expected in ((0, "better"), (1, "worse")):
        fates = lost(*((side, seed) for seed in range(8)))
        sim = run(wobbling, slots, fates=fates, compare={"test": test})
        assert compare.claim(sim.history).verdict == expected


@pytest.mark.parametrize("test", ["sign_flip", "t"])
def test_who_is_lost_throughout_is_worse_however_alike_the_others_are(test: str) -> None:
    for side, expected in ((0, "better"), (1, "worse")):
        fates = lost(*((side, seed) for seed in range(8)))
        sim = run(lambda *_: 1.0, fates=fates, compare={"test": test})
        assert compare.claim(sim.history).verdict == expected


def test_where_all_are_lost_nothing_is_said() -> None:
    fates = lost(*((side, seed) for side in (0, 1) for seed in range(8)))
    assert compare.claim(run(wobbling, 2, fates=fates).history).verdict == "undecided"


def test_what_a_lost_seed_counts_as_does_not_hang_on_who_is_under_way() -> None:
    sim = Compared(comparison(steps=80), lambda _keys, _seed, step: 10.0 / step, fates=lost((1, 0)))
    seen = []
    while len(sim.trained()) < 4:
        sim.fill()
        sim.advance(min(sim.history.running))
        both = compare.sides(sim.history)
        seen += [compare.pairs(sim.history, *both).differences] if both else []
    assert len({differences for differences in seen if len(differences) == 1}) == 1


def test_equal_in_practice_is_not_said_of_seeds_that_were_lost() -> None:
    region = {"compare": {"region": 0.01}}
    assert compare.claim(run(wobbling, **region).history).verdict == "equivalent"
    assert compare.claim(run(wobbling, fates=lost((1, 3)), **region).history).verdict == "undecided"


# --- ends ------------------------------------------------------------------------------------------------------------


@SLOTS
def test_sign_flips_end_early_where_no_claim_can_come_any_more_and_only_there(slots: int) -> None:
    num = next(n for n in range(9) if judge(UP_AND_DOWN[:n], 8).decided)
    assert 2 < num < 8
    sim = run(by_pair(UP_AND_DOWN), slots, compare={"region": 0.0})
    assert sim.trained()[: 2 * num] == names(num)
    assert len(sim.trained()) <= 2 * num + slots - 1
    said = compare.claim(sim.history)
    assert (said.verdict, said.decided) == ("undecided", True)
    # As clear as can be, and still read at the last pair.
    assert len(run(by_pair([9.0] * 8), slots, compare={"region": 0.0}).trained()) == 16


def test_ties_are_undecided_or_with_a_region_equivalent() -> None:
    ties = by_pair([0.0] * 8)
    sim = run(ties, compare={"region": 0.0})
    assert (compare.claim(sim.history).verdict, len(sim.trained())) == ("undecided", 6)
    sim = run(ties, compare={"region": 0.01})
    assert (compare.claim(sim.history).verdict, len(sim.trained())) == ("equivalent", 16)


def test_the_e_process_ends_at_its_first_crossing() -> None:
    num = next(n for n in range(9) if judge(WORSE[:n], 8, test="e_process").decided)
    assert 2 < num < 8
    sim = run(by_pair(WORSE), compare={"test": "e_process"})
    assert sim.trained() == names(num)
    assert compare.claim(sim.history).verdict == "worse"


@pytest.mark.parametrize("order", range(6))
def test_who_still_runs_when_it_is_decided_lets_go_and_counts_for_nothing(order: int) -> None:
    def value(keys: Keys, seed: int, step: int) -> float:
        return 100.0 / step + (WORSE[seed] if keys else 0.0)

    sim = run(value, 6, order, steps=80, compare={"test": "e_process"})
    cut = [e for e in sim.events if isinstance(e, JobEnded) and "decided without it" in e.reason]
    members = [sim.history.member(e.member) for e in cut]
    assert members
    assert all(m.step < 80 and m.tested is None for m in members)
    both = compare.sides(sim.history)
    pairs = compare.pairs(sim.history, *both)
    assert not {m.id.seed for m in members} & set(pairs.seeds)
    assert pairs.differences == pytest.approx(WORSE[: len(pairs.seeds)])


def test_a_patience_of_its_own_stops_only_that_side() -> None:
    configs = {"A": {"preset": "A"}, "B": {"preset": "B", "patience_steps": 20}}
    sim = run(by_pair(WORSE), steps=80, configs=configs)
    assert {(m.id.candidate, m.status, m.step) for m in sim.members()} == {
        ("c0000", "completed", 80),
        ("c0001", "stopped", 30),
    }
    assert compare.claim(sim.history).num_pairs == 8
    assert all(m.tested for m in sim.members())


# --- laws ------------------------------------------------------------------------------------------------------------

PLANS: dict[str, dict[str, Any]] = {
    "sign flips": {"compare": {"region": 0.0}},
    "e-process": {"compare": {"test": "e_process"}},
    "bisect": {"compare": {"bisect": True}},
    "few midpoints": {"compare": {"bisect": True, "max_probes": 2}},
    "e-process, bisect": {"compare": {"test": "e_process", "bisect": True}},
    "patience": {"compare": {"bisect": True}, "configs": {"B": {"preset": "B", "patience_steps": 20}}},
}
ALL_PLANS = pytest.mark.parametrize("changes", PLANS.values(), ids=PLANS.keys())


def falling(keys: Keys, seed: int, step: int) -> float:
    """B is worse by its c and f together; each run has a wobble of its own."""
    wobble = hash((tuple(sorted(map(SIX.index, keys))), seed)) % 7 / 64
    return 20.0 / step + wobble + 0.5 * (frozenset("cf") <= keys)


def some_fates(seed: int) -> dict[tuple[int, int], Fate]:
    """A seed of B and one of a midpoint are lost, with an even ``seed`` one of A as well."""
    fates: dict[tuple[int, int], Fate] = {(1, seed % 8): ("fail", 20), (3, seed % 3): ("diverge", 10)}
    return fates if seed % 2 else {**fates, (0, (seed + 3) % 8): ("diverge", 10)}


def lawful(changes: dict[str, Any], slots: int, seed: int) -> Compared:
    return run(falling, slots, seed, some_fates(seed) if seed else None, steps=30, **changes)


@ALL_PLANS
@pytest.mark.parametrize("seed", [0, 1])
def test_every_prefix_gives_the_recorded_decisions_again(changes: dict[str, Any], seed: int) -> None:
    sim = lawful(changes, 3, seed)
    said = {num_events: (member, answer) for num_events, member, _, answer in sim.verdicts}
    asked: dict[int, list[Any]] = {}
    for decided in sim.decisions:
        asked.setdefault(decided.num_events, []).append(decided)
    history = History(sim.plan)
    for num, event in enumerate(sim.events, start=1):
        history.apply(event)
        for decided in asked.get(num, []):
            assert next_job(sim.plan, history, decided.prefer) == decided.decision
        if num in said:
            member, answer = said[num]
            assert verdict(sim.plan, history, member) == answer


@ALL_PLANS
def test_the_order_of_records_of_different_members_does_not_matter(changes: dict[str, Any]) -> None:
    sim = lawful(changes, 4, 2)
    cuts = range(len(sim.events), 0, -max(1, len(sim.events) // 12))
    moved = 0
    for cut in cuts:
        events = sim.events[:cut]
        other = shuffled(events, cut)
        moved += other != events
        one, two = fold(sim.plan, events), fold(sim.plan, other)
        assert everything(two) == everything(one)
        assert next_job(sim.plan, two) == next_job(sim.plan, one)
    assert moved > len(cuts) / 2


def found(sim: Compared) -> list[Any]:
    said = compare.claim(sim.history)
    state = compare.bisection(sim.history)
    return [said.verdict, said.decided, state and (state.causes, state.remaining, state.wanted)]


@ALL_PLANS
@SLOTS
def test_a_driver_may_die_after_any_event(changes: dict[str, Any], slots: int) -> None:
    sim = lawful(changes, slots, 1)
    num = len(sim.events)
    cuts = range(1, num, num // 80 + 1) if len(sim.midpoints()) < 3 else range(num // 5, num, num // 4 + 3)
    for cut in cuts:
        again = sim.taken_over(cut)
        assert found(again) == found(sim), sim.events[cut - 1]
        reports = [(e.member, e.step) for e in again.events if isinstance(e, Evaluated)]
        assert len(set(reports)) == len(reports), sim.events[cut - 1]
        if slots == 1:
            assert everything(again.history) == everything(sim.history), sim.events[cut - 1]


@ALL_PLANS
@SLOTS
def test_no_slot_waits_while_a_wanted_member_could_start(changes: dict[str, Any], slots: int) -> None:
    sim = lawful(changes, slots, 1)
    assert any(isinstance(d.decision, Wait | Finish) for d in sim.decisions)
    for history in sim.histories_at_rest():
        for candidate in history.candidates.values():
            idle = [m for m in candidate.members.values() if m.status == "idle" and m.step < 30]
            if candidate.index < 2:
                assert not idle or compare.claim(history).decided
            else:
                assert not idle or compare.outcome(history, candidate)
        state = compare.bisection(history)
        if state and state.wanted and len(history.candidates) - 2 < sim.plan.compare.max_probes:  # type: ignore[union-attr]
            assert history.running


@ALL_PLANS
@SLOTS
def test_nobody_is_trained_twice(changes: dict[str, Any], slots: int) -> None:
    sim = lawful(changes, slots, 1)
    assert len(set(sim.trained())) == len(sim.trained())
    assert bool(sim.midpoints()) == changes["compare"].get("bisect", False)
