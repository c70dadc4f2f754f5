"""The report of a run as one page: the answer first, and whole whatever state the run is in."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from analysis import baselines
from analysis.diagnose import registry
from analysis.diagnose.api import Baseline, Finding, Plot, Series
from analysis.diagnose.findings import to_json
from analysis.stats.interval import Interval
from tests.analysis.reports.report_files import Page, candidates_of, tokens
from tests.analysis.run_folders import simulate, write_page, write_run
from tests.decide.test_policy_required import search as required
from tests.worlds import journals
from tests.worlds import records as on_disk
from tests.worlds.plans import plan
from tune_rh.errors import JournalCorrupt
from tune_rh.record.events import SessionEnded, SessionStarted
from tune_rh.record.journal import RunPaths, locked
from tune_rh.results import reporting
from tune_rh.results.reading import read

pytestmark = pytest.mark.usefixtures("no_drawing")

BASELINES = (Baseline("guess", 2.0, "nothing fitted"), Baseline("clever", -9.0, "far ahead"))
STAGES = [{"until_step": 20, "num_seeds": 2}, {"until_step": 60, "num_seeds": 3}]


def losses(index: int, seed: int, step: int) -> dict[str, float]:
    """The control is candidate 0; c0002 is the best by 0.1, and seeds shift everybody alike."""
    floor = {0: 1.0, 1: 0.7, 2: 0.5, 3: 0.6}.get(index, 0.8 + 0.01 * index)
    return {"val_loss": floor + 2.0 / step + 0.001 * (seed % 7), "health": 1.0}


def made(folder: Path, **changes: Any) -> Page:
    simulate(folder, losses, **{"num_candidates": 5, "stages": STAGES, **changes})
    return Page(write_page(folder))


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with findings of the best one, the control and the run."""
    root = tmp_path_factory.mktemp("runs") / "run"
    simulate(root, losses, family="tests.worlds.family:JUDGED", num_candidates=5, stages=STAGES)
    plots = (
        Plot("Over <lags> & $co$st", "lag", "value", series=(Series("a", (0, 1), (1.0, 2.0), (0.5, 1.5), (1.5, 2.5)),)),
        Plot("Map", "slot", "slot", "heat", grid=((0.0, 1.0), (1.0, 0.0)), x_ticks=("s0", "s1")),
    )
    for name, verdict in (("c0002-s7", "pass"), ("c0002-s42", "fail"), ("c0000-s7", "pass")):
        values = {"increase_nats": Interval(0.1 if verdict == "pass" else 0.3, 0.0, 0.4)}
        some = [
            Finding("permutation", verdict, f"<b>It</b> is {verdict}.", values, {"increase_nats": 0.2}, plots),  # type: ignore[arg-type]
            Finding("not_of_this_version", "warn", "Nobody knows it."),
        ]
        folder = root / "members" / name
        folder.mkdir(parents=True)
        (folder / "findings.json").write_text(to_json(some))
    (root / "report").mkdir()
    (root / "report" / "findings.json").write_text(to_json([Finding("baselines", "no_evidence", "Not enough.")]))
    return root


def test_the_first_lines_say_who_is_best_how_sure_against_what_at_what_cost_and_what_to_doubt(tmp_path: Path) -> None:
    simulate(tmp_path / "run", losses, num_candidates=5, stages=STAGES)
    page = Page(write_page(tmp_path / "run", baselines=BASELINES))
    first = (tmp_path / "run" / "report" / "report.md").read_text().partition("## ")[0]
    assert "**The run is finished.**" in first
    assert re.search(r"\*\*Best\*\*: c0002.*of 6 candidates", first)
    # Seeds shift all alike: paired leads are exact, and their intervals have no width.
    assert re.search(
        r"Ahead of the next, c0003, by 0\.1\d* \(95% interval 0\.1\d* to 0\.1\d*, 3 seeds in pairs\)", first
    )
    assert re.search(r"the control by 0\.5\d* \(95% interval", first)
    assert re.search(r"\*\*Cost\*\*: [\d,]+ steps, .*% of the 1,080 steps that it takes", first)
    assert "No diagnostic" not in first  # the family has none
    assert "a claim takes 5 in pairs" in first
    assert all(words in page.words for words in ("c0002", "Ahead of the next", "of the 1,080 steps"))


