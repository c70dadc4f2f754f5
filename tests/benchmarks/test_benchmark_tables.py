"""The recorded tables: facts of the data, the noise that was added, and how they are shared out."""

from __future__ import annotations

import csv
import io
import math
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import seed_noise, tables
from tune_rh.simulation.curve_table import CurveTable, load


@pytest.fixture(scope="module")
def every() -> dict[str, CurveTable]:
    """All tables by name."""
    return {table.name: table for table in tables.all_tables()}


# --- facts -----------------------------------------------------------------------------------------------------------


def test_lcbench_is_400_configs_with_hyperparameters(every: dict[str, CurveTable]) -> None:
    made = [table for name, table in every.items() if name.startswith("lcbench-")]
    assert len(made) == 5
    for table in made:
        assert len(table.configs) == 400
        assert {len(replicates) for replicates in table.curves} == {tables.NUM_SEEDS}
        assert table.steps == tuple(range(1, 53))
        assert table.configs == made[0].configs
        assert len(table.parameters) == 7
        assert all(np.isfinite(v).all() and v.min() >= 0 and v.max() <= 100 for v in table.values)
        assert [table.nearest(table.configs[i]) for i in range(0, 400, 40)] == list(range(0, 400, 40))


def test_lcbench_more_is_ten_tasks_of_300_configs_of_their_own(every: dict[str, CurveTable]) -> None:
    made = [table for name, table in every.items() if name.startswith("lcbench_more-")]
    assert len(made) == 10
    assert len({table.configs[0]["learning_rate"] for table in made}) == 10
    for table in made:
        assert len(table.configs) == 300
        assert {len(replicates) for replicates in table.curves} == {tables.NUM_SEEDS}
        assert table.steps == tuple(range(1, 53))
        assert all(np.isfinite(v).all() and v.min() >= 0 and v.max() <= 100 for v in table.values)
        assert table.curves[0][0].seconds.tolist() == list(range(1, 53))


def test_nanogpt_has_119_groups_of_five_runs_or_more(every: dict[str, CurveTable]) -> None:
    groups = tables.nanogpt_groups()
    assert (len(groups), sum(len(runs) for runs in groups.values())) == (196, 1466)
    large = {group.removeprefix("records/") for group, runs in groups.items() if len(runs) >= 5}
    assert len(large) == 119
    long, short = every["nanogpt-long"], every["nanogpt-short"]
    assert {*long.labels, *short.labels} == large - {"track_3_optimization/results"}  # a folder of six run lengths
    assert (len(long.labels), len(short.labels)) == (29, 89)
    assert long.steps == tuple(range(100, 2001, 100))
    assert short.steps == tuple(range(200, 1001, 100))
    assert all(np.isfinite(v).all() for table in (long, short) for v in table.values)


def test_nanogpt_runs_end_as_they_were_logged(every: dict[str, CurveTable]) -> None:
    group = "track_1_short/2025-10-24_NorMuon"
    runs = tables.nanogpt_groups()[f"records/{group}"]
    short = every["nanogpt-short"]
    replicates = short.curves[short.labels.index(group)]
    assert [c.values[-1] for c in replicates] == [run["curve"][-1][1] for run in runs]
    assert [c.seconds[-1] for c in replicates] == pytest.approx([run["curve"][-1][2] / 1000 for run in runs])


def test_lcdb_is_30_data_sets_of_15_learners_or_more(every: dict[str, CurveTable]) -> None:
    made = [table for name, table in every.items() if name.startswith("lcdb")]
    assert len(made) == tables.NUM_LCDB
    for table in made:
        assert 15 <= len(table.configs) == len(set(table.labels)) <= 20
        assert all(tables.MIN_SEEDS <= len(replicates) <= tables.NUM_SEEDS for replicates in table.curves)
        assert len(table.steps) >= 8
        assert {len(c.steps) for replicates in table.curves for c in replicates} == {len(table.steps)}
        assert all(v.min() >= 0 and v.max() <= 1 for v in table.values)


def test_more_data_and_more_epochs_help(every: dict[str, CurveTable]) -> None:
    worse = set()
    for table in every.values():
        first, last = (np.mean([v[:, at].mean() for v in table.values]) for at in (0, -1))
        if last >= first:
            worse.add(table.name)
    assert worse == {"lcdb-1002"}  # nine tenths are one class: with 16 examples, learners say nothing else


