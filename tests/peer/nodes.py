"""Nodes for the tests of the peer transport: a PeerNetwork with an owner that writes down what it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from distlog.errors import PeerRefused
from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.peer.limits import PeerLimits
from distlog.peer.network import PeerNetwork
from distlog.runtime import Clock, Network
from tests.simulation.simulated_network import SimulatedNetwork
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

PORT = 8401
Result = TypeVar("Result")


@dataclass
class Owner:
    """A PeerEvents that remembers, and checks what PeerEvents promises at every call."""

    hellos: list[Hello] = field(default_factory=list)
    # ("connected" | "disconnected", node) in order.
    changes: list[tuple[str, str]] = field(default_factory=list)
    connected: set[str] = field(default_factory=set)
    # node -> one list of (channel, group, payload) for each time that it was connected.
    received: dict[str, list[list[tuple[Channel, int, bytes]]]] = field(default_factory=dict)
    on_hello: Callable[[Hello], None] = lambda hello: None
    on_frame: Callable[[str, bytes], None] = lambda node_id, payload: None

    def hello_received(self, hello: Hello) -> None:
        self.hellos.append(hello)
        self.on_hello(hello)

    def peer_connected(self, node_id: str) -> None:
        assert node_id not in self.connected, "connected twice in a row"
        self.connected.add(node_id)
        self.changes.append(("connected", node_id))
        self.received.setdefault(node_id, []).append([])

    def peer_disconnected(self, node_id: str) -> None:
        assert node_id in self.connected, "disconnected without having been connected"
        self.connected.remove(node_id)
        self.changes.append(("disconnected", node_id))

    def frame_received(self, node_id: str, channel: Channel, group: int, payload: bytes) -> None:
        assert node_id in self.connected, "a frame outside of connected and disconnected"
        self.received[node_id][-1].append((channel, group, payload))
        self.on_frame(node_id, payload)

    def payloads(self, node_id: str) -> list[bytes]:
        """Return everything that came from a node."""
        return [frame[2] for period in self.received.get(node_id, []) for frame in period]


class PeerNode:
    """A PeerNetwork, its owner, and the policy that a node would have."""

    def __init__(
        self,
        network: Network,
        clock: Clock,
        seed: int,
        hello: Hello,
        peers: Mapping[str, tuple[str, int]],
        *,
        listen: tuple[str, int],
        limits: PeerLimits,
    ) -> None:
        self.hello = hello
        self.owner = Owner()
        # node id -> directory id that it must have; "" for any.
        self.expected = dict.fromkeys(peers, "")
        self.peers = PeerNetwork(
            network=network,
            clock=clock,
            random=random.Random(f"{seed}/{hello.node_id}"),
            identity=lambda: self.hello,
            listen_host=listen[0],
            listen_port=listen[1],
            peers=peers,
            events=self.owner,
            is_expected=self.judge,
            limits=limits,
        )

    def judge(self, hello: Hello) -> PeerRefused | None:
        """Say what a node would: known ids only, with the directory that belongs to them."""
        directory_id = self.expected.get(hello.node_id)
        if directory_id is None:
            return PeerRefused(hello.node_id, f"{hello.node_id} is not named in --peers")
        if directory_id not in ("", hello.directory_id):
            return PeerRefused(
                hello.node_id, f"the directory of {hello.node_id} is not the one known"
            )
        return None

    def become(self, **changes: Any) -> None:
        """Change what this node says of itself."""
        self.hello = msgspec.structs.replace(self.hello, **changes)

    def send(self, node_id: str, payload: bytes) -> bool:
        """Send on the Raft channel of group 0."""
        return self.peers.send(node_id, Channel.RAFT, 0, payload)


class World:
    """A virtual loop's network and the nodes on it."""

    def __init__(self, seed: int = 0, **network_options: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.seed = seed
        self.random = random.Random(seed)
        self.network = SimulatedNetwork(loop, self.random, **network_options)
        self.nodes: dict[str, PeerNode] = {}
        self._starts = 0

    def node(
        self,
        name: str,
        peers: str = "n1 n2 n3",
        *,
        cluster_id: str = "c",
        directory_id: str | None = None,
        node_id: str | None = None,
        at: Mapping[str, str] | None = None,
        limits: PeerLimits = PeerLimits(),  # noqa: B008 (frozen)
    ) -> PeerNode:
        """Make a node on the host of that name, which dials `peers`: each at the host of its name, or as `at` says."""
        self._starts += 1
        hello = Hello(
            node_id=node_id or name,
            directory_id=directory_id or f"directory-of-{name}",
            cluster_id=cluster_id,
            client_address=f"{name}:8400",
            peer_address=f"{name}:{PORT}",
        )
        self.nodes[name] = PeerNode(
            self.network.host(name),
            VirtualClock(self.loop),
            self.seed * 1000 + self._starts,
            hello,
            {peer: ((at or {}).get(peer, peer), PORT) for peer in peers.split()},
            listen=(name, PORT),
            limits=limits,
        )
        return self.nodes[name]

    async def started(self, name: str, peers: str = "n1 n2 n3", **options: Any) -> PeerNode:
        """Make a node and start it."""
        node = self.node(name, peers, **options)
        await node.peers.start()
        return node

    async def connected(self, *names: str) -> None:
        """Wait until all these nodes are connected with each other."""
        await self.loop.until(
            lambda: all(
                other in self.nodes[name].owner.connected
                for name in names
                for other in names
                if other != name
            )
        )


def simulate(main: Callable[[World], Any], seed: int = 0, **network_options: Any) -> Any:
    """Run `main(world)` in virtual time; whatever a protocol or callback raises fails the test."""
    raised: list[Any] = []

    async def run() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        world = World(seed, **network_options)
        result = await main(world)
        for node in world.nodes.values():
            await node.peers.stop()
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(run())
    assert not raised, raised
    return result


def limits(**changes: Any) -> PeerLimits:
    """Return the default limits with changes."""
    return replace(PeerLimits(), **changes)
