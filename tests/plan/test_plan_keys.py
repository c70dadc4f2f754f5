"""The page of all keys of a plan says what each of them does, and what it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_rh.plan.kinds import Comparison, Race, Search

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    monkeypatch.syspath_prepend(str(DOCS))
    from plan_keys import plan_keys  # type: ignore[import-not-found]

    lines = plan_keys().replace("\\|", "").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def test_every_key_has_a_row_that_says_what_it_does(rows: list[list[str]]) -> None:
    names = {row[0].strip("`") for row in rows}
    for kind in (Search, Race, Comparison):
        schema = kind.model_json_schema()
        for part in (schema, *schema["$defs"].values()):
            assert part["properties"].keys() <= names
    assert [row for row in rows if not all(row)] == []


@pytest.mark.parametrize(
    ("key", "allowed", "default"),
    [
        ("eta", "a number, above 1", "`3.0`"),
        ("gates", '`"promote"` or `"stop"` or `"adaptive"`', '`"promote"`'),
        ("stages", "a list of [tables](#stage)", "required"),
        ("configs", "by name: [tables](#variant)", "-"),
        ("seeds", "a list of whole numbers, at least 0", "required"),
        ("presets", "a list of texts", "`[]`"),
        ("changes", "a list of tables", "required"),
        ("custom", "by name: numbers, above 0", "-"),
        ("alpha", "a number, above 0, below 0.5", "`0.05`"),
        ("compare", "a [table](#compare)", "required"),
    ],
)
def test_a_row_says_what_the_model_allows(rows: list[list[str]], key: str, allowed: str, default: str) -> None:
    assert [f"`{key}`", allowed, default] in [row[:3] for row in rows]


def test_a_table_has_the_heading_that_a_file_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from plan_keys import plan_keys

    text = plan_keys()
    for line in ("## `[resources]`", "## `[[stages]]`", "## `[configs.NAME]`", "## `[rules]` of a search"):
        assert text.count(f"\n{line}\n") == 1
    assert "\n(healthier)=\n## `[[rules.promote.healthier]]` of a search\n" in text


def test_the_families_page_has_every_family_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from ship import families  # type: ignore[import-not-found]

    text = families()
    assert "## spacing_mdn\n" in text
    assert "| `control` | 276,115,496 | - |" in text
    assert "| `ar_features` | 0, 16, 32 | layout = none |" in text
