"""How fast one log takes and gives back blocks, beside what memory and the file system give in the same run."""

from __future__ import annotations

import mmap
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from benchmarks.figures import Figure
from distlog.block import Block, crc32c
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits

MIB = 1 << 20
LIMITS = SegmentLimits(store_size_max=64 * MIB, row_count_max=1 << 20)
RECORD = bytes(range(100))
# Bytes of a block's frames that the targets speak of.
BLOCK_SIZES = (256 << 10, 1 << 20)
COPY_NAME = "copy into a fresh map"
READ_NAME = "bytes(memoryview)"


def block_of(size: int) -> Block:
    """Return a block of 100-byte records, `size` bytes at most."""
    return Block.from_records([RECORD] * max(1, size // (len(RECORD) + 8)))


@contextmanager
def new_log(directory: Path, limits: SegmentLimits = LIMITS) -> Iterator[Log]:
    """Lend an empty log; it is removed afterwards."""
    path = directory / "log"
    log = Log.create(RealDisk(), str(path), limits)
    try:
        yield log
    finally:
        log.close()
        shutil.rmtree(path)


def fill(log: Log, block: Block, size: int) -> None:
    """Append `block` until `size` bytes are in it."""
    for _ in range(max(1, size // block.size)):
        log.append(block, timestamp_ms=1, raft_index=1, term=1)


def timed(action: Callable[[], object]) -> float:
    """Return the processor's seconds in `action`, the kernel's included: nothing here waits for a disk, and the machine may be shared."""
    begin = time.thread_time()
    action()
    return time.thread_time() - begin


# --- Append -------------------------------------------------------------------------------------------


def append_figures(directory: Path, runs: int, size: int) -> list[Figure]:
    """Measure appending `size` bytes in blocks, checksums included, against copying them into a map."""
    figures = []
    for block_size in BLOCK_SIZES:
        block = block_of(block_size)
        copies, appends, decodes = [], [], []
        for _ in range(runs):
            copies.append(_copy_speed(directory, block.frames, size))
            appends.append(_append_speed(directory, block, size))
            decodes.append(_append_speed(directory, block, size, block.encode()))
        name = f"append, blocks of {block_size >> 10} KiB"
        figures.append(
            Figure(f"{name}, checksum included", "MB/s", appends, copies, COPY_NAME, at_least=1 / 3)
        )
        figures.append(Figure(f"{name}, as they come from a client", "MB/s", decodes))
    return figures


def _copy_speed(directory: Path, data: bytes, size: int) -> float:
    path = directory / "copy"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size)
        with mmap.mmap(descriptor, size) as memory:

            def copy() -> None:
                for position in range(0, size - len(data) + 1, len(data)):
                    memory[position : position + len(data)] = data

            seconds = timed(copy)
        return size // len(data) * len(data) / seconds / 1e6
    finally:
        os.close(descriptor)
        path.unlink()


def _append_speed(directory: Path, block: Block, size: int, encoded: bytes | None = None) -> float:
    with new_log(directory) as log:
        count = max(1, size // block.size)

        def append() -> None:
            for number in range(count):
                taken = block if encoded is None else Block.decode(encoded)
                if encoded is None:
                    assert crc32c(block.frames) == block.data_crc32c
                log.append(taken, timestamp_ms=number, raft_index=number, term=1)

        return count * block.size / timed(append) / 1e6


def latency_figures(directory: Path, runs: int, count: int) -> list[Figure]:
    """Measure single appends: of one record, and of the hundred that a busy client sends."""
    figures = []
    for records in (1, 100):
        block = Block.from_records([RECORD] * records)
        quantiles: dict[str, list[float]] = {"p10": [], "p50": [], "p99": [], "greatest": []}
        for _ in range(runs):
            with new_log(directory) as log:
                laps = []
                for number in range(count):
                    begin = time.perf_counter()
                    log.append(block, timestamp_ms=number, raft_index=number, term=1)
                    laps.append(time.perf_counter() - begin)
            laps.sort()
            for name, share in (("p10", 0.1), ("p50", 0.5), ("p99", 0.99), ("greatest", 1.0)):
                quantiles[name].append(1e6 * laps[min(count - 1, int(count * share))])
        noun = "1 record" if records == 1 else f"{records} records"
        figures += [
            Figure(f"append of {noun}, {name}", "us", values) for name, values in quantiles.items()
        ]
    return figures


# --- Read ---------------------------------------------------------------------------------------------


def read_figures(directory: Path, runs: int, size: int) -> list[Figure]:
    """Measure reading back what is in memory: blocks, checked, and single records."""
    figures = []
    for block_size in BLOCK_SIZES:
        block = block_of(block_size)
        # One log that has only its active segment, and one of which all but the last block is sealed.
        half = SegmentLimits(min(size, LIMITS.store_size_max) // 2, LIMITS.row_count_max)
        for name, limits in (("active", LIMITS), ("sealed", half)):
            reads, copies, checks = [], [], []
            with new_log(directory, limits) as log:
                fill(log, block, min(size, LIMITS.store_size_max) - block.size)
                count = sum(
                    segment.batch_count
                    for segment in log.describe()[: 1 if name == "active" else -1]
                )
                for _ in range(runs):
                    copies.append(_bytes_speed(directory, block.size, count))
                    checks.append(_crc_speed(block.frames, count))
                    reads.append(_read_speed(log, block, count))
            label = f"read, blocks of {block_size >> 10} KiB, {name}"
            figures.append(Figure(label, "MB/s", reads, copies, READ_NAME, at_least=2 / 3))
            figures.append(Figure(f"CRC-32C alone, {block_size >> 10} KiB", "MB/s", checks))
    return figures + record_figures(directory, runs, size)


def _read_speed(log: Log, block: Block, count: int) -> float:
    step = block.record_count

    def read() -> None:
        for offset in range(0, count * step, step):
            log.read(offset, block.size)

    return count * block.size / timed(read) / 1e6


def _bytes_speed(directory: Path, block_size: int, count: int) -> float:
    """Copy blocks out of a map of a file that is in memory."""
    path = directory / "copy"
    path.write_bytes(bytes(block_size) * count)
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory,
            memoryview(memory) as view,
        ):

            def copy() -> None:
                for position in range(0, block_size * count, block_size):
                    bytes(view[position : position + block_size])

            # Once before, as for the log: what is in memory is compared, not what is mapped for the first time.
            copy()
            return block_size * count / timed(copy) / 1e6
    finally:
        path.unlink()


def _crc_speed(data: bytes, count: int) -> float:
    def check() -> None:
        for _ in range(count):
            crc32c(data)

    return count * len(data) / timed(check) / 1e6


def record_figures(directory: Path, runs: int, size: int) -> list[Figure]:
    """Measure `Log.read_record` at random offsets that are in memory."""
    figures = []
    half = SegmentLimits(min(size, LIMITS.store_size_max) // 2, LIMITS.row_count_max)
    for name, limits in (("active", LIMITS), ("sealed", half)):
        with new_log(directory, limits) as log:
            fill(log, block_of(64 << 10), min(size, LIMITS.store_size_max) - MIB)
            first = log.describe()[0]
            laps = [_record_us(log, first.next_offset) for _ in range(runs)]
        figures.append(Figure(f"one record by offset, {name}", "us", laps, at_most=5.0))
    return figures


def _record_us(log: Log, end: int) -> float:
    random = Random(1)
    offsets = [random.randrange(end) for _ in range(5_000)]

    def read() -> None:
        for offset in offsets:
            log.read_record(offset)

    return 1e6 * timed(read) / len(offsets)
