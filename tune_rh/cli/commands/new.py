"""Write a task and a plan to start from: they run as they are, and say what to put in their place."""

from __future__ import annotations

import argparse
import keyword
import shlex
from importlib.util import find_spec
from pathlib import Path

from tune_rh.cli import options, terminal
from tune_rh.errors import PlanError

_TEMPLATE = Path(__file__).parents[1] / "template"
_NAME = "my_model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=options.path, help="the module to write, such as my_model.py; its plan lies beside it"
    )


def run(args: argparse.Namespace) -> int:
    module: Path = args.file
    plan = module.with_suffix(".toml")
    name = _module_name(module)
    for path in (module, plan):
        if path.exists():
            raise PlanError(f"{path}: is there already; choose another name")
    options.check_writable(module.parent, "folder")
    for path in (module, plan):
        text = (_TEMPLATE / f"{_NAME}{path.suffix}").read_text(encoding="utf-8")
        with open(path, "x", encoding="utf-8") as file:
            file.write(text.replace(_NAME, name))
    to = terminal.console()
    to.print(f"{module} and {plan} are written. They run as they are:", soft_wrap=True)
    if module.parent != Path():
        to.print(f"  cd {shlex.quote(str(module.parent))}", soft_wrap=True)
    to.print(f"  tune-rh check {name}:FAMILY", soft_wrap=True)
    to.print(f"  tune-rh search {plan.name} --runner local", soft_wrap=True)
    return 0


def _module_name(module: Path) -> str:
    """The name by which ``module`` is imported; raises PlanError if it has none, or another module has it."""
    name = module.stem
    if module.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise PlanError(f"{module}: allowed is the name of a module, such as {_NAME}.py")
    # The plan is named as the module, and a run as its plan.
    if not name.isascii() or name.startswith("_") or len(name) > 80:
        raise PlanError(f"{module}: allowed are up to 80 letters, digits and underscores, a letter first")
    found = find_spec(name)
    if found is not None and (found.origin is None or Path(found.origin) != module.absolute()):
        raise PlanError(f"{module}: `import {name}` finds {found.origin or 'a folder'}; choose another name")
    return name
