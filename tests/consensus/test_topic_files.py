"""What topics do to files, and when: nothing on the event loop waits for the disk, and a checkpoint makes up for it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from distlog.block import Block
from distlog.consensus.checkpoint import write_checkpoint
from distlog.consensus.commands import Append, CreateTopic, DeleteTopic, TrimTopic
from distlog.consensus.topics import Topics
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.states import CHECKPOINT, Replica

SMALL = SegmentLimits(store_size_max=4 << 10, row_count_max=16)
RECORD = Block.from_records([b"x" * 1_000])


def operations_of(disk: SimulatedDisk, action: Callable[[], object]) -> list[str]:
    """Return the operations on the disk that `action` does, without paths."""
    found: list[str] = []
    disk.hook = lambda operation, path: found.append(operation)
    action()
    disk.hook = None
    return found


def replica_on_a_disk() -> tuple[Replica, SimulatedDisk]:
    disk = SimulatedDisk()
    return Replica(disk), disk


def test_creating_and_deleting_topics_syncs_nothing() -> None:
    replica, disk = replica_on_a_disk()

    def live() -> None:
        replica.apply(CreateTopic("orders", SMALL))
        replica.apply(Append(2, RECORD))
        replica.apply(DeleteTopic(2))

    operations = operations_of(disk, live)
    assert "open" in operations
    assert not [each for each in operations if each.startswith("sync") or each == "remove"]


def test_a_topic_is_durable_with_the_checkpoint_that_first_has_it() -> None:
    for seed in range(30):
        replica, disk = replica_on_a_disk()
        replica.apply(CreateTopic("orders", SMALL))
        replica.apply(CreateTopic("bills", SMALL), Append(2, RECORD))
        replica.checkpoint()
        # Not in a checkpoint: whatever a power cut leaves of it, the journal brings it again.
        replica.apply(CreateTopic("late", SMALL))
        again = Replica(disk.crash(Random(seed)), replica.journal)
        names = [topic.name for topic in again.machine.topics()]
        assert names == ["default", "orders", "bills", "late"]
        assert again.records("orders") == [b"x" * 1_000]
        assert again.records("late") == []


def test_files_of_a_deleted_topic_go_by_what_checkpointed_returns_and_are_not_synced() -> None:
    replica, disk = replica_on_a_disk()
    replica.apply(CreateTopic("orders", SMALL))
    replica.apply(*[Append(2, RECORD)] * 3)
    replica.checkpoint()
    replica.apply(Append(2, RECORD))
    replica.apply(DeleteTopic(2))
    image = replica.capture()
    image.sync_logs()
    write_checkpoint(disk, CHECKPOINT, image)
    unlinks: list[Callable[[], None]] = []
    operations = operations_of(disk, lambda: unlinks.append(replica.machine.checkpointed(image)))
    assert operations == []
    assert operations_of(disk, unlinks[0]) == ["remove"] * 5, "three files, the mark, the directory"


def test_trimmed_segments_go_when_the_last_reader_has_gone_though_nothing_has_changed() -> None:
    replica, disk = replica_on_a_disk()
    for _ in range(10):
        replica.apply(CreateTopic("orders", SMALL))
        replica.apply(Append(2, RECORD))
    topic = replica.machine.topic_by_name("orders")
    assert topic is not None
    plan = topic.log.plan_read(0, 1)
    replica.apply(TrimTopic(2, 9))
    replica.checkpoint()
    assert len(topic.log.describe()) > 2, "a reader holds the first one"
    plan.release()
    replica.apply(CreateTopic("another", SMALL))
    operations = operations_of(disk, lambda: replica.checkpoint())
    assert operations.count("remove") >= 6
    assert len(topic.log.describe()) <= 2


def test_more_topics_than_may_have_files_open_are_written_to_and_a_checkpoint_is_due() -> None:
    disk = SimulatedDisk()
    disk.open_max = lambda: 60  # type: ignore[method-assign]
    disk.make_directory("topics")
    topics = Topics(disk, "topics")
    for number in range(1, 31):
        topics.create(number, f"t{number}", SMALL, number)
    assert not topics.is_short_of_files
    for turn in range(2):
        for topic in topics.by_id.values():
            assert topic.log.append(RECORD, timestamp_ms=1, raft_index=50, term=1) == turn
            topics.changed(topic, 50)
    assert topics.is_short_of_files
    images, syncs = topics.capture()
    assert not topics.is_short_of_files
    assert len(syncs) == 30 + 1, "the logs, and the names of their directories"
    for begin in syncs:
        begin()()
    topics.checkpointed(50, images)()
    survivor = Topics(disk.crash(Random(1)), "topics")
    survivor.restore(images)
    assert [topic.log.next_offset for topic in survivor.by_id.values()] == [2] * 30


def test_what_is_appended_after_the_capture_may_be_synced_with_it() -> None:
    replica, disk = replica_on_a_disk()
    replica.apply(Append(1, RECORD))
    image = replica.capture()
    begun = image.syncs[0]
    replica.apply(Append(1, RECORD))
    for begin in (begun, *image.syncs[1:]):
        begin()()
    write_checkpoint(disk, CHECKPOINT, image)
    replica.machine.checkpointed(image)()
    for seed in range(20):
        again = Replica(disk.crash(Random(seed)), replica.journal)
        assert again.records() == [b"x" * 1_000] * 2
        only = Replica(disk.crash(Random(seed)), replica.journal[: image.raft_index])
        assert only.records() == [b"x" * 1_000]


def test_a_state_that_was_closed_leaves_the_files_alone_that_took_its_place() -> None:
    replica, disk = replica_on_a_disk()
    replica.apply(Append(1, Block.from_records([b"x" * 1000])))
    replica.machine.close()
    assert operations_of(disk, replica.machine.close) == []
