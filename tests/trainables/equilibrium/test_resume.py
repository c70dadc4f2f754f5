"""A search over estimators that is killed with kill -9 and resumed ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.killed import check_a_killed_search_ends_as_one_that_was_not, search_of


@pytest.mark.timeout(300)  # processes that import torch and search, one after the other
def test_a_killed_search_ends_as_one_that_was_not(bytes_dir: Path, tmp_path: Path) -> None:
    frozen, reverse = {"estimator": "aep_frozen", "jr_mode": "fixed"}, {"estimator": "bptt", "bptt_steps": 8}
    searched = search_of("equilibrium", candidate=frozen, reference=reverse, steps=(2, 4))
    check_a_killed_search_ends_as_one_that_was_not(searched, tmp_path, bytes_dir, kill_after=(7,))
