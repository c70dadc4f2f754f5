"""Run a plan, or go on with a run, as a Ray Job: the driver runs on the cluster, and its log is followed here."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from tune_rh.cli import options
from tune_rh.plan.file import SHIPPED, find_plan, load_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="a plan file, the name of one that ships, or the name of a run that is to go on")
    parser.add_argument("--address", required=True, help="of the cluster's dashboard (http://HOST:8265)")
    options.add_plan(parser)
    options.add_precautions(parser)
    options.add_no_trial(parser)
    places = {"--runs-dir": "where runs lie, a path of every node", "--data-dir": "where data lies there (beside runs)"}
    for option, summary in places.items():
        parser.add_argument(option, type=_absolute, required=option == "--runs-dir", metavar="DIR", help=summary)
    parser.add_argument(
        "--trust", action="append", default=[], metavar="MODULE", help="upload and import this module for a run"
    )


def run(args: argparse.Namespace) -> int:
    from tune_rh.run.ray.jobs import Job, own_modules, submit

    frozen: Path = args.runs_dir / args.plan / "plan.toml"
    begun = frozen.is_file()
    if begun or not _is_plan(args.plan):
        plan = load_plan(frozen) if begun else None
        name, outside = args.plan, {*args.trust, *(plan.from_outside if plan else ())}
        for module in args.trust:
            import_module(module)
        words = [
            "resume",
            name,
            *_repeated("--set", args.overrides),
            *_repeated("--trust", sorted({*map(_module, outside)})),
        ]
    else:
        plan = load_plan(find_plan(args.plan), options.overrides(args))
        name, outside = plan.name, {*plan.from_outside}
        words = ["search", "plan.toml", *["--no-trial"] * args.no_trial]
    data_dir = args.data_dir or (None if words[0] == "resume" else args.runs_dir.parent / "data")
    words += ["--address", "auto", "--runs-dir", str(args.runs_dir), *_repeated("--data-dir", filter(None, [data_dir]))]
    words += [*_repeated("--accept", args.accept), *["--strict"] * args.strict]
    modules = own_modules(outside, plan.family if plan else "")
    uploaded = "" if words[0] == "resume" or plan is None else plan.toml()
    return submit(Job(name, words, uploaded, modules, {"runs_dir": str(args.runs_dir)}), args.address, print)


def _absolute(text: str) -> Path:
    folder = options.path(text)
    if not folder.is_absolute():
        raise argparse.ArgumentTypeError(f"{text!r}: must be an absolute path, the same on every node of the cluster")
    return folder


def _is_plan(name: str) -> bool:
    return name.endswith(".toml") or Path(name).is_file() or (SHIPPED / f"{name}.toml").is_file()


def _module(reference: str) -> str:
    return reference.partition(":")[0]


def _repeated(option: str, values: Iterable[object]) -> list[str]:
    return [word for value in values for word in (option, str(value))]
