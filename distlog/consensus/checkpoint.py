"""The checkpoint: everything that the entries up to one raft index have led to, except the records themselves.

One file, one codec; docs/format-entry.md has it as tables.  The body is replicated state, so nodes at the same index
have the same body; what concerns one node alone, the journal's durable sequence, is in the header.

Steps: `StateMachine.capture` on the event loop gives a `CheckpointImage`, which never changes; in a worker
`sync_logs` makes the logs durable up to its marks, and `write_checkpoint` replaces the file.  A crash at any point leaves
the old checkpoint whole or the new one, and only a new one that is durable lets the journal forget.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import google_crc32c

from distlog.block import crc32c
from distlog.consensus.configuration import (
    MEMBER_COUNT_MAX,
    Configuration,
    decode_configuration,
    encode_configuration,
)
from distlog.consensus.journal import JournalEntry
from distlog.consensus.policy_codec import decode_rules, encode_rules
from distlog.consensus.producers import HEAD as PRODUCER_HEAD
from distlog.consensus.producers import row_size
from distlog.errors import CorruptCheckpoint, DistlogError, EntryUnknown, FormatUnsupported
from distlog.security.policy import NO_POLICY, Policy
from distlog.storage.disk import Disk
from distlog.storage.log_mark import LogMark
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits

MAGIC = b"distlogC"
# Version 1 had no retention: all of every topic was kept.  Before version 3 there were voters only, since the cluster was formed.
# Version 4 is written where the configuration has a target, which version 3 does not know, and version 5 where there is a policy.
VERSION, VERSION_WITHOUT_POLICY, VERSION_WITHOUT_TARGET, FIRST_VERSION = 5, 4, 3, 1
# magic, version, zero, durable_sequence, body_size, body_crc32c; then the CRC32C of these.
HEADER = struct.Struct("<8sIIQQI")
HEADER_CRC = struct.Struct("<I")
# now_ms, before version 3 the number of voters, topic_count, producer_count, before version 4 zero: the configuration's target
BODY_HEAD = struct.Struct("<qIIII")
# raft_index, term, payload size; then the payload.
ENTRY_HEAD = struct.Struct("<QQQ")
# The entry that the configuration comes from.
CONFIGURATION_HEAD = struct.Struct("<Q")
STRING_SIZE = struct.Struct("<H")
# topic_id; limits: store_size_max, row_count_max; mark: start_offset, next_offset, last_timestamp_ms, segment_base_offset,
# store_position; then the name, then the retention.
TOPIC = struct.Struct("<QQQQQqQQ")
# size, age_ms
RETENTION = struct.Struct("<QQ")
# Rows joined at once: about 1 MiB, so that the worker never holds the interpreter's lock for milliseconds.
ROWS_PER_PART = 4096
TEMPORARY_SUFFIX = ".new"


class TopicImage(NamedTuple):
    """One topic: what it is, and how far its log goes.  A plain tuple: a checkpoint makes thousands at once."""

    topic_id: int
    name: str
    limits: SegmentLimits
    mark: LogMark
    retention: Retention = KEEP_ALL


@dataclass(frozen=True, slots=True)
class CheckpointImage:
    """The state after one entry.  Immutable: a worker may write it while the loop goes on."""

    # The raw entries at the checkpoint's index and before it, which pysyncobj compares with the journal.
    previous: JournalEntry
    last: JournalEntry
    configuration: Configuration
    # The journal was durable up to this sequence: a later loss below it is corruption, not a torn tail.
    durable_sequence: int
    # Replicated time.
    now_ms: int
    # In the order of their creation.
    topics: tuple[TopicImage, ...]
    # Rows of the producer table, the least recently used first.
    producer_rows: Sequence[bytes]
    policy: Policy = NO_POLICY
    # What begins to make the logs durable, at least up to their marks: called on the event loop, a few at a time, each returns what
    # does the rest in a worker.  Nothing in an image that was read from a file.
    syncs: Sequence[Callable[[], Callable[[], None]]] = field(default=(), compare=False, repr=False)

    @property
    def raft_index(self) -> int:
        return self.last.raft_index

    @property
    def term(self) -> int:
        return self.last.term

    def sync_logs(self) -> None:
        """Make every log durable up to its mark, where no event loop runs.  Blocks.  A failed sync must stop the process."""
        for begin in self.syncs:
            begin()()


# --- The file -----------------------------------------------------------------------------------


def write_checkpoint(disk: Disk, path: str, image: CheckpointImage) -> None:
    """Replace the checkpoint by `image`, whose logs are synced.  Blocks; durable on return.

    Raises StorageFull, the old checkpoint being untouched, and DiskFailed, after which the process must stop.
    """
    temporary = path + TEMPORARY_SUFFIX
    _remove_if_there(disk, temporary)
    file = disk.open(temporary, create=True)
    try:
        file.write_at(0, encode_checkpoint(image))
        file.sync()
    except DistlogError:
        file.close()
        _remove_if_there(disk, temporary)
        raise
    file.close()
    disk.rename(temporary, path)
    disk.sync_directory(path.rpartition("/")[0] or ".")


def read_checkpoint(disk: Disk, path: str) -> CheckpointImage | None:
    """Return the checkpoint, or None if there never was one.

    Raises CorruptCheckpoint if it is not what was written, and FormatUnsupported if a newer version wrote it.
    """
    if not disk.exists(path):
        return None
    if disk.is_directory(path):
        raise CorruptCheckpoint(path, "it is a directory, not a file")
    file = disk.open(path, writable=False)
    try:
        data = file.read_at(0, file.size())
    finally:
        file.close()
    return decode_checkpoint(data, path)


def _remove_if_there(disk: Disk, path: str) -> None:
    if disk.exists(path):
        disk.remove(path)


# --- The codec ----------------------------------------------------------------------------------


def encode_checkpoint(image: CheckpointImage) -> list[bytes]:
    """Return the file's bytes, in parts."""
    parts = list(_body_parts(image))
    checksum = 0
    for part in parts:
        checksum = google_crc32c.extend(checksum, part)
    size = sum(map(len, parts))
    header = HEADER.pack(MAGIC, _version(image), 0, image.durable_sequence, size, checksum)
    return [header, HEADER_CRC.pack(crc32c(header)), *parts]


