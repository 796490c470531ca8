"""Lists of segments, what of them is here already, and segments that are staged: on a simulated disk, without a network."""

from __future__ import annotations

from random import Random

import pytest

from distlog.block import Block
from distlog.errors import CorruptBatch, DiskFailed, StorageFull
from distlog.storage import listing as listing_module
from distlog.storage.incoming import Incoming, check_listing
from distlog.storage.listing import (
    SegmentListing,
    first_fault,
    has_segment,
    list_log,
    verified_prefix,
)
from distlog.storage.log import Log
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import SUFFIXES, TABLE, SegmentLimits, segment_path
from distlog.storage.simulated_disk import SimulatedDisk

LIMITS = SegmentLimits(store_size_max=4 << 10, row_count_max=16)
OWN, OTHER = "topics/00000000000000000001", "other"


def filled(disk: SimulatedDisk, path: str, count: int, *, closed: bool = True) -> LogMark:
    """Write `count` batches to a new log; the same count gives the same bytes."""
    log = Log.create(disk, path, LIMITS)
    random = Random(1)
    for number in range(count):
        records = [random.randbytes(random.choice((10, 300, 900))) for _ in range(2)]
        log.append(Block.from_records(records), timestamp_ms=number, raft_index=number, term=1)
    mark = log.mark()
    if closed:
        log.close()
    else:
        log.begin_sync()()
    return mark


def listed(disk: SimulatedDisk, path: str, mark: LogMark) -> list[SegmentListing]:
    listing, is_last = list_log(disk, path, mark, 0, 1000)
    assert is_last
    assert check_listing(listing, mark) == ""
    return listing


def test_a_list_goes_exactly_to_the_mark_of_an_older_checkpoint() -> None:
    disk = SimulatedDisk()
    marks = [filled(disk, f"logs{count}", count) for count in range(30)]
    for count, mark in enumerate(marks):
        from_whole = listed(disk, "logs29", mark)
        assert from_whole == listed(disk, f"logs{count}", mark), "the same prefix, the same list"


def test_a_list_comes_in_pages_and_leaves_out_what_was_trimmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    mark = filled(disk, OWN, 40)
    whole = listed(disk, OWN, mark)
    assert len(whole) > 6
    first, is_last = list_log(disk, OWN, mark, 0, 3)
    assert (first, is_last) == (whole[:3], False)
    rest, is_last = list_log(disk, OWN, mark, first[-1].next_offset, 1000)
    assert (rest, is_last) == (whole[3:], True)
    monkeypatch.setattr(listing_module, "TABLES_SIZE_MAX", 1)
    assert list_log(disk, OWN, mark, 0, 1000) == (whole[:1], False), "a page takes its time"
    monkeypatch.undo()
    trimmed = mark._replace(start_offset=whole[2].base_offset + 1)
    assert listed(disk, OWN, trimmed) == whole[2:]


def test_what_is_gone_or_damaged_is_an_error_of_the_one_who_lists() -> None:
    disk = SimulatedDisk()
    mark = filled(disk, OWN, 40)
    second = listed(disk, OWN, mark)[1]
    disk.open(segment_path(OWN, second.base_offset, TABLE)).truncate(10)
    with pytest.raises(CorruptBatch):
        list_log(disk, OWN, mark, 0, 1000)
    with pytest.raises(DiskFailed):
        list_log(disk, "nowhere", mark, 0, 1000)
    assert list_log(disk, OWN, LogMark(0, 0, 0, 0, 0), 0, 1000) == ([], True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found: found[1:], "begins at offset"),
        (lambda found: [found[0], *found[2:]], "does not follow"),
        (lambda found: found[:-1], "ends at offset"),
        (lambda found: [], "no segments"),
        (lambda found: [*found[:-1], found[-1]._replace(store_size=1)], "ends at byte"),
        (lambda found: [*found[:-1], found[-1]._replace(batch_count=0)], "no batches"),
    ],
)
def test_a_list_that_cannot_be_that_of_the_mark_is_seen(change, problem) -> None:  # type: ignore[no-untyped-def]
    disk = SimulatedDisk()
    mark = filled(disk, OWN, 40)
    assert problem in check_listing(change(listed(disk, OWN, mark)), mark)


