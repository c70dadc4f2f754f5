"""Families from outside that are not what a family is: every command says which fact or part, and what is allowed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.family import FAMILY as SOUND
from tests.worlds.family import NoData
from tests.worlds.plans import fields
from trainables.api import Family, HealthCheck, Metric
from trainables.errors import DataError, DataMissing, UnknownFamily
from trainables.registry import get_family
from trainables.trust import trust
from tune_rh.cli.main import main
from tune_rh.errors import PlanError
from tune_rh.plan.file import resolve_plan
from tune_rh.preflight.inputs import check_family
from tune_rh.run.preflight import check_data
from tune_rh.run.runs import digest_of

NAME = f"{__name__}:BROKEN"
BROKEN = SOUND
LOSS = SOUND.objective


class Data(NoData):
    """Fails in every way that code of another hand may."""

    def prepare(self, name: str, data_dir: Path, progress: Any = None) -> Path:
        raise RuntimeError("no network\nat all")

    def digest(self, name: str, data_dir: Path) -> str:
        if name == "absent":
            raise DataMissing(f"data set {name!r} is not in {data_dir}")
        return b"digest"  # type: ignore[return-value]

    def check(self, config: Any, data_dir: Path) -> None:
        raise KeyError("width")


DATA = Data()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Family]:
    """Makes `BROKEN` a family that differs from a sound one in these facts."""
    trust(NAME)

    def make(**facts: Any) -> Family:
        family = replace(SOUND, **facts)
        monkeypatch.setattr(sys.modules[__name__], "BROKEN", family)
        return family

    return make


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"name": 3}, "name = 3: Input should be a valid string"),
        ({"config": None}, "config = None: Input should be a valid string"),
        ({"objective": "val_loss"}, "objective = 'val_loss': Input should be"),
        ({"metrics": LOSS}, "metrics = {'description': 'closed form', 'mode': 'min', "),
        ({"metrics": (LOSS, "f1")}, "metrics.1 = 'f1': Input should be"),
        ({"objective": replace(LOSS, mode="minimize")}, "objective.mode = 'minimize': Input should be 'min' or 'max'"),
        ({"presets": ["control"]}, "presets = ['control']: Input should be a valid dictionary"),
        ({"presets": {"control": None}}, "presets.control = None: Input should be a valid dictionary"),
        ({"health": HealthCheck("health", at_least=1.0)}, "health = {'after_step': 0, "),
        ({"health": (HealthCheck("health", at_least="much"),)}, "health.0.at_least = 'much': Input should be a valid"),
        ({"diagnostics": ()}, "diagnostics = (): Input should be a valid string"),
    ],
)
def test_a_fact_of_another_type_is_named(broken: Callable[..., Family], facts: dict[str, Any], said: str) -> None:
    broken(**facts)
    with pytest.raises(UnknownFamily) as refused:
        get_family(NAME)
    assert str(refused.value).startswith(f"family {NAME}: {said}")
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(PlanError, match=r"^plan: family "):
        resolve_plan(fields(family=NAME))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"metrics": (LOSS, LOSS)}, "metric 'val_loss' is declared 2 times"),
        ({"objective": Metric("f1", "max", "", "")}, "objective 'f1' is not among its metrics"),
        ({"health": (HealthCheck("gate", at_least=1.0),)}, "health: metric 'gate' is not among its metrics"),
        ({"health": (HealthCheck("health"),)}, "health: 'health' has no bound; give at_least, at_most, or both"),
        ({"task": "nowhere:Task"}, "task = 'nowhere:Task': cannot be imported (No module named 'nowhere')"),
        ({"sample": "nocolon"}, "sample = 'nocolon': cannot be imported ('nocolon' is not of the form 'module:attr')"),
        ({"config": f"{__name__}:Data"}, f"config = '{__name__}:Data': is no trainables.config.FrozenConfig"),
    ],
)
def test_facts_that_do_not_fit_each_other_are_named(
    broken: Callable[..., Family], facts: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(**facts)
    assert [str(finding) for finding in check_family(NAME)] == [f"P00 family {NAME}: {said}"]
    assert main(["check", NAME, "--data-dir", str(tmp_path)]) == 3
    assert f"wrong: P00 family {NAME}: {said}" in capsys.readouterr().out


def test_bounds_that_contradict_each_other_are_named(broken: Callable[..., Family]) -> None:
    broken(health=(HealthCheck("health", at_least=2.0, at_most=1.0),))
    with pytest.raises(
        PlanError, match=r"health of family scripted: 'health': at_least = 2\.0 is above at_most = 1\.0"
    ):
        resolve_plan(fields(family=NAME))


def test_data_that_fails_is_named_with_the_line_that_does(
    broken: Callable[..., Family], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = broken(data=f"{__name__}:DATA")
    with pytest.raises(
        DataError, match=r"data set 'none' of scripted: digest\(\) returns b'digest' \(bytes\): allowed"
    ):
        digest_of(family, "none", tmp_path)
    with pytest.raises(DataMissing):
        digest_of(family, "absent", tmp_path)
    fails = r"^preset 'control': data\.check\(\) fails: KeyError: 'width' \(.*test_families\.py:\d+\)\n"
    with pytest.raises(DataError, match=fails):
        check_data(resolve_plan(fields(family=NAME)), tmp_path)
    assert main(["check", NAME, "--data-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tune-rh: data set 'none' of scripted: prepare() fails: RuntimeError: no network (")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero, {path}:2"),
        ("raise SystemExit('no licence')\n", "SystemExit: no licence, {path}:1"),
        ("import not_there_at_all\n", "No module named 'not_there_at_all'"),
        ("None.family\n", "AttributeError: 'NoneType' object has no attribute 'family', {path}:1"),
        ("from trainables.config import FrozenConfig\nclass C(FrozenConfig):\n    x: range = range(3)\n",
         "pydantic.errors.PydanticSchemaGenerationError: Unable to generate pydantic-core schema for "),
    ],
)  # fmt: skip
def test_a_module_that_fails_as_it_is_imported_is_said_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "family_that_fails.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["check", "family_that_fails:FAMILY", "--data-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    name = "'family_that_fails:FAMILY'"
    assert err.startswith(f"tune-rh: family = {name}: cannot be imported ({said.format(path=path)}")
    assert len(err.splitlines()) == 1