def _version(image: CheckpointImage) -> int:
    """Return the oldest version that says all that there is to say."""
    if image.policy.rules:
        return VERSION
    return VERSION_WITHOUT_POLICY if image.configuration.target else VERSION_WITHOUT_TARGET


def _body_parts(image: CheckpointImage) -> Iterator[bytes]:
    topics, rows = image.topics, image.producer_rows
    yield BODY_HEAD.pack(image.now_ms, 0, len(topics), len(rows), image.configuration.target)
    for entry in (image.previous, image.last):
        yield ENTRY_HEAD.pack(entry.raft_index, entry.term, len(entry.payload))
        yield entry.payload
    yield CONFIGURATION_HEAD.pack(image.configuration.raft_index)
    yield encode_configuration(image.configuration)
    yield b"".join([_encode_topic(topic) for topic in topics])
    for first in range(0, len(rows), ROWS_PER_PART):
        yield b"".join(rows[first : first + ROWS_PER_PART])
    if image.policy.rules:
        yield encode_rules(image.policy.rules)


def _encode_string(text: str) -> bytes:
    data = text.encode()
    return STRING_SIZE.pack(len(data)) + data


def _encode_topic(topic: TopicImage) -> bytes:
    limits, mark, retention = topic.limits, topic.mark, topic.retention
    head = TOPIC.pack(
        topic.topic_id,
        limits.store_size_max,
        limits.row_count_max,
        mark.start_offset,
        mark.next_offset,
        mark.last_timestamp_ms,
        mark.segment_base_offset,
        mark.store_position,
    )
    return head + _encode_string(topic.name) + RETENTION.pack(retention.size, retention.age_ms)


