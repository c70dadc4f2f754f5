"""A user's own ``analysis.py``, ``trainables/`` and the like beside the plan: ours are found first, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tune_rh
from tests.laws.test_own_family import MODULE, PLAN

TAKEN = ("analysis", "search_spaces", "trainables", "tests")
SCRIPT = str(Path(sys.executable).with_name("tune-rh"))
IMPORTS = """
import tune_rh, analysis, search_spaces.api, trainables.api, sys
print(*[sys.modules[name].__file__ for name in ("analysis", "search_spaces", "trainables")])
"""


@pytest.fixture(params=["modules", "packages"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a family, its helper, a plan, and the user's own modules or packages under our names."""
    (tmp_path / "my_package.py").write_text(f"import helpers\n{MODULE}")
    (tmp_path / "helpers.py").write_text("")
    (tmp_path / "plan.toml").write_text(PLAN)
    for name in TAKEN:
        file = tmp_path / (f"{name}.py" if request.param == "modules" else f"{name}/__init__.py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"raise RuntimeError('the {name} of the user')")
    return tmp_path


def run(place: Path, *words: str) -> str:
    """What ``words`` print when typed in ``place`` with PYTHONPATH=. set."""
    path = os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(words, cwd=place, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [(sys.executable, "-m", "tune_rh"), (SCRIPT,)], ids=["python -m", "script"])
def test_the_command_line_finds_ours(place: Path, command: tuple[str, ...]) -> None:
    assert "spacing_mdn" in run(place, *command, "families")


def test_importing_the_package_finds_ours(place: Path) -> None:
    root = Path(tune_rh.__file__).parents[1]
    files = [str(root / name / "__init__.py") for name in ("analysis", "search_spaces", "trainables")]
    assert run(place, sys.executable, "-c", IMPORTS).split() == files


@pytest.mark.parametrize("place", ["packages"], indirect=True)
def test_a_family_from_outside_is_searched_in_process(place: Path) -> None:
    assert "toy" in run(place, sys.executable, "-m", "tune_rh", "search", "plan.toml", "--runner", "local")


@pytest.mark.timeout(300)  # the start of a cluster is in it
@pytest.mark.parametrize("place", ["packages"], indirect=True)
def test_a_family_from_outside_is_searched_by_workers_of_ray(place: Path) -> None:
    small = ("--set", "resources.slots=1", "--set", "num_candidates=1")
    run(place, sys.executable, "-m", "tune_rh", "search", "plan.toml", "--runner", "ray", *small)
    assert (place / "runs" / "toy" / "best" / "README.md").is_file()


@pytest.mark.parametrize("kind", ["module", "package", "namespace"])
def test_a_module_of_the_user_imported_before_ours_is_named(tmp_path: Path, kind: str) -> None:
    if kind == "module":
        (tmp_path / "analysis.py").touch()
    else:
        (tmp_path / "analysis").mkdir()
        if kind == "package":
            (tmp_path / "analysis" / "__init__.py").touch()
    script = "import sys; path = sys.path; sys.path = ['.']; import analysis; sys.path = path; import tune_rh"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: `analysis` is imported from ")
    assert str(tmp_path / "analysis") in said
    assert str(Path(tune_rh.__file__).parents[1] / "analysis") in said