def test_a_prefix_ends_where_the_bytes_do_not_fit_the_table() -> None:
    disk = SimulatedDisk()
    listing = listed(disk, OWN, filled(disk, OWN, 40))[0]
    paths = [segment_path(OWN, listing.base_offset, suffix) for suffix in (TABLE, SUFFIXES[0])]

    def prefix() -> tuple[int, int]:
        return tuple(verified_prefix(disk, paths[0], 0, paths[1], listing.batch_count))  # type: ignore[return-value]

    assert prefix() == (listing.next_offset, listing.store_size)
    disk.open(paths[1]).write_at(listing.store_size - 1, [b"\0\1"[:1]])
    whole = prefix()
    assert 0 < whole[1] < listing.store_size
    disk.open(paths[1]).write_at(0, [b"\xff"])
    assert prefix() == (0, 0)


def staged(disk: SimulatedDisk, listing: SegmentListing, *, rot: bool = False) -> Incoming:
    """Copy a segment of the other log into `incoming`, as a round does."""
    incoming = Incoming(disk, "incoming", "topics")
    data = [
        disk.open(segment_path(OTHER, listing.base_offset, suffix)).read_at(0, size)
        for suffix, size in zip(SUFFIXES, listing.sizes, strict=True)
    ]
    part = incoming.begin(1, listing, data[2])
    for place in (0, 1):
        rest = data[place][part.sizes[place] :]
        part.write(SUFFIXES[place], part.sizes[place], b"\0" * len(rest) if rot else rest)
    incoming.finish(part)
    return incoming


def test_a_segment_is_staged_with_what_the_own_log_has_of_it() -> None:
    disk = SimulatedDisk()
    filled(disk, OWN, 8)
    mark = filled(disk, OTHER, 40)
    for listing in listed(disk, OTHER, mark):
        incoming = Incoming(disk, "incoming", "topics")
        table = disk.open(segment_path(OTHER, listing.base_offset, TABLE))
        part = incoming.begin(1, listing, table.read_at(0, listing.sizes[2]))
        has_own = disk.exists(segment_path(OWN, listing.base_offset, TABLE))
        assert (part.sizes[0] > 0) == has_own, "nothing of that has to be fetched"
        part.close()
        assert staged(disk, listing).has(1, listing)
        assert first_fault(disk, "incoming/topics/00000000000000000001", listing) is None


def test_bytes_that_do_not_fit_are_not_kept() -> None:
    disk = SimulatedDisk()
    listing = listed(disk, OTHER, filled(disk, OTHER, 40))[2]
    with pytest.raises(CorruptBatch):
        staged(disk, listing, rot=True)
    assert not Incoming(disk, "incoming", "topics").has(1, listing)
    assert disk.list_directory("incoming/parts/00000000000000000001") == []


def test_a_copy_leaves_space_for_what_was_promised() -> None:
    disk = SimulatedDisk()
    listing = listed(disk, OTHER, filled(disk, OTHER, 40))[0]
    table = disk.open(segment_path(OTHER, 0, TABLE)).read_at(0, listing.sizes[2])
    disk.capacity = disk.used + sum(listing.sizes) + 99
    with pytest.raises(StorageFull):
        Incoming(disk, "incoming", "topics", spare_size=100).begin(1, listing, table)
    Incoming(disk, "incoming", "topics", spare_size=50).begin(1, listing, table)


def test_what_a_copy_does_not_need_is_removed_and_the_rest_kept() -> None:
    disk = SimulatedDisk()
    first, second, *_ = listed(disk, OTHER, filled(disk, OTHER, 40))
    for listing in (first, second):
        incoming = staged(disk, listing)
    incoming.keep_only({1: {second.base_offset}})
    assert not incoming.has(1, first)
    assert incoming.has(1, second)
    incoming.clear()
    assert disk.list_directory("incoming") == []


def test_a_log_that_is_still_written_has_the_segments_of_its_older_mark() -> None:
    disk = SimulatedDisk()
    mark = filled(disk, OTHER, 11)
    filled(disk, OWN, 30, closed=False)
    incoming = Incoming(disk, "incoming", "topics")
    for listing in listed(disk, OTHER, mark):
        assert incoming.lives_on(1, listing)
        assert has_segment(disk, OWN, listing, exact=False)
    last = listed(disk, OTHER, mark)[-1]
    disk.open(segment_path(OWN, last.base_offset, SUFFIXES[0])).write_at(9, [b"\xff"])
    assert not incoming.lives_on(1, last)
