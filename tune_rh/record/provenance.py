"""What a run was made with: code, libraries, machine, command. Facts for readers; no decision looks at them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "ray", "optuna", "numpy", "scipy", "safetensors", "pydantic", "python-flint")


def collect(data: dict[str, Any]) -> dict[str, Any]:
    """The facts of this moment; ``data`` is added under ``data``."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "tune_rh": _version("tune-rh"),
        "git": _git(Path(__file__).parent),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "machine": {
            "system": platform.platform(),
            "cpu_cores": os.cpu_count(),
            "processor": _processor(),
        },
        "data": data,
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def of_source(file: Path) -> dict[str, Any]:
    """Where the task of a family from outside was written, and the state of its repository."""
    return {"file": str(file), "git": _git(file.parent)}


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed_files": len(ask("status", "--porcelain").splitlines())}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
