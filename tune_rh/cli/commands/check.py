"""Try a family as before a search: every preset and space, and one trial round trip of its task, in seconds."""

from __future__ import annotations

import argparse

from trainables.registry import get_family
from trainables.trust import trust
from tune_rh.cli import options, terminal
from tune_rh.errors import DONE, PreflightRefused


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", help="name of a family, or module:attr")
    parser.add_argument("--preset", help="of the task that is tried (default: tiny, or the first there is)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the task is tried (cpu)")
    options.add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.checking import preset_of, try_family

    trust(args.family)
    preset, to = preset_of(get_family(args.family), args.preset), terminal.console()
    found = try_family(args.family, preset, args.device, options.data_dir(args), terminal.Terminal(to).bar)
    for finding in found:
        to.print(f"{'warning' if finding.level == 'warn' else 'wrong'}: {finding}", soft_wrap=True)
    wrong = sum(finding.level == "refuse" for finding in found)
    to.print(
        f"{args.family}: {wrong} of {len(found)} findings would refuse a launch; task tried with preset {preset!r}."
    )
    return PreflightRefused.exit_code if wrong else DONE
