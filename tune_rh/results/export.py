"""Take the best candidate of a run away: config, weights, metrics, seeds, provenance and a model card in one folder.

The best is the one with the best pessimistic bound (mean over seeds, one standard error to the worse) on val, among
those that finished the last stage; its seed is the one with the best val. Test is shown, and chooses nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import tomli_w

from analysis.diagnose.api import Baseline
from analysis.reports.tables import code, escaped, write_csv
from analysis.view import Standing, best_of, why_no_best
from trainables.api import test_metric
from trainables.files import new_folder, sha256
from trainables.given.module import called, write_payloads
from trainables.registry import FAMILIES, get_family
from trainables.spelling import for_toml
from trainables.trust import signature
from trainables.worker import checkpoint
from trainables.worker.exported import CARD, CONFIG, EXPORT_SCHEMA, INDEX, STATE, WEIGHTS
from tune_rh.errors import ExportError, storage
from tune_rh.record.events import MemberId
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths
from tune_rh.record.ranking import best_member, ranking


def export(
    paths: RunPaths,
    history: History,
    out: Path,
    candidate: str | None = None,
    baselines: Sequence[Baseline] = (),
    despite: bool = False,
    companions: Mapping[str, Path] = MappingProxyType({}),
) -> Standing:
    """Write the best candidate (or ``candidate``) of a run to the folder ``out``; it appears whole or not at all.

    The ``baselines`` are for the model card, the ``companions`` are files to go with the model, by their names there.

    Raises:
        ExportError: no candidate has finished, or not this one; it fails what the plan requires, and not ``despite``
            that; or ``out`` is taken.
    """
    out = out.resolve()  # "." has no name of its own to write beside
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"--out {out}: is there and not empty; choose another folder")
    chosen = choose(history, candidate, despite)
    member = best_member(history, chosen.candidate)
    checkpoints = paths.member(member) / "checkpoints"
    best = checkpoint.linked(checkpoints, "best")
    if best is None:
        raise ExportError(f"{checkpoints}: the best checkpoint of {member} is not there")
    added = history.candidates[chosen.candidate].added
    checkpoint.load(best, config_digest=added.config_digest)  # digests are checked before anything is copied
    with storage(out, "export again"), new_folder(out) as folder:
        _fill(folder, paths, history, chosen, member, best, baselines, tuple(companions))
        for name, source in companions.items():
            shutil.copyfile(source, folder / name)
    return chosen


def choose(history: History, candidate: str | None, despite: bool) -> Standing:
    """The best candidate of a run, or ``candidate``.

    Raises:
        ExportError: nothing has finished, or not this one; it fails what the plan requires, and not ``despite`` that.
    """
    rows = ranking(history)
    finished = [row for row in rows if row.num_lost < row.num_seeds]
    if candidate is None:
        # A reference is there to be compared with, and is taken only where it is asked for.
        leader = next((row for row in rows if row.may_win), None)
        if leader is None:
            raise ExportError("no candidate has finished the last stage yet; `tune-rh status` shows how far the run is")
        chosen = leader if despite else best_of(rows)
        if chosen is None:
            raise ExportError(f"{why_no_best(rows)}; --despite exports it all the same")
        return chosen
    for row in finished:
        if row.candidate == candidate:
            if row.failed and not despite:
                raise ExportError(
                    f"--candidate {candidate}: fails {', '.join(row.failed)}, which the plan requires; "
                    "--despite exports it all the same"
                )
            return row
    raise ExportError(
        f"--candidate {candidate}: has not finished the last stage; those that have: "
        + (", ".join(row.candidate for row in finished) or "none")
    )


def _fill(
    folder: Path,
    paths: RunPaths,
    history: History,
    chosen: Standing,
    member: MemberId,
    weights_from: Path,
    baselines: Sequence[Baseline],
    companions: Sequence[str],
) -> None:
    plan, added = history.plan, history.candidates[chosen.candidate].added
    tested = history.member(member).tested
    metrics = dict(tested.metrics) if tested else {}
    step = tested.step if tested else history.member(member).curve.best_step
    weights = (weights_from / checkpoint.WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CONFIG).write_text(tomli_w.dumps(for_toml(added.config)), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({"step": step, **metrics}, indent=1), encoding="utf-8")
    _write_seeds(folder / "seeds.csv", history, chosen.candidate)
    shutil.copyfile(paths.provenance, folder / "provenance.json")
    index = {
        "schema": EXPORT_SCHEMA,
        "family": plan.family,
        "candidate": chosen.candidate,
        "member": str(member),
        "seed": member.seed,
        "step": step,
        "threads": plan.resources.threads,
        "config_digest": added.config_digest,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "run": plan.name,
        "plan_fingerprint": plan.fingerprint(),
    }
    if not get_family(plan.family).model:
        shutil.copyfile(weights_from / checkpoint.STATE, folder / STATE)
        index["state_sha256"] = sha256(folder / STATE)
    if ":" in plan.family:
        index["signature"] = signature((plan.family,))
        write_payloads((plan.family,), folder)
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    (folder / CARD).write_text(_card(history, chosen, member, metrics, step, baselines, companions), encoding="utf-8")


def _write_seeds(path: Path, history: History, candidate: str) -> None:
    objective, test = history.plan.objective, test_metric(history.plan.objective)
    header = ("seed", "status", "steps", "best_step", objective, test)
    members = history.candidates[candidate].members.values()
    tests = [m.tested.metrics.get(test) if m.tested else None for m in members]
    rows = [
        (m.id.seed, m.status, m.step, m.curve.best_step, history.shown(m.curve.best), value)
        for m, value in zip(members, tests, strict=True)
    ]
    write_csv(path, header, rows)


def _card(
    history: History,
    chosen: Standing,
    member: MemberId,
    metrics: dict[str, float],
    step: int,
    baselines: Sequence[Baseline],
    companions: Sequence[str],
) -> str:
    plan = history.plan
    objective, test = plan.objective, test_metric(plan.objective)
    control = next((row for row in ranking(history) if row.entry.is_control), None)
    lines = [
        f"# {escaped(called(plan.family))}: {chosen.candidate} of run {escaped(plan.name)}",
        "",
        escaped(chosen.label),
        "",
        *([f"It may know: {chosen.knowledge}.", ""] if chosen.knowledge else []),
        f"Chosen on {code(objective)} among {len(history.candidates)} candidates: mean over {chosen.num_seeds} seeds"
        f" {_pm(chosen.val, chosen.std)} (test {_pm(chosen.test, chosen.test_std)}),"
        f" {chosen.num_lost} of {chosen.num_seeds} seeds lost. The search picked the luckiest of many on val;"
        " test was read once for each that finished, and no decision looked at it.",
        "",
        f"The weights are those of `{member}` at step {step}:"
        f" {escaped(objective)} {_num(metrics.get(objective))}, {escaped(test)} {_num(metrics.get(test))}.",
        "",
        "| what | val | test |",
        "| --- | --- | --- |",
        f"| **{chosen.candidate}** | {_pm(chosen.val, chosen.std)} | {_pm(chosen.test, chosen.test_std)} |",
    ]
    if control is not None and control.candidate != chosen.candidate:
        lines.append(
            f"| {escaped(control.label)} | {_pm(control.val, control.std)} | {_pm(control.test, control.test_std)} |"
        )
    lines += [f"| {escaped(row.name)}{_knows(row)} | | {_num(row.value)} |" for row in baselines]
    lines += [
        "",
        "## Use it",
        "",
        "```python",
        "import trainables",
        "model = trainables.load('.')  # this folder",
        "```",
        "",
        f"{_where_it_says(plan.family)} says what goes in and what comes out."
        " `trainables.worker.exported.evaluate('.', 'test', data_dir)` gives the recorded metric again.",
        "",
        "## Files",
        "",
        f"`{CONFIG}` resolved config; `{WEIGHTS}` weights; `metrics.json` both splits; `seeds.csv` every seed;",
        "`provenance.json` code, libraries, data and machine; `export.json` digests.",
    ]
    if companions:
        lines.append(f"Of the data: {', '.join(map(code, companions))}.")
    return "\n".join(lines) + "\n"


def _knows(row: Baseline) -> str:
    return f" ({row.knowledge})" if row.knowledge else ""


def _where_it_says(family: str) -> str:
    if family in FAMILIES:
        return f"`trainables/{family}/README.md`"
    if called(family) != family:
        return f"The class `{called(family)}`, which `{family.partition(':')[0]}.pkl` holds,"
    return f"The module `{family.partition(':')[0]}`, which must be importable wherever this is loaded,"


def _pm(mean: float, std: float) -> str:
    return _num(mean) if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"


def _num(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
