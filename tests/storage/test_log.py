"""One log through its door: append, read, roll, trim, sync, reopen."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.errors import CorruptBatch, DataDirectoryUnusable, OffsetOutOfRange, StorageFull
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.log import Log, SegmentLimits, remove_log
from distlog.storage.log_mark import LogMark
from distlog.storage.open_files import SegmentCache
from distlog.storage.segment import BATCHES_MAX
from distlog.storage.segment_files import remove_segment
from distlog.storage.simulated_disk import SimulatedDisk

LIMITS = SegmentLimits()
SMALL = SegmentLimits(store_size_max=100, row_count_max=5)
ALL = 1 << 40


def append(log: Log, *records: bytes, timestamp_ms: int = 1) -> int:
    return log.append(Block.from_records(records), timestamp_ms=timestamp_ms, raft_index=1, term=1)


def all_records(log: Log) -> list[bytes]:
    records: list[bytes] = []
    offset = log.start_offset
    while offset < log.next_offset:
        for batch in log.read(offset, 1 << 20):
            records += list(batch.records())[max(0, offset - batch.base_offset) :]
            offset = batch.next_offset
    return records


# --- The ancestors' behaviours --------------------------------------------------------------------


def test_parity_b05_offsets_begin_at_0_and_values_read_back_across_segments(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, SMALL)
    values = [b"value %d" % number for number in range(50)]
    assert [append(log, value) for value in values] == list(range(50))
    assert [log.read_record(offset) for offset in range(50)] == values
    assert all_records(log) == values
    assert len(log.describe()) == 10


def test_parity_b06_reading_an_empty_log_is_out_of_range_and_carries_the_offset(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, LIMITS)
    for read in (log.read_record, log.batch_of, lambda offset: log.read(offset, 1)):
        with pytest.raises(OffsetOutOfRange) as caught:
            read(1)
        assert (caught.value.offset, caught.value.start_offset) == (1, 0)
        assert caught.value.high_watermark == 0


def test_parity_b07_a_reopened_log_has_its_bounds_and_goes_on_where_it_ended(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, LIMITS)
    for value in (b"a", b"b", b"c"):
        append(log, value, timestamp_ms=9)
    log.close()
    log = Log.open(*place, LIMITS)
    assert (log.start_offset, log.next_offset, log.last_timestamp_ms) == (0, 3, 9)
    assert append(log, b"d") == 3
    assert all_records(log) == [b"a", b"b", b"c", b"d"]
    assert log.recovery == []


def test_parity_b08_a_raw_reader_yields_exactly_the_frames(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, LIMITS)
    blocks = [Block.from_records([b"hello", b""]), Block.from_records([b"world!!!"])]
    for block in blocks:
        log.append(block, timestamp_ms=1, raft_index=1, term=1)
    frames = b"".join(batch.frames for batch in log.read(0, ALL))
    assert frames == b"".join(block.frames for block in blocks)
    log.close()
    disk, path = place
    assert disk.open(f"{path}/{0:020d}.log").read_at(0, 1000) == frames


def test_parity_b09_a_trim_makes_old_offsets_unreadable_and_frees_their_files(
    place: tuple[Disk, str],
) -> None:
    disk, path = place
    log = Log.create(disk, path, SMALL)
    for number in range(12):
        append(log, b"%d" % number)
    log.trim(7)
    assert len(log.describe()) == 3, "a trim touches no file"
    with pytest.raises(OffsetOutOfRange) as caught:
        log.read(6, 1)
    assert (caught.value.start_offset, caught.value.high_watermark) == (7, 12)
    assert all_records(log) == [b"%d" % number for number in range(7, 12)]
    log.begin_sync()()
    log.begin_remove_trimmed(7)()
    assert [segment.base_offset for segment in log.describe()] == [5, 10]
    assert not disk.exists(f"{path}/{0:020d}.log")
    assert log.read_record(7) == b"7"
    log.close()
    log = Log.open(disk, path, SMALL)
    assert (log.start_offset, log.next_offset) == (7, 12)


# --- Rolling --------------------------------------------------------------------------------------


def test_a_log_rolls_by_bytes_of_store_and_by_rows_of_index(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SegmentLimits(store_size_max=100, row_count_max=4))
    append(log, b"x" * 92)
    append(log, b"")
    append(log, b"", b"", b"")
    append(log, b"", b"")
    append(log, *[b""] * 9)
    append(log, b"")
    assert [(s.base_offset, s.store_size) for s in log.describe()] == [
        (0, 100),
        (1, 32),
        (5, 16),
        (7, 72),
        (16, 8),
    ]


def test_a_first_record_larger_than_a_segment_gets_one_of_its_own(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SMALL)
    large = b"L" * 1000
    append(log, large)
    append(log, b"small")
    append(log, large)
    assert [s.base_offset for s in log.describe()] == [0, 1, 2]
    log.close()
    log = Log.open(*place, SMALL)
    assert all_records(log) == [large, b"small", large]


def test_the_same_appends_give_the_same_bytes_on_every_node(tmp_path: Path) -> None:
    places: list[tuple[Disk, str]] = [(RealDisk(), f"{tmp_path}/a"), (SimulatedDisk(), "/b")]
    for disk, path in places:
        log = Log.create(disk, path, SMALL)
        for number in range(30):
            log.append(
                Block.from_records([b"%d" % number] * (number % 4 + 1)),
                timestamp_ms=1000 - number,
                raft_index=number,
                term=3,
            )
            if number == 11 and path == "/b":
                log.begin_sync()()
                log.close()
                log = Log.open(disk, path, SMALL)
        log.close()
    contents = [
        {
            name: disk.open(f"{path}/{name}", writable=False).read_at(0, 1 << 20)
            for name in disk.list_directory(path)
            if name != "synced"
        }
        for disk, path in places
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 20


def test_time_never_goes_back_in_a_log(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SMALL)
    for timestamp_ms in (5, 9, 3, 12):
        append(log, b"x" * 80, timestamp_ms=timestamp_ms)
    assert [log.batch_of(offset).timestamp_ms for offset in range(4)] == [5, 9, 9, 12]
    log.close()
    log = Log.open(*place, SMALL)
    append(log, b"x", timestamp_ms=1)
    assert log.batch_of(4).timestamp_ms == 12


# --- Reading --------------------------------------------------------------------------------------


def test_a_read_returns_whole_batches_up_to_the_limit_and_at_least_one(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, LIMITS)
    for _ in range(4):
        append(log, b"12", b"34")
    assert [b.base_offset for b in log.read(3, 0)] == [2]
    assert [b.base_offset for b in log.read(2, 39)] == [2]
    assert [b.base_offset for b in log.read(2, 40)] == [2, 4]
    assert [b.base_offset for b in log.read(0, ALL)] == [0, 2, 4, 6]


def test_a_read_of_tiny_batches_ends_before_it_takes_long() -> None:
    log = Log.create(SimulatedDisk(), "/log", LIMITS)
    for _ in range(2 * BATCHES_MAX):
        append(log, b"")
    assert len(log.read(0, ALL)) == BATCHES_MAX
    assert log.read(BATCHES_MAX, ALL)[-1].next_offset == 2 * BATCHES_MAX


def test_a_read_of_sealed_segments_goes_on_across_them_but_not_into_the_active_one(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, SMALL)
    for number in range(13):
        append(log, b"%d" % number)
    plan = log.plan_read(3, ALL)
    assert plan.blocking
    assert [b.base_offset for b in plan.run()] == list(range(3, 10))
    assert [b.base_offset for b in log.read(3, 30)] == [3, 4, 5]
    plan = log.plan_read(10, ALL)
    assert not plan.blocking
    assert [b.base_offset for b in plan.run()] == [10, 11, 12]


def test_a_plan_for_the_active_segment_reads_the_same_after_it_was_sealed(
    place: tuple[Disk, str],
) -> None:
    log = Log.create(*place, SMALL)
    append(log, b"before")
    plan = log.plan_read(0, ALL)
    for _ in range(9):
        append(log, b"x")
    assert list(plan.run()[0].records()) == [b"before"]


def test_files_stay_while_a_reader_holds_the_segment(place: tuple[Disk, str]) -> None:
    disk, path = place
    log = Log.create(disk, path, SMALL)
    for number in range(11):
        append(log, b"%d" % number)
    plan = log.plan_read(0, 1)
    log.trim(10)
    log.begin_sync()()
    log.begin_remove_trimmed(10)()
    assert [s.base_offset for s in log.describe()] == [0, 5, 10]
    assert list(plan.run()[0].records()) == [b"0"]
    log.begin_remove_trimmed(10)()
    assert [s.base_offset for s in log.describe()] == [10]
    assert not disk.exists(f"{path}/{5:020d}.idx")


def test_a_plan_that_is_forgotten_or_released_holds_nothing(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SMALL)
    for number in range(11):
        append(log, b"%d" % number)
    released, forgotten = log.plan_read(0, 1), log.plan_read(5, 1)
    released.release()
    del forgotten
    log.trim(10)
    log.begin_sync()()
    log.begin_remove_trimmed(10)()
    assert [s.base_offset for s in log.describe()] == [10]


def test_a_long_log_keeps_few_files_open(tmp_path: Path) -> None:
    cache = SegmentCache(open_max=3)
    log = Log.create(RealDisk(), f"{tmp_path}/log", SMALL, cache)
    for number in range(100):
        append(log, b"%d" % number)
    log.begin_sync()()
    log.begin_sync()()
    assert all_records(log) == [b"%d" % number for number in range(100)]
    opened = {
        target
        for link in Path("/proc/self/fd").iterdir()
        if str(tmp_path) in (target := str(link.resolve()))
    }
    assert len(opened) == 3 * 3 + 3, "three idle segments, and the active one"
    log.close()


# --- Sync -----------------------------------------------------------------------------------------


def test_a_sync_covers_sealed_segments_names_and_the_mark_of_the_moment() -> None:
    operations: list[tuple[str, str]] = []
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for number in range(7):
        append(log, b"%d" % number)
    sync = log.begin_sync()
    append(log, b"later")
    disk.hook = lambda operation, path: operations.append((operation, path[-8:]))
    sync()
    synced = [path for operation, path in operations if operation.startswith("sync")]
    assert synced == [
        "0000.log",
        "0000.idx",
        "00.batch",
        "0005.log",
        "0005.idx",
        "05.batch",
        "/log",
        "g/synced",
    ]
    assert disk.open(f"/log/{0:020d}.log").size() == 5 * 9, "a synced segment has its exact size"


def test_a_sync_with_nothing_to_do_touches_nothing() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    append(log, b"x")
    log.begin_sync()()
    before = disk.operation_count
    log.begin_sync()()
    assert disk.operation_count == before


def test_a_sync_that_never_ran_is_done_by_the_next_one() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for number in range(7):
        append(log, b"%d" % number)
    log.begin_sync()
    log.begin_sync()()
    for seed in range(20):
        log = Log.open(disk.crash(Random(seed)), "/log", SMALL)
        assert all_records(log) == [b"%d" % number for number in range(7)]


def test_a_sealed_segment_can_be_read_while_a_sync_gives_back_its_space() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for number in range(6):
        append(log, b"%d" % number)
    sync = log.begin_sync()

    def sync_now(operation: str, path: str) -> None:
        if operation == "open" and path.endswith(".idx"):
            disk.hook = None
            sync()

    disk.hook = sync_now
    assert log.read_record(2) == b"2"
    assert disk.hook is None


# --- Full disk ------------------------------------------------------------------------------------


def test_a_log_on_a_full_disk_refuses_appends_keeps_its_records_and_goes_on_later() -> None:
    disk = SimulatedDisk(capacity=1 << 20)
    log = Log.create(disk, "/log", SegmentLimits(store_size_max=100_000))
    while disk.free_space("/") > 250_000:
        append(log, b"x" * 40_000)
    kept = log.next_offset
    with pytest.raises(StorageFull):
        append(log, b"x" * 250_000)
    assert log.next_offset == kept > 5
    assert all_records(log) == [b"x" * 40_000] * kept
    disk.capacity = 2 << 20
    assert append(log, b"y") == kept
    log.close()
    assert all_records(Log.open(disk, "/log", LIMITS))[-1] == b"y"


@pytest.mark.parametrize("nth", range(1, 10))
def test_an_append_that_the_disk_refuses_can_be_tried_again(nth: int) -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for number in range(5):
        append(log, b"%d" % number)
    disk.fail_at = disk.operation_count + nth
    try:
        append(log, b"5")
    except Exception:
        assert log.next_offset == 5
        append(log, b"5")
    assert all_records(log) == [b"%d" % number for number in range(6)]


# --- Opening --------------------------------------------------------------------------------------


def test_there_is_no_log_where_there_is_nothing(place: tuple[Disk, str]) -> None:
    disk, path = place
    disk.make_directory(path)
    with pytest.raises(DataDirectoryUnusable, match="no log"):
        Log.open(disk, path, LIMITS)
    assert disk.list_directory(path) == []


def test_a_log_is_removed_with_its_directory(place: tuple[Disk, str]) -> None:
    disk, path = place
    log = Log.create(disk, path, SMALL)
    for number in range(7):
        append(log, b"%d" % number)
    log.close()
    remove_log(disk, path)
    assert not disk.exists(path)


def test_a_log_opens_at_a_mark_and_everything_after_it_is_gone(place: tuple[Disk, str]) -> None:
    disk, path = place
    log = Log.create(disk, path, SMALL)
    marks = [log.mark()]
    for number in range(23):
        append(log, b"%d" % number, timestamp_ms=number)
        marks.append(log.mark())
    log.close()
    for mark in reversed(marks):
        log = Log.open_at(disk, path, SMALL, mark)
        assert log.mark() == mark
        assert all_records(log) == [b"%d" % number for number in range(mark.next_offset)]
        log.close()
    log = Log.open_at(disk, path, SMALL, marks[0])
    assert append(log, b"anew") == 0
    assert disk.list_directory(path) == [
        f"{0:020d}.batch",
        f"{0:020d}.idx",
        f"{0:020d}.log",
        "synced",
    ]


def marked_log(count: int = 12) -> tuple[SimulatedDisk, LogMark]:
    """A closed log of segments at 0, 5 and 10, of one-record batches, and its mark after twelve of them."""
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SMALL)
    for number in range(12):
        append(log, b"%d" % number)
    mark = log.mark()
    for number in range(12, count):
        append(log, b"%d" % number)
    log.close()
    return disk, mark


@pytest.mark.parametrize("suffix", [".log", ".batch"])
def test_a_mark_does_not_open_a_log_that_lacks_a_file_of_its_segment(suffix: str) -> None:
    disk, mark = marked_log(17)
    disk.remove(f"/log/{10:020d}{suffix}")
    names = disk.list_directory("/log")
    with pytest.raises(CorruptBatch, match=f"{10:020d}{suffix}.*missing"):
        Log.open_at(disk, "/log", SMALL, mark)
    assert disk.list_directory("/log") == names, "what is left may be needed to find out why"


def test_a_mark_does_not_open_a_log_that_lacks_its_segment() -> None:
    disk, mark = marked_log()
    remove_segment(disk, "/log", 10)
    with pytest.raises(CorruptBatch):
        Log.open_at(disk, "/log", SMALL, mark)


@pytest.mark.parametrize("suffix", [".log", ".batch"])
def test_a_mark_does_not_open_a_log_whose_last_files_are_too_short(suffix: str) -> None:
    disk, mark = marked_log()
    file = disk.open(f"/log/{10:020d}{suffix}")
    file.truncate(file.size() - 1)
    with pytest.raises(CorruptBatch):
        Log.open_at(disk, "/log", SMALL, mark)


def test_segments_that_a_trim_left_behind_are_removed_at_the_next_start(
    place: tuple[Disk, str],
) -> None:
    disk, path = place
    log = Log.create(disk, path, SMALL)
    for number in range(12):
        append(log, b"%d" % number)
    log.trim(7)
    mark = log.mark()
    log.close()
    disk.remove(f"{path}/{0:020d}.idx")
    log = Log.open_at(disk, path, SMALL, mark)
    assert [s.base_offset for s in log.describe()] == [5, 10]
    assert log.start_offset == 7
    assert len(log.recovery) == 1
    assert "start offset 7" in log.recovery[0]
    log.close()
