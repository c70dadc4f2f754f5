"""Terminal, export, report and tables show one funnel, one ranking and one best: whatever the plan and the outcome."""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from rich.console import Console
from rich.table import Table

from analysis.diagnose.api import Baseline
from analysis.reports.page.facts import Facts, gather
from analysis.reports.page.tables import funnel_table
from analysis.reports.page.words import answers
from analysis.tables import RunTables
from analysis.view import best_of
from tests.analysis.run_folders import read_run, simulate, write_run
from tests.analysis.shared_moe.moe_folders import CONTROL, aux, moe_run, told
from tests.decide.test_policy_required import search
from tests.decide.test_policy_seeds import close, scored
from tests.worlds import journals
from tests.worlds.drawn import SEARCHES, WORLDS, World, drawn
from tests.worlds.plans import fold, plan
from tests.worlds.scripted import Simulation, curve, fates_by_seed
from tune_rh.cli import conclude as conclusions
from tune_rh.cli import tables
from tune_rh.cli.main import main
from tune_rh.errors import ExportError
from tune_rh.plan.schema import Plan
from tune_rh.record import journal, ranking
from tune_rh.record.events import Event, SeedAdded, SessionEnded
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.view import view
from tune_rh.results import reporting
from tune_rh.results.export import export
from tune_rh.results.reading import read
from tune_rh.run import runs

FUNNEL = ("until step", "seeds", "entered", "scored", "passed", "audited", "lost seeds")


