"""Diagnostics by family: what they say of themselves, light to read; and how models and runs are put before them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from analysis.diagnose.api import Finding, Listed, Needs, NoEvidence, answer, diagnostic
from analysis.diagnose.registry import (
    UnknownDiagnostic,
    diagnose,
    diagnose_run,
    diagnostics_of,
    get_diagnostic,
    offered,
)
from trainables.errors import UnknownFamily
from trainables.registry import FAMILIES, get_family

HERE = "tests.analysis.diagnose.test_registry"
MINE, PLAIN = f"{HERE}:FAMILY", f"{HERE}:WITHOUT"
LISTED = [(family, name) for family in FAMILIES for name in diagnostics_of(family)]


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

    def __init__(self, name: str, needs: Needs) -> None:
        self.name, self.title, self.needs = name, name.upper(), needs
        self.asked = 0

    def __call__(self, subject: Any) -> Finding:
        self.asked += 1
        if self.asked > 2:
            raise ZeroDivisionError("a fault of the diagnostic")
        return Finding(self.name, "pass", "Asked.", {"asked": self.asked})


WITHOUT = replace(get_family("spacing_mdn"), diagnostics="")
FAMILY = replace(WITHOUT, diagnostics=f"{HERE}:ASKED")
BROKEN = replace(WITHOUT, diagnostics=f"{HERE}:NOWHERE")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Named]:
    """The diagnostics of `FAMILY`: two of its models, two of its runs."""
    listed: dict[str, Needs] = {
        "of_run": "records",
        "of_model": "checkpoint",
        "of_runs": "records",
        "of_models": "checkpoint",
    }
    made = {name: Named(name, needs) for name, needs in listed.items()}
    monkeypatch.setattr(sys.modules[__name__], "ASKED", tuple(made.values()), raising=False)
    return made


@pytest.mark.parametrize(("family", "name"), LISTED)
def test_a_list_repeats_what_a_diagnostic_says_of_itself(family: str, name: str) -> None:
    listed = get_diagnostic(family, name)
    assert isinstance(listed, Listed)
    question = listed.load()
    assert (listed.name, listed.needs, listed.title) == (question.name, question.needs, question.title)
    function = vars(question)["answer"]
    module = inspect.getmodule(function)
    assert module is not None
    assert module.__doc__
    assert function.__doc__


def test_every_letter_has_its_diagnostic_in_order() -> None:
    titles = [diagnostic.title[:2] for diagnostic in diagnostics_of("spacing_mdn").values()]
    assert titles == [f"{letter}:" for letter in "ABCDEFGHIJKLMNOPQR"]


def test_what_is_offered_is_known_without_importing_any() -> None:
    code = (
        "import sys; from analysis.diagnose.registry import offered; assert 'slot_norms' in offered('spacing_mdn'); "
        "assert offered('shared_moe', 'records'); "
        "print([name for name in sys.modules if name in ('torch', 'numpy') or name.count('.') == 2 "
        "and name.startswith(('analysis.spac', 'analysis.shar'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_offered_follows_the_family_and_what_is_looked_at(asked: dict[str, Named]) -> None:
    assert tuple(diagnostics_of(MINE)) == ("of_run", "of_model", "of_runs", "of_models")
    assert offered(MINE) == ("of_model", "of_models")
    assert offered(MINE, "records") == ("of_run", "of_runs")
    assert offered(PLAIN) == offered(PLAIN, "records") == ()
    with pytest.raises(UnknownFamily, match="'unheard-of': there is no such family"):
        offered("unheard-of")
    with pytest.raises(UnknownFamily, match=r"diagnostics = '.*:NOWHERE': cannot be imported"):
        offered(f"{HERE}:BROKEN")


def test_models_and_runs_are_put_before_their_own(asked: dict[str, Named]) -> None:
    heard: list[tuple[str, float]] = []
    found = diagnose(Model(MINE), done=lambda finding, seconds: heard.append((finding.name, seconds)))
    assert [finding.name for finding in found] == [name for name, _ in heard] == ["of_model", "of_models"]
    assert min(seconds for _, seconds in heard) >= 0.0
    assert diagnose(Model(PLAIN)) == diagnose_run(Run({"family": PLAIN})) == []
    found = diagnose_run(Run({"family": MINE}), done=lambda finding, seconds: heard.append((finding.name, 0.0)))
    assert [finding.name for finding in found] == [name for name, _ in heard[2:]] == ["of_run", "of_runs"]
    assert {name: diagnostic.asked for name, diagnostic in asked.items()} == dict.fromkeys(asked, 1)


def test_those_named_are_asked_in_that_order(asked: dict[str, Named]) -> None:
    found = diagnose(Model(MINE), ["of_models", "of_model"])
    assert [finding.name for finding in found] == ["of_models", "of_model"]
    assert [finding.name for finding in diagnose_run(Run({"family": MINE}), ["of_runs"])] == ["of_runs"]
    assert diagnose(Model(MINE), []) == []


def test_one_that_cannot_be_asked_says_why_before_any_is(asked: dict[str, Named]) -> None:
    mine, run = Model(MINE), Run({"family": MINE})
    with pytest.raises(UnknownDiagnostic, match=r"'unheard': .* has no such diagnostic; known: of_run, of_model, "):
        diagnose(mine, ["of_model", "unheard"])
    with pytest.raises(UnknownDiagnostic, match=r"'of_model': .*:WITHOUT has no such diagnostic; known: none"):
        diagnose(Model(PLAIN), ["of_model"])
    with pytest.raises(UnknownDiagnostic, match="'of_run': looks at a whole run, not a trained model"):
        diagnose(mine, ["of_model", "of_run"])
    with pytest.raises(UnknownDiagnostic, match="'of_model': looks at a trained model, not a whole run"):
        diagnose_run(run, ["of_model"])
    assert sum(diagnostic.asked for diagnostic in asked.values()) == 0


def test_a_fault_of_a_diagnostic_is_not_a_finding(asked: dict[str, Named]) -> None:
    mine = Model(MINE)
    assert len(diagnose(mine, ["of_model"])) == len(diagnose(mine, ["of_model"])) == 1
    with pytest.raises(ZeroDivisionError):
        diagnose(mine, ["of_model"])


@diagnostic("K: known", needs="records")
def known(run: Any) -> Finding:
    if run is None:
        raise NoEvidence("There is no run.")
    return answer("warn", "It is there.", {"size": 1.0}, {"size": 2.0})


@diagnostic("of a model", name="short")
def a_long_name(subject: Any) -> Finding:
    raise ValueError(subject)


def test_a_function_becomes_a_diagnostic_under_its_name_or_another() -> None:
    assert (known.name, known.title, known.needs) == ("known", "K: known", "records")
    assert known("run") == Finding("known", "warn", "It is there.", {"size": 1.0}, {"size": 2.0})
    assert known(None) == Finding("known", "no_evidence", "There is no run.")
    assert (a_long_name.name, a_long_name.needs) == ("short", "checkpoint")
    with pytest.raises(ValueError, match="a model"):
        a_long_name("a model")
