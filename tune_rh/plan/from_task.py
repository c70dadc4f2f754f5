"""The plan of a search that is described in Python: a task, a space and a base in place of a family.

Not here: the family that is made of them (`trainables.given`), nor whether it works (`tune_rh.run.preflight`).
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from analysis.diagnose.api import baseline, diagnostic
from search_spaces.api import RandomTrial, Space
from trainables.api import Metric
from trainables.errors import TrainableError
from trainables.files import sha256
from trainables.given.config import config_class
from trainables.given.data import GivenData
from trainables.given.module import BASE, SPACE, Given, given, given_modules, hand_over
from tune_rh.errors import PlanError
from tune_rh.plan.cost import even_steps
from tune_rh.plan.defaults import learning
from tune_rh.plan.file import metrics_named, resolve_plan
from tune_rh.plan.schema import Plan
from tune_rh.plan.stages import Stage, paid_for

_METHODS = ("step", "evaluate", "state_dict", "load_state_dict")
_NUM_DRAWS = 100
_MADE_HERE = ("family", "control", "space")


def plan_of(
    task: Callable[..., Any],
    name: str,
    *,
    space: Space | Callable[..., Any] | None,
    base: Any,
    objective: str | None,
    mode: str,
    data: str | Path | Callable[[Path], Any] | None,
    metrics: Sequence[str | Metric],
    stages: Sequence[Any],
    steps: int | None,
    candidates: int | None,
    fields: Mapping[str, Any],
    diagnostics: Sequence[Any] = (),
    baselines: Sequence[Any] = (),
) -> Plan:
    """The plan; arguments as for `tune_rh.search`, ``fields`` being other keys of a plan.

    Raises:
        PlanError: naming the argument, its value and what is allowed.
    """
    made_here = next((key for key in _MADE_HERE if key in fields), None)
    if made_here is not None:
        raise PlanError(f"{made_here} = {fields[made_here]!r}: is made from the task; leave it out")
    staged = _stages(stages, steps, fields)
    num_seeds = max(int(stage.get("num_seeds", 1)) for stage in staged["stages"])
    described: dict[str, Any] = {
        "name": name,
        "control": BASE,
        "num_candidates": candidates,
        "seeds": list(range(1, num_seeds + 1)),
        "space": SPACE if space is not None else "",
        **staged,
        **fields,
    }
    if candidates is None and "num_candidates" not in fields:
        described["num_candidates"] = _paid_for(steps, staged, fields.get("budget"))
    if candidates is not None and "num_candidates" in fields:
        raise PlanError("candidates and num_candidates are the same: give one")
    if "eval_every" not in described:
        described["eval_every"] = even_steps(*(stage["until_step"] for stage in staged["stages"]))
    # A metric that a rule names is one that the task has to report, which the checks before a launch find out.
    named = metrics_named(_plain({**described, "family": "given:FAMILY"}), "search")
    known = {objective, *(metric.name if isinstance(metric, Metric) else metric for metric in metrics)}
    more = [name for name in dict.fromkeys(named) if name not in known]
    described["family"] = family_of(
        task,
        space=space,
        base=base,
        objective=objective,
        mode=mode,
        data=data,
        metrics=[*metrics, *more],
        diagnostics=diagnostics,
        baselines=baselines,
    )
    return resolve_plan(_plain(described), where="search")


def family_of(
    task: Callable[..., Any],
    *,
    space: Space | Callable[..., Any] | None = None,
    base: Any,
    objective: str | None,
    mode: str = "min",
    data: str | Path | Callable[[Path], Any] | None = None,
    metrics: Sequence[str | Metric] = (),
    diagnostics: Sequence[Any] = (),
    baselines: Sequence[Any] = (),
) -> str:
    """The reference of the family that is made from these; raises `PlanError` as `plan_of`."""
    title = title_of(task)
    _check_task(task, title)
    if not isinstance(objective, str) or not objective:
        raise PlanError(f"objective = {objective!r}: the name of a metric that {title}.evaluate('val') reports")
    if mode not in ("min", "max"):
        raise PlanError(f"mode = {mode!r}: allowed are 'min' and 'max'")
    whole = _space(space)
    drawn = {} if whole is None else _drawn(whole)
    try:
        config_class("Config", __name__, base, drawn)
    except ValueError as error:
        raise PlanError(f"base: {error}") from error
    way: Literal["min", "max"] = "max" if mode == "max" else "min"
    more = tuple(metric if isinstance(metric, Metric) else Metric(metric, "min", "", "") for metric in metrics)
    asked = _made("diagnostics", diagnostics, diagnostic, lambda one: hasattr(one, "needs"))
    to_beat = _made("baselines", baselines, baseline, lambda one: not hasattr(one, "__code__"))
    given = Given(title, task, base, drawn, whole, objective, way, more, _data(data), _source(task), asked, to_beat)
    return _handed_over(given)


def with_task(family: str, task: Callable[..., Any]) -> str:
    """The reference of a family that differs from ``family`` in its task; raises `PlanError` as `plan_of`."""
    if not given_modules((family,)):
        raise PlanError(f"task: that of this run is of the family {family}: mend its source, and accept 'code'")
    title = title_of(task)
    _check_task(task, title)
    return _handed_over(replace(given(family), title=title, task=task, source=_source(task)))


def _handed_over(given: Given) -> str:
    try:
        return hand_over(given)
    except (pickle.PickleError, TypeError, AttributeError, ValueError, RecursionError, TrainableError) as error:
        raise PlanError(_not_pickled(given, error)) from error


def _made(
    argument: str, functions: Sequence[Any], decorate: Callable[[Any], Any], is_decorated: Callable[[Any], bool]
) -> tuple[Any, ...]:
    """Functions as what ``decorate`` makes of them, those left as they are that it has made already."""
    if not isinstance(functions, list | tuple):
        raise PlanError(f"{argument} = {functions!r}: allowed is a list of functions")
    made = []
    for i, one in enumerate(functions):
        if not callable(one) or isinstance(one, type):
            raise PlanError(f"{argument}[{i}] = {one!r}: allowed is a function")
        made.append(one if is_decorated(one) else decorate(one))
    names = [getattr(one, "name", None) for one in made if hasattr(one, "name")]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanError(f"{argument}: two are called {twice!r}")
    return tuple(made)


def title_of(task: object) -> str:
    """What a task's class or function is called."""
    return str(getattr(task, "__name__", type(task).__name__)).strip("<>")