def test_that_no_diagnostic_has_looked_is_a_doubt_where_the_family_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "run", losses, num_candidates=5, stages=STAGES)
    known = registry.diagnostics_of("spacing_mdn")
    monkeypatch.setattr(registry, "diagnostics_of", lambda _family: known)
    write_page(tmp_path / "run", baselines=BASELINES)
    first = (tmp_path / "run" / "report" / "report.md").read_text().partition("## ")[0]
    assert "No diagnostic has looked at it." in first


def test_a_baseline_that_is_better_is_said_before_anything_else(tmp_path: Path) -> None:
    paths = on_disk.make(tmp_path / "run", **on_disk.SMALL)
    on_disk.finish(paths)
    page = Page(write_page(paths.root, baselines=BASELINES))
    answer = page.words.partition("Baselines")[0]
    assert "better than 1 of 2 baselines" in answer
    assert "worse than clever" in answer
    assert "1 baseline without a network is better." in answer
    baselines = next(table for table in page.tables if table[0][0] == "predictor")
    values = [float(row[2]) for row in baselines[1:]]
    assert values == sorted(values, reverse=True)
    assert {row[0] for row in baselines[1:]} >= {"guess", "clever", "c0000 control"}
    assert baselines[-1][0] == "clever"


@pytest.mark.drawn
def test_the_page_needs_nothing_from_outside_and_its_names_are_its_own(diagnosed: Path) -> None:
    page = Page(write_page(diagnosed, baselines=BASELINES))
    local = ("#", "data:")
    outside = [link for link in page.links if not link.startswith(local)]
    assert set(outside) == {p.name for p in (diagnosed / "report").iterdir()} - {"index.html", "findings.json"}
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    svgs = re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)
    assert len(svgs) >= 6
    for svg in svgs:
        drawn = ElementTree.fromstring(svg)
        assert drawn.get("aria-label")
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used <= {element.get("id") for element in drawn.iter()}
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)


def test_findings_stand_side_by_side_with_counts_over_seeds_and_pictures(diagnosed: Path) -> None:
    page = Page(write_page(diagnosed))
    text = (diagnosed / "report" / "report.md").read_text()
    rows = tokens(diagnosed / "report" / "report.md")[1]
    assert ["J: permutation sanity", "✗ 1 pass, 1 fail", "✓ pass"] in rows
    assert ["increase nats", "0.20 ± 0.14", "0.100", "0.2"] in rows
    assert "### O: baselines: – no evidence\n\nNot enough." in text
    assert "on some seed it fails permutation, and is warned by not_of_this_version" in text
    assert page.words.count("not_of_this_version") >= 2
    # Of the best one the seed with the worst verdict is shown.
    assert "seed 42: Over <lags> & $co$st" in page.words
    assert "<b>It</b> is fail." in page.words
    assert "<b>" not in page.source


def test_what_the_plan_requires_decides_who_is_best(tmp_path: Path) -> None:
    sim = required(hollow=(2,), metrics=losses, num_candidates=5, stages=STAGES[:1])
    page = Page(write_page(write_run(tmp_path / "run", sim.plan, sim.events)))
    assert "c0003, of 6 candidates" in page.words.replace("c0003: c0003", "c0003")
    assert "Passed over because they fail what the plan requires: c0002." in page.words


def test_candidates_can_be_sorted_by_numbers(tmp_path: Path) -> None:
    page = made(tmp_path / "run", fates={(4, 7): ("diverge", 10), (4, 42): ("fail", 10)})
    table = candidates_of(page)
    assert len(table) == 7
    assert table[1][0] == "c0002"
    fates = {row[0]: row[2] for row in table[1:]}
    assert fates["c0002"] == "finished"
    assert fates["c0004"] == "all seeds lost"
    assert any(fate == "cut at gate 1" for fate in fates.values())
    scores = [float(row[4]) for row in table[1:] if row[2] == "finished"]
    assert {f"{score:.3f}" for score in scores} <= {f"{float(key):.3f}" for key in page.keys if key}
    assert "" in page.keys  # what has no value sorts last


def cut(folder: Path, keep: Callable[[list[str]], list[str]], torn: str = "") -> None:
    journal = folder / "journal.jsonl"
    journals.write(journal, keep(journals.texts(journal)), torn)


