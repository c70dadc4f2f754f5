"""The live page of a run: a server on this machine alone, which asks for a token and changes nothing.

The page asks by its tag (how much of the journal it shows) whether there is more; what there is then is read from the
journal, from where the last reading ended.
"""

from __future__ import annotations

import hmac
import re
import secrets
import sys
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from analysis.escape import printable
from tune_rh.errors import TuneError
from tune_rh.record.journal import RunPaths, is_locked
from tune_rh.results.reading import Reading, Watch
from tune_rh.results.reporting import Measured, report_baselines, served

_LOG = re.compile(r"/members/(c\d+-s\d+)/train\.log")
_LOG_BYTES = 1_000_000  # of the end of a log
_PATIENCE = 4.0  # a page is made again after so many times what the last one took
_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass
class LivePage:
    """The newest page of a run, made when it is asked for and something has happened."""

    paths: RunPaths
    data_dir: Path
    _watch: Watch = field(init=False)
    _lock: Lock = field(default_factory=Lock)
    _tag: str = ""
    _text: str = ""
    _reading: Reading | None = None
    _measured: Measured | None = None
    _wait_until: float = 0.0

    def __post_init__(self) -> None:
        self._watch = Watch(self.paths)

    def newest(self) -> tuple[str, str]:
        """Its tag and the page; the one before if that took long to make and was made just now.

        Raises:
            JournalCorrupt: the frozen plan or the journal are damaged.
        """
        with self._lock:
            tag = f'"{self.paths.journal.stat().st_size}-{int(is_locked(self.paths))}"'
            began = time.monotonic()
            if tag != self._tag and (began >= self._wait_until or not self._text):
                reading = self._watch.read()
                if self._measured is None:
                    self._measured = report_baselines(reading, self.data_dir, keep=False)
                self._text, self._tag, self._reading = served(reading, self._measured, tag), tag, reading
                self._wait_until = time.monotonic() + _PATIENCE * (time.monotonic() - began)
            return self._tag, self._text

    def csv(self, name: str) -> bytes | None:
        """One of the tables beside the page, as of the newest page; None for another name."""
        from analysis.reports.page.tables import CSVS, write_csvs
        from analysis.tables import RunTables

        if name not in CSVS:
            return None
        with self._lock, TemporaryDirectory() as folder:
            assert self._reading is not None
            write_csvs(RunTables(self._reading.run), Path(folder))
            return (Path(folder) / name).read_bytes()

    def log(self, member: str) -> bytes | None:
        """The end of a member's log; None if there is none."""
        path = self.paths.root / "members" / member / "train.log"
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _LOG_BYTES))
                return file.read()
        except OSError:
            return None


class Server(ThreadingHTTPServer):
    """Serves one run on loopback. ``address`` has the token that lets a browser in; a cookie keeps it from then on."""

    daemon_threads = True

    def __init__(self, page: LivePage, port: int = 0) -> None:
        self.page, self.token = page, secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a browser has gone before its answer; what else fails is shown as ever."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Its name: browsers do not tell ports of a machine apart."""
        return f"tune-rh-{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "tune-rh", ""
    timeout = 30  # of a connection on which nothing is asked

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        host = (self.headers.get("Host") or "").rpartition(":")
        # A name that another site has pointed at this machine is not ours.
        if (host[0] or host[2]) not in _HOSTS:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"Open it as 127.0.0.1 or localhost.\n")
        elif "token" in (query := parse_qs(asked.query)) and self._fits(query["token"][0]):
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._answer(HTTPStatus.SEE_OTHER, b"", headers={"Location": asked.path, "Set-Cookie": cookie})
        elif not self._is_known():
            self._answer(HTTPStatus.FORBIDDEN, b"Open the address that tune-rh serve printed: it has a token.\n")
        else:
            self._serve(asked.path)

    def _serve(self, path: str) -> None:
        page, log = self.server.page, _LOG.fullmatch(path)
        try:
            tag, text = page.newest()
        except (TuneError, OSError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{printable(str(error))}\n".encode())
            return
        if path == "/":
            if self.headers.get("If-None-Match") == tag:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", headers={"ETag": tag})
            else:
                body = text.encode(errors="backslashreplace")
                self._answer(HTTPStatus.OK, body, "text/html", {"ETag": tag})
            return
        body_or_none = page.log(log[1]) if log else page.csv(path.removeprefix("/"))
        if body_or_none is None:
            self._answer(HTTPStatus.NOT_FOUND, b"Nothing here.\n")
        else:
            self._answer(HTTPStatus.OK, body_or_none, "text/plain" if log else "text/csv")

    def _answer(
        self, status: HTTPStatus, body: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.server.token.encode())

    def _is_known(self) -> bool:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie") or "")
        except CookieError:
            return False
        return self.server.cookie in cookies and self._fits(cookies[self.server.cookie].value)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks every few seconds, and its first question has the token in it."""
