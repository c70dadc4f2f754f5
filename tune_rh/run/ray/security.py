"""What keeps other users and hosts out of a cluster of this run's own, and whether one that it joins is open to all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
from ray._private import ray_constants
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from tune_rh.errors import PreflightRefused

_ANSWER_S = 5.0


def private_folder(parent: Path) -> Path:
    """``parent``, made if it is missing, as a folder that this user alone can enter: all that Ray makes is 0777.

    Raises:
        PreflightRefused: something of another user's is in its place.
    """
    with suppress(FileExistsError):
        parent.mkdir(mode=0o700)
    there = parent.lstat()
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid():
        what = f"of user {there.st_uid}" if stat.S_ISDIR(there.st_mode) else "no folder"
        raise PreflightRefused(
            f"{parent}: is {what}; Ray's files belong there, in a folder of user {os.getuid()} alone. "
            "Have it removed, or use --runner local"
        )
    parent.chmod(0o700)
    return parent


def keep_token_private() -> None:
    """Make the token in the home folder, or take it away from other users' eyes: Ray writes it for all to read.

    Raises:
        PreflightRefused: it can be neither made nor changed.
    """
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} or os.environ.get("RAY_AUTH_MODE") == "disabled":
        return
    file = Path.home() / ".ray" / "auth_token"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError), open(file, "x", encoding="utf-8", opener=_for_owner) as made:
            made.write(generate_new_authentication_token())
        file.chmod(0o600)
    except OSError as error:
        raise PreflightRefused(
            f"{file}: Ray's token cannot be kept there ({error.strerror}); name another file in RAY_AUTH_TOKEN_PATH"
        ) from error


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def loopback() -> Iterator[str]:
    """The address for a node all of whose ports are to be on loopback; Ray takes it for one while the block runs.

    Elsewhere than on a Mac Ray replaces 127.0.0.1 by an address that other hosts can reach, and listens on all
    interfaces unless it is told 127.0.0.1 itself; any other loopback address will not do.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, constant = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield "127.0.0.1"
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = constant
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def is_open(gcs_address: str) -> bool:
    """Whether a cluster answers without a token: then all who reach its ports can run code on its nodes."""
    with grpc.insecure_channel(gcs_address) as channel:
        nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
            nodes.CheckAlive(request, timeout=_ANSWER_S)
        except grpc.RpcError:
            return False
    return True
