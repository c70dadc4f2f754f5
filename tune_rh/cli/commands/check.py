"""Try a family as before a search: every preset and space, and one trial round trip of its task, in seconds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from pydantic import ValidationError

from search_spaces.registry import spaces_of
from trainables.api import Family, Finding
from trainables.registry import build_config, dataset_of, get_family
from trainables.trust import trust
from tune_rh.cli import options, terminal
from tune_rh.errors import DONE, PlanError, PreflightRefused
from tune_rh.plan.file import explain
from tune_rh.preflight.inputs import check_config, check_family, check_space
from tune_rh.preflight.trial import try_task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", help="name of a family, or module:attr")
    parser.add_argument("--preset", help="of the task that is tried (default: tiny, or the first there is)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the task is tried (cpu)")
    options.add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.run.execute import make_data

    trust(args.family)
    family, to = get_family(args.family), terminal.console()
    if not family.presets:
        raise PlanError(f"family {args.family}: has no presets, so there is no config to try")
    preset = args.preset or ("tiny" if "tiny" in family.presets else next(iter(family.presets)))
    found = [*check_family(args.family)] or [*_configs(args.family, family)]
    if not any(finding.level == "refuse" for finding in found):
        config, data_dir = build_config(family, preset=preset), options.data_dir(args)
        make_data(family, dataset_of(family, config), data_dir, terminal.Terminal(to))
        found += try_task(family, config, data_dir, device=args.device, wanted=None)
    for finding in found:
        to.print(f"{'warning' if finding.level == 'warn' else 'wrong'}: {finding}", soft_wrap=True)
    wrong = sum(finding.level == "refuse" for finding in found)
    to.print(
        f"{args.family}: {wrong} of {len(found)} findings would refuse a launch; task tried with preset {preset!r}."
    )
    return PreflightRefused.exit_code if wrong else DONE


def _configs(name: str, family: Family) -> Iterator[Finding]:
    for preset in family.presets:
        try:
            yield from check_config(f"preset {preset!r}", build_config(family, preset=preset))
        except ValidationError as error:
            for line in explain(error, "").splitlines():
                yield Finding("P02", f"preset {preset!r}", line.removeprefix(": "))
    for called, space in spaces_of(name).items():
        drawn = check_space(f"space {called!r}", space, partial(build_config, family, preset=space.base))
        yield from drawn.findings
        for config in drawn.configs:
            yield from check_config(f"space {called!r}", config)
