"""What a log finds after a kill, a torn write, bit rot or a lost file: cut, rebuilt, or set
aside, never invented.
"""

from __future__ import annotations

from random import Random

import pytest

from distlog.block import Block
from distlog.errors import CorruptBatch
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.segment_files import segment_path
from distlog.storage.simulated_disk import SimulatedDisk

LIMITS = SegmentLimits(store_size_max=1 << 16, row_count_max=1 << 10)
SMALL = SegmentLimits(store_size_max=100, row_count_max=5)
PATH = "/log"
FIRST = [b"hello", b"", b"world!!!"]
LAST = [b"", b"the last batch", b"x"]
EXTENSIONS = (".log", ".idx", ".batch")


def append(log: Log, records: list[bytes]) -> None:
    log.append(Block.from_records(records), timestamp_ms=1, raft_index=1, term=1)


def all_records(log: Log) -> list[bytes]:
    records: list[bytes] = []
    offset = log.start_offset
    while offset < log.next_offset:
        for batch in log.read(offset, 1 << 20):
            records += list(batch.records())[max(0, offset - batch.base_offset) :]
            offset = batch.next_offset
    return records


def each_by_index(log: Log) -> list[bytes]:
    return [log.read_record(offset) for offset in range(log.start_offset, log.next_offset)]


def two_batches(*, promised: bool) -> SimulatedDisk:
    """A killed log of two batches, of which the last was synced only if it is promised."""
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, FIRST)
    log.begin_sync()()
    append(log, LAST)
    if promised:
        log.begin_sync()()
    return disk


def last_batch_bytes(suffix: str) -> range:
    """Where the bytes of the last batch are in its file."""
    first, last = Block.from_records(FIRST).size, Block.from_records(LAST).size
    return {
        ".log": range(first, first + last),
        ".idx": range(3 * 16, 6 * 16),
        ".batch": range(64, 128),
    }[suffix]


def reopened(disk: SimulatedDisk) -> Log:
    return Log.open(disk.kill(), PATH, LIMITS)


def changed(disk: SimulatedDisk, suffix: str, position: int, data: bytes) -> SimulatedDisk:
    twin = disk.kill()
    twin.open(segment_path(PATH, 0, suffix)).write_at(position, [data])
    return twin


def test_a_killed_log_has_everything_that_was_appended() -> None:
    for promised in (False, True):
        log = reopened(two_batches(promised=promised))
        assert all_records(log) == each_by_index(log) == FIRST + LAST
        append(log, [b"next"])
        assert all_records(log) == [*FIRST, *LAST, b"next"]


# --- The last batch was never synced: it is whole or it is gone -----------------------------------


@pytest.mark.parametrize("suffix", [".log", ".batch"])
def test_a_write_torn_at_any_byte_of_the_last_batch_takes_that_batch_only(suffix: str) -> None:
    disk = two_batches(promised=False)
    where = last_batch_bytes(suffix)
    for position in where:
        # From here on the old zeros are still there.
        torn = changed(disk, suffix, position, bytes(where.stop - position))
        before = disk.open(segment_path(PATH, 0, suffix)).read_at(position, where.stop - position)
        log = Log.open(torn, PATH, LIMITS)
        expected = FIRST if any(before) else FIRST + LAST
        assert all_records(log) == each_by_index(log) == expected
        append(log, [b"next"])
        assert all_records(Log.open(torn.kill(), PATH, LIMITS)) == [*expected, b"next"]


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_a_file_cut_at_any_byte_of_the_last_batch_takes_at_most_that_batch(suffix: str) -> None:
    disk = two_batches(promised=False)
    for size in last_batch_bytes(suffix):
        torn = disk.kill()
        torn.open(segment_path(PATH, 0, suffix)).truncate(size)
        log = Log.open(torn, PATH, LIMITS)
        # The index is a cache: what it lacks is rebuilt from the store.
        assert all_records(log) == each_by_index(log) == FIRST + (LAST if suffix == ".idx" else [])
        assert len(log.recovery) <= 1