def _check_task(task: Any, title: str) -> None:
    if not callable(task):
        raise PlanError(f"task = {task!r}: is no plan, and cannot be called; a class, or what makes a task")
    lacking = [name for name in _METHODS if not callable(getattr(task, name, None))] if isinstance(task, type) else []
    if lacking:
        raise PlanError(f"{title}: has no method {', '.join(lacking)}; a task has {', '.join(_METHODS)}")
    try:
        inspect.signature(task).bind({}, seed=1, device="cpu", data_dir=Path())
    except TypeError as error:
        raise PlanError(
            f"{title}: is called as {title}(config, seed=..., device=..., data_dir=...), and {error}"
        ) from error
    except ValueError:  # it has no signature to look at
        return


def _space(space: Any) -> Space | None:
    if space is None or isinstance(space, Space):
        return None if space is None else replace(space, base=BASE)
    if not callable(space):
        raise PlanError(f"space = {space!r}: allowed is a function of a trial that returns a dict, or a Space")
    return Space(suggest=space, base=BASE)


def _drawn(space: Space) -> dict[str, list[Any]]:
    """Of each name that draws set, a value of each type. What fails here is found, with its reason, before launch."""
    found: dict[str, dict[str, Any]] = {}
    for seed in range(_NUM_DRAWS):
        fields: object = None
        with suppress(Exception, SystemExit):  # code of the user's: the checks before launch make it a finding
            fields = space.suggest(RandomTrial(seed))
        if isinstance(fields, dict):
            for name, value in fields.items():
                found.setdefault(name, {}).setdefault(_kind(value), value)
    return {name: list(values.values()) for name, values in found.items()}


