"""What a report says first: the best config, how sure that is, what it beat, what it cost, and what to doubt.

Plain sentences, short enough for a first screen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis.baselines import unbeaten, within
from analysis.diagnose.api import Baseline
from analysis.reports.page.facts import Facts, Lead
from analysis.reports.tables import counted, duration, ends, listed, mean_std, number, with_unit
from analysis.search.schedules import ranked_apart
from analysis.stats.interval import Interval
from analysis.stats.student import t_quantile
from analysis.view import Standing, why_no_best

FEW_SEEDS = 5
"""Fewer pairs carry no claim (docs/statistics.md, rule 5)."""
_STATES = {
    "running": "The run is going on: everything below is as it stood when this was written, and may change.",
    "finished": "The run is finished.",
    "interrupted": "The run was interrupted and can go on: `tune-rh resume {name}`. What is below is unfinished.",
    "failed": "The run ended with an error and can go on: `tune-rh resume {name}`. What is below is unfinished.",
    "killed": "Nothing writes this run any more, and it did not end in good order: `tune-rh resume {name}` goes on.",
    "not begun": "Nothing has been run yet.",
}
_CONTROL = "the control"
_BAD = (("fail", "fails"), ("warn", "is warned by"))
_BAD_OF_RUN = (("fail", ("fails", "fail")), ("warn", ("warns", "warn")))  # of one question, of several


@dataclass(frozen=True)
class Answer:
    """One of the lines at the top: a word, a sentence, and for doubts one sentence each."""

    word: str
    text: str
    points: tuple[str, ...] = ()


def state_line(facts: Facts) -> str:
    """Whether the run is finished, and how to go on with it if not; while it runs, how long it will take."""
    text, outlook = _STATES[facts.state].format(name=facts.run.root.name), facts.outlook
    if outlook is None:
        return text
    share = min(1.0, facts.run.spent.steps / outlook.expected_steps)
    left = f"about {duration(outlook.seconds_left)} to go" if outlook.seconds_left > 0.0 else "about to end"
    return f"{text} {share:.0%} of the {outlook.expected_steps:,} steps that it is expected to take; {left}."


def answers(facts: Facts) -> list[Answer]:
    """The five lines; a run without a score says so and keeps cost and doubts."""
    best = facts.best
    if best is None:
        return [Answer("Best", f"None: {_why_none(facts)}."), Answer("Cost", _cost(facts)), _doubt(facts)]
    return [
        Answer("Best", _best(facts, best)),
        Answer("How sure", _how_sure(facts, best)),
        Answer("What it beat", " ".join((_beaten(facts, best), *_beside(facts)))),
        Answer("Cost", _cost(facts)),
        _doubt(facts),
    ]


def _lead_text(ahead: Interval, num_pairs: int, places: int) -> str:
    """``0.177 (95% interval 0.104 to 0.250, 3 pairs)``."""
    amount = number(ahead.value, places)
    if num_pairs < 2:
        return f"{amount} (one pair of seeds: no interval)" if num_pairs else "an unknown amount (no common seed)"
    return f"{amount} (95% interval {ends(ahead, places)}, {num_pairs} seeds in pairs)"


def against_baselines(facts: Facts, best: Standing) -> tuple[list[str], list[str]]:
    """Baselines that are better than the best one on test (or as good), and those inside its 95% interval there.

    Of those only that know nothing beyond what it may know.
    """
    n = best.num_tested
    half = t_quantile(0.975, n - 1) * best.test_std / math.sqrt(n) if n > 1 else math.nan
    fair, _ = within(facts.baselines, best.knowledge)
    tied = [row.name for row in fair if abs(row.value - best.test) <= half]
    return [name for name in unbeaten(fair, best.test, facts.run.sign) if name not in tied], tied


def _best(facts: Facts, best: Standing) -> str:
    run = facts.run
    name = run.candidates[best.candidate].name
    title = f"{best.candidate}, the control {name}" if best.entry.is_control else f"{best.candidate}: {name}"
    beside = sum(candidate.origin == "reference" for candidate in run.candidates.values())
    num = counted(len(run.candidates) - beside, "candidate")
    among = f"{num} ({counted(beside, 'reference')} beside them)" if beside else num
    where = "" if facts.is_end else f", ahead at step {best.entry.until_step:,} (no candidate was scored at the end)"
    text = f"{title}, of {among}{where}."
    if best.entry.is_control and facts.over_second is not None:
        text += " No other candidate that was scored at that step ranks above the control."
    return text


def _why_none(facts: Facts) -> str:
    if any(s.may_win for s in facts.standings):
        return why_no_best(facts.run.ranking)
    lost = sum(m.lost_stage is not None for m in facts.run.members.values())
    text = "no candidate has a score at any gate" + (" yet" if facts.state == "running" else "")
    return text + (f"; {counted(lost, 'member')} of {len(facts.run.members)} diverged or failed" if lost else "")


def _how_sure(facts: Facts, best: Standing) -> str:
    lost, of_k = best.entry.num_lost, _of_k(facts)
    counts_as = "a failure" if of_k else "the worst value at that gate"
    gone = f"{lost} lost: {counts_as}, and not in the deviation" if lost else "none lost"
    seeds = f"{counted(len(best.entry.values), 'seed')} ({gone})"
    value = with_unit(mean_std(best.val, best.std, facts.places), facts.unit)
    what = f"value of the best of {of_k} seeds" if of_k else "mean"
    text = f"{facts.run.objective} {value}, {what} ± standard deviation over {seeds}"
    if best.entry.successes is not None:
        text += f"; {best.entry.successes} found the good minimum"
    others = list(leads(facts))
    places = facts.places
    ahead = [
        f"{_next(other)} by {_lead_text(lead.ahead, lead.num_pairs, places)}"
        for other, lead in others
        if lead.ahead.value > 0.0
    ]
    sentences = [f"{text}."]
    sentences += [f"{'In the mean ahead' if of_k else 'Ahead'} of {listed(ahead)}."] if ahead else []
    sentences += [_not_ahead(facts, other, lead) for other, lead in others if not lead.ahead.value > 0.0]
    return " ".join(sentences if others else [*sentences, "No other candidate was scored at that step."])


def leads(facts: Facts) -> Iterator[tuple[str, Lead]]:
    """Those that the best one is held against among the ranked, and its lead over each."""
    if facts.over_second is not None:
        yield facts.over_second.other, facts.over_second
    if facts.over_control is not None:
        yield _CONTROL, facts.over_control


def _next(other: str) -> str:
    return other if other == _CONTROL else f"the next, {other},"


def _not_ahead(facts: Facts, other: str, lead: Lead) -> str:
    """Places go by score; in pairs of seeds that came through it can be otherwise."""
    if not lead.num_pairs:
        return f"How far it is from {other} is unknown: no seed came through in both."
    behind = lead.ahead.times(-1.0)
    by = f" by {_lead_text(behind, lead.num_pairs, facts.places)}" if behind.value else ""
    text = f"In pairs of seeds {_next(other)} is {f'ahead of it{by}' if by else 'level with it'}"
    standing = next(s for s in facts.standings if s.candidate == lead.other)
    if standing.failed:
        return f"{text}, but fails {listed(standing.failed)}."
    if _of_k(facts):
        return f"{text}: what ranks is the value of the best of {_of_k(facts)}."
    return (
        f"{text}: what ranks is the mean one standard error to the worse, where a lost seed counts as the worst value."
    )


def _of_k(facts: Facts) -> int:
    """Of how many seeds the best is what counts; 0 where the mean is."""
    scoring = facts.run.plan["scoring"]
    return int(scoring["k"]) if scoring["objective"] == "best_of_k" else 0


def _beaten(facts: Facts, best: Standing) -> str:
    if math.isnan(best.test):
        return "The test split has not been read for it: it has beaten nothing outside the search."
    value = f"On test {with_unit(mean_std(best.test, best.test_std, facts.places), facts.unit)}"
    if not facts.baselines:
        return f"{value}; no baselines to compare with: {facts.baselines_note or 'this family has none'}."
    above, tied = against_baselines(facts, best)
    fair, beyond = within(facts.baselines, best.knowledge)
    num = len(fair)
    if best.knowledge and not above and not tied:
        return f"{value}: beats all {num} baselines of its class ({best.knowledge}).{_beyond(facts, beyond)}"
    of_class = f" of its class ({best.knowledge})" if best.knowledge else ""
    text = f"{value}: better than {num - len(above) - len(tied)} of {num} baselines{of_class}"
    text += f", too close to tell from {listed(tied)}" if tied else ""
    return text + (f"; worse than {listed(above)}." if above else "; worse than none.") + _beyond(facts, beyond)


def _beyond(facts: Facts, rows: Sequence[Baseline]) -> str:
    """What lies above: the best of the baselines that know more than the best one may."""
    if not rows:
        return ""
    first = min(rows, key=lambda row: facts.run.sign * row.value)
    verb = "know" if rows[1:] else "knows"
    return (
        f" {counted(len(rows), 'baseline').capitalize()} {verb} more, by class or by a longer past; the best of them, "
        f"{first.name} ({first.knowledge}), has {number(first.value, facts.places)}."
    )


def _beside(facts: Facts) -> Iterator[str]:
    """How it stands to each reference, on val."""
    for lead in facts.over_references:
        label = facts.run.candidates[lead.other].name
        reference = f"reference {lead.other}" + (f" ({label})" if label != lead.other else "")
        is_ahead = lead.ahead.value > 0.0
        by = _lead_text(lead.ahead if is_ahead else lead.ahead.times(-1.0), lead.num_pairs, facts.places)
        yield f"It is ahead of the {reference} by {by}." if is_ahead else f"The {reference} is ahead of it by {by}."


def _cost(facts: Facts) -> str:
    bill, slots = facts.ledger, facts.run.slots
    spent = bill.spent
    text = f"{spent.steps:,} steps, {duration(spent.slot_seconds)} of compute time"
    text += f" ({counted(slots, 'slot')})" if slots else ""
    if bill.gpu_hours:
        text += f", {bill.gpu_hours:.2f} GPU-hours"
    if bill.money is not None:
        text += f", {bill.money:.2f} at {bill.price_per_hour:g} per hour"
    if facts.run.kind == "search" and spent.ungated_steps:
        share = spent.steps / spent.ungated_steps
        text += (
            f"; {share:.0%} of the {spent.ungated_steps:,} steps that it takes to bring all candidates so far to the "
            f"end with all seeds (about {duration(spent.ungated_slot_seconds)})"
        )
    return text + "."


def _doubt(facts: Facts) -> Answer:
    points = tuple(_doubts(facts))
    if not points:
        return Answer("What to doubt", "Nothing that this report looks at speaks against it.")
    return Answer("What to doubt", f"{counted(len(points), 'thing')}:", points)


def _doubts(facts: Facts) -> Iterator[str]:
    if facts.state != "finished":
        yield "The run is not finished."
    yield from facts.notes
    yield from facts.run.remarks
    best = facts.best
    if best is not None:
        yield from _doubts_of_best(facts, best)
    yield from _about_run(facts)
    yield from _losses(facts)
    if facts.run.kind == "search":
        yield from _gates(facts)


def _doubts_of_best(facts: Facts, best: Standing) -> Iterator[str]:
    places, unit = facts.places, facts.unit
    passed_over = [s.candidate for s in facts.standings[: facts.standings.index(best)] if s.failed and s.may_win]
    if passed_over:
        yield f"Passed over because they fail what the plan requires: {listed(passed_over)}."
    yield from _diagnosed(facts, best)
    for other, lead in leads(facts):
        if not lead.ahead.low > 0.0:
            yield _doubted_lead(other, lead)
    behind = [lead.other for lead in facts.over_references if not lead.ahead.value > 0.0]
    if behind:
        yield f"What the plan compares it with is at least as good in the mean: {listed(behind)}."
    num = best.num_seeds - best.num_lost
    if num < FEW_SEEDS:
        yield (
            f"{counted(num, 'seed').capitalize()}: a claim takes {FEW_SEEDS} in pairs, "
            "on a comparison of its own (`tune-rh ab`)."
        )
    gap = facts.run.sign * (best.test - best.at_test)
    if gap > 0.0 and not gap <= best.std:
        text = f"On test it is {with_unit(number(gap, places), unit)} worse than on val"
        times = gap / best.std if best.std > 0.0 else math.nan
        yield text + (f", {times:.1f} times its spread over seeds." if math.isfinite(times) else ".")
    above, tied = against_baselines(facts, best)
    if facts.baselines and not math.isnan(best.test) and above:
        verb = "are" if above[1:] else "is"
        yield f"{counted(len(above), 'baseline').capitalize()} without a network {verb} better."
    if tied:
        yield f"A tie on test, within its own spread: {listed(tied)}."


def _doubted_lead(other: str, lead: Lead) -> str:
    if not lead.num_pairs:
        return f"It cannot be held against {other}: no seed came through in both."
    if not lead.ahead.value > 0.0:
        return f"In pairs of seeds it is not ahead of {other}."
    why = "the interval reaches zero" if lead.num_pairs > 1 else "it rests on one pair of seeds"
    return f"Its lead over {other} may be chance: {why}."


def _diagnosed(facts: Facts, best: Standing) -> Iterator[str]:
    verdicts = facts.verdicts(best.candidate)
    if not verdicts:
        if facts.diagnostics:
            yield "No diagnostic has looked at it."
        return
    bad = {
        word: [name for name, counts in verdicts.items() if counts[word]] for word in ("fail", "warn", "no_evidence")
    }
    bad["warn"] = [name for name in bad["warn"] if name not in bad["fail"]]
    clauses = [f"{text} {listed(bad[word])}" for word, text in _BAD if bad[word]]
    if clauses:
        yield f"Of {counted(len(verdicts), 'diagnostic')}, on some seed it {', and '.join(clauses)}."
    else:
        yield f"All {len(verdicts) - len(bad['no_evidence'])} diagnostics with evidence pass; that is no proof."


def _about_run(facts: Facts) -> Iterator[str]:
    findings = facts.tables.by_member.get("", ())
    bad = [(verbs, [f.name for f in findings if f.verdict == word]) for word, verbs in _BAD_OF_RUN]
    clauses = [f"{listed(names)} {verbs[len(names) > 1]}" for verbs, names in bad if names]
    if clauses:
        yield f"Of the questions about the whole run, {', and '.join(clauses)}."
    for finding in findings:
        if finding.verdict == "fail":
            yield f"{finding.name}: {_first_sentence(finding.summary)}"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text, maxsplit=1)[0]


def _losses(facts: Facts) -> Iterator[str]:
    lost = [m for m in facts.run.members.values() if m.lost_stage is not None]
    if lost:
        ids = listed([*[m.id for m in lost[:4]], *([f"{len(lost) - 4} more"] if len(lost) > 4 else [])])
        yield f"{counted(len(lost), 'member').capitalize()} diverged or failed ({ids}); each counts as the worst value."


def _gates(facts: Facts) -> Iterator[str]:
    marked = [f"{candidate} ({mark})" for candidate, mark in ranked_apart(facts.run).items()]
    if marked:
        some = listed([*marked[:4], *([f"{len(marked) - 4} more"] if len(marked) > 4 else [])])
        yield (
            f"Gates have ranked candidates at other points of their schedules than the control: {some}. Where a "
            "learning rate comes down sooner, the loss does too."
        )
    regret = facts.regret
    if regret.audit is not None and regret.audit.better:
        yield f"Gates stopped candidates that were better in the end: {listed(regret.audit.better)}."
    if regret.chance_cut is None:
        if regret.gates:
            yield "Whether a gate stopped a better one is unknown: too few candidates were scored at two gates."
    elif regret.chance_cut.value >= 0.05:
        cut = regret.chance_cut
        yield (
            f"The chance that a gate stopped the best is about {cut.value:.0%} "
            f"(95% interval {cut.low:.0%} to {cut.high:.0%})."
        )
