"""Writes the data directory that is kept of a release, and what is in it.

    python -m tests.releases.write_release [DIRECTORY]

The directory is tests/data/releases/VERSION unless one is named; VERSION.json beside it says what it holds, from what was put in and
not from what can be read.  Everything is fixed, random bytes and times too: the same code writes the same bytes.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from random import Random
from typing import Any

from distlog import __version__
from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.consensus.commands import (
    Append,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.results import ProducerOpened, TopicCreated
from distlog.consensus.state_machine import FIRST_INDEX
from distlog.storage.disk import RealDisk
from distlog.storage.retention import Retention
from distlog.storage.segment_files import SegmentLimits
from tests.releases.node_files import NodeFiles

RELEASES = Path(__file__).parents[1] / "data" / "releases"
BEGIN_MS = 1_700_000_000_000
SMALL = SegmentLimits(store_size_max=4096, row_count_max=16)
RETENTION = Retention(size=1 << 20, age_ms=3_600_000)


class Writer:
    """Puts things in, and notes what."""

    def __init__(self, path: Path) -> None:
        # Small files, so that the journal has several.
        self.node = NodeFiles(RealDisk(), str(path), random=Random(__version__), file_size_max=4096)
        self.topics: dict[str, Any] = {
            "default": {"topic_id": FIRST_INDEX, "start_offset": 0, "records": []}
        }
        self.producers: dict[int, Any] = {}
        self.now_ms = BEGIN_MS

    def commit(self, *commands: Command) -> list[Any]:
        self.now_ms += 250
        return list(self.node.commit(*commands, timestamp_ms=self.now_ms))

    def create(
        self, name: str, limits: SegmentLimits = SMALL, retention: Retention = RETENTION
    ) -> int:
        (created,) = self.commit(CreateTopic(name, limits, retention))
        assert isinstance(created, TopicCreated)
        self.topics[name] = {"topic_id": created.topic_id, "start_offset": 0, "records": []}
        return created.topic_id

    def open_producer(self, producer_id: int = 0) -> ProducerStamp:
        (opened,) = self.commit(OpenProducer(producer_id))
        assert isinstance(opened, ProducerOpened)
        self.producers[opened.producer_id] = {"epoch": opened.epoch, "next_sequence": {}}
        return ProducerStamp(opened.producer_id, opened.epoch, 0)

    def append(self, name: str, values: list[bytes], stamp: ProducerStamp | None = None) -> None:
        block = Block.from_records(values)
        self.commit(Append(self.topics[name]["topic_id"], block, stamp))
        self._note(name, [{"value": value.hex()} for value in values], stamp)

    def append_structured(
        self, name: str, key: bytes | None, headers: dict[str, bytes], value: bytes
    ) -> None:
        record = log_pb2.Record(value=value, key=key)
        record.headers.extend(log_pb2.Header(name=each, value=headers[each]) for each in headers)
        block = Block.from_records(
            [record.SerializeToString(deterministic=True)], ATTRIBUTE_STRUCTURED
        )
        self.commit(Append(self.topics[name]["topic_id"], block))
        shown: dict[str, Any] = {"value": value.hex()}
        if key is not None:
            shown["key"] = key.hex()
        shown["headers"] = {each: content.hex() for each, content in headers.items()}
        self._note(name, [shown], None)

    def trim(self, name: str, start_offset: int) -> None:
        self.commit(TrimTopic(self.topics[name]["topic_id"], start_offset))
        self.topics[name]["start_offset"] = start_offset

    def _note(self, name: str, records: list[Any], stamp: ProducerStamp | None) -> None:
        first = len(self.topics[name]["records"])
        for place, record in enumerate(records):
            offset = first + place
            self.topics[name]["records"].append(
                {"offset": offset, "timestamp_ms": self.now_ms, **record}
            )
        if stamp is not None:
            self.producers[stamp.producer_id]["next_sequence"][name] = stamp.sequence + 1


def write(path: Path) -> dict[str, Any]:
    """Write the directory; return what it holds."""
    writer = Writer(path)
    node = writer.node
    node.elect(1)
    orders, events = writer.create("orders"), writer.create("events")
    gone = writer.create("gone")
    stamp = writer.open_producer()
    for number in range(40):
        values = [b"order %d.%d" % (number, each) for each in range(number % 3 + 1)]
        own = ProducerStamp(stamp.producer_id, stamp.epoch, number)
        writer.append("orders", values, own)
    writer.append("gone", [b"nobody reads this"])
    for number in range(30):
        writer.append("default", [b"x" * number, b""])
    writer.append_structured(
        "events", b"key \xff", {"trace": b"\x00\x01", "kind": b"test"}, b"with a key"
    )
    writer.append_structured("events", None, {}, b"")
    writer.append("events", [bytes(range(256)) * 8])
    writer.trim("orders", 35)
    writer.commit(DeleteTopic(gone))
    del writer.topics["gone"]
    writer.commit(ConfigureTopic(orders, retention_size=123_456, retention_age_ms=None))
    # Another leader wins, and two entries that nobody committed are taken back.
    block = Block.from_records([b"never committed"])
    for _ in range(2):
        node.propose(Append(events, block), timestamp_ms=writer.now_ms)
    node.sync()
    node.take_back()
    node.elect(4)
    node.checkpoint()
    # What follows is in the journal and in the logs, and in no checkpoint yet.
    again = writer.open_producer(stamp.producer_id)
    writer.append("orders", [b"by the next epoch"], again)
    writer.append("default", [b"after the checkpoint"])
    writer.trim("default", 3)
    node.close()
    for topic in writer.topics.values():
        topic["records"] = topic["records"][topic["start_offset"] :]
    return {
        "version": __version__,
        "node_id": "n1",
        "term": node.term,
        "last_index": node.journal.last_index,
        "topics": writer.topics,
        "producers": {str(each): writer.producers[each] for each in writer.producers},
    }


def main(arguments: list[str]) -> None:
    path = Path(arguments[0]) if arguments else RELEASES / __version__
    if path.exists():
        shutil.rmtree(path)
    holds = write(path)
    path.with_name(path.name + ".json").write_text(json.dumps(holds, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
