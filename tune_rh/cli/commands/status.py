"""What a run has done and is doing; reads the journal, so it works from another terminal while a search runs."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from trainables.worker.heartbeat import Heartbeat, last_beat
from tune_rh.cli import options, slots, tables, terminal
from tune_rh.cli.slots import is_finished
from tune_rh.decide import comparison
from tune_rh.plan.kinds import Comparison
from tune_rh.record.events import MemberId
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import funnel, ranking
from tune_rh.results.lines import passed_over
from tune_rh.results.reading import Reading, Watch, read
from tune_rh.run import runs

_ROWS, _FUNNEL_HEAD = 24, 6


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
                reading = watch.read()
                finished = is_finished(reading.history)
                is_screen = live is not None and reading.is_written and not finished
                view = screen(reading) if is_screen else _view(reading)[0]
                live.update(view, refresh=True) if live is not None else console.print(view)
                if finished:
                    return
            seen = size
            time.sleep(2)


def screen(reading: Reading) -> Group:
    """How the run stands while it is written, in 80 columns and 24 rows; what is too wide for its row is cut off."""
    history, plan = reading.history, reading.history.plan
    head = f"{plan.name}: session {history.session}, {history.num_candidates()}/{plan.num_candidates} candidates"
    rows = [head, *slots.lines(history, _beats(reading)), *slots.losses(history), "", tables.cost_line(history)]
    parts: list[RenderableType] = [Text(row, no_wrap=True, overflow="ellipsis") for row in rows]
    has_funnel = not isinstance(plan, Comparison) and not plan.members_compete
    if has_funnel and len(rows) + len(plan.stages) + _FUNNEL_HEAD <= _ROWS:
        parts.insert(-1, tables.funnel_table(plan, funnel(history)))
    return Group(*parts)


def _view(reading: Reading) -> tuple[Group, bool]:
    """How the run stands, and whether it is finished."""
    history, plan = reading.history, reading.history.plan
    finished = is_finished(history)
    stopped = f"stopped: {runs.resume_command(reading.paths)}"
    state = "finished" if finished else "running" if reading.is_written else stopped
    running = ", ".join(str(member) for member in history.running)
    head = f"{plan.name}: {state}" + (f"; now: {running}" if running else "")
    parts: list[RenderableType] = [head]
    if reading.is_written and not finished:
        parts += map(Text, slots.lines(history, _beats(reading)))
    parts.append(tables.candidates_table(history))
    parts += [passed_over(event) for event in history.skipped]
    parts += reading.run.remarks
    parts += map(Text, tables.alarm_lines(reading.run))
    if isinstance(plan, Comparison):
        parts.append(f"B against A: {comparison.claim(history).verdict}; {comparison.claim(history).reason}")
    elif not plan.members_compete:
        parts.append(tables.funnel_table(plan, funnel(history)))
        if finished:
            parts.append(tables.ranking_table(plan, ranking(history)))
    return Group(*parts, tables.cost_line(history)), finished


def _beats(reading: Reading) -> dict[MemberId, Heartbeat]:
    """The newest heartbeat of each running member that has one."""
    found = {member: last_beat(reading.paths.member(member)) for member in reading.history.running}
    return {member: beat for member, beat in found.items() if beat is not None}
