"""The live page: only for those with its token, only on this machine, and never behind the journal for long."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.analysis.reports.test_report_html import STAGES, losses
from tests.analysis.run_folders import simulate
from tests.browser import CHROMIUM, browser
from tests.worlds import journals
from tune_rh.cli.main import main
from tune_rh.errors import RunError
from tune_rh.record.journal import RunPaths, locked
from tune_rh.results.serving import LivePage, Server

pytestmark = pytest.mark.usefixtures("no_drawing")


@contextmanager
def served(paths: RunPaths, data_dir: Path) -> Iterator[Server]:
    with Server(LivePage(paths, data_dir)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


@pytest.fixture
def half(tmp_path: Path) -> tuple[RunPaths, list[str]]:
    """A run that has come half of its way, and the lines of its journal that are to come."""
    simulate(tmp_path / "run", losses, num_candidates=5, stages=STAGES)
    paths = RunPaths(tmp_path / "run")
    lines = journals.texts(paths.journal)
    journals.write(paths.journal, lines[:30])
    return paths, lines


def test_nothing_is_told_without_the_token(half: tuple[RunPaths, list[str]], tmp_path: Path) -> None:
    paths, _ = half
    log = paths.root / "members" / "c0001-s7" / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("secret")
    (tmp_path / "members").mkdir()
    with served(paths, tmp_path) as server:
        for path in ("/", "/?token=", "/?token=wrong", "/members/c0001-s7/train.log", "/curves.csv", "/nothing"):
            status, _, body = ask(server, path)
            assert status == 403
            assert "secret" not in body
            assert "c0001" not in body
        assert ask(server, "/", Cookie=f"{server.cookie}=wrong")[0] == 403
        assert ask(server, f"/?token={server.token}", Host="evil.example:80")[0] == 421
        status, headers, body = ask(server, f"/?token={server.token}")
        assert (status, headers["Location"], body) == (303, "/", "")
        assert all(word in headers["Set-Cookie"] for word in ("HttpOnly", "SameSite=Strict"))
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert ask(server, "/", Cookie=cookie, Host="evil.example")[0] == 421
        status, headers, body = ask(server, "/", Cookie=cookie)
        assert status == 200
        assert "connect-src &#39;self&#39;" in body
        assert headers["X-Frame-Options"] == "DENY"
        assert ask(server, "/members/c0001-s7/train.log", Cookie=cookie)[2] == "secret"
        assert ask(server, "/candidates.csv", Cookie=cookie)[2].startswith("candidate,")
        for path in ("/journal.jsonl", "/../run/plan.toml", "/members/../../x", "/members/c0009-s1/train.log"):
            assert ask(server, path, Cookie=cookie)[0] == 404
        assert server.server_address[0] == "127.0.0.1"


def test_the_page_follows_the_journal(half: tuple[RunPaths, list[str]], tmp_path: Path) -> None:
    paths, lines = half
    with locked(paths), served(paths, tmp_path) as server:
        cookie = f"{server.cookie}={server.token}"
        status, headers, first = ask(server, "/", Cookie=cookie)
        assert status == 200
        assert "The run is going on" in first
        assert ask(server, "/", Cookie=cookie, If_None_Match=headers["ETag"])[0] == 304
        journals.write(paths.journal, lines)
        server.page._wait_until = 0.0
        status, newer, second = ask(server, "/", Cookie=cookie, If_None_Match=headers["ETag"])
        assert status == 200
        assert newer["ETag"] != headers["ETag"]
        assert "c0005" in second
        assert "c0005" not in first
    assert not paths.report.exists()


def test_a_page_that_took_long_is_not_made_again_at_once(half: tuple[RunPaths, list[str]], tmp_path: Path) -> None:
    paths, lines = half
    page = LivePage(paths, tmp_path)
    before = page.newest()
    page._wait_until = float("inf")
    journals.write(paths.journal, lines)
    assert page.newest() == before
    page._wait_until = 0.0
    assert page.newest() != before


def test_what_cannot_be_served_is_named(
    half: tuple[RunPaths, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--runs-dir", str(tmp_path)]
    assert main(["serve", "absent", *runs]) == RunError.exit_code
    assert "absent" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "run", "--port", port, *runs]) == RunError.exit_code
    assert f"port {port} of 127.0.0.1: Address already in use" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "run", "--port", "70000", *runs])
    assert "'70000' is not a port: 0 (one that is free) to 65535" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_what_a_reader_has_chosen_outlives_a_newer_state(half: tuple[RunPaths, list[str]], tmp_path: Path) -> None:
    paths, lines = half

    async def look(server: Server) -> None:
        async with browser() as tab:
            await tab.open(server.address)
            assert "token" not in await tab.value("location.href")
            await tab.value("document.querySelectorAll('.opens')[0].click()")
            opened = await tab.value("document.querySelector('.opens[aria-expanded=true]').textContent")
            await tab.value("window.mine = 1")
            journals.write(paths.journal, lines)
            await tab.until("document.getElementById('candidates').textContent.includes('c0005')")
            assert await tab.value("window.mine") == 1
            assert await tab.value("document.querySelector('.opens[aria-expanded=true]').textContent") == opened
            assert await tab.value("document.querySelectorAll('tr.detail').length") == 1
            assert tab.said == []

    with locked(paths), served(paths, tmp_path) as server:
        asyncio.run(look(server))
