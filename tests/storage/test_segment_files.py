"""Store, index, batch table and segment: one behaviour each, on the real disk and on the
simulated one.
"""

from __future__ import annotations

import numpy as np
import pytest

from distlog.block import Block, crc32c, frame_positions
from distlog.errors import CorruptBatch, CorruptIndex, OffsetOutOfRange, StorageFull
from distlog.storage.batch_table import ROW_SIZE, BatchRow, BatchTable, decode_row
from distlog.storage.disk import Disk
from distlog.storage.index import Index
from distlog.storage.mapped_file import RESERVE_SIZE_MIN, MappedFile
from distlog.storage.open_files import SegmentCache
from distlog.storage.segment import Segment
from distlog.storage.segment_files import (
    SegmentFiles,
    SegmentLimits,
    remove_segment,
    segment_path,
)
from distlog.storage.simulated_disk import SimulatedDisk

LIMITS = SegmentLimits()
FRAME = (b"hello", b"world!!!")


@pytest.fixture
def place(place: tuple[Disk, str]) -> tuple[Disk, str]:
    """A disk and an empty directory on it."""
    disk, path = place
    disk.make_directory(path)
    return place


def new_segment(
    place: tuple[Disk, str], base_offset: int = 0, limits: SegmentLimits = LIMITS
) -> Segment:
    disk, directory = place
    files = SegmentFiles.create(disk, directory, base_offset, limits)
    return Segment(disk, directory, base_offset, SegmentCache(), files)


def append(segment: Segment, *records: bytes) -> None:
    segment.append(Block.from_records(records), 5, 6, 7)


def content(place: tuple[Disk, str], suffix: str, base_offset: int = 0) -> bytes:
    disk, directory = place
    file = disk.open(segment_path(directory, base_offset, suffix), writable=False)
    data = file.read_at(0, 1 << 30)
    file.close()
    return data


# --- Store ----------------------------------------------------------------------------------------


def test_parity_b01_a_store_returns_each_record_at_its_position_and_so_does_a_new_one(
    place: tuple[Disk, str],
) -> None:
    disk, directory = place
    store = SegmentFiles.create(disk, directory, 0, LIMITS).store
    frames = [Block.from_records([b"record %d" % number]).frames for number in range(3)]
    positions = []
    for frame in frames:
        store.reserve(len(frame))
        positions.append(store.append(frame))
    assert positions == [0, 16, 32]
    assert store.size == 48
    again = SegmentFiles.open(disk, directory, 0).store
    for reader in (store, again):
        assert [reader.read(position, 16) for position in positions] == frames


def test_parity_b02_closing_flushes_and_the_file_holds_exactly_what_was_appended(
    place: tuple[Disk, str],
) -> None:
    segment = new_segment(place)
    append(segment, *FRAME)
    before = len(content(place, ".log"))
    segment.give_back()
    segment.close()
    assert before == RESERVE_SIZE_MIN
    assert content(place, ".log") == Block.from_records(FRAME).frames
    assert len(content(place, ".idx")) == 2 * 16
    assert len(content(place, ".batch")) == ROW_SIZE


def test_a_store_that_ends_too_early_is_corrupt(place: tuple[Disk, str]) -> None:
    disk, directory = place
    files = SegmentFiles.create(disk, directory, 0, LIMITS)
    files.store.reserve(8)
    files.store.append(b"12345678")
    with pytest.raises(CorruptBatch, match="byte 4"):
        files.store.read(4, 5)


def test_the_overhead_is_8_bytes_in_the_store_and_16_in_the_index(place: tuple[Disk, str]) -> None:
    segment = new_segment(place)
    for number in range(100):
        append(segment, bytes(number))
    segment.give_back()
    assert len(content(place, ".log")) == sum(range(100)) + 8 * 100
    assert len(content(place, ".idx")) == 16 * 100


# --- Index ----------------------------------------------------------------------------------------


