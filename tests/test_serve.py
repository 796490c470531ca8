"""A node as a process: limits that have to fit each other whatever an operator sets."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from distlog.block import Block
from distlog.config import ServeConfig
from distlog.config.kinds import Address
from distlog.consensus import messages
from distlog.consensus.commands import ENTRY_HEADER, Append, ProducerStamp, command_size
from distlog.consensus.messages import AppendEntries
from distlog.errors import DiskFailed
from distlog.runtime import ThreadWorker
from distlog.serve import node_settings, reached_by, server_limits
from distlog.storage.disk import RealDisk
from distlog.storage.kernel_sync import KernelSync

MIB = 1 << 20


@pytest.mark.parametrize("record_size_max", [1, MIB, 7 * MIB, 32 * MIB])
def test_the_largest_record_fits_an_entry_and_the_entry_a_frame(record_size_max: int) -> None:
    settings = node_settings(dataclasses.replace(ServeConfig(), record_size_max=record_size_max))
    block = Block.from_records([b"x" * record_size_max])
    entry_size = ENTRY_HEADER.size + command_size(Append(1, block, ProducerStamp(1, 0, 0)))
    assert entry_size <= settings.group.raft.entry_size_max
    entries = [(bytes(settings.group.raft.entry_size_max), 2, 1)]
    message = messages.encode(AppendEntries(1, 1, 1, 1, 1, 1, entries))
    assert len(message) <= settings.peer_limits.raft.frame_size_max


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "loopback"),
        ({"insecure": True}, "loopback"),
        ({"insecure": True, "listen": Address("10.0.0.1", 8400)}, "anybody"),
        ({"insecure": True, "peer_listen": Address("10.0.0.1", 8401)}, "anybody"),
        ({"tls_cert": "n1.pem", "listen": Address("10.0.0.1", 8400)}, "certificates"),
    ],
)
def test_the_log_says_who_can_reach_a_node(changed: dict[str, Any], expected: str) -> None:
    assert reached_by(dataclasses.replace(ServeConfig(), **changed)) == expected


def in_a_worker(story: Callable[[ThreadWorker], Awaitable[None]]) -> None:
    async def run() -> None:
        worker = ThreadWorker("test")
        try:
            await story(worker)
        finally:
            worker.close()

    asyncio.run(run())


def test_a_worker_runs_jobs_in_order_and_gives_back_results_and_errors() -> None:
    async def story(worker: ThreadWorker) -> None:
        done: list[int] = []
        futures = [worker.submit(done.append, number) for number in range(100)]
        failing = worker.submit(int, "no number")
        assert await worker.submit(sum, [1, 2]) == 3
        await asyncio.gather(*futures)
        assert done == list(range(100))
        with pytest.raises(ValueError, match="no number"):
            await failing

    in_a_worker(story)


def test_a_job_whose_future_is_cancelled_disturbs_nobody() -> None:
    async def story(worker: ThreadWorker) -> None:
        worker.submit(len, "x").cancel()
        assert await worker.submit(len, "xy") == 2

    in_a_worker(story)


@pytest.mark.parametrize("by_kernel", [True, False])
def test_a_worker_syncs_files_after_what_was_submitted_before(
    by_kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_kernel:
        monkeypatch.setattr(KernelSync, "open", lambda: None)

    async def story(worker: ThreadWorker) -> None:
        file = RealDisk().open(str(tmp_path / "file"), create=True)
        file.write_at(0, [b"x" * 5000])
        for _ in range(20):
            await worker.sync(file)
        order: list[str] = []
        worker.submit(order.append, "before")
        synced = worker.sync(file)
        synced.add_done_callback(lambda _: order.append("synced"))
        await synced
        await asyncio.sleep(0)
        assert order == ["before", "synced"]
        file.close()

    in_a_worker(story)


def test_a_sync_that_fails_in_the_thread_or_in_the_kernel_is_an_error(tmp_path: Path) -> None:
    async def story(worker: ThreadWorker) -> None:
        file = RealDisk().open(str(tmp_path / "file"), create=True)
        file.close()
        # Neither takes a descriptor that is closed.
        with pytest.raises(DiskFailed, match="file"):
            await worker.sync(file)

    in_a_worker(story)


def test_connections_get_a_quarter_of_the_descriptors() -> None:
    assert server_limits(ServeConfig(), 1024).connection_count_max == 256
    assert server_limits(ServeConfig(), 1 << 20).connection_count_max == 10_000
