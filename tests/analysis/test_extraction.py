"""Extractions as files, and which families offer them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.diagnose.api import Plot, Series
from analysis.extraction import EXTRACT, Extracted, Extraction, Listing, NoExtractor, Row, extractor_of, from_json, kept
from analysis.extraction import to_json as written
from analysis.stats.interval import Interval
from trainables.errors import UnknownFamily

WHOLE = Extracted(
    "spacing_mdn",
    "c0005-s7",
    "a" * 64,
    "b" * 64,
    "first100k",
    "c" * 64,
    {"numpy": "2.0"},
    Extraction(
        ("It is a formula.",),
        "mean = 1 + 0.5 x1",
        "val, 10 targets",
        "test, 20 targets",
        (Listing("Terms.", ("term", "coefficient", "n"), (Row(("x1",), (Interval(0.5, 0.4, 0.6), 3)),)),),
        (Plot("A line", "x", "y", series=(Series("one", (0, 1), (0.5, 1.5)),)),),
        {"x1": Interval(0.5123456789012345, -math.inf, math.inf), "n": 3, "half": 0.5},
    ),
)


def test_what_is_written_is_read_again_with_all_digits(tmp_path: Path) -> None:
    assert from_json(written(WHOLE)) == WHOLE
    (tmp_path / EXTRACT).write_text(written(WHOLE))
    assert kept(tmp_path) == WHOLE
    assert WHOLE.candidate == "c0005"


def test_nothing_is_none_and_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    for text in ("{", "[]", "{}", written(WHOLE).replace('"schema": 1', '"schema": 2')):
        (tmp_path / EXTRACT).write_text(text)
        with pytest.raises(ValueError, match="not an extraction of this version"):
            kept(tmp_path)


def test_a_family_without_one_names_those_that_have_it() -> None:
    with pytest.raises(NoExtractor, match="family 'nsa' offers no extraction; those that do: spacing_mdn"):
        extractor_of("nsa")
    with pytest.raises(UnknownFamily, match="there is no such family"):
        extractor_of("spacings")
    assert callable(extractor_of("spacing_mdn"))
