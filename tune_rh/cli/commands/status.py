"""What a run has done and is doing; reads the journal, so it works from another terminal while a search runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from trainables.errors import UnknownFamily
from trainables.worker.heartbeat import last_beat
from tune_rh.cli import options, tables, terminal
from tune_rh.decide import comparison
from tune_rh.decide.scheduler import Finish, scheduler_of
from tune_rh.errors import PlanError
from tune_rh.plan.kinds import Comparison
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import funnel, ranking
from tune_rh.results.reading import Reading, Watch, read
from tune_rh.run import runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name of a run, or its folder")
    parser.add_argument(
        "--watch", action="store_true", help="refresh every two seconds until the run is finished, or Ctrl-C"
    )
    options.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    paths = runs.find(args.run, args.runs_dir.absolute())
    console = terminal.console()
    if args.watch:
        with suppress(KeyboardInterrupt):
            _watch(paths, console)
    else:
        console.print(_view(read(paths))[0], soft_wrap=True)  # the command in it must stay on one line
    return 0


def _watch(paths: RunPaths, console: Console) -> None:
    """Until the run is finished. Where there is no terminal to write over, what has changed is printed below."""
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    watch, seen = Watch(paths), -1
    with live or nullcontext():
        while True:
            size = paths.journal.stat().st_size
            if live is not None or size != seen:
                view, finished = _view(watch.read())
                live.update(view, refresh=True) if live is not None else console.print(view)
                if finished:
                    return
            seen = size
            time.sleep(2)


def _view(reading: Reading) -> tuple[Group, bool]:
    """How the run stands, and whether it is finished."""
    history, plan = reading.history, reading.history.plan
    finished = _is_finished(history)
    stopped = f"stopped: {runs.resume_command(reading.paths)}"
    state = "finished" if finished else "running" if reading.is_written else stopped
    running = ", ".join(str(member) for member in history.running)
    head = f"{plan.name}: {state}" + (f"; now: {running}" if running else "")
    parts: list[RenderableType] = [head, *_beats(reading), tables.candidates_table(history)]
    parts += [tables.passed_over(event) for event in history.skipped]
    parts += reading.run.remarks
    parts += map(Text, tables.alarm_lines(reading.run))
    if isinstance(plan, Comparison):
        parts.append(f"B against A: {comparison.claim(history).verdict}; {comparison.claim(history).reason}")
    elif not plan.members_compete:
        parts.append(tables.funnel_table(plan, funnel(history)))
        if finished:
            parts.append(tables.ranking_table(plan, ranking(history)))
    return Group(*parts, tables.cost_line(history)), finished


def _beats(reading: Reading) -> Iterator[Text]:
    """Where each running member stands between its reports."""
    for member in reading.history.running if reading.is_written else ():
        beat = last_beat(reading.paths.member(member))
        if beat is not None:
            rate = (
                f"{beat.steps_per_s:.1f} steps/s" if beat.tokens_per_s is None else f"{beat.tokens_per_s:,.0f} tokens/s"
            )
            if beat.mem_limit_mib is not None and beat.mem_reserved_mib is not None:
                rate += f", {beat.mem_reserved_mib:,.0f} of {beat.mem_limit_mib:,.0f} MiB"
            ago = max(0.0, time.time() - beat.time)
            yield Text(f"{member}  step {beat.step}, {rate}, loss {beat.smoothed_loss:.4f}; heard of {ago:.0f} s ago")


def _is_finished(history: History) -> bool:
    """Whether nothing is left to run, also where the driver was killed before it said so."""
    try:
        return history.ended == "finished" or isinstance(scheduler_of(history.plan).next(history), Finish)
    except (UnknownFamily, PlanError):
        return False  # a scheduler from outside, or a family that a bisection needs for its next config, is not there
