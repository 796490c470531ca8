"""What the entries mean: topics, their logs, and the producers that wrote to them.

`apply` is the only writer of the logs.  It uses no clock, no randomness and no local setting, so nodes that applied the
same entries have the same bytes, on disk and in their checkpoints.  What can be refused is refused by one function, `check`:
the leader asks it before it proposes, and `apply` asks it again, because only there everything before is known.  A refusal is a
result like any other; an exception out of here means that this node cannot go on.

    entry -> decode_entry -> apply -> check -> logs, producer table -> results
    capture -> CheckpointImage -> (worker: syncs, write_checkpoint) -> checkpointed -> files go
    read_checkpoint -> open: logs cut back to their marks -> apply what the journal has beyond
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from distlog.block import ATTRIBUTES_KNOWN, PREFIX_SIZE, Block
from distlog.consensus.checkpoint import CheckpointImage
from distlog.consensus.commands import (
    NO_OP,
    Append,
    ChangePolicy,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    Entry,
    OpenProducer,
    OtherCommand,
    TrimTopic,
    decode_entry,
)
from distlog.consensus.configuration import (
    Configuration,
    decode_configuration_entry,
    is_configuration,
)
from distlog.consensus.journal import JournalEntry
from distlog.consensus.policy_changes import check_change
from distlog.consensus.producers import ProducerTable
from distlog.consensus.results import (
    AppendResult,
    PolicyChanged,
    ProducerOpened,
    Result,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from distlog.consensus.topics import Topic, Topics, synced_log
from distlog.errors import (
    CorruptCheckpoint,
    DistlogError,
    InvalidRequest,
    OffsetOutOfRange,
    Overloaded,
    RecordTooLarge,
    TopicExists,
    TopicNotFound,
)
from distlog.security.policy import NO_POLICY, Policy
from distlog.storage.disk import Disk
from distlog.storage.retention import Retention
from distlog.storage.segment_files import SegmentLimits

__all__ = [
    "AppendResult",
    "ProducerOpened",
    "Result",
    "StateMachine",
    "Topic",
    "TopicConfigured",
    "TopicCreated",
    "TopicDeleted",
    "TopicTrimmed",
]

# All of these are part of the replicated format: nodes that differ in one of them diverge.
DEFAULT_TOPIC = "default"
# Entry 1 is the no-op that every journal begins with; the default topic comes with it.
FIRST_INDEX = 1
DEFAULT_LIMITS = SegmentLimits(store_size_max=64 << 20, row_count_max=1 << 20)
TOPIC_COUNT_MAX = 10_000
TOPIC_ID_SHIFT = 48
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
STORE_SIZE_RANGE = range(4 << 10, (1 << 30) + 1)
ROW_COUNT_RANGE = range(16, (16 << 20) + 1)
# Bytes and milliseconds: about 4,600 PB, and 146 million years.
RETENTION_RANGE = range((1 << 62) + 1)
RECORD_SIZE_MAX = 32 << 20
# Appends of one entry are stored as one batch up to this size.
BATCH_SIZE_MAX = 4 << 20


@dataclass(slots=True, eq=False)
class _Run:
    """Accepted appends of one entry to one topic that become one batch."""

    topic: Topic
    next_offset: int
    blocks: list[Block] = field(default_factory=list)
    size: int = 0


class StateMachine:
    """The state of one group on one node.  All calls on the event loop."""

    def __init__(self, topics: Topics, producers: ProducerTable) -> None:
        """Use `open`."""
        self._topics = topics
        self._is_closed = False
        self.producers = producers
        # Who may do what.  Replaced as a whole; `policy_changed` is called then.
        self.policy: Policy = NO_POLICY
        self.policy_changed: Callable[[], None] = _ignore
        # The entry that this is the state after.
        self.last_applied_index = FIRST_INDEX
        self.last_applied_term = 0
        # What was appended here since the start, replays of the journal included.
        self.appended_batch_count = self.appended_record_count = self.appended_size = 0
        # Of the entry being applied: the batches that it will become, by topic id, and the topics that it has created.
        self._runs: dict[int, _Run] = {}
        self._created_count = 0

    # --- Open and close --------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        disk: Disk,
        topics_path: str,
        image: CheckpointImage | None,
        *,
        journal_first_index: int,
        tell: Callable[[str], None] = lambda _words: None,
    ) -> StateMachine:
        """Return the state as the checkpoint has it; None: as it was before the first entry of anybody.

        tell(words): called with how far that is.

        Files of anything newer are cut back or removed, to be applied again from the journal, which begins at
        `journal_first_index` (0: it is empty).  Raises CorruptCheckpoint if they would be lost by that, nothing being
        removed then, and CorruptBatch if the segment in which a log ends is not what the checkpoint says.
        """
        disk.make_directory(topics_path)
        topics = Topics(disk, topics_path)
        if image is None:
            _require_all_entries(disk, topics_path, journal_first_index)
            topics.restore(())
            topics.create(FIRST_INDEX, DEFAULT_TOPIC, DEFAULT_LIMITS, FIRST_INDEX)
            return cls(topics, ProducerTable(topics.by_id))
        topics.restore(image.topics, tell)
        producers = ProducerTable.restore(topics.by_id, image.producer_rows, image.now_ms)
        machine = cls(topics, producers)
        machine.last_applied_index, machine.last_applied_term = image.raft_index, image.term
        machine.policy = image.policy
        return machine

    def close(self) -> None:
        """Close every log, once.  What is not in a checkpoint is applied again at the next start."""
        if not self._is_closed:
            # A second time the files may be those of another state already.
            self._is_closed = True
            self._topics.close()

    # --- What there is ---------------------------------------------------------------------------

    def topics(self) -> Collection[Topic]:
        """Return all topics, in the order of their creation."""
        return self._topics.by_id.values()

    def topic_by_id(self, topic_id: int) -> Topic | None:
        return self._topics.by_id.get(topic_id)

    def topic_by_name(self, name: str) -> Topic | None:
        return self._topics.by_name.get(name)

    # --- Check -----------------------------------------------------------------------------------

    def check(
        self, command: Command, expected: int | None = None
    ) -> AppendResult | DistlogError | None:
        """Tell what applying `command` now would come to: None, it changes the state; an AppendResult, it repeats what was
        applied already; or the error that refuses it.

        `expected` is the producer's next sequence after those in flight (see `Admission`); `apply` gives none.
        """
        match command:
            case Append():
                return self._check_append(command, expected)
            case OpenProducer(producer_id):
                return self.producers.check_open(producer_id)
            case CreateTopic():
                return self._check_create(command)
            case ConfigureTopic():
                return self._check_configure(command)
            case ChangePolicy():
                return check_change(self.policy, command)
            case TrimTopic(topic_id, start_offset):
                return self._check_trim(topic_id, start_offset)
            case DeleteTopic(topic_id):
                return self._check_delete(topic_id)

    def _check_append(
        self, command: Append, expected: int | None
    ) -> AppendResult | DistlogError | None:
        block = command.block
        if command.topic_id not in self._topics.by_id:
            return _not_found(command.topic_id)
        if block.attributes & ~ATTRIBUTES_KNOWN:
            return InvalidRequest("attributes", f"unknown attributes {block.attributes:#x}")
        # Only a block that is larger than a record may be can hold one that is.
        if block.size > RECORD_SIZE_MAX + PREFIX_SIZE:
            record_size = int(block.lengths.max())
            if record_size > RECORD_SIZE_MAX:
                return RecordTooLarge(record_size, RECORD_SIZE_MAX)
        if command.producer is None:
            return None
        found = self.producers.check(command.producer, command.topic_id, expected)
        if isinstance(found, int):
            return AppendResult(found, block.record_count, duplicate=True)
        return found

    def _check_create(self, command: CreateTopic) -> DistlogError | None:
        name, limits, retention = command.name, command.limits, command.retention
        if not TOPIC_NAME.fullmatch(name) or name in (".", ".."):
            return InvalidRequest(
                "topic",
                "a name is 1 to 249 of the characters A-Z a-z 0-9 . _ - and neither '.' nor '..'",
            )
        if name in self._topics.by_name:
            return TopicExists(name)
        refused = _check_range("segment_size_max", limits.store_size_max, STORE_SIZE_RANGE)
        refused = refused or _check_range(
            "segment_record_count_max", limits.row_count_max, ROW_COUNT_RANGE
        )
        refused = refused or _check_retention(retention.size, retention.age_ms)
        if refused is not None:
            return refused
        if len(self._topics.by_id) >= TOPIC_COUNT_MAX:
            return Overloaded("topics of the cluster", TOPIC_COUNT_MAX)
        return None

    def _check_configure(self, command: ConfigureTopic) -> DistlogError | None:
        if command.topic_id not in self._topics.by_id:
            return _not_found(command.topic_id)
        if command.retention_size is None and command.retention_age_ms is None:
            return InvalidRequest("retention", "nothing is to be changed: name a size or an age")
        return _check_retention(command.retention_size or 0, command.retention_age_ms or 0)

    def _check_trim(self, topic_id: int, start_offset: int) -> DistlogError | None:
        topic = self._topics.by_id.get(topic_id)
        if topic is None:
            return _not_found(topic_id)
        log = topic.log
        if start_offset > log.next_offset:
            return OffsetOutOfRange(start_offset, log.start_offset, log.next_offset)
        return None

    def _check_delete(self, topic_id: int) -> DistlogError | None:
        topic = self._topics.by_id.get(topic_id)
        if topic is None:
            return _not_found(topic_id)
        if topic.name == DEFAULT_TOPIC:
            return InvalidRequest("topic", f"{DEFAULT_TOPIC!r} always exists: trim it instead")
        return None

    # --- Apply -----------------------------------------------------------------------------------

    def apply_payload(self, raft_index: int, term: int, payload: bytes) -> list[Result]:
        """Apply a committed entry as the journal has it; a no-op has no results.

        Raises EntryUnknown or EntryCorrupt, nothing being applied: the node must stop.
        """
        if payload == NO_OP:
            self.apply_nothing(raft_index, term)
            return []
        if is_configuration(payload):
            # It has been in force since it was appended.  Its time counts as any entry's.
            _, timestamp_ms = decode_configuration_entry(payload, raft_index)
            self.apply_nothing(raft_index, term)
            self.producers.advance(timestamp_ms)
            return []
        return self.apply(raft_index, term, decode_entry(payload))

    def apply_nothing(self, raft_index: int, term: int) -> None:
        """Pass over an entry that concerns only Raft."""
        assert raft_index == self.last_applied_index + 1, "entries are applied in order, once"
        self.last_applied_index, self.last_applied_term = raft_index, term

    def apply(self, raft_index: int, term: int, entry: Entry) -> list[Result]:
        """Apply the next committed entry and return one result for each command, in order.

        Never raises for anything that an entry can hold.  The disk's errors pass: the node must stop.
        """
        self.apply_nothing(raft_index, term)
        self.producers.advance(entry.timestamp_ms)
        self._created_count = 0
        results: list[Result] = []
        for position, command in enumerate(entry.commands):
            if isinstance(command, Append):
                results.append(self._apply_append(command, entry.timestamp_ms))
            else:
                self._write_runs(entry.timestamp_ms)
                results.append(self._apply_other(command, position))
        self._write_runs(entry.timestamp_ms)
        return results

    def _apply_append(self, command: Append, timestamp_ms: int) -> Result:
        refused = self._check_append(command, None)
        if refused is not None:
            return refused
        block = command.block
        run = self._runs.get(command.topic_id)
        if run is not None and not _fits(run, block):
            self._write_run(self._runs.pop(command.topic_id), timestamp_ms)
            run = None
        if run is None:
            topic = self._topics.by_id[command.topic_id]
            run = self._runs[command.topic_id] = _Run(topic, topic.log.next_offset)
        base_offset = run.next_offset
        run.blocks.append(block)
        run.size += block.size
        run.next_offset += block.record_count
        if command.producer is not None:
            self.producers.record(command.producer, command.topic_id, base_offset)
        return AppendResult(base_offset, block.record_count, duplicate=False)

    def _write_runs(self, timestamp_ms: int) -> None:
        if self._runs:
            for run in self._runs.values():
                self._write_run(run, timestamp_ms)
            self._runs.clear()

    def _write_run(self, run: _Run, timestamp_ms: int) -> None:
        block = Block.join(run.blocks)
        run.topic.log.append(
            block,
            timestamp_ms=timestamp_ms,
            raft_index=self.last_applied_index,
            term=self.last_applied_term,
        )
        self._topics.changed(run.topic, self.last_applied_index)
        assert run.topic.log.next_offset == run.next_offset, "the log took what was promised"
        self.appended_batch_count += 1
        self.appended_record_count += block.record_count
        self.appended_size += block.size

    def _apply_other(self, command: OtherCommand, position: int) -> Result:
        refused = self.check(command)
        if refused is not None:
            return refused
        match command:
            case CreateTopic(name, limits, retention):
                # Almost always the raft index; further ones of the same entry are told apart above any index.
                topic_id = self.last_applied_index + (self._created_count << TOPIC_ID_SHIFT)
                self._created_count += 1
                self._topics.create(topic_id, name, limits, self.last_applied_index, retention)
                return TopicCreated(topic_id)
            case ConfigureTopic():
                return self._apply_configure(command)
            case ChangePolicy():
                return self._apply_policy(command)
            case TrimTopic(topic_id, start_offset):
                topic = self._topics.by_id[topic_id]
                topic.log.trim(start_offset)
                self._topics.changed(topic, self.last_applied_index)
                return TopicTrimmed(topic.log.start_offset)
            case DeleteTopic(topic_id):
                self._topics.delete(topic_id, self.last_applied_index)
                return TopicDeleted(topic_id)
            case OpenProducer(producer_id):
                new_id = self.last_applied_index << 16 | position
                return ProducerOpened(*self.producers.open(producer_id, new_id))

    def _apply_configure(self, command: ConfigureTopic) -> TopicConfigured:
        topic = self._topics.by_id[command.topic_id]
        size, age_ms = command.retention_size, command.retention_age_ms
        topic.retention = Retention(
            topic.retention.size if size is None else size,
            topic.retention.age_ms if age_ms is None else age_ms,
        )
        self._topics.changed(topic, self.last_applied_index)
        return TopicConfigured(topic.retention)

    def _apply_policy(self, command: ChangePolicy) -> PolicyChanged:
        before, policy = self.policy, self.policy.changed(command.added, command.removed)
        self.policy = policy
        self.policy_changed()
        old, new = set(before.rules), set(policy.rules)
        return PolicyChanged(len(policy), len(new - old), len(old - new))

    def close_idle_files(self) -> None:
        """Close the files that nobody uses at the moment, for want of descriptors.  From any thread."""
        self._topics.close_idle_files()

    def drop_idle_files(self, path: str) -> None:
        """Close what nobody uses of the segment with this store: its files were replaced.  From any thread."""
        self._topics.drop_idle_files(path)

    def take_damaged(self) -> set[str]:
        """Return the paths of the stores in which a read found a changed batch since the last call."""
        return self._topics.take_damaged()

    @property
    def is_short_of_files(self) -> bool:
        """Tell whether more logs are written to than may have files open before they are synced: a checkpoint is due."""
        return self._topics.is_short_of_files

    # --- Checkpoint ------------------------------------------------------------------------------

    def capture(
        self,
        *,
        previous: JournalEntry,
        last: JournalEntry,
        configuration: Configuration,
        durable_sequence: int,
    ) -> CheckpointImage:
        """Return the state as it is now, after the entry `last`, with `previous` the one before it.

        One at a time: the image is written, or given up, before the next capture.
        """
        assert last.raft_index == self.last_applied_index == previous.raft_index + 1
        assert last.term == self.last_applied_term
        topics, syncs = self._topics.capture()
        return CheckpointImage(
            previous=previous,
            last=last,
            configuration=configuration,
            durable_sequence=durable_sequence,
            now_ms=self.producers.now_ms,
            topics=topics,
            producer_rows=self.producers.capture(),
            policy=self.policy,
            syncs=syncs,
        )

    def checkpointed(self, image: CheckpointImage) -> Callable[[], None]:
        """Let go of the files that only an older checkpoint needed: `image` is durable.

        What a reader holds stays until the next time, which may come with the same image; `are_files_held` tells.  Returns a
        function that unlinks them: run it in a worker, once.
        """
        return self._topics.checkpointed(image.raft_index, image.topics)

    @property
    def are_files_held(self) -> bool:
        """Tell whether a reader kept files that the last `checkpointed` would have let go of."""
        return self._topics.are_files_held


def _ignore() -> None:
    """Nobody has asked to be told."""


def _require_all_entries(disk: Disk, path: str, journal_first_index: int) -> None:
    """Refuse to begin from nothing where the journal cannot bring back what the logs hold."""
    if journal_first_index > FIRST_INDEX:
        problem = f"there is no checkpoint, and the journal begins at entry {journal_first_index}"
        raise CorruptCheckpoint(path, problem)
    synced = synced_log(disk, path) if journal_first_index == 0 else None
    if synced is not None:
        raise CorruptCheckpoint(
            synced, "it holds records, and there is no checkpoint and no journal"
        )


def _fits(run: _Run, block: Block) -> bool:
    same = run.blocks[0].attributes == block.attributes
    return same and run.size + block.size <= BATCH_SIZE_MAX


def _check_range(field_name: str, value: int, allowed: range) -> InvalidRequest | None:
    if value in allowed:
        return None
    return InvalidRequest(field_name, f"{value} is not in [{allowed.start}, {allowed.stop - 1}]")


def _check_retention(size: int, age_ms: int) -> InvalidRequest | None:
    refused = _check_range("retention_size", size, RETENTION_RANGE)
    return refused or _check_range("retention_age_ms", age_ms, RETENTION_RANGE)


def _not_found(topic_id: int) -> TopicNotFound:
    # By its id: the name may belong to another topic by now.
    return TopicNotFound(f"id {topic_id}")
