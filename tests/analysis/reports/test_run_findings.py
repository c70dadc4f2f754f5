"""What is asked about a whole run: by the report, at the end of a search, and by `tune-rh diagnose RUN`."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.diagnose.api import Finding
from analysis.diagnose.findings import from_json, to_json
from analysis.diagnose.registry import offered
from analysis.reports import run_findings
from analysis.reports.page.facts import gather
from analysis.reports.page.words import answers
from analysis.reports.run_findings import NO_BREAK
from analysis.stats.interval import Interval
from tests.analysis.reports.report_files import Page, tokens
from tests.analysis.run_folders import simulate
from tests.analysis.shared_moe.moe_folders import CONTROL, LARGER, SMALLER, aux, moe_run, told
from tests.worlds import journals
from tests.worlds.scripted import curve
from tune_rh.api import load
from tune_rh.cli import conclude as conclusions
from tune_rh.cli.main import main
from tune_rh.errors import JournalCorrupt
from tune_rh.record.journal import RunPaths
from tune_rh.results import reporting
from tune_rh.results.reading import read as read_
from tune_rh.run import runs

pytestmark = pytest.mark.usefixtures("no_drawing")

ASKED = offered("shared_moe", "records")
LOSSES = {CONTROL: 4.0, "strong": 4.1, "smaller": 4.2, "dense": 4.05}


def losses(label: str, seed: int, step: int) -> dict[str, float]:
    own = 0.01 * {7: -1.0, 42: 0.0, 1337: 1.0}[seed] * len(label)
    return told(LOSSES[label] + 5.0 / step + own, step, tokens=1024.0 * step * (2 if label == "dense" else 1))


def made(root: Path, **changes: Any) -> RunPaths:
    moe_run(root, {"strong": aux(0.02), "smaller": SMALLER, "dense": LARGER}, losses, **changes)
    return RunPaths(root)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    paths = made(tmp_path_factory.mktemp("runs") / "run")
    reporting.write(read_(paths), paths.root)
    return paths


def read(paths: RunPaths) -> dict[str, Finding]:
    return {finding.name: finding for finding in from_json((paths.report / "findings.json").read_text())}


def test_the_report_asks_and_keeps_what_it_is_told(written: RunPaths) -> None:
    found = read(written)
    assert tuple(found) == ASKED
    assert {name: finding.verdict for name, finding in found.items()} == {
        "matched_tokens": "pass",
        "parameter_verdict": "warn",
        "aux_tradeoff": "fail",
        "efficiency": "pass",
    }
    took = json.loads((written.report / "findings.json").read_text())["seconds"]
    assert set(took) == set(ASKED)
    frame = load(written.root).findings
    assert set(frame["diagnostic"]) == set(ASKED)
    assert set(frame["member"]) == {""}


def test_the_page_has_a_row_for_each_candidate_and_says_what_values_were_held_against(written: RunPaths) -> None:
    page = Page(written.report / "index.html")
    assert re.search(r"What fewer parameters cost\s*! warn", page.words)
    table = next(t for t in page.tables if "minus dense at equal tokens" in t[0])
    assert [row[:2] for row in table[1:3]] == [["c0000", "cpu-tiny (control)"], ["c0001", "strong"]]
    at = table[0].index("minus control at equal tokens")
    assert table[1][at] == "–"
    assert re.fullmatch(r"0\.\d+ \(-?0\.\d+\sto\s0\.\d+\)", table[2][at])
    assert "Held against: minus dense at equal tokens 0 (c0000)." in page.words
    assert re.search(
        r"Held against: percent above control 7 \(c000\d, c000\d\); excellent 3; good 7; fair 10", page.words
    )
    alone = next(t for t in page.tables if t[0] == ["value", "run (95% interval)", "held against"])
    assert [row[2] for row in alone if row[0] == "cost"] == ["0.01"]
    assert page.source.count("<details open>") == len(ASKED)
    assert "Loss against balance" in page.words
    _, rows = tokens(written.report / "report.md")
    assert ["candidate", "config"] in [row[:2] for row in rows]
    assert "nan" not in page.words.lower().split()


def test_the_first_screen_says_what_the_whole_run_fails(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=2)
    run = load(tmp_path / "run")
    failed = Finding("one", "fail", "It is 0.5, of e.g. three. The rest is told below.")
    run.by_member[""] = [failed, Finding("two", "warn", "Maybe."), Finding("three", "pass", "Well.")]
    (doubts,) = [a.points for a in answers(gather(run, "finished")) if a.word == "What to doubt"]
    assert "Of the questions about the whole run, one fails, and two warns." in doubts
    assert "one: It is 0.5, of e.g. three." in doubts
    assert not [point for point in doubts if point.startswith(("two:", "three:"))]
    run.by_member[""] = [Finding("three", "pass", "."), Finding("four", "no_evidence", ".")]
    (doubts,) = [a.points for a in answers(gather(run, "finished")) if a.word == "What to doubt"]
    assert not [point for point in doubts if "whole run" in point]


OLD = [Finding("of_another_version", "pass", "Kept."), Finding("efficiency", "fail", "Old.")]


def test_what_is_kept_under_another_name_stays_and_what_is_asked_again_is_renewed(tmp_path: Path) -> None:
    paths = made(tmp_path / "run")
    paths.report.mkdir()
    (paths.report / "findings.json").write_text(to_json(OLD))
    reporting.about_run(read_(paths).run).keep(paths)
    assert set(read(paths)) == {*ASKED, "of_another_version"}
    assert read(paths)["efficiency"].summary != "Old."
    (paths.report / "findings.json").write_text("{")
    with pytest.warns(UserWarning, match="replaced"):
        reporting.about_run(read_(paths).run).keep(paths)
    assert set(read(paths)) == set(ASKED)


def test_elsewhere_a_page_has_it_and_the_run_is_left_alone(tmp_path: Path) -> None:
    paths = made(tmp_path / "run")
    paths.report.mkdir()
    (paths.report / "findings.json").write_text(to_json(OLD))
    page = Page(reporting.write(read_(paths), tmp_path, tmp_path / "else" / "page.html"))
    assert ("Balance against loss" in page.words, "Kept." in page.words, "Old." in page.words) == (True, True, False)
    assert from_json((paths.report / "findings.json").read_text()) == OLD


def test_a_family_without_such_questions_has_no_file_and_no_words(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=2)
    paths = RunPaths(tmp_path / "run")
    page = Page(reporting.write(read_(paths), tmp_path))
    assert not (paths.report / "findings.json").exists()
    assert "about the run" not in page.words


@pytest.mark.parametrize("num", [0, 1, 12, 40])
def test_any_prefix_of_a_run_has_a_report(tmp_path: Path, num: int) -> None:
    paths = made(tmp_path / "run")
    journal = paths.journal.read_text().splitlines(keepends=True)
    paths.journal.write_text("".join(journal[:num]))
    page = Page(reporting.write(read_(paths), tmp_path))
    assert page.words.count("no evidence") >= len(ASKED) - 1


def test_a_run_that_lost_everybody_has_a_report(tmp_path: Path) -> None:
    fates: Any = {(i, seed): ("diverge", 10) for i in range(4) for seed in (7, 42, 1337)}
    paths = made(tmp_path / "run", fates=fates)
    reporting.write(read_(paths), tmp_path)
    assert {finding.verdict for finding in read(paths).values()} == {"no_evidence"}


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    paths = made(tmp_path / "run")
    journal = paths.journal.read_text().splitlines(keepends=True)
    paths.journal.write_text("".join([*journal[:3], "{\n", *journal[3:]]))
    with pytest.raises(JournalCorrupt, match="line 4"):
        reporting.about_run(read_(paths).run)


Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    def call(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--runs-dir", str(tmp_path), "--data-dir", str(tmp_path)])
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), " ".join(said.err.split())

    return call


def untested(paths: RunPaths) -> None:
    """Nobody has reached the last stage any more."""
    journals.write(paths.journal, [text for text in journals.texts(paths.journal) if '"Tested"' not in text])


def test_a_question_about_the_run_opens_no_model_and_is_not_kept(shell: Shell, tmp_path: Path) -> None:
    paths = made(tmp_path / "run")
    code, out, _ = shell("diagnose", "run", "--only", "efficiency", "--only", "aux_tradeoff")
    assert (code, "the whole run" in out, "matched_tokens" in out) == (0, True, False)
    assert out.index("efficiency") < out.index("aux_tradeoff")
    assert not paths.report.exists()


def test_where_nobody_has_reached_the_end_the_run_is_still_asked(shell: Shell, tmp_path: Path) -> None:
    paths = made(tmp_path / "run")
    untested(paths)
    code, out, _ = shell("diagnose", "run")
    assert (code, "findings.json" in out.replace(" ", "")) == (0, True)
    assert tuple(read(paths)) == ASKED
    code, _, err = shell("diagnose", "run", "--only", "routing_balance", "--only", "efficiency")
    assert (code, "no member has reached the last stage yet" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--member", "c0000-s9"), "--member c0000-s9: is not in this run"),
        (("--only", "efficient"), "diagnostic = 'efficient': shared_moe has no such diagnostic"),
    ],
)
def test_wrong_names_are_refused(shell: Shell, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    untested(made(tmp_path / "run"))
    code, _, err = shell("diagnose", "run", *words)
    assert code == 2
    assert said in err


def test_a_run_of_another_family_is_not_asked(shell: Shell, tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=2)
    code, _, err = shell("diagnose", "run", "--only", "efficiency")
    assert (code, "'efficiency': tests.worlds.family:FAMILY has no such diagnostic" in " ".join(err.split())) == (
        2,
        True,
    )


def test_the_end_of_a_search_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moe_run(tmp_path / "run", {"strong": aux(0.02)}, losses)
    paths = RunPaths(tmp_path / "run")
    _, history = runs.replay(paths)
    monkeypatch.setattr(conclusions, "_export", lambda *_: None)  # there are no checkpoints
    monkeypatch.setattr(conclusions, "run_baselines", lambda *_, **__: ((), ""))
    text = io.StringIO()
    conclusions.conclude(paths, history, tmp_path, Console(file=text, width=200))
    assert "the whole run" in text.getvalue()
    assert all(name in text.getvalue() for name in ASKED)
    assert tuple(read(paths)) == ASKED


def test_values_have_the_digits_that_their_intervals_carry(tmp_path: Path) -> None:
    simulate(tmp_path / "run", curve, num_candidates=2)
    facts = gather(load(tmp_path / "run"), "finished")
    values = {
        "c0001.loss": Interval(1.23456, 1.2, 1.3),
        "c0000.loss": 1.0,
        "c0000.other": math.nan,
        "c9999.loss": 2.0,
        "plain": Interval(0.5, math.nan, math.nan),
    }
    first, second = run_findings.tables(facts, [Finding("any", "pass", ".", values, {"plain": 1.0, "c0001.loss": 2.0})])
    assert [[cell.text for cell in row] for row in first.rows] == [
        ["c0000", "c0000 (control)", "1", "–"],
        ["c0001", "c0001", f"1.235 (1.200{NO_BREAK}to{NO_BREAK}1.300)", "–"],
    ]
    assert (first.header, first.caption) == (("candidate", "config", "loss", "other"), "Held against: loss 2 (c0001).")
    assert [[cell.text for cell in row] for row in second.rows] == [
        ["c9999.loss", "2", "–"],
        ["plain", "0.5", "1"],
    ]
