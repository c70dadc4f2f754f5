"""Events and reports: every one survives its line, and what is wrong with any other line is said."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.worker.report import REPORTS, Fields, HandedBack, Number, Report
from tune_rh.record.events import (
    CandidateAdded,
    CandidateId,
    Diagnosed,
    Evaluated,
    Event,
    FindingAccepted,
    FollowUpSkipped,
    Halted,
    JobEnded,
    JobRetried,
    JobStarted,
    MemberId,
    NodeJoined,
    NodeLost,
    PlanChanged,
    Promoted,
    RunCreated,
    SeedAdded,
    SessionEnded,
    SessionStarted,
    SlotsChanged,
    SpaceExhausted,
    decode,
    encode,
)
from tune_rh.record.events import Tested as ReadOfTest

MEMBER = MemberId("c0001", 42)
EVENTS: list[Event] = [
    RunCreated("f" * 64, "d" * 64, 1, "c" * 64),
    FindingAccepted("P20", "save_every", "not set"),
    PlanChanged({"num_candidates": 9, "stages": [{"until_step": 20}]}),
    SessionStarted(1, 1.5, "local", 2),
    CandidateAdded("c0000", {"rate": 0.1, "kind": "plain"}, "e" * 64, "control", "control"),
    CandidateAdded("c0001", {"rate": 0.2}, "a" * 64, "sampler", "", {"rate": 0.2}, {"rate": '{"name": "Float"}'}),
    SpaceExhausted(100),
    CandidateAdded("c0002", {"r": 0.4}, "b" * 64, "follow_up", "c0001 with r = 0.4", parent="c0001", ranked_from=1),
    FollowUpSkipped("c0001", "c0001 with rate = 0.2", "c0001 is the same config"),
    Promoted("c0001", 0, "quota", 0.25, 1, 9),
    Promoted("c0000", 1, "control", None, 0, 0),
    Promoted("c0000", 0, "top", 0.25, 1, 4, seed=42),
    Promoted("c0001", 1, "value", 0.25, 0, 4, gain=0.5, towards=3),
    CandidateAdded("c0002", {}, "digest", "sampler", gain=1e-300, towards=0),
    SeedAdded("c0001", 0, 1337, 0.5),
    JobStarted(MEMBER, 1, 60, 2.5),
    JobStarted(MEMBER, 2, 120, 2.5, "test", "h1"),
    JobRetried(MEMBER, 50, "h1", 4711, "node", "The actor died.", 3.0),
    JobRetried(MEMBER, 50, "h1", 4711, "oom", "out of memory: 2,560 MiB (2.50 GiB) asked for", 3.0),
    Evaluated(MEMBER, 10, {"val_loss": 0.5, "train_loss": -1e-300}, 1.0, 0.5),
    Evaluated(MEMBER, 15, {"val_loss": 0.5}, 1.0, 0.5, repeated_s=2.5),
    Evaluated(MEMBER, 20, {"a": math.nan, "b": math.inf, "c": -math.inf}, 1.0, 0.5, diverged=True),
    ReadOfTest(MEMBER, 110, {"test_loss": math.nan}, 0.25),
    Diagnosed(MEMBER, 110, {"permutation": "pass"}, 4.5),
    Halted((MEMBER, MemberId("c0008", 42)), "KeyError: 'a' (mine.py:3)\n\nTraceback", 3.5),
    JobEnded(MEMBER, "failed", 'Traceback "x"\n\tünïcode 日本\u2028', 3.5),
    NodeJoined("h3", 3.5),
    NodeLost("h1", 3.5),
    SlotsChanged(2, 3.5),
    SessionEnded(1, 4.5, "interrupted"),
]


def same(one: Event, two: Event) -> bool:
    """Equal, and NaN equals NaN."""
    return repr(one) == repr(two)


def test_there_is_an_example_of_every_event() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_survives_its_line(event: Event) -> None:
    line = encode(event)
    assert "\n" not in line
    assert same(decode(line), event)
    assert encode(decode(line)) == line
    # Strict JSON: no bare NaN or Infinity.
    json.loads(line, parse_constant=lambda name: pytest.fail(name))


TEXTS = st.text(max_size=20)
NUMBERS = st.floats()
CANDIDATES = st.from_regex(r"c[0-9]{4,9}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.builds(MemberId, CANDIDATES, st.integers(0, 2**63 - 1))
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(-(2**53), 2**53),
    bool: st.booleans(),
    Number: NUMBERS,
    CandidateId: CANDIDATES,
    MemberId: MEMBERS,
    tuple[MemberId, ...]: st.lists(MEMBERS, max_size=3).map(tuple),
    Fields: st.dictionaries(TEXTS, JSON, max_size=3),
    Mapping[str, str]: st.dictionaries(TEXTS, TEXTS, max_size=3),
    Mapping[str, int]: st.dictionaries(TEXTS, st.integers(0, 100), max_size=3),
    Mapping[str, Number]: st.dictionaries(TEXTS, NUMBERS, max_size=5),
}


def drawn(kind: Any) -> st.SearchStrategy[Any]:
    """What a field of that type may hold."""
    if kind in FIELDS:
        return FIELDS[kind]
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    return st.one_of([st.none() if one is NoneType else drawn(one) for one in get_args(kind)])


def any_of(union: Any) -> st.SearchStrategy[Any]:
    """Any object of any kind in ``union``."""
    kinds = [(kind, get_type_hints(kind, include_extras=True)) for kind in get_args(union)]
    return st.one_of([st.builds(kind, **{name: drawn(hint) for name, hint in hints.items()}) for kind, hints in kinds])


@given(any_of(Event))
def test_any_event_survives_its_line(event: Event) -> None:
    line = encode(event)
    assert "\n" not in line
    assert line.isascii()
    assert same(decode(line), event)
    assert same(decode(line.encode()), event)
    json.loads(line, parse_constant=lambda name: pytest.fail(name))


@given(any_of(Report))
def test_any_report_survives_its_line_and_is_the_event(report: Report) -> None:
    line = REPORTS.encode(report)
    assert same(REPORTS.decode(line), report)
    if not isinstance(report, HandedBack):
        assert encode(report) == line


def test_the_journal_can_be_read_by_people() -> None:
    event = Evaluated(MEMBER, 20, {"val_loss": math.nan, "lr": 0.1}, 1.5, 0.5)
    assert encode(event) == (
        '{"event":"Evaluated","member":"c0001-s42","step":20,"metrics":{"val_loss":"NaN","lr":0.1},'
        '"train_s":1.5,"eval_s":0.5,"diverged":false}'
    )


@pytest.mark.parametrize(
    "event",
    [
        CandidateAdded("c0001", {"rate": math.inf}, "d", "sampler"),
        CandidateAdded("c0001", {"rates": [{"low": math.nan}]}, "d", "sampler"),
        JobEnded("c0001-s42", "failed", "", 0.0),  # type: ignore[arg-type]
        Evaluated(MEMBER, 10.0, {}, 0.0, 0.0),  # type: ignore[arg-type]
        Evaluated(MEMBER, 10, {"val_loss": "low"}, 0.0, 0.0),  # type: ignore[dict-item]
        JobStarted(MEMBER, 0, 20, 0.0, "look"),  # type: ignore[arg-type]
    ],
)
def test_what_could_not_be_read_back_is_not_written(event: Event) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(event)


def test_a_member_id_survives_its_text() -> None:
    member = MemberId("c0007", 42)
    assert str(member) == "c0007-s42"
    assert MemberId.parse("c0007-s42") == member


@pytest.mark.parametrize(
    "text", ["", "c0007", "c7-s1", "../c0007-s1", "c0007-s-1", "c0007-s1/..", "c0007-s٤", "c0007-s1\n"]
)
def test_nothing_else_is_a_member(text: str) -> None:
    with pytest.raises(ValueError, match="is no member: it is written c0007-s42"):
        MemberId.parse(text)


@pytest.mark.parametrize("text", ["../../c0001", "c0001/..", "", "c٤٤٤٤"])
def test_a_candidate_of_another_name_is_not_read(text: str) -> None:
    line = json.dumps(json.loads(encode(CandidateAdded("c0001", {}, "d", "sampler"))) | {"candidate": text})
    with pytest.raises(ValueError, match=r"^CandidateAdded\.candidate: String should match pattern"):
        decode(line)


def evaluated(**changes: Any) -> str:
    return json.dumps(json.loads(encode(Evaluated(MEMBER, 1, {}, 1.0, 1.0))) | changes)


BAD = {
    "": "Invalid JSON: EOF",
    "{": "Invalid JSON: EOF",
    "null": "Input should be an object",
    "[]": "Input should be an object",
    "3": "Input should be an object",
    "{}": "Unable to extract tag using discriminator 'event'",
    '{"event":"Nonsense"}': "Input tag 'Nonsense' found using 'event' does not match",
    '{"event":["Evaluated"]}': "Input tag '.*' found using 'event' does not match",
    '{"event":"SpaceExhausted"}': r"SpaceExhausted\.draws: Field required",
    '{"event":"SpaceExhausted","draws":1,"more":2}': r"SpaceExhausted\.more: Unexpected keyword argument",
    '{"event":"SpaceExhausted","draws":"1"}': r"SpaceExhausted\.draws: Input should be a valid integer",
    '{"event":"SpaceExhausted","draws":true}': r"SpaceExhausted\.draws: Input should be a valid integer",
    evaluated(metrics=5): r"Evaluated\.metrics: Input should be an object",
    evaluated(metrics={"a": []}): r"Evaluated\.metrics\.a: Input should be a number, 'NaN', 'Infinity' or '-Infinity'",
    evaluated(metrics={"a": "1.5"}): r"Evaluated\.metrics\.a: Input should be a number",
    evaluated(metrics={"a": math.nan}): r"Evaluated\.metrics\.a: Input should be a number",
    evaluated(member="c0001"): r"Evaluated\.member: 'c0001' is no member: it is written c0007-s42",
    evaluated(member=["c0001", 42]): r"Evaluated\.member: Input should be a valid string",
}


@pytest.mark.parametrize(("line", "message"), BAD.items())
def test_anything_else_is_no_event(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        decode(line)
