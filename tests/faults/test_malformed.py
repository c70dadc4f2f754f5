"""Malformed input ends in words: a tenth of the campaign always, all of it among the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.malformed import COUNTS, Result, campaign, in_fork


def failures(counts: dict[str, int], seed: int, place: Path) -> list[Result]:
    results = list(campaign(counts, seed, place))
    assert len(results) == sum(counts.values())
    assert sum(result.code in (2, 3, 5) for result in results) > len(results) / 2  # the damage is felt
    return [result for result in results if result.problem]


@pytest.mark.timeout(600)
def test_a_tenth_of_the_campaign(tmp_path: Path) -> None:
    assert failures({kind: count // 10 for kind, count in COUNTS.items()}, 1, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_campaign(tmp_path: Path) -> None:
    assert failures(COUNTS, 0, tmp_path) == []


def test_a_case_reports_code_text_and_traceback(tmp_path: Path) -> None:
    def speak() -> int:
        print(Path.cwd())
        return 3

    assert in_fork(speak, tmp_path) == (3, f"{tmp_path}\n")
    code, text = in_fork(lambda: 1 // 0, tmp_path)
    assert code == 1
    assert "Traceback" in text
    assert "ZeroDivisionError" in text