def new_index(place: tuple[Disk, str], base_offset: int = 0) -> tuple[Index, MappedFile]:
    disk, directory = place
    memory = MappedFile(disk.open(f"{directory}/index", create=True), 0, size_max=1 << 20)
    return Index(memory, base_offset, 0), memory


def test_parity_b03_an_index_keeps_its_rows_and_refuses_to_read_past_them(
    place: tuple[Disk, str],
) -> None:
    disk, directory = place
    index, _ = new_index(place)
    with pytest.raises(OffsetOutOfRange):
        index.position(0)
    index.reserve(2)
    index.append_one(0)
    index.append(np.array([10], dtype=np.uint64))
    assert [index.position(0), index.position(1)] == [0, 10]
    with pytest.raises(OffsetOutOfRange) as caught:
        index.position(2)
    assert (caught.value.offset, caught.value.high_watermark) == (2, 2)
    index.close()
    file = disk.open(f"{directory}/index", writable=False)
    again = Index(MappedFile(file, 32), 0, 2)
    assert [again.position(0), again.position(1)] == [0, 10]


def test_an_index_row_that_names_another_offset_is_corrupt(place: tuple[Disk, str]) -> None:
    index, memory = new_index(place, base_offset=16)
    index.reserve(2)
    index.append(np.array([0, 9], dtype=np.uint64))
    memory.write(16, b"\x63")
    assert index.position(16) == 0
    with pytest.raises(CorruptIndex) as caught:
        index.position(17)
    assert (caught.value.offset, caught.value.found) == (17, 99)


# --- Batch table ----------------------------------------------------------------------------------

ROW = BatchRow(
    base_offset=0x0102030405060708,
    position=0x1112131415161718,
    record_count=0x21222324,
    size=0x31323334,
    timestamp_ms=-2,
    raft_index=0x5152535455565758,
    term=0x6162636465666768,
    attributes=1,
    data_crc32c=0x71727374,
)


def test_a_batch_row_is_64_bytes_in_the_documented_order() -> None:
    data = ROW.encode()
    assert data[:60] == bytes.fromhex(
        "0807060504030201 1817161514131211 24232221 34333231 feffffffffffffff"
        "5857565554535251 6867666564636261 0100 0000 00000000 74737271"
    )
    assert int.from_bytes(data[60:], "little") == crc32c(data[:60])
    assert decode_row(data) == ROW


@pytest.mark.parametrize("position", range(ROW_SIZE))
def test_no_flipped_bit_of_a_batch_row_goes_unnoticed(position: int) -> None:
    for bit in range(8):
        data = bytearray(ROW.encode())
        data[position] ^= 1 << bit
        assert decode_row(bytes(data)) is None


def test_a_row_of_zeros_is_no_row() -> None:
    assert decode_row(bytes(ROW_SIZE)) is None


def test_the_table_finds_the_batch_of_every_offset(place: tuple[Disk, str]) -> None:
    disk, directory = place
    memory = MappedFile(disk.open(f"{directory}/table", create=True), 0, size_max=1 << 20)
    table = BatchTable(memory, 0)
    counts = [1, 3, 2, 7]
    offset = 100
    for count in counts:
        table.reserve()
        table.append(BatchRow(offset, offset * 10, count, count * 10, 0, 0, 0, 0, 0))
        offset += count
    found = [table.find(number)[0] for number in range(100, offset)]
    assert found == [0] + [1] * 3 + [2] * 2 + [3] * 7
    assert [table.find_end_at(end) for end in (1010, 1040, 1060, 1130, 7)] == [0, 1, 2, 3, None]
    with pytest.raises(CorruptBatch, match="has the batch of offset 113"):
        table.find(113)


# --- The golden example of the seed's document ----------------------------------------------------


def test_the_worked_example_of_the_seed_is_stored_to_the_byte(place: tuple[Disk, str]) -> None:
    segment = new_segment(place)
    append(segment, *FRAME)
    segment.give_back()
    segment.close()
    assert content(place, ".log") == bytes.fromhex(
        "0500000000000000 68656C6C6F 0800000000000000 776F726C64212121"
    )
    assert content(place, ".idx") == bytes.fromhex(
        "0000000000000000 0000000000000000 0100000000000000 0D00000000000000"
    )
    assert (
        content(place, ".batch")
        == BatchRow(0, 0, 2, 29, 5, 6, 7, 0, crc32c(content(place, ".log"))).encode()
    )


