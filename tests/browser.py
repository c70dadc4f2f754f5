"""Chromium without a window, told what to do by its DevTools protocol: for tests of pages and pictures of them."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Tab:
    """The browser's only tab; ``said`` is what its console had to say, errors and refusals of its policy included."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.said: list[str] = []
        self._socket, self._num = socket, 0

    async def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers; raises RuntimeError for what it refuses."""
        self._num += 1
        await self._socket.send_json({"id": self._num, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(str(message["params"]))
            if message.get("id") == self._num:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])

    async def open(self, url: str, *, size: tuple[int, int] = (1440, 900), dark: bool = False) -> None:
        """Load a page in a window of this size, and wait until it is loaded."""
        await self.tell("Page.enable")
        await self.tell("Runtime.enable")
        await self.tell("Log.enable")
        width, height = size
        phone = width < 600
        metrics: Mapping[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self.tell("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.tell("Emulation.setEmulatedMedia", features=[scheme])
        await self.tell("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        for _ in range(300):
            if await self.value(expression):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(expression)

    async def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        answer = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def mouse(self, kind: str, x: float, y: float) -> None:
        """``Moved``, ``Pressed`` or ``Released`` at a place of the window."""
        await self.tell(
            "Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", buttons=1, clickCount=1
        )

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """Of the window, or of the whole page, in 256 colours: a third of the bytes."""
        shot = await self.tell("Page.captureScreenshot", captureBeyondViewport=whole)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        image.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)


@asynccontextmanager
async def browser(*options: str) -> AsyncIterator[Tab]:
    """A browser that ends with the block."""
    assert CHROMIUM is not None
    profile = Path(tempfile.mkdtemp())
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", *options, "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http:
            address = await _tab(http, profile / "DevToolsActivePort")
            async with http.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _tab(http: aiohttp.ClientSession, port: Path) -> str:
    """The address of the tab, once the browser is up."""
    for _ in range(300):
        try:
            number = port.read_text(encoding="utf-8").split()[0]
            async with http.get(f"http://127.0.0.1:{number}/json") as answer:
                tabs = await answer.json(content_type=None)
            return str(next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"])
        except (OSError, IndexError, StopIteration, aiohttp.ClientError):
            await asyncio.sleep(0.1)
    raise TimeoutError("Chromium does not answer")
