"""What an entry may hold, and its bytes: docs/format-entry.md has them as tables.

    entry     type u8 (100), version u8, kind u8, zero u16, command_count u32, timestamp_ms i64
    command   kind u8, flags u8, zero u16, body_size u32, body

The type byte is pysyncobj's: 100 means that the rest is opaque to it.  Everything is little-endian.  An entry of an unknown
version, with an unknown kind, or with reserved bits set was written by a newer version: it is never skipped, because a
node that skips differs from the others for ever.  Nothing here looks at the state: `StateMachine.check` does.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from distlog.block import ATTRIBUTES_KNOWN, Block
from distlog.block import HEADER as BLOCK_HEADER
from distlog.consensus.policy_codec import decode_change, encode_change
from distlog.errors import EntryCorrupt, EntryUnknown, InvalidRequest
from distlog.security.policy import Rule
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits

# The entry with which a leader begins its term, and every journal: it is pysyncobj's, and has no commands.
NO_OP = b"\x01"
ENTRY_TYPE_OPAQUE = 100
ENTRY_VERSION = 1
ENTRY_KIND_COMMANDS = 1
# A new producer's id is made of the raft index and the command's position in its entry, which has 16 bits there.
COMMAND_COUNT_MAX = 1 << 16

APPEND, CREATE_TOPIC, TRIM_TOPIC, DELETE_TOPIC, OPEN_PRODUCER, CONFIGURE_TOPIC, CHANGE_POLICY = (
    range(1, 8)
)
# The append carries a producer stamp.
FLAG_PRODUCER = 1
# The creation carries a retention.
FLAG_RETENTION = 1
# The configuration changes the retention by size, by age.
FLAG_RETENTION_SIZE, FLAG_RETENTION_AGE = 1, 2
# The change may leave no rule at all, so that everybody may do everything.
FLAG_OPEN = 1
# The flags that a command of each kind may have; there are no others.
FLAGS = {
    APPEND: FLAG_PRODUCER,
    CREATE_TOPIC: FLAG_RETENTION,
    TRIM_TOPIC: 0,
    DELETE_TOPIC: 0,
    OPEN_PRODUCER: 0,
    CONFIGURE_TOPIC: FLAG_RETENTION_SIZE | FLAG_RETENTION_AGE,
    CHANGE_POLICY: FLAG_OPEN,
}

ENTRY_HEADER = struct.Struct("<BBBHIq")
COMMAND_HEADER = struct.Struct("<BBHI")
APPEND_HEAD = struct.Struct("<Q")
STAMPED_APPEND_HEAD = struct.Struct("<QQQII")
CREATE_TOPIC_HEAD = struct.Struct("<QQ")
RETAINED_CREATE_TOPIC_HEAD = struct.Struct("<QQQQ")
TRIM_TOPIC_BODY = struct.Struct("<QQ")
DELETE_TOPIC_BODY = struct.Struct("<Q")
OPEN_PRODUCER_BODY = struct.Struct("<Q")
CONFIGURE_TOPIC_BODY = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class ProducerStamp:
    """Which append of which instance of a producer this is: sequences start at 0 in each epoch and topic, +1 each."""

    producer_id: int
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Append:
    """Append a block's records to a topic."""

    topic_id: int
    block: Block
    producer: ProducerStamp | None = None


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Create an empty topic.  Its id is the raft index of the entry; a second one in the same entry adds 1 << 48, and so on."""

    name: str
    limits: SegmentLimits
    retention: Retention = KEEP_ALL


@dataclass(frozen=True, slots=True)
class ConfigureTopic:
    """Change how much of a topic is kept: bytes, milliseconds, 0 for everything; None leaves it as it is."""

    topic_id: int
    retention_size: int | None
    retention_age_ms: int | None


@dataclass(frozen=True, slots=True)
class TrimTopic:
    """Forget the records below `start_offset`."""

    topic_id: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """Delete a topic with everything in it; its id is never used again."""

    topic_id: int


@dataclass(frozen=True, slots=True)
class OpenProducer:
    """Open a new producer (id 0), or begin a new epoch of a known one, which fences its older instances."""

    producer_id: int


@dataclass(frozen=True, slots=True)
class ChangePolicy:
    """Add rules to the policy, then remove others, all together.  What is there already, or is not there, is no mistake."""

    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    # Whether no rule may be left, after which everybody may do everything.
    may_open: bool = False


# Commands that are a few numbers, and are applied by themselves.
SmallCommand = TrimTopic | DeleteTopic | OpenProducer | ConfigureTopic
OtherCommand = CreateTopic | ChangePolicy | SmallCommand
Command = Append | OtherCommand


@dataclass(frozen=True, slots=True)
class Entry:
    """Commands that are applied together, in order, at one replicated time (milliseconds since the Unix epoch)."""

    timestamp_ms: int
    commands: tuple[Command, ...]


def encode_entry(commands: Sequence[Command], timestamp_ms: int) -> bytes:
    """Return an entry's payload.  There are 1 to COMMAND_COUNT_MAX commands, and `check` has accepted them."""
    assert 0 < len(commands) <= COMMAND_COUNT_MAX, "an entry holds at least one command"
    header = ENTRY_HEADER.pack(
        ENTRY_TYPE_OPAQUE, ENTRY_VERSION, ENTRY_KIND_COMMANDS, 0, len(commands), timestamp_ms
    )
    parts: list[bytes | memoryview] = [header]
    for command in commands:
        if isinstance(command, Append):
            _encode_append(command, parts)
        else:
            kind, flags, body = _encode_body(command)
            parts += (COMMAND_HEADER.pack(kind, flags, 0, len(body)), body)
    return b"".join(parts)


