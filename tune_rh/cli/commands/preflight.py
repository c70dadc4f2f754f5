"""Check a plan, its data and this machine as before a launch, say everything that is found, and launch nothing."""

from __future__ import annotations

import argparse

from analysis.escape import brief
from tune_rh.cli import options
from tune_rh.errors import DONE, PlanError, PreflightRefused
from tune_rh.plan.file import find_plan, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("plan", help="a plan file, or the name of one that ships with tune-rh")
    options.add_plan(parser)
    options.add_precautions(parser)
    options.add_no_trial(parser)
    options.add_runner(parser)
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from tune_rh.cli import terminal
    from tune_rh.run import preflight

    plan = load_plan(find_plan(args.plan), options.overrides(args))
    precautions, console = options.precautions(args), terminal.console()
    place = options.place(args, options.data_dir(args))
    env = place.survey(plan, options.nearest_folder(args.runs_dir, "--runs-dir"))
    wrong = preflight.find_in_plan(plan)
    here = preflight.find_here(plan, env, args.runs_dir.absolute(), place.data_dir, strict=precautions.strict)
    if precautions.trial and not any(finding.level == "refuse" or finding.id == "P50" for finding in (*wrong, *here)):
        here += preflight.try_control(plan, place.data_dir, here=args.runner == "local")
    if needs := preflight.needs(plan, env):
        console.print(needs, soft_wrap=True)
    refused = [f for f in (*wrong, *here) if f.level == "refuse" and (f in wrong or f.id not in precautions.accept)]
    for finding in sorted((*wrong, *here), key=lambda finding: finding.id):
        word = "warning" if finding.level == "warn" else "refused" if finding in refused else "accepted"
        console.print(brief(f"{word}: {finding}"), soft_wrap=True)
    console.print(f"{plan.name}: {len(refused)} of {len(wrong) + len(here)} findings refuse a launch.")
    if any(finding in wrong for finding in refused):
        return PlanError.exit_code
    return PreflightRefused.exit_code if refused else DONE