@pytest.mark.parametrize("suffix", [".log", ".batch"])
def test_a_flipped_bit_at_any_byte_of_the_last_batch_takes_that_batch_only(suffix: str) -> None:
    disk = two_batches(promised=False)
    for position in last_batch_bytes(suffix):
        before = disk.open(segment_path(PATH, 0, suffix)).read_at(position, 1)[0]
        for bit in (0, 3, 7):
            rotten = changed(disk, suffix, position, bytes([before ^ 1 << bit]))
            log = Log.open(rotten, PATH, LIMITS)
            assert all_records(log) == each_by_index(log) == FIRST
            assert len(log.recovery) == 1
            assert log.recovery[0].startswith("cut /log/")


def test_a_flipped_bit_at_any_byte_of_the_last_index_rows_is_repaired() -> None:
    disk = two_batches(promised=False)
    for position in last_batch_bytes(".idx"):
        before = disk.open(segment_path(PATH, 0, ".idx")).read_at(position, 1)[0]
        for bit in (0, 3, 7):
            rotten = changed(disk, ".idx", position, bytes([before ^ 1 << bit]))
            log = Log.open(rotten, PATH, LIMITS)
            assert all_records(log) == each_by_index(log) == FIRST + LAST
            assert "rebuilt" in log.recovery[0]
            log.close()
            whole = two_batches(promised=False)
            reopened_whole = Log.open(whole, PATH, LIMITS)
            reopened_whole.close()
            index = segment_path(PATH, 0, ".idx")
            assert rotten.open(index).read_at(0, 999) == whole.open(index).read_at(0, 999)


# --- The last batch was promised: it is never cut away --------------------------------------------


def test_a_flipped_bit_in_a_promised_batch_is_an_error_and_the_rest_reads_on() -> None:
    disk = two_batches(promised=True)
    for position in last_batch_bytes(".log"):
        before = disk.open(segment_path(PATH, 0, ".log")).read_at(position, 1)[0]
        rotten = changed(disk, ".log", position, bytes([before ^ 0x10]))
        log = Log.open(rotten, PATH, LIMITS)
        assert log.next_offset == 6
        append(log, [b"next"])
        with pytest.raises(CorruptBatch):
            log.read(3, 1 << 20)
        assert list(log.read(0, 1 << 20)[0].records()) == FIRST
        assert list(log.read(6, 1 << 20)[0].records()) == [b"next"]


def test_a_flipped_bit_in_a_promised_table_row_sets_the_segment_aside() -> None:
    disk = two_batches(promised=True)
    files = {
        suffix: disk.open(segment_path(PATH, 0, suffix)).read_at(0, 999) for suffix in EXTENSIONS
    }
    for position in last_batch_bytes(".batch"):
        rotten = changed(disk, ".batch", position, bytes([files[".batch"][position] ^ 1]))
        kept = rotten.open(segment_path(PATH, 0, ".batch")).read_at(0, 999)
        log = Log.open(rotten, PATH, LIMITS)
        assert "cannot be read" in log.recovery[0]
        assert (log.start_offset, log.next_offset) == (0, 6)
        append(log, [b"next"])
        for again in (log, Log.open(rotten.kill(), PATH, LIMITS)):
            with pytest.raises(CorruptBatch, match=r"\.batch"):
                again.read(3, 1)
            assert again.read_record(6) == b"next"
            assert again.next_offset == 7
        assert rotten.open(segment_path(PATH, 0, ".batch")).read_at(0, 999) == kept


def test_an_index_that_lost_promised_rows_is_rebuilt() -> None:
    disk = two_batches(promised=True)
    whole = disk.open(segment_path(PATH, 0, ".idx")).read_at(0, 96)
    for size in range(96):
        short = disk.kill()
        short.open(segment_path(PATH, 0, ".idx")).truncate(size)
        log = Log.open(short, PATH, LIMITS)
        assert each_by_index(log) == FIRST + LAST
        assert short.open(segment_path(PATH, 0, ".idx")).read_at(0, 999) == whole


