"""Seek by time: the first batch at or after a timestamp, in few steps, and never a guess where something is damaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.block import Block
from distlog.errors import CorruptBatch
from distlog.storage.disk import Disk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.segment_files import TABLE, segment_path
from distlog.storage.simulated_disk import SimulatedDisk

# Three batches of one record a segment.
SMALL = SegmentLimits(store_size_max=1 << 20, row_count_max=3)
PATH = "/log"
ROW_SIZE = 64
TIMESTAMP_POSITION = 24


def append(log: Log, timestamp_ms: int, record_count: int = 1) -> int:
    block = Block.from_records([b"x"] * record_count)
    return log.append(block, timestamp_ms=timestamp_ms, raft_index=1, term=1)


def log_of(disk: Disk, path: str, timestamps: Sequence[int]) -> Log:
    """Return a log of batches of one record, with everything synced."""
    log = Log.create(disk, path, SMALL)
    for timestamp_ms in timestamps:
        append(log, timestamp_ms)
    log.begin_sync()()
    return log


def reference(timestamps: Sequence[int], timestamp_ms: int, start_offset: int = 0) -> int:
    """Return what a search finds in a log of batches of one record."""
    found = [offset for offset, each in enumerate(timestamps) if each >= timestamp_ms]
    return max(start_offset, found[0]) if found else len(timestamps)


def test_every_time_of_a_log_and_between_is_found(place: tuple[Disk, str]) -> None:
    timestamps = [10, 10, 12, 14, 14, 14, 14, 14, 15, 20, 20]
    log = log_of(*place, timestamps)
    for timestamp_ms in range(8, 23):
        assert log.plan_time_search(timestamp_ms).run() == reference(timestamps, timestamp_ms)


@given(
    steps=st.lists(st.integers(0, 3), max_size=40),
    start=st.integers(0, 40),
    timestamp_ms=st.integers(-3, 125),
)
@settings(max_examples=200)
def test_a_search_is_a_search_of_a_list(steps: list[int], start: int, timestamp_ms: int) -> None:
    timestamps = [sum(steps[: number + 1]) for number in range(len(steps))]
    log = log_of(SimulatedDisk(), PATH, timestamps)
    log.trim(start)
    log.begin_remove_trimmed(log.start_offset)()
    expected = reference(timestamps, timestamp_ms, log.start_offset)
    assert log.plan_time_search(timestamp_ms).run() == expected
    assert log.plan_time_search(timestamp_ms).run() == expected


def test_a_batch_of_several_records_is_found_by_its_first_one_that_is_kept() -> None:
    log = Log.create(SimulatedDisk(), PATH, SegmentLimits())
    append(log, 10, record_count=5)
    append(log, 20, record_count=5)
    assert (log.plan_time_search(10).run(), log.plan_time_search(11).run()) == (0, 5)
    log.trim(7)
    assert (
        log.plan_time_search(10).run(),
        log.plan_time_search(20).run(),
        log.plan_time_search(21).run(),
    ) == (7, 7, 10)


def test_an_empty_log_has_no_time_at_all(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SMALL)
    assert [log.plan_time_search(timestamp_ms).run() for timestamp_ms in (-1, 0, 1)] == [0, 0, 0]
    append(log, 10)
    log.trim(1)
    assert log.plan_time_search(10).run() == 1


def test_a_search_finds_the_same_after_the_log_was_opened_again(place: tuple[Disk, str]) -> None:
    timestamps = list(range(0, 100, 7))
    log_of(*place, timestamps).close()
    log = Log.open(*place, SMALL)
    for timestamp_ms in range(-1, 101):
        assert log.plan_time_search(timestamp_ms).run() == reference(timestamps, timestamp_ms)


@pytest.mark.parametrize("segment_count", [1, 2, 30, 300])
def test_a_search_opens_logarithmically_many_segments(segment_count: int) -> None:
    disk = SimulatedDisk()
    timestamps = list(range(segment_count * 3))
    log_of(disk, PATH, timestamps).close()
    opened: list[str] = []
    for timestamp_ms in range(0, len(timestamps), max(1, len(timestamps) // 20)):
        log = Log.open(disk, PATH, SMALL)
        disk.hook = lambda operation, path: (
            opened.append(path) if operation == "open" and path.endswith(TABLE) else None
        )
        opened.clear()
        assert log.plan_time_search(timestamp_ms).run() == timestamp_ms
        disk.hook = None
        assert len(opened) <= math.ceil(math.log2(segment_count + 1)) + 1
        log.close()


def test_only_a_search_among_sealed_segments_touches_files() -> None:
    log = log_of(SimulatedDisk(), PATH, [10, 20, 30, 40, 50])
    for timestamp_ms, blocking in ((51, False), (50, False), (41, False), (40, True), (5, True)):
        plan = log.plan_time_search(timestamp_ms)
        assert plan.blocking is blocking
        plan.release()


def test_files_stay_while_a_search_may_need_them(place: tuple[Disk, str]) -> None:
    log = log_of(*place, range(12))
    plan = log.plan_time_search(4)
    log.trim(12)
    log.begin_remove_trimmed(12)()
    assert len(log.describe()) == 4, "the search holds all that it may come to"
    assert plan.run() == 4
    log.begin_remove_trimmed(12)()
    assert len(log.describe()) == 1


# --- Damage ---------------------------------------------------------------------------------------


def damaged(bases: Sequence[int], timestamps: Sequence[int]) -> Log:
    """Return a log whose segments at `bases` cannot be read: their tables are gone after the log was opened."""
    disk = SimulatedDisk()
    log_of(disk, PATH, timestamps).close()
    log = Log.open(disk, PATH, SMALL)
    for base_offset in bases:
        file = disk.open(segment_path(PATH, base_offset, TABLE))
        file.truncate(0)
        file.close()
    return log


def test_a_damaged_segment_hides_only_the_times_that_may_be_in_it() -> None:
    timestamps = list(range(0, 180, 10))
    # Offsets 6 to 8, of times 60 to 80.
    log = damaged([6], timestamps)
    for timestamp_ms in range(-5, 190):
        if 50 < timestamp_ms <= 90:
            with pytest.raises(
                CorruptBatch, match=f"{timestamp_ms} or later may be in it"
            ) as error:
                log.plan_time_search(timestamp_ms).run()
            assert error.value.path == segment_path(PATH, 6, TABLE)
        else:
            assert log.plan_time_search(timestamp_ms).run() == reference(timestamps, timestamp_ms)


@given(
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    bases=st.sets(st.integers(0, 12).map(lambda number: number * 3)),
    timestamp_ms=st.integers(-3, 125),
)
@settings(max_examples=300)
def test_with_any_segments_damaged_a_search_is_right_or_says_that_it_cannot_tell(
    steps: list[int], bases: set[int], timestamp_ms: int
) -> None:
    timestamps = [sum(steps[: number + 1]) for number in range(len(steps))]
    active = (len(timestamps) - 1) // 3 * 3
    log = damaged([base for base in bases if base < active], timestamps)
    try:
        found = log.plan_time_search(timestamp_ms).run()
    except CorruptBatch:
        # Only where the damaged ones lie between the last segment that is older and the first one that is not.
        expected = reference(timestamps, timestamp_ms)
        segment = expected // 3 * 3
        assert segment in bases or segment - 3 in bases
    else:
        assert found == reference(timestamps, timestamp_ms)


def test_a_quarantined_segment_is_not_opened_and_hides_no_other_time() -> None:
    disk = SimulatedDisk()
    log_of(disk, PATH, range(0, 120, 10)).close()
    disk.remove(segment_path(PATH, 3, TABLE))
    log = Log.open(disk, PATH, SMALL)
    assert [each.base_offset for each in log.describe() if each.problem] == [3]
    assert log.plan_time_search(20).run() == 2
    assert log.plan_time_search(70).run() == 7
    with pytest.raises(CorruptBatch, match="40 or later may be in it"):
        log.plan_time_search(40).run()


def test_a_damaged_row_is_never_an_answer_and_never_leads_to_a_wrong_one() -> None:
    timestamps = list(range(100, 1100, 10))
    random = Random(5)
    refused = 0
    for _ in range(200):
        disk = SimulatedDisk()
        log = Log.create(disk, PATH, SegmentLimits())
        for each in timestamps:
            append(log, each)
        number = random.randrange(len(timestamps))
        file = disk.open(segment_path(PATH, 0, TABLE))
        position = number * ROW_SIZE + TIMESTAMP_POSITION
        file.write_at(position, [random.randrange(1 << 63).to_bytes(8, "little")])
        file.close()
        wanted = random.randrange(95, 1105)
        try:
            found = log.plan_time_search(wanted).run()
        except CorruptBatch:
            refused += 1
        else:
            assert found == reference(timestamps, wanted)
            assert found != number
    assert 0 < refused < 100
