"""Signals while a session is under way: a clean stop, and what children and a lost terminal have to do with it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from tune_rh.run.session import Session


@contextmanager
def clean_stop(session: Session, say: Callable[[str], object]) -> Iterator[None]:
    """The first of the signals asks for a clean stop; a second one ends the process where it is.

    A SIGHUP that is ignored already stays so: that is what nohup asks for. Outside the main thread signals are left
    alone: Python delivers them to the main thread, which is the caller's.
    """

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        if session.stopping:
            raise KeyboardInterrupt
        session.request_stop()
        with suppress(RuntimeError):  # the signal came in the middle of a line that is being written
            say(f"{signal.Signals(number).name}: saving what runs; again to quit at once")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    _spare_forked_children()
    _taken.update({number: signal.signal(number, stop) for number in numbers})
    try:
        yield
    finally:
        _give_back_signals()


_taken: dict[int, Any] = {}
"""The handlers that were there before ours, by signal; empty while no session holds the signals."""


def _give_back_signals() -> None:
    while _taken:
        signal.signal(*_taken.popitem())


@cache
def _spare_forked_children() -> None:
    """Have children that user code forks be ended by signals as if the search were not there."""
    here = threading.local()

    def before() -> None:
        # A signal that came between the fork and the handlers' return would be lost.
        here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, tuple(_taken))

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, here.mask)

    def after_in_child() -> None:
        _give_back_signals()
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


def _leave_terminal() -> None:
    """After a hang-up the terminal is gone, and every further word to it would be an error; files and pipes stay."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