def command_size(command: Command) -> int:
    """Return the bytes that a command takes in an entry, which itself takes ENTRY_HEADER.size."""
    if isinstance(command, Append):
        head = APPEND_HEAD if command.producer is None else STAMPED_APPEND_HEAD
        return COMMAND_HEADER.size + head.size + command.block.encoded_size
    return COMMAND_HEADER.size + len(_encode_body(command)[2])


def _encode_append(command: Append, parts: list[bytes | memoryview]) -> None:
    # The parts of the block go straight into the entry: `block.encode` would copy a large one once more.
    block, stamp = command.block, command.producer
    if stamp is None:
        flags, head = 0, APPEND_HEAD.pack(command.topic_id)
    else:
        flags = FLAG_PRODUCER
        head = STAMPED_APPEND_HEAD.pack(
            command.topic_id, stamp.producer_id, stamp.sequence, stamp.epoch, 0
        )
    count, size = len(block.lengths), len(block.frames)
    parts += (
        COMMAND_HEADER.pack(APPEND, flags, 0, len(head) + BLOCK_HEADER.size + 4 * count + size),
        head,
        BLOCK_HEADER.pack(count, block.attributes, 0, block.data_crc32c, size),
        block.lengths.tobytes(),
        block.frames,
    )


def _encode_body(command: OtherCommand) -> tuple[int, int, bytes]:
    """Return kind, flags and body."""
    match command:
        case CreateTopic(name, limits, retention):
            flags, head = 0, CREATE_TOPIC_HEAD.pack(limits.store_size_max, limits.row_count_max)
            if retention != KEEP_ALL:
                flags = FLAG_RETENTION
                head = RETAINED_CREATE_TOPIC_HEAD.pack(
                    limits.store_size_max, limits.row_count_max, retention.size, retention.age_ms
                )
            return CREATE_TOPIC, flags, head + name.encode()
        case ChangePolicy(added, removed, may_open):
            return CHANGE_POLICY, FLAG_OPEN * may_open, encode_change(added, removed)
        case TrimTopic(topic_id, start_offset):
            return TRIM_TOPIC, 0, TRIM_TOPIC_BODY.pack(topic_id, start_offset)
        case DeleteTopic(topic_id):
            return DELETE_TOPIC, 0, DELETE_TOPIC_BODY.pack(topic_id)
        case OpenProducer(producer_id):
            return OPEN_PRODUCER, 0, OPEN_PRODUCER_BODY.pack(producer_id)
        case ConfigureTopic(topic_id, size, age_ms):
            flags = FLAG_RETENTION_SIZE * (size is not None)
            flags |= FLAG_RETENTION_AGE * (age_ms is not None)
            body = CONFIGURE_TOPIC_BODY.pack(topic_id, size or 0, age_ms or 0)
            return CONFIGURE_TOPIC, flags, body


def decode_entry(payload: bytes) -> Entry:
    """Parse and check an entry's payload, the type byte included.

    Raises EntryUnknown for what a newer version wrote and EntryCorrupt for what no version writes.  Either must stop the
    node before anything of the entry is applied.
    """
    if len(payload) < ENTRY_HEADER.size:
        raise EntryCorrupt(position=len(payload), problem="shorter than its header")
    entry_type, version, kind, zero, count, timestamp_ms = ENTRY_HEADER.unpack_from(payload)
    if entry_type != ENTRY_TYPE_OPAQUE:
        raise EntryUnknown(found=f"type {entry_type}")
    if version != ENTRY_VERSION or kind != ENTRY_KIND_COMMANDS or zero:
        raise EntryUnknown(found=f"version {version}, kind {kind}, reserved {zero}")
    if not 0 < count <= COMMAND_COUNT_MAX:
        raise EntryCorrupt(position=5, problem=f"{count} commands")
    commands: list[Command] = []
    position = ENTRY_HEADER.size
    for _ in range(count):
        command, position = _decode_command(payload, position)
        commands.append(command)
    if position != len(payload):
        raise EntryCorrupt(position=position, problem="bytes after the last command")
    return Entry(timestamp_ms, tuple(commands))


