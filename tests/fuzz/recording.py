"""Frames of every kind, as the nodes of a real cluster sent them, and the disk that one of these nodes left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from distlog.catch_up.messages import (
    CheckpointPart,
    CheckpointRequest,
    Part,
    PartRequest,
    Reason,
    Refusal,
    Segments,
    SegmentsRequest,
)
from distlog.catch_up.messages import encode as encode_file
from distlog.consensus import messages
from distlog.consensus.configuration import Configuration, encode_configuration_entry
from distlog.consensus.messages import CheckpointNeeded, Message
from distlog.errors import DistlogError
from distlog.peer.frames import CONTROL, Channel, FrameDecoder, encode_frame
from distlog.peer.handshake import (
    PROTOCOL_VERSION,
    Greeting,
    Hello,
    Refused,
    decode_message,
    encode_message,
)
from distlog.peer.limits import PeerLimits
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.nodes import NodeCluster, on_virtual_time
from tests.simulation.simulated_network import SimulatedHost

KEPT_PER_KIND = 12
# What a copy consists of; of n1's own topic, and of one that there is not.
FILE_MESSAGES = (
    CheckpointRequest(1, 2, 0, 0),
    CheckpointRequest(2, 1 << 40, 5, 100),
    CheckpointPart(3, 9, 12, b"a checkpoint"),
    *(SegmentsRequest(4, topic_id, (0, 10, 5, 0, 1000), 0) for topic_id in (1, 1 << 60)),
    Segments(5, [(0, 10, 1000, 3, 77)], True),
    *(PartRequest(6, 1, base, file, 0, 512 << 10) for base in (0, 7) for file in range(3)),
    PartRequest(7, 1, 0, 0, (1 << 63) - 1, 1),
    Part(8, memoryview(b"bytes of a segment")),
    Refusal(9, Reason.GONE, "it was trimmed"),
)
# The last ones make a frame that arrives in pieces.
RECORD_SIZES = (1, 100, 100, 3000, 20_000)


@dataclass
class Recording:
    """What a cluster did."""

    # Whole frames, in the order in which they arrived anywhere.
    control: list[bytes] = field(default_factory=list)
    consensus: list[bytes] = field(default_factory=list)
    # Made up.
    files: list[bytes] = field(default_factory=list)
    # What each node said of itself once the cluster had formed.
    hellos: dict[str, Hello] = field(default_factory=dict)
    # Of n1, stopped in order.
    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    term: int = 0

    def thin_out(self) -> None:
        """Keep as many frames of a seldom kind as of the others, the largest among them, heartbeats apart from entries."""
        kept: dict[tuple[str, bool], list[bytes]] = {}
        for frame, message in zip(self.consensus, self.messages(), strict=True):
            kind = (type(message).__name__, bool(getattr(message, "entries", ())))
            kept.setdefault(kind, []).append(frame)
        self.consensus = [
            frame
            for frames in kept.values()
            for frame in (
                max(frames, key=len),
                *(frames[place * len(frames) // KEPT_PER_KIND] for place in range(KEPT_PER_KIND)),
            )
        ]

    def messages(self) -> list[Message]:
        """Return the consensus messages of all nodes."""
        return [messages.decode(frame[16:], "anybody") for frame in self.consensus]

    def take(self, channel: int, payload: bytes) -> None:
        frame = encode_frame(channel, 0, payload)
        (self.control if channel == CONTROL else self.consensus).append(frame)
        if channel == CONTROL:
            hello = getattr(decode_message(payload), "hello", None)
            if hello is not None and hello.cluster_id:
                self.hellos[hello.node_id] = hello


class _Tap(asyncio.Protocol):
    """Passes on what arrives, and takes the frames out of it."""

    def __init__(self, inner: asyncio.Protocol, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording
        self._decoder = FrameDecoder(PeerLimits().payload_size_max())
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self._decoder.receive_data(data)
        while (frame := self._decoder.next_frame()) is not None:
            self._recording.take(frame.channel, frame.payload)
        self._inner.data_received(data)


class _TappedHost:
    """A host of the simulated network whose connections are recorded."""

    def __init__(self, host: SimulatedHost, recording: Recording) -> None:
        self._host = host
        self._recording = recording

    def _tapped(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        return lambda: _Tap(factory(), self._recording)

    async def listen(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> Any:
        return await self._host.listen(self._tapped(factory), host, port)

    def objection(self, transport: asyncio.BaseTransport, node_id: str | None) -> str | None:
        return None

    async def connect(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        await self._host.connect(self._tapped(factory), host, port)


@lru_cache(maxsize=1)
def recorded() -> Recording:
    """Return the recording, the same for every test."""
    recording: Recording = on_virtual_time(_record)
    sent = {type(message) for message in recording.messages()}
    # Said where somebody was away for long.
    missing = set(messages.Message.__args__) - sent - {CheckpointNeeded}
    assert not missing, f"the recorded cluster has sent no {missing}"
    kinds = {type(decode_message(frame[16:])).__name__ for frame in recording.control}
    assert kinds >= {"Greeting", "Accepted", "Alive"}
    recording.thin_out()
    recording.consensus += [new_members(recording, count) for count in range(1, 4)]
    # Not said in a cluster where all is well.
    recording.control.append(encode_message(Refused("this cluster has another name")))
    recording.consensus += [
        encode_frame(Channel.RAFT, 0, messages.encode(CheckpointNeeded(recording.term, index)))
        for index in (1, 10, 1 << 40)
    ]
    recording.files = [encode_frame(Channel.FILES, 0, encode_file(each)) for each in FILE_MESSAGES]
    recording.control += [newer_greeting(hello) for hello in recording.hellos.values()] * 5
    return recording


async def _record() -> Recording:
    recording = Recording()
    cluster = NodeCluster(
        seed=11, host=lambda network, name: _TappedHost(network.host(name), recording)
    )
    await cluster.start()
    await _use(cluster)
    await cluster["n1"].node.stop()
    recording.disk = cluster["n1"].disk
    recording.term = max(message.sender_term for message in recording.messages())
    for name in ("n2", "n3"):
        await cluster[name].node.stop()
    return recording


async def _use(cluster: NodeCluster) -> None:
    """Have the cluster do everything that makes nodes talk."""
    for number in range(3):
        await cluster.loop.until(lambda: any(p.log.is_leader for p in cluster.places.values()))
        await cluster.loop.pass_time(0.5)
        leader = cluster.leader
        await leader.log.create_topic(f"topic{number}", SegmentLimits(1 << 20, 1 << 12))
        await leader.log.open_producer()
        for size in RECORD_SIZES:
            await cluster.append(*[size * place for place in range(1, 5)])
        for follower in cluster.followers:
            # It is not there, and the leader is asked for that.
            with suppress(DistlogError):
                await follower.log.read("", 10_000, size_max=1)
        await cluster.loop.pass_time(2)
        if number == 0:
            await leader.log.transfer_leadership()
        elif number == 1:
            # Cut off for long enough that another one leads, then told that its term is over.
            cluster.network.partition([leader.name], [each.name for each in cluster.followers])
            await cluster.loop.pass_time(5)
            cluster.network.heal()
            await cluster.loop.pass_time(3)


def new_members(recording: Recording, count: int) -> bytes:
    """Return an AppendEntries with a configuration in which so many have joined; the third is one of a newer version."""
    hello = recording.hellos["n1"]
    learners = {f"n{4 + number}": "directory" for number in range(count)}
    configuration = Configuration(hello.cluster_id, hello.voters, learners)
    payload = encode_configuration_entry(configuration, 0)
    if count == 3:
        payload = payload[:5] + b"\1" + payload[6:]
    entries = [(payload, 3, recording.term)]
    message = messages.AppendEntries(recording.term, count, 2, 2, 1, 1, entries)
    return encode_frame(Channel.RAFT, 0, messages.encode(message))


def newer_greeting(hello: Hello) -> bytes:
    """Return how a node of a later version greets."""
    fields = {name: getattr(hello, name) for name in hello.__struct_fields__}
    newer = Hello(**fields | {"protocol_version": PROTOCOL_VERSION + 1})
    return encode_message(Greeting(incarnation=3, attempt=1, hello=newer))
