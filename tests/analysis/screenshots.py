"""Pictures of a run's page for ``docs/report``: ``make pictures``, of the quickstart unless another run is named."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.browser import CHROMIUM, browser

_ROOT = Path(__file__).parents[2]
_SIZES = {"desktop": (1440, 900), "dark": (1440, 1180), "phone": (390, 844)}
# The table with its best row open, and one axis brushed: what is worse than the control is left out.
_OPENED = """
document.querySelector('.opens').click();
document.getElementById('candidates').scrollIntoView();
"""
_AXIS = "(({x, y, width, height}) => [x + width / 2, y, height])(Array.from(document.querySelectorAll('.handle'))"
_AXIS += ".filter(handle => handle.closest('#parallel')).at(-1).getBoundingClientRect())"


async def _take(page: Path, folder: Path) -> None:
    async with browser() as tab:
        for name, size in _SIZES.items():
            await tab.open(page.as_uri(), size=size, dark=name == "dark")
            if name == "dark":
                await tab.value(_OPENED)
                x, y, height = await tab.value(_AXIS)
                for kind, at in (("Pressed", 0.01), ("Moved", 0.3), ("Moved", 0.75), ("Released", 0.75)):
                    await tab.mouse(kind, x, y + at * height)
                await tab.mouse("Moved", 1, 1)
                await asyncio.sleep(0.3)
            await tab.picture(folder / f"{name}.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures of a run whose report is written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=_ROOT / "runs" / "quickstart", help="its folder")
    parser.add_argument("--folder", type=Path, default=_ROOT / "docs" / "report")
    args = parser.parse_args(argv)
    page = args.run.absolute() / "report" / "index.html"
    missing = "no chromium on this machine" if CHROMIUM is None else "" if page.is_file() else f"{page} is not there"
    if missing:
        print(missing, file=sys.stderr)
        return 2
    args.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_take(page, args.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
