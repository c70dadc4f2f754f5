"""The cases of malformed input: what is damaged, which command meets it, and when that may still go well."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from tests.faults.mutations import HOSTILE, damaged_file, damaged_folder, damaged_text, damaged_tree
from tests.worlds.plans import fields
from trainables.errors import TrainableError
from trainables.files import read_fields
from trainables.spelling import for_toml
from trainables.worker import checkpoint, exported
from tune_rh.cli.main import main
from tune_rh.plan.file import SHIPPED, load_plan
from tune_rh.simulation import curve_table

FAMILY = "tests.worlds.family:FAMILY"
COMMANDS = ("search", "preflight", "ab", "race", "simulate", "diagnose", "export", "status", "families", "data")
_STAGES = [{"until_step": 20, "num_seeds": 3, "top": 1}, {"until_step": 60, "num_seeds": 3}]
_SIMULATED = fields(
    num_candidates=2, seeds=[7, 42], sampler={"name": "random"}, stages=[{"until_step": 20, "num_seeds": 2}]
)
_PLANS: tuple[dict[str, Any], ...] = (
    fields(
        configs={"mine": {"preset": "good", "fields": {"rate": 0.5, "fail_marker": "x"}, "patience_steps": 20}},
        presets=["mine"],
        references=["good"],
        fixed={"span": 1.5},
        follow_ups=[{"after": 0, "enters": 1, "changes": [{"bend": 0.5}, {"noise": 0.1}]}],
        budget={"max_steps": 5000, "max_slot_hours": 1.5},
        resources={"cpu": 1, "gpu": 0.0, "slots": 2, "max_failures": 1, "price_per_hour": 1.5},
        rules={
            "patience_steps": 40,
            "health": [{"metric": "health", "at_least": -1.0, "in_a_row": 2, "after_step": 10}],
            "stop": {"delta": 0.1, "window": 3, "unless": [{"metric": "health", "rose_by": 0.1}]},
            "promote": {"margin": 0.1, "tolerance": 0.1, "healthier": [{"metric": "health", "factor": 1.5}]},
            "gap": {"first": 0.5, "widening": 0.1},
        },
        audit=1,
        eta=3.0,
        save_every=20,
    ),
    fields(unit="member", num_candidates=0, stages=_STAGES),
    fields(presets=["good"], num_candidates=1, seeds=list(range(8)), stages=[{"until_step": 20, "num_seeds": 8}],
           compare={"test": "t", "alpha": 0.05, "region": 0.01, "bisect": True, "max_probes": 4}),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One command on damaged input.

    Attributes:
        words: the command, as it is shown.
        run: runs it; returns the exit code.
        is_valid: whether it may end with exit code 0: the input still means what it says.
        writes: whether a command that ends well may leave new files.
    """

    words: tuple[str, ...]
    run: Callable[[], int]
    is_valid: Callable[[], bool]
    writes: bool = False


@dataclass(frozen=True)
class World:
    """Sound input, which cases copy: a finished run of the scripted family, its export and its curves."""

    run: Path
    export: Path
    curves: Path
    plan: Path

    @staticmethod
    def at(folder: Path) -> World:
        """Where it lies in ``folder``."""
        return World(folder / "runs" / "scripted", folder / "best", folder / "curves", folder / "plan.toml")

    def make(self) -> int:
        """Run the search; returns the exit code."""
        self.plan.parent.mkdir()
        self.plan.write_text(tomli_w.dumps(_SIMULATED), encoding="utf-8")
        places = ["--runs-dir", str(self.run.parent)]
        for words in (
            ["search", str(self.plan), "--runner", "local", *places, "--no-trial"],
            ["export", "scripted", "--out", str(self.export), *places],
            ["simulate", "--record", "scripted", "--curves", str(self.curves), *places],
        ):
            if code := main(words):
                return code
        return 0


def _command(*words: str, is_valid: Callable[[], bool] = lambda: False) -> Case:
    return Case(words, lambda: main(words), is_valid)


def _plan(rng: Random, world: World, folder: Path) -> Case:
    sources = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(SHIPPED.glob("*.toml"))]
    source = rng.choice((*sources, *_PLANS, *_PLANS, _SIMULATED))
    path = folder / "plan.toml"
    _write(rng, path, source)
    kind = "ab" if "compare" in source else "race" if source.get("unit") == "member" else "search"
    words = rng.choice(
        (
            (kind, "plan.toml", "--dry-run"),
            (kind, "plan.toml", "--dry-run"),
            ("preflight", "plan.toml", "--runner", "local", "--no-trial"),
            ("simulate", "plan.toml", "--curves", str(world.curves), "--repeats", "1"),
        )
    )
    return _command(*words, is_valid=lambda: _keeps(path))


