"""What ten thousand topics cost on one node that may open 4,096 files: time, memory, descriptors, and stalls of the event loop.

python -m benchmarks.storage_topics PATH TOPICS FILES     in a process of its own, for the limit of open files
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figure
from distlog.block import Block
from distlog.consensus.checkpoints import SYNCS_PER_STEP
from distlog.consensus.topics import Topic, Topics
from distlog.storage.disk import RealDisk
from distlog.storage.segment_files import SegmentLimits

LIMITS = SegmentLimits()
RECORD = Block.from_records([b"x" * 100])
# No step of the event loop may take longer.
STALL_MAX_MS = 20.0


def topic_figures(directory: Path, count: int, files: int) -> list[Figure]:
    """Create `count` topics, append to all, take checkpoints, and start again."""
    path = directory / "topics"
    path.mkdir()
    command = [sys.executable, "-m", "benchmarks.storage_topics", str(path), str(count), str(files)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    finally:
        shutil.rmtree(path)
    found = json.loads(done.stdout)
    of = f"of {count:,} topics"
    return [
        Figure(f"creating one {of}, p50", "us", [found["create_p50_us"]]),
        Figure(f"creating one {of}, greatest", "ms", [found["create_max_ms"]], at_most=STALL_MAX_MS),
        Figure(f"append to one {of}, nothing open, p50", "us", [found["append_p50_us"]]),
        Figure(f"append to one {of}, greatest", "ms", [found["append_max_ms"]], at_most=STALL_MAX_MS),
        Figure(f"capture of a checkpoint, all {count:,} changed", "ms", [found["capture_ms"]], at_most=STALL_MAX_MS),
        Figure("beginning the syncs, longest step", "ms", [found["step_ms"]], at_most=STALL_MAX_MS),
        Figure("letting go of files after it", "ms", [found["checkpointed_ms"]], at_most=STALL_MAX_MS),
        Figure("syncing them all, in the worker", "s", [found["sync_s"]]),
        Figure("descriptors at most", "", [found["descriptors"]], at_most=files),
        Figure("memory for each topic", "KiB", [found["memory_kib"]]),
        Figure(f"opening {count:,} topics at a checkpoint", "s", [found["restore_s"]]),
    ]  # fmt: skip


def main(path: str, count: int, files: int) -> None:
    """Measure, and print the figures as JSON."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    disk = RealDisk()
    before = _resident_kib()
    topics = Topics(disk, path)
    creates = [
        _timed(lambda number=number: topics.create(number, f"topic-{number}", LIMITS, number))
        for number in range(1, count + 1)
    ]
    descriptors = 0
    appends = []
    for turn in range(2):
        for number, topic in enumerate(topics.by_id.values()):
            index = (turn + 1) * count + number
            appends.append(_timed(lambda topic=topic, index=index: _append(topics, topic, index)))
            if topics.is_short_of_files and turn == 0:
                # As a group does, which takes a checkpoint then.
                descriptors = max(descriptors, len(os.listdir("/proc/self/fd")))
                _checkpoint(topics, index)
        descriptors = max(descriptors, len(os.listdir("/proc/self/fd")))
    memory = _resident_kib() - before
    last = 3 * count
    begin = time.perf_counter()
    images, syncs = topics.capture()
    capture = time.perf_counter() - begin
    step = 0.0
    begin = time.perf_counter()
    for first in range(0, len(syncs), SYNCS_PER_STEP):
        begin_step = time.perf_counter()
        begun = [begin_sync() for begin_sync in syncs[first : first + SYNCS_PER_STEP]]
        step = max(step, time.perf_counter() - begin_step)
        for sync in begun:
            sync()
    sync_s = time.perf_counter() - begin
    begin = time.perf_counter()
    unlink = topics.checkpointed(last, images)
    checkpointed = time.perf_counter() - begin
    unlink()
    for topic in topics.by_id.values():
        topic.log.discard()
    begin = time.perf_counter()
    Topics(disk, path).restore(images)
    restore = time.perf_counter() - begin
    creates.sort()
    appends.sort()
    print(
        json.dumps(
            {
                "create_p50_us": 1e6 * creates[len(creates) // 2],
                "create_max_ms": 1e3 * creates[-1],
                "append_p50_us": 1e6 * appends[len(appends) // 2],
                "append_max_ms": 1e3 * appends[-1],
                "capture_ms": 1e3 * capture,
                "step_ms": 1e3 * step,
                "checkpointed_ms": 1e3 * checkpointed,
                "sync_s": sync_s,
                "descriptors": descriptors,
                "memory_kib": memory / count,
                "restore_s": restore,
            }
        )
    )


def _append(topics: Topics, topic: Topic, index: int) -> None:
    topic.log.append(RECORD, timestamp_ms=1, raft_index=index, term=1)
    topics.changed(topic, index)


def _checkpoint(topics: Topics, index: int) -> None:
    images, syncs = topics.capture()
    for begin_sync in syncs:
        begin_sync()()
    topics.checkpointed(index, images)()


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise SystemExit("/proc/self/status has no RssAnon: this needs Linux")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
