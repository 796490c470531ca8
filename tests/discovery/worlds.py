"""Worlds in which a backend of discovery is tried: nodes that come, go, stand alone and take each other's names.

A world makes nodes of one backend and does to them what can happen; what the backend cannot see of that is said in its `Powers`, and
the suite holds it to that as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from distlog.discovery.dns import DnsDiscovery
from distlog.discovery.gossip import GossipDiscovery
from distlog.discovery.gossip_rows import MalformedRows
from distlog.discovery.static import StaticDiscovery
from distlog.discovery.view import Description, Discovery
from distlog.errors import PeerRefused
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

NODE_IDS = ("n1", "n2", "n3")
CLUSTER_ID = "c0ffee"


@dataclass(frozen=True, slots=True)
class Powers:
    """What a backend can find out."""

    # That there is a node which nobody had named.
    sees_joins: bool = True
    # What another node says of itself.
    hears_others: bool = True
    # That a node is not heard any more.
    sees_failures: bool = True
    # That a node has said good-bye.
    sees_leaving: bool = True
    # That a node was declared gone: at the node where that was done; and everywhere.
    forgets: bool = True
    forgets_everywhere: bool = True
    # That its own source is away; and whether nodes fail for it then.
    ages: bool = True
    fails_alone: bool = True
    # That two nodes have one id.
    sees_conflicts: bool = True


class World(Protocol):
    """Nodes of one backend, on the running loop."""

    powers: Powers

    async def start(self, node_id: str) -> Discovery:
        """Start a node, or the next run of one that was killed or has closed."""

    async def kill(self, node_id: str) -> None:
        """End a node without a word."""

    async def start_twin(self, node_id: str) -> Discovery:
        """Start another node with the id of one that is up: another directory, at another address."""

    def cut_off(self, node_id: str) -> None:
        """Take the source of its view away from a node that is up."""

    def reconnect(self, node_id: str) -> None:
        """Give it back."""

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return when `condition` holds; fail if it does not in time."""

    async def elapse(self, seconds: float) -> None:
        """Let time pass, on virtual time; a world on real time is never asked to."""

    async def close(self) -> None:
        """End all nodes."""


def description_of(node_id: str, place: str = "") -> Description:
    """Return what a node of these worlds says of itself; place: of its address and directory, if not named as the node."""
    place = place or node_id
    return Description(
        node_id=node_id,
        directory_id=f"directory-{place}",
        peer_address=f"{place}:8401",
        client_address=f"{place}:8400",
        cluster_id=CLUSTER_ID,
        version="1",
    )


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await loop.pass_time(seconds)


def on_virtual_time(world: Callable[[], World], story: Callable[[World], Awaitable[None]]) -> None:
    """Run a story in a new world."""

    async def run() -> None:
        made = world()
        try:
            await story(made)
        finally:
            await made.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"a closed backend has left tasks behind: {left}"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


class VirtualWorld:
    """What worlds on virtual time have in common."""

    powers = Powers()

    def __init__(self, seed: int = 1) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.random = Random(seed)
        # The nodes that are up, by the name of their machine: the node id, but for a twin.
        self.up: dict[str, Discovery] = {}
        self.cut: set[str] = set()

    def make(self, place: str, own: Description) -> Discovery:
        raise AssertionError("a world makes its own kind")

    async def start(self, node_id: str) -> Discovery:
        # A process ends before the next one begins.
        await pass_time(0.01)
        made = self.make(node_id, description_of(node_id))
        self.up[node_id] = made
        await made.start()
        self.came_up(node_id)
        return made

    def came_up(self, place: str) -> None:
        """Do what follows when a node is there."""

    async def kill(self, node_id: str) -> None:
        await self.up.pop(node_id).close()

    async def start_twin(self, node_id: str) -> Discovery:
        place = f"{node_id}-twin"
        made = self.make(place, description_of(node_id, place))
        self.up[place] = made
        await made.start()
        self.came_up(place)
        return made

    def cut_off(self, node_id: str) -> None:
        self.cut.add(node_id)

    def reconnect(self, node_id: str) -> None:
        self.cut.discard(node_id)
        self.came_up(node_id)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = self.loop.time() + 60.0
        while not condition():
            assert self.loop.time() < deadline, f"it never happened: {what}"
            await pass_time(0.01)

    async def elapse(self, seconds: float) -> None:
        await pass_time(seconds)

    async def close(self) -> None:
        for each in self.up.values():
            await each.close()