def test_files_are_small() -> None:
    assert all(file.stat().st_size < 2 * 2**20 for file in tables.CURVES.iterdir())


# --- seed noise ------------------------------------------------------------------------------------------------------


def test_replicates_are_always_the_same(every: dict[str, CurveTable]) -> None:
    for table in (*tables.lcbench(), *tables.lcbench_more()[:1]):
        assert all((a == b).all() for a, b in zip(table.values, every[table.name].values, strict=True))


def test_seeds_explain_little_over_the_space_and_more_among_the_best(every: dict[str, CurveTable]) -> None:
    shares = []
    for table in (t for name, t in every.items() if name.startswith("lcbench-")):
        final = np.array([v[:, -1] for v in table.values])
        order = np.argsort(final.mean(axis=1))
        shares.append([seed_share(final[order]), seed_share(final[order[:40]])])
    everywhere, among_best = np.array(shares).T
    assert everywhere.max() <= 0.15
    assert among_best.min() >= 0.04
    assert 0.4 <= np.median(among_best) <= 0.7


def seed_share(final: np.ndarray) -> float:
    """Of the variance of (configs, seeds), the part between the seeds of a config."""
    within = float(final.var(axis=1, ddof=1).mean())
    between = max(0.0, float(final.mean(axis=1).var(ddof=1)) - within / final.shape[1])
    return within / (within + between)


FINAL = np.sort(np.random.default_rng(0).gamma(2.0, 10.0, 400))
FLAT = np.repeat(FINAL[:, None], 50, axis=1)


def test_the_size_of_the_noise_is_that_of_both_measures() -> None:
    size = seed_noise.best_sd(FINAL)
    assert size == pytest.approx(math.sqrt(0.88 * FINAL[:40].std() * 0.08 * FINAL.std()))
    drawn = np.array([seed_noise.seed_sd(FINAL, np.random.default_rng(i)) for i in range(200)]) / size
    ranks = (np.arange(400) + 0.5) / 400
    for rank, growth, scatter in zip(seed_noise.RANKS, seed_noise.GROWTH, seed_noise.SCATTER, strict=True):
        near = np.log(drawn[:, np.abs(ranks - rank) < 0.01])
        assert np.exp(np.median(near)) == pytest.approx(growth, rel=0.1)
        assert near.std() == pytest.approx(scatter, rel=0.1)


def test_deviations_have_the_stated_spread_persistence_and_tails() -> None:
    made = seed_noise.deviations(FLAT[:100], 400, np.random.default_rng(1))
    scale = np.median(np.abs(made), axis=1)
    final = scale[:, -1:]
    assert np.median(scale[:, 9] / final[:, 0]) == pytest.approx(1 + 0.8 * 0.8**2, rel=0.1)
    assert np.median(scale[:, 24] / final[:, 0]) == pytest.approx(1 + 0.8 * 0.5**2, rel=0.1)
    unit = made / made.std(axis=1, keepdims=True)
    for at, measured in ((9, 0.36), (19, 0.44), (24, 0.49), (34, 0.59), (39, 0.66), (44, 0.72)):
        assert (unit[:, :, at] * unit[:, :, -1]).mean() == pytest.approx(measured, abs=0.04)
    # A normal distribution has 0.0027 of its mass beyond three standard deviations.
    assert 0.005 < (np.abs(unit[:, :, -1]) > 3.0).mean() < 0.03
    assert np.abs(unit[:, :, -1].mean(axis=1)).max() < 1e-9 + 5 / math.sqrt(400)


def test_no_seed_passes_the_floor_and_bad_luck_is_as_drawn() -> None:
    rng = np.random.default_rng
    noisy = seed_noise.with_seeds(FLAT, 20, rng(2))
    drawn = FLAT[:, None, :] + seed_noise.deviations(FLAT, 20, rng(2))
    floor = FINAL[0] - 3 * seed_noise.best_sd(FINAL)
    assert drawn.min() < max(0.0, floor)
    assert noisy.min() >= max(0.0, floor)
    up = drawn > FLAT[:, None, :]
    np.testing.assert_allclose(noisy[up], drawn[up])
    assert (noisy[~up] >= drawn[~up] - 1e-9).all()
    assert (np.argsort(noisy[5, :, -1]) == np.argsort(drawn[5, :, -1])).all()


