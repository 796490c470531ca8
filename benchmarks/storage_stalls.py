"""How long the event loop is held up: by a reader of cold segments in another thread, and by appends while the disk is busy."""

from __future__ import annotations

import asyncio
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks.figures import Figure
from benchmarks.storage_history import forget_cached
from benchmarks.storage_speed import LIMITS, MIB, block_of, fill, new_log
from distlog.block import Block
from distlog.runtime import ThreadWorker
from distlog.storage.log import Log, SegmentLimits

TICK_S = 0.001
# No step of the event loop may take longer.
STALL_MAX_MS = 20.0
# A busy client's block, appended twice a millisecond.
BLOCK = Block.from_records([b"x" * 100] * 100)
PAUSE_S = 0.0005


def stall_figures(directory: Path, runs: int, size: int) -> list[Figure]:
    """Tick each millisecond on a loop, alone and while a worker reads sealed segments that are not in memory."""
    alone, beside, speeds = [], [], []
    with new_log(directory, SegmentLimits(16 * MIB, LIMITS.row_count_max)) as log:
        fill(log, block_of(256 << 10), size)
        log.begin_sync()()
        for _ in range(runs):
            alone.append(uvloop.run(_late(None)))
            forget_cached(Path(log.path))
            begin = time.perf_counter()
            beside.append(uvloop.run(_late(log)))
            speeds.append(size / (time.perf_counter() - begin) / 1e6)

    def of(results: list[list[float]], share: float) -> list[float]:
        return [1e3 * laps[min(len(laps) - 1, int(len(laps) * share))] for laps in results]

    return [
        Figure("reading cold sealed segments in a worker", "MB/s", speeds),
        Figure("lateness of a tick meanwhile, p99", "ms", of(beside, 0.99), of(alone, 0.99), "nobody reads"),
        Figure("greatest lateness of a tick meanwhile", "ms", of(beside, 1.0), at_most=STALL_MAX_MS),
        Figure("the same while nobody reads", "ms", of(alone, 1.0)),
    ]  # fmt: skip


async def _late(log: Log | None) -> list[float]:
    """Return how late ticks were, in seconds, ascending: for a second, or until `log` was read once."""
    worker = ThreadWorker("reader")
    done = asyncio.Event()
    reader = asyncio.create_task(_read_all(log, worker, done))
    late = []
    while not done.is_set():
        begin = time.perf_counter()
        await asyncio.sleep(TICK_S)
        late.append(time.perf_counter() - begin - TICK_S)
    await reader
    worker.close()
    return sorted(late)


async def _read_all(log: Log | None, worker: ThreadWorker, done: asyncio.Event) -> None:
    if log is None:
        await asyncio.sleep(1)
    else:
        offset, end = log.start_offset, log.describe()[-1].base_offset
        while offset < end:
            batches = await worker.submit(log.plan_read(offset, MIB).run)
            offset = batches[-1].next_offset
    done.set()


# --- A busy disk --------------------------------------------------------------------------------------


def load_figures(directory: Path, runs: int, seconds: float) -> list[Figure]:
    """Append for `seconds` while another process writes and syncs; and do the same through a map, in turns."""
    files, copies = [], []
    for _ in range(runs):
        with _BusyDisk(directory / "load"), new_log(directory) as log:
            files.append(_paced(lambda: _append(log), seconds))
            log.begin_sync()()
        with _BusyDisk(directory / "load"):
            copies.append(_paced_map(directory / "copy", seconds))
    return [
        Figure("append of 100 records while the disk is busy, p50", "us", [1e6 * laps[len(laps) // 2] for laps in files]),
        Figure("the same, p99.9", "ms", [1e3 * laps[int(len(laps) * 0.999)] for laps in files]),
        Figure("the same, greatest", "ms", [1e3 * laps[-1] for laps in files], at_most=STALL_MAX_MS),
        Figure("a copy into a map instead, p99.9", "ms", [1e3 * laps[int(len(laps) * 0.999)] for laps in copies]),
        Figure("a copy into a map instead, greatest", "ms", [1e3 * laps[-1] for laps in copies]),
    ]  # fmt: skip


class _BusyDisk:
    """Another process that writes 4 MiB at a time, each with a sync, over one file of 256 MiB."""

    CODE = (
        "import os, sys\n"
        "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_SYNC)\n"
        "data = bytes(4 << 20)\n"
        "while True:\n"
        "    for position in range(0, 256 << 20, len(data)):\n"
        "        os.pwrite(file, data, position)\n"
    )

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", self.CODE, str(self._path)])

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._path.unlink(missing_ok=True)


def _append(log: Log) -> None:
    log.append(BLOCK, timestamp_ms=1, raft_index=1, term=1)


def _paced(action: Callable[[], None], seconds: float) -> list[float]:
    """Return how long each call took, ascending, but for the time in which other processes had the processor."""
    laps = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        waited = _waited_s()
        begin = time.perf_counter()
        action()
        lap = time.perf_counter() - begin
        laps.append(max(0.0, lap - (_waited_s() - waited)))
        time.sleep(PAUSE_S)
    return sorted(laps)


def _waited_s() -> float:
    """Return how long this thread was ready to run, and others ran."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def _paced_map(path: Path, seconds: float) -> list[float]:
    size = 64 * MIB
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size)
        with mmap.mmap(descriptor, size) as memory:
            position = 0

            def copy() -> None:
                nonlocal position
                if position + BLOCK.size > size:
                    position = 0
                memory[position : position + BLOCK.size] = BLOCK.frames
                position += BLOCK.size

            return _paced(copy, seconds)
    finally:
        os.close(descriptor)
        path.unlink()
