"""The wheel of this checkout, and an environment that has it as a user has: apart from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("tune_rh", "trainables", "search_spaces", "analysis")


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it has to succeed."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env={**variables, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(place: Path) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    source = place / "source"
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=left_out)
    for file in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / file, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", source, cwd=place)
    return place / "dist"


def install(built: Path, place: Path) -> Path:
    """The programs of a fresh environment that has the wheel, and the libraries of this one: nothing is fetched."""
    venv.create(place, with_pip=False)
    (wheel,) = built.glob("*.whl")
    python = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=place)
    libraries = [folder for folder in sys.path if Path(folder).name == "site-packages"]
    (own,) = place.glob("lib/python*/site-packages")
    # An entry of a .pth file is a folder alone: the .pth of an editable install in it is not read.
    (own / "libraries.pth").write_text("\n".join(libraries))
    return place / "bin"
