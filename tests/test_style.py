"""What every tracked Python file keeps to: its length, its name, its first lines."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
MAX_LINES, MAX_FUNCTION_LINES = 400, 60


def tracked() -> list[Path]:
    """Python files under version control (without one, all there are)."""
    try:
        done = subprocess.run(["git", "ls-files", "*.py"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        files = [CHECKOUT / name for name in done.stdout.splitlines()]
    except (OSError, subprocess.CalledProcessError):
        files = [p for p in CHECKOUT.rglob("*.py") if not any(part.startswith(".") for part in p.parts)]
    return [file for file in files if file.exists()]


FILES = tracked()
SOURCES = [file for file in FILES if file.relative_to(CHECKOUT).parts[0] != "tests"]


def shown(file: Path) -> str:
    return str(file.relative_to(CHECKOUT))


def test_there_is_something_to_look_at() -> None:
    assert {"tune_rh/decide/halving.py", "trainables/api.py", "search_spaces/api.py"} <= {
        shown(file) for file in SOURCES
    }


@pytest.mark.parametrize("file", SOURCES, ids=shown)
def test_a_source_is_short_and_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < MAX_LINES
    assert not text or ast.get_docstring(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length >= MAX_FUNCTION_LINES} == {}


def test_no_file_is_too_long() -> None:
    long = {shown(file): lines for file in FILES if (lines := len(file.read_text().splitlines())) >= MAX_LINES}
    assert long == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    nothing = {"utils.py", "util.py", "helpers.py", "helper.py", "misc.py", "common.py", "manager.py"}
    assert [shown(file) for file in FILES if file.name in nothing] == []


@pytest.mark.parametrize("words", ["slot time", '"share of seeds', "the same, corrected", "its token: "])
def test_words_that_need_explaining_are_shown_nowhere(words: str) -> None:
    shown_to_users = [*SOURCES, CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")]
    rooms = {"tune_rh", "analysis", "docs", "README.md"}
    found = [shown(file) for file in shown_to_users if file.relative_to(CHECKOUT).parts[0] in rooms]
    assert [name for name in found if words in (CHECKOUT / name).read_text(encoding="utf-8")] == []
