"""A network in memory: the twin of `runtime.TcpNetwork`, for virtual time.

    network = SimulatedNetwork(loop, random.Random(seed))
    await network.host("n1").listen(factory, "n1", 8401)
    await network.host("n2").connect(factory, "n1", 8401)

Every host has a name, which is also its address; rules are by (source, destination) host, each direction of a link by
itself.  A connection is FIFO and loses nothing but its end, as TCP does:

    set_delay            how long bytes travel, at random between two limits
    block / unblock      bytes and connection attempts wait, nothing breaks; `partition` and `heal` do it for many links
    pause / resume       the same for everything from and to one host
    refuse / allow       new connections are refused
    break_connections    what is on its way is cut at random, and each end finds out in its own time, or never
    kill                 the process on a host dies; its kernel closes the connections, and the peers see that
    host_down / host_up  a host loses its power: its peers see nothing until they write to it after it is back

What a transport cannot send because the far end does not read stays in its write buffer, as with a socket whose kernel
buffers (`window_size` here) are full.  Acknowledgements take no time and are never blocked.  For a seed, a run is the same
every time: each link draws from a generator of its own, so that traffic elsewhere does not change its delays.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Container, Iterable
from contextvars import Context
from itertools import permutations
from typing import NoReturn

from tests.simulation.simulated_transport import Kind, Pipe, SimulatedTransport

EPHEMERAL_PORT_START = 49_152
OWN_NAMES = ("", "localhost", "127.0.0.1", "0.0.0.0", "::1", "::")

Address = tuple[str, int]
ProtocolFactory = Callable[[], asyncio.Protocol]


class SimulatedLink:
    """One direction between two hosts."""

    def __init__(self, network: SimulatedNetwork, source: str, destination: str) -> None:
        self._network = network
        self.source = source
        self.destination = destination
        self.delay_s = network.delay_s
        self.is_blocked = False
        self.refuses = False
        self._random = random.Random(f"{network.seed}/{source}/{destination}")

    def next_delay_s(self) -> float:
        return self._random.uniform(*self.delay_s)

    def next_piece_size(self, size: int) -> int:
        """Return how many of `size` bytes travel together."""
        limit = self._network.piece_size_max
        return size if limit is None else min(size, self._random.randint(1, limit))

    def is_held(self) -> bool:
        network = self._network
        return (
            self.is_blocked
            or self.destination in network.down_hosts
            or self.source in network.paused_hosts
            or self.destination in network.paused_hosts
        )


class SimulatedConnection:
    """Both directions and both ends of one connection; an end is None until its host knows of the connection."""

    def __init__(
        self,
        network: SimulatedNetwork,
        source: str,
        destination: Address,
        protocol_factory: ProtocolFactory,
    ) -> None:
        self._network = network
        self._protocol_factory = protocol_factory
        self._addresses = ((source, network.free_port()), destination)
        self.hosts = (source, destination[0])
        self.links = (network.link(*self.hosts), network.link(*reversed(self.hosts)))
        self.pipes = (
            Pipe(network.loop, self.links[0], self._arrived_at_server),
            Pipe(network.loop, self.links[1], self._arrived_at_client),
        )
        self.client: SimulatedTransport | None = None
        self.server: SimulatedTransport | None = None
        # Done when the client knows the outcome.
        self.outcome: asyncio.Future[None] = network.loop.create_future()
        self.pipes[0].put(Kind.OPEN)

    def ends_on(self, host: str) -> list[SimulatedTransport]:
        """Return the ends on that host."""
        ends = zip(self.hosts, (self.client, self.server), strict=True)
        return [end for name, end in ends if name == host and end is not None]

    def is_finished(self) -> bool:
        """Tell whether nothing can happen here any more."""
        ends = [end for end in (self.client, self.server) if end is not None]
        on_its_way = any(len(pipe) for pipe in self.pipes)
        return self.outcome.done() and not on_its_way and all(end.is_gone for end in ends)

    def _arrived_at_server(self, kind: Kind, data: bytes) -> None:
        if self.server is not None:
            self.server.receive(kind, data)
        elif kind is Kind.OPEN:
            factory = self._network.listeners.get(self._addresses[1])
            if factory is None or self.links[0].refuses:
                self.pipes[1].put(Kind.REFUSE)
                return
            self.pipes[1].put(Kind.ACCEPT)
            self.server = self._end(factory, own=1)
            self.server.connect()

    def _arrived_at_client(self, kind: Kind, data: bytes) -> None:
        if self.client is not None:
            self.client.receive(kind, data)
        elif self.outcome.done():
            # Who dialled has given up waiting.
            self.pipes[0].put(Kind.RESET)
        elif kind is Kind.ACCEPT:
            self.client = self._end(self._protocol_factory, own=0)
            self.client.connect()
            self.outcome.set_result(None)
        else:
            host, port = self._addresses[1]
            text = f"{host}:{port} refused the connection"
            self.outcome.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, text))

    def _end(self, factory: ProtocolFactory, own: int) -> SimulatedTransport:
        context = self._network.contexts.get(self.hosts[own])
        return SimulatedTransport(
            self._network.loop,
            incoming=self.pipes[1 - own],
            outgoing=self.pipes[own],
            protocol=factory() if context is None else context.run(factory),
            context=context,
            own_address=self._addresses[own],
            far_address=self._addresses[1 - own],
            window_size=self._network.window_size,
            next_piece_size=self.links[own].next_piece_size,
        )


class SimulatedNetwork:
    """All hosts, links and connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        random: random.Random,
        *,
        delay_s: tuple[float, float] = (0.0002, 0.001),
        window_size: int = 256 << 10,
        piece_size_max: int | None = None,
    ) -> None:
        """`piece_size_max` cuts what is sent into random pieces of at most that many bytes, as TCP may."""
        self.loop = loop
        self.seed = random.getrandbits(64)
        self.delay_s = delay_s
        self.window_size = window_size
        self.piece_size_max = piece_size_max
        self.listeners: dict[Address, ProtocolFactory] = {}
        # Of the process on each host that has one: what arrives there is its business.
        self.contexts: dict[str, Context] = {}
        # Membership is all that is asked of these sets: their order never shows.
        self.paused_hosts: set[str] = set()
        self.down_hosts: set[str] = set()
        self._random = random
        self._port = EPHEMERAL_PORT_START
        self._links: dict[tuple[str, str], SimulatedLink] = {}
        self._connections: dict[SimulatedConnection, None] = {}

    def host(self, name: str) -> SimulatedHost:
        """Return the network as the host of that name sees it."""
        return SimulatedHost(self, name)

    def link(self, source: str, destination: str) -> SimulatedLink:
        """Return one direction between two hosts."""
        key = (source, destination)
        if key not in self._links:
            self._links[key] = SimulatedLink(self, source, destination)
        return self._links[key]

    def free_port(self) -> int:
        """Return a port that nobody has."""
        self._port += 1
        return self._port

    # --- links ----------------------------------------------------------------------------------

    def set_delay(self, source: str, destination: str, shortest_s: float, longest_s: float) -> None:
        """Let bytes travel between these times in this direction; what is on its way keeps its time."""
        self.link(source, destination).delay_s = (shortest_s, longest_s)

    def block(self, source: str, destination: str) -> None:
        """Let nothing arrive in this direction until it is unblocked; what is sent meanwhile arrives then."""
        self.link(source, destination).is_blocked = True

    def unblock(self, source: str, destination: str) -> None:
        """Take back `block`."""
        self.link(source, destination).is_blocked = False
        self._release()

    def partition(self, *groups: Iterable[str]) -> None:
        """Block both directions between every two hosts of different groups."""
        for group, other in permutations([list(group) for group in groups], 2):
            for source in group:
                for destination in other:
                    self.block(source, destination)

    def heal(self) -> None:
        """Unblock every link."""
        for link in self._links.values():
            link.is_blocked = False
        self._release()

    def refuse(self, source: str, destination: str) -> None:
        """Refuse new connections in this direction."""
        self.link(source, destination).refuses = True

    def allow(self, source: str, destination: str) -> None:
        """Take back `refuse`."""
        self.link(source, destination).refuses = False

    # --- hosts ----------------------------------------------------------------------------------

    def pause(self, name: str) -> None:
        """Let nothing arrive from and at this host.  Its timers go on: the host is cut off, not stopped."""
        self.paused_hosts.add(name)

    def resume(self, name: str) -> None:
        """Take back `pause`."""
        self.paused_hosts.discard(name)
        self._release()

    def kill(self, name: str) -> None:
        """End the process on this host.  Its transports are dead: they call nothing and send nothing any more.

        What had been sent before still arrives, and behind it the end of each connection.  The tasks of the process are
        the caller's to cancel.
        """
        self._end_process(name, silently=False)

    def host_down(self, name: str) -> None:
        """End the process on this host by a loss of power: as `kill`, but its peers are told nothing.

        What had been sent before still arrives.  What is sent to this host waits until `host_up`.
        """
        self._end_process(name, silently=True)
        self.down_hosts.add(name)

    def host_up(self, name: str) -> None:
        """Give a host its power back, if it had none; who still writes to an old connection is told that it is gone."""
        self.down_hosts.discard(name)
        self._release()

    def _end_process(self, name: str, *, silently: bool) -> None:
        for address in [address for address in self.listeners if address[0] == name]:
            del self.listeners[address]
        for connection in list(self._connections):
            for end in connection.ends_on(name):
                end.die(silently=silently)
            if connection.client is None and connection.hosts[0] == name:
                connection.outcome.cancel()

    # --- connections ----------------------------------------------------------------------------

    def break_connections(
        self,
        first: str,
        second: str,
        *,
        noticed_by: Container[str] | None = None,
        notice_s: float = 0.2,
    ) -> None:
        """Break every connection between two hosts.

        A random part of what is on its way still arrives.  The hosts in `noticed_by` (both, if None) find out, each end
        at a random time within `notice_s`; the others never do.
        """
        for connection in list(self._connections):
            if set(connection.hosts) != {first, second}:
                continue
            for pipe in connection.pipes:
                pipe.break_after(self._random.randint(0, len(pipe)))
            for name in {first: None, second: None}:
                if noticed_by is not None and name not in noticed_by:
                    continue
                for end in connection.ends_on(name):
                    error = ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
                    self.loop.call_later(self._random.uniform(0.0, notice_s), end.lose, error)

    @property
    def connection_count(self) -> int:
        """Connections of which at least one end is still in use."""
        self._forget_finished()
        return len(self._connections)

    async def connect(self, source: str, destination: Address, factory: ProtocolFactory) -> None:
        """Open one connection."""
        self._forget_finished()
        connection = SimulatedConnection(self, source, destination, factory)
        self._connections[connection] = None
        await connection.outcome

    def _forget_finished(self) -> None:
        for connection in [c for c in self._connections if c.is_finished()]:
            del self._connections[connection]

    def _release(self) -> None:
        for connection in list(self._connections):
            for pipe in connection.pipes:
                pipe.release()


