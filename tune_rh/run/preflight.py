"""Checks before anything is launched: the plan's configs can all be built and fit their data, and there is room here.

Everything wrong is said at once. Not here: the plan's own form (`tune_rh.plan.schema`), nor what a Ray cluster can give
(`tune_rh.run.ray.cluster.count_slots`, once it is connected).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.api import Space
from search_spaces.registry import UnknownSpace, get_space
from trainables.api import ConfigCheck, Finding, Preflight
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.registry import build_config, dataset_of, get_family, get_part, resolve
from trainables.spelling import NONE, ambiguous
from tune_rh.decide.mistakes import MISTAKE
from tune_rh.decide.scheduler import scheduler_of
from tune_rh.errors import PlanError, PreflightRefused, RunExists
from tune_rh.plan.configs import named_config
from tune_rh.plan.file import load_frozen, mistakes
from tune_rh.plan.follow_ups import changes, check_follow_ups
from tune_rh.plan.kinds import SAMPLERS, Comparison, Search
from tune_rh.plan.named import named_class
from tune_rh.plan.schema import Plan
from tune_rh.preflight.checks import Subject, check, job_bytes, num_slots
from tune_rh.preflight.environment import Env, size
from tune_rh.preflight.estimates import checkpoint_bytes, run_bytes
from tune_rh.preflight.inputs import Drawn, check_config, check_family, check_space
from tune_rh.preflight.origin import check_origin, made_by
from tune_rh.preflight.trial import try_task
from tune_rh.record.history import History
from tune_rh.record.journal import RunPaths, is_locked
from tune_rh.run.runs import check_free, dataset, digest_of, of_the_family
from tune_rh.watch.watchers import find as find_watcher


def refuse(findings: Iterable[Finding], accepted: Collection[str] = ()) -> None:
    """Raise `PreflightRefused` with every finding that keeps the run from starting, one a line, if there is any.

    Args:
        findings: those that are warnings keep nothing from starting.
        accepted: ids that the user wants all the same.
    """
    refused = [finding for finding in findings if finding.level == "refuse" and finding.id not in accepted]
    if refused:
        ids = " ".join(f"--accept {name}" for name in dict.fromkeys(finding.id for finding in refused))
        raise PreflightRefused("\n".join([*dict.fromkeys(map(str, refused)), f"To go on all the same: {ids}"]))


def check_plan(plan: Plan) -> list[Finding]:
    """Raise `PlanError` with all that `find_in_plan` refuses; what it only warns of is returned."""
    found = find_in_plan(plan)
    refused = [str(finding) for finding in found if finding.level == "refuse"]
    if refused:
        raise PlanError("\n".join(refused))
    return found


def find_in_plan(plan: Plan) -> list[Finding]:
    """P00 to P02, P43: control, presets and draws from the space give valid configs, different ones, of one data set.

    A family may have ids of its own for its configs. Where the family is wrong nothing else is looked at.
    """
    found = list(check_family(plan.family))
    if found:
        return found
    try:
        scheduler_of(plan)
        if isinstance(plan, Search) and plan.sampler.name not in SAMPLERS:
            named_class("sampler.name", plan.sampler.name, SAMPLERS, ("draw",))
        for watcher in plan.watch:
            find_watcher(watcher)
    except PlanError as error:
        found.append(_finding("P02", str(error)))
    data: dict[str, str] = {}
    if not plan.control:
        found.append(Finding("P00", "control", "missing; a search needs something that others must beat"))
    built = [_named(plan, name, found, data) for name, _ in plan.named if name]
    found += _same(plan, built)
    found += _not_written(
        (f"config {name!r}" if name in plan.configs else f"preset {name!r}", made[0])
        for (name, _), made in zip(plan.named, built, strict=False)
        if made is not None
    )
    found += _unclear(plan)
    if isinstance(plan, Search) and plan.space:
        drawn = _check_space(plan, found, data)
        found += [
            Finding(
                "P02", f"fixed.{name} = {plan.fixed[name]!r}", f"space {plan.space!r} draws {name}; fix it or draw it"
            )
            for name in sorted(drawn & plan.fixed.keys())
        ]
    if len(set(data.values())) > 1:
        which = ", ".join(f"{where}: {name}" for where, name in data.items())
        found.append(Finding("P02", f"data differs ({which})", "set fixed.data, or no comparison would mean anything"))
    if isinstance(plan, Search) and plan.follow_ups and not found:
        winners = [subject for subject in subjects(plan) if not subject.part.startswith("reference")]
        lines = check_follow_ups(plan, [(subject.part, subject.config) for subject in winners])
        found += [_finding("P02", line) for line in lines]
    return list(dict.fromkeys(found))


def find_here(plan: Plan, env: Env, runs_dir: Path, data_dir: Path, *, strict: bool = False) -> list[Finding]:
    """What else speaks against launching a plan here and now; its configs that are not valid are left out.

    Args:
        plan: it.
        env: what there is.
        runs_dir: where the run would lie.
        data_dir: where data sets lie.
        strict: take any run for a long one.
    """
    found = [*_find_at(RunPaths(runs_dir / plan.name), plan)]
    if not any(check_family(plan.family)):
        found += [*_find_data(plan, data_dir), *check_machine(plan, env, strict=strict)]
    return found


def needs(plan: Plan, env: Env) -> str:
    """What the largest of a plan's configs takes, in words; empty where the family does not say."""
    about = get_part(plan.family, "preflight")
    if about is None or about.footprint is None:
        return ""
    footprints = [about.footprint(subject.config) for subject in subjects(plan)]
    if not footprints:
        return ""
    job = max(job_bytes(footprint, env) for footprint in footprints)
    checkpoint = max(map(checkpoint_bytes, footprints))
    disk = run_bytes(plan, checkpoint, num_slots(plan.resources, env))
    return (
        f"A job takes about {size(job)} of memory, a checkpoint {size(checkpoint)}, and all those of the run "
        f"{size(disk)} of {size(env.free_disk)} that are free."
    )


