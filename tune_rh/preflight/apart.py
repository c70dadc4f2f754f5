"""Code of the user's in a process of its own: nothing of it is left, neither state nor memory nor what it has started.

The process leads a group, so that those it starts end with it. Its answer is a file: a pipe stays open for as long as
one of those holds it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from trainables.api import Finding

_LIMIT_S = 1800.0


def apart(work: Callable[[], list[Finding]], limit_s: float = _LIMIT_S) -> list[Finding]:
    """What ``work`` returns, done in a fork of this process, with its modules; T00 where the fork is what ends."""
    with tempfile.TemporaryFile() as answer:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _answer(work, answer, limit_s)
        with suppress(OSError):  # it may have done so itself
            os.setpgid(child, child)
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGALRM:
            return [Finding("T00", "task", f"is still tried after {limit_s:g} s; --no-trial leaves that out")]
        answer.seek(0)
        found = answer.read()
        if code or not found:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return [Finding("T00", "task", f"ends the process that tries it ({how})")]
    findings: list[Finding] = pickle.loads(found)
    return findings


def _answer(work: Callable[[], list[Finding]], answer: IO[bytes], limit_s: float) -> None:
    """In the forked process, which ends here."""
    code = 1
    try:
        os.setpgid(0, 0)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(name, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        with open(os.devnull, "rb") as nothing:  # a question to the user would wait for ever
            os.dup2(nothing.fileno(), 0)
        import torch

        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        pickle.dump(work(), answer)
        answer.flush()
        code = 0
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
