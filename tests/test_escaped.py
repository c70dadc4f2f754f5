"""Names and errors are text: no terminal, spreadsheet, browser or Markdown reader takes them for commands."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tomli_w

from analysis.escape import csv_cell, printable
from tests.worlds.family import ScriptedTask
from tests.worlds.plans import fields
from tune_rh.cli.main import main

FORMULA = '=HYPERLINK("http://x","y")'
MARKUP = "[red]x[/red] [/2] :smile: $\\frac$ $a_ <script>alert(1)</script> | `b` [l](http://x) \x1b[31m\x07\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: é 漢 🙂\n\tnext", "plain: é 漢 🙂\n\tnext"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("\u202etxt.exe\u2066\u200f", "\\u202etxt.exe\\u2066\\u200f"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_cell_is_a_formula(first: str) -> None:
    assert csv_cell(f"{first}1+1") == f"'{first}1+1"
    assert csv_cell("1+1") == "1+1"


@pytest.mark.parametrize("value", [-1.5, 3, None, True])
def test_numbers_stay_numbers(value: object) -> None:
    assert csv_cell(value) is value


class Page(HTMLParser):
    """The text of a page, that of its scripts, and the data in it, as a browser reads it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = self.scripts = self.data = ""
        self._runs = True
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self._runs = ("type", "application/json") not in attrs

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script" and self._runs:
            self.scripts += data
        elif self.cdata_elem == "script":
            self.data += data
        else:
            self.text += data


def test_from_a_plan_to_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{FORMULA} {MARKUP}", f"@{MARKUP}", MARKUP]
    variants = {name: {"preset": "control", "fields": {"floor": 0.1 * i}} for i, name in enumerate(names, 3)}
    plan = {**fields(num_candidates=4), "control": names[0], "presets": names[1:], "configs": variants}
    Path("plan.toml").write_text(tomli_w.dumps(plan), encoding="utf-8")
    read = ScriptedTask.evaluate

    def fails_once(task: ScriptedTask, split: str = "val") -> dict[str, float]:
        if task.config.floor == pytest.approx(0.5):
            raise RuntimeError(f"{FORMULA} {MARKUP}")
        return read(task, split)

    monkeypatch.setattr(ScriptedTask, "evaluate", fails_once)
    for words in (
        ["search", "plan.toml", "--dry-run"],
        ["search", "plan.toml", "--runner", "local"],
        ["status", "scripted"],
        ["export", "scripted", "--out", "best", "--candidate", "c0001"],
    ):
        assert main(words) in (0, 4), words
    text = "".join(capsys.readouterr())
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red] [/2] :smile:" in text
    report = Path("runs/scripted/report")
    page = Page((report / "index.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in page.text
    assert "alert(1)" not in page.scripts
    assert "<" not in page.data
    assert "<script>alert(1)</script>" in str(json.loads(page.data))
    tables = [*sorted(report.glob("*.csv")), Path("best/seeds.csv")]
    assert len(tables) > 4
    for table in tables:
        cells = [cell for row in csv.reader(table.open(encoding="utf-8")) for cell in row]
        assert [c for c in cells if (c[:1] in "=+@\t\r" and c) or re.match(r"-(?![\d.]|inf)", c)] == [], table
    for document in (*report.glob("*.md"), Path("best/README.md")):
        content = document.read_text(encoding="utf-8")
        assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(http|\x1b|\u202e", re.sub(r"`[^`]*`", "", content)), document
