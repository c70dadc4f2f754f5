"""The command line. A command's module is imported only when it is chosen, so that ``--help`` loads nothing heavy."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from analysis.escape import brief, printable
from trainables.trust import trust
from tune_rh import __version__

_OURS = ("tune_rh", "trainables", "analysis", "search_spaces")

COMMANDS = {
    "new": "write a task and a plan to start from, which run as they are",
    "search": "run the search that a plan describes",
    "preflight": "check a plan, its data and this machine, and launch nothing",
    "resume": "go on with a run after Ctrl-C, a crash or a power cut",
    "submit": "run a plan, or go on with a run, as a Ray Job: the driver runs on the cluster",
    "race": "race seeds of one config: the best members go on",
    "ab": "compare config B with A, seed by seed; --bisect finds what made it worse",
    "simulate": "the same policy on recorded curves, under a virtual clock",
    "status": "what a run has done and is doing",
    "report": "one page of what a run found, and how much of it is real",
    "advise": "what a run's own curves would have wished of its gates and seeds",
    "serve": "the same page, which follows the run while it goes on",
    "diagnose": "what a run's survivors have learnt, and which wins are hollow",
    "extract": "what a winner has learnt, as a formula, and how much of its gain that keeps",
    "export": "take the best config away, with its evidence",
    "generate": "go on with a text by an exported language model",
    "metrics-config": "files by which Prometheus and Grafana show what searches on Ray do",
    "data": "make the data set of a family",
    "check": "try a family of models as before a search",
    "families": "families of models, with their presets and spaces",
    "completion": "the script by which bash or zsh completes this command",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (`tune_rh.errors` lists them)."""
    words = list(sys.argv[1:] if argv is None else argv)
    listing = "\n".join(f"  {name:<15} {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tune-rh",
        description="Hyperparameter search on Ray Tune that spends accelerator time on experiments that earn it.",
        epilog=f"commands:\n{listing}\n\n`tune-rh COMMAND --help` says more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="tune-rh [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"tune-rh {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    if not words:
        parser.print_help()
        return 2
    chosen = parser.parse_args(words[:1]).command
    module = import_module(f"tune_rh.cli.commands.{chosen.replace('-', '_')}")
    command = argparse.ArgumentParser(prog=f"tune-rh {chosen}", description=module.__doc__)
    module.add_arguments(command)
    args = command.parse_args(words[1:])
    trust(*getattr(args, "trust", ()), *filter(None, [getattr(args, "family", None)]))
    with suppress(FileNotFoundError):
        # Families of one's own may lie where the command is typed; last, so that they shadow nothing.
        sys.path += {os.getcwd()} - set(sys.path)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the terminal or the log cannot spell a sign (LC_ALL=C), a question mark beats losing the table.
        sys.stdout.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _plainly(warnings.showwarning)
        code = _guarded(module.run, args)
    try:
        sys.stdout.flush()
    except OSError as error:
        _tell(f"warning: some of the output is lost ({error.strerror})")
        _drop_output()
    return code


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    from trainables.errors import TrainableError
    from tune_rh.errors import DONE, INTERRUPTED, RunError, TuneError, storage_problem

    try:
        return run(args)
    except (TuneError, TrainableError) as error:
        _tell(str(error))
        return error.exit_code if isinstance(error, TuneError) else TuneError.exit_code
    except KeyboardInterrupt:
        _tell("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough. What is still buffered has nowhere to go.
        _drop_output()
        return DONE
    except OSError as error:
        # A path that was given cannot be read or written: its name is all that helps, a traceback nothing.
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _tell(f"{where}{error.strerror or error}")
        return RunError.exit_code if storage_problem(error) else TuneError.exit_code


def _tell(text: str) -> None:
    with suppress(OSError):  # where the log's disk is full as well
        print(f"tune-rh: {printable(brief(text))}", file=sys.stderr)


def _drop_output() -> None:
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plainly(show: Callable[..., None]) -> Callable[..., None]:
    """``warnings.showwarning``: warnings of ours as lines of tune-rh, those of libraries as ``show`` has them."""
    here = Path(__file__).parents[2]

    def show_plainly(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
        path = Path(filename)
        if path.is_relative_to(here) and path.relative_to(here).parts[0] in _OURS:
            _tell(f"warning: {message}")
        else:
            show(message, category, filename, *more)

    return show_plainly


if __name__ == "__main__":
    sys.exit(main())
