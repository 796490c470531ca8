"""What a log of any size costs: to open after a kill -9, in memory, in descriptors, and at every append and read.

Each step is a process of its own, so that it finds nothing in memory that a start would not find either:

    python -m benchmarks.storage_history write PATH SIZE TAIL     appends, syncs, appends TAIL more, and is killed
    python -m benchmarks.storage_history open PATH TAIL           opens, measures, appends TAIL more, and is killed
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.figures import Figure
from benchmarks.storage_speed import LIMITS, MIB, block_of, timed
from distlog.block import Block
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits

# Bytes between two syncs while the history is written, as a checkpoint would have it.
SYNC_INTERVAL = 256 * MIB
SMALL_SIZE = MIB
SAMPLES = 200


def history_figures(directory: Path, runs: int, size: int, tail: int) -> list[Figure]:
    """Write `size` bytes of history and `tail` bytes that no sync covers, kill, open, `runs` times."""
    path = directory / "history"
    written = _child("write", str(path), str(size), str(tail))
    results = [_child("open", str(path), str(tail)) for _ in range(runs)]
    cold = []
    for _ in range(runs):
        forget_cached(path)
        cold.append(_child("open", str(path), str(tail))["open_s"])

    def of(key: str) -> list[float]:
        return [float(result[key]) for result in results]

    label = f"{size / (1 << 30):.3g} GiB"
    return [
        Figure(f"writing {label}, syncs included", "MB/s", [written["speed"]]),
        Figure(f"opening {label} after kill -9, but for the check of the tail", "s", of("open_s"), at_most=1.0),
        Figure("the same, nothing of it in memory, as after a reboot", "s", cold),
        Figure(f"checking the tail of {tail >> 20} MiB alone", "s", of("check_s")),
        Figure(f"opening {label} at a checkpoint", "s", of("open_at_s"), at_most=1.0),
        Figure("memory that is not a map, once open", "MiB", of("memory_mib"), at_most=32),
        Figure("the same, after reads all over it", "MiB", of("memory_read_mib"), at_most=32),
        Figure("descriptors of an open log that nobody reads", "", of("descriptors"), at_most=7),
        Figure("maps of it", "", of("maps"), at_most=3),
        Figure(f"append of 256 KiB at {label}", "us", of("append"), of("append_small"), "at 1 MiB", at_most=1.1),
        Figure(f"read of 256 KiB at {label}", "us", of("read"), of("read_small"), "at 1 MiB", at_most=1.1),
        Figure(f"one record at {label}", "us", of("record"), of("record_small"), "at 1 MiB", at_most=1.1),
    ]  # fmt: skip


def _child(*arguments: str) -> dict[str, float]:
    """Run a step; it kills itself when it is done."""
    command = [sys.executable, "-m", "benchmarks.storage_history", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != -signal.SIGKILL:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}, not by its own kill -9"
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def forget_cached(path: Path) -> None:
    """Write back what is in memory of the files in a directory, and drop it."""
    for file in path.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _die(result: dict[str, float]) -> None:
    print(json.dumps(result), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


# --- The steps ----------------------------------------------------------------------------------------


def write(path: str, size: int, tail: int) -> None:
    """Append `size` bytes durably, and `tail` bytes that are not synced."""
    block = block_of(256 << 10)
    log = Log.create(RealDisk(), path, LIMITS)
    begin = time.perf_counter()
    unsynced = 0
    for _ in range(size // block.size):
        _append(log, block)
        unsynced += block.size
        if unsynced >= SYNC_INTERVAL:
            log.begin_sync()()
            unsynced = 0
    log.begin_sync()()
    speed = size / (time.perf_counter() - begin) / 1e6
    for _ in range(tail // block.size):
        _append(log, block)
    _die({"speed": speed})


def measure_open(path: str, tail: int) -> None:
    """Open the log as a new process does, measure, and leave a tail for the next one."""
    block = block_of(256 << 10)
    block_count = tail // block.size

    before = _anonymous_mib()
    begin = time.perf_counter()
    log = Log.open(RealDisk(), path, LIMITS)
    opened = time.perf_counter() - begin
    tail_begin = log.next_offset - block_count * block.record_count
    result = {"memory_mib": _anonymous_mib() - before}
    result["descriptors"] = len([name for name in _descriptors() if name.startswith(path)])
    result["maps"] = Path("/proc/self/maps").read_text().count(path)
    # The same bytes, read and checked again: what the opening did beside everything else.
    result["check_s"] = _tail_check_s(log, tail_begin, block.size, block_count)
    result["open_s"] = max(0.0, opened - result["check_s"])
    mark = log.mark()
    log.discard()
    begin = time.perf_counter()
    log = Log.open_at(RealDisk(), path, LIMITS, mark)
    result["open_at_s"] = time.perf_counter() - begin
    result |= _costs(log, path)
    random = Random(1)
    for _ in range(SAMPLES):
        log.read(random.randrange(log.start_offset, log.next_offset), MIB)
    result["memory_read_mib"] = _anonymous_mib() - before
    log.begin_sync()()
    for _ in range(block_count):
        _append(log, block)
    _die(result)


def _tail_check_s(log: Log, offset: int, size: int, count: int) -> float:
    if not count:
        return 0.0
    # Written by another process and dropped from memory, then read by the opening: in memory now, so this is the least it can be.
    begin = time.perf_counter()
    step = (log.next_offset - offset) // count
    for number in range(count):
        log.read(offset + number * step, size)
    return time.perf_counter() - begin


def _costs(log: Log, path: str) -> dict[str, float]:
    """Return what an append and reads cost here and in a log of 1 MiB beside it, in turns, in microseconds."""
    small_path = f"{path}-small"
    block = block_of(256 << 10)
    small = Log.create(RealDisk(), small_path, SegmentLimits(SMALL_SIZE, LIMITS.row_count_max))
    while len(small.describe()) == 1:
        _append(small, block)
    small.close()
    small = Log.open(RealDisk(), small_path, LIMITS)
    laps: dict[str, list[float]] = {}
    random = Random(2)
    # Of each, a MiB of a sealed segment that is in memory: what is compared is the log, not the disk or the processor's caches.
    ranges = {}
    for name, each in (("", log), ("_small", small)):
        segments = each.describe()
        base_offset = segments[(len(segments) - 1) // 2].base_offset
        ranges[name] = (base_offset, base_offset + SMALL_SIZE // block.size * block.record_count)
        for offset in range(*ranges[name], block.record_count):
            each.read(offset, block.size)
    for _ in range(SAMPLES):
        for name, each in (("", log), ("_small", small)):
            offset = random.randrange(*ranges[name])
            actions: dict[str, Callable[[], object]] = {
                "append": lambda each=each: _append(each, block),
                "read": lambda each=each, offset=offset: each.read(offset, 0),
                "record": lambda each=each, offset=offset: each.read_record(offset),
            }
            for key, action in actions.items():
                action()
                laps.setdefault(key + name, []).append(1e6 * timed(action))
    small.close()
    for file in Path(small_path).iterdir():
        file.unlink()
    Path(small_path).rmdir()
    return {key: sorted(values)[len(values) // 2] for key, values in laps.items()}


def _append(log: Log, block: Block) -> None:
    log.append(block, timestamp_ms=1, raft_index=1, term=1)


def _anonymous_mib() -> float:
    """Return the memory of this process that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no RssAnon: this needs Linux")


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    measure_open(sys.argv[2], int(sys.argv[3]))
