"""A search over sparse models that is killed with kill -9 and resumed ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.killed import check_a_killed_search_ends_as_one_that_was_not, search_of


@pytest.mark.timeout(300)  # processes that import torch and search, one after the other
def test_a_killed_search_ends_as_one_that_was_not(bytes_dir: Path, tmp_path: Path) -> None:
    wider, twin = {"window": 32, "gate": "softmax"}, {"attn": "dense"}
    searched = search_of("nsa", candidate=wider, reference=twin, steps=(4, 6))
    check_a_killed_search_ends_as_one_that_was_not(searched, tmp_path, bytes_dir, kill_after=(6, 9))