def _decode_command(payload: bytes, position: int) -> tuple[Command, int]:
    body = position + COMMAND_HEADER.size
    if body > len(payload):
        raise EntryCorrupt(position=position, problem="it ends within a command's header")
    kind, flags, zero, size = COMMAND_HEADER.unpack_from(payload, position)
    end = body + size
    if kind not in FLAGS:
        raise EntryUnknown(found=f"command kind {kind}")
    if zero or flags & ~FLAGS[kind]:
        raise EntryUnknown(found=f"command kind {kind} with flags {flags:#x}, reserved {zero}")
    if end > len(payload):
        raise EntryCorrupt(position=position, problem="it ends within a command")
    if kind == APPEND:
        return _decode_append(payload, body, end, flags), end
    if kind == CREATE_TOPIC:
        return _decode_create(payload, body, end, flags), end
    if kind == CHANGE_POLICY:
        return ChangePolicy(*decode_change(payload[body:end], body), may_open=bool(flags)), end
    return _decode_small(kind, flags, payload[body:end], body), end


def _decode_append(payload: bytes, start: int, end: int, flags: int) -> Append:
    stamp = None
    block_start = start + (STAMPED_APPEND_HEAD.size if flags else APPEND_HEAD.size)
    if block_start + BLOCK_HEADER.size > end:
        raise EntryCorrupt(position=start, problem="the append is shorter than its header")
    if flags:
        topic_id, producer_id, sequence, epoch, zero = STAMPED_APPEND_HEAD.unpack_from(
            payload, start
        )
        if zero:
            raise EntryUnknown(found=f"an append with reserved {zero}")
        stamp = ProducerStamp(producer_id, epoch, sequence)
    else:
        (topic_id,) = APPEND_HEAD.unpack_from(payload, start)
    try:
        block = Block.decode(memoryview(payload)[block_start:end])
    except InvalidRequest as error:
        _, attributes, zero, _, _ = BLOCK_HEADER.unpack_from(payload, block_start)
        if attributes & ~ATTRIBUTES_KNOWN or zero:
            raise EntryUnknown(
                found=f"block attributes {attributes:#x}, reserved {zero}"
            ) from error
        raise EntryCorrupt(position=block_start, problem=f"block: {error.problem}") from error
    return Append(topic_id, block, stamp)


def _decode_create(payload: bytes, start: int, end: int, flags: int) -> CreateTopic:
    head = RETAINED_CREATE_TOPIC_HEAD if flags else CREATE_TOPIC_HEAD
    name_start = start + head.size
    if name_start > end:
        raise EntryCorrupt(position=start, problem="the topic creation is shorter than its header")
    store_size_max, row_count_max, *retention = head.unpack_from(payload, start)
    try:
        name = payload[name_start:end].decode()
    except UnicodeDecodeError as error:
        raise EntryCorrupt(position=name_start, problem="a topic's name is no UTF-8") from error
    if flags and not any(retention):
        # Without the flag it is the same topic: each command has one form.
        raise EntryCorrupt(position=start, problem="a retention that keeps everything")
    return CreateTopic(name, SegmentLimits(store_size_max, row_count_max), Retention(*retention))


def _decode_small(kind: int, flags: int, body: bytes, position: int) -> SmallCommand:
    try:
        if kind == TRIM_TOPIC:
            return TrimTopic(*TRIM_TOPIC_BODY.unpack(body))
        if kind == DELETE_TOPIC:
            return DeleteTopic(*DELETE_TOPIC_BODY.unpack(body))
        if kind == OPEN_PRODUCER:
            return OpenProducer(*OPEN_PRODUCER_BODY.unpack(body))
        topic_id, size, age_ms = CONFIGURE_TOPIC_BODY.unpack(body)
    except struct.error as error:
        raise EntryCorrupt(position=position, problem=f"a body of {len(body)} bytes") from error
    has_size, has_age = flags & FLAG_RETENTION_SIZE, flags & FLAG_RETENTION_AGE
    if (size and not has_size) or (age_ms and not has_age):
        raise EntryCorrupt(position=position, problem="a retention without its flag")
    return ConfigureTopic(topic_id, size if has_size else None, age_ms if has_age else None)
