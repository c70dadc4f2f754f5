"""Write what a winner has learnt as formulas: of a run's best candidate, or of an exported folder.

They are fitted to what the model predicts on val, and scored on test. extract.json, with all digits, goes into the
run's report/, where its page shows it, or into the exported folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tune_rh.cli import options
from tune_rh.errors import DONE, PlanError

if TYPE_CHECKING:
    from rich.table import Table

    from analysis.extraction import Listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See the module."""
    parser.add_argument("what", metavar="RUN|EXPORT", help="a run, or what `tune-rh export` wrote")
    parser.add_argument("--candidate", metavar="ID", help="another candidate of the run than the best (c0007)")
    parser.add_argument("--device", default="cpu", help="as torch spells it (cpu)")
    options.add_places(parser)


def run(args: argparse.Namespace) -> int:
    """See the module."""
    from analysis.extraction import EXTRACT, to_json
    from trainables.files import write_atomic
    from trainables.worker.exported import INDEX
    from tune_rh.cli import terminal
    from tune_rh.results import extracting
    from tune_rh.results.reading import read
    from tune_rh.run import runs

    options.check_device(args.device)
    to = terminal.console()
    if (Path(args.what) / INDEX).is_file():
        if args.candidate is not None:
            raise PlanError("--candidate: is of a run; an exported folder holds one model")
        folder, data_dir = Path(args.what), options.data_dir(args)
        with to.status(f"{args.what}: extracting"):
            found = extracting.of_export(folder, data_dir, args.device)
    else:
        paths = runs.find(args.what, args.runs_dir.absolute())
        reading, data_dir, folder = read(paths), options.data_dir(args, paths), paths.report
        with to.status(f"{args.what}: extracting"):
            found = extracting.of_run(reading, data_dir, args.candidate, args.device)
    for listing in found.extraction.tables:
        to.print(_table(listing))
    to.print(f"{found.member}: {found.extraction.formula}", soft_wrap=True)
    for sentence in found.extraction.says:
        to.print(sentence, soft_wrap=True)
    with terminal.written(folder / EXTRACT, to):
        folder.mkdir(exist_ok=True)
        write_atomic(folder / EXTRACT, to_json(found))
    return DONE


def _table(listing: Listing) -> Table:
    from rich.table import Table

    from analysis.reports.page.extracted import table

    laid_out = table(listing)
    shown = Table(*laid_out.header, title=laid_out.caption)
    for column in shown.columns[laid_out.text_columns :]:
        column.justify = "right"
    for row in laid_out.rows:
        shown.add_row(*(cell.text for cell in row))
    return shown
