"""The command line as a test calls it: in this process, on the runs and data of the module's ``folder``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tune_rh.cli.main import main

Shell = Callable[..., tuple[int, str, str]]
"""Words of a command to its exit code, its output, and its errors on one line."""


@pytest.fixture
def shell(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Calls a command; ``folder`` is a fixture of the module."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--runs-dir", str(folder), "--data-dir", str(folder)])
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return call
