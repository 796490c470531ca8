"""The window of a producer: whatever happens to the streams, each block is sent in order, unchanged, and acknowledged once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.client.window import (
    ALONE_SIZE_MIN,
    IN_FLIGHT_COUNT_MAX,
    IN_FLIGHT_SIZE_MAX,
    PARTIAL_IN_FLIGHT_MAX,
    RECORD_COST,
    BatchLimits,
    PendingBlock,
    Window,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Futures belong to a loop, also those that nobody awaits."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def window_of(count: int = 0, **limits: int) -> Window:
    """Return a window with so many blocks of one record."""
    window = Window("t", 9, 2, BatchLimits(**{"record_count_max": 1, **limits}))
    for number in range(count):
        window.add(b"%d" % number)
    return window


def take_all_that_fit(window: Window) -> list[int]:
    sequences = []
    while (block := window.take_next()) is not None:
        sequences.append(block.sequence)
    return sequences


def request_of(block: PendingBlock) -> log_pb2.ProduceBatchRequest:
    return log_pb2.ProduceBatchRequest.FromString(block.request)


def records_of(block: PendingBlock) -> list[bytes]:
    return list(Block.decode(request_of(block).block).records())


# --- Streams ---


@given(
    steps=st.lists(
        st.sampled_from(["add", "add", "key", "cut", "send", "answer", "break"]), max_size=200
    ),
    record_count_max=st.integers(1, 4),
)
def test_every_stream_carries_the_same_blocks_in_order_from_the_first_unacknowledged(
    steps: list[str], record_count_max: int
) -> None:
    window = window_of(record_count_max=record_count_max)
    added: list[bytes] = []
    acknowledged: list[bytes] = []
    # The bytes of each sequence, from when it was sent first.
    sent: dict[int, bytes] = {}
    on_stream: list[int] = []
    first_on_stream = 0
    for step in steps:
        if step in ("add", "key"):
            added.append(b"%d" % len(added))
            window.add(added[-1], ATTRIBUTE_STRUCTURED if step == "key" else 0)
        elif step == "cut":
            window.cut()
        elif step == "send" and (block := window.take_next()) is not None:
            assert sent.setdefault(block.sequence, block.request) == block.request
            assert request_of(block).sequence == block.sequence
            on_stream.append(block.sequence)
        elif step == "answer" and window.in_flight_count:
            assert window.oldest().sequence == window.first_sequence
            acknowledged += records_of(window.take_answered())
        elif step == "break":
            window.restart(may_be_written=True)
            on_stream, first_on_stream = [], window.first_sequence
        assert on_stream == list(range(first_on_stream, first_on_stream + len(on_stream)))
        assert acknowledged == added[: len(acknowledged)]
        assert window.in_flight_count <= IN_FLIGHT_COUNT_MAX
        assert (window.acknowledged_count, window.record_count) == (len(acknowledged), len(added))
        assert len(window) == len(added) - len(acknowledged)


def test_a_request_says_whose_block_it_is() -> None:
    window = window_of(2)
    window.take_next()
    block = window.take_next()
    assert block is not None
    request = request_of(block)
    assert (request.topic, request.producer_id, request.producer_epoch) == ("t", 9, 2)
    assert (request.sequence, records_of(block)) == (1, [b"1"])


def test_no_more_is_in_flight_than_the_cluster_remembers() -> None:
    window = window_of(40)
    assert take_all_that_fit(window) == list(range(16))
    window.take_answered()
    assert take_all_that_fit(window) == [16]


def test_large_blocks_in_flight_are_limited_by_their_bytes() -> None:
    window = window_of()
    for _ in range(5):
        window.add(bytes(10 * MIB))
    assert take_all_that_fit(window) == [0, 1, 2]


def test_a_block_larger_than_the_limit_goes_alone() -> None:
    window = window_of(1)
    window.add(bytes(IN_FLIGHT_SIZE_MAX + 1))
    window.add(b"2")
    for sequence in range(3):
        assert take_all_that_fit(window) == [sequence]
        window.take_answered()


def test_only_what_was_in_flight_when_the_outcome_got_lost_may_be_written() -> None:
    window = window_of(3)
    window.take_next()
    window.restart(may_be_written=False)
    window.take_next()
    window.take_next()
    window.restart(may_be_written=True)
    window.take_next()
    window.restart(may_be_written=False)
    assert [block.may_be_written for block in window.take_all()] == [True, True, False]


def test_stopping_leaves_what_is_acknowledged_as_it_was() -> None:
    window = window_of(5)
    take_all_that_fit(window)
    window.take_answered()
    window.restart(may_be_written=True)
    assert len(window.take_all()) == 4
    assert (window.first_sequence, window.acknowledged_count) == (1, 1)
    assert (len(window), window.take_next(), window.is_full) == (0, None, False)


# --- Blocks ---


def block_counts(window: Window) -> list[int]:
    return [block.record_count for block in window.take_all()]


def test_a_block_is_cut_at_its_number_of_records() -> None:
    window = window_of(7, record_count_max=3)
    assert block_counts(window) == [3, 3, 1]


def test_a_block_is_cut_at_its_bytes() -> None:
    window = window_of(record_count_max=100, size_max=50)
    # With its prefix each takes 20, so a third does not fit; one of exactly the limit fills it; a larger one is alone.
    for size in (12, 12, 12, 22, 1, 43, 1):
        window.add(bytes(size))
    assert block_counts(window) == [2, 2, 1, 1, 1]


def test_a_large_record_has_a_block_of_its_own() -> None:
    window = window_of(record_count_max=100)
    for size in (1, 1, ALONE_SIZE_MIN, 1, ALONE_SIZE_MIN - 8, 1):
        window.add(bytes(size))
    assert block_counts(window) == [2, 1, 3]


def test_a_batch_is_one_block_whatever_the_limits_and_keeps_its_place() -> None:
    window = window_of(1, record_count_max=2)
    loop = asyncio.new_event_loop()
    window.add_batch([b"b"] * 5, 0, loop.create_future())
    window.add(b"c")
    loop.close()
    assert [records_of(block)[0] for block in window.take_all()] == [b"0", b"b", b"c"]


def test_adding_says_when_there_is_something_to_look_at() -> None:
    window = window_of(record_count_max=3)
    assert [window.add(b"x") for _ in range(4)] == [True, False, True, True]


def test_blocks_that_are_not_full_are_cut_while_few_are_in_flight() -> None:
    window = window_of(record_count_max=100)
    cut = 0
    for _ in range(2 * PARTIAL_IN_FLIGHT_MAX):
        window.add(b"x")
        if window.may_cut:
            cut += window.cut()
            window.take_next()
    assert cut == PARTIAL_IN_FLIGHT_MAX
    window.take_answered()
    assert window.may_cut
    window.cut()
    # It would wait behind the one that was just cut.
    window.add(b"x")
    assert not window.may_cut


def test_who_waits_is_told_the_offset_of_each_record(loop: asyncio.AbstractEventLoop) -> None:
    window = window_of(record_count_max=100)
    futures = [loop.create_future() for _ in range(2)]
    window.add(b"nobody waits")
    window.add(b"1", 0, futures[0])
    window.add(b"2", 0, futures[1])
    futures[1].cancel()
    window.cut()
    whole: asyncio.Future[range] = loop.create_future()
    window.add_batch([b"3", b"4"], 0, whole)
    take_all_that_fit(window)
    window.take_answered().settle(70)
    window.take_answered().settle(100)
    assert (futures[0].result(), futures[1].cancelled()) == (71, True)
    assert whole.result() == range(100, 102)


# --- Memory ---


def test_it_is_full_at_its_bytes_until_enough_is_acknowledged() -> None:
    cost = 1 + 8 + RECORD_COST
    window = window_of(record_count_max=2, memory_size_max=5 * cost)
    for _ in range(5):
        assert not window.is_full
        window.add(b"x")
    assert window.is_full
    take_all_that_fit(window)
    window.take_answered()
    assert not window.is_full
    window.add(b"x")
    window.add(b"x")
    assert window.is_full
