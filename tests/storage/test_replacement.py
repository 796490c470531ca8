"""Sealed segments that are missing or cut short when a log is opened at a checkpoint: set aside, and replaced while it is open."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distlog.errors import CorruptBatch
from distlog.storage.listing import SegmentListing, list_log
from distlog.storage.log import Log
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import SUFFIXES, remove_segment, segment_path
from distlog.storage.simulated_disk import SimulatedDisk
from tests.storage.crash.damage import content, files_of
from tests.storage.test_log import ALL, SMALL, all_records, append, marked_log

PATH = "/log"
ROW_SIZE = 64
NUMBERS = [b"%d" % number for number in range(12)]
Damage = Callable[[SimulatedDisk], None]


def gone(*paths: tuple[int, str]) -> Damage:
    def damage(disk: SimulatedDisk) -> None:
        for base_offset, suffix in paths:
            disk.remove(segment_path(PATH, base_offset, suffix))

    return damage


def short(base_offset: int, suffix: str, size: int) -> Damage:
    def damage(disk: SimulatedDisk) -> None:
        file = disk.open(segment_path(PATH, base_offset, suffix))
        file.truncate(file.size() - size)

    return damage


def whole(base_offset: int) -> Damage:
    return lambda disk: remove_segment(disk, PATH, base_offset)


def both(disk: SimulatedDisk) -> None:
    whole(0)(disk)
    whole(5)(disk)


# What happens to the disk, and the offsets that cannot be read then.
DAMAGES: dict[str, tuple[Damage, range]] = {
    "the first store": (gone((0, ".log")), range(5)),
    "the second table": (gone((5, ".batch")), range(5, 10)),
    "store and index": (gone((5, ".log"), (5, ".idx")), range(5, 10)),
    "the first segment": (whole(0), range(5)),
    "the second segment": (whole(5), range(5, 10)),
    "both segments": (both, range(10)),
    "the end of a store": (short(5, ".log", 1), range(5, 10)),
    "a part of the last row": (short(5, ".batch", 1), range(9, 10)),
    "the last two rows": (short(0, ".batch", 2 * ROW_SIZE), range(3, 5)),
    "all rows": (short(5, ".batch", 5 * ROW_SIZE), range(5, 10)),
}


def fetched(log: Log, disk: SimulatedDisk, source: SimulatedDisk) -> list[list[SegmentListing]]:
    """Put in place what another node has where this one has set something aside; return it."""
    found = []
    for each in log.describe():
        if each.problem:
            end = each.next_offset
            mark = LogMark(each.base_offset, end, 0, end, 0)
            listings, is_last = list_log(source, PATH, mark, 0, 100)
            assert is_last
            found.append(listings)
            for listing in listings:
                for suffix in SUFFIXES:
                    path = segment_path(PATH, listing.base_offset, suffix)
                    disk.open(f"{PATH}/new", create=True).write_at(0, [content(source, path)])
                    disk.rename(f"{PATH}/new", path)
    return found


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_lost_of_a_sealed_segment_is_refused_until_it_is_replaced(name: str) -> None:
    disk, mark = marked_log()
    damage, lost = DAMAGES[name]
    source = disk.kill()
    damage(disk)
    before = files_of(disk, PATH)
    log = Log.open_at(disk, PATH, SMALL, mark)
    assert log.mark() == mark
    assert log.has_set_aside
    assert any("cannot be read" in note for note in log.recovery)
    after = files_of(disk, PATH)
    assert {path: after[path] for path in before} == before, "what is left is evidence"
    for offset, number in enumerate(NUMBERS):
        if offset in lost:
            with pytest.raises(CorruptBatch):
                log.read(offset, 1)
            with pytest.raises(CorruptBatch):
                log.read_record(offset)
        else:
            assert log.read_record(offset) == number

    append(log, b"12")
    log.close()
    log = Log.open_at(disk, PATH, SMALL, log.mark())
    for listings in fetched(log, disk, source):
        assert log.can_replace(listings)
        log.replace(listings)
    assert not log.has_set_aside
    assert all_records(log) == [*NUMBERS, b"12"]
    assert [each.base_offset for each in log.describe()] == [0, 5, 10]
    assert log.plan_time_search(1).run() == 0
    log.close()
    log = Log.open_at(disk, PATH, SMALL, log.mark())
    assert (log.recovery, all_records(log)) == ([], [*NUMBERS, b"12"])


def test_a_segment_that_a_trim_has_reached_is_replaced_as_a_whole() -> None:
    disk, _ = marked_log()
    log = Log.open(disk, PATH, SMALL)
    log.trim(7)
    mark = log.mark()
    log.close()
    source = disk.kill()
    both(disk)
    log = Log.open_at(disk, PATH, SMALL, mark)
    assert (log.start_offset, log.describe()[0].base_offset) == (7, 7)
    (listings,) = fetched(log, disk, source)
    assert log.can_replace(listings)
    log.replace(listings)
    assert all_records(log) == NUMBERS[7:]
    assert log.describe()[0].base_offset == 5


def test_what_does_not_fit_in_the_place_of_what_is_lost_is_seen() -> None:
    disk, mark = marked_log()
    whole(5)(disk)
    log = Log.open_at(disk, PATH, SMALL, mark)
    one = SegmentListing(5, 10, 100, 5, 0)
    assert log.can_replace([one])
    assert log.can_replace([one._replace(next_offset=7), one._replace(base_offset=7)])
    for wrong in (
        one._replace(base_offset=4),
        one._replace(base_offset=6),
        one._replace(next_offset=9),
        one._replace(next_offset=12),
        SegmentListing(10, 12, 10, 2, 0),
        SegmentListing(20, 22, 10, 2, 0),
    ):
        assert not log.can_replace([wrong]), wrong


def test_files_that_are_being_replaced_stay_although_they_are_trimmed() -> None:
    disk, mark = marked_log()
    gone((0, ".log"))(disk)
    log = Log.open_at(disk, PATH, SMALL, mark)
    log.trim(10)
    with log.hold(0, 5):
        log.begin_remove_trimmed(10)()
        assert disk.exists(segment_path(PATH, 0, ".batch"))
        assert not log.discard()
    log.begin_remove_trimmed(10)()
    assert not disk.exists(segment_path(PATH, 0, ".batch"))
    assert [each.base_offset for each in log.describe()] == [10]


def test_a_retention_by_size_or_age_goes_by_what_can_be_read() -> None:
    disk, mark = marked_log()
    whole(0)(disk)
    log = Log.open_at(disk, PATH, SMALL, mark)
    # Never more than what was asked for; and what cannot be read goes when what follows it does.
    assert log.plan_retention(size=ALL).run() == 0
    assert log.plan_retention(before_ms=1).run() == 0
    assert log.plan_retention(before_ms=2).run() == 10
