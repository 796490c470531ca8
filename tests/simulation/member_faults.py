"""Members that come and go while everything else goes wrong: what an operator does, and does again until it has worked.

    join      a machine that is not used is started with --join and an empty disk
    remove    a member is removed by command; its machine is stopped and its disk wiped later, and it may join again with another one
    replace   a voter's disk is lost, its identity is removed, and the node joins under its name with a new disk

A cluster of fewer than three voters loses no disk: what one of two has acknowledged may be nowhere else.
"""

from __future__ import annotations

import asyncio

from distlog.errors import DistlogError
from tests.simulation.clients import ATTEMPT_S
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.simulated_machine import PowerCut

PAUSE_S = 0.2
GIVE_UP_S = 60.0
# What an operator is told, or not, and tries again after.
REFUSED = (DistlogError, ConnectionError, PowerCut, TimeoutError)
WIPE_VOTER_COUNT = 3


class MemberFaults:
    """The operator of a cluster whose members change."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self._work: list[asyncio.Future[None]] = []
        # A disk was lost, and its identity is not removed yet.
        self._is_replacing = False

    def change(self, _machine: Machine) -> None:
        """Begin one of the changes."""
        kinds = (self._join, self._join, self._remove, self._replace)
        self._work.append(asyncio.ensure_future(self._random.choice(kinds)()))

    async def finished(self) -> None:
        """Return when everything that was begun has come to its end."""
        _, pending = await asyncio.wait(self._work, timeout=GIVE_UP_S) if self._work else ((), ())
        for work in self._work:
            if work.done() and work.exception() is not None:
                self._cluster.watch.fail(f"a change of members failed: {work.exception()!r}")
        if pending:
            self._cluster.watch.fail("liveness: a change of members never ended")

    async def _join(self) -> None:
        cluster = self._cluster
        unused = sorted(cluster.unused)
        if not unused or cluster.configuration() is None:
            return
        machine = cluster.machines[self._random.choice(unused)]
        cluster.unused.discard(machine.name)
        machine.way = "join"
        cluster.counts["joins begun"] += 1
        await machine.start()

    async def _remove(self) -> None:
        cluster = self._cluster
        configuration = cluster.configuration()
        if configuration is None or len(configuration.members) < 2 or self._is_replacing:
            return
        name = self._random.choice(sorted(configuration.members))
        identity = (name, configuration.members[name])
        if await self._removed(identity, tries=20):
            cluster.counts["removals"] += 1
            await asyncio.sleep(2.0 * self._random.random())
            await self._retire(name)

    async def _replace(self) -> None:
        """Lose the disk of a voter, remove it, and let it come back as somebody else under its name."""
        cluster = self._cluster
        configuration = cluster.configuration()
        if configuration is None or self._is_replacing:
            return
        if len(configuration.voters) < WIPE_VOTER_COUNT:
            return
        name = self._random.choice(sorted(configuration.voters))
        identity = (name, configuration.voters[name])
        self._is_replacing = True
        machine = cluster.machines[name]
        machine.crash()
        machine.disk.hook = None
        machine.wipe()
        machine.way = "join"
        await machine.start()
        # Nobody else may lose a disk before this one is out of the majorities.
        await self._removed(identity, tries=None)
        cluster.counts["replacements"] += 1
        self._is_replacing = False

    async def _retire(self, name: str) -> None:
        """Stop a node that is no member any more, and empty its disk."""
        machine = self._cluster.machines[name]
        configuration = self._cluster.configuration()
        if configuration is not None and name in configuration.members:
            # It is back already, as somebody else.
            return
        machine.crash()
        machine.disk.hook = None
        machine.wipe()
        machine.way = "join"
        self._cluster.unused.add(name)

    async def _removed(self, identity: tuple[str, str], tries: int | None) -> bool:
        """Ask whoever leads to remove a member until it is none any more; tell whether that came to pass."""
        name, directory_id = identity
        while tries is None or tries > 0:
            tries = None if tries is None else tries - 1
            configuration = self._cluster.configuration()
            leader = self._cluster.leader()
            if configuration is not None and configuration.members.get(name) != directory_id:
                return True
            if leader is not None:
                try:
                    async with asyncio.timeout(ATTEMPT_S):
                        await leader.ask(lambda log: log.remove_member(name))
                except REFUSED:
                    self._cluster.counts["changes refused"] += 1
            await asyncio.sleep(PAUSE_S * (0.5 + self._random.random()))
        return False
