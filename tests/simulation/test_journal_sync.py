"""When a journal with durability OS goes to its disk: writes at once, syncs behind them, and never two of those at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distlog.consensus.journal_sync import (
    FLUSH_INTERVAL_S,
    FLUSH_SIZE,
    SPACE_RETRY_DELAY_S,
    JournalSync,
)
from distlog.errors import DiskFailed
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.test_durability import after_power_cut, open_journal
from tests.simulation.virtual_loop import VirtualLoop


class HeldWorker:
    """A worker whose jobs run when the test says so, one after the other."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.jobs.append((future, lambda: function(*args)))
        return future

    def sync(self, file: Any) -> asyncio.Future[Any]:
        return self.submit(file.sync)

    async def run_next(self) -> None:
        """Run a job, and what follows from its end."""
        future, job = self.jobs.popleft()
        try:
            future.set_result(job())
        except Exception as error:
            future.set_exception(error)
        await asyncio.sleep(0)

    def close(self) -> None:
        return


class Synced:
    """A journal that a JournalSync brings to its disk."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.journal = open_journal(self.disk)
        self.worker = HeldWorker()
        self.failures: list[BaseException] = []
        self.promised: list[int] = []
        self.sync = JournalSync(
            self.journal,
            self.worker,
            guarded=self._guarded,
            promisable=lambda: self.promised.append(self.journal.promisable_index),
            finished=lambda: None,
            now=asyncio.get_running_loop().time,
        )

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            self.failures.append(error)
            self.sync.close()

    def append(self, size: int = 10) -> None:
        self.journal.append(bytes(size), self.journal.last_index + 1, 1)
        self.sync.start()


def on_virtual_time(body: Callable[[Synced], Awaitable[None]]) -> list[BaseException]:
    """Run a story; return what stopped the node."""

    async def run() -> list[BaseException]:
        synced = Synced()
        await body(synced)
        synced.sync.close()
        return synced.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def test_what_is_little_is_promisable_at_once_and_synced_after_a_while() -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        synced.append()
        assert synced.promised == [2, 3]
        assert not synced.worker.jobs
        await asyncio.sleep(FLUSH_INTERVAL_S * 0.9)
        synced.append()
        assert not synced.worker.jobs
        await asyncio.sleep(FLUSH_INTERVAL_S * 0.2)
        assert len(synced.worker.jobs) == 1
        synced.append()
        assert synced.promised == [2, 3, 4, 5], "no append waits for that"
        await synced.worker.run_next()
        assert synced.journal.durable_index == 4
        await asyncio.sleep(FLUSH_INTERVAL_S * 1.1)
        await synced.worker.run_next()
        assert synced.journal.durable_index == 5
        await asyncio.sleep(10 * FLUSH_INTERVAL_S)
        assert not synced.worker.jobs, "with nothing to sync nothing is done"

    assert on_virtual_time(body) == []


def test_much_is_synced_at_once() -> None:
    async def body(synced: Synced) -> None:
        size = FLUSH_SIZE // 3
        for number in range(3):
            synced.append(size)
            assert len(synced.worker.jobs) == 1, "what is large is written by the worker"
            await synced.worker.run_next()
            assert synced.promised[-1] == synced.journal.last_index
            assert len(synced.worker.jobs) == (number == 2)
        await synced.worker.run_next()
        assert synced.journal.durable_index == synced.journal.last_index

    assert on_virtual_time(body) == []


def test_a_vote_is_synced_at_once_and_after_a_sync_under_way() -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        await asyncio.sleep(FLUSH_INTERVAL_S * 1.1)
        synced.journal.set_term_vote(2, "n2")
        synced.append()
        assert len(synced.worker.jobs) == 1, "the flush alone: never two syncs"
        await synced.worker.run_next()
        assert synced.promised == [2]
        assert len(synced.worker.jobs) == 1
        await synced.worker.run_next()
        assert synced.promised == [2, 3]
        assert synced.journal.durable_sequence == synced.journal.sequence

    assert on_virtual_time(body) == []


def test_who_asks_for_it_gets_everything_synced_that_was_promised() -> None:
    async def body(synced: Synced) -> None:
        await synced.sync.flush()
        synced.append()
        asked = asyncio.ensure_future(synced.sync.flush())
        await asyncio.sleep(0)
        synced.append()
        await synced.worker.run_next()
        await asked
        assert synced.journal.durable_index == 2
        # Also while a ticket is being synced.
        synced.journal.set_term_vote(2, "n2")
        synced.sync.start()
        asked = asyncio.ensure_future(synced.sync.flush())
        await asyncio.sleep(0)
        await synced.worker.run_next()
        await asked
        assert synced.journal.durable_index == 3
        assert not synced.worker.jobs

    assert on_virtual_time(body) == []


def test_a_stop_syncs_what_is_written_and_what_is_queued() -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        synced.journal.append(b"queued", 3, 1)
        drained = asyncio.ensure_future(synced.sync.drain())
        await asyncio.sleep(0)
        await synced.worker.run_next()
        await drained
        assert after_power_cut(synced.disk).last_index == 3

    assert on_virtual_time(body) == []


@pytest.mark.parametrize("size", [5_000, 100_000], ids=["on the loop", "by the worker"])
def test_a_write_that_finds_no_space_keeps_nothing_else_from_being_synced(size: int) -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        synced.disk.capacity = synced.disk.used
        synced.append(size)
        while synced.worker.jobs:
            await synced.worker.run_next()
        assert synced.sync.lacks_space
        drained = asyncio.ensure_future(synced.sync.drain())
        await asyncio.sleep(0)
        await synced.worker.run_next()
        await drained
        assert (synced.journal.durable_index, synced.journal.last_index) == (2, 3)
        synced.disk.capacity = None
        await asyncio.sleep(SPACE_RETRY_DELAY_S * 1.1)
        while synced.worker.jobs:
            await synced.worker.run_next()
        assert not synced.sync.lacks_space
        assert synced.journal.promisable_index == 3

    assert on_virtual_time(body) == []


def test_a_vote_that_finds_no_space_waits_for_the_sync_of_what_was_written_before() -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        synced.disk.capacity = synced.disk.used
        synced.journal.set_term_vote(2, "n2")
        synced.sync.start()
        assert synced.sync.lacks_space
        await asyncio.sleep(FLUSH_INTERVAL_S * 0.98)
        asked = asyncio.ensure_future(synced.sync.flush())
        await asyncio.sleep(0)
        synced.disk.capacity = None
        await asyncio.sleep(SPACE_RETRY_DELAY_S)
        assert len(synced.worker.jobs) == 1, "the flush alone: never two syncs"
        await synced.worker.run_next()
        await asked
        await asyncio.sleep(SPACE_RETRY_DELAY_S)
        await synced.worker.run_next()
        assert synced.journal.durable_sequence == synced.journal.sequence

    assert on_virtual_time(body) == []


def test_a_failed_sync_behind_the_promises_stops_the_node() -> None:
    async def body(synced: Synced) -> None:
        synced.append()
        await asyncio.sleep(FLUSH_INTERVAL_S * 1.1)
        synced.disk.fail_syncs = True
        await synced.worker.run_next()
        await asyncio.sleep(10 * FLUSH_INTERVAL_S)
        assert not synced.worker.jobs, "no second sync is asked"
        assert synced.journal.durable_index == 1

    (failure,) = on_virtual_time(body)
    assert isinstance(failure, DiskFailed)
