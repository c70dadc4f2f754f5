"""The report of a comparison: what it says in words, what its files hold, and that no numbers break it."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy import stats

from analysis.reports import figures, tables
from analysis.reports.comparison import paired
from analysis.reports.comparison import report as comparison
from analysis.reports.comparison.bisection import Bisection, Midpoint
from analysis.reports.comparison.facts import Comparison, Side
from analysis.stats.claims import judge
from analysis.stats.interval import Interval
from tests.analysis.reports.report_files import drawn, has_colour, strict, tokens

NAN = math.nan
Mode = Literal["min", "max"]


def compared(
    a: Sequence[float | None], b: Sequence[float | None], mode: Mode = "min", num_max: int | None = None, **given: Any
) -> Comparison:
    """A comparison as the caller makes it: the claim of turned values, a lost seed the worst of all."""
    sign = 1.0 if mode == "min" else -1.0
    worst = max((sign * v for v in (*a, *b) if v is not None), default=0.0)
    turned = [[worst if v is None else sign * v for v in side] for side in (a, b)]
    region = given.get("region", 0.0)
    claim = judge([y - x for x, y in zip(*turned, strict=True)], num_max or max(1, len(a)), region=region)

    def side(name: str, values: Sequence[float | None]) -> Side:
        seeds = dict(enumerate(values, 42))
        curves = {s: [(100, v + sign), (200, v)] for s, v in seeds.items() if v is not None}
        return Side(name, "", seeds, curves, 1600, 7200.0)

    made = Comparison(
        run="night", family="spacing_mdn", objective="val_nll", unit="nats", mode=mode, until_step=200,
        a=side("base", a), b=side("wide", b), claim=claim, test="sign_flip", alpha=0.05, region=region, tests={},
        bisection=None, command="tune-rh ab base wide",
    )  # fmt: skip
    return replace(made, **given)


A = [1.30, 1.31, 1.32, 1.29, 1.30, 1.33, 1.28, 1.30]
B = [1.33, 1.33, 1.36, 1.32, 1.34, 1.36, 1.30, 1.34]
KEYS = ("lr", "aux|weight", "layers", "drop_out")
MIDPOINTS = (
    Midpoint(("lr", "aux|weight"), "carries", Interval(0.9, 0.6, 4.0), 4, True, 800),
    Midpoint(("layers", "drop_out"), "clean", Interval(0.4, -0.2, 0.9), 8, False, 1600),
    Midpoint(("aux|weight",), "invalid", Interval(NAN, NAN, NAN), 0, False, 0),
    Midpoint(("lr",), "carries", Interval(1.1, 0.7, 1.5), 5, True, 1000),
)
FOUND = Bisection(KEYS, (("lr",),), ("lr",), True, MIDPOINTS, 12, {"lr": 0.001, "layers": 2}, {"lr": 0.1}, False, "")


def test_the_verdict_comes_first_and_says_what_it_rests_on() -> None:
    said = comparison.lines(compared(A, B))
    assert said[0] == (
        "B (wide) is worse than A (base): +0.0313 nats "
        "(95% interval 0.0243 to 0.0382, 8 pairs, exact sign-flip p = 0.0078)."
    )
    assert said[1].startswith("P(A > B) = 1.00 (95% interval 0.68 to 1.00), the chance that a run of A beats one of B")
    assert said[1].endswith("A reaches the 0.75 from which on a lead is worth having.")
    assert said[2].startswith("Pairs: 8 of at most 8, ended because sign-flip p = 0.00781 <= 0.05 at 8 pairs.")
    assert said[2].endswith("Lost: none. Region of practical equivalence: none given.")
    assert said[3] == "Cost in steps and compute time: A 1,600 steps in 2.0 h, B 1,600 steps in 2.0 h."
    assert len(said) == 4


def test_more_can_be_better_and_the_signs_are_those_of_the_objective(tmp_path: Path) -> None:
    turned = compared([-v for v in A], [-v for v in B], mode="max", unit="percent")
    said = comparison.lines(turned)
    assert said[0].startswith(
        "B (wide) is worse than A (base): -0.0313 percent (95% interval -0.0382 to -0.0243, 8 pairs"
    )
    assert said[1] == comparison.lines(compared(A, B))[1]
    comparison.write(turned, tmp_path)
    numbers = json.loads((tmp_path / "comparison.json").read_text())
    assert numbers["b_minus_a"]["mean"] == pytest.approx(np.mean(A) - np.mean(B))
    assert numbers["b_minus_a"]["low"] < numbers["b_minus_a"]["high"] < 0.0
    assert numbers["by_step"][-1]["mean"] == pytest.approx(numbers["b_minus_a"]["mean"])
    assert (tmp_path / "comparison.md").read_text().count("higher is better") == 1


def test_better_and_equivalent() -> None:
    assert comparison.lines(compared(B, A))[0].startswith("B (wide) is better than A (base): -0.0313 nats")
    alike = compared(A, [v + 0.001 * (-1) ** i for i, v in enumerate(A)], region=0.02)
    assert comparison.lines(alike)[0].startswith("B (wide) is equivalent to A (base) within ±0.02 nats: ")


def test_undecided_says_how_many_pairs_would_be_enough() -> None:
    noisy = compared(A, [v + d for v, d in zip(A, [0.03, -0.02, 0.05, -0.01, 0.04, -0.03, 0.02, 0.03], strict=True)])
    said = comparison.lines(noisy)
    assert said[0].startswith(
        "Undecided whether B (wide) is better or worse than A (base): +0.014 nats (95% interval -0.0"
    )
    needed = paired.pairs_needed(noisy.claim.difference, 8, 0.05)
    assert needed is not None
    assert f"from about {needed} pairs on" in said[-1]
    assert "an estimate" in said[-1]


def test_undecided_is_never_promised_fewer_pairs_than_its_test_needs() -> None:
    four = compared(A[:4], B[:4])
    assert paired.pairs_needed(four.claim.difference, 4, 0.05) < 6  # type: ignore[operator]
    assert "from about 6 pairs on" in comparison.lines(four)[-1]
    assert "ended because a sign-flip test of 4 pairs cannot reach alpha = 0.05" in comparison.lines(four)[2]


def test_a_lead_that_chance_can_give_is_said_to_be_one() -> None:
    line = comparison.lines(compared(A[:4], [v + d for v, d in zip(A, (0.1, 0.1, 0.1, -0.01), strict=False)]))[1]
    assert line.startswith("P(A > B) = 0.75 ")
    assert line.endswith("worth having, but the interval has even chances in it.")


def test_lost_seeds_are_named_and_their_part_in_the_test_is_said() -> None:
    said = comparison.lines(compared(A, [*B[:6], None, None]))
    assert "Lost: B 2 seeds (48 and 49)." in said[2]
    assert said[-1] == (
        "In doubt: A lost seed counts, in the test and in the mean difference, as worse than every run that came "
        "through, by as much as the best and the worst of those are apart."
    )


def test_doubts_repeat_what_the_numbers_show() -> None:
    inside = comparison.lines(compared(A, B, region=0.03))
    assert "reaches into the region of practical equivalence" in inside[-1]
    assert "In doubt" not in "".join(comparison.lines(compared(A, B, region=0.02)))
    on_test = compared(A, B, tests={"a": (1.40, 0.02), "b": (1.38, NAN)})
    assert comparison.lines(on_test)[4:] == [
        "On the test split: A 1.4000 ± 0.0200, B 1.3800 nats (mean ± standard deviation over seeds).",
        "In doubt: On the test split the difference is the other way round.",
    ]


def test_a_bisection_names_the_guilty_and_what_is_not_known() -> None:
    said = comparison.lines(compared(A, B, bisection=FOUND))
    assert said[3].endswith("midpoints 3,400 steps.")
    assert said[4] == "Guilty: lr (3 midpoints of at most 12)."
    assert said[5] == "In doubt: 1 midpoint went by the mean alone: no test decided which end it is nearer to."
    cut = replace(FOUND, done=False, remaining=("layers", "drop_out"), max_probes=3, rest_carries=True)
    said = comparison.lines(compared(A, B, bisection=cut))
    assert said[4] == "Guilty so far: lr; not finished (3 midpoints of at most 3), still suspect: layers, drop_out."
    assert "the budget of midpoints ended it with layers and drop_out still suspect" in said[5]
    assert "there is another cause in it" in said[5]
    before = replace(FOUND, causes=(), remaining=KEYS, done=False, midpoints=(), rest_carries=None)
    said = comparison.lines(compared(A, B, bisection=before))
    assert "still suspect: lr, aux|weight, layers, drop_out" in said[4]
    assert "it was interrupted" in said[5]


def test_a_comparison_leaves_a_report(tmp_path: Path) -> None:
    made = compared(A, [*B[:7], None], bisection=replace(FOUND, note="One | bar and a <tag>."))
    made = replace(made, b=replace(made.b, name="a|b *wide*", config_summary="lr 0.001 -> 0.1"))
    path = comparison.write(made, tmp_path / "report")
    names = {p.name for p in path.parent.iterdir()}
    assert names == {"comparison.md", "comparison.json", "difference.csv", "difference.png", "bisection.png"}
    columns, rows = tokens(path)
    assert columns == [9, 5, 4, 8]
    assert next(row for row in rows if row[0] == "B")[:5] == ["B", "a|b *wide*", "lr 0.001 -> 0.1", "8", "1"]
    assert ["49", "1.300", "lost", tables.NONE, tables.NONE] in rows
    assert ["1", "lr", "0.001", "0.1"] in rows
    assert ["3", "aux|weight", "no valid config", tables.NONE, tables.NONE, "none", "0", "0"] in rows
    text = path.read_text()
    assert "pointwise" in text
    assert "1-minimal" in text
    assert "tune-rh ab base wide" in text
    with (tmp_path / "report" / "difference.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["b_minus_a"]) for row in table[:7]] == pytest.approx(
        [y - x for x, y in zip(A, B[:7], strict=False)]
    )
    assert table[7] == {"seed": "49", "a": "1.3", "b": "", "b_minus_a": ""}
    numbers = strict(tmp_path / "report" / "comparison.json")
    assert numbers["verdict"] == made.claim.verdict
    assert numbers["bisection"]["midpoints"][2]["position"] is None
    assert numbers["p_a_beats_b"]["value"] == pytest.approx(1 - made.claim.probability_better.value)


def test_figures_are_of_a_size_to_print_and_show_both_sides(tmp_path: Path) -> None:
    comparison.write(compared(A, [*B[:7], None], region=0.01, bisection=FOUND), tmp_path)
    width, height = drawn(tmp_path / "difference.png")
    assert (width, height) == (9 * figures.DPI, round(4.2 * figures.DPI))
    for colour in (figures.BLUE, figures.RED, figures.ORANGE):
        assert has_colour(tmp_path / "difference.png", colour)
    short = drawn(tmp_path / "bisection.png")
    figures.draw_midpoints(MIDPOINTS * 5, tmp_path / "long.png")
    assert drawn(tmp_path / "long.png")[1] > short[1] + 16 * 0.3 * figures.DPI


def test_long_names_are_cut_and_dollars_are_not_mathematics(tmp_path: Path) -> None:
    keys = tuple(f"optimizer.schedule.part_{i}.$rate$_{{" for i in range(9))
    figures.draw_midpoints(
        [replace(MIDPOINTS[0], keys=keys), replace(MIDPOINTS[1], keys=("k" * 300,))], tmp_path / "a.png"
    )
    drawn(tmp_path / "a.png")
    made = compared(A, B, objective="cost_$_{", unit="$")
    made = replace(made, a=replace(made.a, name="a" * 200), b=replace(made.b, name="$b_{" * 40))
    comparison.write(made, tmp_path)
    drawn(tmp_path / "difference.png")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([None, None], [None, None]),
        ([1.0], [1.0]),
        ([1.0], [None]),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        ([1e12, -1e-12], [1e12, 3.0]),
    ],
)
def test_no_numbers_break_a_comparison(tmp_path: Path, a: Sequence[float | None], b: Sequence[float | None]) -> None:
    made = compared(a, b, num_max=8)
    path = comparison.write(made, tmp_path)
    assert comparison.lines(made)[0].startswith("Undecided whether B (wide) is better or worse than A (base): ")
    assert "What would be needed" in comparison.lines(made)[-1 - bool(None in [*a, *b])] or len(a) == 2
    assert "nan" not in path.read_text().lower()
    strict(tmp_path / "comparison.json")
    drawn(tmp_path / "difference.png")


def test_nan_in_curves_and_values_is_a_loss(tmp_path: Path) -> None:
    made = compared(A, B)
    curves = {**made.b.curves, 42: [(100, NAN), (200, math.inf)]}
    made = replace(made, b=replace(made.b, values={**made.b.values, 42: NAN}, curves=curves))
    comparison.write(made, tmp_path)
    assert "Lost: B 1 seed (42)" in comparison.lines(made)[2]
    assert len(strict(tmp_path / "comparison.json")["by_step"][0]["differences"]) == 7


def test_differences_by_step_are_of_the_best_so_far_and_a_curve_that_ended_keeps_its_best() -> None:
    a = {1: [(10, 3.0), (20, 4.0), (30, 1.0)], 2: [(10, 2.0), (20, 2.0)]}
    b = {1: [(20, 2.0), (30, NAN), (40, 2.5)], 2: [(10, 1.0), (30, 0.0)]}
    points = paired.by_step(a, b, [1, 2], "min", 0.05)
    assert [p.step for p in points] == [20, 30, 40]
    assert [p.differences for p in points] == [(-1.0, -1.0), (1.0, -2.0), (1.0, -2.0)]
    low, high = stats.t.interval(0.95, 1, loc=-0.5, scale=stats.sem([1.0, -2.0]))
    assert points[1].mean == pytest.approx((-0.5, low, high))
    more = paired.by_step(a, b, [1], "max", 0.05)
    assert [p.differences for p in more] == [(-2.0,), (-2.0,), (-1.5,)]
    assert math.isnan(more[0].mean.low)
    assert paired.by_step(a, {}, [1, 2], "min", 0.05) == []


@pytest.mark.parametrize("effect", [0.15, 0.3, 0.6, 1.0, 2.0])
def test_the_pairs_needed_have_the_power_they_promise(effect: float) -> None:
    half = stats.t.ppf(0.975, 7) / math.sqrt(8)
    needed = paired.pairs_needed(Interval(effect, effect - half, effect + half), 8, 0.05)
    assert needed is not None

    def power(n: int) -> float:
        return float(stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, effect * math.sqrt(n)))

    assert power(needed) >= 0.8
    assert needed <= 3 or power(needed - 2) < 0.8


def test_no_sample_size_without_an_effect_or_an_interval() -> None:
    assert paired.pairs_needed(Interval(0.0, -1.0, 1.0), 8, 0.05) is None
    assert paired.pairs_needed(Interval(1.0, NAN, NAN), 1, 0.05) is None
    assert paired.pairs_needed(Interval(0.001, -1.0, 1.002), 8, 0.05) is None


def test_numbers_have_the_digits_that_their_scale_has() -> None:
    assert [tables.decimals(s) for s in (0.019, 0.0098, 1.5, 15.0, 400.0, 0.0, NAN)] == [3, 4, 1, 0, 0, 3, 3]
    assert [tables.number(v, 2) for v in (1.005, -0.001, None, NAN)] == ["1.00", "0.00", tables.NONE, tables.NONE]
    assert [tables.number(v, 1, signed=True) for v in (0.04, -0.04, 2.0)] == ["+0.0", "+0.0", "+2.0"]
    assert [tables.duration(s) for s in (5.0, 200.0, 7560.0, NAN)] == ["5 s", "3.3 min", "2.1 h", "an unknown time"]
    assert tables.listed([]) == "none"
    assert tables.listed([1, 2, 3]) == "1, 2 and 3"


@pytest.mark.parametrize("text", ["a_b", "_x_ *y*", "`c`", "<b> 1 < 2", "[l](u)", "~~s~~", "\\*", "a|b"])
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    inline = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(tables.escaped(text))[1]
    assert [child.type for child in inline.children or ()] in (["text"], ["text"] * len(inline.children or ()))
    assert "".join(child.content for child in inline.children or ()) == text


def test_writing_reports_loads_matplotlib_only_when_a_figure_is_drawn() -> None:
    code = (
        "import sys, analysis.reports.comparison.report, analysis.reports.race.report\n"
        "print(sorted({'matplotlib', 'numpy', 'torch', 'ray'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
