"""Which files are open: none of what is idle, few of what is used, and all that is written and not synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.errors import DescriptorsExhausted
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.open_files import WRITTEN_MAX, SegmentCache
from distlog.storage.segment_files import list_segments
from distlog.storage.simulated_disk import SimulatedDisk
from tests.storage.limited_disk import LimitedDisk

SMALL = SegmentLimits(store_size_max=1 << 20, row_count_max=1)
LIMITS = SegmentLimits()
X = Block.from_records([b"x"])


def append(log: Log, block: Block = X) -> int:
    return log.append(block, timestamp_ms=1, raft_index=1, term=1)


def open_files(directory: Path) -> list[str]:
    """Return what this process has open below `directory`, once for each descriptor."""
    found = []
    for link in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{link}")
        except FileNotFoundError:
            # The descriptor of the listing itself.
            continue
        if target.startswith(str(directory)):
            found.append(target.rpartition("/")[2])
    return found


def maps(directory: Path) -> list[str]:
    """Return the files below `directory` that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(directory) in line]


def test_thousands_of_sealed_segments_hold_no_descriptor_and_no_map_until_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Thousands of them take a minute on a busy disk, and descriptors are what is counted here.
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    cache = SegmentCache(written_max=20)
    log = Log.create(RealDisk(), f"{tmp_path}/log", SMALL, cache)
    most = 0
    for number in range(3_000):
        append(log)
        if number % 100 == 0:
            most = max(most, len(open_files(tmp_path)))
    assert most <= 20 * 3
    log.begin_sync()()
    mark = log.mark()
    log.close()
    log = Log.open_at(RealDisk(), f"{tmp_path}/log", SMALL, mark, cache)
    assert len(log.describe()) == 3_000
    assert open_files(tmp_path) == []
    assert maps(tmp_path) == []
    assert log.read_record(1_234) == b"x"
    assert len(open_files(tmp_path)) == 3
    for offset in range(0, 3_000, 7):
        log.read_record(offset)
    assert len(open_files(tmp_path)) <= 64 * 3
    assert maps(tmp_path) == []
    log.close()
    assert open_files(tmp_path) == []


def test_an_idle_log_holds_nothing_open_and_goes_on_where_it_was(tmp_path: Path) -> None:
    cache = SegmentCache(written_max=5)
    logs = [Log.create(RealDisk(), f"{tmp_path}/{name}", LIMITS, cache) for name in range(40)]
    assert open_files(tmp_path) == [], "an empty log that nobody has used"
    for turn in range(3):
        for number, log in enumerate(logs):
            assert append(log, Block.from_records([b"%d of %d" % (turn, number)])) == turn
            assert log.read_record(turn) == b"%d of %d" % (turn, number)
            # Three files, and the maps of two of them that reading made.
            assert len(open_files(tmp_path)) <= 5 * 6
            assert cache.written_count <= 5
        for log in logs:
            log.begin_sync()()
    assert {os.path.getsize(path) for path in tmp_path.glob("*/*.log")} == {64 << 10}
    for number, log in enumerate(logs):
        assert [log.read_record(turn) for turn in range(3)] == [
            b"%d of %d" % (turn, number) for turn in range(3)
        ]
        log.close()
    assert open_files(tmp_path) == []


def test_logs_whose_files_come_and_go_have_the_same_bytes_as_one_that_is_alone() -> None:
    random = Random(1)
    alone, crowded = SimulatedDisk(), SimulatedDisk()
    limits = SegmentLimits(store_size_max=3_000, row_count_max=20)
    caches = (SegmentCache(), SegmentCache(written_max=1))
    logs = [
        [Log.create(disk, f"/{name}", limits, cache) for name in range(3)]
        for disk, cache in zip((alone, crowded), caches, strict=True)
    ]
    for _ in range(300):
        number = random.randrange(3)
        block = Block.from_records(
            [bytes(random.randrange(200)) for _ in range(random.randint(1, 4))]
        )
        for some in logs:
            append(some[number], block)
        if random.random() < 0.1:
            for some in logs:
                some[number].begin_sync()()
    for some in logs:
        for log in some:
            log.close()
    for name in range(3):
        for each in alone.list_directory(f"/{name}"):
            if each != "synced":
                contents = [
                    disk.open(f"/{name}/{each}").read_at(0, 1 << 20) for disk in (alone, crowded)
                ]
                assert contents[0] == contents[1]


def test_files_that_are_not_synced_are_closed_only_after_a_sync() -> None:
    operations: list[tuple[str, str]] = []
    disk = SimulatedDisk(hook=lambda operation, path: operations.append((operation, path)))
    cache = SegmentCache(written_max=2)
    logs = [Log.create(disk, f"/{name}", LIMITS, cache) for name in range(3)]
    for log in logs[:2]:
        append(log)
    assert not cache.is_short
    operations.clear()
    append(logs[2])
    synced = [path for operation, path in operations if operation == "sync"]
    assert [path[:3] for path in synced] == ["/0/"] * 3, "the first log's files had to go"
    assert cache.is_short
    cache.begin_checkpoint()
    for log in logs:
        log.begin_sync()()
    assert not cache.is_short
    operations.clear()
    append(logs[0])
    assert not [path for operation, path in operations if operation == "sync"]
    assert not cache.is_short, "what is synced is closed as it is"