def _find_at(paths: RunPaths, plan: Plan) -> Iterator[Finding]:
    """P40, P41, P44: nothing is in the run's place."""
    try:
        check_free(paths.root)
    except RunExists as error:
        name, note = "P41", "it is of another plan"
        if not paths.journal.is_file():
            name, note = "P40", "it is no run"
        elif is_locked(paths):
            name, note = "P44", "another process is writing it"
        else:
            with suppress(PlanError):
                if load_frozen(paths.plan).fingerprint() == plan.fingerprint():
                    note = "it is of this very plan"
        yield Finding(name, str(paths.root), f"{error}; {note}")


def _find_data(plan: Plan, data_dir: Path) -> Iterator[Finding]:
    """P50 to P52: the data set is there, sound, and large enough."""
    try:
        name = dataset(plan)
        digest_of(get_family(plan.family), name, data_dir)
        check_data(plan, data_dir)
    except PlanError:
        return  # the control's config is not valid, which is a finding of its own
    except DataMissing:
        yield Finding("P50", f"data set {name!r}", f"is not in {data_dir}; a launch makes it first", "warn")
    except DataCorrupt as error:
        yield Finding("P52", f"data set {name!r}", str(error))
    except DataError as error:
        yield from (_finding("P51", line) for line in str(error).splitlines())


def check_data(plan: Plan, data_dir: Path) -> None:
    """Raise `DataError` unless control, presets and draws from the space all fit their data set, which is made.

    A family whose data cannot tell is taken at its word.

    Raises:
        trainables.errors.DataMissing: the data set is not made.
        trainables.errors.DataCorrupt: it is damaged.
    """
    source = resolve(get_family(plan.family).data)
    if not isinstance(source, ConfigCheck):
        return
    problems = []
    for subject in subjects(plan):
        try:
            with of_the_family("data.check()"):
                source.check(subject.config, data_dir)
        except (DataMissing, DataCorrupt):
            raise
        except DataError as error:
            problems.append(f"{subject.part}: {error}")
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))