@pytest.mark.parametrize("num", [0, 1, 20, 45])
def test_every_prefix_of_a_run_has_a_whole_report(tmp_path: Path, num: int) -> None:
    simulate(tmp_path / "run", losses, family="tests.worlds.family:JUDGED", num_candidates=5, stages=STAGES)
    cut(tmp_path / "run", lambda lines: lines[:num], '{"event": "Repo')
    page = Page(write_page(tmp_path / "run", writing=True))
    assert "The run is going on" in page.words
    assert "dropped a torn last line" in page.words
    assert "All candidates" in page.words
    assert "No findings yet" in page.words


def test_states_are_told_apart(tmp_path: Path) -> None:
    assert "The run is finished." in made(tmp_path / "a").words
    simulate(tmp_path / "b", losses, num_candidates=5, stages=STAGES)
    cut(
        tmp_path / "b",
        lambda lines: [
            *lines[:40],
            json.dumps({"event": "SessionEnded", "session": 1, "at_s": 0.0, "reason": "interrupted"}),
        ],
    )
    assert "interrupted and can go on: tune-rh resume b" in Page(write_page(tmp_path / "b")).words
    cut(tmp_path / "b", lambda lines: lines[:40])
    assert "did not end in good order" in Page(write_page(tmp_path / "b")).words
    write_run(tmp_path / "c", plan(), [SessionStarted(1, 0.0, "local", 1), SessionEnded(1, 0.0, "failed")])
    assert "ended with an error" in Page(write_page(tmp_path / "c")).words
    write_run(tmp_path / "c", plan(), [])
    assert "Nothing has been run yet." in Page(write_page(tmp_path / "c")).words


def test_a_run_that_lost_everybody_says_so(tmp_path: Path) -> None:
    fates = {(index, seed): ("diverge", 10) for index in range(6) for seed in (7, 42, 1337)}
    page = made(tmp_path / "run", fates=fates)
    assert re.search(r"None: no candidate has a score at any gate; \d+ members of \d+ diverged or failed", page.words)
    assert "all seeds lost" in page.words


def test_one_seed_has_no_interval_and_no_spread(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 1}]
    page = made(tmp_path / "run", stages=stages, seeds=[7])
    assert "one pair of seeds: no interval" in page.words
    assert "may be chance: it rests on one pair of seeds" in page.words
    assert "1 seed: a claim takes 5" in page.words
    assert not re.search(r"\bnan\b", page.words, re.IGNORECASE)


def test_where_nobody_beats_the_control_it_is_the_best_and_that_is_said(tmp_path: Path) -> None:
    def worse(index: int, seed: int, step: int) -> dict[str, float]:
        return {"val_loss": 0.1 + index + 1.0 / step, "health": 1.0}

    simulate(tmp_path / "run", worse, num_candidates=3, stages=STAGES)
    page = Page(write_page(tmp_path / "run"))
    assert "No other candidate that was scored at that step ranks above the control." in page.words


def test_higher_is_better_turns_every_sign(tmp_path: Path) -> None:
    simulate(
        tmp_path / "run",
        lambda *of: {"val_loss": -losses(*of)["val_loss"], "health": 1.0},
        mode="max",
        num_candidates=5,
        stages=STAGES,
    )
    page = Page(write_page(tmp_path / "run"))
    assert re.search(r"Ahead of the next, c0003, by 0\.1", page.words)


def test_tables_are_files_as_well(diagnosed: Path) -> None:
    folder = write_page(diagnosed).parent
    rows = {
        name: list(csv.DictReader((folder / f"{name}.csv").open()))
        for name in ("candidates", "members", "curves", "findings", "decisions")
    }
    assert [row["candidate"] for row in rows["candidates"]] == [f"c000{i}" for i in range(6)]
    assert json.loads(rows["candidates"][1]["config"]) == {"index": 1}
    assert {row["kind"] for row in rows["decisions"]} == {"promoted"}
    assert {row["diagnostic"] for row in rows["findings"]} == {"permutation", "not_of_this_version", "baselines"}
    assert all(float(row["val_loss"]) > 0.0 for row in rows["curves"])


def test_elsewhere_only_the_page_is_written(tmp_path: Path) -> None:
    simulate(tmp_path / "run", losses, num_candidates=2, stages=STAGES)
    before = sorted(tmp_path.rglob("*"))
    out = write_page(tmp_path / "run", tmp_path / "else" / "where.html")
    assert set(tmp_path.rglob("*")) - set(before) == {out, out.parent}
    assert Page(out).links


