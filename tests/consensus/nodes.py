"""Three nodes on virtual time and a network between them, where every disk is as fast as a test says.

The product's own nodes with everything below gRPC, and no faults but those that the test makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from distlog.block import Block
from distlog.consensus.group import GroupSettings
from distlog.consensus.library import RaftSettings
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.node import Node
from distlog.node_settings import NodePorts, NodeSettings
from distlog.runtime import Network
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.tracing.spans import NO_TRACER, Tracer
from tests.simulation.simulated_network import SimulatedNetwork
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

NAMES = ("n1", "n2", "n3")
PEER_PORT = 8401
RESERVE_SIZE = 4 << 20
DISK_DELAY_S = 0.0005


class SteadyWorker:
    """A worker whose jobs take one after the other the time that its node's disk takes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._free_at = max(self._free_at, self._loop.time()) + self._place.disk_delay_s
        self._loop.call_at(self._free_at, self._run, future, function, args)
        return future

    def sync(self, file: Any) -> asyncio.Future[Any]:
        return self.submit(file.sync)

    def _run(self, future: asyncio.Future[Any], function: Callable[..., Any], args: Any) -> None:
        if future.cancelled():
            return
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)

    def close(self) -> None:
        return


class Place:
    """A node and what it runs on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.disk = SimulatedDisk()
        self.disk_delay_s = DISK_DELAY_S
        self.node: Node

    @property
    def log(self) -> ReplicatedLog:
        return self.node.replicated_log

    @property
    def group(self) -> Any:
        return self.node.group

    @property
    def counters(self) -> Any:
        """What the connections of the node have counted."""
        return self.node.peers.counters


class NodeCluster:
    """The three of them."""

    def __init__(
        self,
        *,
        seed: int = 1,
        in_flight_size_max: int = 256 << 10,
        reserve_size: int = RESERVE_SIZE,
        replicated_log: ReplicatedLogSettings = ReplicatedLogSettings(),  # noqa: B008 (frozen)
        host: Callable[[SimulatedNetwork, str], Network] = SimulatedNetwork.host,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """host(network, name) returns the network as a node sees it.  tracer: of all nodes together."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.random = Random(seed)
        self.network = SimulatedNetwork(loop, Random(seed))
        self._in_flight_size_max = in_flight_size_max
        self._reserve_size = reserve_size
        self._replicated_log = replicated_log
        self._host = host
        self._tracer = tracer
        self.places = {name: Place(name) for name in NAMES}

    def __getitem__(self, name: str) -> Place:
        return self.places[name]

    async def start(self) -> None:
        """Start all, and return when one leads."""
        for place in self.places.values():
            await self.start_one(place)
        await self.loop.until(lambda: any(each.log.is_leader for each in self.places.values()))
        await self.loop.until(lambda: all(each.log.has_leader for each in self.places.values()))

    async def start_one(self, place: Place) -> None:
        """Start the node of a place, on what its disk has."""
        settings = NodeSettings(
            node_id=place.name,
            data_dir="data",
            peer_listen=(place.name, PEER_PORT),
            peers={name: (name, PEER_PORT) for name in NAMES},
            reserve_size=self._reserve_size,
            group=GroupSettings(
                raft=RaftSettings(
                    in_flight_size_max=self._in_flight_size_max, entry_size_max=2 << 20
                )
            ),
            replicated_log=self._replicated_log,
        )
        place.node = Node(settings, self._ports(place))
        await place.node.start(f"{place.name}:8400")

    def _ports(self, place: Place) -> NodePorts:
        return NodePorts(
            disk=place.disk,
            clock=VirtualClock(self.loop),
            random=Random(self.random.getrandbits(64)),
            network=self._host(self.network, place.name),
            make_worker=lambda _name: SteadyWorker(place),
            tracer=self._tracer,
        )

    @property
    def leader(self) -> Place:
        (leader,) = [each for each in self.places.values() if each.log.is_leader]
        return leader

    @property
    def followers(self) -> list[Place]:
        return [each for each in self.places.values() if not each.log.is_leader]

    async def append(self, *sizes: int) -> None:
        """Append records of these sizes, all at the same moment."""
        log = self.leader.log
        blocks = [Block.from_records([bytes([65 + size % 26]) * size]) for size in sizes]
        await asyncio.gather(*[log.propose_append("", block) for block in blocks])

    async def stop(self) -> None:
        for place in self.places.values():
            await place.node.stop()


def on_virtual_time(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run `main`; whatever a callback raises fails the test."""
    raised: list[Any] = []

    async def run() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(run())
    assert not raised, raised
    return result
