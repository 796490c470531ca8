"""The parsers of what comes over a network: from peers, clients, servers, an agent, a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.sdk.trace import TracerProvider

from distlog import errors
from distlog.addresses import host_and_port
from distlog.api import large_field
from distlog.api.log.v1 import log_pb2
from distlog.api.status import error_from_status, status_of
from distlog.block import Block
from distlog.catch_up import messages as catch_up
from distlog.consensus import messages
from distlog.consensus.commands import decode_entry
from distlog.consensus.configuration import (
    Configuration,
    decode_configuration_entry,
    encode_configuration_entry,
)
from distlog.discovery.gossip_rows import MalformedRows, check_readable, decode_rows
from distlog.discovery.serf.tags import TaggedNode, node_of, tags_of
from distlog.discovery.serf.values import (
    coordinate_of,
    key_answer_of,
    members_of,
    record_of,
    stats_of,
)
from distlog.discovery.serf.wire import AnswerDecoder, AnswerMalformed
from distlog.discovery.view import Description
from distlog.errors import EntryCorrupt, EntryUnknown, InvalidRequest, PeerRefused
from distlog.peer.frames import FrameDecoder, MalformedFrame
from distlog.peer.handshake import MalformedMessage, UnsupportedVersion, decode_message
from distlog.peer.limits import PeerLimits
from distlog.server.calls import parse
from distlog.server.produce_batch import parse_request
from distlog.server.records import check_topic, structured_response
from distlog.tracing.recording import tracer_of
from distlog.tracing.spans import Kind
from tests.fuzz.mutations import ROWS, reframed
from tests.fuzz.parsers.files import GOLDEN, crc
from tests.fuzz.parsers.parser import (
    NUMBERS,
    Parser,
    any_text,
    changed_bytes,
    changed_tree,
    msgpack_field,
    sealed,
)
from tests.fuzz.recording import recorded

MEMBER = {
    "Name": "n1.5",
    "Addr": bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
    "Port": 7946,
    "Tags": {"distlog.id": "n1", "distlog.run": "5", "distlog.dir": "d"},
    "Status": "alive",
}
BODIES: tuple[Any, ...] = (
    {"Members": [MEMBER, {**MEMBER, "Addr": b"\x7f\x00\x00\x01", "Status": "failed"}]},
    {"Event": "member-join", "Members": [MEMBER]},
    {"Event": "user", "Name": "e", "Payload": b"p", "LTime": 3, "Coalesce": True},
    {"Event": "query", "ID": 1, "Name": "q", "Payload": b"p", "LTime": 3},
    {"Log": "a line"},
    {"Type": "response", "From": "n1", "Payload": b"p"},
    {"NumNodes": 2, "NumResp": 2, "NumErr": 0, "Messages": {"n1": ""}, "Keys": {"a2V5": 2}},
    {"agent": {"name": "n1"}, "runtime": {"arch": "amd64"}},
    {
        "Ok": True,
        "Coord": {"Vec": [0.1] * 8, "Height": 0.1, "Error": 1.5, "Adjustment": 0.0},
    },
)
READERS: tuple[Callable[[object], object], ...] = (
    members_of,
    record_of,
    key_answer_of,
    stats_of,
    coordinate_of,
)
TRACER = tracer_of(TracerProvider(shutdown_on_exit=False))
TRACE_CONTEXTS = [
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\nvendor=7,other@tenant=x",
    bytes(range(1, 26)),
]
OWN = Description("n2", "d2", "h2:8401", "h2:8400", "c1", 3, "1.0")


# --- Peers ---------------------------------------------------------------------------------------


def read_frames(data: bytes) -> object:
    decoder = FrameDecoder(PeerLimits().payload_size_max())
    frames = []
    for start in range(0, len(data), 1000):
        decoder.receive_data(data[start : start + 1000])
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    return frames


def read_catch_up(data: bytes) -> object:
    message = catch_up.decode(data, "n2")
    if isinstance(message, catch_up.SegmentsRequest):
        return catch_up.mark_of(message)
    return catch_up.listings_of(message) if isinstance(message, catch_up.Segments) else message


def sealed_block(data: bytes) -> bytes:
    """Have a block's header say what follows it, with the right checksum."""
    if len(data) < 16:
        return data
    count = int.from_bytes(data[:4], "little")
    frames = data[16 + 4 * count :] if 4 * count < len(data) else b""
    return data[:8] + crc(frames) + len(frames).to_bytes(4, "little") + data[16:]


