"""What `distlog inspect` prints for people: what matters most first, one thing a line."""

from __future__ import annotations

from collections.abc import Iterator

from distlog.cli.member_listing import member_lines
from distlog.cli.producer_rows import producer_of
from distlog.cli.stopped_node import Look, TopicSurvey
from distlog.cli.stored_records import ShownBatch, ShownRecord
from distlog.cli.units import count_text, size_text, time_text
from distlog.consensus.checkpoint import CheckpointImage, TopicImage
from distlog.storage.survey import SegmentSurvey


def look_lines(look: Look) -> list[str]:
    """Return everything in short."""
    lines = _node_lines(look)
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


def _node_lines(look: Look) -> list[str]:
    directory, image, journal = look.directory, look.checkpoint, look.journal
    lines: list[str] = []
    if directory is not None:
        cluster = directory.cluster_id or "none yet"
        lines.append(f"node {directory.node_id}, directory {directory.directory_id}")
        lines.append(
            f"cluster {cluster}, voters {', '.join(sorted(directory.voters or {})) or '-'}"
        )
        at = "none yet"
        if image is not None:
            at = f"entry {image.raft_index} of term {image.term}, {time_text(image.now_ms)}"
        lines.append(f"checkpoint: {at}")
    if journal is not None:
        entries = f"entries {journal.first_index} to {journal.last_index}"
        lines.append(
            f"journal: {entries if journal.terms else 'no entries'}, {size_text(journal.size)}, "
            f"term {journal.term}, vote {journal.vote or '-'}"
        )
    return lines


def _topic_lines(topic: TopicSurvey) -> list[str]:
    lines = [f"{title(topic)}: {extent_text(topic)}"]
    return lines + [_segment_line(segment, topic.log.is_seed) for segment in topic.log.segments]


def _segment_line(segment: SegmentSurvey, is_seed: bool) -> str:
    parts = [count_text(segment.record_count, "record")]
    if not is_seed:
        parts.append(count_text(segment.batch_count, "batch", "batches"))
    parts.append(size_text(segment.store_size))
    if segment.first_entry and segment.last_entry:
        parts.append(_range_text("entry", "entries", segment.first_entry[0], segment.last_entry[0]))
        parts.append(_range_text("term", "terms", segment.first_entry[1], segment.last_entry[1]))
    if segment.first_timestamp_ms is not None and segment.last_timestamp_ms is not None:
        first, last = time_text(segment.first_timestamp_ms), time_text(segment.last_timestamp_ms)
        parts.append(first if first == last else f"{first} to {last}")
    return f"  {segment.base_offset:020d}  {', '.join(parts)}"


def _range_text(singular: str, plural: str, first: int, last: int) -> str:
    return f"{singular} {first}" if first == last else f"{plural} {first} to {last}"


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
        f"{count_text(len(log.segments), 'segment')}, {size_text(log.store_size)}"
    )


# --- What a flag asks for -------------------------------------------------------------------------


def batch_line(batch: ShownBatch) -> str:
    """Return one batch."""
    last = batch.next_offset - 1
    parts = [
        count_text(batch.record_count, "record"),
        f"{size_text(batch.size)} at byte {batch.position} of {batch.segment_base_offset:020d}.log",
        f"entry {batch.raft_index} of term {batch.term}",
        time_text(batch.timestamp_ms or 0),
    ]
    if batch.attributes:
        parts.append("with keys or headers")
    return f"{_range_text('offset', 'offsets', batch.base_offset, last)}: {', '.join(parts)}"


def record_lines(topic: TopicSurvey, record: ShownRecord) -> list[str]:
    """Return one record, bytes that are no text escaped."""
    batch = record.batch
    lines = [
        f"{title(topic)}, offset {record.offset}",
        f"  where: {record.path}, bytes {record.position} to {record.position + record.size - 1}",
    ]
    if batch.timestamp_ms is not None:
        within = _range_text("offset", "offsets", batch.base_offset, batch.next_offset - 1)
        lines.append(f"  batch: {within}, entry {batch.raft_index} of term {batch.term}")
        lines.append(f"  time: {time_text(batch.timestamp_ms)}")
    if record.is_whole is not None:
        said = (
            "right"
            if record.is_whole
            else "WRONG: what follows is not what was written, or a neighbour is not"
        )
        lines.append(f"  checksum of the batch: {said}")
    if record.key is not None:
        lines.append(f"  key: {bytes_text(record.key)}")
    lines += [f"  header {name}: {bytes_text(content)}" for name, content in record.headers]
    lines.append(f"  value, {count_text(len(record.value), 'byte')}: {bytes_text(record.value)}")
    return lines


def bytes_text(content: bytes) -> str:
    """Return bytes as text between quotes, what cannot be printed escaped."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return repr(content)[1:]
    return "'" + "".join(each if each.isprintable() else repr(each)[1:-1] for each in text) + "'"


def checkpoint_lines(look: Look) -> list[str]:
    """Return everything that the checkpoint says, but the producers one by one."""
    image = look.checkpoint
    if image is None:
        return ["there is no checkpoint"]
    configuration = image.configuration
    lines = [
        f"after entry {image.raft_index} of term {image.term} ({count_text(len(image.last.payload), 'byte')})",
        f"the entry before: {image.previous.raft_index} of term {image.previous.term} "
        f"({count_text(len(image.previous.payload), 'byte')})",
        f"replicated time: {time_text(image.now_ms)}",
        f"journal durable up to operation {image.durable_sequence}",
        f"cluster {configuration.cluster_id}",
    ]
    lines += member_lines(configuration)
    for topic in image.topics:
        lines += _image_lines(topic)
    lines.append(count_text(len(image.producer_rows), "producer"))
    # As lines of a policy file; subjects are printable, and have no blank.
    lines.append(f"policy of {count_text(len(image.policy.rules), 'rule')}")
    lines += [f"  {', '.join(rule.row)}" for rule in image.policy.rules]
    return lines


def _image_lines(topic: TopicImage) -> list[str]:
    mark, limits, kept = topic.mark, topic.limits, topic.retention
    retention = []
    if kept.size:
        retention.append(f"the newest {size_text(kept.size)}")
    if kept.age_ms:
        retention.append(f"what is younger than {kept.age_ms / 1000:g} s")
    return [
        f"topic {topic.name}, id {topic.topic_id}",
        f"  offsets from {mark.start_offset} to before {mark.next_offset}, the last of {time_text(mark.last_timestamp_ms)}",
        f"  active segment {mark.segment_base_offset:020d}, durable up to byte {mark.store_position}",
        f"  segments of {size_text(limits.store_size_max)} or {count_text(limits.row_count_max, 'record')}",
        f"  keeps {' and '.join(retention) or 'everything'}",
    ]


def producer_lines(look: Look) -> Iterator[str]:
    """Yield each producer of the checkpoint, the least recently used first."""
    image: CheckpointImage | None = look.checkpoint
    names = {topic.topic_id: topic.name for topic in image.topics} if image else {}
    if not image or not image.producer_rows:
        yield "the checkpoint knows no producers"
    for row in image.producer_rows if image else ():
        producer = producer_of(row)
        yield f"producer {producer.producer_id}, epoch {producer.epoch}, last used {time_text(producer.last_used_ms)}"
        for window in producer.windows:
            known = ", ".join(f"{each} at {offset}" for each, offset in window.offsets.items())
            name = names.get(window.topic_id, f"with id {window.topic_id}")
            yield f"  topic {name}: next sequence {window.next_sequence}; sequences {known or '-'}"
