"""How a node comes to its cluster, and back to it: it joins one, agrees with others like it on one, or looks for its members.

    nothing yet, --join            Joining: asks members, greets them
    nothing yet, and --expect      Meeting: finds nodes that were started alike, and members; Joining asks those
    a member                       Meeting: finds the others where they are now, until this node has a leader

The handshake decides in all of them (consensus/formation.py); here is who looks for whom, and for how long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from distlog.consensus.agreement import Agreement, Proposal
from distlog.consensus.formation import Formation
from distlog.discovery.view import Description
from distlog.membership.finding import Finding
from distlog.membership.joining import Joining
from distlog.membership.meeting import Meeting
from distlog.membership.neighbours import Neighbours
from distlog.node_settings import NodePorts, NodeSettings
from distlog.storage.data_directory import DataDirectory

logger = logging.getLogger(__name__)


def make_agreement(settings: NodeSettings, directory: DataDirectory) -> Agreement | None:
    """Return what this node agrees on with others like it; None: it forms no cluster with any.  Raises StorageFull, DiskFailed."""
    if not settings.joins or not settings.expect or directory.cluster_id is not None:
        return None
    voters, is_agreed = directory.proposal
    return Agreement(
        settings.node_id,
        directory.directory_id,
        settings.expect,
        Proposal(voters, is_agreed),
        lambda proposal: directory.propose(proposal.voters, is_agreed=proposal.is_agreed),
    )


class Arrival:
    """One node on its way to its cluster."""

    def __init__(
        self,
        settings: NodeSettings,
        ports: NodePorts,
        formation: Formation,
        neighbours: Neighbours,
        finding: Finding,
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._formation = formation
        self._neighbours = neighbours
        self._finding = finding
        self._tasks: list[asyncio.Task[None]] = []
        # What the log has said last that this node waits for.
        self._missing = ""

    def start(self) -> None:
        """Begin to look for others, if any are missing."""
        if self._formation.configuration is not None:
            if self._settings.joins:
                self._run(self._meeting().run())
        elif self._formation.agreement is not None:
            meeting = self._meeting()
            self._say_what_is_missing()
            self._run(meeting.run())
            self._run(self._join(lambda: meeting.members))
        elif self._settings.joins:
            logger.info("waiting to join the cluster of %s", self.waiting_for()[0])
            self._run(self._join(self._finding.client_addresses))
        else:
            missing = ",".join(self._formation.missing())
            logger.info("waiting for all nodes, once, to form the cluster missing=%s", missing)

    def waiting_for(self) -> list[str]:
        """Return what must be there before this node has a cluster."""
        if self._formation.joins and self._formation.agreement is None:
            places = [f"{host}:{port}" for host, port in self._settings.join]
            return [", ".join(places) or "a member that discovery finds"]
        return self._formation.missing()

    def arrived(self) -> None:
        """This node belongs to a cluster now: look for its members only until they are found."""
        self.stop()
        if self._settings.joins:
            self._run(self._meeting().run())

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def _meeting(self) -> Meeting:
        return Meeting(
            self._settings.node_id,
            self._finding.places,
            self._ports.ask_node,
            self._neighbours.peers,
            self._ports.random,
            judge=self._neighbours.judge_found,
            is_finished=self._neighbours.is_in_touch,
            looked_around=self._looked_around,
        )

    def _looked_around(self, found: Sequence[Description]) -> None:
        agreement = self._formation.agreement
        if agreement is None or self._formation.configuration is not None:
            return
        for each in found:
            if each.cluster_id:
                agreement.found(each.cluster_id)
        if agreement.looked_around():
            # This node may agree now to what it heard meanwhile.
            self._neighbours.peers.restart_connections()
        self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        missing = ", ".join(self.waiting_for())
        if missing != self._missing:
            self._missing = missing
            logger.info("looking for the other nodes missing=%s", missing)

    def _join(
        self, addresses: Callable[[], Sequence[tuple[str, int]]]
    ) -> Coroutine[Any, Any, None]:
        ask, random = self._ports.ask_members, self._ports.random
        peers, knows_all = self._neighbours.peers, self._neighbours.knows_all
        return Joining(addresses, ask, peers, random, knows_all).run()