def peer_parsers() -> list[Parser[bytes]]:
    recording = recorded()
    frames = recording.consensus + recording.control + recording.files
    configuration = Configuration("c1", {"n1": "aa", "n2": "bb"}, {"n4": "dd"}, target=3)
    broken_entry = (EntryCorrupt, EntryUnknown)

    def payloads(of: list[bytes]) -> list[bytes]:
        return [frame[16:] for frame in of]

    return [
        Parser(
            "peer frames",
            frames,
            read_frames,
            (MalformedFrame,),
            lambda _, source: reframed(frames, source),
        ),
        Parser(
            "handshake",
            payloads(recording.control),
            decode_message,
            (MalformedMessage, UnsupportedVersion),
            msgpack_field,
        ),
        Parser(
            "consensus messages",
            payloads(recording.consensus),
            lambda data: messages.check_term(messages.decode(data, "n2"), 3, "n2"),
            (PeerRefused,),
            msgpack_field,
        ),
        Parser(
            "catch-up messages",
            payloads(recording.files),
            read_catch_up,
            (PeerRefused,),
            msgpack_field,
        ),
        Parser("gossip rows", [ROWS], decode_rows, (MalformedRows,), msgpack_field),
        Parser(
            "entry", [(GOLDEN / "entry").read_bytes()], decode_entry, broken_entry, changed_bytes
        ),
        Parser(
            "configuration entry",
            [encode_configuration_entry(configuration, 5)],
            lambda data: decode_configuration_entry(data, 7),
            broken_entry,
            changed_bytes,
        ),
        Parser(
            "block",
            [(GOLDEN / "block").read_bytes(), Block.from_records([b"x" * 40]).encode()],
            Block.decode,
            (InvalidRequest,),
            sealed(sealed_block),
        ),
    ]


# --- Clients and servers -------------------------------------------------------------------------


