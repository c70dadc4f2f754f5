"""Print the script by which a shell completes commands, options, plans and runs: eval "$(tune-rh completion bash)"."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

import shtab

from trainables.registry import FAMILIES
from tune_rh.cli import options
from tune_rh.cli.main import COMMANDS
from tune_rh.plan.file import shipped

_BASH = f"""
_tune_rh_runs() {{ compgen -W "$(ls runs 2>/dev/null)" -- "$1"; }}
_tune_rh_plans() {{ compgen -W "{" ".join(shipped())}" -- "$1"; compgen -f -- "$1"; }}
"""
_RUNS = {"bash": "_tune_rh_runs", "zsh": "_files -W runs -/"}
_PLANS = {"bash": "_tune_rh_plans", "zsh": "_files"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), help="for which shell")


def run(args: argparse.Namespace) -> int:
    parser = argparse.ArgumentParser(prog="tune-rh")
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        import_module(f"tune_rh.cli.commands.{name.replace('-', '_')}").add_arguments(command)
        for action in command._actions:
            _complete(action)
    sys.stdout.write(f"{shtab.complete(parser, args.shell, preamble=_BASH if args.shell == 'bash' else '')}\n")
    return 0


def _complete(action: argparse.Action) -> None:
    """Say what an argument may be, where that is more than its choices."""
    if action.dest == "run":
        action.complete = _RUNS  # type: ignore[attr-defined]
    elif action.dest == "plan":
        action.complete = _PLANS  # type: ignore[attr-defined]
    elif action.dest == "family":
        action.choices = list(FAMILIES)
    elif action.type is options.path:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
