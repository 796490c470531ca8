"""Show what a data directory holds, while no node runs on it.

PATH is a node's data directory, the directory of one log, or a directory of the seed system.
Nothing in it is changed. Without a flag: the node, its checkpoint and journal, and each topic's
segments. The flags show one thing each, in full.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from distlog.cli.arguments import count
from distlog.cli.inspect_json import (
    batch_json,
    look_json,
    producers_json,
    record_json,
)
from distlog.cli.inspect_lines import (
    batch_line,
    checkpoint_lines,
    look_lines,
    producer_lines,
    record_lines,
)
from distlog.cli.journal_listing import operation_json, operation_line, operations_of
from distlog.cli.stopped_node import Look, TopicSurvey, look_at
from distlog.cli.stored_records import batches_of, record_of
from distlog.consensus.state_machine import DEFAULT_TOPIC
from distlog.errors import ConfigurationInvalid, DataDirectoryUnusable, TopicNotFound
from distlog.storage.disk import Disk, RealDisk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the directory to look at")
    parser.add_argument(
        "--topic", help=f"of which topic to show batches or a record (default {DEFAULT_TOPIC})"
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--batches", action="store_true", help="each batch")
    one.add_argument(
        "--record", metavar="OFFSET", type=count, help="one record, with key and headers"
    )
    one.add_argument(
        "--checkpoint", action="store_true", help="everything that the checkpoint says"
    )
    one.add_argument("--journal", action="store_true", help="each operation of the journal")
    one.add_argument(
        "--producers", action="store_true", help="each producer that the checkpoint knows"
    )
    parser.add_argument(
        "--offsets", metavar="FIRST-LAST", help="with --batches: those that hold one of these"
    )
    parser.add_argument(
        "--raw", action="store_true", help="with --record: the bytes of its value and nothing else"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(namespace: argparse.Namespace) -> int:
    if namespace.raw and (namespace.record is None or namespace.json):
        raise ConfigurationInvalid("--raw", "goes with --record, and without --json")
    if namespace.offsets is not None and not namespace.batches:
        raise ConfigurationInvalid("--offsets", "goes with --batches")
    # A look may take long: what cannot be right is said before it.
    offsets(namespace.offsets)
    disk = RealDisk()
    look = look_at(disk, namespace.path, deep=False)
    if namespace.raw:
        record = record_of(disk, chosen(look, namespace.topic).log, namespace.record)
        sys.stdout.buffer.write(record.value)
        sys.stdout.buffer.flush()
    elif namespace.json:
        print(json.dumps(look_json(look) | asked_json(disk, look, namespace), indent=2))
    else:
        for line in asked_lines(disk, look, namespace):
            print(line)
    return 0


def asked_json(disk: Disk, look: Look, namespace: argparse.Namespace) -> dict[str, Any]:
    """Return what a flag asks for, under a name of its own."""
    if namespace.batches:
        topic = chosen(look, namespace.topic)
        batches = batches_of(disk, topic.log, *offsets(namespace.offsets))
        return {"batches": [batch_json(batch) for batch in batches]}
    if namespace.record is not None:
        topic = chosen(look, namespace.topic)
        return {"record": record_json(topic, record_of(disk, topic.log, namespace.record))}
    if namespace.journal:
        path = journal_path(look)
        return {"operations": [operation_json(path, each) for each in operations_of(disk, path)]}
    if namespace.producers:
        return {"producers": producers_json(look.checkpoint) if look.checkpoint else []}
    return {}


def asked_lines(disk: Disk, look: Look, namespace: argparse.Namespace) -> Iterable[str]:
    """Return what a person asked for; long lists one line after the other."""
    if namespace.batches:
        topic = chosen(look, namespace.topic)
        if topic.log.is_seed:
            return ["the seed system kept no batches"]
        return map(batch_line, batches_of(disk, topic.log, *offsets(namespace.offsets)))
    if namespace.record is not None:
        topic = chosen(look, namespace.topic)
        return record_lines(topic, record_of(disk, topic.log, namespace.record))
    if namespace.journal:
        return map(operation_line, operations_of(disk, journal_path(look)))
    if namespace.checkpoint:
        return checkpoint_lines(look)
    if namespace.producers:
        return producer_lines(look)
    return look_lines(look)


def chosen(look: Look, name: str | None) -> TopicSurvey:
    """Return the topic that `--topic` names; without it `default`, or the only log."""
    if name is None and len(look.topics) == 1:
        return look.topics[0]
    for topic in look.topics:
        if topic.name == (name or DEFAULT_TOPIC):
            return topic
    raise TopicNotFound(name or DEFAULT_TOPIC)


def offsets(text: str | None) -> tuple[int, int]:
    """Return the first offset of `--offsets` and one past the last."""
    if text is None:
        return 0, 1 << 64
    first, dash, last = text.partition("-")
    if first.isdecimal() and (last.isdecimal() or not dash):
        if last and int(last) < int(first):
            raise ConfigurationInvalid("--offsets", f"{text} ends before it begins")
        return int(first), int(last or first) + 1
    raise ConfigurationInvalid("--offsets", f"must be OFFSET or FIRST-LAST, not {text!r}")


def journal_path(look: Look) -> str:
    if look.directory is None:
        raise DataDirectoryUnusable(path=look.path, problem="it is one log, and has no journal")
    return look.directory.journal_path
