"""Write a task and its search to start from: they run as they are, and say what to put in their place."""

from __future__ import annotations

import argparse
import keyword
import shlex
from importlib.util import find_spec
from pathlib import Path

from tune_rh.cli import options, terminal
from tune_rh.errors import PlanError

_TEMPLATE = Path(__file__).parents[1] / "template" / "my_model.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=options.path, help="the module to write, such as my_model.py")


def run(args: argparse.Namespace) -> int:
    module: Path = args.file
    _check_name(module)
    if module.exists():
        raise PlanError(f"{module}: is there already; choose another name")
    options.check_writable(module.parent, "folder")
    with open(module, "x", encoding="utf-8") as file:
        file.write(_TEMPLATE.read_text(encoding="utf-8"))
    to = terminal.console()
    to.print(f"{module} is written. It runs as it is:", soft_wrap=True)
    if module.parent != Path():
        to.print(f"  cd {shlex.quote(str(module.parent))}", soft_wrap=True)
    to.print(f"  python {module.name}", soft_wrap=True)
    return 0


def _check_name(module: Path) -> None:
    """Raise PlanError unless ``module`` can be imported by its name, and no other module has it."""
    name = module.stem
    if module.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise PlanError(f"{module}: allowed is the name of a module, such as {_TEMPLATE.name}")
    found = find_spec(name)
    if found is not None and (found.origin is None or Path(found.origin) != module.absolute()):
        raise PlanError(f"{module}: `import {name}` finds {found.origin or 'a folder'}; choose another name")
