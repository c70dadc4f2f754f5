"""What reads a run afterwards: statistics, baselines, diagnostics, reports. No Ray, and light until used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.run import Run


def load(run: str | Path) -> Run:
    """The run in a folder, or called so in ``runs/``: members, curves, decisions and findings as tables.

    See `analysis.run.load`.
    """
    from analysis.run import load as load_run

    return load_run(run)
