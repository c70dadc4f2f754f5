"""The report of a race: what it says in words, what its files hold, and that no numbers break it."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from analysis.reports import figures, tables
from analysis.reports.race import best_of_seeds
from analysis.reports.race import report as race
from analysis.reports.race import words as race_sentences
from analysis.reports.race.facts import Race, Racer
from tests.analysis.reports.report_files import drawn, has_colour, strict, tokens

NAN = math.nan
Mode = Literal["min", "max"]


def raced(
    values: Mapping[int, Sequence[float | None]], mode: Mode = "min", success: float | None = None, **given: Any
) -> Race:
    """Two gates, at 100 and 300: one value for a parked seed, two for a finisher, None for a lost one."""
    racers = []
    sign = 1.0 if mode == "min" else -1.0
    for seed, at_gates in values.items():
        lost = at_gates[-1] is None
        known = [v for v in at_gates if v is not None]
        curve = [(50, known[0] + sign) if known else (50, NAN)]
        curve += [(step, NAN if v is None else v) for step, v in zip((100, 300), at_gates, strict=False)]
        status = "diverged" if lost else "completed" if len(at_gates) == 2 else "parked"
        best = None if lost else known[-1]
        test = best if best is not None and len(at_gates) == 2 else None
        steps = (100, 300)[len(at_gates) - 1]
        racers.append(Racer(seed, tuple(at_gates), best, steps, steps, status, len(at_gates) - 1, test, curve))
    made = Race(
        "five", "shared_moe", "e55", "val_nll", "nats", mode, (100, 300), (2,), tuple(racers), success, 90.0, 900
    )
    return replace(made, **given)


TWO_GROUPS = {
    42: (1.20, 1.10), 43: (1.22, 1.05), 44: (1.90,), 45: (1.93,), 46: (1.91,), 47: (None,), 48: (1.21,), 49: (1.94,)
}  # fmt: skip


def test_a_race_says_what_its_seeds_came_to() -> None:
    said = race.lines(raced(TWO_GROUPS, success=1.5))
    assert said == [
        "Best: seed 43 with val_nll 1.050 nats at step 300, on test 1.050 nats, of 8 seeds; lost: 47 (diverged).",
        "Success: 3 of 8 seeds at or below 1.500 nats at step 100, a rate of 0.38 (95% interval 0.14 to 0.69); "
        "the line was given.",
        said[2],
        said[3],
        "Went on from step 100 and improved since: seed 43 by 0.170 and seed 42 by 0.100 nats.",
        "Order of the finishers at the first gate: 42, 43; at the end: 43, 42. "
        "It did not hold: 1 of 1 pair changed places.",
        "Cost: 900 steps, 1.5 min of compute time.",
    ]
    assert said[2].startswith("Expected best at step 100, in nats: 1.656 of 1, ")
    assert said[3].startswith("Going from 7 to 8 seeds improves the expected best by 0.00")


def test_a_line_is_found_only_where_chance_would_hardly_draw_it() -> None:
    said = race.lines(raced(TWO_GROUPS))[1]
    assert said.startswith("Success: 3 of 8 seeds at or below 1.560 nats")
    assert "the line was found between two groups, which hold 100% of the variance" in said
    assert "under 0.1% of sets of 7 normal values" in said
    rng = random.Random(1)
    for num in (4, 8, 16):
        found = sum(best_of_seeds.find_line([rng.gauss(0, 1) for _ in range(num)]) is not None for _ in range(400))
        assert found / 400 <= best_of_seeds.BY_CHANCE + 2 * math.sqrt(0.09 / 400)
    four = raced({42: (1.0,), 43: (1.4,), 44: (1.5,), 45: (1.8,)})
    assert "do not fall into two groups more clearly than chance makes them" in race.lines(four)[1]
    assert "there are too few to tell" in race.lines(raced({42: (1.0,), 43: (2.0,)}))[1]


def test_best_of_k_counts_a_lost_seed_as_the_worst_and_leaves_k_beyond_the_seeds_to_the_model() -> None:
    seeds = best_of_seeds.summarise([1.0, 2.0], lost=1, threshold=1.5)
    assert [row.value.value for row in seeds.best_of[:3]] == pytest.approx([5 / 3, 4 / 3, 1.0])
    assert all(math.isnan(row.value.value) for row in seeds.best_of[3:])
    assert len(seeds.best_of) == best_of_seeds.MAX_K
    # Beta(1/2 + 1, 1/2 + 2): the mean, and one minus the mean of (1 - p)^2.
    assert seeds.best_of[0].success == pytest.approx(1.5 / 4)
    assert seeds.best_of[1].success == pytest.approx(1 - 2.5 * 3.5 / (4 * 5))
    assert seeds.best_of[3].model == pytest.approx(1.0 + 1.0 * (1 - seeds.best_of[3].success))
    plain = best_of_seeds.summarise([1.0, 2.0], lost=1)
    assert all(math.isnan(row.model) for row in plain.best_of)
    assert plain.rate[1:] == (0.0, 1.0)
    with pytest.raises(ValueError, match="finite"):
        best_of_seeds.summarise([1.0, NAN], lost=0)


def test_the_report_of_a_race_marks_what_is_a_model_and_what_needs_more_seeds(tmp_path: Path) -> None:
    with_line = race.write(raced({42: (1.0, 0.9), 43: (2.0,), 44: (None,)}, success=1.5), tmp_path / "a")
    columns, rows = tokens(with_line)
    assert columns == [8, 5]
    assert rows[1] == ["42", "completed", "1.00", "0.90", "0.90", "300", "0.90", "300"]
    assert ["44", "diverged", "lost", tables.NONE, tables.NONE, tables.NONE, tables.NONE, "100"] in rows
    four = next(row for row in rows if row[0] == "4" and len(row) == 5)
    assert four[1:3] == ["needs 4 seeds", tables.NONE]
    assert float(four[3]) > 0.5
    without = race.write(raced({42: (1.0, 0.9), 43: (2.0,), 44: (None,)}), tmp_path / "b")
    assert tokens(without)[0] == [8, 3]
    assert "Model:" in with_line.read_text()
    assert "Model:" not in without.read_text()


def test_a_race_where_more_is_better_is_the_mirror_of_one_where_less_is(tmp_path: Path) -> None:
    negated = {seed: tuple(None if v is None else -v for v in values) for seed, values in TWO_GROUPS.items()}
    race.write(raced(TWO_GROUPS), tmp_path / "min")
    race.write(raced(negated, mode="max"), tmp_path / "max")
    less, more = (strict(tmp_path / mode / "race.json")["first_gate"] for mode in ("min", "max"))
    assert more["line"]["value"] == pytest.approx(-less["line"]["value"])
    assert more["successes"] == less["successes"] == 3
    for one, other in zip(less["best_of"], more["best_of"], strict=True):
        assert [other["value"], other["low"], other["high"]] == [-one["value"], -one["high"], -one["low"]]
        assert other["model"] == -one["model"]
    assert "at or above -1.560" in race.lines(raced(negated, mode="max"))[1]
    assert race.lines(raced(negated, mode="max"))[4:] == race.lines(raced(TWO_GROUPS))[4:]


def test_ties_do_not_change_places() -> None:
    assert race_sentences.swapped_pairs(raced({1: (1.0, 0.5), 2: (1.0, 0.4), 3: (1.1, 0.4)})) == (1, 3)
    assert race_sentences.swapped_pairs(raced({1: (1.0, 0.5), 2: (1.0, 0.5)})) == (0, 1)


def test_files_of_a_race(tmp_path: Path) -> None:
    path = race.write(raced(TWO_GROUPS), tmp_path / "new" / "report")
    assert {p.name for p in path.parent.iterdir()} == {"race.md", "race.png", "race.csv", "race.json"}
    with (path.parent / "race.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["43", "42", "48", "44", "46", "45", "49", "47"]
    assert rows[0]["best_at_100"] == "1.22"
    assert rows[-1] == {**dict.fromkeys(rows[0], ""), "seed": "47", "status": "diverged", "gates_passed": "0",
                        "best_step": "100", "steps": "100"}  # fmt: skip
    assert drawn(path.parent / "race.png") == (9 * figures.DPI, round(4.2 * figures.DPI))
    for colour in (figures.BLUE, figures.RED):
        assert has_colour(path.parent / "race.png", colour)


@pytest.mark.parametrize(
    ("values", "success", "said"),
    [
        ({}, 1.1, "No seed has a value: no seeds in the race; none lost."),
        (
            {1: (None,), 2: (None,)},
            None,
            "No seed has a value: 2 seeds in the race; lost: 1 (diverged) and 2 (diverged).",
        ),
        ({1: (2.0,)}, 1.1, "Best: seed 1 with val_nll 2.000 nats at step 100, of 1 seed; none lost."),
        ({1: (NAN,), 2: (math.inf, NAN)}, NAN, "No seed has a value"),
        ({s: (1.0, 1.0) for s in range(5)}, None, "Best: seed 0 with val_nll 1.000 nats at step 300, on test 1.000"),
        ({1: (1.0, None), 2: (1.5, 1.2)}, 1.1, "Best: seed 2"),
    ],
)
def test_no_numbers_break_a_race(
    tmp_path: Path, values: Mapping[int, Sequence[float | None]], success: float | None, said: str
) -> None:
    made = raced(values, success=success)
    path = race.write(made, tmp_path)
    assert race.lines(made)[0].startswith(said)
    assert race.lines(made)[-1].startswith("Cost: ")
    assert "nan" not in path.read_text().lower()
    strict(tmp_path / "race.json")
    drawn(tmp_path / "race.png")


def test_a_race_without_a_gate_before_the_end(tmp_path: Path) -> None:
    made = raced({1: (1.0,), 2: (1.2,)}, gates=(100,), keep=())
    path = race.write(made, tmp_path)
    assert not any("gate" in line for line in race.lines(made))
    assert "Gates: none before the end; the race ends at step 100." in path.read_text()