def cells(table: Table) -> list[dict[str, str]]:
    """Rows of a table as the terminal shows it."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    names = [str(column.header) for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def facts_of(history: History) -> Facts:
    return gather(RunTables(view(history, Path("unused"))), history.ended)


def exported(history: History) -> str | None:
    """The candidate that the export takes: without checkpoints it says whose is missing."""
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ExportError) as refused:
        export(RunPaths(Path(folder) / "run"), history, Path(folder) / "out")
    named = re.search(r"best checkpoint of (c\d+)-s\d+ is not there", str(refused.value))
    return named and named.group(1)


def check_one_record(history: History) -> None:
    """The law, for a run in any state."""
    rows, facts = ranking.ranking(history), facts_of(history)
    run, best = facts.run, best_of(ranking.ranking(history))
    name = None if best is None else best.candidate

    funnel = ranking.funnel(history)
    on_terminal = cells(tables.funnel_table(history.plan, funnel))
    page = funnel_table(facts)
    on_page = [
        {head: cell.text.replace(",", "") for head, cell in zip(page.header, row, strict=True)} for row in page.rows
    ]
    for one, other in zip(on_terminal, on_page, strict=True):
        assert {head: one.get(head, "0") for head in FUNNEL} == {head: other[head] for head in FUNNEL}
    for row in funnel:
        assert row.entered >= row.scored >= row.passed + row.audited
    assert funnel[-1].scored == funnel[-1].passed + funnel[-1].audited

    assert [row.candidate for row in run.ranking] == [row.candidate for row in rows]
    shown = cells(tables.ranking_table(history.plan, rows))
    assert [row[""] for row in shown] == [row.candidate for row in rows]
    table = facts.tables.candidates.set_index("candidate")
    for row in rows:
        loaded = table.loc[row.candidate]
        assert loaded["gate"] == history.plan.last_stage
        assert same(loaded["score"], row.val)
        assert same(loaded["se"], row.entry.se)
        assert (loaded["num_seeds"], loaded["num_lost"]) == (row.num_seeds, row.num_lost)
    assert set(table.index[table["gate"] == history.plan.last_stage]) == {row.candidate for row in rows}

    assert exported(history) == name
    # While only the control has finished, a page says who leads at the furthest gate instead.
    assert best_on_page(facts) == name or not (history.ended or facts.is_end)
    line = tables.baselines_line([Baseline("guess", math.inf, "")], rows, best)
    assert (f"On test {name} beats" in line) == (best is not None)
    assert [answer.text for answer in answers(facts)]


def best_on_page(facts: Facts) -> str | None:
    """Of those that finished; before the end a page says who leads instead."""
    return facts.best.candidate if facts.best is not None and facts.is_end else None


def same(one: Any, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def finished(sim: Simulation) -> History:
    """Its history, with the word that it is over."""
    return fold(sim.plan, [*sim.events, SessionEnded(1, 0.0, "finished")])


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(searched=SEARCHES, world=WORLDS)
def test_everything_shows_the_same_run(searched: Plan, world: World) -> None:
    sim = drawn(searched, world)
    check_one_record(finished(sim))
    check_one_record(fold(sim.plan, sim.events[: len(sim.events) * 2 // 3]))


RACE: dict[str, Any] = {
    "unit": "member",
    "num_candidates": 0,
    "stages": [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}],
}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("number", range(3))
def test_a_race_has_one_funnel_and_one_ranking(number: int, mode: str) -> None:
    searched = plan(**RACE).model_copy(update={"mode": mode})
    sim = Simulation(searched, curve, fates=fates_by_seed(number, 0.3, 2)).run()
    history = finished(sim)
    rows, run = ranking.ranking(history), view(history, Path("unused"))
    (config,) = RunTables(run).candidates.to_dict("records")
    assert [row.candidate for row in rows] == [row.candidate for row in run.ranking]
    assert (config["num_seeds"], config["num_lost"]) == ((rows[0].num_seeds, rows[0].num_lost) if rows else (0, 0))
    assert [(row.scored, row.passed) for row in run.funnel] == [
        (len(gate.order), len(gate.order) if k else gate.num_promoted) for k, gate in enumerate(history.gates)
    ]


# --- the faults that this law was made for ---------------------------------------------------------------------------


def answer(facts: Facts, word: str) -> str:
    return next(a.text for a in answers(facts) if a.word == word)


def test_a_required_diagnosis_that_crashed_counts_as_failing_everywhere() -> None:
    sim = search(crashes=(1,))
    facts = facts_of(finished(sim))
    first, second = [row.candidate for row in facts.run.ranking][:2]
    assert (first, second) == ("c0001", "c0002")
    assert facts.run.ranking[0].failed == ("solid",)
    assert (exported(finished(sim)), best_on_page(facts)) == (second, second)
    assert answer(facts, "Best").startswith("c0002")
    doubts = next(a.points for a in answers(facts) if a.word == "What to doubt")
    assert "Passed over because they fail what the plan requires: c0001." in doubts


def test_where_no_finisher_passes_there_is_no_best_and_the_first_is_named() -> None:
    history = finished(search(crashes=tuple(range(7))))
    facts = facts_of(history)
    assert (facts.best, exported(history)) == (None, None)
    why = (
        "no candidate that finished passes what the plan requires; the first of the ranking, c0001, does not pass solid"
    )
    assert answer(facts, "Best") == f"None: {why}."
    with pytest.raises(ExportError, match=re.escape(f"{why}; --despite exports it all the same")):
        export(RunPaths(Path("unused")), history, Path("unused"))
    assert tables.baselines_line([], facts.run.ranking, facts.best) == f"{why[0].upper()}{why[1:]}."


def test_a_candidate_that_waits_for_one_more_seed_has_been_scored() -> None:
    sim = scored(close, extra_seeds=0.5)
    at = next(i for i, event in enumerate(sim.events) if isinstance(event, SeedAdded)) + 1
    event = sim.events[at - 1]
    assert isinstance(event, SeedAdded)
    before, after = (fold(sim.plan, sim.events[:end]) for end in (at - 1, at))
    assert ranking.funnel(after)[event.gate].scored == ranking.funnel(before)[event.gate].scored > 0
    check_one_record(after)


def test_audited_candidates_are_counted_apart_at_every_gate() -> None:
    sim = Simulation(plan(num_candidates=9, audit=2), curve, slots=2).run()
    history = finished(sim)
    funnel = ranking.funnel(history)
    assert [row.audited for row in funnel] == [2, 2, 2]
    by_merit = [c for c in sim.others() if not c.audited]
    assert [row.passed for row in funnel] == [
        *(sum(c.stage > k for c in by_merit) for k in (0, 1)),
        sum(c.stage == 2 for c in by_merit),
    ]
    check_one_record(history)


# --- the end of one search -------------------------------------------------------------------------------------------


def losses(label: str, seed: int, step: int) -> dict[str, float]:
    return told((4.0 if label == CONTROL else 4.1) + 5.0 / step + 0.01 * (seed % 3), step)


def concluded(paths: RunPaths, history: History) -> str:
    text = io.StringIO()
    conclusions.conclude(paths, history, paths.root, Console(file=text, width=200))
    return text.getvalue()


def test_the_end_of_a_search_reads_no_journal_again_and_asks_about_the_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moe_run(tmp_path / "run", {"strong": aux(0.02)}, losses)
    paths = RunPaths(tmp_path / "run")
    _, history = runs.replay(paths)
    asked: list[Any] = []
    monkeypatch.setattr(conclusions, "_export", lambda *_: None)  # there are no checkpoints
    monkeypatch.setattr(conclusions, "run_baselines", lambda *_, **__: ((), ""))
    real = reporting.about_run
    for module in (reporting, conclusions):
        monkeypatch.setattr(module, "about_run", lambda *args: asked.append(args) or real(*args))
    reads: list[Path] = []
    for module in (journal, runs):
        monkeypatch.setattr(module, "read", lambda path, **_: reads.append(path) or iter(()))
    assert "the whole run" in concluded(paths, history)
    assert reads == []
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "provenance.json does not say which data it was trained on"),
        ({"name": "wiki", "sha256": "0" * 64, "folder": "/nowhere"}, "the data cannot be used"),
    ],
)
def test_baselines_of_data_that_is_not_the_runs_own_are_not_measured(
    tmp_path: Path, data: dict[str, str], why: str
) -> None:
    moe_run(tmp_path / "run", {"strong": aux(0.02)}, losses)
    paths = RunPaths(tmp_path / "run")
    paths.provenance.write_text(json.dumps({"data": data}))
    rows, reason = reporting.run_baselines(read(paths), tmp_path / "elsewhere", keep=True)
    assert rows == ()
    assert reason.startswith(why)
    assert not paths.report.exists()


@pytest.mark.parametrize(
    ("sign", "order", "better"), [(1.0, ["high", "c0001", "low"], "low"), (-1.0, ["low", "c0001", "high"], "high")]
)
def test_baselines_are_worst_first_whichever_way_is_better(sign: float, order: list[str], better: str) -> None:
    best: Any = SimpleNamespace(candidate="c0001", test=0.7, num_seeds=2, knowledge=None)
    rows = [Baseline("low", 0.6, ""), Baseline("high", 0.9, "")]
    assert [row["predictor"] for row in cells(tables.baselines_table(rows, best, sign))] == order
    line = f"On test c0001 beats 1 of 2 baselines; better than it: {better}."
    assert tables.baselines_line(rows, [], best, sign) == line


def test_the_printed_baselines_show_the_candidate_that_passes_what_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = search(crashes=(1,))
    folder = write_run(tmp_path / "run", sim.plan, [*sim.events, SessionEnded(1, 0.0, "finished")])
    monkeypatch.setattr(conclusions, "_export", lambda *_: None)
    monkeypatch.setattr(conclusions, "run_baselines", lambda *_, **__: ([Baseline("guess", 9.0, "")], ""))
    text = concluded(RunPaths(folder), finished(sim))
    (ours,) = [line for line in text.splitlines() if "this run's best" in line]
    assert "c0002" in ours
    assert "On test c0002 beats 1 of 1 baselines" in text


# --- runs that are being written, or whose family is gone ------------------------------------------------------------


GONE = "a_family_that_is_gone:FAMILY"


def gone(folder: Path, events: Sequence[Event], of: Plan) -> Path:
    return write_run(folder, of.model_copy(update={"family": GONE}), events)


def test_a_run_whose_family_is_gone_is_shown_reported_and_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of = plan(num_candidates=4)
    sim = Simulation(of, curve, slots=2).run()
    folder = gone(tmp_path / "run", [*sim.events, SessionEnded(1, 0.0, "finished")], of)
    assert main(["status", "run", "--runs-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "scripted: finished" in out
    assert "Ranking of those that finished" in out
    assert main(["report", "run", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]) == 0
    assert "The run is finished." in (folder / "report" / "report.md").read_text()
    assert len(RunTables(read_run(folder)).candidates) == 5


@pytest.mark.parametrize("changes", [RACE, {"presets": ["good"], "num_candidates": 1, "compare": {}}])
def test_a_race_or_comparison_whose_family_is_gone_is_reported(
    tmp_path: Path, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = {} if changes is RACE else {"seeds": list(range(6)), "stages": [{"until_step": 20, "num_seeds": 6}]}
    of = plan(**changes, **seeds)
    sim = Simulation(of, curve).run()
    folder = gone(tmp_path / "run", [*sim.events, SessionEnded(1, 0.0, "finished")], of)
    assert main(["status", "run", "--runs-dir", str(tmp_path)]) == 0
    assert "scripted: finished" in capsys.readouterr().out
    assert main(["report", "run", "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)]) == 0
    assert "The run is finished." in (folder / "report" / "report.md").read_text()


def test_a_run_that_is_being_written_is_shown_with_a_torn_line_and_unknown_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = simulate(tmp_path / "run", curve, num_candidates=3)
    path = tmp_path / "run" / "journal.jsonl"
    journals.write(path, ['{"event":"Invented","what":1}', *journals.texts(path)], '{"event":"Eval')
    with pytest.warns(UserWarning, match="passed over events|torn last line") as caught:
        run = read_run(path.parent)
    assert len(caught) == 2
    assert [row.candidate for row in run.ranking] == [row.candidate for row in ranking.ranking(history)]
    assert main(["status", "run", "--runs-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "scripted: finished" in shown.out
    assert "does not know: Invented" in shown.err
