"""Reads the files that a report leaves, as strictly as those who will."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from PIL import Image

_VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page taken apart as strictly as a validator would."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.keys: list[str] = []
        self.words = ""
        self._cell: list[str] | None = None
        self.feed(self.source)
        self.close()
        assert self.open == []
        assert [name for name, count in self.ids.items() if count > 1] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert len(found) == len(attrs), f"{tag} has an attribute twice"
        if found.get("id"):
            self.ids[str(found["id"])] += 1
        self.links += [str(found[name]) for name in ("href", "src", "xlink:href") if found.get(name)]
        self.keys += [str(found["data-key"])] if "data-key" in found else []
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words += data
        if self._cell is not None:
            self._cell.append(data)


def candidates_of(page: Page) -> list[list[str]]:
    """The table of candidates."""
    return next(table for table in page.tables if table[0][:2] == ["candidate", "config"])


def tokens(path: Path) -> tuple[list[int], list[list[str]]]:
    """Columns of each table as a Markdown parser sees it, and the cells of all rows."""
    columns, rows = [], []
    parsed = MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))
    for token in parsed:
        if token.type == "thead_open":
            columns.append(0)
        if token.type == "th_open":
            columns[-1] += 1
        if token.type == "tr_open":
            rows.append([])
    row = -1
    for i, token in enumerate(parsed):
        row += token.type == "tr_open"
        if token.type in ("td_open", "th_open"):
            rows[row].append("".join(child.content for child in parsed[i + 1].children or ()))
    return columns, rows


def strict(path: Path) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def drawn(path: Path) -> tuple[int, int]:
    """Width and height; the figure has something in it and nothing is cut off at its edge."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    assert image.getcolors(maxcolors=10) is None
    white = ((255, 255),) * 3
    for edge in ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height)):
        assert image.crop(edge).getextrema() == white
    return width, height


def has_colour(path: Path, colour: str) -> bool:
    with Image.open(path) as opened:
        colours = opened.convert("RGB").getcolors(maxcolors=1 << 24)
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) in {rgb for _, rgb in colours or ()}