def test_an_index_of_zeros_a_longer_one_and_none_at_all_are_repaired() -> None:
    disk = two_batches(promised=True)
    index = segment_path(PATH, 0, ".idx")
    zeros, longer, gone = disk.kill(), disk.kill(), disk.kill()
    zeros.open(index).write_at(0, [bytes(96)])
    longer.open(index).write_at(96, [b"\x07" * 1600])
    gone.remove(index)
    for twin in (zeros, longer, gone):
        log = Log.open(twin, PATH, LIMITS)
        assert each_by_index(log) == FIRST + LAST
        assert log.next_offset == 6
        log.close()
        assert twin.open(index).size() == 96


def test_a_checkpointed_log_repairs_its_index_too() -> None:
    disk = two_batches(promised=True)
    mark = Log.open(disk.kill(), PATH, LIMITS).mark()
    disk.open(segment_path(PATH, 0, ".idx")).write_at(80, [bytes(16)])
    log = Log.open_at(disk, PATH, LIMITS, mark)
    assert each_by_index(log) == FIRST + LAST
    assert "rebuilt" in log.recovery[0]


# --- Several segments
# -------------------------------------------------------------------------------


def three_segments(*, promised: bool) -> SimulatedDisk:
    """A killed log of segments at 0, 5 and 10, of one-record batches 0 to 11."""
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, SMALL)
    for number in range(12):
        append(log, [b"%d" % number])
    if promised:
        log.begin_sync()()
    return disk


NUMBERS = [b"%d" % number for number in range(12)]


def test_an_unsynced_tail_over_several_segments_is_cut_where_it_ends() -> None:
    for base_offset, end in ((0, 0), (5, 5), (10, 10)):
        disk = three_segments(promised=False)
        disk.open(segment_path(PATH, base_offset, ".batch")).write_at(0, [bytes(64)])
        log = Log.open(disk, PATH, SMALL)
        assert all_records(log) == NUMBERS[:end]
        for number in range(end, 12):
            append(log, [b"%d" % number])
        log.close()
        whole = three_segments(promised=False)
        Log.open(whole, PATH, SMALL).close()
        assert contents(disk) == contents(whole)


def contents(disk: SimulatedDisk) -> dict[str, bytes]:
    names = [name for name in disk.list_directory(PATH) if name != "synced"]
    return {name: disk.open(f"{PATH}/{name}").read_at(0, 1 << 20) for name in names}


def test_a_promised_segment_that_is_gone_is_refused_and_the_others_are_read() -> None:
    for base_offset in (0, 5):
        disk = three_segments(promised=True)
        for suffix in EXTENSIONS:
            disk.remove(segment_path(PATH, base_offset, suffix))
        log = Log.open(disk, PATH, SMALL)
        assert (log.start_offset, log.next_offset) == (0, 12)
        assert len(log.recovery) == 1
        for offset in range(12):
            if base_offset <= offset < base_offset + 5:
                with pytest.raises(CorruptBatch):
                    log.read_record(offset)
                with pytest.raises(CorruptBatch):
                    log.read(offset, 1)
            else:
                assert log.read_record(offset) == NUMBERS[offset]
        assert [segment.problem != "" for segment in log.describe()].count(True) == 1


@pytest.mark.parametrize("suffix", [".log", ".batch"])
def test_a_promised_segment_with_a_damaged_end_is_set_aside_with_its_files(suffix: str) -> None:
    disk = three_segments(promised=True)
    file = disk.open(segment_path(PATH, 5, suffix))
    file.truncate(file.size() - 3)
    before = contents(disk)
    log = Log.open(disk, PATH, SMALL)
    assert (
        contents(disk).items()
        >= {name: data for name, data in before.items() if int(name[:20]) == 5}.items()
    ), "what is left is evidence"
    with pytest.raises(CorruptBatch):
        log.read_record(9)
    assert [log.read_record(offset) for offset in (4, 10)] == [b"4", b"10"]
    # A read that comes from before ends where what cannot be read begins.
    assert [batch.base_offset for batch in log.read(2, 1 << 20)][:3] == [2, 3, 4]
    assert log.read(2, 1 << 20)[-1].next_offset < 10
    append(log, [b"next"])
    assert log.read_record(12) == b"next"
    assert disk.exists(segment_path(PATH, 5, suffix))


