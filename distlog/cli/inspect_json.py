"""What `distlog inspect --json` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from distlog.cli.json_fields import text_fields
from distlog.cli.member_listing import configuration_json
from distlog.cli.producer_rows import producer_of
from distlog.cli.stopped_node import Look, TopicSurvey
from distlog.cli.stored_records import ShownBatch, ShownRecord
from distlog.consensus.checkpoint import CheckpointImage, TopicImage
from distlog.consensus.journal import JournalEntry
from distlog.storage.invariants import Fault
from distlog.storage.survey import SegmentSurvey


def look_json(look: Look) -> dict[str, Any]:
    """Return everything but what is asked for by a flag: parts that the directory does not have are null."""
    return {
        "path": look.path,
        "node": _node_json(look),
        "checkpoint": None if look.checkpoint is None else _checkpoint_json(look.checkpoint),
        "journal": _journal_json(look),
        "topics": [topic_json(topic) for topic in look.topics],
        "faults": [fault_json(fault) for fault in look.all_faults()],
        "notes": look.all_notes(),
    }


def fault_json(fault: Fault) -> dict[str, Any]:
    """Return where something is wrong, and what."""
    return {
        "path": fault.path,
        "byte": fault.position,
        "offset": fault.offset,
        "invariant": fault.invariant.value,
        "problem": fault.problem,
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


def _checkpoint_json(image: CheckpointImage) -> dict[str, Any]:
    return {
        "raft_index": image.raft_index,
        "term": image.term,
        "now_ms": image.now_ms,
        "durable_sequence": image.durable_sequence,
        "cluster_id": image.configuration.cluster_id,
        "voters": dict(image.configuration.voters),
        "configuration": configuration_json(image.configuration),
        "previous_entry": _entry_json(image.previous),
        "last_entry": _entry_json(image.last),
        "topics": [_topic_image_json(topic) for topic in image.topics],
        "producer_count": len(image.producer_rows),
        "policy": [list(rule.row) for rule in image.policy.rules],
    }


def _entry_json(entry: JournalEntry) -> dict[str, Any]:
    return {"raft_index": entry.raft_index, "term": entry.term, "size": len(entry.payload)}


def _topic_image_json(topic: TopicImage) -> dict[str, Any]:
    return {
        "topic_id": topic.topic_id,
        "name": topic.name,
        "limits": dataclasses.asdict(topic.limits),
        "retention": dataclasses.asdict(topic.retention),
        "mark": topic.mark._asdict(),
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
        "operation_count": journal.operation_count,
        "first_sequence": journal.first_sequence,
        "last_sequence": journal.last_sequence,
        "durable_sequence": journal.durable_sequence,
        "files": [{"name": name, "size": size} for name, size in journal.files],
    }


def topic_json(topic: TopicSurvey) -> dict[str, Any]:
    """Return what there is of one log."""
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
    first, last = segment.first_entry or (None, None), segment.last_entry or (None, None)
    return {
        "base_offset": segment.base_offset,
        "next_offset": segment.next_offset,
        "batch_count": segment.batch_count,
        "store_size": segment.store_size,
        "first_timestamp_ms": segment.first_timestamp_ms,
        "last_timestamp_ms": segment.last_timestamp_ms,
        "first_raft_index": first[0],
        "last_raft_index": last[0],
        "first_term": first[1],
        "last_term": last[1],
    }


# --- What a flag asks for -------------------------------------------------------------------------


def batch_json(batch: ShownBatch) -> dict[str, Any]:
    return {**dataclasses.asdict(batch), "next_offset": batch.next_offset}


def record_json(topic: TopicSurvey, record: ShownRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "topic": topic.name,
        "offset": record.offset,
        "path": record.path,
        "byte": record.position,
        "size": record.size,
        "is_whole": record.is_whole,
        "batch": batch_json(record.batch),
    }
    if record.key is not None:
        fields |= text_fields("key", record.key)
    fields["headers"] = [
        {"name": name, **text_fields("value", content)} for name, content in record.headers
    ]
    return fields | text_fields("value", record.value)


def producers_json(image: CheckpointImage) -> list[dict[str, Any]]:
    return [dataclasses.asdict(producer_of(row)) for row in image.producer_rows]
