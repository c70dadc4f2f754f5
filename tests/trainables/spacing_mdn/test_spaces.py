"""What the spaces of `spacing_mdn` ask for. The laws of every space: ``tests/search_spaces/test_search_spaces.py``."""

from __future__ import annotations

import pytest

from search_spaces.api import RandomTrial, Space
from search_spaces.spacing_mdn import SPACES


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_a_parameter_is_asked_for_only_when_its_parent_is_on(space: Space) -> None:
    for seed in range(100):
        asked = RandomTrial(seed)
        drawn = space.suggest(asked)
        if drawn.get("layout") in ("none", "prefix"):
            assert not asked.params.keys() & {"query_cuts", "aux_mode", "slot_id_mode"}
        if drawn.get("layout") == "none":
            assert "n_slots" not in asked.params
        if drawn.get("aux_mode", "off") == "off":
            assert "aux_weight" not in asked.params