def test_files_of_a_sync_that_has_not_run_are_not_closed_unsynced() -> None:
    operations: list[str] = []
    disk = SimulatedDisk(hook=lambda operation, path: operations.append(operation))
    cache = SegmentCache(written_max=1)
    logs = [Log.create(disk, f"/{name}", LIMITS, cache) for name in range(2)]
    append(logs[0])
    sync = logs[0].begin_sync()
    operations.clear()
    append(logs[1])
    assert operations.count("sync") == 3
    sync()
    survivor = disk.crash(Random(1))
    assert Log.open(survivor, "/0", LIMITS).read_record(0) == b"x"


def test_a_segment_that_was_written_to_after_its_sync_began_stays_open_when_it_is_sealed(
    tmp_path: Path,
) -> None:
    log = Log.create(RealDisk(), f"{tmp_path}/log", SegmentLimits(row_count_max=2))
    append(log)
    sync = log.begin_sync()
    append(log)
    append(log)
    sync()
    begun = log.begin_sync()
    assert f"{0:020d}.log" in open_files(tmp_path), "its second record is not synced"
    begun()
    log.begin_sync()
    assert {name[:20] for name in open_files(tmp_path)} == {f"{2:020d}"}
    log.discard()


def test_a_segment_that_was_closed_unsealed_and_rolls_is_sealed_like_any_other() -> None:
    disk = SimulatedDisk()
    cache = SegmentCache(written_max=1)
    log = Log.create(disk, "/log", SegmentLimits(row_count_max=2), cache)
    other = Log.create(disk, "/other", LIMITS, cache)
    append(log)
    append(other)
    append(log)
    append(other)
    append(log)
    log.begin_sync()()
    assert [segment.base_offset for segment in log.describe()] == [0, 2]
    assert disk.open(f"/log/{0:020d}.log").size() == 2 * 9, "a synced segment has its exact size"
    assert [log.read_record(offset) for offset in range(3)] == [b"x"] * 3


def test_where_no_descriptor_is_left_a_log_closes_others_instead_of_failing() -> None:
    limited = LimitedDisk(SimulatedDisk(), 40)
    cache = SegmentCache(written_max=100)
    logs = [Log.create(limited, f"/{name}", LIMITS, cache) for name in range(30)]
    for turn in range(3):
        for log in logs:
            assert append(log) == turn
    assert limited.refused_count > 0
    assert limited.open_count <= 40
    assert [log.read_record(2) for log in logs] == [b"x"] * 30


def test_an_append_is_refused_when_nothing_is_left_to_close_and_can_be_tried_again() -> None:
    limited = LimitedDisk(SimulatedDisk(), 10)
    log = Log.create(limited, "/log", LIMITS)
    limited.limit = 2
    with pytest.raises(DescriptorsExhausted):
        append(log)
    assert (limited.open_count, log.next_offset) == (0, 0)
    limited.limit = 3
    assert append(log) == 0
    assert log.read_record(0) == b"x", "without a map, which takes a descriptor too"


@pytest.mark.parametrize(
    ("open_max", "written"), [(1, 1), (256, 21), (4096, 341), (1 << 20, WRITTEN_MAX)]
)
def test_half_of_the_descriptors_are_for_what_is_written(open_max: int, written: int) -> None:
    disk = SimulatedDisk()
    cache = SegmentCache.within(open_max)
    logs = [Log.create(disk, f"/{name}", LIMITS, cache) for name in range(min(written + 3, 400))]
    for log in logs:
        append(log)
    assert cache.written_count == min(written, len(logs))


# --- Nothing of a log's beginning or end waits for the disk -------------------------------------------


def syncs_of(disk: SimulatedDisk, action: Callable[[], object]) -> list[str]:
    found: list[str] = []
    disk.hook = lambda operation, path: found.append(path) if "sync" in operation else None
    action()
    disk.hook = None
    return found


def test_a_log_that_is_not_made_durable_syncs_nothing_until_its_first_sync() -> None:
    disk = SimulatedDisk()
    made: list[Log] = []
    create = lambda: made.append(Log.create(disk, "/top/log", LIMITS, durable=False))  # noqa: E731
    disk.make_directory("/top")
    assert syncs_of(disk, create) == []
    append(made[0])
    assert not disk.crash(Random(0)).exists("/top/log/synced")
    sync = made[0].begin_sync()
    assert syncs_of(disk, sync)[-2:] == ["/top/log", "/top/log/synced"]
    disk.sync_directory("/top")
    for seed in range(20):
        log = Log.open_at(disk.crash(Random(seed)), "/top/log", LIMITS, sync.mark)
        assert log.read_record(0) == b"x"


def test_a_log_that_is_discarded_syncs_nothing_and_holds_nothing(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    append(log)
    append(log)
    plan = log.plan_read(0, 1)
    assert not log.discard(), "a reader holds a part of it"
    plan.release()
    assert syncs_of(disk, lambda: log.discard() or pytest.fail("nobody reads")) == []
    real = Log.create(RealDisk(), f"{tmp_path}/log", SMALL)
    for _ in range(5):
        append(real)
    real.read_record(0)
    assert open_files(tmp_path)
    assert real.discard()
    assert open_files(tmp_path) == []


def test_trimmed_segments_are_let_go_at_once_and_unlinked_by_what_is_returned() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for _ in range(5):
        append(log)
    log.trim(3)
    log.begin_sync()()
    removed: list[str] = []
    disk.hook = lambda operation, path: removed.append(path) if operation == "remove" else None
    unlink = log.begin_remove_trimmed(3)
    assert removed == []
    assert [segment.base_offset for segment in log.describe()] == [3, 4]
    unlink()
    assert len(removed) == 9
    assert list(list_segments(disk, "/log")) == [3, 4]