def _write(rng: Random, path: Path, tree: Any) -> None:
    """Write a damaged ``tree`` as TOML, or a sound one whose text or file is damaged."""
    if rng.random() < 0.75:
        try:
            path.write_text(tomli_w.dumps(damaged_tree(rng, tree)), encoding="utf-8")
            return
        except (TypeError, ValueError, AttributeError):
            pass  # TOML has no such value: damage the text instead
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    damaged_file(rng, path)


def _keeps(path: Path) -> bool:
    """Whether each value that a plan's file says is the plan's."""
    plan = json.loads(load_plan(path).model_dump_json())
    return _within(for_toml(read_fields(path, tomllib.loads)), plan)


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole) and isinstance(part, bool) == isinstance(whole, bool)


def _config(rng: Random, world: World, folder: Path) -> Case:
    path = folder / "config.toml"
    _write(rng, path, {"family": FAMILY, "preset": "good", "rate": 0.5, "kind": "bent", "bend": 0.25, "diverge_at": 30})
    words = rng.choice(
        (
            ("ab", "control", "config.toml", "--family", FAMILY, "--steps", "40", "--dry-run"),
            (*_race("config.toml"), "--dry-run"),
        )
    )  # fmt: skip
    return _command(*words, is_valid=lambda: bool(read_fields(path, tomllib.loads)))


def _race(config: str) -> tuple[str, ...]:
    return ("race", FAMILY, "--preset", config, "--seeds", "1", "2", "--steps", "40", "--keep", "1", "--then", "80")


_OPTIONS: tuple[tuple[str, ...], ...] = (
    ("search", "PLAN", "--dry-run", "--set", "num_candidates=3"),
    ("search", "PLAN", "--dry-run", "--set", "stages.0.until_step=20", "--name", "other"),
    ("search", "PLAN", "--dry-run", "--audit", "1", "--set", "sampler.name=random"),
    ("preflight", "PLAN", "--no-trial", "--runner", "local", "--accept", "P20", "--runs-dir", "runs"),
    ("ab", "control", "good", "--family", FAMILY, "--seeds", "8", "--steps", "40", "--alpha", "0.05", "--dry-run"),
    ("ab", "control", "good", "--family", FAMILY, "--region", "0", "--steps", "40", "--eval-every", "10", "--dry-run"),
    (*_race("good"), "--dry-run"),
    (*_race("good"), "--patience", "40", "--success", "0.5", "--eval-every", "20", "--dry-run"),
    ("simulate", "PLAN", "--curves", "CURVES", "--repeats", "1", "--workers", "2", "--seed", "1"),
    ("simulate", "PLAN", "--curves", "CURVES", "--repeats", "1", "--max-steps", "100", "--failures", "0.1",
     "--stragglers", "0.1", "--overhead", "1"),
    ("status", "RUN"),
    ("export", "RUN", "--out", "out", "--candidate", "c0001"),
    ("diagnose", "RUN", "--member", "c0000-s7", "--only", "norms"),
    ("families", FAMILY),
    ("data", FAMILY, "--size", "none"),
)  # fmt: skip


def _option(rng: Random, world: World, folder: Path) -> Case:
    given = {"PLAN": str(world.plan), "CURVES": str(world.curves), "RUN": str(world.run)}
    words = [given.get(word, word) for word in rng.choice(_OPTIONS)]
    at = rng.randrange(1, len(words))
    hostile = str(rng.choice([value for value in HOSTILE if value not in (10**400, [0] * 500)]))
    key, equals, _ = words[at].partition("=")
    how = rng.random()
    if equals and how < 0.6:
        words[at] = (
            f"{key}={hostile}" if how < 0.4 else f"{damaged_text(rng, key.encode()).decode('utf-8', 'replace')}=1"
        )
    elif how < 0.8:
        words[at] = hostile.replace("\0", "")
    elif how < 0.9:
        del words[at]
    else:
        words.insert(at, words[at])
    words = [word.replace("\0", "?") for word in words]
    # An export of the run that was meant may go anywhere.
    is_valid = words[0] != "export" or words[1] == given["RUN"]
    return Case(tuple(words), lambda: main(words), lambda: is_valid, writes=words[0] == "export")


def _config_or_option(rng: Random, world: World, folder: Path) -> Case:
    return rng.choice((_config, _option))(rng, world, folder)


