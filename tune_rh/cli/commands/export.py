"""Take the best config of a run away: config, weights, metrics on val and test, seeds, provenance, a model card."""

from __future__ import annotations

import argparse
import shlex

from tune_rh.cli import options, terminal
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or its folder")
    parser.add_argument("--out", type=options.path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--candidate", metavar="ID", help="another candidate than the best (c0007)")
    parser.add_argument("--despite", action="store_true", help="also if it fails a diagnostic that the plan requires")
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.results.export import export
    from tune_rh.results.reading import read
    from tune_rh.results.reporting import run_baselines

    paths = runs.find(args.run, args.runs_dir.absolute())
    reading, data_dir = read(paths), options.data_dir(args, paths)
    baselines, _ = run_baselines(reading, data_dir, keep=False)
    companions = runs.companions(reading.history.plan, data_dir)
    chosen = export(paths, reading.history, args.out, args.candidate, baselines, args.despite, companions)
    to = terminal.console()
    to.print(f"{chosen.candidate} ({chosen.label}) exported to {args.out}", soft_wrap=True)
    code = f"import trainables; print(trainables.load({str(args.out)!r}))"
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    to.print(f"  python -c {quoted}", soft_wrap=True)
    return 0
