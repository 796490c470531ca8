"""Which files there are: a checkpoint decides what may go, and what a restart removes or cuts back."""

from __future__ import annotations

from random import Random

import pytest

from distlog.consensus.checkpoint import encode_checkpoint, write_checkpoint
from distlog.consensus.commands import CreateTopic, DeleteTopic, OpenProducer, TrimTopic
from distlog.consensus.state_machine import StateMachine
from distlog.errors import CorruptCheckpoint
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.entries import append
from tests.consensus.states import CHECKPOINT, TOPICS, Replica, files, logs_on_disk, topic_id

SMALL = SegmentLimits(4096, 16)


def test_where_a_checkpoint_falls_does_not_show_in_the_files() -> None:
    steady, checkpointed = Replica(), Replica()
    for number in range(40):
        for replica in (steady, checkpointed):
            replica.apply(append(b"%d" % number * 200), timestamp_ms=number)
        if number % 7 == 0:
            checkpointed.checkpoint()
    for replica in (steady, checkpointed):
        replica.checkpoint()
    assert files(steady).keys() == files(checkpointed).keys()
    for name, data in files(steady).items():
        if name.endswith((".log", ".idx", ".batch")):
            assert files(checkpointed)[name] == data


def test_a_deleted_topic_keeps_its_files_until_a_checkpoint_without_it_is_durable() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    replica.apply(append(b"x", topic_id=2))
    replica.checkpoint()
    replica.apply(DeleteTopic(2))
    image = replica.capture()
    assert len(logs_on_disk(replica)) == 2
    # Before the checkpoint is durable the topic may come back.
    before = Replica(replica.after_crash(Random(1)).disk, replica.journal[:3])
    assert before.records("orders") == [b"x"]
    image.sync_logs()
    replica.checkpoint()
    assert logs_on_disk(replica) == ["00000000000000000001"]


def test_a_topic_deleted_after_the_capture_keeps_its_files() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    image = replica.capture()
    replica.apply(DeleteTopic(2))
    replica.machine.checkpointed(image)()
    assert len(logs_on_disk(replica)) == 2
    replica.checkpoint()
    assert len(logs_on_disk(replica)) == 1


def test_trimmed_segments_go_after_a_checkpoint_and_not_while_they_are_read() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    for _ in range(6):
        replica.apply(append(bytes(3000), topic_id=2))
    topic = replica.machine.topic_by_id(2)
    assert topic is not None
    plan = topic.log.plan_read(0, 1)
    replica.apply(TrimTopic(2, 3))
    segments = len(topic.log.describe())
    replica.checkpoint()
    assert len(topic.log.describe()) == segments
    assert [len(batch.frames) for batch in plan.run()] == [3008]
    replica.apply(append(b"x"))
    replica.checkpoint()
    assert topic.log.describe()[0].base_offset == 3


def test_a_deleted_topic_goes_when_its_last_reader_has_finished() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    for _ in range(3):
        replica.apply(append(bytes(3000), topic_id=2))
    topic = replica.machine.topic_by_id(2)
    assert topic is not None
    plan = topic.log.plan_read(0, 1)
    replica.apply(DeleteTopic(2))
    replica.checkpoint()
    assert len(logs_on_disk(replica)) == 2
    assert plan.run()[0].base_offset == 0
    replica.checkpoint()
    assert len(logs_on_disk(replica)) == 1


def test_a_log_that_no_checkpoint_knows_is_removed_and_applied_again() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    replica.checkpoint()
    replica.apply(CreateTopic("orders", SMALL), append(b"y"))
    restarted = replica.after_kill()
    assert restarted.state() == replica.state()
    assert restarted.records() == [b"x", b"y"]
    # The creation was never committed: only this node had seen it, and that is over.
    forgotten = Replica(replica.after_kill().disk, replica.journal[:2])
    assert logs_on_disk(forgotten) == ["00000000000000000001"]
    assert forgotten.records() == [b"x"]


def test_what_else_lies_among_the_logs_is_left_alone() -> None:
    replica = Replica()
    replica.disk.open(f"{TOPICS}/notes", create=True).close()
    assert logs_on_disk(replica.after_kill()) == ["00000000000000000001", "notes"]


def test_a_journal_that_begins_late_without_a_checkpoint_costs_no_file() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    assert isinstance(replica.disk, SimulatedDisk)
    disk = replica.disk.kill()
    with pytest.raises(CorruptCheckpoint, match="begins at entry 5"):
        StateMachine.open(disk, TOPICS, None, journal_first_index=5)
    assert disk.list_directory(TOPICS) == ["00000000000000000001"]


def test_logs_that_outlived_checkpoint_and_journal_are_not_removed() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    replica.checkpoint()
    assert isinstance(replica.disk, SimulatedDisk)
    disk = replica.disk.kill()
    disk.remove(CHECKPOINT)
    with pytest.raises(CorruptCheckpoint, match="no checkpoint and no journal"):
        StateMachine.open(disk, TOPICS, None, journal_first_index=0)
    assert disk.list_directory(TOPICS) == ["00000000000000000001"]


def test_an_interrupted_first_start_is_begun_again() -> None:
    replica = Replica()
    # Applied before this node's own journal had it, and gone with the process: the leader sends it again.
    replica.apply(append(b"x"))
    assert isinstance(replica.disk, SimulatedDisk)
    machine = StateMachine.open(replica.disk.kill(), TOPICS, None, journal_first_index=0)
    assert [topic.log.next_offset for topic in machine.topics()] == [0]


def test_a_checkpoint_syncs_only_what_changed_since_the_last_one() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL), CreateTopic("bills", SMALL))
    assert len(replica.checkpoint().syncs) == 3 + 1, (
        "three logs, and the names of their directories"
    )
    replica.apply(append(b"x", topic_id=2))
    assert len(replica.checkpoint().syncs) == 1
    replica.apply(OpenProducer(0))
    assert len(replica.checkpoint().syncs) == 0


def test_what_changed_while_a_checkpoint_was_written_is_synced_by_the_next_one() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    image = replica.capture()
    replica.apply(append(b"y"))
    image.sync_logs()
    write_checkpoint(replica.disk, CHECKPOINT, image)
    replica.machine.checkpointed(image)()
    assert len(replica.checkpoint().syncs) == 1


def test_what_a_given_up_checkpoint_would_have_synced_the_next_one_syncs() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    replica.capture()
    replica.apply(append(b"y"))
    replica.checkpoint()
    assert replica.after_crash(Random(3)).records() == [b"x", b"y"]


def test_the_state_differs_between_nodes_only_in_what_the_journal_of_each_has_synced() -> None:
    some, other = Replica(), Replica()
    for replica in (some, other):
        replica.apply(append(b"x"), OpenProducer(0))
    first, second = some.capture(durable_sequence=5), other.capture(durable_sequence=9)
    assert encode_checkpoint(first)[1:] != encode_checkpoint(second)[1:]
    assert encode_checkpoint(first)[2:] == encode_checkpoint(second)[2:]


def test_a_topic_is_in_entry_checkpoint_and_directory_by_the_same_id() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    replica.apply(CreateTopic("orders", SMALL))
    orders = topic_id(replica, "orders")
    image = replica.checkpoint()
    assert [(topic.topic_id, topic.name) for topic in image.topics] == [
        (1, "default"),
        (orders, "orders"),
    ]
    assert logs_on_disk(replica) == [f"{number:020d}" for number in (1, orders)]
    replica.apply(append(b"y", topic_id=orders))
    assert replica.after_kill().records("orders") == [b"y"]
