"""What all benchmarks share: hardware and versions as one line, tables, and the sections of RESULTS.md.

Not here: anything that is measured. Nothing heavy is imported: versions come from the packages' metadata.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"

_INTRODUCTION = """# What was measured

Each section says when, on what, and with which command; a command that is run again replaces its own section here.
Seconds depend on the machine and on what else it does, so read the ratios: both sides of each were measured in the same
run. `python -m benchmarks` repeats everything that ends within minutes, `python -m benchmarks --long` all of it.
"""


def hardware(*packages: str) -> str:
    """What ran this, and when; with the versions of ``packages``."""
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    load = os.getloadavg()[0]
    return (
        f"{datetime.date.today().isoformat()}; {platform.machine()}, {os.cpu_count()} cores, {_gpu()}, "
        f"load {load:.1f} when it ended; {', '.join(versions)}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [_row(header), _row(["---", *["---:"] * (len(header) - 1)])]
    return "\n".join(lines + [_row(row) for row in rows])


def record(title: str, command: str, machine: str, body: str, path: Path = RESULTS) -> None:
    """Print a section and put it into RESULTS.md, in the place of the one with the same title."""
    section = f"## {title}\n\n{machine}\n\n    {command}\n\n{body.strip()}\n"
    print(section, flush=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, *old = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = {part.partition("\n")[0]: part.strip() + "\n" for part in old}
    sections[f"## {title}"] = section
    path.write_text("\n".join([_INTRODUCTION, *(sections[name] for name in sorted(sections))]), encoding="utf-8")


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _gpu() -> str:
    # Asking torch would import it; the driver's own listing is enough.
    folder = Path("/proc/driver/nvidia/gpus")
    if not folder.is_dir():
        return "no GPU"
    models = [
        re.search(r"Model:\s*(.+)", (gpu / "information").read_text(encoding="utf-8")) for gpu in folder.iterdir()
    ]
    return ", ".join(m.group(1) for m in models if m) or "GPU"
