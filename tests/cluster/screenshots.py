"""Pictures of Ray's dashboard during a search on three hosts, for ``docs/cluster``: ``make screenshots``.

Needs root and Chromium, which runs without a window in the head's host and is told what to show by its DevTools
protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from tests.cluster.bed import ROOT, Bed, bed, driver_pid, unavailable, wait_until
from tests.cluster.family import PACE
from tests.cluster.searches import words
from tests.worlds.records import of
from tune_rh.record.events import Evaluated
from tune_rh.record.journal import RunPaths

PAGES = ("jobs", "actors", "cluster")
FOLDER = ROOT / "docs" / "cluster"
_PORT, _SIZE, _DRAWN_S = 9222, (1700, 1000), 12.0
# Nodes show their workers once they are opened; the table is all that is wanted of a page.
_OPEN = "document.querySelectorAll('tbody tr td:first-child svg').forEach("
_OPEN += "icon => icon.dispatchEvent(new MouseEvent('click', {bubbles: true})))"
_TABLE = "(({x, y, width, height}) => ({x, y, width: Math.min(width, innerWidth - x), height, scale: 1}))"
_TABLE += "(document.querySelector('table').getBoundingClientRect())"


async def photograph(dashboard: str, token: str, folder: Path) -> None:
    """A picture of each page into ``folder``, by a browser that is started here."""
    profile = tempfile.mkdtemp()
    browser = await asyncio.create_subprocess_exec(
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--remote-debugging-port={_PORT}",
        f"--user-data-dir={profile}", f"--window-size={_SIZE[0]},{_SIZE[1]}", "about:blank",
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(await _tab(http), max_msg_size=0) as socket:
            await _tell(socket, "Network.enable")
            await _tell(socket, "Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {token}"})
            for page in PAGES:
                await _tell(socket, "Page.navigate", url=f"{dashboard}/#/{page}")
                await asyncio.sleep(_DRAWN_S)
                if page == "cluster":
                    await _tell(socket, "Runtime.evaluate", expression=_OPEN)
                    await asyncio.sleep(1.0)
                seen = await _tell(socket, "Runtime.evaluate", expression=_TABLE, returnByValue=True)
                clip = seen["result"]["value"]
                shot = await _tell(socket, "Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
                _store(base64.b64decode(shot["data"]), folder / f"{page}.png")
    finally:
        browser.kill()
        await browser.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _tab(http: aiohttp.ClientSession) -> str:
    """The address of the browser's only tab, once it is up."""
    for _ in range(120):
        try:
            async with http.get(f"http://127.0.0.1:{_PORT}/json") as answer:
                return str((await answer.json(content_type=None))[0]["webSocketDebuggerUrl"])
        except (aiohttp.ClientError, IndexError):
            await asyncio.sleep(0.5)
    raise TimeoutError("Chromium does not answer")


async def _tell(socket: aiohttp.ClientWebSocketResponse, method: str, **params: Any) -> dict[str, Any]:
    await socket.send_json({"id": 1, "method": method, "params": params})
    while True:
        message = await socket.receive_json()
        if message.get("id") == 1:
            if "error" in message:
                raise RuntimeError(f"{method}: {message['error']}")
            return dict(message["result"])


def _store(png: bytes, path: Path) -> None:
    """A picture of few colours, as these pages are, in a fourth of the bytes."""
    path.write_bytes(png)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(path, optimize=True)


def take(hosts: Bed, folder: Path) -> None:
    """Pictures of a search on these hosts, once every slot has reported."""
    place = hosts.common / "search"
    log = place.with_suffix(".log")
    # Not `Bed.tune_rh`: the command line stands in a picture.
    driver = hosts.head.start("python", "-m", "tune_rh", *words(place), "--address", hosts.address, log=log)
    paths = RunPaths(place / "runs" / "run")
    wait_until(lambda: paths.journal.exists() and len(of(paths, Evaluated)) > 12, 300.0, "reports")
    token = (hosts.common / "token").read_text()
    shots = hosts.common / "shots"
    shots.mkdir()
    hosts.head.run(
        sys.executable, "-m", "tests.cluster.screenshots", "--dashboard", hosts.dashboard, "--token", token,
        "--folder", str(shots),
    )  # fmt: skip
    hosts.head.kill([driver_pid(driver)])
    for page in PAGES:
        shutil.copy(shots / f"{page}.png", folder / f"{page}.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures; in the head's host, only them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--dashboard", help=argparse.SUPPRESS)
    parser.add_argument("--token", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.dashboard:
        asyncio.run(photograph(args.dashboard, args.token, args.folder))
        return 0
    reason = unavailable() or ("" if shutil.which("chromium") else "no chromium on this machine")
    if reason:
        print(reason, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="shots-") as name, bed(Path(name) / "common", {PACE: "0.3"}) as hosts:
        take(hosts, args.folder)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # hosts end with the bed
    sys.exit(main())