def _export(rng: Random, world: World, folder: Path) -> Case:
    shutil.copytree(world.export, folder / "best")
    how = rng.random()
    if how < 0.5:
        path = folder / "best" / exported.INDEX
        path.write_text(json.dumps(damaged_tree(rng, json.loads(path.read_text())), default=str), encoding="utf-8")
    elif how < 0.6:
        path = folder / "best" / exported.CONFIG
        _write(rng, path, tomllib.loads(path.read_text(encoding="utf-8")))
    elif how < 0.7:
        _falsify_weights(rng, folder / "best")
    else:
        damaged_folder(rng, folder / "best")
    commands = (
        ("diagnose", "best"),
        ("ab", "control", "best", "--family", FAMILY, "--steps", "40", "--dry-run"),
        (*_race("best"), "--dry-run"),
    )  # fmt: skip
    if rng.random() < 0.5:
        return Case(("load", "best"), _documented(lambda: exported.evaluate("best")), lambda: _is_same(folder, world))
    return _command(*rng.choice(commands), is_valid=lambda: _is_same(folder, world))


def _falsify_weights(rng: Random, folder: Path) -> None:
    """Weights whose header does not say the truth, or of another model, under a digest that fits them."""
    path, index = folder / exported.WEIGHTS, json.loads((folder / exported.INDEX).read_text(encoding="utf-8"))
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(damaged_tree(rng, json.loads(content[8 : 8 + size])), default=str).encode()
    claimed = rng.choice((len(header), len(header), 0, 2**63, 2**20))
    content = rng.choice((claimed.to_bytes(8, "little") + header + content[8 + size :], damaged_text(rng, content)))
    path.write_bytes(content)
    index["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / exported.INDEX).write_text(json.dumps(index), encoding="utf-8")


def _documented(read: Callable[[], object]) -> Callable[[], int]:
    """``read`` with the errors that its documentation names as the command line has them."""

    def run() -> int:
        try:
            read()
        except TrainableError as error:
            print(error)
            return 2
        return 0

    return run


def _is_same(folder: Path, world: World) -> bool:
    """Whether an export still says the same family and config; its weights are whatever fits their digest."""
    try:
        found, was = exported.read(folder / "best"), exported.read(world.export)
    except TrainableError:
        return False
    return found.config == was.config and found.index["family"] == was.index["family"]


def _checkpoint(rng: Random, world: World, folder: Path) -> Case:
    shutil.copytree(world.run, folder / "scripted", symlinks=True)
    best = checkpoint.linked(folder / "scripted" / "members" / "c0000-s7" / "checkpoints", "best")
    assert best is not None
    how = rng.random()
    if how < 0.3:
        path = best / checkpoint.INDEX
        path.write_text(json.dumps(damaged_tree(rng, json.loads(path.read_text())), default=str), encoding="utf-8")
    elif how < 0.4:
        (best / checkpoint.STATE).write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    else:
        damaged_folder(rng, best)
    words = ("diagnose", "scripted", "--member", "c0000-s7", "--runs-dir", ".", "--family", FAMILY)
    read = _documented(lambda: checkpoint.load(best))
    return rng.choice((_command(*words), Case(("checkpoint.load", str(best)), read, lambda: False)))


def _curves(rng: Random, world: World, folder: Path) -> Case:
    path = folder / "curves"
    shutil.copyfile(world.curves, path)
    how = rng.random()
    if how < 0.35:
        damaged_file(rng, path)
    elif how < 0.65:
        columns = pq.read_table(path)
        [(key, facts)] = columns.schema.metadata.items()
        text = json.dumps(damaged_tree(rng, json.loads(facts)), default=str).encode()
        pq.write_table(columns.replace_schema_metadata({key: text}), path)
    else:
        _damage_columns(rng, path)
    words = ("simulate", str(world.plan), "--curves", "curves", "--repeats", "1")
    return _command(*words, is_valid=lambda: bool(curve_table.load(path).configs))


def _damage_columns(rng: Random, path: Path) -> None:
    """Rewrite a table of curves with columns missing, renamed, twice, in another order, or with other values."""
    columns = pq.read_table(path)
    metadata, rows = columns.schema.metadata, columns.to_pylist()
    names = columns.schema.names
    match rng.randrange(4):
        case 0:
            columns = columns.drop_columns([rng.choice(names)])
        case 1:
            columns = columns.rename_columns([rng.choice((name, name, name.upper(), "seed")) for name in names])
        case 2:
            columns = columns.select(rng.sample(names, len(names)))
        case _:
            rows = [row for row in damaged_tree(rng, rows) if isinstance(row, dict)]
            try:
                columns = pa.Table.from_pylist(rows, schema=rng.choice((columns.schema, None)))
            except (pa.ArrowException, ValueError, TypeError, OverflowError):
                columns = columns.slice(0, rng.randrange(len(columns)))
    pq.write_table(columns.replace_schema_metadata(metadata), path)


KINDS: Mapping[str, Callable[[Random, World, Path], Case]] = {
    "plans": _plan,
    "configs and options": _config_or_option,
    "exports": _export,
    "checkpoints": _checkpoint,
    "curve tables": _curves,
}
