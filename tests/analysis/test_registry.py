"""The table of diagnostics: what they say of themselves, light to read; and how models and runs are put before them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from analysis import registry
from analysis.api import Finding
from analysis.registry import (
    DIAGNOSTICS,
    Listed,
    UnknownDiagnostic,
    diagnose,
    diagnose_run,
    diagnostics_for,
    get_diagnostic,
    offered,
)
from trainables.registry import FAMILIES

HERE = "tests.analysis.test_registry"


@dataclass(frozen=True)
class Model:
    """As much of a subject as the registry reads."""

    family: str


@dataclass(frozen=True)
class Run:
    """As much of a run as the registry reads."""

    plan: Mapping[str, Any]


class Named:
    """Answers with the name it was given and how often it was asked; raises at the third time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0

    def __call__(self, subject: Any) -> Finding:
        self.asked += 1
        if self.asked > 2:
            raise ZeroDivisionError("a fault of ours")
        return Finding(self.name, "pass", "Asked.", {"asked": self.asked})


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Named]:
    """Four diagnostics: of one family's models, of all models, of one family's runs, of all runs."""
    listed = {
        "of_model": (("spacing_mdn",), "checkpoint"),
        "of_models": ((), "checkpoint"),
        "of_run": (("spacing_mdn",), "records"),
        "of_runs": ((), "records"),
    }
    made = {name: Named(name) for name in listed}
    for name, diagnostic in made.items():
        monkeypatch.setattr(sys.modules[__name__], name.upper(), diagnostic, raising=False)
    entries = {name: Listed(f"{HERE}:{name.upper()}", *what) for name, what in listed.items()}  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "DIAGNOSTICS", entries)
    return made


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_the_table_is_what_a_diagnostic_says_of_itself(name: str) -> None:
    diagnostic = get_diagnostic(name)
    assert diagnostic.name == name
    assert Listed(DIAGNOSTICS[name].reference, diagnostic.families, diagnostic.needs) == DIAGNOSTICS[name]
    assert set(diagnostic.families) <= set(FAMILIES)
    module = inspect.getmodule(type(diagnostic))
    assert module is not None
    assert module.__doc__
    assert type(diagnostic).__doc__
    assert type(diagnostic).__call__.__doc__


def test_every_letter_has_its_diagnostic_in_order() -> None:
    assert [d.title[:2] for d in diagnostics_for("spacing_mdn")] == [f"{letter}:" for letter in "ABCDEFGHIJKLMNOP"]


def test_what_is_offered_is_known_without_importing_any() -> None:
    code = (
        "import sys; from analysis.registry import offered; assert 'slot_norms' in offered('spacing_mdn'); "
        "print([name for name in sys.modules if name.startswith(('analysis.spac', 'analysis.shar', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_offered_follows_the_family_and_what_is_looked_at(table: dict[str, Named]) -> None:
    assert offered("spacing_mdn") == ("of_model", "of_models")
    assert offered("spacing_mdn", "records") == ("of_run", "of_runs")
    assert offered("unheard-of") == ("of_models",)
    assert offered("unheard-of", "records") == ("of_runs",)
    assert [d.name for d in diagnostics_for("spacing_mdn", "records")] == ["of_run", "of_runs"]


def test_models_and_runs_are_put_before_their_own(table: dict[str, Named]) -> None:
    heard: list[tuple[str, float]] = []
    found = diagnose(Model("spacing_mdn"), done=lambda finding, seconds: heard.append((finding.name, seconds)))
    assert [finding.name for finding in found] == [name for name, _ in heard] == ["of_model", "of_models"]
    assert min(seconds for _, seconds in heard) >= 0.0
    assert [finding.name for finding in diagnose(Model("shared_moe"))] == ["of_models"]
    found = diagnose_run(
        Run({"family": "spacing_mdn"}), done=lambda finding, seconds: heard.append((finding.name, 0.0))
    )
    assert [finding.name for finding in found] == [name for name, _ in heard[2:]] == ["of_run", "of_runs"]
    assert [finding.name for finding in diagnose_run(Run({"family": "shared_moe"}))] == ["of_runs"]
    assert {name: diagnostic.asked for name, diagnostic in table.items()} == {
        "of_model": 1,
        "of_models": 2,
        "of_run": 1,
        "of_runs": 2,
    }


def test_those_named_are_asked_in_that_order(table: dict[str, Named]) -> None:
    found = diagnose(Model("spacing_mdn"), ["of_models", "of_model"])
    assert [finding.name for finding in found] == ["of_models", "of_model"]
    assert [finding.name for finding in diagnose_run(Run({"family": "spacing_mdn"}), ["of_runs"])] == ["of_runs"]
    assert diagnose(Model("spacing_mdn"), []) == []


def test_one_that_cannot_be_asked_says_why_before_any_is(table: dict[str, Named]) -> None:
    mine, run = Model("spacing_mdn"), Run({"family": "spacing_mdn"})
    with pytest.raises(UnknownDiagnostic, match="'unheard': there is no such diagnostic; known: of_model, of_models, "):
        diagnose(mine, ["of_model", "unheard"])
    with pytest.raises(UnknownDiagnostic, match="'of_model': is for spacing_mdn, not for shared_moe"):
        diagnose(Model("shared_moe"), ["of_models", "of_model"])
    with pytest.raises(UnknownDiagnostic, match="'of_run': looks at a whole run, not a trained model"):
        diagnose(mine, ["of_model", "of_run"])
    with pytest.raises(UnknownDiagnostic, match="'of_model': looks at a trained model, not a whole run"):
        diagnose_run(run, ["of_model"])
    assert sum(diagnostic.asked for diagnostic in table.values()) == 0


def test_a_fault_of_ours_is_not_a_finding(table: dict[str, Named]) -> None:
    mine = Model("spacing_mdn")
    assert len(diagnose(mine, ["of_model"])) == len(diagnose(mine, ["of_model"])) == 1
    with pytest.raises(ZeroDivisionError):
        diagnose(mine, ["of_model"])
