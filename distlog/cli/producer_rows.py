"""The rows of the producer table that a checkpoint holds, taken apart (docs/format-entry.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from distlog.consensus.producers import HEAD, U64, WINDOW, WINDOW_SEQUENCE_COUNT


@dataclass(frozen=True, slots=True)
class ShownWindow:
    """What the table remembers of one producer and topic."""

    topic_id: int
    next_sequence: int
    # First offset by sequence, of the last sequences.
    offsets: dict[int, int]


@dataclass(frozen=True, slots=True)
class ShownProducer:
    """One producer."""

    producer_id: int
    epoch: int
    # Replicated time, milliseconds.
    last_used_ms: int
    windows: tuple[ShownWindow, ...]


def producer_of(row: bytes) -> ShownProducer:
    """Take a row apart."""
    producer_id, last_used_ms, epoch, topic_count = HEAD.unpack_from(row)
    topic_ids = struct.unpack_from(f"<{topic_count}Q", row, HEAD.size)
    start = HEAD.size + U64.size * topic_count
    windows = []
    for place, topic_id in enumerate(topic_ids):
        next_sequence, *slots = WINDOW.unpack_from(row, start + WINDOW.size * place)
        first = max(0, next_sequence - WINDOW_SEQUENCE_COUNT)
        offsets = {
            each: slots[each % WINDOW_SEQUENCE_COUNT] for each in range(first, next_sequence)
        }
        windows.append(ShownWindow(topic_id, next_sequence, offsets))
    return ShownProducer(producer_id, epoch, last_used_ms, tuple(windows))
