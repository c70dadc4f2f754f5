"""What a failed job says first: the exception's first line, and where in the user's code it was raised;
and the tries of jobs that were lost.
"""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path

import pytest

from tests.worlds.plans import fold, plan
from tune_rh.record.events import CandidateAdded, JobEnded, JobRetried, JobStarted, LossCause, MemberId, NodeLost
from tune_rh.record.failure import describe_loss, headline

SOURCE = """
import json


def plain():
    raise RuntimeError("boom\\n  at step five\\n\\nand more")


def in_library():
    json.loads("{")


def chained():
    try:
        plain()
    except RuntimeError as error:
        raise ValueError("after it") from error


def on_the_next_line():
    raise RuntimeError("\\nboom")


def without_message():
    raise KeyError


def looks_like_a_traceback():
    raise RuntimeError('worker died:\\n  File "other.py", line 7, in f\\nValueError: inner')
"""


def failure(folder: Path, name: str) -> str:
    file = folder / "mine.py"
    file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("mine", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        getattr(module, name)()
    except (RuntimeError, ValueError, KeyError):
        return traceback.format_exc()
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "said", "line"),
    [
        ("plain", "RuntimeError: boom", 6),
        ("in_library", "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: ", 10),
        ("chained", "ValueError: after it", 17),
        ("on_the_next_line", "RuntimeError: boom", 21),
        ("without_message", "KeyError", 25),
        ("looks_like_a_traceback", "RuntimeError: worker died:", 29),
    ],
)
def test_the_first_line_of_the_exception_with_the_frame_of_the_user(
    tmp_path: Path, name: str, said: str, line: int
) -> None:
    found = headline(failure(tmp_path, name))
    assert found.startswith(said)
    assert found.endswith(f"({tmp_path}/mine.py:{line})")
    assert "\n" not in found


@pytest.mark.parametrize("wrapped", ["Failure # 1 (occurred at 2026-01-01)\n{}", "{}\n\n"])
def test_of_a_worker_of_ray(wrapped: str) -> None:
    error = (
        (
            "\x1b[36mray::Member.train()\x1b[39m (pid=7, ip=127.0.0.1, actor_id=a)\n"
            '  File "/v/lib/python3.11/site-packages/ray/tune/trainable/trainable.py", line 330, in train\n'
            "    raise skipped from exception_cause(skipped)\n"
            '  File "/home/me/mine.py", line 29, in step\n'
            '    raise RuntimeError("boom")\n'
            "RuntimeError: boom\n  at step five"
        )
        .replace("\x1b[36m", "")
        .replace("\x1b[39m", "")
    )
    assert headline(wrapped.format(error)) == "RuntimeError: boom (/home/me/mine.py:29)"


def test_of_a_family_that_is_installed_it_is_the_first_frame_of_its_own() -> None:
    lib = "/v/lib/python3.11/site-packages"
    error = (
        "Traceback (most recent call last):\n"
        f'  File "{Path(__file__).parents[2]}/trainables/worker/member.py", line 90, in _train\n    x\n'
        f'  File "{lib}/mine/task.py", line 3, in step\n    y\n'
        f'  File "{lib}/torch/nn/functional.py", line 9, in linear\n    z\n'
        "RuntimeError: shapes"
    )
    assert headline(error) == f"RuntimeError: shapes ({lib}/mine/task.py:3)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("", "no message"),
        ("the trial ended\n\n", "the trial ended"),
        ("a\nb", "b"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
    ],
)
def test_of_what_is_no_traceback_it_is_the_last_line(error: str, said: str) -> None:
    assert headline(error) == said


# --- tries that were lost ---------------------------------------------------------------------------------------------

ONE, TWO = MemberId("c0000", 7), MemberId("c0002", 7)


def lost(cause: LossCause, member: MemberId = TWO, node: str = "h1") -> JobRetried:
    return JobRetried(member, 50, node, 4711, cause, "RuntimeError: no (mine.py:3)", 0.0)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (lost("node"), "h1 is gone; c0002-s7 goes on from 50 when a slot is free"),
        (lost("node", node=""), "a machine is gone; c0002-s7 goes on from 50 when a slot is free"),
        (lost("preempted"), "h1 is leaving; c0002-s7 goes on from 50 when a slot is free"),
        (lost("actor"), "c0002-s7  its worker 4711 on h1 is gone; goes on from 50"),
        (lost("exception"), "c0002-s7  failed on h1, goes on from 50: RuntimeError: no (mine.py:3)"),
        (lost("oom"), "c0002-s7  failed on h1, goes on from 50: RuntimeError: no (mine.py:3)"),
        (lost("storage", node=""), "c0002-s7  failed, goes on from 50: RuntimeError: no (mine.py:3)"),
    ],
)
def test_a_loss_in_one_line(event: JobRetried, line: str) -> None:
    assert describe_loss(event) == line


def test_losses_are_counted_job_by_job_and_by_whose_fault_they_are() -> None:
    history = fold(plan(), [CandidateAdded("c0000", {}, "d", "control")])
    assert list(history.losses.summary()) == []
    history.apply(JobStarted(ONE, 0, 20, 0.0))
    for cause in ("exception", "node", "actor", "exception", "preempted", "node", "storage", "oom"):
        history.apply(lost(cause, ONE))  # type: ignore[arg-type]
    assert list(history.running) == [ONE]
    assert history.losses.of_job(ONE, "exception") == history.losses.of_job(ONE, "oom") == 3
    assert {history.losses.of_job(ONE, cause) for cause in ("actor", "node", "preempted", "storage")} == {5}  # type: ignore[arg-type]
    assert history.losses.of_job(TWO, "exception") == 0
    assert list(history.losses.summary()) == [
        "Tries of jobs that were lost and begun again: 2 raised an exception, 2 lost their machine, 1 lost their "
        "worker, 1 left a machine that was taken away, 1 could not read or write, 1 ran out of memory."
    ]
    for node in ("h1", "h2", "h1"):
        history.apply(NodeLost(node, 0.0))
    assert list(history.losses.summary())[1:] == ["Machines that went: h1, h2."]
    history.apply(JobEnded(ONE, "parked", "", 0.0))
    history.apply(JobStarted(ONE, 0, 20, 0.0))
    assert history.losses.of_job(ONE, "exception") == history.losses.of_job(ONE, "node") == 0
    assert len(history.losses.all) == 8