def decode_checkpoint(data: bytes, path: str) -> CheckpointImage:
    """Parse and check a checkpoint's bytes; `path` is for the errors, which `read_checkpoint` names."""
    body_start = HEADER.size + HEADER_CRC.size
    if len(data) < body_start or data[: len(MAGIC)] != MAGIC:
        raise CorruptCheckpoint(path, "it is no checkpoint of distlog")
    if crc32c(data[: HEADER.size]) != HEADER_CRC.unpack_from(data, HEADER.size)[0]:
        raise CorruptCheckpoint(path, "its header's checksum is wrong")
    _, version, zero, durable_sequence, body_size, checksum = HEADER.unpack_from(data)
    if not FIRST_VERSION <= version <= VERSION or zero:
        raise FormatUnsupported(path, str(version), str(VERSION))
    body = data[body_start:]
    if len(body) != body_size:
        raise CorruptCheckpoint(path, f"it has {len(body)} bytes where {body_size} belong")
    if crc32c(body) != checksum:
        raise CorruptCheckpoint(path, "its checksum is wrong")
    try:
        return _decode_body(_Reader(body, version), durable_sequence)
    except (struct.error, ValueError) as error:
        raise CorruptCheckpoint(
            path, f"its checksum is right, but not its content: {error}"
        ) from error


def _decode_body(reader: _Reader, durable_sequence: int) -> CheckpointImage:
    now_ms, voter_count, topic_count, producer_count, target = reader.unpack(BODY_HEAD)
    previous, last = reader.entry(), reader.entry()
    configuration = reader.configuration(voter_count, target)
    topics = tuple([reader.topic() for _ in range(topic_count)])
    rows = [reader.producer_row() for _ in range(producer_count)]
    policy = reader.policy()
    reader.finish()
    return CheckpointImage(
        previous=previous,
        last=last,
        configuration=configuration,
        durable_sequence=durable_sequence,
        now_ms=now_ms,
        topics=topics,
        producer_rows=rows,
        policy=policy,
    )


class _Reader:
    """A cursor over a body.  Raises struct.error or ValueError where the body does not go on as it must."""

    def __init__(self, body: bytes, version: int) -> None:
        self._body = body
        self._version = version
        self._position = 0

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._body):
            raise ValueError("it ends too early")
        taken = self._body[self._position : end]
        self._position = end
        return taken

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def entry(self) -> JournalEntry:
        raft_index, term, size = self.unpack(ENTRY_HEAD)
        return JournalEntry(self.take(size), raft_index, term)

    def string(self) -> str:
        (size,) = self.unpack(STRING_SIZE)
        return self.take(size).decode()

    def configuration(self, voter_count: int, target: int) -> Configuration:
        if self._version < 4:
            target = 0
        if target > MEMBER_COUNT_MAX:
            raise ValueError(f"{target} voters")
        if self._version < 3:
            cluster_id = self.string()
            voters = {self.string(): self.string() for _ in range(voter_count)}
            return Configuration(cluster_id, voters)
        (raft_index,) = self.unpack(CONFIGURATION_HEAD)
        found, self._position = decode_configuration(self._body, self._position, raft_index)
        return replace(found, target=target)

    def topic(self) -> TopicImage:
        topic_id, store_size_max, row_count_max, *mark = self.unpack(TOPIC)
        name = self.string()
        retention = Retention(*self.unpack(RETENTION)) if self._version > 1 else KEEP_ALL
        limits = SegmentLimits(store_size_max, row_count_max)
        return TopicImage(topic_id, name, limits, LogMark(*mark), retention)

    def producer_row(self) -> bytes:
        if self._position + PRODUCER_HEAD.size > len(self._body):
            raise ValueError("it ends within a producer")
        return self.take(row_size(self._body, self._position))

    def policy(self) -> Policy:
        if self._version < VERSION:
            return NO_POLICY
        try:
            rules, self._position = decode_rules(self._body, self._position)
        except EntryUnknown as error:
            raise ValueError(error.found) from error
        policy = Policy(rules)
        if not rules or len(policy) != len(rules) or policy.problem:
            raise ValueError("a policy that no node accepts")
        return policy

    def finish(self) -> None:
        if self._position != len(self._body):
            raise ValueError("bytes after its end")
