"""Which appends of which producers were applied: what makes a retry harmless.

For every producer the table keeps its epoch and, for each topic that it wrote to in this epoch, the next sequence and the
offsets of the last 16.  It is replicated state: everything here follows from the entries alone, their time included.

Each producer is one immutable row of bytes, and the row is also what a checkpoint holds (docs/format-entry.md).  So the
event loop captures 100,000 producers by copying references, a worker writes them by joining them, and the garbage
collector, which does not track bytes, never walks them.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice

from distlog.consensus.commands import ProducerStamp
from distlog.errors import (
    DistlogError,
    OutOfSequence,
    Overloaded,
    ProducerFenced,
    ProducerUnknown,
)

# Sequences that a window remembers, and so the requests that a producer may have unanswered: a client that lost 16 answers
# can repeat all 16 requests.
WINDOW_SEQUENCE_COUNT = 16
EPOCH_MAX = (1 << 32) - 1
# Overdue producers that are dropped each time another is opened: bounded, so that no single entry costs milliseconds.
EXPIRED_AT_ONCE_COUNT = 16

# A row: head {producer_id, last_used_ms, epoch, topic_count}, the topic ids, then a window for each topic.
HEAD = struct.Struct("<QqII")
LAST_USED = struct.Struct("<q")
U64 = struct.Struct("<Q")
# A window: the next sequence, then slot s % 16 with the first offset of sequence s; slots never used are zero.
WINDOW = struct.Struct(f"<Q{WINDOW_SEQUENCE_COUNT}Q")
LAST_USED_POSITION = 8


@dataclass(frozen=True, slots=True)
class ProducerLimits:
    """Limits of the replicated state: the same on every node, or the nodes differ."""

    producer_count_max: int = 100_000
    # Windows of all producers together; most have one.
    window_count_max: int = 200_000
    # Topics that one producer writes to in one epoch.
    topic_count_max: int = 1_000
    # Replicated time after which a producer that writes nothing is forgotten: 7 days.
    idle_ms_max: int = 7 * 24 * 3600 * 1000


LIMITS = ProducerLimits()


class ProducerTable:
    """All producers, the least recently used first.  `topics` has the ids of the topics that exist."""

    def __init__(self, topics: Container[int], limits: ProducerLimits = LIMITS) -> None:
        assert limits.topic_count_max <= limits.window_count_max, "one producer must fit"
        self._topics = topics
        self._limits = limits
        # producer_id -> row.  Invariant: the order is that of last use; a use takes the row out and puts it at the end.
        self._rows: dict[int, bytes] = {}
        # Invariant: the sum of all rows' topic counts, <= window_count_max.
        self._window_count = 0
        # Replicated time: the highest timestamp of any entry applied.  Never falls, whatever the leaders' clocks do.
        self.now_ms = 0

    @classmethod
    def restore(
        cls,
        topics: Container[int],
        rows: Iterable[bytes],
        now_ms: int,
        limits: ProducerLimits = LIMITS,
    ) -> ProducerTable:
        """Return the table whose `capture` gave `rows` at replicated time `now_ms`."""
        table = cls(topics, limits)
        table.now_ms = now_ms
        for row in rows:
            producer_id, _, _, topic_count = HEAD.unpack_from(row)
            table._rows[producer_id] = row
            table._window_count += topic_count
        return table

    @property
    def count_max(self) -> int:
        """How many it holds at most."""
        return self._limits.producer_count_max

    def __len__(self) -> int:
        return len(self._rows)

    def capture(self) -> list[bytes]:
        """Return the rows as they are now, the least recently used first; they never change."""
        return list(self._rows.values())

    # --- What comes next -------------------------------------------------------------------------

    def check(
        self, stamp: ProducerStamp, topic_id: int, expected: int | None = None
    ) -> int | DistlogError | None:
        """Tell what an append with this stamp is: None, the next one; an offset, a repeat of the append that begins there;
        or the error that refuses it.

        `expected` is the sequence after those in flight, which the leader knows of and the table does not.
        """
        row = self._rows.get(stamp.producer_id)
        if row is None:
            return ProducerUnknown(stamp.producer_id)
        _, last_used_ms, epoch, topic_count = HEAD.unpack_from(row)
        if stamp.epoch < epoch:
            return ProducerFenced(stamp.producer_id, epoch)
        if stamp.epoch > epoch or self.now_ms - last_used_ms > self._limits.idle_ms_max:
            return ProducerUnknown(stamp.producer_id)
        position = _window_position(row, topic_id, topic_count)
        applied = U64.unpack_from(row, position)[0] if position else 0
        sequence = stamp.sequence
        if applied > sequence >= applied - WINDOW_SEQUENCE_COUNT:
            return int(U64.unpack_from(row, _slot_position(position, sequence))[0])
        # The one after the applied ones is right even when later ones are in flight: it was refused before it reached them.
        if sequence != applied and sequence != expected:
            return OutOfSequence(
                stamp.producer_id, applied if expected is None else expected, sequence
            )
        if not position and topic_count >= self._limits.topic_count_max:
            return self._check_topic_count(row, topic_count)
        return None

    def _check_topic_count(self, row: bytes, topic_count: int) -> DistlogError | None:
        limit = self._limits.topic_count_max
        if sum(topic_id in self._topics for topic_id in _topic_ids(row, topic_count)) < limit:
            return None
        return Overloaded(queue="topics of one producer", limit=limit)

    def check_open(self, producer_id: int) -> DistlogError | None:
        """Tell what refuses to open `producer_id`, which is 0 for a new one."""
        if producer_id == 0:
            return None
        row = self._rows.get(producer_id)
        if row is None:
            return ProducerUnknown(producer_id)
        _, last_used_ms, epoch, _ = HEAD.unpack_from(row)
        if self.now_ms - last_used_ms > self._limits.idle_ms_max:
            return ProducerUnknown(producer_id)
        if epoch == EPOCH_MAX:
            return Overloaded(queue="epochs of one producer", limit=EPOCH_MAX)
        return None

    # --- What was applied ------------------------------------------------------------------------

    def advance(self, timestamp_ms: int) -> None:
        """Let replicated time reach an entry's timestamp."""
        self.now_ms = max(self.now_ms, timestamp_ms)

    def record(self, stamp: ProducerStamp, topic_id: int, base_offset: int) -> None:
        """Remember that the append with this stamp, for which `check` said None, begins at `base_offset`."""
        row = self._rows.pop(stamp.producer_id)
        _, _, _, topic_count = HEAD.unpack_from(row)
        position = _window_position(row, topic_id, topic_count)
        if not position:
            row, position = self._add_window(row, topic_id, topic_count)
        changed = bytearray(row)
        LAST_USED.pack_into(changed, LAST_USED_POSITION, self.now_ms)
        U64.pack_into(changed, position, stamp.sequence + 1)
        U64.pack_into(changed, _slot_position(position, stamp.sequence), base_offset)
        self._rows[stamp.producer_id] = bytes(changed)
        if self._window_count > self._limits.window_count_max:
            self._drop_oldest()

    def _add_window(self, row: bytes, topic_id: int, topic_count: int) -> tuple[bytes, int]:
        """Return a row with an empty window for the topic, and the window's position.  Windows of deleted topics go."""
        producer_id, last_used_ms, epoch, _ = HEAD.unpack_from(row)
        windows_start = HEAD.size + U64.size * topic_count
        topic_ids, windows = [], []
        for place, kept in enumerate(_topic_ids(row, topic_count)):
            if kept in self._topics:
                position = windows_start + WINDOW.size * place
                topic_ids.append(kept)
                windows.append(row[position : position + WINDOW.size])
        topic_ids.append(topic_id)
        windows.append(bytes(WINDOW.size))
        count = len(topic_ids)
        self._window_count += count - topic_count
        head = HEAD.pack(producer_id, last_used_ms, epoch, count)
        changed = b"".join((head, struct.pack(f"<{count}Q", *topic_ids), *windows))
        return changed, len(changed) - WINDOW.size

    def open(self, producer_id: int, new_id: int) -> tuple[int, int]:
        """Open a new producer as `new_id`, or begin the next epoch of `producer_id`; return its id and epoch."""
        epoch = 0
        if producer_id == 0:
            producer_id = new_id
        else:
            _, _, last_epoch, topic_count = HEAD.unpack_from(self._rows.pop(producer_id))
            self._window_count -= topic_count
            epoch = last_epoch + 1
        self._rows[producer_id] = HEAD.pack(producer_id, self.now_ms, epoch, 0)
        self._drop_overdue()
        if len(self._rows) > self._limits.producer_count_max:
            self._drop_oldest()
        return producer_id, epoch

    def _drop_overdue(self) -> None:
        # Only memory is at stake here: `check` never accepts an overdue producer, dropped or not.
        overdue = []
        for producer_id in islice(self._rows, EXPIRED_AT_ONCE_COUNT):
            _, last_used_ms, _, _ = HEAD.unpack_from(self._rows[producer_id])
            if self.now_ms - last_used_ms <= self._limits.idle_ms_max:
                break
            overdue.append(producer_id)
        for producer_id in overdue:
            self._drop(producer_id)

    def _drop_oldest(self) -> None:
        """Drop least recently used producers until the limits hold."""
        surplus = len(self._rows) - self._limits.producer_count_max
        windows = self._window_count - self._limits.window_count_max
        dropped = []
        for producer_id, row in self._rows.items():
            if surplus <= 0 and windows <= 0:
                break
            dropped.append(producer_id)
            surplus -= 1
            windows -= HEAD.unpack_from(row)[3]
        for producer_id in dropped:
            self._drop(producer_id)

    def _drop(self, producer_id: int) -> None:
        self._window_count -= HEAD.unpack_from(self._rows.pop(producer_id))[3]


def row_size(head: bytes | memoryview, position: int) -> int:
    """Return the size of the row that begins at `position`, from its head, which must be there whole."""
    topic_count = int(HEAD.unpack_from(head, position)[3])
    return HEAD.size + (U64.size + WINDOW.size) * topic_count


def _topic_ids(row: bytes, topic_count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{topic_count}Q", row, HEAD.size)


def _window_position(row: bytes, topic_id: int, topic_count: int) -> int:
    """Return where the topic's window begins in the row; 0 if it has none."""
    if topic_count == 1:
        found = U64.unpack_from(row, HEAD.size)[0] == topic_id
        return HEAD.size + U64.size if found else 0
    try:
        place = _topic_ids(row, topic_count).index(topic_id)
    except ValueError:
        return 0
    return HEAD.size + U64.size * topic_count + WINDOW.size * place


def _slot_position(window_position: int, sequence: int) -> int:
    return window_position + U64.size * (1 + sequence % WINDOW_SEQUENCE_COUNT)
