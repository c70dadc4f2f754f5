"""``python -m tests.cluster.kill_actor GCS NODE PID``: have the cluster at GCS end the actor in a process of a node.

Asked of the cluster itself, in a fraction of the time that it takes to join it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc


def main(gcs: str, node: str, pid: int) -> None:
    """Raise LookupError if there is no such actor."""
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8")
    given = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 30.0}
    with grpc.insecure_channel(gcs) as channel:
        actors = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(channel)
        listed = actors.GetAllActorInfo(gcs_service_pb2.GetAllActorInfoRequest(), **given).actor_table_data
        found = [actor.actor_id for actor in listed if actor.pid == pid and actor.address.ip_address == node]
        if not found:
            raise LookupError(f"no actor in process {pid} of {node}; there are {[(a.pid, a.address) for a in listed]}")
        request = gcs_service_pb2.KillActorViaGcsRequest(actor_id=found[-1], force_kill=True, no_restart=True)
        actors.KillActorViaGcs(request, **given)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
