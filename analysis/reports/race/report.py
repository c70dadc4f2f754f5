"""The report of a race: many seeds of one config, of which the best go on at each gate.

Values are in the objective's own sign and unit.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.reports import figures
from analysis.reports.race import words as sentences
from analysis.reports.race.best_of_seeds import Seeds
from analysis.reports.race.facts import Race, Racer
from analysis.reports.tables import (
    NONE,
    counted,
    ends,
    escaped,
    markdown_table,
    number,
    write_csv,
    write_json,
    write_text,
)


def write(race: Race, folder: Path) -> Path:
    """Write race.md, .png, .csv and .json; the path of race.md.

    The folder is made if it is not there. Lost seeds, ties and NaN are no errors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = sentences.at_first_gate(race)
    figures.draw_race(race, seeds, folder / "race.png")
    gates = [f"best_at_{gate}" for gate in race.gates]
    header = ("seed", "status", "gates_passed", *gates, "best", "best_step", "test", "steps")
    write_csv(folder / "race.csv", header, [_csv_row(race, racer) for racer in sentences.ranked(race)])
    write_json(folder / "race.json", _numbers(race, seeds))
    path = folder / "race.md"
    write_text(path, "\n".join(_markdown(race, seeds)) + "\n")
    return path


def lines(race: Race) -> list[str]:
    """Four to eight plain lines for a terminal: the best seed, how often seeds succeed, what one more is worth."""
    return sentences.lines(race, sentences.at_first_gate(race))


def _markdown(race: Race, seeds: Seeds) -> list[str]:
    first, *others = sentences.lines(race, seeds)
    text = [f"# {escaped(race.run)}: a race of seeds of {escaped(race.config)}", "", f"**{escaped(first)}**", ""]
    text += [f"- {escaped(line)}" for line in others]
    text += ["", "![Curves of all seeds, and the expected best of k](race.png)", ""]
    text += ["Curves are as reported; the first descent and what diverged may lie outside the frame.", ""]
    text += ["## Seeds", "", *_seeds_table(race), ""]
    if seeds.best_of:
        text += ["## Best of k seeds", "", *_best_of_table(race, seeds), "", *_best_of_notes(race, seeds), ""]
    better = "lower" if race.mode == "min" else "higher"
    kept = ", ".join(
        f"the best {num} go on at step {gate:,}" for gate, num in zip(race.gates[:-1], race.keep, strict=False)
    )
    text += [
        "## How",
        "",
        f"- Family {escaped(race.family)}, objective {escaped(race.objective)} ({better} is better).",
    ]
    text += (
        [f"- Gates: {kept or 'none before the end'}; the race ends at step {race.gates[-1]:,}."] if race.gates else []
    )
    return text


def _seeds_table(race: Race) -> list[str]:
    places = sentences.places(race)
    header = ["seed", "status", *(f"at {gate:,}" for gate in race.gates), "best", "at step", "test", "steps"]
    rows = []
    for racer in sentences.ranked(race):
        gates = [
            number(sentences.at_gate(racer, i), places)
            if i >= len(racer.at_gates) or sentences.at_gate(racer, i) is not None
            else "lost"
            for i in range(len(race.gates))
        ]
        best = sentences.finite(racer.best)
        at = NONE if best is None else f"{racer.best_step:,}"
        test = number(sentences.finite(racer.test), places)
        rows.append([str(racer.seed), racer.status, *gates, number(best, places), at, test, f"{racer.steps:,}"])
    return markdown_table(header, rows, text_columns=2)


def _best_of_table(race: Race, seeds: Seeds) -> list[str]:
    places, sign = sentences.places(race), race.sign
    rows = []
    for row in seeds.best_of:
        cells = [str(row.k), f"needs {row.k} seeds", NONE]
        if math.isfinite(row.value.value):
            best = row.value.times(sign)
            cells = [str(row.k), number(best.value, places), ends(best, places)]
        if seeds.line:
            cells += [f"{row.success:.2f}", number(sign * row.model, places)]
        rows.append(cells)
    header = ["k", "expected best", "95% interval"]
    return markdown_table(header + (["one succeeds (model)", "best (model)"] if seeds.line else []), rows)


def _best_of_notes(race: Race, seeds: Seeds) -> list[str]:
    at = f"at step {race.gates[0]:,}, " if race.gates else ""
    notes = [
        f"- Expected best: unbiased, from the {seeds.num} seeds {at}where all can be compared; the interval is a "
        "bootstrap over them, too narrow with few seeds, and never reaches beyond the best one seen."
    ]
    if seeds.lost:
        notes.append(f"- Lost: {counted(seeds.lost, 'seed')}, counted as the worst value of the others.")
    if seeds.line:
        notes.append(
            "- Model: a seed succeeds with a probability that has a Beta(1/2, 1/2) prior; the best is the mean of "
            "those that succeeded with the probability that one of k does, else the mean of those that did not. It "
            "sees no difference between two that succeeded, so where most do it says too little of the best."
        )
    return notes


def _csv_row(race: Race, racer: Racer) -> list[object]:
    gates = [sentences.at_gate(racer, i) for i in range(len(race.gates))]
    return [racer.seed, racer.status, racer.passed, *gates, racer.best, racer.best_step, racer.test, racer.steps]


def _numbers(race: Race, seeds: Seeds) -> dict[str, Any]:
    """What race.json holds, in the objective's own sign; curves are in the members' folders."""
    sign = race.sign
    named = ("run", "family", "config", "objective", "unit", "mode", "gates", "keep", "success", "seconds", "steps")
    per_racer = ("seed", "status", "passed", "at_gates", "best", "best_step", "test", "steps")
    swapped, pairs = sentences.swapped_pairs(race)
    best_of = [
        {"k": row.k, **row.value.times(sign)._asdict(), "success": row.success, "model": sign * row.model}
        for row in seeds.best_of
    ]
    return {
        **{name: getattr(race, name) for name in named},
        "racers": [{name: getattr(racer, name) for name in per_racer} for racer in sentences.ranked(race)],
        "first_gate": {
            "num_seeds": seeds.num,
            "lost": seeds.lost,
            "line": None if seeds.line is None else asdict(seeds.line) | {"value": sign * seeds.line.value},
            "successes": seeds.successes if seeds.line else None,
            "success_rate_interval": seeds.rate[1:] if seeds.line else None,
            "best_of": best_of,
        },
        "finishers": {"pairs": pairs, "changed_places": swapped},
    }
