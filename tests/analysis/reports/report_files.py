"""Reads the files that a report leaves, as strictly as those who will."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from PIL import Image


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
