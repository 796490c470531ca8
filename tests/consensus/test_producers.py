"""The producer table: exactly once under any retries, bounded, and the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from distlog.consensus.commands import ProducerStamp
from distlog.consensus.producers import (
    EPOCH_MAX,
    HEAD,
    WINDOW_SEQUENCE_COUNT,
    ProducerLimits,
    ProducerTable,
    row_size,
)
from distlog.errors import (
    DistlogError,
    OutOfSequence,
    Overloaded,
    ProducerFenced,
    ProducerUnknown,
)

TOPIC, OTHER_TOPIC = 1, 9
LIMITS = ProducerLimits()
DAY_MS = 24 * 3600 * 1000
Outcome = int | type[DistlogError] | None


def table(limits: ProducerLimits = LIMITS) -> ProducerTable:
    return ProducerTable({TOPIC, OTHER_TOPIC}, limits)


def opened(producers: ProducerTable, producer_id: int = 7) -> int:
    return producers.open(0, producer_id)[0]


def write(
    producers: ProducerTable, stamp: ProducerStamp, base_offset: int, topic_id: int = TOPIC
) -> Outcome:
    """Do what `apply` does; return what `check` said, an error as its class."""
    found = producers.check(stamp, topic_id)
    if found is None:
        producers.record(stamp, topic_id, base_offset)
    return type(found) if isinstance(found, DistlogError) else found


# --- Sequences ----------------------------------------------------------------------------------


def test_a_new_producer_begins_at_epoch_0_and_sequence_0() -> None:
    producers = table()
    assert producers.open(0, 7) == (7, 0)
    assert write(producers, ProducerStamp(7, 0, 0), 100) is None


def test_a_repeat_gives_the_first_offset_for_the_last_16_sequences() -> None:
    producers = table()
    producer = opened(producers)
    for sequence in range(20):
        assert write(producers, ProducerStamp(producer, 0, sequence), 10 * sequence) is None
    repeats = [
        write(producers, ProducerStamp(producer, 0, sequence), 999) for sequence in range(20)
    ]
    assert repeats == [OutOfSequence] * 4 + [10 * sequence for sequence in range(4, 20)]


def test_a_gap_is_refused_with_the_sequence_that_comes_next() -> None:
    producers = table()
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    error = producers.check(ProducerStamp(producer, 0, 2), TOPIC)
    assert isinstance(error, OutOfSequence)
    assert (error.producer_id, error.expected, error.actual) == (producer, 1, 2)


def test_each_topic_has_sequences_of_its_own() -> None:
    producers = table()
    producer = opened(producers)
    assert write(producers, ProducerStamp(producer, 0, 0), 5, TOPIC) is None
    assert write(producers, ProducerStamp(producer, 0, 0), 6, OTHER_TOPIC) is None
    assert write(producers, ProducerStamp(producer, 0, 0), 7, TOPIC) == 5
    assert write(producers, ProducerStamp(producer, 0, 0), 7, OTHER_TOPIC) == 6


def test_a_producer_that_was_never_opened_is_unknown() -> None:
    producers = table()
    assert write(producers, ProducerStamp(7, 0, 0), 0) is ProducerUnknown
    assert isinstance(producers.check_open(7), ProducerUnknown)


# --- Epochs -------------------------------------------------------------------------------------


def test_a_new_epoch_fences_the_older_one_and_begins_at_sequence_0() -> None:
    producers = table()
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    assert producers.check_open(producer) is None
    assert producers.open(producer, 99) == (producer, 1)
    error = producers.check(ProducerStamp(producer, 0, 1), TOPIC)
    assert isinstance(error, ProducerFenced)
    assert error.epoch == 1
    assert write(producers, ProducerStamp(producer, 1, 0), 1) is None


def test_a_repeat_from_before_a_new_epoch_is_fenced_and_not_answered() -> None:
    producers = table()
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    producers.open(producer, 99)
    assert write(producers, ProducerStamp(producer, 0, 0), 5) is ProducerFenced


def test_an_epoch_that_was_never_given_is_unknown() -> None:
    producers = table()
    assert write(producers, ProducerStamp(opened(producers), 1, 0), 0) is ProducerUnknown


def test_a_producer_at_the_last_epoch_is_refused_another() -> None:
    row = HEAD.pack(7, 0, EPOCH_MAX, 0)
    producers = ProducerTable.restore({TOPIC}, [row], now_ms=0)
    assert isinstance(producers.check_open(7), Overloaded)


# --- Limits -------------------------------------------------------------------------------------


def test_the_least_recently_used_producer_goes_when_there_are_too_many() -> None:
    producers = table(ProducerLimits(producer_count_max=2))
    for producer_id in (5, 6):
        opened(producers, producer_id)
    write(producers, ProducerStamp(5, 0, 0), 0)
    opened(producers, 7)
    assert len(producers) == 2
    assert write(producers, ProducerStamp(6, 0, 0), 1) is ProducerUnknown
    assert write(producers, ProducerStamp(5, 0, 1), 1) is None


def test_opening_a_new_epoch_is_a_use() -> None:
    producers = table(ProducerLimits(producer_count_max=2))
    for producer_id in (5, 6):
        opened(producers, producer_id)
    producers.open(5, 99)
    opened(producers, 7)
    assert isinstance(producers.check_open(6), ProducerUnknown)
    assert producers.check_open(5) is None


def test_an_idle_producer_expires_after_seven_days_of_replicated_time() -> None:
    producers = table()
    producers.advance(1000)
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    producers.advance(1000 + 7 * DAY_MS)
    assert producers.check(ProducerStamp(producer, 0, 1), TOPIC) is None
    producers.advance(1001 + 7 * DAY_MS)
    assert isinstance(producers.check(ProducerStamp(producer, 0, 1), TOPIC), ProducerUnknown)
    assert isinstance(producers.check_open(producer), ProducerUnknown)


def test_an_expired_repeat_is_unknown_and_never_appended_again() -> None:
    producers = table()
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    producers.advance(8 * DAY_MS)
    assert write(producers, ProducerStamp(producer, 0, 0), 1) is ProducerUnknown


def test_time_never_goes_back_whatever_a_leaders_clock_says() -> None:
    producers = table()
    producers.advance(5000)
    producers.advance(-5000)
    assert producers.now_ms == 5000


def test_overdue_producers_leave_the_table_a_few_at_a_time() -> None:
    producers = table()
    for producer_id in range(1, 41):
        opened(producers, producer_id)
    producers.advance(8 * DAY_MS)
    counts = []
    for producer_id in range(41, 45):
        opened(producers, producer_id)
        counts.append(len(producers))
    assert counts == [25, 10, 3, 4]


def test_a_producer_of_too_many_topics_is_told_to_slow_down() -> None:
    topics = set(range(1, 6))
    producers = ProducerTable(topics, ProducerLimits(topic_count_max=3))
    producer = opened(producers)
    for topic_id in (1, 2, 3):
        assert write(producers, ProducerStamp(producer, 0, 0), 0, topic_id) is None
    assert write(producers, ProducerStamp(producer, 0, 0), 0, 4) is Overloaded
    assert write(producers, ProducerStamp(producer, 0, 1), 1, 3) is None
    topics.remove(2)
    assert write(producers, ProducerStamp(producer, 0, 0), 0, 4) is None
    assert write(producers, ProducerStamp(producer, 0, 0), 0, 5) is Overloaded
    assert write(producers, ProducerStamp(producer, 0, 1), 77, 3) == 1


def test_windows_of_all_producers_together_are_bounded() -> None:
    producers = ProducerTable(
        set(range(1, 10)), ProducerLimits(window_count_max=4, topic_count_max=3)
    )
    for producer_id in (5, 6):
        opened(producers, producer_id)
        for topic_id in (1, 2):
            write(producers, ProducerStamp(producer_id, 0, 0), 0, topic_id)
    assert write(producers, ProducerStamp(6, 0, 0), 0, 3) is None
    assert len(producers) == 1
    assert write(producers, ProducerStamp(5, 0, 1), 1) is ProducerUnknown
    assert write(producers, ProducerStamp(6, 0, 1), 1) is None


def test_a_new_epoch_gives_its_windows_back() -> None:
    producers = ProducerTable({1, 2, 3}, ProducerLimits(window_count_max=3, topic_count_max=3))
    for producer_id in (5, 6):
        opened(producers, producer_id)
    for topic_id in (1, 2):
        write(producers, ProducerStamp(5, 0, 0), 0, topic_id)
    producers.open(5, 99)
    for topic_id in (1, 2, 3):
        write(producers, ProducerStamp(6, 0, 0), 0, topic_id)
    assert len(producers) == 2


def test_a_restored_table_knows_how_many_windows_it_has() -> None:
    limits = ProducerLimits(window_count_max=2, topic_count_max=2)
    producers = table(limits)
    for producer_id in (5, 6):
        opened(producers, producer_id)
        write(producers, ProducerStamp(producer_id, 0, 0), 0)
    restored = ProducerTable.restore({TOPIC, OTHER_TOPIC}, producers.capture(), 0, limits)
    write(restored, ProducerStamp(6, 0, 0), 0, OTHER_TOPIC)
    assert len(restored) == 1


def test_a_producer_may_write_to_its_limit_of_topics() -> None:
    topic_ids = range(1, 1001)
    producers = ProducerTable(topic_ids)
    producer = opened(producers)
    for round_number in range(2):
        stamp = ProducerStamp(producer, 0, round_number)
        assert [write(producers, stamp, topic, topic) for topic in topic_ids] == [None] * 1000
    assert write(producers, ProducerStamp(producer, 0, 1), 0, 500) == 500


# --- Rows ---------------------------------------------------------------------------------------


def test_the_bytes_of_a_row_are_what_they_always_were() -> None:
    producers = table()
    producers.advance(1000)
    opened(producers, 0x20000)
    producers.open(0x20000, 99)
    for sequence in range(17):
        producers.advance(1000 + sequence)
        write(producers, ProducerStamp(0x20000, 1, sequence), 0x100 + sequence)
    (row,) = producers.capture()
    head = "0000020000000000 f803000000000000 01000000 01000000"
    slots = [0x110, *range(0x101, 0x110)]
    window = "1100000000000000" + "".join(slot.to_bytes(8, "little").hex() for slot in slots)
    assert row.hex() == bytes.fromhex(f"{head} 0100000000000000 {window}").hex()
    assert row_size(row, 0) == len(row)


def test_a_capture_does_not_change_with_the_table() -> None:
    producers = table()
    producer = opened(producers)
    write(producers, ProducerStamp(producer, 0, 0), 0)
    captured = producers.capture()
    copy = [bytes(bytearray(row)) for row in captured]
    write(producers, ProducerStamp(producer, 0, 1), 1)
    opened(producers, 8)
    assert captured == copy


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([TOPIC, OTHER_TOPIC])), max_size=60),
    st.integers(0, 60),
)
def test_a_restored_table_goes_on_as_the_one_that_was_captured(
    uses: list[tuple[int, int]], cut: int
) -> None:
    limits = ProducerLimits(producer_count_max=3, window_count_max=4, topic_count_max=2)
    producers = table(limits)
    for number, (producer_id, topic_id) in enumerate(uses):
        if number == cut:
            producers = ProducerTable.restore(
                {TOPIC, OTHER_TOPIC}, producers.capture(), producers.now_ms, limits
            )
        _use(producers, number, producer_id, topic_id)
    replayed = table(limits)
    for number, (producer_id, topic_id) in enumerate(uses):
        _use(replayed, number, producer_id, topic_id)
    assert producers.capture() == replayed.capture()


def _use(producers: ProducerTable, number: int, producer_id: int, topic_id: int) -> None:
    producers.advance(number * DAY_MS)
    for sequence in range(40):
        if write(producers, ProducerStamp(producer_id + 1, 0, sequence), number, topic_id) is None:
            return
    opened(producers, producer_id + 1)


# --- Against a model ----------------------------------------------------------------------------


class ExactlyOnce(RuleBasedStateMachine):
    """Producers that send, lose answers, and repeat whatever they like, against the simplest model of what they may get."""

    @initialize()
    def start(self) -> None:
        self.producers = table()
        self.log: list[tuple[int, int, int, int]] = []
        # (producer, epoch, topic) -> offsets by sequence, all of them.
        self.written: dict[tuple[int, int, int], list[int]] = {}
        self.epochs: dict[int, int] = {}

    @rule(producer_id=st.integers(1, 3))
    def open(self, producer_id: int) -> None:
        known = producer_id in self.epochs
        assert (self.producers.check_open(producer_id) is None) == known
        _, epoch = self.producers.open(producer_id if known else 0, producer_id)
        self.epochs[producer_id] = self.epochs.get(producer_id, -1) + 1
        assert epoch == self.epochs[producer_id]

    @rule(
        producer_id=st.integers(1, 3),
        back=st.integers(-1, 2),
        topic_id=st.sampled_from([TOPIC, OTHER_TOPIC]),
        distance=st.integers(-20, 2),
        count=st.integers(1, 20),
    )
    def send(self, producer_id: int, back: int, topic_id: int, distance: int, count: int) -> None:
        epoch = self.epochs.get(producer_id, 0) - back
        key = (producer_id, epoch, topic_id)
        first = max(0, len(self.written.get(key, [])) + distance)
        if epoch >= 0:
            for sequence in range(first, first + count):
                self.send_one(key, sequence)

    def send_one(self, key: tuple[int, int, int], sequence: int) -> None:
        producer_id, epoch, topic_id = key
        outcome = write(
            self.producers, ProducerStamp(producer_id, epoch, sequence), len(self.log), topic_id
        )
        assert outcome == self.expected(key, sequence)
        if outcome is None:
            self.written.setdefault(key, []).append(len(self.log))
            self.log.append((*key, sequence))

    def expected(self, key: tuple[int, int, int], sequence: int) -> Outcome:
        producer_id, epoch, _ = key
        current = self.epochs.get(producer_id)
        if current is None or epoch > current:
            return ProducerUnknown
        if epoch < current:
            return ProducerFenced
        offsets = self.written.get(key, [])
        if sequence == len(offsets):
            return None
        if len(offsets) - WINDOW_SEQUENCE_COUNT <= sequence < len(offsets):
            return offsets[sequence]
        return OutOfSequence

    @invariant()
    def nothing_is_in_the_log_twice_or_out_of_order(self) -> None:
        assert len(set(self.log)) == len(self.log)
        for key in self.written:
            sequences = [entry[3] for entry in self.log if entry[:3] == key]
            assert sequences == list(range(len(sequences)))


ExactlyOnce.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestExactlyOnce = ExactlyOnce.TestCase


@pytest.mark.parametrize("sequence", [1, 17, 1 << 40, (1 << 64) - 1])
def test_any_first_sequence_but_0_is_refused(sequence: int) -> None:
    producers = table()
    assert write(producers, ProducerStamp(opened(producers), 0, sequence), 0) is OutOfSequence