def example(message_class: type[Message], depth: int = 3) -> Message:
    """Return a message in which every field says something."""
    message = message_class()
    for field in message.DESCRIPTOR.fields:
        value: Any
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if depth and not field.message_type.GetOptions().map_entry:
                inner = example(GetMessageClass(field.message_type), depth - 1)
                target = getattr(message, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(inner)
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            value = "orders"
        elif field.type == FieldDescriptor.TYPE_BYTES:
            value = b"some bytes"
        else:
            value = 1
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


def protobuf_field(data: bytes, source: Random) -> bytes:
    """Change what one field of a serialized message holds, its size with it."""
    fields, position = [], 0
    while position < len(data):
        start = position
        tag, position = large_field._read_varint(data, position)
        if tag & 7 == large_field.SIZED:
            size, position = large_field._read_varint(data, position)
            fields.append((tag, data[position : position + size]))
            position += size
        else:
            _, position = large_field._read_varint(data, position)
            fields.append((tag, data[start:position]))
    if not fields:
        return changed_bytes(data, source)
    place = source.randrange(len(fields))
    tag, content = fields[place]
    if tag & 7 == large_field.SIZED:
        choices = (any_text(source).encode("utf-8", "replace"), changed_bytes(content, source))
        fields[place] = (tag, source.choice(choices))
    else:
        number = source.choice(NUMBERS) & ((1 << 64) - 1)
        fields[place] = (tag, large_field._varint(tag) + large_field._varint(number))
    return b"".join(
        large_field._varint(tag) + large_field._varint(len(content)) + content
        if tag & 7 == large_field.SIZED
        else content
        for tag, content in fields
    )


def requests() -> list[type[Message]]:
    """Return the class of each request that there is."""
    services = log_pb2.DESCRIPTOR.services_by_name.values()
    return list(
        {
            method.input_type.full_name: GetMessageClass(method.input_type)
            for service in services
            for method in service.methods
        }.values()
    )


def read_requests(data: bytes) -> object:
    """Parse the bytes as the request that their first one chooses."""
    classes = requests()
    request = parse(classes[data[0] % len(classes)] if data else classes[0], data[1:])
    check_topic(getattr(request, "topic", ""))
    return request


def read_trace_context(data: bytes) -> object:
    """Take what a call, a batch and a peer say that they are part of: nonsense is nothing, and raises nothing."""
    header, _, state = data.decode("latin-1").partition("\n")
    TRACER.parent_in([("traceparent", header), ("tracestate", state)])
    TRACER.go_on(data, "fuzzed", Kind.SERVER, {})
    return TRACER.begin("fuzzed", Kind.SERVER, TRACER.parent_of(header), {})


def client_parsers() -> list[Parser[bytes]]:
    classes = requests()
    calls = [
        bytes([place]) + example(each).SerializeToString() for place, each in enumerate(classes)
    ]
    block = (GOLDEN / "block").read_bytes()
    batch = log_pb2.ProduceBatchRequest(topic="orders", producer_id=5, sequence=2, block=block)
    record = log_pb2.Record(value=b"v", key=b"k", headers=[log_pb2.Header(name="h", value=b"1")])
    statuses = [
        status_of(each).details
        for each in (
            errors.OffsetOutOfRange(5, 1, 3),
            errors.NotLeader("n2", "h:1"),
            errors.NoLeader(problem="x", retry_delay_s=0.5),
        )
    ]
    return [
        Parser(
            "requests",
            calls,
            read_requests,
            (InvalidRequest,),
            lambda data, source: data[:1] + protobuf_field(data[1:], source),
        ),
        Parser(
            "ProduceBatch request",
            [batch.SerializeToString()],
            parse_request,
            (InvalidRequest,),
            protobuf_field,
        ),
        Parser(
            "large field",
            [batch.SerializeToString()],
            lambda data: large_field.split(data, log_pb2.ProduceBatchRequest.BLOCK_FIELD_NUMBER),
            (DecodeError,),
            protobuf_field,
        ),
        Parser(
            "structured record",
            [record.SerializeToString()],
            lambda data: structured_response(data, 5, 7),
            (),
            protobuf_field,
        ),
        Parser("error of a node", statuses, error_from_status, (), protobuf_field),
        Parser("trace context", TRACE_CONTEXTS, read_trace_context, (), changed_bytes),
    ]


# --- What finds nodes ----------------------------------------------------------------------------


def read_answers(data: bytes) -> object:
    """Read what an agent sends, every body as everything that a body can be."""
    answers = list(AnswerDecoder(lambda seq, _error: seq != 0).receive(data))
    values = [value for answer in answers for read in READERS for value in taken(read, answer.body)]
    if answers and not values:
        raise AnswerMalformed("a body that is none")
    return values


def taken(read: Callable[[object], object], body: object) -> list[object]:
    try:
        return [read(body)]
    except AnswerMalformed:
        return []


def packed(tree: Any) -> bytes:
    data: bytes = msgpack.packb(tree, use_bin_type=False, unicode_errors="surrogateescape")
    return data


def answer_field(data: bytes, source: Random) -> bytes:
    body = source.choice(BODIES)
    header = {"Seq": 1, "Error": ""}
    while True:
        try:
            if source.random() < 0.2:
                return packed(changed_tree(header, source)) + packed(body)
            return packed(header) + packed(changed_tree(body, source))
        except (OverflowError, UnicodeEncodeError, ValueError):
            continue


def tags_field(data: bytes, source: Random) -> bytes:
    tags = json.loads(data)
    tags[source.choice(list(tags))] = any_text(source)
    return json.dumps(tags).encode()


def read_tags(data: bytes) -> object:
    """Read tags as they come out of the decoder of answers: a map of texts."""
    try:
        tags = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return node_of(
        {str(name): str(value) for name, value in tags.items()} if type(tags) is dict else {}
    )


def read_description(data: bytes) -> object:
    """Take what a node at an address that a name stands for says of itself."""
    try:
        said = log_pb2.MembersResponse.FromString(data).answering
    except DecodeError:
        return None
    host_and_port(said.peer_address)
    description = Description(
        said.node_id, said.directory_id, said.peer_address, said.client_address, said.cluster_id
    )
    return check_readable(description, 5)


def finding_parsers() -> list[Parser[bytes]]:
    said = example(log_pb2.MembersResponse)
    answers = [packed({"Seq": 1, "Error": ""}) + packed(body) for body in BODIES]
    return [
        Parser("answers of a Serf agent", answers, read_answers, (AnswerMalformed,), answer_field),
        Parser(
            "tags of a Serf agent",
            [json.dumps(tags_of(TaggedNode(OWN, 5))).encode()],
            read_tags,
            (),
            tags_field,
        ),
        Parser(
            "what a node says of itself",
            [said.SerializeToString()],
            read_description,
            (InvalidRequest,),
            protobuf_field,
        ),
    ]