def check_machine(plan: Plan, env: Env, *, strict: bool = False, left: float = 1.0) -> list[Finding]:
    """What speaks against running a plan that `check_plan` has passed on a machine; see `tune_rh.preflight.checks`."""
    about = get_part(plan.family, "preflight") or Preflight()
    return check(plan, subjects(plan), about, env, strict=strict, left=left)


def try_control(plan: Plan, data_dir: Path, *, here: bool) -> list[Finding]:
    """What one trial round trip of the control finds; its data set is made.

    Args:
        plan: that `check_plan` has passed.
        data_dir: where data sets lie.
        here: jobs will run in this process, so that what they import is imported before the trial, and once.
    """
    family, device = get_family(plan.family), "cuda" if plan.resources.gpu else "cpu"
    if here:
        from trainables.worker.member import import_all  # which a check without a trial need not load

        import_all(plan.family)
    if device == "cuda" and not _has_cuda():
        return [Finding("T00", "task", "is not tried: jobs run on a GPU, and torch sees none here", "warn")]
    wanted = [bound.metric for bound in plan.rules.health if bound.required]
    return try_task(family, named_config(plan, plan.control)[0], data_dir, device=device, wanted=wanted)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


CALLED = {"code": "P47", "evaluation": "T03", "state": "T05", "seed": "T07", "failures": MISTAKE}
"""Ids of findings by what they are about, for those who accept them."""
OF_THE_PAST = frozenset({"P42", "P45", "P46", "P47"})
"""Ids of what has changed since the run began: each change is accepted by itself."""


def check_past(history: History, accepting: Collection[str] = ()) -> list[Finding]:
    """P42, P45 to P47: what the run is made by, and each candidate's config as it is built now, are what they were.

    A change that was accepted is none; what changes after it is one. T08 warns of a mistake that has stopped the run,
    and is a finding to accept where it is among ``accepting``.
    """
    halted = Finding(MISTAKE, "task", "the last session stopped at what every member would raise", "warn")
    if MISTAKE in accepting:
        halted = replace(halted, level="refuse")
    was = {} if history.created is None else history.created.made_by
    found = [*check_origin(was, made_by(history.plan)), *_check_pins(history)]
    found += [halted] if history.ended == "halted" else []
    accepted = {(event.id, event.part, event.message) for event in history.accepted}
    return [finding for finding in found if (finding.id, finding.part, finding.message) not in accepted]


def _check_pins(history: History) -> list[Finding]:
    family, found = get_family(history.plan.family), []
    for candidate in history.candidates.values():
        added = candidate.added
        try:
            digest = build_config(family, written=[added.config]).digest()
        except ValidationError as error:
            digest = "no valid config: " + "; ".join(line for _, line in mistakes(error))
        if digest != added.config_digest:
            found.append(Finding("P42", added.candidate, f"its config was {added.config_digest}, and is {digest}"))
    return found


def subjects(plan: Plan) -> Iterator[Subject]:
    """All valid configs that the plan names and draws from its space."""
    for name, origin in plan.named:
        preset = plan.configs[name].preset if name in plan.configs else name
        kind = "reference" if origin == "reference" else "config" if name in plan.configs else "preset"
        with suppress(PlanError):
            yield Subject(f"{kind} {name!r}", named_config(plan, name)[0], preset)
    if isinstance(plan, Search) and plan.space:
        with suppress(UnknownSpace):
            space = get_space(plan.family, plan.space)
            for config in _drawn(plan, space).configs:
                yield Subject(f"space {plan.space!r}", config, space.base)


def _unclear(plan: Plan) -> list[Finding]:
    """P02: each text in the plan's config fields that may stand for None."""
    model = resolve(get_family(plan.family).config)
    tables: dict[str, Mapping[str, Any]] = {"fixed": plan.fixed}
    for name, variant in plan.configs.items():
        if variant.preset is not None or variant.fields.keys() < model.model_fields.keys():  # else nobody typed it
            tables[f"configs.{name}.fields"] = variant.fields
    if isinstance(plan, Search):
        tables |= {f"follow_ups[{change.table}].changes": change.fields for change in changes(plan)}
    said = 'may be None or the text; write "{}" for None, "@text:{}" for the text'
    return [
        Finding("P02", f"{table}.{field} = {text!r}", said.format(NONE, text))
        for table, fields in tables.items()
        for field, text in ambiguous(model, fields)
    ]


