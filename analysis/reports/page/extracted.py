"""What was extracted from a winner, for the page: its sentences, its formula, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.escape import printable
from analysis.extraction import Extracted, Listing
from analysis.reports.page.facts import Facts
from analysis.reports.page.tables import Cell, Table
from analysis.reports.plots import Picture, draw
from analysis.reports.run_findings import cell


@dataclass(frozen=True)
class Formulas:
    """The section; empty where nothing was extracted."""

    words: Sequence[str]
    pictures: Sequence[Picture]
    tables: Sequence[Table]


def extracted(facts: Facts, *, draws: bool = True) -> Formulas:
    """What ``report/extract.json`` says."""
    found = facts.extracted
    if found is None:
        return Formulas((), (), ())
    pictures = [draw(plot, plot.title) for plot in found.extraction.plots] if draws else []
    return Formulas(
        [printable(words) for words in _words(facts, found)], pictures, [table(one) for one in found.extraction.tables]
    )


def table(listing: Listing) -> Table:
    """A listing as a page and a terminal show it."""
    rows = [[*(Cell(printable(word)) for word in row.words), *map(cell, row.values)] for row in listing.rows]
    words = len(listing.rows[0].words) if listing.rows else 1
    return Table([printable(name) for name in listing.header], rows, words, printable(listing.caption))


def _words(facts: Facts, found: Extracted) -> Iterator[str]:
    extraction = found.extraction
    other = ""
    if facts.best is not None and facts.best.candidate != found.candidate:
        other = f" The best of the run is {facts.best.candidate}: `tune-rh extract {facts.run.root.name}` looks at it."
    yield (
        f"Formulas of what {found.member} predicts, fitted on {extraction.fitted_on}, and scored on "
        f"{extraction.scored_on}.{other}"
    )
    yield "`{}`".format(extraction.formula.replace("`", "'"))
    yield from extraction.says
