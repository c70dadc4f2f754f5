"""A plan is refused by field, value and what is allowed; a sound one survives its file and keeps its fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.worlds.plans import fields, plan
from tune_rh.errors import PlanError
from tune_rh.plan.file import find_plan, load_plan, resolve_plan
from tune_rh.plan.kinds import Search
from tune_rh.run.preflight import check_plan


def stages(*pairs: tuple[int, int], **first: Any) -> list[dict[str, Any]]:
    rows = [{"until_step": until, "num_seeds": seeds} for until, seeds in pairs]
    return [{**rows[0], **first}, *rows[1:]]


TWO = ((20, 2), (60, 2))
AROUND: dict[str, Any] = {"after": 0, "changes": [{"rate": 0.5}]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, ["colour = 'red'", "there is no such key"]),
        ({"stages": stages(*TWO, depth=3)}, ["stages.0.depth = 3", "there is no such key"]),
        ({"budget": {"hours": 3}}, ["budget.hours = 3", "there is no such key"]),
        ({"num_candidates": "9"}, ["num_candidates = '9'", "valid integer"]),
        ({"num_candidates": True}, ["num_candidates = True", "valid integer"]),
        ({"num_candidates": 2.5}, ["num_candidates = 2.5", "valid integer"]),
        ({"num_candidates": -1}, ["num_candidates = -1", "greater than or equal to 0"]),
        ({"num_candidates": 0}, ["num_candidates = 0", "the control alone is no search"]),
        ({"space": "", "presets": ["good"]}, ["num_candidates = 9", "no space to draw from"]),
        ({"seeds": [7, True]}, ["seeds.1 = True", "valid integer"]),
        ({"seeds": [7, -1, 3]}, ["seeds.1 = -1", "greater than or equal to 0"]),
        ({"eta": "3"}, ["eta = '3'", "valid number"]),
        ({"eta": 1}, ["eta = 1", "greater than 1"]),
        ({"name": "a/b"}, ["name = 'a/b'", "match pattern"]),
        ({"schema_version": 2}, ["schema_version = 2", "1"]),
        ({"sampler": {"name": "bayes"}}, ["sampler.name = 'bayes'", "'tpe', 'tpe-extrapolating', 'random'"]),
        ({"stages": []}, ["stages = []", "at least 1 item"]),
        ({"stages": stages((20, 2), (20, 2))}, ["stages[1].until_step = 20", "above 20", "more seeds than its 2"]),
        ({"stages": stages((60, 2), (20, 2))}, ["stages[1].until_step = 20", "above 60"]),
        ({"stages": stages((20, 2), (60, 1))}, ["stages[1].num_seeds = 1", "below 2", "keeps its seeds"]),
        ({"stages": stages((20, 2), (60, 4))}, ["stages[1].num_seeds = 4", "the plan has 3 seeds"]),
        ({"stages": stages((25, 2), (60, 2))}, ["stages[0].until_step = 25", "multiple of eval_every = 10"]),
        ({"stages": stages(*TWO, top=2, eta=2.0)}, ["stages.0", "top and eta exclude each other"]),
        ({"stages": stages(*TWO, at_least=3, at_most=2)}, ["stages.0", "at_least = 3 is above at_most = 2"]),
        ({"stages": stages((20, 2), top=1)}, ["stages[0]", "last stage has no gate"]),
        ({"stages": [*stages(*TWO), {"until_step": 120, "num_seeds": 3, "at_least": 2}]}, ["stages[2]", "has no gate"]),
        (
            {"presets": ["good", "diverging"], "num_candidates": 1},
            ["num_candidates = 1", "2 presets", "never run"],
        ),
        ({"scoring": {"success": 0.5}}, ["scoring", "success = 0.5", "best_of_k"]),
        ({"seeds": [7, 42, 7]}, ["seeds: [7] repeated", "may stand once"]),
        ({"save_every": 15}, ["save_every = 15", "multiple of eval_every = 10"]),
        ({"rules": {"patience_steps": 15}}, ["patience_steps = 15", "multiple of eval_every = 10"]),
        ({"resources": {"gpu": 0.7}}, ["resources.gpu", "0.7", "never shares a GPU: give 0, up to 0.5, or 1"]),
        ({"resources": {"gpu": 2}}, ["resources.gpu", "2", "trained on one GPU: give 0, up to 0.5, or 1"]),
        ({"resources": {"cpu": 1.5}}, ["resources.cpu = 1.5", "below 1, and more than one is a whole number"]),
        ({"resources": {"cpu": 0}}, ["resources.cpu = 0", "greater than 0"]),
        ({"resources": {"memory_gib": -1}}, ["resources.memory_gib = -1", "greater than 0"]),
        ({"resources": {"custom": {"fpga": 2.5}}}, ["resources.custom.fpga = 2.5", "is a whole number"]),
        ({"resources": {"custom": {"GPU": 1}}}, ["resources: custom.GPU: is a resource of Ray's own"]),
        ({"resources": {"labels": {"market": "in(spot)"}}}, ["resources.labels.market = 'in(spot)'", "match pattern"]),
        ({"resources": {"labels": {"a b": "c"}}}, ["resources.labels.a b", "match pattern"]),
        ({"resources": {"accelerator": "A100"}}, ["accelerator = 'A100'", "a job on a GPU, and gpu = 0"]),
        (
            {"resources": {"gpu": 1, "accelerator": "A100", "labels": {"ray.io/accelerator-type": "H100"}}},
            ["accelerator and labels.ray.io/accelerator-type are the same"],
        ),
        ({"family": "nosuch"}, ["family = 'nosuch'", "known: ", "spacing_mdn"]),
        ({"family": "tests.worlds.family:NOTHING"}, ["family = 'tests.worlds.family:NOTHING'", "cannot be imported"]),
        ({"family": "tests.worlds.family:SPACE"}, ["family = 'tests.worlds.family:SPACE'", "is a Space, not"]),
        ({"control": "nosuch"}, ["preset 'nosuch'", "known: control, diverging, failing, good"]),
        ({"presets": ["good", "bad"]}, ["preset 'bad'", "known: control"]),
        ({"mode": "max"}, ["mode = 'max'", "val_loss of tests.worlds.family", "is 'min'"]),
        ({"objective": "test_loss"}, ["objective = 'test_loss'", "judged by 'val_loss'"]),
        ({"rules": {"health": [{"metric": "bpm", "at_least": 1}]}}, ["metric 'bpm'", "known: absent, health, lr"]),
        ({"rules": {"health": [{"metric": "health", "in_a_row": 0}]}}, ["in_a_row = 0", "greater than or equal to 1"]),
        ({"rules": {"health": [{"metric": "health"}]}}, ["rules.health.0", "'health'", "at_least, at_most, or both"]),
        (
            {"rules": {"health": [{"metric": "health", "at_least": 2.0, "at_most": 1.0}]}},
            ["rules.health.0", "'health'", "at_least = 2.0 is above at_most = 1.0"],
        ),
        (
            {"rules": {"promote": {"tolerance": 0.1, "healthier": [{"metric": "bpm", "factor": 2.0}]}}},
            ["metric 'bpm'", "known: absent, health, lr"],
        ),
        ({"rules": {"stop": {"unless": [{"metric": "bpm", "rose_by": 1}]}}}, ["metric 'bpm'", "known: absent, health"]),
        ({"rules": {"promote": {"tolerance": 0.1}}}, ["rules.promote", "tolerance and healthier belong together"]),
        (
            {"rules": {"promote": {"tolerance": 0.1, "healthier": [{"metric": "health"}]}}},
            ["rules.promote.healthier.0", "'health' by what? Give either factor or margin"],
        ),
        (
            {"rules": {"stop": {"unless": [{"metric": "health", "rose_by": 1.0, "fell_by": 0.5}]}}},
            ["rules.stop.unless.0", "'health' improved by what? Give either rose_by or fell_by"],
        ),
        (
            {"unit": "member", "num_candidates": 0, "rules": {"gap": {}}},
            ["rules.gap", "a race or a comparison has none"],
        ),
        (
            {"unit": "member", "num_candidates": 0, "rules": {"promote": {}}},
            ["rules.promote", "a race or a comparison has none"],
        ),
        (
            {"unit": "member", "num_candidates": 0, "references": ["good"]},
            ["references", "a race or a comparison has none"],
        ),
        (
            {"presets": ["good"], "num_candidates": 1, "compare": {}, "follow_ups": [AROUND]},
            ["follow_ups", "a race or a comparison has none"],
        ),
        ({"references": ["good", "good"]}, ["references: 'good' is named more than once"]),
        ({"references": ["control"]}, ["references: 'control' is named more than once"]),
        ({"references": ["good"], "presets": ["good"]}, ["references: 'good' is named more than once"]),
        ({"references": ["nosuch"]}, ["preset 'nosuch'", "known: control, diverging, failing, good"]),
        ({"follow_ups": [AROUND], "gates": "stop"}, ["follow_ups", "cuts on arrival"]),
        ({"follow_ups": [{"after": 0, "changes": []}]}, ["follow_ups.0.changes = []", "at least 1 item"]),
        ({"follow_ups": [{"after": 0, "changes": [{}]}]}, ["follow_ups.0.changes.0 = {}", "at least 1 item"]),
        ({"follow_ups": [{**AROUND, "after": 2}]}, ["follow_ups[0].after = 2", "stage 2 is the last and has no gate"]),
        ({"follow_ups": [{**AROUND, "enters": 3}]}, ["follow_ups[0].enters = 3", "the last stage is 2"]),
        (
            {"follow_ups": [{**AROUND, "after": 1}, AROUND]},
            ["follow_ups[1].after = 0 is below 1", "gate by gate"],
        ),
        (
            {"follow_ups": [{**AROUND, "after": 1}], "stages": stages(*TWO, (120, 3), top=2)},
            ["follow_ups[0].enters = 0", "gate 0 has taken its top", "enter at 1 or above"],
        ),
        ({"rules": {"gap": {"first": -0.1}}}, ["rules.gap.first = -0.1", "greater than or equal to 0"]),
        ({"rules": {"stop": {"slope_steps": 10}}}, ["rules.stop.slope_steps = 10", "at least 20"]),
        ({"eta": float("inf")}, ["eta = inf", "finite"]),
        ({"fixed": {"rate": float("nan")}}, ["fixed.rate = nan", "finite"]),
        ({"rules": {"health": [{"metric": "health", "at_least": float("-inf")}]}}, ["at_least = -inf", "finite"]),
    ],
)
def test_a_bad_plan_is_refused_by_field_value_and_what_is_allowed(change: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        plan(**change)
    message = str(caught.value)
    assert message.startswith("plan: ")
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize("field", ["name", "family", "control", "num_candidates", "seeds", "eval_every"])
def test_a_missing_field_is_named(field: str) -> None:
    given = fields()
    del given[field]
    with pytest.raises(PlanError, match=f"plan: {field}: missing"):
        resolve_plan(given)


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        plan(num_candidates=-1, eta="3", colour="red")
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(PlanError) as caught:
        plan(control="nosuch", presets=["neither"], objective="other")
    assert len(str(caught.value).splitlines()) == 3


def test_a_mistake_is_said_once() -> None:
    with pytest.raises(PlanError) as caught:
        plan(stages=[{"until_step": -5, "num_seeds": 2}])  # the only stage is wrong, but there is one
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(PlanError, match=r"stages = \[\].*at least 1 item"):
        plan(stages=[])


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "plan.toml"
    path.write_text(tomli_w.dumps(fields(**changes)))
    return path


@pytest.mark.parametrize("text", ["num_candidates = ", "a = 1\na = 2", "x = [1,"])
def test_bad_toml_is_refused_by_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"plan\.toml: cannot be read as TOML"):
        load_plan(path)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot be read as TOML"):
        load_plan(path)
    with pytest.raises(PlanError, match="cannot be read as TOML"):
        load_plan(tmp_path / "absent.toml")
    with pytest.raises(PlanError, match="no such file; plans that ship"):
        find_plan(str(tmp_path / "absent.toml"))
    with pytest.raises(PlanError, match="is no regular file; plans that ship"):
        find_plan(str(tmp_path))
    assert find_plan(str(path)) == path


def test_a_date_has_no_place(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("num_candidates = 9", "num_candidates = 1979-05-27"))
    with pytest.raises(PlanError, match="dates and times have no place"):
        load_plan(path)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("num_candidates=4", "num_candidates", 4),
        ("eta=2.5", "eta", 2.5),
        ("name=other", "name", "other"),
        ('name="quoted"', "name", "quoted"),
        ("sampler.name=random", "sampler.name", "random"),
        ("sampler.seed=5", "sampler.seed", 5),
        ("budget.max_steps=500", "budget.max_steps", 500),
        ("rules.patience_steps=40", "rules.patience_steps", 40),
        ("stages.0.until_step=30", "stages.0.until_step", 30),
        ("stages.1.at_most=2", "stages.1.at_most", 2),
        ("seeds.2=99", "seeds.2", 99),
        ("seeds=[1, 2, 3]", "seeds", (1, 2, 3)),
        ("fixed.noise=0.5", "fixed", {"noise": 0.5}),
        ("name=a=b", "", "refused"),
    ],
)
def test_set_reaches_every_depth(tmp_path: Path, override: str, path: str, value: Any) -> None:
    if not path:
        with pytest.raises(PlanError, match="name = 'a=b'"):
            load_plan(write(tmp_path), [override])
        return
    found: Any = load_plan(write(tmp_path), [override])
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value


def test_later_overrides_win(tmp_path: Path) -> None:
    assert load_plan(write(tmp_path), ["num_candidates=4", "num_candidates=5"]).num_candidates == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("num_candidates", "expected key=value"),
        ("=4", "expected key=value"),
        ("stages.9.until_step=30", "stages.9 is not in the plan"),
        ("stages.x.until_step=30", "stages.x is not in the plan"),
        ("stages.-1.until_step=30", "stages.-1 is not in the plan"),
        ("seeds.4=99", "index '4' is not in 0..3 (3 adds one)"),
        ("seeds.x=99", "index 'x' is not in 0..3 (3 adds one)"),
        ("eval_every.x=1", "eval_every is a value and has no key 'x'"),
        ("eval_every.x.y=1", "eval_every.x is not in the plan"),
        ("budget.hours=1", "budget.hours = 1: there is no such key"),
        ("nosuch.key=1", "nosuch = {'key': 1}: there is no such key"),
        ("num_candidates=many", "num_candidates = 'many'"),
    ],
)
def test_set_refuses_what_is_not_there(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        load_plan(write(tmp_path), [override])
    assert said in str(caught.value)


RICH: dict[str, Any] = {
    "presets": ["good"],
    "references": ["same-as-control"],
    "follow_ups": [AROUND, {"after": 1, "enters": 1, "changes": [{"rate": 0.25, "kind": "bent"}, {"bend": 0.5}]}],
    "fixed": {"noise": 0.25},
    "save_every": 20,
    "stages": stages((20, 2), (60, 2), (120, 3), top=4, at_most=5),
    "rules": {
        "promote": {
            "margin": 0.1,
            "tolerance": 0.01,
            "healthier": [{"metric": "health", "factor": 1.25}, {"metric": "lr", "margin": -0.5}],
        },
        "stop": {
            "window": 4,
            "slope_steps": 40,
            "unless": [{"metric": "health", "rose_by": 0.1}, {"metric": "lr", "fell_by": 0.05}],
        },
        "patience_steps": 40,
        "gap": {"first": 0.2, "widening": 0.0},
        "health": [
            {"metric": "health", "at_least": 0.001, "in_a_row": 2, "after_step": 20, "required": False, "stops": True}
        ],
    },
    "budget": {"max_steps": 5000, "max_slot_hours": 1.5},
    "sampler": {"name": "random", "seed": 3},
    "configs": {"mine": {"preset": "good", "fields": {"rate": 0.5}, "patience_steps": 40}},
    "scoring": {"objective": "best_of_k", "k": 2, "success": 0.5},
    "resources": {
        "cpu": 2,
        "gpu": 0.5,
        "memory_gib": 1.5,
        "custom": {"fpga": 1, "link": 0.25},
        "labels": {"market": "spot", "example.org/rack": "r-7"},
        "accelerator": "A100",
        "slots": 2,
        "max_failures": 0,
    },
}


@pytest.mark.parametrize("changes", [{}, RICH])
def test_a_resolved_plan_survives_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = plan(**changes)
    path = tmp_path / "resolved.toml"
    path.write_text(first.toml())
    again = load_plan(path)
    assert again == first
    assert again.fingerprint() == first.fingerprint()
    assert again.toml() == first.toml()
    assert (again.objective, again.mode) == ("val_loss", "min")


def test_the_fingerprint_ignores_name_resources_watchers_and_nothing_else() -> None:
    first = plan(**RICH)
    changed: dict[str, Any] = {
        "schema_version": None,
        "name": "other",
        "family": None,
        "space": "tests.worlds.family:SMALL",
        "control": "good",
        "presets": ["control"],
        "fixed": {"noise": 0.5},
        "num_candidates": 10,
        "eta": 4.0,
        "seeds": [7, 42, 1338],
        "eval_every": 5,
        "save_every": 40,
        "stages": stages((20, 2), (60, 2), (120, 3), top=4, at_most=6),
        "rules": {**RICH["rules"], "patience_steps": 60},
        "budget": {"max_steps": 5000, "max_slot_hours": 1.25},
        "sampler": {"name": "random", "seed": 4},
        "scheduler": "race",
        "configs": {"mine": {"preset": "good", "fields": {"rate": 0.5}, "patience_steps": 60}},
        "references": ["failing"],
        "follow_ups": [AROUND],
        "gates": None,
        "scoring": {"objective": "best_of_k", "k": 3, "success": 0.5},
        "unit": None,
        "diagnose": None,
        "require": None,
        "audit": 2,
        "earlier": {"runs": ["before"]},
        "resources": {"cpu": 1, "gpu": 0.5, "slots": 3, "max_failures": 1},
        "watch": ["csv"],
        "objective": None,
        "mode": None,
    }
    assert changed.keys() == Search.model_fields.keys()
    differ = {field: plan(**{**RICH, field: value}) for field, value in changed.items() if value is not None}
    same = {field for field, other in differ.items() if other.fingerprint() == first.fingerprint()}
    assert same == {"name", "resources", "watch"}
    for field, value in (
        ("family", "spacing_mdn"),
        ("diagnose", ("baselines",)),
        ("require", ("baselines",)),
        ("gates", "stop"),
        ("objective", "val_nll"),
        ("mode", "max"),
    ):
        assert first.model_copy(update={field: value}).fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": "nosuch"}, ["space = 'nosuch'", "give 'module:attr'"]),
        ({"space": "tests.worlds.family:NOTHING"}, ["space = 'tests.worlds.family:NOTHING'", "cannot be imported"]),
        ({"space": "tests.worlds.family:EMPTY"}, ["draws nothing"]),
        (
            {"space": "tests.worlds.family:INVALID"},
            ["space 'tests.worlds.family:INVALID'", "floor = ", "less than or equal"],
        ),
        ({"fixed": {"rate": 0.1}}, ["fixed.rate = 0.1", "fix it or draw it"]),
        ({"fixed": {"nosuch": 1}}, ["preset 'control' with fixed", "nosuch = 1", "there is no such key"]),
        ({"fixed": {"noise": "loud"}}, ["noise = 'loud'", "valid number"]),
    ],
)
def test_configs_that_cannot_be_built_are_refused_before_launch(changes: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        check_plan(plan(**changes))
    message = str(caught.value)
    assert [part for part in said if part not in message] == [], message


def test_a_sound_plan_passes() -> None:
    check_plan(plan(presets=["good", "diverging"], fixed={"noise": 0.5}))
