"""Whether a run kept its promises: what the clients were told, against what every node has.

Nothing here speaks to a node: a history and the nodes' logs go in, sentences come out, one for each broken promise.

- What was acknowledged is where the acknowledgement said, on every node.
- Nothing is in a log twice, and nothing that nobody sent.
- The records of one producer stand in the order in which it sent them, without a hole.
- Offsets are dense from 0.
- A tail saw what the log has, from where it began, in order, each record once.
- All nodes have the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# As many sentences of one kind and node as a person reads: after the first record that is lost, all others are shifted.
PROBLEMS_SHOWN_MAX = 3
RECORD_SHOWN_MAX = 40


@dataclass(slots=True)
class ProducerHistory:
    """What one producer sent, and what it was told.  Every value is unique in the whole run."""

    name: str
    # In the order of sending.
    sent: list[bytes] = field(default_factory=list)
    # Place in `sent` -> offset.
    acknowledged: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class TailHistory:
    """What one tail got, in the order of coming: (offset, value)."""

    name: str
    first_offset: int = 0
    seen: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """What all clients of a run saw."""

    producers: list[ProducerHistory] = field(default_factory=list)
    tails: list[TailHistory] = field(default_factory=list)

    @property
    def sent_count(self) -> int:
        return sum(len(producer.sent) for producer in self.producers)

    @property
    def acknowledged_count(self) -> int:
        return sum(len(producer.acknowledged) for producer in self.producers)


@dataclass(slots=True)
class NodeLog:
    """All records of one node's log as it gives them out, in its order: (offset, value)."""

    name: str
    records: list[tuple[int, bytes]]


def problems_of_run(history: History, logs: Sequence[NodeLog]) -> list[str]:
    """Return a sentence for each broken promise; none means that the run was right.

    logs: each node's, read after the last write was settled, at least one.
    """
    origins = _origins(history)
    problems: list[str] = []
    for log in logs:
        problems += _few(_offsets(log))
        problems += _few(_origin_and_order(origins, history, log))
        problems += _few(_acknowledged(history, log))
    for tail in history.tails:
        problems += _few(_tail(tail, logs[0]))
    for log in logs[1:]:
        problems += _few(_difference(logs[0], log))
    return problems


def _few(problems: Iterator[str]) -> list[str]:
    found = list(problems)
    more = len(found) - PROBLEMS_SHOWN_MAX
    return found if more <= 0 else [*found[:PROBLEMS_SHOWN_MAX], f"... and {more} more like these"]


def _origins(history: History) -> dict[bytes, tuple[int, int]]:
    """Return who sent each value, and as which of its records."""
    origins = {
        value: (number, place)
        for number, producer in enumerate(history.producers)
        for place, value in enumerate(producer.sent)
    }
    assert len(origins) == history.sent_count, "a value that was sent twice proves nothing"
    return origins


def _offsets(log: NodeLog) -> Iterator[str]:
    expected = 0
    for offset, _ in log.records:
        if offset != expected:
            yield f"{log.name}: offset {offset} stands where {expected} comes next"
        expected = offset + 1


def _acknowledged(history: History, log: NodeLog) -> Iterator[str]:
    found = dict(log.records)
    for producer in history.producers:
        for place, offset in producer.acknowledged.items():
            value = producer.sent[place]
            if found.get(offset) != value:
                instead = show(found[offset]) if offset in found else "nothing"
                yield (
                    f"{log.name}: {producer.name} was told that {show(value)} is at offset {offset}, "
                    f"which holds {instead}"
                )


def _origin_and_order(
    origins: dict[bytes, tuple[int, int]], history: History, log: NodeLog
) -> Iterator[str]:
    seen: dict[bytes, int] = {}
    places: list[list[int]] = [[] for _ in history.producers]
    for offset, value in log.records:
        if value in seen:
            yield f"{log.name}: {show(value)} is at offset {seen[value]} and again at {offset}"
            continue
        seen[value] = offset
        if value not in origins:
            yield f"{log.name}: nobody sent {show(value)}, which is at offset {offset}"
            continue
        number, place = origins[value]
        places[number].append(place)
    for producer, found in zip(history.producers, places, strict=True):
        yield from _order(log, producer, found)


def _order(log: NodeLog, producer: ProducerHistory, places: list[int]) -> Iterator[str]:
    """The places of the records that are there must be 0, 1, 2, ...: what is missing is missing at the end."""
    for before, after in pairwise(places):
        if after < before:
            earlier, later = show(producer.sent[after]), show(producer.sent[before])
            yield f"{log.name}: {later} of {producer.name} stands before {earlier}, which was sent earlier"
    for place in sorted(set(range(max(places, default=-1))) - set(places)):
        yield f"{log.name}: {show(producer.sent[place])} of {producer.name} is missing, later ones are there"


def _tail(tail: TailHistory, log: NodeLog) -> Iterator[str]:
    expected = log.records[tail.first_offset : tail.first_offset + len(tail.seen)]
    for place, (seen, wanted) in enumerate(zip(tail.seen, expected, strict=False)):
        if seen != wanted:
            yield f"{tail.name} got {_at(seen)} as its record {place}, and {log.name} has {_at(wanted)} there"
            # Whatever follows a skip or a repeat differs too.
            return
    if len(tail.seen) > len(expected):
        yield f"{tail.name} got {len(tail.seen)} records, and {log.name} has only {len(expected)} for it"


def _difference(one: NodeLog, other: NodeLog) -> Iterator[str]:
    if len(one.records) != len(other.records):
        yield f"{one.name} has {len(one.records)} records and {other.name} {len(other.records)}"
    for left, right in zip(one.records, other.records, strict=False):
        if left != right:
            yield f"{one.name} has {_at(left)} where {other.name} has {_at(right)}"
            return


def _at(record: tuple[int, bytes]) -> str:
    return f"{show(record[1])} at offset {record[0]}"


def show(value: bytes) -> str:
    """Return a value as a person reads it."""
    more = "" if len(value) <= RECORD_SHOWN_MAX else f"... ({len(value)} bytes)"
    return f"{value[:RECORD_SHOWN_MAX]!r}{more}"
