"""What decides is light: the command line's help, plans, spaces, policy and journal load nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
HEAVY = ("torch", "ray", "optuna", "pandas", "matplotlib")
REPORT = f"""
import sys
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
"""

HELP = """
from tune_rh.cli.main import main
try:
    main(["--help"])
except SystemExit as ended:
    assert ended.code == 0
"""
IMPORTS = """
import search_spaces.api, search_spaces.registry, search_spaces.spacing_mdn
import tune_rh.plan.schema, tune_rh.plan.kinds, tune_rh.plan.cost, tune_rh.record.history, tune_rh.record.journal
import tune_rh.record.rules, tune_rh.record.gate, tune_rh.record.events, tune_rh.errors
import tune_rh.decide.halving, tune_rh.decide.race, tune_rh.decide.comparison, tune_rh.decide.ddmin
import analysis.stats.scores, analysis.stats.claims, analysis.stats.bootstrap
"""
CHECK = """
import sys
from pathlib import Path
from tune_rh.plan.file import SHIPPED, load_plan
from tune_rh.preflight.environment import survey
from tune_rh.run.preflight import check_machine, check_plan
plans = sorted(SHIPPED.glob("*.toml"))
assert plans
for path in plans:
    plan = load_plan(path)
    check_plan(plan)
    check_machine(plan, survey(plan.resources, Path(sys.argv[1]), address="head:6379"))
"""
DECIDE = """
import sys
from pathlib import Path
from tests.worlds.plans import plan
from tests.worlds.plans import fold
from tune_rh.record.journal import Journal, read
from tune_rh.record.events import SpaceExhausted
from tune_rh.decide.scheduler import AskCandidate, scheduler_of
path = Path(sys.argv[1]) / "journal.jsonl"
Journal(path).append(SpaceExhausted(1))
assert scheduler_of(plan()).next(fold(plan(), read(path))) == AskCandidate()
"""
DRIVE = """
import tune_rh.run.execute, tune_rh.run.runner, tune_rh.run.ray.runner, tune_rh.watch.study, tune_rh.watch.tensorboard
"""


def loaded(code: str, *words: str) -> list[str]:
    """What of `HEAVY` a process has once it has run ``code``."""
    done = subprocess.run([sys.executable, "-c", code + REPORT, *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("code", [HELP, IMPORTS, CHECK, DECIDE], ids=["help", "imports", "check a plan", "decide"])
def test_it_loads_nothing_heavy(tmp_path: Path, code: str) -> None:
    assert loaded(code, str(tmp_path)) == []


def test_a_driver_on_ray_leaves_torch_to_its_workers() -> None:
    assert "torch" not in loaded(DRIVE)


def test_the_report_would_tell() -> None:
    assert loaded("import optuna") == ["optuna"]


def test_the_installed_command_helps_without_anything_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tune_rh", "--help"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: tune-rh")
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "tune_rh" in modules
    assert modules & set(HEAVY) == set()
