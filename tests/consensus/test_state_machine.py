"""What entries mean: the same on every node, the same after a restart, and never an exception."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.block import Block
from distlog.consensus.commands import (
    Append,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    Entry,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
    encode_entry,
)
from distlog.consensus.journal import JournalEntry
from distlog.consensus.results import (
    AppendResult,
    ProducerOpened,
    TopicConfigured,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from distlog.consensus.state_machine import BATCH_SIZE_MAX, RECORD_SIZE_MAX, StateMachine
from distlog.errors import (
    DistlogError,
    EntryCorrupt,
    EntryUnknown,
    InvalidRequest,
    OffsetOutOfRange,
    OutOfSequence,
    Overloaded,
    ProducerUnknown,
    RecordTooLarge,
    TopicExists,
    TopicNotFound,
)
from distlog.storage.log import StoredBatch
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.entries import append, blocks, comparable
from tests.consensus.states import NO_OP, TOPICS, Replica, files, logs_on_disk

SMALL = SegmentLimits(4096, 16)


def batches(replica: Replica, name: str = "default") -> list[StoredBatch]:
    topic = replica.machine.topic_by_name(name)
    assert topic is not None
    return topic.log.read(topic.log.start_offset, 1 << 30)


# --- Topics ---------------------------------------------------------------------------------------


def test_a_fresh_state_has_the_default_topic_and_nothing_in_it() -> None:
    replica = Replica()
    (topic,) = replica.machine.topics()
    assert (topic.topic_id, topic.name, topic.log.next_offset) == (1, "default", 0)
    assert (replica.machine.last_applied_index, replica.machine.last_applied_term) == (1, 0)
    assert logs_on_disk(replica) == ["00000000000000000001"]


def test_a_topics_id_is_the_index_of_the_entry_that_created_it() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    assert replica.apply(CreateTopic("orders", SMALL)) == [TopicCreated(3)]
    assert replica.apply(append(b"y", topic_id=3)) == [AppendResult(0, 1, False)]
    assert replica.records("orders") == [b"y"]
    assert replica.records() == [b"x"]


def test_topics_created_by_one_entry_have_ids_of_their_own() -> None:
    replica = Replica()
    results = replica.apply(CreateTopic("a", SMALL), CreateTopic("b", SMALL))
    assert results == [TopicCreated(2), TopicCreated(2 + (1 << 48))]
    assert logs_on_disk(replica)[1:] == ["00000000000000000002", "00000281474976710658"]


def test_a_topic_created_again_under_its_name_is_another_one_and_empty() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    replica.apply(append(b"old", topic_id=2))
    assert replica.apply(DeleteTopic(2)) == [TopicDeleted(2)]
    assert replica.machine.topic_by_name("orders") is None
    assert replica.apply(CreateTopic("orders", SMALL)) == [TopicCreated(5)]
    (refused,) = replica.apply(append(b"late", topic_id=2))
    assert isinstance(refused, TopicNotFound)
    assert replica.records("orders") == []


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "default2"])
def test_a_legal_topic_name_is_taken(name: str) -> None:
    assert Replica().machine.check(CreateTopic(name, SMALL)) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "x" * 250, "a b", "a/b", "ä", "a\n", "\x00", "a" * 70_000]
)
def test_illegal_topic_names_are_refused(name: str) -> None:
    replica = Replica()
    (refused,) = replica.apply(CreateTopic(name, SMALL))
    assert isinstance(refused, InvalidRequest)
    assert refused.field == "topic"
    assert len(replica.machine.topics()) == 1


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (SegmentLimits(4095, 16), "segment_size_max"),
        (SegmentLimits((1 << 30) + 1, 16), "segment_size_max"),
        (SegmentLimits(4096, 15), "segment_record_count_max"),
        (SegmentLimits(4096, (16 << 20) + 1), "segment_record_count_max"),
    ],
)
def test_segment_limits_that_no_disk_would_like_are_refused(
    limits: SegmentLimits, field: str
) -> None:
    (refused,) = Replica().apply(CreateTopic("orders", limits))
    assert isinstance(refused, InvalidRequest)
    assert refused.field == field


def test_a_name_that_is_taken_is_refused() -> None:
    (refused,) = Replica().apply(CreateTopic("default", SMALL))
    assert isinstance(refused, TopicExists)


def test_the_number_of_topics_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distlog.consensus.state_machine.TOPIC_COUNT_MAX", 2)
    created, refused = Replica().apply(CreateTopic("a", SMALL), CreateTopic("b", SMALL))
    assert isinstance(created, TopicCreated)
    assert isinstance(refused, Overloaded)


def test_the_default_topic_always_exists() -> None:
    (refused,) = Replica().apply(DeleteTopic(1))
    assert isinstance(refused, InvalidRequest)


@pytest.mark.parametrize(
    "command", [append(b"x", topic_id=9), TrimTopic(9, 0), DeleteTopic(9), ConfigureTopic(9, 1, 1)]
)
def test_a_topic_that_does_not_exist_is_refused(command: Command) -> None:
    (refused,) = Replica().apply(command)
    assert isinstance(refused, TopicNotFound)


# --- What is kept ---------------------------------------------------------------------------------


def retention_of(replica: Replica, name: str = "default") -> Retention:
    topic = replica.machine.topic_by_name(name)
    assert topic is not None
    return topic.retention


def test_a_topic_keeps_everything_unless_it_is_told_otherwise() -> None:
    replica = Replica()
    replica.apply(CreateTopic("some", SMALL), CreateTopic("few", SMALL, Retention(100, 200)))
    assert retention_of(replica) == retention_of(replica, "some") == KEEP_ALL
    assert retention_of(replica, "few") == Retention(100, 200)


def test_a_configuration_changes_what_it_names_and_leaves_the_rest() -> None:
    replica = Replica()
    configured = [
        replica.apply(ConfigureTopic(1, size, age_ms))
        for size, age_ms in ((5, None), (None, 7), (6, 8), (0, None), (None, 0))
    ]
    expected = [(5, 0), (5, 7), (6, 8), (0, 8), (0, 0)]
    assert configured == [[TopicConfigured(Retention(*each))] for each in expected]


def test_a_configuration_outlives_a_checkpoint_and_a_restart() -> None:
    replica = Replica()
    replica.apply(CreateTopic("few", SMALL, Retention(100, 200)), ConfigureTopic(1, 5, None))
    replica.checkpoint()
    replica.apply(ConfigureTopic(1, None, 7))
    for restarted in (replica.after_kill(), replica.after_crash(Random(1))):
        assert retention_of(restarted) == Retention(5, 7)
        assert retention_of(restarted, "few") == Retention(100, 200)
        assert restarted.state() == replica.state()


def test_a_configuration_cuts_nothing_by_itself() -> None:
    replica = Replica()
    replica.apply(append(b"x"), ConfigureTopic(1, 1, 1), append(b"y"))
    assert replica.records() == [b"x", b"y"]


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (ConfigureTopic(1, None, None), "retention"),
        (ConfigureTopic(1, (1 << 62) + 1, None), "retention_size"),
        (ConfigureTopic(1, None, (1 << 62) + 1), "retention_age_ms"),
        (CreateTopic("few", SMALL, Retention(size=1 << 63)), "retention_size"),
        (CreateTopic("few", SMALL, Retention(age_ms=1 << 63)), "retention_age_ms"),
    ],
)
def test_a_retention_that_means_nothing_is_refused(command: Command, field: str) -> None:
    replica = Replica()
    (refused,) = replica.apply(command)
    assert isinstance(refused, InvalidRequest)
    assert refused.field == field
    assert retention_of(replica) == KEEP_ALL


# --- Trim -----------------------------------------------------------------------------------------


def test_a_trim_moves_the_start_and_never_back() -> None:
    replica = Replica()
    replica.apply(append(b"a", b"b", b"c"))
    assert replica.apply(TrimTopic(1, 2)) == [TopicTrimmed(2)]
    assert replica.apply(TrimTopic(1, 1)) == [TopicTrimmed(2)]
    assert replica.records() == [b"c"]
    assert replica.apply(TrimTopic(1, 3)) == [TopicTrimmed(3)]
    assert replica.records() == []


def test_a_trim_beyond_the_end_is_refused() -> None:
    (refused,) = Replica().apply(TrimTopic(1, 1))
    assert isinstance(refused, OffsetOutOfRange)
    assert (refused.offset, refused.start_offset, refused.high_watermark) == (1, 0, 0)


def test_a_trim_sees_what_its_own_entry_appended_before_it() -> None:
    replica = Replica()
    results = replica.apply(append(b"a", b"b"), TrimTopic(1, 2), append(b"c"))
    assert results[1] == TopicTrimmed(2)
    assert replica.records() == [b"c"]


# --- Appends and batches --------------------------------------------------------------------------


def test_appends_of_one_entry_to_one_topic_become_one_batch() -> None:
    replica = Replica()
    replica.apply(CreateTopic("orders", SMALL))
    results = replica.apply(
        append(b"a", b"b"), append(b"x", topic_id=2), append(b"c"), timestamp_ms=1234, term=7
    )
    assert results == [
        AppendResult(0, 2, False),
        AppendResult(0, 1, False),
        AppendResult(2, 1, False),
    ]
    (batch,) = batches(replica)
    assert (batch.record_count, batch.timestamp_ms, batch.raft_index, batch.term) == (3, 1234, 3, 7)
    assert list(batch.records()) == [b"a", b"b", b"c"]


def test_a_batch_holds_records_of_one_kind() -> None:
    replica = Replica()
    replica.apply(append(b"a"), append(b"b", attributes=1), append(b"c", attributes=1))
    found = [(batch.attributes, batch.record_count) for batch in batches(replica)]
    assert found == [(0, 1), (1, 2)]


def test_a_joined_batch_is_never_larger_than_its_limit() -> None:
    replica = Replica()
    half = append(bytes(BATCH_SIZE_MAX // 2 - 8))
    replica.apply(half, half, half, append(b"x"))
    assert [batch.record_count for batch in batches(replica)] == [2, 2]
    assert batches(replica)[0].frames.__len__() == BATCH_SIZE_MAX


def test_any_other_command_ends_the_batch_before_it() -> None:
    replica = Replica()
    replica.apply(append(b"a"), OpenProducer(0), append(b"b"))
    assert [batch.record_count for batch in batches(replica)] == [1, 1]


def test_refused_and_repeated_appends_leave_no_gap_in_their_batch() -> None:
    replica = Replica()
    (opened,) = replica.apply(OpenProducer(0))
    assert isinstance(opened, ProducerOpened)
    first = append(b"a", stamp=ProducerStamp(opened.producer_id, 0, 0))
    gap = append(b"c", stamp=ProducerStamp(opened.producer_id, 0, 2))
    results = replica.apply(append(b"x"), first, gap, first, append(b"y"))
    assert results[0] == AppendResult(0, 1, False)
    assert results[1] == AppendResult(1, 1, False)
    assert isinstance(results[2], OutOfSequence)
    assert results[3] == AppendResult(1, 1, True)
    assert results[4] == AppendResult(2, 1, False)
    assert replica.records() == [b"x", b"a", b"y"]
    assert len(batches(replica)) == 1


def test_a_timestamp_never_goes_back_within_a_topic() -> None:
    replica = Replica()
    for timestamp_ms in (50, 20, -7, 60):
        replica.apply(append(b"x"), timestamp_ms=timestamp_ms)
    assert [batch.timestamp_ms for batch in batches(replica)] == [50, 50, 50, 60]


def test_a_record_of_the_largest_size_fits_and_one_byte_more_does_not() -> None:
    replica = Replica()
    assert replica.machine.check(append(bytes(RECORD_SIZE_MAX))) is None
    refused = replica.machine.check(append(b"", bytes(RECORD_SIZE_MAX + 1)))
    assert isinstance(refused, RecordTooLarge)
    assert (refused.size, refused.size_max) == (RECORD_SIZE_MAX + 1, RECORD_SIZE_MAX)
    many = append(*[bytes(RECORD_SIZE_MAX // 2)] * 3)
    assert replica.machine.check(many) is None


def test_unknown_attributes_are_refused_before_they_are_proposed() -> None:
    block = Block.from_records([b"x"], attributes=2)
    assert isinstance(Replica().machine.check(Append(1, block)), InvalidRequest)


# --- Producers ------------------------------------------------------------------------------------


def test_a_new_producers_id_is_made_of_the_entry_and_its_place_in_it() -> None:
    replica = Replica()
    results = replica.apply(OpenProducer(0), append(b"x"), OpenProducer(0))
    assert results[0] == ProducerOpened(2 << 16, 0)
    assert results[2] == ProducerOpened(2 << 16 | 2, 0)
    assert replica.apply(OpenProducer(2 << 16)) == [ProducerOpened(2 << 16, 1)]


def test_a_repeat_in_a_later_entry_gets_the_first_offset_and_writes_nothing() -> None:
    replica = Replica()
    replica.apply(OpenProducer(0))
    command = append(b"a", b"b", stamp=ProducerStamp(2 << 16, 0, 0))
    replica.apply(append(b"x"))
    assert replica.apply(command) == [AppendResult(1, 2, False)]
    assert replica.apply(command) == [AppendResult(1, 2, True)]
    assert replica.records() == [b"x", b"a", b"b"]


def test_a_producer_that_is_not_known_appends_nothing() -> None:
    replica = Replica()
    (refused,) = replica.apply(append(b"a", stamp=ProducerStamp(99, 0, 0)))
    assert isinstance(refused, ProducerUnknown)
    assert replica.records() == []


def test_a_producer_expires_by_the_time_of_the_entries_also_across_a_restart() -> None:
    day_ms = 24 * 3600 * 1000
    replica = Replica()
    replica.apply(OpenProducer(0), timestamp_ms=day_ms)
    replica.apply(append(b"x"), timestamp_ms=8 * day_ms)
    command = append(b"a", stamp=ProducerStamp(2 << 16, 0, 0))
    assert replica.machine.check(command) is None
    replica.apply(append(b"x"), timestamp_ms=8 * day_ms + 1)
    replica.checkpoint()
    # The clock of a leader that is behind does not bring it back.
    (refused,) = replica.after_kill().apply(command, timestamp_ms=0)
    assert isinstance(refused, ProducerUnknown)


# --- Entries that are none of ours ----------------------------------------------------------------


def test_a_no_op_changes_nothing_but_what_was_applied_last() -> None:
    replica = Replica()
    assert replica.machine.apply_payload(2, 5, b"\x01") == []
    assert (replica.machine.last_applied_index, replica.machine.last_applied_term) == (2, 5)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", EntryCorrupt),
        (b"\x02" + bytes(20), EntryUnknown),
        (b"\x01" + bytes(20), EntryUnknown),
        (encode_entry([append(b"a"), append(b"b")], 0)[:-1], EntryCorrupt),
    ],
)
def test_an_entry_that_cannot_be_read_is_not_applied_in_part(
    payload: bytes, error: type[DistlogError]
) -> None:
    replica = Replica()
    with pytest.raises(error):
        replica.machine.apply_payload(2, 1, payload)
    assert replica.machine.last_applied_index == 1
    assert replica.records() == []


def test_entries_are_applied_in_order_and_once() -> None:
    replica = Replica()
    replica.apply(append(b"x"))
    again = replica.journal[-1]
    with pytest.raises(AssertionError):
        replica.machine.apply_payload(*_call(again))
    with pytest.raises(AssertionError):
        replica.machine.apply_payload(9, 1, NO_OP.payload)
    assert replica.records() == [b"x"]


def _call(entry: JournalEntry) -> tuple[int, int, bytes]:
    return entry.raft_index, entry.term, entry.payload


# --- The same everywhere --------------------------------------------------------------------------

TOPIC_IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 2 + (1 << 48), (1 << 64) - 1])
PRODUCER_IDS = st.sampled_from([0, 2 << 16, 3 << 16, 3 << 16 | 1, (1 << 64) - 1])
NAMES = st.sampled_from(["a", "b", "default", "", "no good"])
STAMPS = st.builds(ProducerStamp, PRODUCER_IDS, st.integers(0, 2), st.integers(0, 3))
LARGE = Block.from_records([bytes(3000)])
RETENTIONS = st.sampled_from([None, 0, 1, 1 << 62, (1 << 62) + 1])
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(Append, TOPIC_IDS, blocks() | st.just(LARGE), st.none() | STAMPS),
    st.builds(
        CreateTopic,
        NAMES,
        st.sampled_from([SMALL, SMALL, SegmentLimits(1, 1)]),
        st.sampled_from([KEEP_ALL, Retention(1, 2), Retention(0, 1 << 63)]),
    ),
    st.builds(ConfigureTopic, TOPIC_IDS, RETENTIONS, RETENTIONS),
    st.builds(TrimTopic, TOPIC_IDS, st.integers(0, 12)),
    st.builds(DeleteTopic, TOPIC_IDS),
    st.builds(OpenProducer, PRODUCER_IDS),
)
DAYS = st.integers(-9, 9).map(lambda days: days * 24 * 3600 * 1000)
ENTRIES = st.lists(
    st.tuples(st.lists(COMMANDS, min_size=1, max_size=6), DAYS), min_size=1, max_size=10
)
Entries = list[tuple[list[Command], int]]


def applied(entries: Entries) -> Replica:
    replica = Replica()
    for commands, timestamp_ms in entries:
        results = replica.apply(*commands, timestamp_ms=timestamp_ms)
        assert len(results) == len(commands)
    return replica


@settings(max_examples=60)
@given(ENTRIES)
def test_nodes_that_applied_the_same_entries_have_the_same_bytes(entries: Entries) -> None:
    some, other = applied(entries), applied(entries)
    assert some.state() == other.state()
    assert files(some) == files(other)


@settings(max_examples=60)
@given(ENTRIES)
def test_an_entry_means_the_same_whether_it_was_encoded_or_not(entries: Entries) -> None:
    encoded = Replica()
    direct = StateMachine.open(SimulatedDisk(), TOPICS, None, journal_first_index=0)
    for commands, timestamp_ms in entries:
        results = encoded.apply(*commands, timestamp_ms=timestamp_ms)
        index = len(encoded.journal)
        entry = Entry(timestamp_ms, tuple(commands))
        assert comparable(direct.apply(index, 1, entry)) == comparable(results)


@settings(max_examples=60)
@given(ENTRIES, st.sets(st.integers(0, 9), max_size=3), st.sets(st.integers(0, 9)), st.integers())
def test_a_node_that_restarts_has_the_state_of_one_that_never_did(
    entries: Entries, checkpoints: set[int], restarts: set[int], seed: int
) -> None:
    replica = Replica()
    steady = Replica()
    random = Random(seed)
    for number, (commands, timestamp_ms) in enumerate(entries):
        results = replica.apply(*commands, timestamp_ms=timestamp_ms)
        expected = steady.apply(*commands, timestamp_ms=timestamp_ms)
        assert comparable(results) == comparable(expected)
        if number in checkpoints:
            replica.checkpoint()
        if number in restarts:
            crashed = random.random() < 0.7
            replica = replica.after_crash(random) if crashed else replica.after_kill()
    assert replica.state() == steady.state()
    for topic in steady.machine.topics():
        assert replica.records(topic.name) == steady.records(topic.name)
