"""Make the data set of a family, or list those there are. What is there and sound is kept; what was cut off goes on."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainables.api import CorpusSource, DataSetInfo, Family
from trainables.errors import DataCorrupt, DataMissing
from trainables.registry import get_family
from tune_rh.cli import options, terminal
from tune_rh.errors import PlanError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", help="name of a family (tune-rh families)")
    parser.add_argument(
        "--size", "--corpus", metavar="NAME", help="which data set; without it, those there are are listed"
    )
    parser.add_argument("--vocab-size", type=int, metavar="N", help="text: tokens of its vocabulary (4,096 if trained)")
    parser.add_argument(
        "--folder", type=options.path, metavar="PATH", help="text of your own: .txt, .md, .json, .jsonl, .parquet"
    )
    parser.add_argument("--name", help="what the data set of --folder is called")
    parser.add_argument(
        "--text-field", metavar="FIELD", help="field of JSON, or column of parquet, with the text (text)"
    )
    options.add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    from tune_rh.run.runs import data_source, make_data

    family = get_family(args.family)
    source = data_source(family)
    folder = options.data_dir(args)
    to = terminal.console()
    _check_options(args, family, isinstance(source, CorpusSource))
    if args.folder is not None:
        name, path = args.name, _make_of_folder(args, family, folder, to)
    elif args.size is None:
        to.print(_table(_listed(family, folder)))
        return 0
    else:
        name = args.size
        if isinstance(source, CorpusSource):
            name = name if args.vocab_size is None else source.set_name(name, args.vocab_size)
        elif name not in source.names:
            raise PlanError(f"--size {name}: {family.name} has the data sets {', '.join(source.names)}")
        path = make_data(family, name, folder, terminal.Terminal(to).bar)
    to.print(f"{path}  sha256 {source.digest(name, folder)}", soft_wrap=True)
    info = next(info for info in _listed(family, folder) if info.name == name)
    for line in info.details:
        to.print(line, soft_wrap=True)
    return 0


def _listed(family: Family, data_dir: Path) -> tuple[DataSetInfo, ...]:
    """The data sets of a family, and whether each is made."""
    from tune_rh.run.runs import data_source

    source = data_source(family)
    if isinstance(source, CorpusSource):
        return source.sets(data_dir)
    infos = []
    for name in source.names:
        try:
            source.digest(name, data_dir)
            state = "made"
        except DataMissing:
            state = "not made"
        except DataCorrupt:
            state = "damaged"
        infos.append(DataSetInfo(name, "", "", 0.0, state))
    return tuple(infos)


def _check_options(args: argparse.Namespace, family: Family, is_text: bool) -> None:
    """Raise `PlanError` for options that do not go together."""
    if not is_text:
        given = [name for name in ("vocab_size", "folder", "name", "text_field") if getattr(args, name) is not None]
        if given:
            spelled = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise PlanError(f"{spelled}: for text only; the data sets of {family.name} are chosen with --size")
    if args.folder is not None and args.size is not None:
        raise PlanError(f"--folder {args.folder} and --corpus {args.size}: choose one of them")
    if (args.folder is None) != (args.name is None):
        raise PlanError("--folder PATH and --name NAME: one needs the other")
    if args.text_field is not None and args.folder is None:
        raise PlanError(f"--text-field {args.text_field}: belongs to --folder")
    if args.vocab_size is not None and args.folder is None and args.size is None:
        raise PlanError(f"--vocab-size {args.vocab_size}: belongs to --corpus or --folder")


def _make_of_folder(args: argparse.Namespace, family: Family, data_dir: Path, to: Console) -> Path:
    from tune_rh.run.runs import data_source

    source = data_source(family)
    assert isinstance(source, CorpusSource)
    options = {"vocab_size": args.vocab_size, "text_field": args.text_field or "text"}
    with terminal.Terminal(to).bar(f"{family.name} {args.name}") as progress:
        return source.prepare_folder(args.folder, args.name, data_dir, progress=progress, **options)


def _table(infos: tuple[DataSetInfo, ...]) -> Table:
    """A row a data set; columns that say nothing of any of them are left out."""
    columns = {
        "data set": [info.name for info in infos],
        "what it is": [info.summary for info in infos],
        "MB": [f"{info.megabytes:.3g}" if info.megabytes else "" for info in infos],
        "licence": [info.licence for info in infos],
        "state": [info.state for info in infos],
    }
    columns = {title: cells for title, cells in columns.items() if any(cells)}
    table = Table()
    for title in columns:
        table.add_column(title, justify="right" if title == "MB" else "left", no_wrap=title == "data set")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table