class SimulatedHost:
    """The `runtime.Network` of one host."""

    def __init__(self, network: SimulatedNetwork, name: str) -> None:
        self._network = network
        self.name = name

    async def listen(
        self, protocol_factory: ProtocolFactory, host: str, port: int
    ) -> asyncio.AbstractServer:
        """Accept connections.  `host` is this host's name or one that stands for it; port 0 picks a free one."""
        if host != self.name and host not in OWN_NAMES:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} is not an address of {self.name}")
        address = (self.name, port or self._network.free_port())
        if address in self._network.listeners:
            raise OSError(errno.EADDRINUSE, "address already in use")
        self._network.listeners[address] = protocol_factory
        return SimulatedServer(self._network, address)

    async def connect(self, protocol_factory: ProtocolFactory, host: str, port: int) -> None:
        """Open one connection.  Waits for as long as the link is stalled, so have a deadline."""
        name = self.name if host in OWN_NAMES else host
        await self._network.connect(self.name, (name, port), protocol_factory)

    def objection(self, transport: asyncio.BaseTransport, node_id: str | None) -> str | None:
        """Have none: whoever connects may be anybody."""


class SimulatedServer(asyncio.AbstractServer):
    """A listening address; closing it leaves its connections alone."""

    def __init__(self, network: SimulatedNetwork, address: Address) -> None:
        self._network = network
        self._address = address
        self._factory = network.listeners[address]

    @property
    def sockets(self) -> tuple[SimulatedSocket, ...]:
        return (SimulatedSocket(self._address),) if self.is_serving() else ()

    def is_serving(self) -> bool:
        return self._network.listeners.get(self._address) is self._factory

    def close(self) -> None:
        if self.is_serving():
            del self._network.listeners[self._address]

    async def wait_closed(self) -> None:
        """Return at once: there is nothing to wait for."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    async def start_serving(self) -> None:
        """Return at once: it serves since `listen`."""

    async def serve_forever(self) -> NoReturn:
        raise AssertionError("await what ends the simulation instead")


class SimulatedSocket:
    """What `server.sockets` holds: enough to learn the port."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address
