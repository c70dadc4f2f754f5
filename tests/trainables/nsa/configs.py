"""Small configs of `nsa` for tests."""

from __future__ import annotations

from typing import Any

from trainables.nsa.config import NSAConfig
from trainables.registry import build_config, get_family


def tiny(**fields: Any) -> NSAConfig:
    """Preset ``tiny`` with other fields."""
    config = build_config(get_family("nsa"), fields, preset="tiny")
    assert isinstance(config, NSAConfig)
    return config
