"""A config comes back equal, types and digest included, from everything that it is written to."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from pydantic import ValidationError

from tests.worlds import plans, typed
from tests.worlds.typed import FAMILY, Act, Block, TypedConfig, Width
from trainables.registry import build_config
from trainables.spelling import ambiguous, equal, for_toml, meant, read_config, spelt
from trainables.worker.job import MemberJob
from trainables.worker.report import MemberId
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import explain, load_frozen, override, resolve_plan
from tune_rh.record.events import CandidateAdded, decode, encode

ROOT = Path(__file__).parents[2]


def assert_same(config: TypedConfig, written: Any) -> None:
    again = build_config(FAMILY, written=[written])
    assert equal(again, config), again
    assert again.digest() == config.digest()


def plan(**changes: Any) -> dict[str, Any]:
    return plans.fields(family="tests.worlds.typed:FAMILY", space="tests.worlds.typed:SPACE", **changes)


def inline(value: Any) -> str:
    """A value as TOML on one line, as ``--set`` takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(key)} = {inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")


@settings(max_examples=60)
@given(config=typed.configs)
def test_any_config_comes_back_equal_from_each_way_it_travels(config: TypedConfig) -> None:
    written = spelt(config)
    assert_same(config, json.loads(json.dumps(written, allow_nan=False)))
    assert_same(config, tomllib.loads(tomli_w.dumps(for_toml(written))))
    added = CandidateAdded("c0000", written, config.digest(), "control")
    event = decode(encode(added))
    assert isinstance(event, CandidateAdded)
    assert_same(config, event.config)
    job = MemberJob(
        MemberId("c0000", 1), "typed", written, config.digest(), "m", "d", "val_loss", "min", 1, (1,), "stop", "1.1"
    )
    assert_same(config, MemberJob.from_json(job.to_json()).config)


@settings(max_examples=25)
@given(config=typed.configs)
def test_any_config_comes_back_equal_from_a_plan_and_from_set(
    tmp_path_factory: pytest.TempPathFactory, config: TypedConfig
) -> None:
    file = tmp_path_factory.mktemp("frozen") / "plan.toml"
    named = resolve_plan(plan(control="mine", configs={"mine": {"fields": spelt(config)}}))
    file.write_text(named.toml(), encoding="utf-8")
    read = load_frozen(file)
    assert read.fingerprint() == named.fingerprint()
    assert equal(named_config(read, "mine")[0], config)
    fields = plan()
    for name, value in spelt(config).items():
        override(fields, f"fixed.{name}={inline(for_toml(value))}")
    fixed, _ = named_config(resolve_plan(fields), "control")
    assert equal(fixed, config)
    assert fixed.digest() == config.digest()


def test_the_digest_is_the_same_in_every_process() -> None:
    code = (
        "from tests.worlds.typed import TypedConfig; "
        "print(TypedConfig(tags=frozenset(map(str, range(20))), options={'a': {'x', 'y', 'z'}}).digest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_words_are_as_documented() -> None:
    config = TypedConfig(clip=math.inf, schedule=None, options={"most": -math.inf, "least": math.nan, "name": "@none"})
    assert for_toml(spelt(config)) | {"block": None} == {
        "data": "none", "floor": 0.5, "rate": 0.01, "clip": "@inf", "schedule": "@none", "betas": [0.9, 0.99],
        "act": "relu", "width": 2, "tags": [], "mode": "fast", "block": None, "blocks": [], "either": 1, "places": {},
        "folder": ".", "options": {"most": "@-inf", "least": "@nan", "name": "@text:@none"},
    }  # fmt: skip
    assert meant(["@none", "@text:none", "@other", {"@none": "@inf"}]) == [None, "none", "@other", {"@none": math.inf}]


def test_the_digest_of_a_config_of_plain_values_is_that_of_its_json() -> None:
    expected = hashlib.sha256(b'{"clip":2.5,"kinds":[],"widths":[4]}').hexdigest()
    assert Block(clip=2.5).digest() == expected


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"betas": [0.9, "x"]}, "x: betas.1 = 'x': Input should be a valid number"),
        ({"betas": [0.9]}, "x: betas.1: missing, and has no default"),
        ({"block": {"widths": [1.5]}}, "x: block.widths.0 = 1.5: Input should be a valid integer"),
        ({"block": {"zzz": 1}}, "x: block.zzz = 1: there is no such key"),
        ({"act": "tanh"}, "x: act = 'tanh': Input should be 'relu' or '@none'"),
        ({"floor": True}, "x: floor = True: Input should be a valid number"),
        ({"floor": "@none"}, "x: floor = None: Input should be a valid number"),
        ({"floors": 1.0}, "x: floors = 1.0: there is no such key; is 'floor' meant?"),
    ],
)
def test_what_is_wrong_inside_a_field_is_said_of_that_place(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_config(TypedConfig, fields)
    assert explain(refused.value, "x", TypedConfig) == line


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        read_config(TypedConfig, {"betas": ["x", 0.9], "floor": "y", "other": 1})
    assert {item["loc"] for item in refused.value.errors()} == {("betas", 0), ("floor",), ("other",)}


def test_written_fields_lie_over_values_of_python() -> None:
    over = {"act": Act.NONE, "width": Width.NARROW, "betas": (0.5, 0.5)}
    config = read_config(TypedConfig, {"betas": [0.1, 0.2]}, over)
    assert (config.act, config.width, config.betas) == (Act.NONE, Width.NARROW, (0.1, 0.2))


def test_text_that_may_stand_for_none_is_found_where_the_field_takes_both() -> None:
    fields = {
        "schedule": "None", "clip": "none", "mode": "none", "data": "none", "either": "null",
        "options": {"a": ["nil", {"b": "NULL"}], "c": "other"}, "unknown": "none",
    }  # fmt: skip
    assert set(ambiguous(TypedConfig, fields)) == {
        ("schedule", "None"), ("options.a.0", "nil"), ("options.a.1.b", "NULL"),
    }  # fmt: skip
    assert list(ambiguous(TypedConfig, {"schedule": "@text:none", "options": {"a": "@none"}})) == []