def test_what_is_no_run_or_was_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalCorrupt, match=r"plan\.toml: cannot be read"):
        write_page(tmp_path)
    simulate(tmp_path / "run", losses, num_candidates=2, stages=STAGES)
    cut(tmp_path / "run", lambda lines: [*lines[:5], "{", *lines[5:]])
    with pytest.raises(JournalCorrupt, match="line 6"):
        write_page(tmp_path / "run")


def test_baselines_are_measured_once_for_the_same_data(tmp_path: Path) -> None:
    calls = []

    def make() -> tuple[Baseline, ...]:
        calls.append(1)
        return BASELINES

    path = tmp_path / "report" / "baselines.json"
    assert baselines.kept(path, "digest", make) == BASELINES
    assert tuple(baselines.kept(path, "digest", make)) == BASELINES
    assert len(calls) == 1
    baselines.kept(path, "other", make)
    path.write_text("{")
    baselines.kept(path, "other", make, keep=False)
    assert len(calls) == 3
    assert path.read_text() == "{"


def test_the_command_says_whether_the_run_is_being_written(tmp_path: Path) -> None:
    paths = on_disk.make(tmp_path / "run", **on_disk.SMALL)
    with locked(paths):
        page = Page(reporting.write(read(paths), tmp_path))
    assert "The run is going on" in page.words
    assert not {"baselines", "findings", "importance"} & set(page.ids)  # a family without any is not told so
    on_disk.finish(paths)
    page = Page(reporting.write(read(paths), tmp_path))
    assert "The run is finished." in page.words
    assert "diverged or failed" in page.words


def test_a_run_that_goes_on_says_how_long_it_will_take(tmp_path: Path) -> None:
    simulate(tmp_path / "run", losses, num_candidates=5, stages=STAGES)
    # The control and five candidates with two seeds to step 20, then with three to step 60: the control and two.
    cut(tmp_path / "run", lambda lines: lines[:31])
    paths = RunPaths(tmp_path / "run")
    with locked(paths):
        page = Page(reporting.write(read(paths), tmp_path))
    spent = read(paths).run.spent
    assert spent.steps
    # Each ten steps took 1.5 s of a slot, and there are two slots.
    expected = 6 * 2 * 20 + 3 * (2 * 40 + 60)
    left = round((expected - spent.steps) * 0.15 / 2)
    said = re.search(r"(\d+)% of the ([\d,]+) steps that it is expected to take; about (\d+) s to go", page.words)
    assert said is not None
    assert said.groups() == (f"{100 * spent.steps / expected:.0f}", str(expected), str(left))
    assert "expected to take" not in Page(reporting.write(read(paths), tmp_path)).words


def test_a_race_shows_its_own_report(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    simulate(tmp_path / "race", losses, unit="member", num_candidates=0, stages=stages)
    page = Page(reporting.write(read(RunPaths(tmp_path / "race")), tmp_path))
    assert "Best: seed" in page.words
    assert "data:image/png;base64," in page.source
    assert "race.md" in page.links
    out = tmp_path / "out" / "page.html"
    reporting.write(read(RunPaths(tmp_path / "race")), tmp_path, out)
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_a_comparison_begins_with_its_verdict(tmp_path: Path) -> None:
    sides: dict[str, Any] = {"presets": ["good"], "num_candidates": 1, "compare": {}}
    paths = on_disk.make(tmp_path / "ab", **sides, seeds=list(range(6)), stages=[{"until_step": 20, "num_seeds": 6}])
    on_disk.finish(paths)
    page = Page(reporting.write(read(paths), tmp_path))
    assert re.search(r"B \(good\) is better than A \(control\)", page.words)
    assert page.source.count("data:image/png;base64,") == 1
    assert "6 completed" in page.words


def test_the_value_of_the_best_of_k_is_not_called_a_mean(tmp_path: Path) -> None:
    scoring = {"objective": "best_of_k", "k": 2, "success": 0.55}
    page = made(tmp_path / "run", scoring=scoring)
    assert "value of the best of 2 seeds ± standard deviation" in page.words
    assert "In the mean ahead of the next" in page.words


def test_a_finding_that_cannot_be_read_is_named_and_the_rest_is_made(tmp_path: Path) -> None:
    simulate(tmp_path / "run", losses, num_candidates=5, stages=STAGES)
    (folder := tmp_path / "run" / "members" / "c0002-s7").mkdir(parents=True)
    (folder / "findings.json").write_text("{")
    page = Page(write_page(tmp_path / "run"))
    assert "c0002-s7/findings.json: passed over" in page.words
    assert "c0002" in candidates_of(page)[1]
