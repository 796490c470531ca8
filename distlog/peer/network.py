"""PeerNetwork: the connections of one node to all its peers, and the frames that they carry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from distlog.errors import AddressUnavailable, PeerRefused
from distlog.peer.events import PeerEvents
from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.peer.limits import PeerLimits
from distlog.peer.stream import Stream
from distlog.peer.switchboard import BEAT_COUNT, Switchboard
from distlog.runtime import Clock, Network

DEFAULT_LIMITS = PeerLimits()


class PeerNetwork:
    """Connects a node with its peers, one live connection each.  Everything happens on the loop of `start`."""

    def __init__(
        self,
        *,
        network: Network,
        clock: Clock,
        random: Random,
        identity: Callable[[], Hello],
        listen_host: str,
        listen_port: int,
        peers: Mapping[str, tuple[str, int]],
        events: PeerEvents,
        is_expected: Callable[[Hello], PeerRefused | None],
        limits: PeerLimits = DEFAULT_LIMITS,
        passing: tuple[str, ...] = (),
    ) -> None:
        """Prepare; `start` begins.

        passing: how refusals end that pass by themselves as a rule: they get a line in the log when they last.

        `identity` is asked for every greeting.  `peers` says where to dial whom; this node itself may be among them.
        `is_expected` says why a node is not welcome; it is asked before `hello_received`, and again after it.
        """
        self._network = network
        self._listen_address = (listen_host, listen_port)
        self._limits = limits
        self._switchboard = Switchboard(
            network=network,
            clock=clock,
            random=random,
            identity=identity,
            addresses=dict(peers),
            events=events,
            is_expected=is_expected,
            limits=limits,
            passing=passing,
        )
        # The table of the switchboard itself: one look-up per frame sent.
        self._open = self._switchboard.open
        # Streams that frames were queued on since the last flush; a flush is scheduled if there are any.
        self._unflushed: list[Stream] = []
        self._server: asyncio.AbstractServer | None = None
        self._beat_timer: asyncio.TimerHandle | None = None

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, and dial every peer.  Raises AddressUnavailable."""
        self._loop = asyncio.get_running_loop()
        host, port = self._listen_address
        try:
            self._server = await self._network.listen(self._switchboard.incoming, host, port)
        except OSError as error:
            problem = error.strerror or str(error)
            raise AddressUnavailable(f"{host}:{port}", problem, "--peer-listen") from None
        self._switchboard.start()
        self._schedule_beat()

    async def stop(self) -> None:
        """Send what is queued and close everything, within twice `stop_deadline_s`.  Every peer gets disconnected."""
        if self._server is not None:
            self._server.close()
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        await self._switchboard.stop()
        await self._wait_for_streams()
        for stream in list(self._switchboard.streams):
            stream.drop()
        await self._wait_for_streams()

    def abandon(self) -> None:
        """Stop at once, as a crash does: nothing more is sent, and no event comes any more."""
        if self._server is not None:
            self._server.close()
        if self._beat_timer is not None:
            self._beat_timer.cancel()
        self._switchboard.abandon()

    async def _wait_for_streams(self) -> None:
        """Wait until every transport is closed, or for `stop_deadline_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.stop_deadline_s):
                while self._switchboard.streams:
                    self._switchboard.stream_was_lost.clear()
                    await self._switchboard.stream_was_lost.wait()

    def _schedule_beat(self) -> None:
        interval_s = self._limits.silence_max_s / BEAT_COUNT
        self._beat_timer = self._loop.call_later(interval_s, self._beat)

    def _beat(self) -> None:
        self._schedule_beat()
        self._switchboard.beat()

    # --- what there is --------------------------------------------------------------------------

    @property
    def listening_port(self) -> int:
        """The port that peers reach this node at, also when it was asked to listen on port 0."""
        assert self._server is not None, "start() first"
        sockets: Sequence[Any] = getattr(self._server, "sockets", ())
        return int(sockets[0].getsockname()[1])

    @property
    def connected_ids(self) -> tuple[str, ...]:
        """The nodes that frames can be sent to now."""
        return tuple(self._open)

    @property
    def counters(self) -> Mapping[str, int]:
        """What has happened since the start, by name: connections, refusals, frames, bytes."""
        return self._switchboard.counters

    def hello_of(self, node_id: str) -> Hello | None:
        """Return what the node last said of itself; None if it never was approved by this process."""
        peer = self._switchboard.peers.get(node_id)
        return peer.hello if peer else None

    def directory_of(self, node_id: str) -> str:
        """Return the directory id of a node that frames can be sent to now, as it said on that connection."""
        greeting = self._open[node_id].connection.peer
        assert greeting is not None, "an open connection has been greeted on"
        return greeting.hello.directory_id

    def waiting_size(self, node_id: str) -> int:
        """Return the bytes queued for a node that the operating system has not taken yet; 0 if it is not connected."""
        stream = self._open.get(node_id)
        return stream.waiting_size if stream else 0

    # --- what it does ---------------------------------------------------------------------------

    def send(self, node_id: str, channel: Channel, group: int, *payload: bytes) -> bool:
        """Queue one frame; it leaves at the end of this step of the loop, or at `flush`.

        A payload in several parts is joined nowhere: several nodes may be sent the same large part.
        Returns False, and sends nothing, if the node is not connected or too much waits for it.  True promises nothing:
        the connection may break.  Never calls back.
        """
        stream = self._open.get(node_id)
        if stream is None:
            return False
        counters = self._switchboard.counters
        if not self._queue(stream, channel, group, *payload):
            counters["frames_turned_away"] += 1
            return False
        counters["frames_sent"] += 1
        if not self._unflushed:
            self._loop.call_soon(self.flush)
        self._unflushed.append(stream)
        return True

    def send_later(self, node_id: str, channel: Channel, group: int, *payload: bytes) -> bool:
        """Queue one frame, which leaves with what is sent next to this node, at the latest after a quarter of `silence_max_s`.

        For what is not urgent: two nodes that talk anyway are not woken for it.  Returns as `send`.
        """
        stream = self._open.get(node_id)
        if stream is None or not stream.queue(channel, group, *payload):
            return False
        self._switchboard.counters["frames_sent"] += 1
        return True

    def _queue(self, stream: Stream, channel: Channel, group: int, *payload: bytes) -> bool:
        if stream.queue(channel, group, *payload):
            return True
        if not stream.has_queued or stream in self._unflushed:
            return False
        # Only what waits for company is there, and must not be in the way.
        stream.flush()
        return stream.queue(channel, group, *payload)

    def flush(self) -> None:
        """Write now what was queued: spares a step of the loop if nothing more is to be sent in this one."""
        streams, self._unflushed = self._unflushed, []
        for stream in streams:
            if stream.has_queued:
                stream.flush()

    def refuse(self, node_id: str, error: PeerRefused) -> None:
        """Hang up on a connected peer that sent what it must not, and tell it why.

        May be called from any event.  Nothing more comes from the peer; `peer_disconnected` does, in the next step of the
        loop.  It may connect again, a second later.
        """
        self._switchboard.refuse(node_id, error.problem)

    def locate(self, node_id: str, address: tuple[str, int]) -> None:
        """Dial a node at this address from now on; a connection that there is stays."""
        self._switchboard.locate(node_id, address)

    def forget(self, node_id: str) -> None:
        """Dial a node no more."""
        self._switchboard.forget(node_id)

    def greet_again(self, node_id: str) -> None:
        """Have a node that is not connected hear what `identity` says now.

        May be called from any event.  Takes effect in the next step of the loop.
        """
        asyncio.get_running_loop().call_soon(self._switchboard.greet_again, node_id)

    def restart_strangers(self) -> None:
        """Make the connections that are not open shake hands again; takes effect in the next step of the loop."""
        asyncio.get_running_loop().call_soon(self._switchboard.restart_strangers)

    def restart_connections(self) -> None:
        """Make every connection shake hands again, with what `identity` says now.

        May be called from any event.  Takes effect in the next step of the loop; a connection that has not greeted yet
        stays, since it will greet with the new identity.
        """
        self._switchboard.outdate()
        asyncio.get_running_loop().call_soon(self._switchboard.restart)