def test_files_are_named_by_the_base_offset_in_20_digits() -> None:
    assert segment_path("d", 16, ".log") == "d/00000000000000000016.log"


# --- Segment --------------------------------------------------------------------------------------


def test_parity_b04_a_segment_starts_at_its_base_and_is_full_by_index_or_by_store(
    place: tuple[Disk, str],
) -> None:
    one = Block.from_records([b"x" * 100])
    by_index = SegmentLimits(store_size_max=1 << 20, row_count_max=3)
    by_store = SegmentLimits(store_size_max=3 * one.size, row_count_max=1 << 20)
    segment = new_segment(place, base_offset=16, limits=by_index)
    assert (segment.base_offset, segment.next_offset) == (16, 16)
    for number in range(3):
        assert segment.has_room(one, by_index)
        assert segment.has_room(one, by_store)
        append(segment, b"x" * 100)
        assert segment.next_offset == 17 + number
        assert segment.read_record(16 + number) == b"x" * 100
    assert not segment.has_room(one, by_index)
    assert not segment.has_room(one, by_store)
    segment.seal().close()
    assert segment.read_record(18) == b"x" * 100
    segment.close()
    disk, directory = place
    remove_segment(disk, directory, 16)
    assert disk.list_directory(directory) == []


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 1 << 20])
def test_a_record_of_any_size_reads_back(place: tuple[Disk, str], size: int) -> None:
    segment = new_segment(place)
    append(segment, b"before", bytes([7]) * size, b"after")
    append(segment, bytes([8]) * size)
    assert [len(segment.read_record(offset)) for offset in range(4)] == [6, size, 5, size]
    assert list(segment.read(1, 0)[0].records()) == [b"before", bytes([7]) * size, b"after"]


def test_an_empty_segment_takes_a_batch_that_is_larger_than_its_limits(
    place: tuple[Disk, str],
) -> None:
    limits = SegmentLimits(store_size_max=100, row_count_max=4)
    segment = new_segment(place, limits=limits)
    large = Block.from_records([b"x" * 300] * 10)
    assert segment.has_room(large, limits)
    segment.append(large, 1, 1, 1)
    assert segment.read_record(9) == b"x" * 300
    assert not segment.has_room(Block.from_records([b""]), limits)


def test_what_is_read_is_what_was_appended_with_its_provenance(place: tuple[Disk, str]) -> None:
    segment = new_segment(place, base_offset=3)
    block = Block.from_records([b"a", b"", b"ccc"], attributes=1)
    segment.append(block, timestamp_ms=11, raft_index=22, term=33)
    (batch,) = segment.read(4, 0)
    assert (batch.base_offset, batch.next_offset, batch.record_count) == (3, 6, 3)
    assert (batch.timestamp_ms, batch.raft_index, batch.term) == (11, 22, 33)
    assert (batch.attributes, batch.data_crc32c) == (1, block.data_crc32c)
    assert batch.frames == block.frames
    assert segment.batch_of(5).base_offset == 3


def test_a_read_ends_before_a_damaged_batch_and_fails_only_at_it(place: tuple[Disk, str]) -> None:
    segment = new_segment(place)
    for record in (b"first", b"second", b"third"):
        append(segment, record)
    segment.seal().close()
    disk, _ = place
    disk.open(segment.path).write_at(13 + 8, [b"S"])
    assert [batch.base_offset for batch in segment.read(0, 1 << 20)] == [0]
    with pytest.raises(CorruptBatch) as caught:
        segment.read(1, 1 << 20)
    assert (caught.value.path, caught.value.position) == (segment.path, 13)
    assert [batch.base_offset for batch in segment.read(2, 1 << 20)] == [2]


