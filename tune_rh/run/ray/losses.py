"""Why a trial was lost, and where it ran: what Ray knows of an error, an actor and its node, as a `Loss`."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
from ray.tune.experiment import Trial

from trainables.errors import HandedOver, OutOfMemory
from tune_rh.record.events import LossCause
from tune_rh.run.ray.nodes import answers, draining, names
from tune_rh.run.session import Loss

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def loss_of(trial: Trial) -> Loss:
    """What has ended a trial that Tune reports as failed."""
    # Not trial.get_error(): it reads a copy in the storage that is not there yet.
    file = Path(trial.error_file) if trial.error_file else None
    text = file.read_text(encoding="utf-8", errors="replace") if file and file.is_file() else "unknown error"
    pickled = trial.pickled_error_file
    error = pickle.loads(Path(pickled).read_bytes()) if pickled else None
    actor = _actor(trial, error)
    node = actor.get("Address", {}).get("NodeID", "")
    return Loss(_cause(error, node), _COLOURS.sub("", text), names().get(node, ""), actor.get("Pid", 0))


def node_of(trial: Trial) -> str:
    """The id of the node on which the trial has its actor; empty if it has none."""
    return str(_actor(trial, None).get("Address", {}).get("NodeID", ""))


def _actor(trial: Trial, error: object) -> dict[str, Any]:
    """What the cluster has on record of the trial's actor; it keeps that of dead ones for a while."""
    handle = trial.temporary_state.ray_actor
    key = handle._actor_id.hex() if handle is not None else getattr(error, "actor_id", None)
    # No public call tells a dead actor's node; that of ray.util.state needs a dashboard.
    found: dict[str, Any] = ray._private.state.actors(key) if key else {}
    return found


def _cause(error: object, node: str) -> LossCause:
    if isinstance(error, RayTaskError) and isinstance(error.cause, HandedOver):
        return "preempted"
    if isinstance(error, RayTaskError) and isinstance(error.cause, OutOfMemory):
        return "oom"
    if not isinstance(error, RayActorError) or error.actor_init_failed:
        return "exception"
    if error.preempted or node in draining():
        return "preempted"
    if node and isinstance(error, ActorUnavailableError):
        # A socket has closed: Ray will know in seconds whether that of the worker or of its node, and nothing waits.
        return "actor" if answers(node) else "node"
    return "actor" if not node or node in names(alive=True) else "node"
