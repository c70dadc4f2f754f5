"""What is installed from the wheel works outside of the checkout, beside packages of the user under our names."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.laws.test_own_family import MODULE, PLAN
from tests.worlds.wheel import PACKAGES, ROOT, run

EXECUTE = "from nbclient.cli import main; main()"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A user's folder: a family, a plan, and packages of their own under our names."""
    (tmp_path / "my_package.py").write_text(MODULE)
    (tmp_path / "plan.toml").write_text(PLAN)
    for name in ("analysis", "search_spaces", "trainables", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the user')")
    return tmp_path


def command(installed: Path, how: str) -> tuple[str | Path, ...]:
    return (installed / "tune-rh",) if how == "script" else (installed / "python", "-m", "tune_rh")


def test_wheel_and_sdist_hold_all_that_is_read_at_run_time(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    files = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        members = archive.getnames()
    packed = {name.partition("/")[2] for name in members}
    data = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(data)
    assert set(data) <= files
    assert set(data) <= packed
    assert {name.partition("/")[0] for name in files if ".dist-info" not in name} == set(PACKAGES)
    assert "LICENSE" in packed
    assert not [name for name in packed if name.startswith(("tests", "benchmarks"))]


def test_metadata_and_citation_agree(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    metadata = archive.read(path).decode()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nVersion: {version}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("path", ["", "."], ids=["bare", "PYTHONPATH=."])
def test_the_installed_command_works_among_packages_of_the_same_names(
    installed: Path, place: Path, how: str, path: str
) -> None:
    tune, variables = command(installed, how), {"PYTHONPATH": path} if path else {}
    assert run(*tune, "--help", cwd=place, **variables).startswith("usage: tune-rh")
    assert run(*tune, "search", "quickstart", "--dry-run", cwd=place, **variables).startswith("quickstart: ")
    assert "c000" in run(*tune, "search", "plan.toml", "--runner", "local", cwd=place, **variables)
    assert (place / "runs" / "toy" / "best" / "README.md").is_file()


@pytest.mark.parametrize(("how", "runner"), [("script", "ray"), ("notebook", "local")])
def test_a_class_of_ones_own_is_searched_among_packages_of_the_same_names(
    installed: Path, place: Path, how: str, runner: str
) -> None:
    run(installed / "tune-rh", "new", "my_model.py", cwd=place)
    text = (place / "my_model.py").read_text()
    for was, now in {"candidates=8": "candidates=2", ", (300, 3)]": "]", '"local"': f'"{runner}"'}.items():
        assert text.count(was) == 1
        text = text.replace(was, now)
    (place / "my_model.py").write_text(text)
    if how == "script":
        said = run(installed / "python", "my_model.py", cwd=place, PYTHONPATH=".")
    else:
        nbformat.write(new_notebook(cells=[new_code_cell(text)]), place / "my_model.ipynb")
        run(installed / "python", "-c", EXECUTE, "--inplace", "my_model.ipynb", cwd=place, PYTHONPATH=".")
        (cell,) = nbformat.read(place / "my_model.ipynb", as_version=4).cells
        said = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert re.search("^Best: .* Report: .*/runs/Spirals/report/index.html$", said, re.MULTILINE)
    assert "Spirals: finished" in run(installed / "tune-rh", "status", "Spirals", cwd=place)


def test_it_is_the_installed_one(installed: Path, place: Path) -> None:
    code = "import tune_rh, trainables; print(tune_rh.__file__, trainables.__file__)"
    files = run(installed / "python", "-c", code, cwd=place).split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)
