"""Pages that lead somewhere: each stands in the index of the site, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"reference/plan-keys.md", "reference/families.md"}
"""By each build of the site (docs/conf.py)."""
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts and str(path.relative_to(DOCS)) not in MADE
]
READ = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_page_stands_in_the_index() -> None:
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    entries = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    listed = {str(path.relative_to(DOCS)) for entry in entries for path in DOCS.glob(f"{entry}.md")}
    assert listed - MADE == {str(path.relative_to(DOCS)) for path in PAGES} - {"index.md"}


@pytest.mark.parametrize("page", READ, ids=shown)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    made = {DOCS / name for name in MADE}
    assert [
        link for link in links if link and (to := (page.parent / link).resolve()) not in made and not to.exists()
    ] == []