class StaticWorld(VirtualWorld):
    """Three nodes that all name each other."""

    powers = Powers(
        sees_joins=False,
        hears_others=False,
        sees_failures=False,
        sees_leaving=False,
        forgets=False,
        forgets_everywhere=False,
        ages=False,
        fails_alone=False,
        sees_conflicts=False,
    )

    def make(self, place: str, own: Description) -> Discovery:
        peers = {node_id: description_of(node_id).peer_address for node_id in NODE_IDS}
        return StaticDiscovery(own, peers, clock=self.clock, run=self.clock.wall_ms())


class DnsWorld(VirtualWorld):
    """A name that stands for the machines that are up, and nodes that answer there."""

    powers = Powers(sees_leaving=False, forgets_everywhere=False, fails_alone=False)

    def make(self, place: str, own: Description) -> Discovery:
        async def resolve(_name: str) -> Sequence[str]:
            await pass_time(0.001)
            if place in self.cut:
                raise OSError("the name server does not answer")
            return list(self.up)

        return DnsDiscovery(
            own,
            "distlog.example",
            8400,
            resolve=resolve,
            ask=self._ask,
            clock=self.clock,
            random=Random(self.random.getrandbits(64)),
            run=self.clock.wall_ms(),
        )

    async def _ask(self, address: tuple[str, int], known_as: str = "") -> tuple[Description, int]:
        await pass_time(0.001)
        place, _port = address
        if place not in self.up:
            raise ConnectionRefusedError(f"{place} is down")
        node_id = place.removesuffix("-twin")
        own = self.up[place].members()[node_id]
        return own.description, own.run


class GossipWorld(VirtualWorld):
    """Nodes that are all connected with each other, by a network that may lose, repeat and delay messages."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.loss = 0.0
        self.repetition = 0.0
        self.delay_max_s = 0.002
        self.size_sent = 0

    def make(self, place: str, own: Description) -> Discovery:
        return GossipDiscovery(
            own,
            connected=lambda: self._connected(place),
            send=lambda to, payload, is_urgent: self._send(place, to, payload, is_urgent),
            clock=self.clock,
            random=Random(self.random.getrandbits(64)),
            run=self.clock.wall_ms(),
        )

    def came_up(self, place: str) -> None:
        for other in self._connected(place):
            self._gossip(place).peer_connected(other)
            self._gossip(other).peer_connected(place)

    def _gossip(self, place: str) -> GossipDiscovery:
        found = self.up[place]
        assert isinstance(found, GossipDiscovery)
        return found

    def _connected(self, place: str) -> list[str]:
        if place in self.cut:
            return []
        # Two nodes with one id refuse each other.
        node_id = place.removesuffix("-twin")
        return [
            other
            for other in self.up
            if other not in self.cut and other.removesuffix("-twin") != node_id
        ]

    def _send(self, source: str, destination: str, payload: bytes, is_urgent: bool) -> None:
        self.size_sent += len(payload)
        if self.random.random() < self.loss:
            return
        for _ in range(2 if self.random.random() < self.repetition else 1):
            delay_s = self.random.uniform(0.0001, self.delay_max_s)
            # What is in no hurry waits for company.
            delay_s += 0.0 if is_urgent else self.random.uniform(0.0, 1.5)
            self.loop.call_later(delay_s, self._arrive, source, destination, payload)

    def _arrive(self, source: str, destination: str, payload: bytes) -> None:
        if destination not in self.up or {source, destination} & self.cut:
            return
        try:
            self._gossip(destination).frame_received(source, payload)
        except MalformedRows as error:
            raise PeerRefused(peer=source, problem=str(error)) from None


def moved(description: Description, place: str) -> Description:
    """Return the description of the same node at another address."""
    return replace(description, peer_address=f"{place}:8401", client_address=f"{place}:8400")