def test_an_empty_active_segment_is_no_damage() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, SMALL)
    for number in range(5):
        append(log, [b"%d" % number])
    append(log, [b"5"])
    log.begin_sync()()
    mark = log.mark()
    log.close()
    log = Log.open_at(disk, PATH, SMALL, mark)
    log.close()
    empty = SimulatedDisk()
    log = Log.create(empty, PATH, SMALL)
    log.close()
    for opened in (
        Log.open(empty, PATH, SMALL),
        Log.open_at(empty.kill(), PATH, SMALL, log.mark()),
    ):
        assert (opened.next_offset, opened.recovery) == (0, [])
        append(opened, [b"first"])
        assert opened.read_record(0) == b"first"


def test_a_mark_that_says_empty_does_not_make_the_files_of_a_log_go_away() -> None:
    disk = two_batches(promised=True)
    empty = SimulatedDisk()
    Log.create(empty, PATH, LIMITS).close()
    disk.open(f"{PATH}/synced").truncate(0)
    disk.open(f"{PATH}/synced").write_at(0, [empty.open(f"{PATH}/synced").read_at(0, 128)])
    disk.remove(segment_path(PATH, 0, ".batch"))
    store = disk.open(segment_path(PATH, 0, ".log")).read_at(0, 1 << 20)
    with pytest.raises(CorruptBatch, match="missing"):
        Log.open(disk, PATH, LIMITS)
    assert disk.open(segment_path(PATH, 0, ".log")).read_at(0, 1 << 20) == store


# --- The mark itself
# --------------------------------------------------------------------------------


@pytest.mark.parametrize("position", range(0, 128, 5))
def test_a_damaged_mark_costs_at_most_caution(position: int) -> None:
    disk = two_batches(promised=True)
    file = disk.open(f"{PATH}/synced")
    file.write_at(position, [bytes([file.read_at(position, 1)[0] ^ 0xFF])])
    log = Log.open(disk, PATH, LIMITS)
    assert all_records(log) == FIRST + LAST
    log.close()
    assert all_records(Log.open(disk, PATH, LIMITS)) == FIRST + LAST


def test_without_a_mark_damage_in_the_middle_is_set_aside_and_a_torn_tail_is_cut() -> None:
    middle, tail = two_batches(promised=True), two_batches(promised=True)
    for disk, position in ((middle, 8), (tail, Block.from_records(FIRST).size)):
        disk.remove(f"{PATH}/synced")
        disk.open(segment_path(PATH, 0, ".log")).write_at(position, [b"\xee"])
    log = Log.open(middle, PATH, LIMITS)
    assert (log.start_offset, log.next_offset) == (0, 6)
    with pytest.raises(CorruptBatch):
        log.read(0, 1)
    append(log, [b"next"])
    assert log.read_record(6) == b"next"
    assert all_records(Log.open(tail, PATH, LIMITS)) == FIRST


def test_a_lost_mark_is_written_again() -> None:
    disk = two_batches(promised=True)
    disk.remove(f"{PATH}/synced")
    Log.open(disk, PATH, LIMITS)
    for seed in range(20):
        assert all_records(Log.open(disk.crash(Random(seed)), PATH, LIMITS)) == FIRST + LAST


def test_names_that_are_no_segments_are_left_alone() -> None:
    disk = two_batches(promised=True)
    for name in ("notes.txt", "1.log", f"{7:020d}.bak", "x" * 20 + ".idx"):
        disk.open(f"{PATH}/{name}", create=True)
    log = Log.open(disk, PATH, LIMITS)
    assert all_records(log) == FIRST + LAST
    log.close()
    assert {"notes.txt", "1.log", f"{7:020d}.bak"} <= set(disk.list_directory(PATH))
