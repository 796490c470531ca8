"""A machine that a node runs on: it loses power, stands still, has clocks that are wrong, and a disk that is slow or full."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any

from distlog.consensus.group import GroupSettings
from distlog.consensus.library import RaftSettings
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.discovery.view import Description
from distlog.errors import DiskFailed, DistlogError, OutcomeUnknown, StorageFull, Unreachable
from distlog.node import Node
from distlog.node_settings import MemberIdentity, NodePorts, NodeSettings
from distlog.storage.simulated_disk import SimulatedDisk
from tests.simulation.simulated_calls import SimulatedServer
from tests.simulation.simulated_process import Process
from tests.simulation.virtual_loop import VirtualClock

if TYPE_CHECKING:
    from tests.simulation.simulated_cluster import SimulatedCluster

CLIENT_PORT = 8400
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

    def sync(self, file: Any) -> asyncio.Future[Any]:
        return self.submit(file.sync)

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

    def __init__(self, cluster: SimulatedCluster, name: str, node_id: str = "") -> None:
        """node_id: of the node that runs here, if it is not the machine's own name."""
        self.cluster = cluster
        self.name = name
        self.node_id = node_id or name
        # How its node comes to the cluster: one of the fixed set, as the first of one that others join, as one that joins, or as one that
        # is told of no member and finds one.
        self.way = "fixed"
        self.disk = SimulatedDisk()
        self.clock = VirtualClock(cluster.loop)
        self.node: Node | None = None
        # The process of the node that runs, or ran last.
        self.process: Process | None = None
        # Counts starts and crashes: what belongs to an older one is dead.
        self.incarnation = 0
        self.slow_disk = False
        # A test has taken from it what was durable: it may miss that.
        self.is_disk_damaged = False

    @property
    def log(self) -> ReplicatedLog | None:
        return self.node.replicated_log if self.node is not None else None

    @property
    def group(self) -> Any:
        return self.node.group if self.node is not None else None

    @property
    def address(self) -> str:
        return f"{self.name}:{CLIENT_PORT}"

    def disk_delay_s(self) -> float:
        random = self.cluster.random
        delay = 0.0002 + 0.003 * random.random() ** 3
        if self.slow_disk or random.random() < 0.01:
            delay += 0.2 * random.random()
        return delay

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a node on what the disk has; on a full one it may refuse to, and is down then."""
        if self.process is not None and not self.process.is_dead:
            # Somebody else has just begun to.
            return
        cluster = self.cluster
        self.incarnation += 1
        cluster.counts["starts"] += 1
        cluster.network.host_up(self.name)
        self.process = cluster.loop.start_process()
        cluster.network.contexts[self.name] = self.process.context
        self.clock.wall_start_ms = 1_700_000_000_000 + cluster.random.randint(-2000, 2000)
        await self.process.run(self._start(self.incarnation))

    async def _start(self, incarnation: int) -> None:
        cluster = self.cluster
        random = Random(cluster.random.getrandbits(64))
        ports = NodePorts(
            disk=self.disk,
            clock=self.clock,
            random=random,
            network=cluster.network.host(self.name),
            make_worker=lambda _name: SimulatedWorker(self),
            ask_members=self._ask_members,
            ask_node=self._ask_node,
            remove_member=self._remove_member,
            resolve=self._resolve,
        )
        try:
            node = Node(self._settings(), ports, rules=cluster.rules)
            self.node = node
            self._watch(node, incarnation)
            await node.start(self.address)
            self._server = SimulatedServer(node.replicated_log, random)
            await self._server.listen(cluster.network.host(self.name), self.name, CLIENT_PORT)
        except PowerCut:
            return
        except (StorageFull, DiskFailed):
            if self.disk.capacity is None:
                raise
            cluster.counts["starts refused by a full disk"] += 1
            self._end(self.disk.kill())

    def _settings(self) -> NodeSettings:
        cluster = self.cluster
        is_fixed = self.way == "fixed"
        members = cluster.names if is_fixed else (self.node_id,)
        # Where all are started alike, each finds itself in the list, too.
        others = [
            each.name for each in cluster.machines.values() if cluster.expect or each is not self
        ]
        return NodeSettings(
            node_id=self.node_id,
            data_dir="data",
            peer_listen=(self.name, PEER_PORT),
            peers={name: (name if is_fixed else self.name, PEER_PORT) for name in members},
            bootstrap=self.way == "bootstrap",
            join=tuple((name, CLIENT_PORT) for name in others) if self.way == "join" else (),
            expect=cluster.expect if self.way in ("join", "alone") else 0,
            dead_after_s=cluster.dead_after_s,
            discovery=cluster.discovery,
            reserve_size=RESERVE_SIZE,
            durability=cluster.durability_of(self.name),
            copy_rate_max=cluster.copy_rate_max,
            scrub=cluster.scrub,
            group=GroupSettings(
                raft=RaftSettings(in_flight_size_max=cluster.in_flight_size_max),
                checkpoint_interval_s=cluster.checkpoint_interval_s,
                checkpoint_journal_size=64 << 10,
            ),
            replicated_log=cluster.replicated_log,
        )

    async def _ask_members(self, address: tuple[str, int]) -> dict[str, str]:
        """Ask who the members are."""
        log = (await self._reached(address)).log
        assert log is not None
        members = log.status(with_topics=False).members
        return {member.node_id: member.peer_address for member in members}

    async def _ask_node(
        self, address: tuple[str, int], known_as: str = ""
    ) -> tuple[Description, int]:
        """Ask who is there."""
        machine = await self._reached(address)
        itself = machine.node.finding.itself() if machine.node is not None else None
        if itself is None:
            raise ConnectionRefusedError(f"{machine.name} is about to start")
        return itself.description, itself.run

    async def _remove_member(self, address: tuple[str, int], member: MemberIdentity) -> None:
        """Ask the leader to remove a member."""
        asked = await self._reached(address)
        try:
            await asked.ask(
                lambda log: log.remove_member(
                    member.node_id, cluster_id=member.cluster_id, directory_id=member.directory_id
                )
            )
        except ConnectionRefusedError as error:
            raise Unreachable(addresses=asked.name, problem=str(error)) from None

    async def _resolve(self, _name: str) -> list[str]:
        if self.cluster.lacks_name_server:
            raise OSError("the name server does not answer")
        return [each.name for each in self.cluster.machines.values() if each.node is not None]

    async def _reached(self, address: tuple[str, int]) -> Machine:
        """Return who is at an address, by a connection that carries only the question."""
        host, port = address
        probes: list[asyncio.BaseTransport] = []

        class Probe(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                probes.append(transport)

        await self.cluster.network.host(self.name).connect(Probe, host, port)
        for probe in probes:
            probe.close()
        machine = self.cluster.machines[host]
        if machine.log is None:
            raise ConnectionRefusedError(f"{host} is down")
        return machine

    def _watch(self, node: Node, incarnation: int) -> None:
        cluster, log = self.cluster, node.replicated_log
        attach = log.attach

        attached = 0

        def watched_attach(group: Any) -> None:
            nonlocal attached
            attach(group)
            attached += 1
            cluster.counts["copied states"] += attached > 1
            cluster.watch.begin(self, group)
            logs = [topic.log for topic in group.state_machine.topics()]
            if any(log.has_set_aside for log in logs) and not self.is_disk_damaged:
                cluster.watch.fail(f"{self.name} lacks a segment that a checkpoint has promised")

        log.attach = watched_attach  # type: ignore[method-assign]
        log.on_role_change(lambda: cluster.note_role(self))
        node.failed.add_done_callback(lambda done: self._failed(incarnation, done))

    def _failed(self, incarnation: int, done: asyncio.Future[None]) -> None:
        if incarnation == self.incarnation and not done.cancelled():
            error = done.exception()
            if not isinstance(error, PowerCut):
                self.cluster.watch.fail(f"{self.name} stopped itself: {error!r}")

    async def stop(self) -> None:
        """Stop in order, as a process does."""
        incarnation, node, process = self.incarnation, self.node, self.process
        if node is None or process is None:
            return
        await process.run(self._stop(incarnation, node))
        if self.incarnation == incarnation:
            self._end(self.disk.kill())

    async def _stop(self, incarnation: int, node: Node) -> None:
        try:
            await node.hand_over(HAND_OVER_TIMEOUT_S)
            if self.incarnation == incarnation:
                node.replicated_log.refuse_new()
                await self._server.stop()
            if self.incarnation == incarnation:
                await node.stop()
        except PowerCut:
            return

    async def ask(self, question: Callable[[ReplicatedLog], Awaitable[Any]]) -> Any:
        """Have the node answer, in its own process.  Raises what it refuses with, OutcomeUnknown if it dies meanwhile."""
        log, process = self.log, self.process
        if log is None or process is None:
            raise ConnectionRefusedError(f"{self.name} is down")

        async def answer() -> Any:
            try:
                asked = question(log)
            except DistlogError as error:
                # What is refused at once is proven before a client is told.
                raise await log.proven(error) from None
            return await asked

        task = process.create_task(answer())
        try:
            await asyncio.wait([task, process.died], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise OutcomeUnknown(cause=f"{self.name} is gone")
        finally:
            task.cancel()

    # --- What happens to it --------------------------------------------------------------------

    def crash(self) -> None:
        """Lose power now: unsynced pages, sizes and names survive or not, each by itself.

        In a cluster without power cuts only the process ends; so do the others below.
        """
        if self.node is not None:
            self._die(self._crashed_disk(self.disk))

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
                self._die(self._crashed_disk(disk))
            if remaining <= 0:
                raise PowerCut

        disk.hook = hook

    def crash_at_callback(self, callback_count: int) -> None:
        """Lose power between two steps of the event loop: instead of the callback that many from now."""
        if self.node is not None and self.process is not None:
            self.process.interrupt_after(callback_count, self.crash)

    def _crashed_disk(self, disk: SimulatedDisk) -> SimulatedDisk:
        if not self.cluster.power_cuts:
            self.cluster.network.kill(self.name)
            return disk.kill()
        survivor = disk.crash(self.cluster.random)
        self.cluster.counts["lost pages"] += survivor.lost_page_count
        return survivor

    def _die(self, disk: SimulatedDisk) -> None:
        self.cluster.counts["crashes"] += 1
        self.cluster.counts["crashes with unsynced promises"] += self.cluster.watch.is_unsynced(
            self.name
        )
        node = self._end(disk)
        if node is not None:
            node.abandon()

    def _end(self, disk: SimulatedDisk) -> Node | None:
        self.incarnation += 1
        node, self.node = self.node, None
        self.disk = disk
        self.cluster.network.host_down(self.name)
        self.cluster.network.contexts.pop(self.name, None)
        if self.process is not None:
            self.process.die()
        return node

    def pause(self) -> None:
        """Let the process stand still; its connections stay up, and what its peers send waits."""
        if self.node is not None and self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        if self.process is not None:
            self.cluster.loop.resume(self.process)

    def fill_disk(self, left: int) -> None:
        """Leave so many bytes of the disk, as another program would that writes there."""
        self.disk.capacity = self.disk.used + left

    def free_disk(self) -> None:
        self.disk.capacity = None

    def wipe(self) -> None:
        """Lose the disk of a machine that is stopped."""
        assert self.node is None
        self.disk = SimulatedDisk()
        self.cluster.watch.add(self.name)
