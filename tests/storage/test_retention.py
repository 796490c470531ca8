"""Retention: which start a size, an age or an offset comes to, and that readers of what goes finish safely."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.block import Block
from distlog.errors import OffsetOutOfRange
from distlog.storage.disk import Disk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import TABLE, segment_path
from distlog.storage.simulated_disk import SimulatedDisk

# Three records of 100 bytes of store a segment.
SMALL = SegmentLimits(store_size_max=300, row_count_max=100)
PATH = "/log"
RECORD = bytes(92)


def filled(disk: Disk, path: str, count: int = 11) -> Log:
    """Return a log of `count` batches of one record, number n of time 10 n: segments begin at 0, 3, 6, 9."""
    log = Log.create(disk, path, SMALL)
    for number in range(count):
        block = Block.from_records([RECORD])
        log.append(block, timestamp_ms=10 * number, raft_index=1, term=1)
    log.begin_sync()()
    return log


@pytest.mark.parametrize(
    ("size", "start"),
    [
        pytest.param(0, 0, id="all"),
        pytest.param(1, 9, id="never the active segment"),
        pytest.param(200, 9, id="just the active segment"),
        pytest.param(201, 6, id="a byte more"),
        pytest.param(500, 6, id="two segments"),
        pytest.param(501, 3, id="a byte more than two"),
        pytest.param(1100, 0, id="just all"),
        pytest.param(1 << 62, 0, id="more than there is"),
    ],
)
def test_a_size_keeps_so_many_bytes_and_less_than_a_segment_more(size: int, start: int) -> None:
    log = filled(SimulatedDisk(), PATH)
    assert log.plan_retention(size=size).run() == start


@pytest.mark.parametrize(
    ("before_ms", "start"),
    [
        *((None, 0), (-1, 0), (20, 0), (21, 3), (50, 3), (51, 6)),
        *((80, 6), (81, 9), (100, 9), (101, 9), (1 << 62, 9)),
    ],
)
def test_an_age_lets_a_segment_go_with_its_youngest_batch(
    before_ms: int | None, start: int
) -> None:
    log = filled(SimulatedDisk(), PATH)
    assert log.plan_retention(before_ms=before_ms).run() == start


@pytest.mark.parametrize(
    ("offset", "start"), [(0, 0), (2, 0), (3, 3), (5, 3), (8, 6), (9, 9), (11, 9), (99, 9)]
)
def test_an_offset_is_kept_with_its_segment(offset: int, start: int) -> None:
    log = filled(SimulatedDisk(), PATH)
    assert log.plan_retention(offset=offset).run() == start


def test_of_several_limits_the_strictest_holds() -> None:
    log = filled(SimulatedDisk(), PATH)
    assert log.plan_retention(size=501, before_ms=51).run() == 6
    assert log.plan_retention(size=200, before_ms=51).run() == 9
    assert log.plan_retention(size=501, before_ms=0, offset=4).run() == 3


def test_what_was_trimmed_before_does_not_count_and_does_not_come_back() -> None:
    log = filled(SimulatedDisk(), PATH)
    log.trim(4)
    assert log.plan_retention().run() == 4
    assert log.plan_retention(size=501).run() == 4, "its segment is kept, so nothing would go"
    assert log.plan_retention(size=500).run() == 6
    assert log.plan_retention(before_ms=0, offset=1).run() == 4


def test_an_empty_log_keeps_what_it_has(place: tuple[Disk, str]) -> None:
    log = Log.create(*place, SMALL)
    assert log.plan_retention(size=1, before_ms=1 << 62, offset=7).run() == 0


@given(
    records=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=40),
    size=st.integers(0, 900),
    before_ms=st.none() | st.integers(-1, 200),
    trimmed=st.integers(0, 40),
)
@settings(max_examples=200)
def test_a_retention_is_what_counting_segment_by_segment_comes_to(
    records: list[tuple[int, int]], size: int, before_ms: int | None, trimmed: int
) -> None:
    log = Log.create(SimulatedDisk(), PATH, SegmentLimits(store_size_max=200, row_count_max=7))
    now_ms = 0
    times = []
    for length, step in records:
        now_ms += step
        times.append(now_ms)
        log.append(Block.from_records([bytes(length)]), timestamp_ms=now_ms, raft_index=1, term=1)
    log.trim(trimmed)
    segments = [each for each in log.describe() if each.next_offset > log.start_offset]
    start = log.start_offset
    for number, segment in enumerate(segments[:-1]):
        kept_without = sum(each.store_size for each in segments[number + 1 :])
        youngest = times[segment.next_offset - 1]
        by_size = size > 0 and kept_without >= size
        if not by_size and not (before_ms is not None and youngest < before_ms):
            break
        start = segments[number + 1].base_offset
    assert log.plan_retention(size=size, before_ms=before_ms).run() == start


def test_a_segment_that_cannot_be_read_goes_when_its_successor_does() -> None:
    disk = SimulatedDisk()
    filled(disk, PATH).close()
    disk.remove(segment_path(PATH, 3, TABLE))
    log = Log.open(disk, PATH, SMALL)
    assert [each.base_offset for each in log.describe() if each.problem] == [3]
    # What it holds lies between times 20 and 60: until 60 is too old nobody knows.
    assert [log.plan_retention(before_ms=when).run() for when in (21, 51, 80, 81)] == [3, 3, 3, 9]


def test_the_question_about_an_age_is_for_a_worker_and_that_about_a_size_is_not() -> None:
    log = filled(SimulatedDisk(), PATH)
    assert not log.plan_retention(size=300, offset=4).blocking
    plan = log.plan_retention(before_ms=31)
    assert plan.blocking
    log.trim(9)
    log.begin_remove_trimmed(9)()
    assert len(log.describe()) == 4, "the question holds the files that it may need"
    assert plan.run() == 3
    log.begin_remove_trimmed(9)()
    assert len(log.describe()) == 1


def test_an_age_that_was_asked_for_once_opens_nothing_the_next_time() -> None:
    disk = SimulatedDisk()
    filled(disk, PATH).close()
    log = Log.open(disk, PATH, SMALL)
    assert log.plan_retention(before_ms=31).run() == 3
    opened: list[str] = []
    disk.hook = lambda operation, path: opened.append(path) if operation == "open" else None
    assert log.plan_retention(before_ms=31).run() == 3
    assert opened == []


def test_readers_of_what_retention_takes_away_finish_and_later_ones_are_told(
    place: tuple[Disk, str],
) -> None:
    disk, path = place
    log = filled(disk, path)
    plans = [log.plan_read(offset, 1 << 20) for offset in (0, 4, 8, 10)]
    start = log.plan_retention(size=200).run()
    log.trim(start)
    log.begin_sync()()
    log.begin_remove_trimmed(start)()
    assert len(log.describe()) == 4, "all of them are held"
    assert [batch.base_offset for batch in plans[0].run()] == list(range(9))
    with pytest.raises(OffsetOutOfRange) as caught:
        log.plan_read(4, 1)
    assert (caught.value.start_offset, caught.value.high_watermark) == (9, 11)
    log.begin_remove_trimmed(start)()
    assert [each.base_offset for each in log.describe()] == [3, 6, 9]
    assert [batch.base_offset for batch in plans[1].run()] == list(range(4, 9))
    plans[2].release()
    log.begin_remove_trimmed(start)()
    assert [each.base_offset for each in log.describe()] == [9]
    assert not disk.exists(segment_path(path, 6, TABLE))
    assert [batch.base_offset for batch in plans[3].run()] == [10]
    log.close()
    log = Log.open(disk, path, SMALL)
    assert (log.start_offset, log.next_offset, log.recovery) == (9, 11, [])


def test_a_retention_says_whether_anything_ever_goes() -> None:
    assert not KEEP_ALL
    assert Retention(size=1)
    assert Retention(age_ms=1)
