"""What a cluster of a run's own shows to other users and hosts of the network: nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import tomli_w
from ray._private import ray_constants
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from tests.worlds.plans import fields
from tune_rh.cli.main import main
from tune_rh.errors import PreflightRefused
from tune_rh.run.local_runner import LocalRunner
from tune_rh.run.ray import security
from tune_rh.run.ray.cluster import Cluster

LISTENS = "0A"
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_of_its_own_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tune-rh"
    assert security.private_folder(folder) == folder
    assert mode(folder) == 0o700
    folder.chmod(0o777)
    assert mode(security.private_folder(folder)) == 0o700


def test_a_folder_of_another_user_in_its_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, other = tmp_path / "tune-rh", os.getuid() + 1
    folder.mkdir(mode=0o777)
    monkeypatch.setattr("os.getuid", lambda: other)
    with pytest.raises(PreflightRefused, match=rf"{folder}: is of user {other - 1}; .* of user {other} alone"):
        security.private_folder(folder)


def test_a_link_in_its_place_is_refused_and_what_it_points_to_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    (tmp_path / "tune-rh").symlink_to(target)
    with pytest.raises(PreflightRefused, match=r"tune-rh: is no folder; .* Have it removed"):
        security.private_folder(tmp_path / "tune-rh")
    assert mode(target) == 0o755


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_token_is_for_its_user_alone(home: Path) -> None:
    file = home / ".ray" / "auth_token"
    security.keep_token_private()
    token = file.read_text()
    assert (len(token), mode(file), mode(file.parent)) == (64, 0o600, 0o700)
    file.chmod(0o644)  # as Ray makes it
    security.keep_token_private()
    assert (file.read_text(), mode(file)) == (token, 0o600)


def test_no_token_is_made_where_the_user_has_one_or_wants_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RAY_AUTH_TOKEN_PATH", str(home / "mine")), ("RAY_AUTH_MODE", "disabled")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            security.keep_token_private()
    assert list(home.iterdir()) == []


def test_a_home_that_takes_no_token_is_named(home: Path) -> None:
    (home / ".ray").touch()
    with pytest.raises(PreflightRefused, match=r"auth_token: Ray's token cannot be kept there \(File exists\)"):
        security.keep_token_private()


def test_only_while_a_node_starts_does_ray_take_loopback_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    monkeypatch.delenv(name, raising=False)
    before = ray_constants.ENABLE_RAY_CLUSTER
    with security.loopback() as address:
        assert (address, os.environ[name], ray_constants.ENABLE_RAY_CLUSTER) == ("127.0.0.1", "0", False)
    assert (name in os.environ, ray_constants.ENABLE_RAY_CLUSTER) == (False, before)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are read from /proc")
@pytest.mark.timeout(300, func_only=True)
def test_a_cluster_listens_on_loopback_alone_and_asks_for_its_token(ray_cluster: Cluster) -> None:
    import ray

    node = ray._private.worker._global_node
    parent = Path(node.get_temp_dir_path()).parent
    assert (mode(parent), parent.stat().st_uid) == (0o700, os.getuid())
    ray.get(ray.remote(lambda: None).remote(), timeout=120)  # a worker listens as well
    addresses = [local for pid in descendants(os.getpid()) for local in listening(pid)]
    assert len(addresses) >= 5  # GCS, raylet (two), worker, this driver; and agents
    assert [address for address in addresses if address.partition(":")[0] not in LOOPBACK] == []
    assert not ray_cluster.is_open
    assert not security.is_open(ray.get_runtime_context().gcs_address)


class Open(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    """As a cluster without tokens answers."""

    def CheckAlive(self, request: object, context: object) -> gcs_service_pb2.CheckAliveReply:
        return gcs_service_pb2.CheckAliveReply()


def test_a_cluster_that_answers_all_is_open_and_one_that_does_not_answer_is_not() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Open(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    assert security.is_open(address)
    server.stop(None).wait()
    assert not security.is_open(address)


def test_joining_an_open_cluster_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def connect(*_: object, **__: object) -> Iterator[Cluster]:
        yield Cluster("http://h0:8265", 1, is_open=True)

    monkeypatch.setattr("tune_rh.run.ray.cluster.connect", connect)
    monkeypatch.setattr("tune_rh.run.ray.runner.RayRunner", lambda run, *_, **__: LocalRunner(run))
    monkeypatch.setattr("tune_rh.run.ray.admit.admission.admitted", lambda *_, **__: (None, []))
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(fields(num_candidates=1, seeds=[7, 42, 1337])))
    places = ["--runs-dir", str(tmp_path / "runs"), "--data-dir", str(tmp_path)]
    assert main(["search", str(tmp_path / "plan.toml"), "--no-trial", "--address", "h0:6379", *places]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the cluster at h0:6379 asks for no token: whoever reaches its ports can run code" in said


def descendants(pid: int) -> list[int]:
    """``pid`` and every process below it."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [pid, *(below for child in children for below in descendants(child))]


def listening(pid: int) -> list[str]:
    """Addresses on which a process waits for connections, as the kernel writes them."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except FileNotFoundError:  # closed by now
            continue
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    return [row[1] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in sockets]
