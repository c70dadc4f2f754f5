"""Recorded learning curves as curve tables: what search policies are compared on.

    python -m benchmarks.tables OUT_DIR                  writes every table as OUT_DIR/<name>.parquet
    python -m benchmarks.tables --refresh LCDB.tar.gz    makes benchmarks/curves/lcdb.parquet again

Four sources, all in `benchmarks/curves` (README.md there: licences, and how each file was made):

- `lcbench`: 5 tasks x 400 configs of a multilayer perceptron x 52 epochs, with hyperparameters; drawn from a surrogate
  and without seed noise, so 10 replicates are made by `benchmarks.seed_noise`, always the same.
- `lcbench_more`: 10 further tasks from the same surrogate, each with 300 configs of its own, and without times.
- `nanogpt`: repeated runs of one setting from the records of a speed run, as two tasks. All were tuned to end at the
  same loss (3.28), so configs differ little at the end and seeds decide much.
- `lcdb`: 30 data sets x 16 to 20 learners; a "step" is the next larger train size.

What it is not: runs of our own families (`tune_rh.simulation.recorded` makes tables of those), or a judgement of any
policy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.seed_noise import with_seeds
from tune_rh.simulation.curve_table import Array, Curve, CurveTable, Parameter, save

CURVES = Path(__file__).parent / "curves"
LCBENCH_TASKS = (126026, 167152, 168330, 189866, 3945)
NUM_SEEDS = 10
"""Replicates made for each LCBench config, and the most that are kept of an LCDB learner."""
LCBENCH_MORE_TASKS = (126029, 167083, 167149, 167184, 167190, 168868, 168908, 189354, 189905, 189906)
MIN_SEEDS = 5
NUM_LCDB = 30

_LCBENCH_SOURCE = (
    "LCBench (Zimmer 2021) through its surrogate in slds-lmu/yahpo_data (Pfisterer 2022), Apache-2.0; "
    "seed noise added by benchmarks.seed_noise"
)
_NANOGPT_SOURCE = "logs of KellerJordan/modded-nanogpt, MIT; resampled to fractions of each run"
_LCDB_SOURCE = "LCDB 0.1.0 (Mohr 2022), MIT; error on validation"
_PARAMETERS = {
    "batch_size": Parameter("int", 16, 512, log=True),
    "learning_rate": Parameter("float", 1e-4, 1e-1, log=True),
    "momentum": Parameter("float", 0.1, 0.99),
    "weight_decay": Parameter("float", 1e-5, 1e-1),
    "num_layers": Parameter("int", 1, 5),
    "max_units": Parameter("int", 64, 1024, log=True),
    "max_dropout": Parameter("float", 0.0, 1.0),
}


def lcbench() -> list[CurveTable]:
    """Validation error in percent over 52 epochs, 5 OpenML tasks, the same 400 configs, `NUM_SEEDS` replicates."""
    with np.load(CURVES / "lcbench.npz") as data:
        configs = _lcbench_configs({name: data[f"cfg_{name}"] for name in _PARAMETERS})
        # The surrogate predicts each epoch's time by itself; a clock does not run backwards.
        seconds = {task: np.maximum.accumulate(data[f"{task}_time"], axis=1) for task in LCBENCH_TASKS}
        return [_lcbench_table("lcbench", task, configs, data[f"{task}_err"], seconds[task]) for task in LCBENCH_TASKS]


def lcbench_more() -> list[CurveTable]:
    """As `lcbench`, 10 other tasks, each with 300 configs of its own. A second stands for each epoch."""
    with np.load(CURVES / "lcbench_more.npz") as data:
        made = []
        for task in LCBENCH_MORE_TASKS:
            error = data[f"{task}_err"]
            configs = _lcbench_configs({name: data[f"{task}_{name}"] for name in _PARAMETERS})
            seconds = np.broadcast_to(np.arange(1, error.shape[1] + 1), error.shape)
            made.append(_lcbench_table("lcbench_more", task, configs, error, seconds))
        return made


def _lcbench_configs(columns: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return tuple(
        {name: int(v) if _PARAMETERS[name].kind == "int" else v for name, v in zip(columns, row, strict=True)}
        for row in rows
    )


def _lcbench_table(source: str, task: int, configs: tuple[dict[str, Any], ...], error: Any, seconds: Any) -> CurveTable:
    clean = error.astype(np.float64)
    noisy = np.minimum(with_seeds(clean, NUM_SEEDS, np.random.default_rng([2021, task])), 100.0)
    steps = np.arange(1, clean.shape[1] + 1)
    curves = tuple(
        tuple(Curve(seed, steps, values, time) for seed, values in enumerate(rows))
        for rows, time in zip(noisy, seconds.astype(np.float64), strict=True)
    )
    labels = tuple(f"config {i}" for i in range(len(configs)))
    return CurveTable(f"{source}-{task}", "val_error", "min", _LCBENCH_SOURCE, configs, labels, curves, _PARAMETERS)


def nanogpt() -> list[CurveTable]:
    """Validation loss of language models, one table a track; a config is a group of runs with identical settings.

    Of each group the runs that ended at its commonest last step are kept (a folder may hold more than one setting, and
    runs that were broken off); groups with fewer than `MIN_SEEDS` of them are left out, and none for its final loss.
    Runs differ in length and in how often they were evaluated, so every run is read at the same fractions of its own
    length, 100 steps for each twentieth (long track: 0.05 to 1) or tenth (short track, some of which has 6 evaluations:
    0.2 to 1). Between evaluations the loss is linear in the logarithm of the step: on runs that were evaluated at each
    fifth step this errs by at most 0.016 up to half of the run and 0.003 above, when thinned to every 250th. Seeds are
    numbered by file name and not shared by groups. The long track has no times: a second stands for each step.
    """
    groups = nanogpt_groups()
    return [
        _track("nanogpt-long", {g: runs for g, runs in groups.items() if "/track_3_" in g}, first=1, parts=20),
        _track("nanogpt-short", {g: runs for g, runs in groups.items() if "/track_1_" in g}, first=2, parts=10),
    ]


def nanogpt_groups() -> dict[str, list[dict[str, Any]]]:
    """The recorded runs by group of identical settings, sorted by name."""
    groups = defaultdict(list)
    with (CURVES / "nanogpt.jsonl").open() as lines:
        for line in lines:
            run = json.loads(line)
            groups[run["group"]].append(run)
    return {group: sorted(groups[group], key=lambda run: run["file"]) for group in sorted(groups)}


def _track(name: str, groups: Mapping[str, Sequence[Mapping[str, Any]]], *, first: int, parts: int) -> CurveTable:
    part = np.arange(first, parts + 1)
    kept = {}
    for group, runs in groups.items():
        (end, _), *_ = Counter(run["curve"][-1][0] for run in runs).most_common(1)
        whole = [run["curve"] for run in runs if run["curve"][-1][0] == end]
        if len(whole) >= MIN_SEEDS:
            kept[group.removeprefix("records/")] = whole
    curves = tuple(
        tuple(_resampled(seed, curve, 100 * part, part / parts) for seed, curve in enumerate(runs))
        for runs in kept.values()
    )
    empty: tuple[dict[str, Any], ...] = tuple({} for _ in kept)
    return CurveTable(name, "val_loss", "min", _NANOGPT_SOURCE, empty, tuple(kept), curves)


def _resampled(seed: int, curve: Sequence[Sequence[float]], steps: Any, fractions: Array) -> Curve:
    points = [point for point in curve if point[0] > 0]
    at = np.array([point[0] for point in points], dtype=np.float64)
    wanted = fractions * at[-1]
    if wanted[0] < at[0]:
        raise ValueError(f"first evaluation at {at[0]:.0f}, after {wanted[0]:.0f}")
    values = np.interp(np.log(wanted), np.log(at), [point[1] for point in points])
    times = [point[2] for point in points]
    seconds = wanted if None in times else np.interp(wanted, at, np.array(times) / 1000)
    return Curve(seed, steps, values, seconds)


def lcdb() -> list[CurveTable]:
    """Error on validation by train size (16, 23, 32, ... up to all): `NUM_LCDB` OpenML data sets.

    Seeds are splits, shared by all learners of a data set. Seconds are the training times of all sizes so far.
    """
    rows = defaultdict(list)
    for row in pq.read_table(CURVES / "lcdb.parquet").to_pylist():
        rows[row["dataset"]].append(row)
    tables = []
    for dataset in sorted(rows):
        learners = defaultdict(list)
        for row in rows[dataset]:
            steps = np.arange(1, len(row["error"]) + 1)
            values, seconds = (np.array(row[column], dtype=np.float64) for column in ("error", "seconds"))
            learners[row["learner"]].append(Curve(row["seed"], steps, values, np.cumsum(seconds)))
        curves = tuple(tuple(replicates) for replicates in learners.values())
        empty: tuple[dict[str, Any], ...] = tuple({} for _ in learners)
        name = f"lcdb-{dataset}"
        tables.append(CurveTable(name, "val_error", "min", _LCDB_SOURCE, empty, tuple(learners), curves))
    return tables


def all_tables() -> list[CurveTable]:
    """Every table of every source."""
    return [*lcbench(), *lcbench_more(), *nanogpt(), *lcdb()]


def names() -> list[str]:
    """The names of all tables, read without making them."""
    datasets = pq.read_table(CURVES / "lcdb.parquet", columns=["dataset"])["dataset"].unique().to_pylist()
    return sorted(
        [
            *(f"lcbench-{task}" for task in LCBENCH_TASKS),
            *(f"lcbench_more-{task}" for task in LCBENCH_MORE_TASKS),
            "nanogpt-long",
            "nanogpt-short",
            *(f"lcdb-{dataset}" for dataset in datasets),
        ]
    )


def halves(tables: Iterable[CurveTable]) -> tuple[list[CurveTable], list[CurveTable]]:
    """Split into the half that defaults may be chosen on and the half that results are reported on.

    A table's half depends on its name alone: within each source, tables sorted by name alternate.

    Raises:
        ValueError: a table is none of ours.
    """
    place: dict[str, int] = {}
    sources: Counter[str] = Counter()
    for name in names():
        source = name.partition("-")[0]
        place[name] = sources[source] % 2
        sources[source] += 1
    found: tuple[list[CurveTable], list[CurveTable]] = ([], [])
    for table in tables:
        if table.name not in place:
            raise ValueError(f"table {table.name!r}: known: {', '.join(place)}")
        found[place[table.name]].append(table)
    return found


def refresh_lcdb(archive: Path, path: Path = CURVES / "lcdb.parquet") -> int:
    """Make the LCDB file from the source package (``pip download --no-deps --no-binary :all: lcdb==0.1.0``).

    A learner's seed is whole if it has all train sizes of the data set. Of the splits, the `NUM_SEEDS` that are whole
    for most learners are kept, and of the learners those with `MIN_SEEDS` of them. Data sets with 8 sizes and 15
    learners at least are sorted by their OpenML id, and `NUM_LCDB` taken at even distances.

    Returns:
        The number of data sets that had enough of both.

    Raises:
        ValueError: fewer than `NUM_LCDB` had.
    """
    with tarfile.open(archive) as tar:
        file = tar.extractfile("lcdb-0.1.0/lcdb/database-accuracy.csv")
        assert file is not None
        table = pa.csv.read_csv(file)
    ids = table["openmlid"].to_numpy()
    order = np.argsort(ids, kind="stable")
    bounds = np.searchsorted(ids[order], np.unique(ids))
    found = {}
    for dataset, rows in zip(np.unique(ids).tolist(), np.split(order, bounds[1:]), strict=True):
        curves = _lcdb_curves(table.take(rows))
        if curves:
            found[dataset] = [{"dataset": dataset, **curve} for curve in curves]
    if len(found) < NUM_LCDB:
        raise ValueError(f"{archive}: {len(found)} of {len(bounds)} data sets have enough curves; need {NUM_LCDB}")
    chosen = [list(found)[round(i)] for i in np.linspace(0, len(found) - 1, NUM_LCDB)]
    schema = pa.schema(
        [("dataset", pa.int32()), ("learner", pa.string()), ("seed", pa.int16())]
        + [(name, pa.list_(pa.float32())) for name in ("error", "seconds")]
    )
    kept = [curve for dataset in chosen for curve in found[dataset]]
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), path, compression="zstd", compression_level=19)
    return len(found)


def _lcdb_curves(table: pa.Table) -> list[dict[str, Any]]:
    """The curves to keep of one data set; none if there are too few."""
    sizes = sorted(set(table["size_train"].to_pylist()))
    points: dict[tuple[str, int], dict[int, tuple[float, float]]] = defaultdict(dict)
    names = ("learner", "outer_seed", "inner_seed", "size_train", "score_valid", "traintime")
    for learner, outer, inner, size, score, seconds in zip(*(table[name].to_pylist() for name in names), strict=True):
        # Splits are numbered so that the first ones differ in their outer seed.
        points[learner.rpartition(".")[2], 5 * inner + outer][size] = (1.0 - score, seconds)
    whole = sorted(key for key, curve in points.items() if len(curve) == len(sizes))
    seeds = [seed for seed, _ in sorted(Counter(seed for _, seed in whole).items(), key=lambda x: (-x[1], x[0]))]
    kept = [key for key in whole if key[1] in seeds[:NUM_SEEDS]]
    learners = {name for name, num in Counter(name for name, _ in kept).items() if num >= MIN_SEEDS}
    if len(sizes) < 8 or len(learners) < 15:
        return []
    curves = []
    for learner, seed in kept:
        if learner in learners:
            error, seconds = zip(*(points[learner, seed][size] for size in sizes), strict=True)
            curves.append({"learner": learner, "seed": seed, "error": error, "seconds": seconds})
    return curves


def main() -> int:
    """Write the tables, or make the LCDB file again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out_dir", type=Path, nargs="?", help="folder for <name>.parquet")
    parser.add_argument("--refresh", type=Path, metavar="LCDB.tar.gz", help="make benchmarks/curves/lcdb.parquet again")
    args = parser.parse_args()
    if args.refresh:
        print(f"{NUM_LCDB} of {refresh_lcdb(args.refresh)} data sets")
    if args.out_dir:
        args.out_dir.mkdir(parents=True, exist_ok=True)
        for table in all_tables():
            save(table, args.out_dir / f"{table.name}.parquet")
            seeds = [len(replicates) for replicates in table.curves]
            print(f"{table.name}: {len(table.configs)} configs, {min(seeds)} to {max(seeds)} seeds, ", end="")
            print(f"{len(table.steps)} steps to {table.max_step}")
    if not (args.refresh or args.out_dir):
        parser.error("give OUT_DIR, or --refresh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
