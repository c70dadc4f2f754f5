"""One worker at a time moves a member: a newer lease takes it over, and an older one leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainables.worker.test_member import advance, job, kept, logged, train
from trainables.errors import LeaseLost
from trainables.worker import member
from trainables.worker.member import MemberRun
from trainables.worker.report import HandedBack


def test_a_worker_whose_lease_was_replaced_gives_up(tmp_path: Path) -> None:
    given = job(tmp_path, config={"noise": 0.0})
    old = MemberRun(given)
    train(old, 20)
    new = MemberRun(replace(given, lease="2.1", from_step=20))
    before = (logged(given), kept(given))
    with pytest.raises(LeaseLost, match=r"taken over by '2\.1'; this worker \('1\.\d+'\) gives up"):
        old.advance()
    old._saved_step = -1
    with pytest.raises(LeaseLost):
        old.save()
    assert (logged(given), kept(given)) == before
    assert advance(new).step == 30


def test_a_worker_that_was_replaced_stops_within_its_interval_and_leaves_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "_STOP_POLL_S", 0.0)
    given = job(tmp_path, config={"noise": 0.0})
    old = MemberRun(given)
    train(old, 20)
    MemberRun(replace(given, lease="2.1", from_step=20))
    before = logged(given)
    with pytest.raises(LeaseLost):
        old.advance()
    assert (old.step, logged(given)) == (20, before)


def test_an_older_lease_of_the_same_driver_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    given = job(tmp_path, lease="d.10")
    MemberRun(given)
    for lease in ("d.9", "d.2"):
        with pytest.raises(LeaseLost, match=rf"taken over by 'd\.10'; this worker \('{lease}'\) gives up"):
            MemberRun(replace(given, lease=lease))
    for lease in ("d.11", "e.1"):  # a driver that came later begins anew
        MemberRun(replace(given, lease=lease))


def test_a_request_to_hand_back_is_to_one_worker_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_STOP_POLL_S", 0.0)
    given = job(tmp_path)
    run = MemberRun(given)
    train(run, 10)
    given.hand_back_request.touch()
    assert run.advance() == HandedBack(given.member, 10)
    again = MemberRun(replace(given, lease="2.1", from_step=10))
    assert advance(again).step == 20
