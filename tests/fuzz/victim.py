"""A running node in a test's hand, and the ends of its connections: one hostile, one that keeps the protocol.

The node is the product's own, on virtual time; its connections have no network between, so that a frame is looked at at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from distlog.consensus import messages
from distlog.consensus.group import GroupSettings
from distlog.consensus.library import RaftSettings
from distlog.consensus.messages import (
    AppendEntries,
    AppendReply,
    LeadershipQuery,
    LeadershipReply,
    Message,
    PreVoteReply,
    PreVoteRequest,
    VoteReply,
    VoteRequest,
)
from distlog.discovery.backend import Backend
from distlog.node import Node
from distlog.node_settings import DiscoverySettings, NodePorts, NodeSettings
from distlog.peer.frames import Channel, FrameDecoder, encode_frame
from distlog.peer.handshake import Accepted, Greeting, Hello, encode_message
from distlog.peer.limits import PeerLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.nodes import NAMES, PEER_PORT
from tests.fuzz.recording import Recording
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop
from tests.tracing.fake_spans import FakeTracer

VICTIM, HOSTILE, HONEST = NAMES
RESERVE_SIZE = 256 << 10


class PromptWorker:
    """A worker whose jobs are done in the next step of the loop."""

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            if not future.cancelled():
                try:
                    future.set_result(function(*args))
                except Exception as error:
                    future.set_exception(error)

        loop.call_soon(run)
        return future

    def sync(self, file: Any) -> asyncio.Future[Any]:
        return self.submit(file.sync)

    def close(self) -> None:
        return


class Switchboard:
    """A Network with nobody else on it: connections come in when the test makes them."""

    def __init__(self) -> None:
        self.factory: Callable[[], asyncio.Protocol]

    async def listen(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> Any:
        self.factory = factory
        return asyncio.Server(asyncio.get_running_loop(), [], factory, None, 0, None)  # type: ignore[call-arg]

    def objection(self, transport: asyncio.BaseTransport, node_id: str | None) -> str | None:
        return None

    async def connect(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        raise ConnectionRefusedError(111, "nobody listens there")


class Wire(asyncio.Transport):
    """The far end of one connection to the victim."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.written = bytearray()
        self.is_closed = False
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Have bytes arrive at the victim, unless it has hung up."""
        if not self.is_closed:
            self._protocol.data_received(data)

    def lose(self) -> None:
        """Hang up on the victim."""
        self.close()

    # --- what the victim calls -----------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self.is_closed:
            self.written += data

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("hostile", 1) if name == "peername" else default


@dataclass(frozen=True)
class State:
    """What must not change for nothing."""

    sequence: int
    term: int
    vote: str | None
    last_index: int
    last_applied: int
    last_applied_payload: bytes
    high_watermarks: tuple[tuple[str, int, int], ...]


class Victim:
    """A node on a copy of the disk that the recorded cluster left to n1."""

    def __init__(self, loop: VirtualLoop, recording: Recording, seed: int) -> None:
        self.loop = loop
        self.recording = recording
        self._board = Switchboard()
        self._attempt = 0
        self._honest: Wire | None = None
        self._honest_decoder = FrameDecoder(PeerLimits().payload_size_max())
        self.disk: SimulatedDisk = recording.disk.kill()
        settings = NodeSettings(
            node_id=VICTIM,
            data_dir="data",
            peer_listen=(VICTIM, PEER_PORT),
            peers={name: (name, PEER_PORT) for name in NAMES},
            discovery=DiscoverySettings(Backend.GOSSIP),
            reserve_size=RESERVE_SIZE,
            group=GroupSettings(
                raft=RaftSettings(in_flight_size_max=256 << 10, entry_size_max=1 << 20),
                checkpoint_interval_s=1e6,
            ),
        )
        ports = NodePorts(
            disk=self.disk,
            clock=VirtualClock(loop),
            random=Random(seed),
            network=self._board,
            make_worker=lambda _name: PromptWorker(),
            tracer=FakeTracer(),
        )
        self.node = Node(settings, ports)

    async def start(self, *, leads: bool) -> None:
        await self.node.start("n1:8400")
        if leads:
            self._honest = self.connected(HONEST)
            raft = self.group.raft
            while not raft.is_ready_leader:
                await self.loop.pass_time(0.01)
                self.answer()

    @property
    def group(self) -> Any:
        return self.node.group

    @property
    def counters(self) -> Any:
        return self.node.peers.counters

    @property
    def closures(self) -> int:
        """How many connections were closed for what came over them."""
        counters = self.counters
        return int(counters["protocol_violations"] + counters["peers_refused"])

    @property
    def term(self) -> int:
        return int(self.group.raft.term)

    @property
    def last_index(self) -> int:
        return int(self.group.journal.last_index)

    def term_at(self, raft_index: int) -> int | None:
        """Return the term of an entry that the victim has."""
        term: int | None = self.group.journal.term_at(raft_index)
        return term

    def abandon(self) -> None:
        self.node.abandon()

    def state(self) -> State:
        """Return what a peer could want to change."""
        group = self.group
        journal, applied = group.journal, group.raft.last_applied
        return State(
            sequence=journal.sequence,
            term=journal.term,
            vote=journal.vote,
            last_index=journal.last_index,
            last_applied=applied,
            last_applied_payload=journal.entry(applied).payload,
            high_watermarks=tuple(
                (topic.name, topic.start_offset, topic.high_watermark)
                for topic in self.node.replicated_log.topics()
            ),
        )

    # --- connections -----------------------------------------------------------------------------

    def wire(self) -> Wire:
        """Return a connection on which nothing was said yet."""
        return Wire(self._board.factory())

    def greeting(self, name: str, **changes: Any) -> bytes:
        """Return how a node that dials the victim begins."""
        self._attempt += 1
        hello: Hello = self.recording.hellos[name]
        # It lies well: what it claims to have is never too little.
        plausible = {"durable_index": 1 << 40, **changes}
        fields = {each: getattr(hello, each) for each in hello.__struct_fields__} | plausible
        # Each time as a process that has just begun: one that another one has followed is refused.
        incarnation = (1 << 40) + self._attempt
        return encode_message(Greeting(incarnation, self._attempt, Hello(**fields)))

    def takes(self, name: str) -> bool:
        """Tell whether that node is still the member that it says it is."""
        directory_id = self.recording.hellos[name].directory_id
        return bool(self.group.configuration.directory_of(name) == directory_id)

    def connected(self, name: str) -> Wire:
        """Return a connection on which that node has been accepted."""
        wire = self.wire()
        wire.feed(self.greeting(name) + encode_message(Accepted()))
        assert not wire.is_closed
        return wire

    async def settle(self) -> None:
        """Let the victim do what it does at once: a step, its fsync, and what follows."""
        for _ in range(6):
            self.answer()
            await asyncio.sleep(0)

    def answer(self) -> None:
        """Have the honest peer answer what it was sent, as a follower that has everything."""
        wire = self._honest
        if wire is None or not wire.written:
            return
        self._honest_decoder.receive_data(bytes(wire.written))
        wire.written.clear()
        while (frame := self._honest_decoder.next_frame()) is not None:
            if frame.channel == Channel.RAFT:
                reply = honest_reply(messages.decode(frame.payload, VICTIM))
                if reply is not None:
                    wire.feed(framed(reply))


def framed(message: Message) -> bytes:
    """Return the frame of a consensus message."""
    return encode_frame(Channel.RAFT, 0, messages.encode(message))


def honest_reply(message: Message) -> Message | None:
    term = message.sender_term
    match message:
        case AppendEntries():
            end = message.previous_index + len(message.entries) + 1
            return AppendReply(term, message.number, end, success=True, reset=False)
        case VoteRequest():
            return VoteReply(term)
        case PreVoteRequest():
            return PreVoteReply(term, message.number)
        case LeadershipQuery():
            return LeadershipReply(term, message.number)
    return None