def _same(plan: Plan, built: Sequence[tuple[Any, int | None] | None]) -> Iterator[Finding]:
    """P43: configs that are the same, trained with the same seeds."""
    if isinstance(plan, Comparison) and built[0] is not None and built[0] == built[-1]:
        message = f"{plan.presets[0]!r} and the control {plan.control!r} are the same config"
        yield Finding("P43", "presets", message)
        return
    for i, ((name, origin), made) in enumerate(zip(plan.named, built, strict=False)):
        if made is None:
            continue
        if origin == "reference" and built.count(made) > 1:
            yield Finding("P43", "references", f"{name!r} is the same config as another that the plan names")
        elif origin == "preset" and made in built[:i]:
            other = plan.named[built.index(made)][0]
            yield Finding("P43", "presets", f"{name!r} is the same config as {other!r}: it runs once", "warn")


def _named(plan: Plan, name: str, found: list[Finding], data: dict[str, str]) -> tuple[Any, int | None] | None:
    try:
        config, patience = named_config(plan, name)
    except PlanError as error:
        found += _of_config(plan, str(error).partition(": ")[0], error)
        return None
    data[f"preset {name!r}"] = dataset_of(get_family(plan.family), config)
    return config, patience


def _of_config(plan: Plan, part: str, error: Exception) -> Iterator[Finding]:
    """What is wrong with a config, by the family's ids where its own validation stands for one."""
    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        yield _finding("P02", str(error))
        return
    rules = (get_part(plan.family, "preflight") or Preflight()).rules
    for item, line in mistakes(cause, resolve(get_family(plan.family).config)):
        field = str(item["loc"][0]) if item["loc"] else line.partition(" = ")[0]
        kind = "P00" if item["type"] == "missing" else "P01" if item["type"].endswith("_type") else "P02"
        yield Finding(rules.get(field, kind), part, line)


def _finding(name: str, line: str) -> Finding:
    """A line that begins with the part and a colon."""
    part, _, message = line.partition(": ")
    return Finding(name, part, message)


def _check_space(plan: Search, found: list[Finding], data: dict[str, str]) -> Set[str]:
    """Fields that the space sets; notes what is wrong with how it draws, and with what."""
    try:
        space = get_space(plan.family, plan.space)
    except UnknownSpace as error:
        found.append(_finding("P02", str(error)))
        return set()
    where = f"space {plan.space!r}"
    filled = where + (" with fixed" if plan.fixed else "")
    drawn = _drawn(plan, space)
    if not drawn.configs and isinstance(drawn.error, ValidationError):
        found += _of_config(plan, filled, drawn.error)
    else:
        found += [replace(one, part=filled) if one.id == "T12" else one for one in drawn.findings]
    found += _not_written((where, config) for config in drawn.configs)
    if drawn.configs:
        data[where] = dataset_of(get_family(plan.family), drawn.configs[0])
        if not drawn.asked:
            found.append(Finding("P02", where, "draws nothing, so there is one config only; choose another space"))
    return drawn.fields


def _not_written(configs: Iterable[tuple[str, Any]]) -> Iterable[Finding]:
    """T10 of each config, once a part."""
    found: dict[str, Finding] = {}
    for part, config in configs:
        for finding in check_config(part, config):
            found.setdefault(finding.part, finding)
    return found.values()


def _drawn(plan: Plan, space: Space) -> Drawn:
    assert isinstance(plan, Search)

    def build(fields: Mapping[str, Any]) -> Any:
        config = build_config(get_family(plan.family), fields, preset=space.base, written=[plan.fixed])
        if space.check is not None:
            space.check(config.model_dump())
        return config

    return check_space(f"space {plan.space!r}", space, build)
