"""Nodes that join during a session: each is looked at before it makes a slot, beside the search."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Thread

import ray

from trainables.api import Finding
from trainables.errors import TrainableError
from tune_rh.errors import TuneError
from tune_rh.plan.schema import Resources
from tune_rh.preflight.checks import room
from tune_rh.run.ray.admit.probe import Probe
from tune_rh.run.ray.nodes import ClusterNode, survey
from tune_rh.run.runs import OpenRun

_Look = Callable[[Collection[ClusterNode]], list[Finding]]


def admitted(run: OpenRun, *, ship: bool, say: Callable[[str], object]) -> tuple[Admission, list[Finding]]:
    """Knows the nodes of the connected cluster as it is now; and what speaks against jobs on them.

    With ``ship`` the run's data set is brought to nodes that have not got it, at once and as they join.
    """
    nodes, given = survey(), (run.plan, run.paths.root, run.data_dir)
    found = Probe(*given, ship=ship, say=say)(nodes)
    later = Probe(*given, ship=ship)
    resources, accepted = run.plan.resources, run.history.accepted
    known = [node.id for node in nodes]
    return Admission(resources, later, known, lambda: {event.id for event in accepted}, say), found


class Admission:
    """Knows which nodes may take jobs: those of the start (``admitted``, by id), and later ones that pass ``look``.

    Args:
        resources: a node without room for a job is not looked at.
        look: what speaks against jobs on nodes; it may take its time.
        accepted: gives the ids of findings that are no reason against a node.
        say: takes a line for people.
    """

    def __init__(
        self,
        resources: Resources,
        look: _Look,
        admitted: Iterable[str],
        accepted: Callable[[], Collection[str]] = tuple,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._resources, self._look, self._accepted, self._say = resources, look, accepted, say
        self._admitted = set(admitted)
        self._asked: set[str] = set()
        self._answers: SimpleQueue[tuple[ClusterNode, list[Finding]]] = SimpleQueue()

    def pass_on(self, nodes: Collection[ClusterNode]) -> list[ClusterNode]:
        """The nodes as they are now; those that may take no job make no slot, as if they were about to leave."""
        self._hear()
        self._asked &= {node.id for node in nodes}
        for node in nodes:
            if node.id not in self._admitted | self._asked and room(self._resources, [node.capacity]):
                self._asked.add(node.id)
                Thread(target=self._ask, args=(node,), name="admission", daemon=True).start()
        return [replace(node, leaving=node.leaving or node.id in self._asked) for node in nodes]

    @property
    def kept_out(self) -> list[str]:
        """The ids of nodes on which no job may be placed: not looked at yet, or found wanting."""
        return sorted(self._asked)

    def _hear(self) -> None:
        try:
            while True:
                node, found = self._answers.get_nowait()
                against = [finding for finding in found if finding.id not in self._accepted()]
                if against:
                    self._say(
                        f"warning: {node} takes no job: {'; '.join(f'{one.id} {one.message}' for one in against)}"
                    )
                else:
                    self._asked.discard(node.id)
                    self._admitted.add(node.id)
        except Empty:
            return

    def _ask(self, node: ClusterNode) -> None:
        # A signal that this thread took would not wake the one that has to act on it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1})
        try:
            found = self._look([node])
        except (TuneError, TrainableError, OSError, ray.exceptions.RayError) as error:
            found = [Finding("P86", str(node), f"cannot be looked at ({str(error).strip().splitlines()[-1]})")]
        self._answers.put((node, found))