def test_a_record_is_found_through_its_batch_when_the_index_row_is_damaged(
    place: tuple[Disk, str],
) -> None:
    segment = new_segment(place)
    append(segment, b"first", b"second", b"third")
    segment.seal().close()
    disk, directory = place
    index = disk.open(segment_path(directory, 0, ".idx"))
    for position in (16, 24, 25):
        before = index.read_at(position, 1)
        index.write_at(position, [b"\x77"])
        assert [segment.read_record(offset) for offset in range(3)] == [
            b"first",
            b"second",
            b"third",
        ]
        index.write_at(position, [before])


def test_a_full_disk_refuses_an_append_and_changes_nothing() -> None:
    disk = SimulatedDisk(capacity=3 * RESERVE_SIZE_MIN + 100)
    disk.make_directory("/log")
    segment = new_segment((disk, "/log"))
    append(segment, b"x" * 60_000)
    for _ in range(2):
        with pytest.raises(StorageFull):
            append(segment, b"y" * 60_000)
        assert (segment.next_offset, segment.batch_count) == (1, 1)
    # The doubling step does not fit any more, what is needed does.
    append(segment, b"z" * 5_540)
    assert [len(segment.read_record(offset)) for offset in range(2)] == [60_000, 5_540]


@pytest.mark.parametrize("nth", range(1, 10))
def test_a_failed_creation_leaves_no_file_of_the_segment(nth: int) -> None:
    disk = SimulatedDisk()
    disk.make_directory("/log")
    disk.fail_at = disk.operation_count + nth
    files = None
    try:
        files = SegmentFiles.create(disk, "/log", 0, LIMITS)
    except Exception:
        assert disk.list_directory("/log") == []
    assert (files is None) == (nth <= 3)


# --- Files that are open
# ---------------------------------------------------------------------------


def test_space_is_reserved_in_steps_that_double_up_to_the_limit() -> None:
    disk = SimulatedDisk()
    file = disk.open("/a", create=True)
    memory = MappedFile(file, 0, size_max=5 * RESERVE_SIZE_MIN)
    sizes = []
    for size in range(1, 7 * RESERVE_SIZE_MIN, 1000):
        memory.reserve(size)
        assert memory.size >= size
        if not sizes or sizes[-1] != file.size():
            sizes.append(file.size())
    assert [size / RESERVE_SIZE_MIN for size in sizes[:4]] == [1, 2, 4, 5]
    assert sizes[4] == pytest.approx(5 * RESERVE_SIZE_MIN, abs=1000)


def test_the_cache_keeps_the_files_that_were_used_last_and_closes_the_others() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/log")
    cache = SegmentCache(open_max=2)
    segments = []
    for base_offset in range(4):
        files = SegmentFiles.create(disk, "/log", base_offset, LIMITS)
        segment = Segment(disk, "/log", base_offset, cache, files)
        append(segment, b"%d" % base_offset)
        segment.seal().close()
        segments.append(segment)
    opened: list[str] = []
    disk.hook = lambda operation, path: opened.append(path) if operation == "open" else None
    was_open = []
    for number in (0, 1, 0, 2, 0, 1, 3):
        opened.clear()
        assert segments[number].read_record(number) == b"%d" % number
        was_open.append(not opened)
        assert len(cache) <= 2
    assert was_open == [False, False, True, False, True, False, False]


def test_two_readers_of_one_sealed_segment_have_files_of_their_own() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/log")
    cache = SegmentCache()
    files = SegmentFiles.create(disk, "/log", 0, LIMITS)
    segment = Segment(disk, "/log", 0, cache, files)
    append(segment, b"x")
    segment.seal().close()
    with segment._files() as first, segment._files() as second:
        assert first is not second
        assert len(cache) == 0
    assert len(cache) == 1


def test_positions_of_frames_are_relative_to_their_block() -> None:
    block = Block.from_records([b"hello", b"", b"world!!!"])
    assert frame_positions(block.lengths).tolist() == [0, 13, 21]
