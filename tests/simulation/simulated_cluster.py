"""A whole cluster in one process, on virtual time, simulated disks and a simulated network: the product's own `Node`s.

A seed decides everything: message delays, connection breaks, partitions, fsync times, crashes at any moment or in the middle of a
disk operation, what a power cut leaves of unsynced pages, and what the clients do.  The same seed gives the same run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from distlog.catch_up.scrub import ScrubSettings
from distlog.consensus.configuration import Configuration
from distlog.consensus.durability import Durability
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.rules import complete_rules
from distlog.discovery.backend import Backend
from distlog.node_settings import DiscoverySettings
from tests.simulation.simulated_machine import Machine, PowerCut
from tests.simulation.simulated_network import SimulatedNetwork
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.watch import Watch

__all__ = ["Machine", "PowerCut", "SimulatedCluster"]


class SimulatedCluster:
    """Machines, the network between them, and what must never be seen."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        *,
        names: tuple[str, ...] = ("n1", "n2", "n3"),
        rules: Any = complete_rules,
        checkpoint_interval_s: float = 2.0,
        in_flight_size_max: int = 256 << 10,
        copy_rate_max: int = 0,
        scrub: ScrubSettings = ScrubSettings(),  # noqa: B008 (frozen)
        replicated_log: ReplicatedLogSettings = ReplicatedLogSettings(),  # noqa: B008 (frozen)
        durabilities: Sequence[Durability] = (Durability.FSYNC,),
        power_cuts: bool = True,
        spares: tuple[str, ...] = (),
        is_fixed: bool = True,
        expect: int = 0,
        dead_after_s: float = 600.0,
        discovery: DiscoverySettings = DiscoverySettings(Backend.GOSSIP),  # noqa: B008 (frozen)
    ) -> None:
        """names: the nodes that the cluster begins with; spares: machines for those that join later.

        durabilities: of the machines, in turn.  power_cuts: if False every crash only ends the process.
        is_fixed: they are given as a fixed set; otherwise the first one bootstraps, and the others join it.
        expect: of how many nodes all of them, spares too, would form a cluster; 0: is_fixed says.
        discovery: of all of them.  With dns their name stands for the machines that are up, unless it `lacks_name_server`.
        """
        self.loop = loop
        self.random = Random(seed)
        self.names = names
        self.rules = rules
        self.checkpoint_interval_s = checkpoint_interval_s
        self.in_flight_size_max = in_flight_size_max
        self.copy_rate_max = copy_rate_max
        self.scrub = scrub
        self.replicated_log = replicated_log
        self._durabilities = durabilities
        self.power_cuts = power_cuts
        self.network = SimulatedNetwork(loop, Random(self.random.getrandbits(64)))
        self.counts: Counter[str] = Counter()
        # What went wrong, in sentences; a run is good when this stays empty.
        self.failures: list[str] = []
        self.watch = Watch(self.counts, self.failures)
        self.expect = expect
        self.dead_after_s = dead_after_s
        self.discovery = discovery
        self.lacks_name_server = False
        self.spares = spares
        # Machines on which nothing shall run.
        self.unused = set(spares)
        self.machines = {name: Machine(self, name) for name in (*names, *spares)}
        for machine in self.machines.values():
            self.watch.add(machine.name)
            if expect:
                machine.way = "join"
            elif not is_fixed or machine.name in spares:
                machine.way = "bootstrap" if machine.name == names[0] else "join"

    async def start(self) -> None:
        for name in self.names:
            await self.machines[name].start()

    def durability_of(self, name: str) -> Durability:
        """Return the setting of a machine, which may have come later."""
        place = self.names.index(name) if name in self.names else 0
        return self._durabilities[place % len(self._durabilities)]

    def configuration(self) -> Configuration | None:
        """Return the newest configuration that a leader knows to be committed; None if nobody leads."""
        leader = self.leader()
        group = leader.group if leader is not None else None
        return None if group is None else group.membership.committed

    def used(self) -> list[Machine]:
        """Return the machines on which a node shall run."""
        return [each for each in self.machines.values() if each.name not in self.unused]

    def members(self) -> list[Machine]:
        """Return the machines of the voters, by what the leader knows; all of them if nobody leads."""
        configuration = self.configuration()
        return [
            machine
            for machine in self.machines.values()
            if configuration is None or machine.node_id in configuration.voters
        ]

    def note_role(self, machine: Machine) -> None:
        """Check, whenever a role changes, that no term has two leaders."""
        log = machine.log
        if log is not None:
            status = log.status()
            if status.role == "leader":
                self.watch.leads(machine.name, status.term)

    def leader(self) -> Machine | None:
        """Return a machine that believes it leads, if any; the one of the highest term."""
        leading = [m for m in self.machines.values() if m.log is not None and m.log.is_leader]
        return max(leading, key=lambda m: m.log.status().term, default=None)  # type: ignore[union-attr]

    async def restart_all(self) -> None:
        """Bring every machine that is down and not out of use back up."""
        for machine in self.machines.values():
            if machine.node is None and machine.name not in self.unused:
                machine.disk.hook = None
                await machine.start()

    async def wait_until(
        self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0
    ) -> bool:
        """Let virtual time pass until `condition` holds; note a failure and return False when it does not in time."""
        deadline = self.loop.time() + timeout_s
        while not condition():
            if self.loop.time() > deadline:
                self.failures.append(f"it never happened: {what}")
                return False
            await asyncio.sleep(0.01)
        return True
