"""A whole cluster in one process, on virtual time, simulated disks and a simulated network: the product's own `Node`s.

A seed decides everything: message delays, connection breaks, partitions, fsync times, crashes at any moment or in the middle of a
disk operation, what a power cut leaves of unsynced pages, and what the clients do.  The same seed gives the same run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from distlog.consensus.group import GroupSettings
from distlog.consensus.library import RaftSettings
from distlog.consensus.replicated_log import ReplicatedLog, ReplicatedLogSettings
from distlog.consensus.rules import complete_rules
from distlog.node import Node, NodePorts, NodeSettings
from distlog.storage.simulated_disk import SimulatedDisk
from tests.simulation.simulated_network import SimulatedNetwork
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

PEER_PORT = 8401
HAND_OVER_TIMEOUT_S = 1.0
# More than the largest entry of a simulation costs, and little memory.
RESERVE_SIZE = 1 << 20


class PowerCut(BaseException):
    """Raised out of a disk operation: the machine is gone in the middle of it."""


class SimulatedWorker:
    """A worker thread that takes virtual time: one job after the other, none after a crash."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._incarnation = machine.incarnation
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._free_at = max(self._free_at, self._loop.time()) + self._machine.disk_delay_s()
        self._loop.call_at(self._free_at, self._run, future, function, args)
        return future

    def _run(self, future: asyncio.Future[Any], function: Callable[..., Any], args: Any) -> None:
        if self._machine.incarnation != self._incarnation or future.cancelled():
            return
        try:
            future.set_result(function(*args))
        except PowerCut:
            return
        except Exception as error:
            future.set_exception(error)

    def close(self) -> None:
        return


class Machine:
    """What a node runs on: it loses power and comes back with what its disk kept."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = SimulatedDisk()
        self.node: Node | None = None
        # Counts starts and crashes: what belongs to an older one is dead.
        self.incarnation = 0
        self.slow_disk = False

    @property
    def log(self) -> ReplicatedLog | None:
        return self.node.replicated_log if self.node is not None else None

    def disk_delay_s(self) -> float:
        random = self.cluster.random
        delay = 0.0002 + 0.003 * random.random() ** 3
        if self.slow_disk or random.random() < 0.01:
            delay += 0.2 * random.random()
        return delay

    async def start(self) -> None:
        cluster = self.cluster
        self.incarnation += 1
        incarnation = self.incarnation
        cluster.counts["starts"] += 1
        cluster.network.host_up(self.name)
        settings = NodeSettings(
            node_id=self.name,
            data_dir="data",
            peer_listen=(self.name, PEER_PORT),
            peers={name: (name, PEER_PORT) for name in cluster.names},
            reserve_size=RESERVE_SIZE,
            group=GroupSettings(
                raft=RaftSettings(in_flight_size_max=256 << 10),
                checkpoint_interval_s=cluster.checkpoint_interval_s,
                checkpoint_journal_size=64 << 10,
            ),
            replicated_log=cluster.replicated_log,
        )
        ports = NodePorts(
            disk=self.disk,
            clock=VirtualClock(
                cluster.loop, 1_700_000_000_000 + cluster.random.randint(-2000, 2000)
            ),
            random=Random(cluster.random.getrandbits(64)),
            network=cluster.network.host(self.name),
            make_worker=lambda _name: SimulatedWorker(self),
        )
        try:
            node = Node(settings, ports, rules=cluster.rules)
            self.node = node
            node.failed.add_done_callback(lambda done: self._failed(incarnation, done))
            await node.start(f"{self.name}:8400")
        except PowerCut:
            return
        node.replicated_log.on_role_change(lambda: cluster.note_role(self))

    def _failed(self, incarnation: int, done: asyncio.Future[None]) -> None:
        if incarnation == self.incarnation and not done.cancelled():
            error = done.exception()
            if not isinstance(error, PowerCut):
                self.cluster.failures.append(f"{self.name} stopped itself: {error!r}")

    def crash(self) -> None:
        """Lose power now: unsynced pages, sizes and names survive or not, each by itself."""
        if self.node is not None:
            self._die(self.disk.crash(self.cluster.random))

    def kill(self) -> None:
        """End the process with -9: its peers see their connections closed, and the disk keeps what was written."""
        if self.node is not None:
            self.cluster.network.kill(self.name)
            self._die(self.disk.kill())

    def crash_within(self, operation_count: int) -> None:
        """Lose power in the middle of the disk operation that many from now."""
        remaining = operation_count
        disk, incarnation = self.disk, self.incarnation

        def hook(_operation: str, _path: str) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining == 0 and incarnation == self.incarnation:
                self._die(disk.crash(self.cluster.random))
            if remaining <= 0:
                raise PowerCut

        disk.hook = hook

    def _die(self, disk: SimulatedDisk) -> None:
        self.cluster.counts["crashes"] += 1
        self.incarnation += 1
        node, self.node = self.node, None
        self.disk = disk
        self.cluster.network.host_down(self.name)
        if node is not None:
            node.abandon()

    def wipe(self) -> None:
        """Lose the disk of a machine that is stopped."""
        assert self.node is None
        self.disk = SimulatedDisk()

    async def stop(self) -> None:
        """Stop in order, as a process does."""
        incarnation, node = self.incarnation, self.node
        try:
            if node is not None:
                await node.hand_over(HAND_OVER_TIMEOUT_S)
                if self.incarnation == incarnation:
                    await node.stop()
        except PowerCut:
            return
        if self.incarnation != incarnation:
            return
        self.node = None
        self.incarnation += 1
        self.cluster.network.host_down(self.name)
        self.disk = self.disk.kill()


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
        replicated_log: ReplicatedLogSettings = ReplicatedLogSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.loop = loop
        self.random = Random(seed)
        self.names = names
        self.rules = rules
        self.checkpoint_interval_s = checkpoint_interval_s
        self.replicated_log = replicated_log
        self.network = SimulatedNetwork(loop, Random(self.random.getrandbits(64)))
        self.counts: Counter[str] = Counter()
        # What went wrong, in sentences; a run is good when this stays empty.
        self.failures: list[str] = []
        self.machines = {name: Machine(self, name) for name in names}
        # term -> who was seen leading it.
        self.leaders: dict[int, str] = {}

    async def start(self) -> None:
        for machine in self.machines.values():
            await machine.start()

    def note_role(self, machine: Machine) -> None:
        """Check, whenever a role changes, that no term has two leaders."""
        log = machine.log
        if log is None or not log.is_leader:
            return
        term = log.status().term
        known = self.leaders.setdefault(term, machine.name)
        if known != machine.name:
            self.failures.append(f"term {term} has two leaders: {known} and {machine.name}")
        self.counts["elections"] = len(self.leaders)

    def leader(self) -> Machine | None:
        """Return a machine that believes it leads, if any; the one of the highest term."""
        leading = [m for m in self.machines.values() if m.log is not None and m.log.is_leader]
        return max(leading, key=lambda m: m.log.status().term, default=None)  # type: ignore[union-attr]

    async def restart_all(self) -> None:
        """Bring every machine that is down back up."""
        for machine in self.machines.values():
            if machine.node is None:
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
