"""What is wrong with a cluster's address, or keeps Ray from starting: one sentence, at once, and no run is left."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import ray
import tomli_w
from ray._private.utils import push_error_to_driver
from ray._private.worker import global_worker

from tests.worlds.plans import fields
from tune_rh.cli.main import main
from tune_rh.run.ray import cluster, joining
from tune_rh.run.ray.quiet import quiet


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a port on which nothing listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def search(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a search with these words, which has to be refused and to leave nothing; what it says."""

    def run(*words: str) -> str:
        (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(num_candidates=3)))
        places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
        assert main(["search", str(tmp_path / "plan.toml"), "--no-trial", *places, *words]) == 3
        assert list((tmp_path / "runs").iterdir()) == []
        said = capfd.readouterr()
        assert said.err.count("\n") == 1
        return said.err

    return run


@pytest.mark.parametrize("address", ["nonsense", "10.0.0.5", "10.0.0.5:0", "10.0.0.5:65536", "a b:1", "http://h:6379"])
def test_an_address_that_is_none_is_refused_with_what_is_allowed(search, address):
    said = search("--address", address)
    assert said == (
        f"tune-rh: --address {address}: is no address of a Ray cluster: allowed are auto and host:port, as in "
        "10.0.0.5:6379\n"
    )


def test_ray_client_is_no_way_to_run_a_search(search):
    assert "Ray Client drives no search" in search("--address", "ray://127.0.0.1:10001")


def test_where_nothing_listens_it_is_said_at_once(search, silent):
    assert f"--address {silent}: no Ray cluster answers there (Connection refused)" in search("--address", silent)


@pytest.mark.parametrize("content", [None, "", b"\xff"])
def test_a_token_that_cannot_be_read_is_named(search, silent, content, tmp_path, monkeypatch):
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content or b"")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        said = search("--address", f"127.0.0.1:{server.getsockname()[1]}")
    assert f"RAY_AUTH_MODE=token, and {token} " in said


def test_a_host_that_is_no_node_is_told_where_to_run(search, monkeypatch, ray_cluster):
    address = ray.get_runtime_context().gcs_address
    monkeypatch.setattr(joining, "is_here", lambda host: False)
    assert "this host is no node of that cluster. Run this on one of its nodes: " in search("--address", address)


def test_another_token_is_refused(search, monkeypatch, ray_cluster):
    def refuse(address: str) -> None:
        raise ray.exceptions.AuthenticationError("InvalidAuthToken")

    monkeypatch.setattr(joining, "GcsClient", refuse)
    said = search("--address", ray.get_runtime_context().gcs_address)
    assert "the cluster wants a token, and this is not it" in said


def test_ray_that_cannot_start_is_tried_without_its_dashboard_and_then_refused_in_a_line(search, monkeypatch):
    tried = []

    def fail(**options):
        tried.append(options["include_dashboard"])
        raise RuntimeError("The agent took too long\n" + "and a line more\n" * 60)

    monkeypatch.setattr(cluster.ray, "init", fail)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    said = search()
    why = "The agent took too long. Free memory or cores, or use --runner local"
    assert said == f"tune-rh: Ray does not start on this host: {why}\n"
    assert tried == [None, False]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_addresses_of_this_host_are_here(host):
    assert joining.is_here(host)
    assert not joining.is_here("192.0.2.1")  # of a net that is kept for documents (RFC 5737)
    assert not joining.is_here("no such host")


_LOUD = """
import os, sys
from pathlib import Path
from tune_rh.run.ray.quiet import quiet
try:
    with quiet(Path(sys.argv[1])):
        os.write(2, b"of a library\\n")
        print("of ours", file=sys.stderr)
        raise ValueError("inside")
except ValueError:
    print("an error comes out", file=sys.stderr)
os.write(2, b"afterwards\\n")
"""


def test_what_libraries_write_to_standard_error_lies_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "ray" / "driver.log"
    ran = subprocess.run([sys.executable, "-c", _LOUD, str(log)], capture_output=True, text=True, check=True)
    assert ran.stderr == "of ours\nan error comes out\nafterwards\n"
    assert log.read_text() == "of a library\n"


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_cluster_says_to_its_drivers_lies_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "driver.log"
    with quiet(log):
        push_error_to_driver(global_worker, "node_removed", "a node has been\nmarked dead")
        until = time.monotonic() + 60
        while "marked dead" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
    assert "(raylet) a node has been\nmarked dead\n" in log.read_text()
    assert capsys.readouterr().out == ""
