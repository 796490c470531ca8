"""The window of a producer: whatever happens to the streams, each request is sent in order and acknowledged once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.api.log.v1 import log_pb2
from distlog.client import window as window_module
from distlog.client.window import (
    IN_FLIGHT_COUNT_MAX,
    IN_FLIGHT_SIZE_MAX,
    UNACKNOWLEDGED_COUNT_MAX,
    Window,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Futures belong to a loop, also those that nobody awaits."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class FilledWindow(Window):
    """A window that makes its own requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int = 0) -> None:
        super().__init__()
        self._loop = loop
        for _ in range(count):
            self.fill()

    def fill(self, size: int = 0) -> None:
        request = log_pb2.ProduceRequest(record=bytes(size), sequence=self.next_sequence)
        self.add(request, self._loop.create_future())


def take_all_that_fit(window: Window) -> list[int]:
    sequences = []
    while (pending := window.take_next()) is not None:
        sequences.append(pending.request.sequence)
    return sequences


@given(st.lists(st.sampled_from(["add", "send", "answer", "break"]), max_size=200))
def test_a_stream_carries_consecutive_sequences_from_the_first_unacknowledged(
    loop: asyncio.AbstractEventLoop, steps: list[str]
) -> None:
    window = FilledWindow(loop)
    added = 0
    acknowledged: list[int] = []
    on_stream: list[int] = []
    answered_on_stream = 0
    for step in steps:
        if step == "add":
            window.fill()
            added += 1
        elif step == "send" and (pending := window.take_next()) is not None:
            on_stream.append(pending.request.sequence)
        elif step == "answer" and window.in_flight_count:
            acknowledged.append(window.take_answered().request.sequence)
            answered_on_stream += 1
        elif step == "break":
            window.restart(may_be_written=True)
            on_stream, answered_on_stream = [], 0
        first_on_stream = len(acknowledged) - answered_on_stream
        assert on_stream == list(range(first_on_stream, first_on_stream + len(on_stream)))
        assert acknowledged == list(range(len(acknowledged)))
        assert window.in_flight_count == len(on_stream) - answered_on_stream <= IN_FLIGHT_COUNT_MAX
        assert (window.first_sequence, window.next_sequence) == (len(acknowledged), added)


def test_no_more_is_in_flight_than_the_cluster_remembers(loop: asyncio.AbstractEventLoop) -> None:
    window = FilledWindow(loop, count=40)
    assert take_all_that_fit(window) == list(range(16))
    window.take_answered()
    assert take_all_that_fit(window) == [16]


def test_large_requests_in_flight_are_limited_by_their_bytes(
    loop: asyncio.AbstractEventLoop,
) -> None:
    window = FilledWindow(loop)
    for _ in range(5):
        window.fill(10 * MIB)
    assert take_all_that_fit(window) == [0, 1, 2]


def test_a_request_larger_than_the_limit_goes_alone(loop: asyncio.AbstractEventLoop) -> None:
    window = FilledWindow(loop)
    window.fill()
    window.fill(IN_FLIGHT_SIZE_MAX + 1)
    window.fill()
    assert take_all_that_fit(window) == [0]
    window.take_answered()
    assert take_all_that_fit(window) == [1]
    window.take_answered()
    assert take_all_that_fit(window) == [2]


def test_it_is_full_at_the_count_and_at_the_bytes(loop: asyncio.AbstractEventLoop) -> None:
    window = FilledWindow(loop)
    for _ in range(UNACKNOWLEDGED_COUNT_MAX):
        assert not window.is_full
        window.fill()
    assert window.is_full
    take_all_that_fit(window)
    window.take_answered()
    assert not window.is_full
    window.fill(window_module.UNACKNOWLEDGED_SIZE_MAX)
    assert window.is_full


def test_only_what_was_in_flight_when_the_outcome_got_lost_may_be_written(
    loop: asyncio.AbstractEventLoop,
) -> None:
    window = FilledWindow(loop, count=3)
    window.take_next()
    window.restart(may_be_written=False)
    window.take_next()
    window.take_next()
    window.restart(may_be_written=True)
    window.take_next()
    window.restart(may_be_written=False)
    assert [pending.may_be_written for pending in window.take_all()] == [True, True, False]


def test_stopping_leaves_the_first_unacknowledged_sequence_as_it_was(
    loop: asyncio.AbstractEventLoop,
) -> None:
    window = FilledWindow(loop, count=5)
    take_all_that_fit(window)
    window.take_answered()
    window.restart(may_be_written=True)
    assert len(window.take_all()) == 4
    assert (window.first_sequence, len(window), window.take_next()) == (1, 0, None)


def test_a_gap_in_the_sequences_is_our_mistake(loop: asyncio.AbstractEventLoop) -> None:
    with pytest.raises(AssertionError, match="no gaps"):
        Window().add(log_pb2.ProduceRequest(sequence=1), loop.create_future())
