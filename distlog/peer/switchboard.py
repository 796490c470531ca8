"""The switchboard: takes every connection of a node through its handshake and keeps one per peer.

Bytes are the business of `Connection`, the choice between two connections that of `Pairing`.  Here they meet policy and
time: who is welcome, which deadline has passed, what is logged and counted, when to dial again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from distlog.errors import PeerRefused
from distlog.peer.complaints import STRANGER, Complaints
from distlog.peer.connection import Event, HandshakeFinished, Phase, VersionDiffers, Violated
from distlog.peer.dialling import Backoff, Dialler
from distlog.peer.events import COUNTERS, PeerEvents
from distlog.peer.handshake import (
    Alive,
    Greeting,
    Hello,
    Refused,
    copied_problem,
    encode_message,
    identity_problem,
    version_problem,
)
from distlog.peer.limits import PeerLimits
from distlog.peer.pairing import Pairing
from distlog.peer.stream import Stream
from distlog.runtime import Clock, Network

logger = logging.getLogger("distlog.peer")

# A connection that lived shorter than this counts as a failed dial: a peer that accepts and hangs up is not hammered.
LIFE_MIN_S = 1.0
# Beats per silence_max_s: the far end is given up after this many in a row without a byte.
BEAT_COUNT = 4
# Processes of a peer that are remembered when another one has followed.
PAST_COUNT = 16
ALIVE = encode_message(Alive())


@dataclass(slots=True, eq=False)
class Peer:
    """What is known of one other node."""

    node_id: str
    pairing: Pairing[Stream]
    backoff: Backoff
    # None for a node that may connect but has no address to dial.
    dialler: Dialler | None = None
    # What it said when it was last approved.
    hello: Hello | None = None
    # The process that it was connected as last, and those before: a process ends before another one begins on its directory.
    incarnation: int | None = None
    past: deque[int] = field(default_factory=lambda: deque(maxlen=PAST_COUNT))


class Switchboard:
    """Decides what happens to the streams of one node."""

    def __init__(
        self,
        *,
        network: Network,
        clock: Clock,
        random: Random,
        identity: Callable[[], Hello],
        addresses: dict[str, tuple[str, int]],
        events: PeerEvents,
        is_expected: Callable[[Hello], PeerRefused | None],
        limits: PeerLimits,
        passing: tuple[str, ...],
    ) -> None:
        self._network = network
        self._random = random
        self._identity = identity
        self._addresses = addresses
        self._events = events
        self._is_expected = is_expected
        self._limits = limits
        self._complaints = Complaints(clock, passing)
        # Set by `start`: an owner that is still being made cannot say who it is.
        self._own_id = ""
        # Tells the greetings of this process from those of an earlier one on the same data directory.
        self._incarnation = random.getrandbits(63)
        # Number of the last greeting.
        self._attempt = 0
        # Counts the restarts; a stream that greeted under an older generation must greet again.
        self._generation = 0
        self._stopping = False
        # Every stream with a transport, in the order made.  Dicts, since the order of a set differs between runs.
        self.streams: dict[Stream, None] = {}
        # Streams that came in and whose greeting has not been approved.
        self._strangers: dict[Stream, None] = {}
        # The one stream per node that frames travel on.
        self.open: dict[str, Stream] = {}
        self.peers: dict[str, Peer] = {}
        self.stream_was_lost = asyncio.Event()
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)

    # --- what the network calls -----------------------------------------------------------------

    def start(self) -> None:
        """Ask who this node is, and dial every other."""
        self._own_id = self._identity().node_id
        for node_id in self._addresses:
            if node_id != self._own_id:
                self.dial(node_id)

    def incoming(self) -> Stream:
        """Return the protocol for a connection that comes in."""
        return Stream(self, self._events.frame_received, self._limits, None)

    def dial(self, node_id: str) -> None:
        """Connect to a peer without delay, unless that is under way."""
        peer = self._peer(node_id)
        if peer.dialler is not None:
            peer.dialler.dial_now()

    def locate(self, node_id: str, address: tuple[str, int]) -> None:
        """Dial a peer at this address from now on, in place of any other; its connection, if there is one, stays."""
        if self._addresses.get(node_id) == address:
            return
        self._addresses[node_id] = address
        if not self._own_id or node_id == self._own_id or self._stopping:
            return
        peer = self._peer(node_id)
        self._set_dialler(peer)
        self.dial(node_id)

    def forget(self, node_id: str) -> None:
        """Dial a peer no more."""
        self._addresses.pop(node_id, None)
        peer = self.peers.get(node_id)
        if peer is not None and peer.dialler is not None:
            peer.dialler.abandon()
            peer.dialler = None

    def greet_again(self, node_id: str) -> None:
        """Drop what is not open of the connections with a peer, and dial it: it shall hear what `identity` says now."""
        peer = self.peers.get(node_id)
        if peer is None or self._stopping or node_id in self.open:
            return
        for stream in list(self.streams):
            if node_id in (stream.node_id, stream.dialled_id):
                stream.settled = True
                self.drop(stream)
        peer.backoff.succeeded()
        self.dial(node_id)

    def restart_strangers(self) -> None:
        """Greet again every peer that is not connected."""
        for node_id in list(self.peers):
            self.greet_again(node_id)

    def outdate(self) -> None:
        """Mark every greeting so far as outdated; `restart` acts on it."""
        self._generation += 1

    def restart(self) -> None:
        """Drop the streams that greeted before the last `outdate`, and dial every peer that is left without."""
        if self._stopping:
            return
        for stream in list(self.streams):
            if stream.own is not None and stream.generation < self._generation:
                stream.settled = True
                self.drop(stream)
        for peer in list(self.peers.values()):
            peer.backoff.succeeded()
            self.dial(peer.node_id)

    def beat(self) -> None:
        """Keep quiet connections from looking dead, and give up those that do.  Call BEAT_COUNT times per silence_max_s."""
        for stream in list(self.streams):
            if stream.finished_at is None:
                continue
            # Beats and not time: a process that was stopped for a while finds what its peers sent waiting for it.
            stream.silent_beat_count = 0 if stream.heard else stream.silent_beat_count + 1
            if stream.silent_beat_count >= BEAT_COUNT:
                self.counters["connections_silent"] += 1
                self._complain(
                    logging.WARNING,
                    "peer silent: see whether its machine and the network are well",
                    stream,
                    "connection given up",
                )
                self.drop(stream)
            elif stream.has_queued:
                # What is in no hurry is a sign of life as well.
                stream.flush()
            elif not stream.spoke and stream.waiting_size == 0:
                stream.write(ALIVE)
            stream.heard = stream.spoke = False

    def drop(self, stream: Stream) -> None:
        """Close a stream at once."""
        self._retire(stream)
        stream.drop()

    def refuse(self, node_id: str, problem: str) -> None:
        """Read nothing more from a connected peer, tell it why, and hang up in the next step of the loop."""
        stream = self.open.get(node_id)
        if stream is not None and stream.connection.phase is Phase.OPEN:
            self._tell_refusal(stream, problem, node_id)
            # Not here and now: the owner may be in the middle of an event, and learns of the end by another.
            asyncio.get_running_loop().call_soon(self._hang_up, stream)

    def abandon(self) -> None:
        """Close everything at once and tell nobody: neither the peers nor the owner."""
        self._stopping = True
        self.open.clear()
        for stream in list(self.streams):
            stream.drop()
        for peer in self.peers.values():
            if peer.dialler is not None:
                peer.dialler.abandon()

    async def stop(self) -> None:
        """Dial no more, and close every stream once it has sent what is queued; `stream_was_lost` tells of each."""
        self._stopping = True
        for stream in list(self.streams):
            stream.settled = True
            stream.finish()
            self._retire(stream)
        for peer in self.peers.values():
            if peer.dialler is not None:
                await peer.dialler.close()

    # --- what a stream calls --------------------------------------------------------------------

    def stream_made(self, stream: Stream) -> None:
        """Greet if this end dialled, and give the far end until the deadline."""
        self.streams[stream] = None
        if self._stopping:
            stream.drop()
            return
        self._set_deadline(stream)
        if stream.dialled_id is None:
            self._strangers[stream] = None
            if len(self._strangers) > self._limits.unidentified_count_max:
                # The oldest: who holds connections open must not keep out a peer, which is done with its greeting at once.
                self.counters["strangers_evicted"] += 1
                self.drop(next(iter(self._strangers)))
            if stream in self._strangers:
                problem = self._network.objection(stream.transport, None)
                if problem is not None:
                    self._refuse(stream, problem, "no node")
            return
        pairing = self._peer(stream.dialled_id).pairing
        if pairing.may_dial:
            stream.write(self._greet(stream))
            pairing.dial(stream)
        else:
            self._supersede(stream)

    def stream_event(self, stream: Stream, event: Event) -> None:
        """Do what an event of the handshake asks for."""
        if isinstance(event, Greeting):
            self._greeted(stream, event)
        elif isinstance(event, HandshakeFinished):
            self._handshake_finished(stream)
        elif isinstance(event, VersionDiffers):
            problem = version_problem(event.protocol_version, self._identity())
            self._refuse(stream, problem, "a node of another version")
        elif isinstance(event, Refused):
            self.counters["refused_by_peer"] += 1
            self._settle_as_refused(stream)
            self._complain(logging.ERROR, "this node was refused by a peer", stream, event.problem)
            self.drop(stream)
        elif isinstance(event, Violated):
            self.counters["protocol_violations"] += 1
            self._complain(
                logging.WARNING,
                "peer broke the protocol: see who is at that address",
                stream,
                event.problem,
            )
            self.drop(stream)

    def stream_lost(self, stream: Stream, problem: str) -> None:
        """Forget the stream, and dial again if nothing is left to this peer."""
        self._retire(stream)
        del self.streams[stream]
        self.stream_was_lost.set()
        self._cancel_deadline(stream)
        peer = self._peer_of(stream)
        if peer is None:
            return
        if not stream.settled:
            self._settle(stream, peer, problem)
        if peer.dialler is not None:
            peer.dialler.dial_later()

    # --- the handshake --------------------------------------------------------------------------

    def _greet(self, stream: Stream) -> bytes:
        self._attempt += 1
        stream.generation = self._generation
        return stream.connection.greet(Greeting(self._incarnation, self._attempt, self._identity()))

    def _greeted(self, stream: Stream, greeting: Greeting) -> None:
        """Refuse, drop or accept the far end, which has just said who it is."""
        hello = greeting.hello
        problem = self._objection(stream, hello)
        if problem is None:
            known = self.peers.get(hello.node_id)
            if stream.own is None and known is not None and known.pairing.is_stale(greeting):
                self._supersede(stream)
                return
            if known is not None and greeting.incarnation in known.past:
                self._refuse(stream, copied_problem(hello), hello.node_id)
                return
            self._events.hello_received(hello)
            # Again: the event may have formed the cluster, and this node then knows better who belongs to it.
            problem = self._objection(stream, hello)
        if stream.connection.phase is not Phase.DECIDING:
            return  # The owner has abandoned the network within its event.
        if problem is not None:
            self._refuse(stream, problem, hello.node_id)
            return
        peer = self._peer(hello.node_id)
        peer.hello = hello
        stream.node_id = hello.node_id
        self._strangers.pop(stream, None)
        if stream.own is None:
            stream.write(self._greet(stream))
            losers = peer.pairing.answer(stream)
        else:
            losers = peer.pairing.answered(stream)
        for loser in losers:
            self._supersede(loser)
        if stream.connection.phase is Phase.DECIDING:
            stream.write(stream.connection.accept())

    def _objection(self, stream: Stream, hello: Hello) -> str | None:
        """Say why the far end is not welcome, None if it is."""
        own = stream.own.hello if stream.own else self._identity()
        problem = identity_problem(hello, own, stream.dialled_id)
        if problem is None:
            problem = self._network.objection(stream.transport, hello.node_id)
        if problem is None:
            refusal = self._is_expected(hello)
            problem = refusal.problem if refusal else None
        return problem

    def _refuse(self, stream: Stream, problem: str, claimed_id: str) -> None:
        """Tell the far end why it is not welcome, and close."""
        self._tell_refusal(stream, problem, claimed_id)
        self._hang_up(stream)

    def _tell_refusal(self, stream: Stream, problem: str, claimed_id: str) -> None:
        self.counters["peers_refused"] += 1
        self._settle_as_refused(stream)
        self._complain(logging.WARNING, "peer refused", stream, f"{claimed_id}: {problem}")
        stream.write(stream.connection.refuse(problem))

    def _hang_up(self, stream: Stream) -> None:
        """Close when everything queued has been sent, but do not wait for a far end that does not read."""
        if stream in self.streams:
            self._retire(stream)
            self._set_deadline(stream)
            stream.finish()

    def _handshake_finished(self, stream: Stream) -> None:
        for loser in self.peers[stream.node_id].pairing.opened(stream):
            self._supersede(loser)
        self._note_process(stream)
        self._cancel_deadline(stream)
        stream.finished_at = asyncio.get_running_loop().time()
        self._complaints.forget(stream.node_id)
        if stream.connection.phase is Phase.OPEN:
            self.counters["connections_opened"] += 1
            logger.info("peer connected peer=%s address=%s", stream.node_id, stream.address)
            self.open[stream.node_id] = stream
            stream.was_open = True
            self._events.peer_connected(stream.node_id)

    def _note_process(self, stream: Stream) -> None:
        """Remember which process this is: it has answered, so it lives now."""
        peer, greeting = self.peers[stream.node_id], stream.connection.peer
        assert greeting is not None, "an open connection has been greeted on"
        if peer.incarnation not in (None, greeting.incarnation):
            peer.past.append(peer.incarnation)
        peer.incarnation = greeting.incarnation

    def _set_deadline(self, stream: Stream) -> None:
        self._cancel_deadline(stream)
        stream.deadline = asyncio.get_running_loop().call_later(
            self._limits.handshake_deadline_s, self._handshake_expired, stream
        )

    def _cancel_deadline(self, stream: Stream) -> None:
        if stream.deadline is not None:
            stream.deadline.cancel()

    def _handshake_expired(self, stream: Stream) -> None:
        self.counters["handshakes_expired"] += 1
        self._complain(
            logging.WARNING,
            "peer handshake not finished in time: see who is at that address",
            stream,
            "given up",
        )
        self.drop(stream)

    # --- the end of a stream --------------------------------------------------------------------

    def _supersede(self, stream: Stream) -> None:
        self.counters["connections_superseded"] += 1
        stream.settled = True
        self.drop(stream)

    def _retire(self, stream: Stream) -> None:
        """Make sure that nothing is delivered from this stream any more, and say so if it was open."""
        stream.connection.close()
        self._strangers.pop(stream, None)
        peer = self._peer_of(stream)
        if peer is None:
            return
        peer.pairing.forget(stream)
        if self.open.get(peer.node_id) is stream:
            del self.open[peer.node_id]
            self._events.peer_disconnected(peer.node_id)

    def _settle_as_refused(self, stream: Stream) -> None:
        stream.settled = True
        peer = self._peer_of(stream)
        if peer is not None:
            peer.backoff.refused()

    def _settle(self, stream: Stream, peer: Peer, problem: str) -> None:
        """Let the end of a stream that nobody here ended on purpose decide about the next dial."""
        if stream.finished_at is not None:
            lived = asyncio.get_running_loop().time() - stream.finished_at >= LIFE_MIN_S
            if stream.was_open:
                # Nodes that only make each other's acquaintance hang up to greet again.
                self._complain(logging.INFO, "peer connection lost", stream, problem)
            peer.backoff.succeeded() if lived else peer.backoff.failed()
        elif stream.dialled_id is not None:
            self._complain(logging.INFO, "peer hung up before it said who it is", stream, problem)
            peer.backoff.failed()

    # --- peers ----------------------------------------------------------------------------------

    def _peer_of(self, stream: Stream) -> Peer | None:
        return self.peers.get(stream.node_id or stream.dialled_id or STRANGER)

    def _peer(self, node_id: str) -> Peer:
        if node_id in self.peers:
            return self.peers[node_id]
        pairing: Pairing[Stream] = Pairing(self._own_id, node_id)
        peer = self.peers[node_id] = Peer(node_id, pairing, Backoff(self._limits, self._random))
        if node_id in self._addresses:
            self._set_dialler(peer)
        return peer

    def _set_dialler(self, peer: Peer) -> None:
        node_id, pairing = peer.node_id, peer.pairing
        if peer.dialler is not None:
            peer.dialler.abandon()
        peer.dialler = Dialler(
            network=self._network,
            address=self._addresses[node_id],
            protocol_factory=lambda: Stream(
                self, self._events.frame_received, self._limits, node_id
            ),
            is_wanted=lambda: pairing.may_dial,
            on_failure=lambda problem: self._dial_failed(node_id, problem),
            backoff=peer.backoff,
            deadline_s=self._limits.handshake_deadline_s,
        )

    def _dial_failed(self, node_id: str, problem: str) -> None:
        self.counters["dials_failed"] += 1
        self._complaints.log(
            logging.WARNING,
            "peer not reached: see that it runs, and that the network lets this node through",
            node_id,
            problem,
        )

    def _complain(self, level: int, event: str, stream: Stream, problem: str) -> None:
        peer = self._peer_of(stream)
        name = peer.node_id if peer else STRANGER
        self._complaints.log(level, event, name, f"{stream.address}: {problem}")
