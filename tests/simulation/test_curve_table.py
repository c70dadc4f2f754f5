"""Curve tables: what they answer by hand, their file, and a run of our own as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import journals
from tests.worlds.records import SMALL, NoMirror, finish, make, of
from tune_rh.errors import PlanError
from tune_rh.record.events import Evaluated, JobEnded
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import read
from tune_rh.simulation.curve_table import Curve, CurveTable, Parameter, Value, load, save
from tune_rh.simulation.recorded import record

NAN, INF = math.nan, math.inf


def curve(seed: int, values: list[float], steps: list[int] | None = None) -> Curve:
    """A report every 10 steps unless ``steps`` says otherwise, two seconds each."""
    at = steps or [10 * (i + 1) for i in range(len(values))]
    return Curve(seed, np.array(at), np.array(values), 2.0 * np.arange(1, len(values) + 1))


PARAMETERS = {
    "rate": Parameter("float", 1e-4, 1e-1, log=True),
    "layers": Parameter("int", 1, 5),
    "kind": Parameter("categorical", choices=("plain", "bent", True)),
}


def table(*curves: tuple[Curve, ...], **changes: Any) -> CurveTable:
    """A table without hyperparameters, unless ``changes`` has them."""
    configs: tuple[dict[str, Value], ...] = tuple({} for _ in curves)
    labels = tuple(f"config {i}" for i in range(len(curves)))
    fields = {"source": "made up", "configs": configs, "labels": labels, "curves": curves, **changes}
    return CurveTable("hand", "val_loss", fields.pop("mode", "min"), **fields)


def with_configs(*configs: Mapping[str, Value]) -> CurveTable:
    """A table of these hyperparameters, one short curve each."""
    return table(*((curve(0, [1.0]),) for _ in configs), configs=configs, parameters=PARAMETERS)


# --- what a table answers --------------------------------------------------------------------------------------------


RAGGED = table(
    (curve(1, [3.0, 2.0, 4.0]), curve(2, [5.0, 1.0])),
    (curve(1, [9.0, NAN]), curve(2, [8.0, 7.0, 6.0]), curve(3, [NAN], [5])),
)


def test_steps_are_those_of_any_curve() -> None:
    assert RAGGED.steps == (5, 10, 20, 30)
    assert RAGGED.max_step == 30


def test_values_are_nan_where_nothing_was_read_and_after_a_loss() -> None:
    np.testing.assert_array_equal(RAGGED.values[0], [[NAN, 3, 2, 4], [NAN, 5, 1, NAN]])
    np.testing.assert_array_equal(RAGGED.values[1], [[NAN, 9, NAN, NAN], [NAN, 8, 7, 6], [NAN] * 4])
    assert np.isnan(table((curve(0, [1.0, INF]),)).values[0][0, 1])


def test_a_curve_reaches_the_steps_that_it_has_and_all_steps_after_it_was_lost() -> None:
    steps = (5, 10, 15, 20, 30, 40)
    reached = [[[s for s in steps if curve.reaches(s)] for curve in replicates] for replicates in RAGGED.curves]
    assert reached == [[[10, 20, 30], [10, 20]], [[10, 20, 30, 40], [10, 20, 30], [5, 10, 15, 20, 30, 40]]]


def test_truth_by_hand() -> None:
    # Bests: 2 and 1; 9, 6 and never finite, which counts as the worst best of the table, 9.
    np.testing.assert_allclose(RAGGED.truth, [1.5, 8.0])


def test_truth_of_a_maximised_objective_turns_the_sign() -> None:
    made = table((curve(1, [0.2, 0.9, 0.8]),), (curve(1, [0.5, 0.6, 0.7]), curve(2, [NAN, NAN])), mode="max")
    np.testing.assert_allclose(made.truth, [-0.9, -0.7])
    assert made.values[0][0, 1] == 0.9


def test_where_nothing_was_ever_finite_the_truth_is_infinite() -> None:
    np.testing.assert_array_equal(table((curve(1, [NAN]),), (curve(1, [INF, NAN]),)).truth, [INF, INF])


def test_complete_keeps_what_can_be_simulated_and_cuts_it_there() -> None:
    kept, left_out = RAGGED.complete(20, 2)
    assert (len(kept.configs), left_out) == (2, 0)
    assert kept.max_step == 20
    assert [c.seed for c in kept.curves[1]] == [1, 2, 3]
    kept, left_out = RAGGED.complete(30, 2)
    assert (kept.labels, left_out) == (("config 1",), 1)
    assert [c.seed for c in kept.curves[0]] == [1, 2, 3]
    kept, left_out = RAGGED.complete(30, 1)
    assert ([[c.seed for c in replicates] for replicates in kept.curves], left_out) == ([[1], [1, 2, 3]], 0)


def test_complete_says_so_where_nothing_is_left() -> None:
    with pytest.raises(PlanError, match="'hand': none of 2 configs has 4 seeds to step 30; steps there: 5, 10, 20, 30"):
        RAGGED.complete(30, 4)


# --- nearest ---------------------------------------------------------------------------------------------------------


def test_nearest_measures_in_the_logarithm_where_the_parameter_does() -> None:
    made = with_configs({"rate": 1e-4}, {"rate": 1e-2})
    assert made.nearest({"rate": 9e-4}) == 0
    assert made.nearest({"rate": 1.1e-3}) == 1


def test_nearest_weighs_a_category_as_the_whole_range_of_a_number() -> None:
    made = with_configs({"layers": 1, "kind": "plain"}, {"layers": 4, "kind": "bent"}, {"layers": 5, "kind": "plain"})
    assert made.nearest({"layers": 4, "kind": "plain"}) == 2
    assert made.nearest({"layers": 4, "kind": "plain"}, {2}) == 0
    assert made.nearest({"layers": 4, "kind": "plain"}, {0, 2}) == 1


def test_nearest_counts_a_value_that_only_one_has_as_one() -> None:
    made = with_configs({"kind": "plain", "layers": 5}, {"kind": "plain"})
    assert made.nearest({"kind": "plain"}) == 1
    assert made.nearest({"kind": "plain", "layers": 3}) == 0
    assert made.nearest({"kind": "plain", "layers": 1}) == 0  # the first of equals


def test_nearest_tells_true_from_one() -> None:
    made = with_configs({"kind": "plain"}, {"kind": True})
    assert made.nearest({"kind": 1}) == 0
    assert made.nearest({"kind": True}) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1e-1), st.integers(1, 5)), min_size=1, max_size=12, unique=True), st.data())
def test_every_config_is_nearest_to_itself(values: list[tuple[float, int]], data: st.DataObject) -> None:
    made = with_configs(*({"rate": rate, "layers": layers} for rate, layers in values))
    index = data.draw(st.integers(0, len(values) - 1))
    found = made.nearest(made.configs[index])
    assert made.configs[found]["layers"] == made.configs[index]["layers"]
    assert made.configs[found]["rate"] == pytest.approx(made.configs[index]["rate"], rel=1e-6)


def test_nearest_refuses_what_has_no_answer() -> None:
    made = with_configs({"layers": 1})
    with pytest.raises(ValueError, match=r"parameters \['depth'\] are not in the table; there: rate, layers, kind"):
        made.nearest({"depth": 1})
    with pytest.raises(ValueError, match="all 1 configs are excluded"):
        made.nearest({"layers": 1}, {0})
    with pytest.raises(ValueError, match="there: none"):
        RAGGED.nearest({})


# --- what a table refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "least"}, "mode = 'least': min or max"),
        ({"labels": ("a", "b")}, "labels: 2 of them for 1 configs"),
        ({"configs": ()}, "configs: a table has at least one"),
        ({"configs": ({"depth": 2},)}, r"configs\[0\].depth = 2: no such parameter"),
        ({"configs": ({"layers": 9},)}, r"configs\[0\].layers = 9: outside of Parameter\(kind='int', low=1, high=5"),
        ({"configs": ({"layers": True},)}, r"configs\[0\].layers = True: outside"),
        ({"configs": ({"kind": 1},)}, r"configs\[0\].kind = 1: outside"),
        ({"curves": ((),)}, r"curves\[0\]: seeds \[\]"),
        ({"curves": ((curve(1, [1.0]), curve(1, [2.0])),)}, r"curves\[0\]: seeds \[1, 1\]"),
        ({"curves": ((curve(1, []),),)}, r"curves\[0\]\[0\].steps, values, seconds: 0, 0, 0 of them"),
        ({"curves": ((curve(1, [1.0, 2.0], [10]),),)}, "steps, values, seconds: 1, 2, 2 of them"),
        ({"curves": ((curve(1, [1.0, 2.0], [10, 10]),),)}, r"steps = \[10, 10\]...: from 1 on, strictly increasing"),
        ({"curves": ((curve(1, [1.0, 2.0], [0, 10]),),)}, r"steps = \[0, 10\]"),
        (
            {"curves": ((replace(curve(1, [1.0, 2.0]), seconds=np.array([2.0, 1.0])),),)},
            r"seconds = \[2.0, 1.0\]...: finite, from 0 on, never falling",
        ),
        ({"parameters": {"layers": Parameter("float", 2.0, 1.0)}}, "parameters.layers.low = 2.0, high = 1.0"),
        ({"parameters": {"layers": Parameter("float", 0.0, 1.0, log=True)}}, "parameters.layers.low = 0.0: above 0"),
        ({"parameters": {"layers": Parameter("categorical")}}, r"parameters.layers.choices = \(\): at least one"),
    ],
)
def test_a_table_names_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    right = {"configs": ({"layers": 1},), "parameters": PARAMETERS, "labels": ("a",)}
    curves = changes.pop("curves", ((curve(1, [1.0]),),))
    assert table((curve(1, [1.0]),), **right)
    with pytest.raises(ValueError, match=message):
        table(*curves, **{**right, **changes})


# --- the file --------------------------------------------------------------------------------------------------------


def same(one: CurveTable, two: CurveTable) -> bool:
    """Whether two tables are equal, bit for bit."""
    facts = ("name", "objective", "mode", "source", "configs", "labels", "parameters")
    curves = [
        [[(c.seed, c.steps.tolist(), c.values.tobytes(), c.seconds.tobytes()) for c in row] for row in made.curves]
        for made in (one, two)
    ]
    return all(getattr(one, name) == getattr(two, name) for name in facts) and curves[0] == curves[1]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=5), min_size=1, max_size=4)
)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    path = tmp_path_factory.mktemp("table") / "curves.parquet"
    configs = tuple({"rate": 1e-3 * (i + 1) / 3, "layers": 2, "kind": True} for i in range(len(rows)))
    curves = ((curve(7, values), curve(-1, [*values, 0.1], None)) for values in rows)
    made = table(*curves, configs=configs, parameters=PARAMETERS, mode="max")
    save(made, path)
    again = load(path)
    assert same(made, again)
    assert [type(value) for value in again.configs[0].values()] == [float, int, bool]


def test_conditional_parameters_and_lost_curves_survive_the_file(tmp_path: Path) -> None:
    made = table(*RAGGED.curves, configs=({}, {"kind": "bent"}), parameters=PARAMETERS)
    save(made, tmp_path / "curves.parquet")
    assert same(made, load(tmp_path / "curves.parquet"))


def rewritten(path: Path, **changes: Any) -> None:
    """Replace columns, or with ``metadata`` a part of the facts, of the table at ``path``."""
    columns = pq.read_table(path)
    metadata = columns.schema.metadata
    for name, value in changes.items():
        if name == "metadata":
            metadata = {key: text.replace(*value) for key, text in metadata.items()}
        else:
            at = columns.schema.get_field_index(name)
            columns = columns.set_column(at, columns.schema.field(at), pa.array(value, columns.schema.field(at).type))
    pq.write_table(columns.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metadata": (b'"mode": "min"', b'"mode": "low"')}, "mode = 'low': min or max"),
        ({"metadata": (b'"schema": 1', b'"schema": 2')}, "schema: this version of tune-rh reads 1"),
        ({"metadata": (b'[{"layers": 1}', b'[["layers", 1]')}, "'list' object has no attribute 'items'"),
        ({"metadata": (b'"layers": 1', b'"layers": 7')}, r"configs\[0\].layers = 7: outside"),
        ({"metadata": (b'"objective"', b'"objection"')}, "'objective': missing"),
        ({"config": [0, 2]}, "row 1: config = 2: 0 to 1"),
        ({"config": [0, 0]}, r"curves\[0\]: seeds \[1, 1\]"),
        ({"seed": [1, None]}, "row 1: empty cells"),
        ({"steps": [[10], [0]]}, r"curves\[1\]\[0\].steps = \[0\]...: from 1 on"),
        ({"values": [[1.0], []]}, r"curves\[1\]\[0\].steps, values, seconds: 1, 0, 1 of them"),
        ({"seconds": [[1.0], [NAN]]}, r"curves\[1\]\[0\].seconds = \[nan\]...: finite"),
    ],
)
def test_a_broken_file_is_named_with_its_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "curves.parquet"
    configs: tuple[dict[str, Value], ...] = ({"layers": 1}, {"layers": 2})
    save(table((curve(1, [1.0]),), (curve(1, [2.0]),), configs=configs, parameters=PARAMETERS), path)
    rewritten(path, **changes)
    with pytest.raises(PlanError, match=f"^{path}: .*{message}"):
        load(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    missing, text, other = tmp_path / "missing.parquet", tmp_path / "text.parquet", tmp_path / "other.parquet"
    text.write_text("step,loss\n1,2\n")
    pq.write_table(pa.table({"a": [1]}), other)
    for path, message in (
        (missing, "cannot be read"),
        (text, "cannot be read as a Parquet"),
        (other, "no curve table"),
    ):
        with pytest.raises(PlanError, match=f"^{path}: .*{message}"):
            load(path)
    save(RAGGED, other)
    columns = pq.read_table(other)
    pq.write_table(columns.drop_columns(["seconds"]), other)
    with pytest.raises(PlanError, match=f"^{other}: columns .*a curve table has"):
        load(other)


# --- a run of our own ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A small search, with a preset that diverges at step 5 and one that fails there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
        patch.setattr("os.fsync", lambda _descriptor: None)
        changes = {**SMALL, "presets": ["good", "diverging", "failing"], "num_candidates": 5}
        paths = make(tmp_path_factory.mktemp("runs") / "run", **changes)
        finish(paths)
    return paths


def record_of(paths: RunPaths) -> CurveTable:
    return record(paths.root.name, read(paths).history)


def test_a_run_is_recorded_report_by_report(searched: RunPaths, tmp_path: Path) -> None:
    made = record_of(searched)
    assert (made.name, made.objective, made.mode) == ("run", "val_loss", "min")
    reports = of(searched, Evaluated)
    curves = {
        f"{label.split()[0]}-s{c.seed}": c for label, row in zip(made.labels, made.curves, strict=True) for c in row
    }
    failed = {str(e.member) for e in of(searched, JobEnded) if e.outcome == "failed"}
    assert failed
    assert set(curves) == {str(e.member) for e in reports} | failed
    for member, found in curves.items():
        own = [e for e in reports if str(e.member) == member]
        read = len(own)
        assert found.steps.tolist()[:read] == [e.step for e in own]
        values = [NAN if e.diverged else e.metrics["val_loss"] for e in own]
        np.testing.assert_array_equal(found.values[:read], values)
        np.testing.assert_allclose(found.seconds[:read], np.cumsum([e.train_s + e.eval_s for e in own]))
        assert len(found.steps) == read + (member in failed)
    save(made, tmp_path / "run.parquet")
    assert same(made, load(tmp_path / "run.parquet"))


def test_the_lost_end_with_nan(searched: RunPaths) -> None:
    made = record_of(searched)
    lost = {label.split()[1]: row for label, row in zip(made.labels, made.curves, strict=True) if row[0].is_lost}
    assert set(lost) == {"diverging", "failing"}
    assert [(c.steps.tolist(), c.values.tolist()) for c in lost["diverging"]] == [
        ([5], [pytest.approx(NAN, nan_ok=True)])
    ]
    assert [c.steps.tolist() for c in lost["failing"]] == [[10]]


def test_configs_of_presets_outside_the_space_are_the_fields_that_differ(searched: RunPaths) -> None:
    made = record_of(searched)
    configs = dict(zip((label.split()[-1] for label in made.labels), made.configs, strict=True))
    assert configs["diverging"]["diverge_at"] == 5
    assert configs["good"].keys() == {"bend", "floor", "rate", "kind"} & made.parameters.keys()
    assert "noise" not in made.parameters  # the same everywhere
    floor = made.parameters["floor"]
    assert (floor.kind, floor.low, floor.high) == ("float", 0.1, 2.0)  # as drawn
    assert made.parameters["rate"].log
    assert all(made.nearest(config) == i for i, config in enumerate(made.configs))


def test_configs_that_were_all_drawn_are_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_rh.watch.study.StudyMirror", NoMirror)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    paths = make(tmp_path / "run", **{**SMALL, "presets": [], "fixed": {}})
    finish(paths)
    made = record_of(paths)
    assert made.configs[0] == {"kind": "plain", "floor": 1.0, "rate": 0.01}
    assert made.parameters["kind"] == Parameter("categorical", choices=("plain", "bent"))
    assert made.parameters["rate"] == Parameter("float", 1e-3, 1e-1, log=True)


def test_few_of_a_run_reach_its_end(searched: RunPaths) -> None:
    made = record_of(searched)
    kept, left_out = made.complete(60, 1)
    ends = {
        label: {c.steps[-1] for c in row if not c.is_lost} for label, row in zip(made.labels, made.curves, strict=True)
    }
    assert kept.labels == tuple(label for label, steps in ends.items() if not steps or 60 in steps)
    assert left_out == len(made.labels) - len(kept.labels) > 0
    assert kept.max_step == 60


def test_a_repeated_step_counts_once_and_its_second_time_not_at_all(searched: RunPaths, tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "plan.toml").write_text(searched.plan.read_text())
    lines = journals.texts(searched.journal)
    at = next(i for i, line in enumerate(lines) if '"Evaluated"' in line)
    again = lines[at].replace('"train_s":', '"train_s":1000').replace('"val_loss":', '"val_loss":7')
    journals.write(root / "journal.jsonl", [*lines[: at + 1], again, *lines[at + 1 :]])
    assert same(record_of(RunPaths(root)), record_of(searched))


def test_a_run_without_reports_has_nothing_to_record(searched: RunPaths, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    (root / "plan.toml").write_text(searched.plan.read_text())
    (root / "journal.jsonl").write_text(searched.journal.read_text().splitlines(keepends=True)[0])
    with pytest.raises(PlanError, match="run 'empty': no member has reported anything"):
        record_of(RunPaths(root))
