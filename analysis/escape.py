"""Names and errors as text for terminals, tables and spreadsheets, whatever characters they hold."""

from __future__ import annotations

import itertools
import re

from trainables.errors import shortened

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")


def printable(text: str) -> str:
    r"""``text`` with control characters, changes of direction and lone surrogates as escapes (``\x1b``)."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def csv_cell(value: object) -> object:
    """``value`` for a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if _FORMULA.match(value) else value


def brief(text: str) -> str:
    """``text`` of an error for a terminal: the middle of long lines is left out, and what follows on many lines."""
    lines = [shortened(line, 1000) for line in text.split("\n")]
    kept = list(itertools.takewhile(lambda n: sum(map(len, lines[:n])) <= 3000, range(1, len(lines) + 1)))
    more = len(lines) - len(kept)
    return "\n".join((*lines[: len(kept)], f"... and {more} lines more")) if more else "\n".join(lines)