def _kind(value: Any) -> str:
    """The type of a value, with those inside a list or a tuple."""
    inside = ", ".join(map(_kind, value)) if isinstance(value, list | tuple) else ""
    return f"{type(value).__name__}[{inside}]"


def _data(data: Any) -> GivenData:
    if data is None:
        return GivenData("none")
    if isinstance(data, str | Path):
        place = Path(data).absolute()
        if not place.exists():
            raise PlanError(f"data = {str(data)!r}: no such file or folder")
        return GivenData(place.name or str(place), place)
    if not callable(data):
        raise PlanError(f"data = {data!r}: allowed is a file, a folder, or a function of a folder that makes it")
    name = title_of(data)
    code = getattr(data, "__code__", None)
    text = name if code is None else f"{name} {code.co_code.hex()} {code.co_consts}"
    return GivenData(name, make=data, key=hashlib.sha256(text.encode()).hexdigest()[:16])


def _source(task: Any) -> tuple[str, str]:
    try:
        file = inspect.getsourcefile(getattr(task, "source", task))
        return (str(Path(file).absolute()), sha256(Path(file))[:16]) if file else ("", "")
    except (TypeError, OSError):  # typed into a prompt, or a notebook
        return "", ""


def _not_pickled(given: Given, error: BaseException) -> str:
    """Which part of what was handed over cannot be pickled."""
    import cloudpickle

    parts: dict[str, Any] = {given.title: given.task, "space": given.space, "base": given.base, "data": given.data}
    for name, part in parts.items():
        try:
            cloudpickle.dumps(part)
        except (pickle.PickleError, TypeError, AttributeError, ValueError, RecursionError) as refused:
            return (
                f"{name}: cannot be pickled, as workers and `resume` need it ({refused}). It, or a variable that its "
                "code uses, holds what cannot: make that inside the task"
            )
    return f"{given.title}: cannot be handed over ({error})"


def _paid_for(steps: int | None, staged: Mapping[str, Any], budget: Any) -> int:
    """How many candidates a budget of steps pays for, where the stages follow from the length of a run."""
    most = budget.get("max_steps") if isinstance(budget, Mapping) else getattr(budget, "max_steps", None)
    if steps is None or not isinstance(most, int):
        raise PlanError(
            "candidates: missing; how many configs are to be drawn, beside the base. With steps=... a budget says it "
            'as well: budget={"max_steps": ...}'
        )
    return paid_for([Stage(**stage) for stage in staged["stages"]], staged["eta"], most)


def _stages(stages: Sequence[Any], steps: int | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The stages, and what else of a plan follows where only the length of a full run is given."""
    if stages and steps is not None:
        raise PlanError(f"steps = {steps} and stages are both given: give the length of a full run, or its stages")
    if steps is not None:
        seeds = fields.get("seeds")
        learnt = learning(steps) if not isinstance(seeds, list | tuple) else learning(steps, len(seeds))
        # By the value of information gates have no share of their own.
        return learnt if fields.get("scheduler", "halving") == "halving" else {**learnt, "gates": "promote"}
    if not stages:
        raise PlanError("steps: missing; how long a full run is. Or stages: (steps, seeds) of each")
    return {"stages": [_stage(i, stage) for i, stage in enumerate(stages)]}


def _stage(index: int, stage: Any) -> dict[str, Any]:
    if isinstance(stage, Mapping):
        found = dict(stage)
    elif isinstance(stage, Sequence) and not isinstance(stage, str) and len(stage) == 2:
        found = {"until_step": stage[0], "num_seeds": stage[1]}
    else:
        found = stage.model_dump(exclude_none=True) if hasattr(stage, "model_dump") else {}
    until = found.get("until_step")
    if not isinstance(until, int) or isinstance(until, bool) or until < 1:
        raise PlanError(f"stages[{index}] = {stage!r}: allowed is (steps, seeds), such as (500, 2), or a table")
    return found


def _plain(value: Any) -> Any:
    """Fields of a plan as a file has them."""
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json", exclude_none=True))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
