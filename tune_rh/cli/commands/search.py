"""Run what a plan describes: a TOML file, or the name of a plan that ships. Without one, list those that ship."""

from __future__ import annotations

import argparse
import re
import tomllib

from rich.table import Table

from tune_rh.cli import options, terminal
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan, shipped
from tune_rh.plan.schema import Plan
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan", nargs="?", help="a plan file, or the name of one that ships with tune-rh; none: list those that ship"
    )
    parser.add_argument(
        "--audit", type=int, metavar="N", help="run N of those that were cut to the end: would one of them have won?"
    )
    parser.add_argument(
        "--learn-from",
        nargs="+",
        default=[],
        metavar="RUN",
        help="take along from these runs of the same family and space how long ranks lasted, and what was observed",
    )
    options.add_run(parser)


def run(args: argparse.Namespace) -> int:
    if args.plan is None:
        return _list()
    audit = [f"audit={args.audit}"] if args.audit is not None else []
    plan = load_plan(find_plan(args.plan), [*audit, *options.overrides(args)])
    return options.launch(_learnt(plan, args) if args.learn_from else plan, args)


def _learnt(plan: Plan, args: argparse.Namespace) -> Plan:
    """The plan with what earlier runs have shown; says so."""
    from tune_rh.results.earlier import in_words, learn_from
    from tune_rh.results.reading import read

    learnt = learn_from(plan, [read(runs.find(name, args.runs_dir.absolute())) for name in args.learn_from])
    if learnt.earlier is not None:
        terminal.console().print(in_words(learnt.earlier), soft_wrap=True)
    return learnt


def _list() -> int:
    """Print the plans that ship. The exit code is that of a command that lacks its plan: nothing has run."""
    table = Table("plan", "family", "what it asks")
    for name, path in shipped().items():
        text = path.read_text(encoding="utf-8")
        table.add_row(name, tomllib.loads(text)["family"], _question(text))
    to = terminal.console()
    to.print(table)
    to.print("tune-rh search PLAN runs one of them, or a file; --dry-run says what it would cost.", soft_wrap=True)
    return PlanError.exit_code


def _question(text: str) -> str:
    """The first sentence of the comment that a plan begins with."""
    comment = re.match(r"(#.*\n)+", text)
    words = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
    return re.split(r"(?<=[.?])\s", words, maxsplit=1)[0]