def test_a_config_without_room_below_it_stays_at_the_floor() -> None:
    curves = np.array([[1.0, 0.0], [5.0, 4.0], [9.0, 8.0]])
    noisy = seed_noise.with_seeds(curves, 50, np.random.default_rng(3))
    assert noisy.min() >= 0.0
    assert np.isfinite(noisy).all()


# --- halves ----------------------------------------------------------------------------------------------------------


def test_halves_are_disjoint_complete_and_balanced(every: dict[str, CurveTable]) -> None:
    choose, report = ([table.name for table in half] for half in tables.halves(every.values()))
    assert not set(choose) & set(report)
    assert {*choose, *report} == set(every) == set(tables.names())
    for source, num in (("lcbench-", 3), ("lcbench_more-", 5), ("nanogpt", 1), ("lcdb", 15)):
        assert sum(name.startswith(source) for name in choose) == num


def test_a_table_keeps_its_half_whatever_else_is_there(every: dict[str, CurveTable]) -> None:
    choose, report = tables.halves(every.values())
    for table in every.values():
        alone = tables.halves([table])
        assert [half == [table] for half in alone] == [table in choose, table in report]


def test_a_strange_table_has_no_half(every: dict[str, CurveTable]) -> None:
    table = every["nanogpt-long"]
    strange = CurveTable("mine", "loss", "min", "", table.configs, table.labels, table.curves)
    with pytest.raises(ValueError, match="table 'mine': known: lcbench-126026, "):
        tables.halves([strange])


# --- files -----------------------------------------------------------------------------------------------------------


def test_tables_are_written_and_load_again(
    every: dict[str, CurveTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [every["lcbench-3945"], every["nanogpt-long"]]
    monkeypatch.setattr(tables, "all_tables", lambda: some)
    monkeypatch.setattr(sys, "argv", ["tables", str(tmp_path / "out")])
    assert tables.main() == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "lcbench-3945.parquet",
        "nanogpt-long.parquet",
    ]
    for table in some:
        again = load(tmp_path / "out" / f"{table.name}.parquet")
        assert (again.configs, again.labels, again.steps) == (table.configs, table.labels, table.steps)
        np.testing.assert_array_equal(again.truth, table.truth)


def archive(path: Path, num_learners: int, num_splits: int) -> Path:
    """A source package like LCDB's with one data set; the first learner lacks the largest size on every split."""
    text = io.StringIO()
    rows = csv.writer(text)
    names = "openmlid learner size_train size_test outer_seed inner_seed traintime score_train score_valid score_test"
    rows.writerow(names.split())
    for learner in range(num_learners):
        for split in range(num_splits):
            for size in (16, 23, 32, 45, 64, 91, 128, 200)[: 8 - (learner == 0)]:
                score = 1 - 1 / (learner + 2) - 1 / size
                rows.writerow([3, f"m.L{learner:02}", size, 9, split % 5, split // 5, 0.5, 1.0, f"{score:.4f}", 0.5])
    content = text.getvalue().encode()
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("lcdb-0.1.0/lcdb/database-accuracy.csv")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


def test_lcdb_is_made_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "NUM_LCDB", 1)
    monkeypatch.setattr(tables, "CURVES", tmp_path)
    assert tables.refresh_lcdb(archive(tmp_path / "lcdb.tar.gz", 17, 12), tmp_path / "lcdb.parquet") == 1
    rows = pq.read_table(tmp_path / "lcdb.parquet").to_pylist()
    assert {row["learner"] for row in rows} == {f"L{i:02}" for i in range(1, 17)}
    (table,) = tables.lcdb()
    assert [c.seed for c in table.curves[0]] == list(range(10))
    assert table.curves[0][0].seconds.tolist() == [0.5 * i for i in range(1, 9)]
    np.testing.assert_allclose(table.truth, [1 / (i + 2) + 1 / 200 for i in range(1, 17)], atol=1e-4)


@pytest.mark.parametrize(("learners", "splits"), [(15, 12), (17, 4)])
def test_an_lcdb_data_set_with_too_little_is_left_out(tmp_path: Path, learners: int, splits: int) -> None:
    with pytest.raises(ValueError, match="0 of 1 data sets"):
        tables.refresh_lcdb(archive(tmp_path / "lcdb.tar.gz", learners, splits), tmp_path / "lcdb.parquet")
    assert not (tmp_path / "lcdb.parquet").exists()
