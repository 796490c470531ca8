"""Show what a data directory holds, while no node runs on it.

PATH is a node's data directory, the directory of one log, or a directory of the seed system.
Nothing in it is changed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from distlog.cli.stopped_node import Look, TopicSurvey, look_at
from distlog.storage.disk import RealDisk
from distlog.storage.survey import SegmentSurvey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the directory to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(namespace: argparse.Namespace) -> int:
    look = look_at(RealDisk(), namespace.path, deep=False)
    if namespace.json:
        print(json.dumps(as_json(look), indent=2))
    else:
        print("\n".join(as_lines(look)))
    return 0


# --- JSON -----------------------------------------------------------------------------------------


def as_json(look: Look) -> dict[str, Any]:
    """Return what `--json` prints: parts that the directory does not have are null."""
    return {
        "path": look.path,
        "node": _node_json(look),
        "checkpoint": _checkpoint_json(look),
        "journal": _journal_json(look),
        "topics": [_topic_json(topic) for topic in look.topics],
        "faults": [
            {"path": fault.path, "position": fault.position, "problem": fault.problem}
            for fault in look.all_faults()
        ],
        "notes": look.all_notes(),
    }


def _node_json(look: Look) -> dict[str, Any] | None:
    directory = look.directory
    if directory is None:
        return None
    return {
        "node_id": directory.node_id,
        "directory_id": directory.directory_id,
        "cluster_id": directory.cluster_id,
        "voters": directory.voters,
    }


def _checkpoint_json(look: Look) -> dict[str, Any] | None:
    image = look.checkpoint
    if image is None:
        return None
    return {
        "raft_index": image.raft_index,
        "term": image.term,
        "now_ms": image.now_ms,
        "producer_count": len(image.producer_rows),
    }


def _journal_json(look: Look) -> dict[str, Any] | None:
    journal = look.journal
    if journal is None:
        return None
    return {
        "first_index": journal.first_index,
        "last_index": journal.last_index,
        "term": journal.term,
        "vote": journal.vote,
        "size": journal.size,
    }


def _topic_json(topic: TopicSurvey) -> dict[str, Any]:
    log = topic.log
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "path": log.path,
        "format": "seed" if log.is_seed else "distlog",
        "start_offset": log.start_offset,
        "next_offset": log.next_offset,
        "synced_offset": log.promised_offset,
        "store_size": log.store_size,
        "segments": [_segment_json(segment) for segment in log.segments],
    }


def _segment_json(segment: SegmentSurvey) -> dict[str, Any]:
    return {
        "base_offset": segment.base_offset,
        "next_offset": segment.next_offset,
        "batch_count": segment.batch_count,
        "store_size": segment.store_size,
        "first_timestamp_ms": segment.first_timestamp_ms,
        "last_timestamp_ms": segment.last_timestamp_ms,
    }


# --- For people -----------------------------------------------------------------------------------


def as_lines(look: Look) -> list[str]:
    """Return what a person reads."""
    lines: list[str] = []
    directory, image, journal = look.directory, look.checkpoint, look.journal
    if directory is not None:
        cluster = directory.cluster_id or "none yet"
        lines.append(f"node {directory.node_id}, directory {directory.directory_id}")
        lines.append(
            f"cluster {cluster}, voters {', '.join(sorted(directory.voters or {})) or '-'}"
        )
        at = f"entry {image.raft_index} of term {image.term}" if image else "none yet"
        lines.append(f"checkpoint: {at}")
    if journal is not None:
        entries = f"entries {journal.first_index} to {journal.last_index}"
        lines.append(
            f"journal: {entries if journal.terms else 'no entries'}, {size_text(journal.size)}, "
            f"term {journal.term}, vote {journal.vote or '-'}"
        )
    for topic in look.topics:
        if lines:
            lines.append("")
        lines += _topic_lines(topic)
    lines += [f"note: {note}" for note in look.all_notes()]
    lines += [
        f"fault: {fault.path} at byte {fault.position}: {fault.problem}"
        for fault in look.all_faults()
    ]
    if look.all_faults():
        lines.append(f"check everything with: distlog verify {look.path}")
    return lines


def _topic_lines(topic: TopicSurvey) -> list[str]:
    log = topic.log
    lines = [f"{title(topic)}: {extent_text(topic)}"]
    for segment in log.segments:
        batches = "" if log.is_seed else f", {count_text(segment.batch_count, 'batch', 'batches')}"
        lines.append(
            f"  {segment.base_offset:020d}  {count_text(segment.record_count, 'record', 'records')}"
            f"{batches}, {size_text(segment.store_size)}"
        )
    return lines


def title(topic: TopicSurvey) -> str:
    """Return what a person knows a log by."""
    if topic.topic_id is None:
        return "a log of the seed system" if topic.log.is_seed else "a log"
    return f"topic {topic.name}" if topic.name else f"a topic with id {topic.topic_id}"


def extent_text(topic: TopicSurvey) -> str:
    """Return what a log holds, in words."""
    log = topic.log
    if log.next_offset == log.start_offset:
        return f"no records, next offset {log.next_offset}"
    return (
        f"offsets {log.start_offset} to {log.next_offset - 1} in "
        f"{count_text(len(log.segments), 'segment', 'segments')}, {size_text(log.store_size)}"
    )


def count_text(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"


def size_text(size: int) -> str:
    """Return a number of bytes as a person reads it."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
