"""A node that may open no more files: what it has promised is paid with spare descriptors, and they come back."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distlog.block import Block
from distlog.errors import DescriptorsExhausted
from distlog.storage.descriptors import SpareDescriptors, SparingDisk
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.log import Log
from distlog.storage.open_files import SegmentCache
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.storage.limited_disk import LimitedDisk

SMALL = SegmentLimits(store_size_max=4096, row_count_max=64)


def limited(limit: int, spare_count: int) -> tuple[LimitedDisk, SpareDescriptors, SparingDisk]:
    simulated = SimulatedDisk()
    simulated.make_directory("/top")
    simulated.open("/top/FORMAT", create=True).close()
    disk = LimitedDisk(simulated, limit)
    spares = SpareDescriptors(disk, "/top/FORMAT", spare_count)
    return disk, spares, SparingDisk(disk, spares)


@contextmanager
def highest_descriptor(number: int) -> Iterator[None]:
    """Let this process open no descriptor with a higher number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def lowest_free() -> int:
    """The number that the next descriptor gets."""
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def test_spares_pay_for_what_must_be_opened_until_none_is_left() -> None:
    disk, spares, sparing = limited(limit=6, spare_count=4)
    files = [sparing.open(f"/top/{number}", create=True) for number in range(6)]
    assert spares.held == 0
    assert disk.open_count == 6
    with pytest.raises(DescriptorsExhausted, match=r"/top/more.*raise the limit"):
        sparing.open("/top/more", create=True)
    assert not disk.exists("/top/more")
    files.pop().close()
    sparing.open("/top/more", create=True)


def test_every_operation_that_takes_a_descriptor_is_paid_for() -> None:
    operations: list[Callable[[SparingDisk], object]] = [
        lambda disk: disk.open("/top/new", create=True),
        lambda disk: disk.list_directory("/top"),
        lambda disk: disk.make_directory("/top/deep/below"),
        lambda disk: disk.sync_directory("/top"),
        lambda disk: disk.lock("/top/LOCK"),
    ]
    for operation in operations:
        disk, spares, sparing = limited(limit=3, spare_count=3)
        operation(sparing)
        assert spares.held == 2
        assert disk.refused_count > 0


def test_a_map_is_paid_for_too() -> None:
    disk, spares, sparing = limited(limit=4, spare_count=3)
    file = sparing.open("/top/a", create=True)
    file.reserve(10)
    memory = file.map(10, writable=True)
    memory.view()[:3] = b"abc"
    assert file.read_at(0, 3) == b"abc"
    assert (spares.held, disk.open_count) == (2, 4)


def test_spares_come_back_when_descriptors_are_free_again() -> None:
    _, spares, sparing = limited(limit=4, spare_count=3)
    files = [sparing.open(f"/top/{number}", create=True) for number in range(3)]
    assert not spares.is_whole
    assert spares.is_used_up
    assert not spares.refresh()
    for file in files:
        file.close()
    assert spares.refresh()
    assert spares.is_whole
    assert not spares.is_used_up


def test_a_lowered_limit_is_found_before_anything_depends_on_it() -> None:
    disk, spares, sparing = limited(limit=100, spare_count=12)
    disk.limit = 5
    assert not spares.refresh()
    assert spares.held == 5
    assert spares.is_used_up
    disk.limit = 0
    assert not spares.refresh()
    assert spares.held == 0
    disk.limit = 100
    assert spares.refresh()
    sparing.open("/top/a", create=True)


def test_idle_files_are_closed_before_a_spare_is_given_up() -> None:
    disk, spares, sparing = limited(limit=5, spare_count=2)
    idle = [disk.open(f"/top/{number}", create=True) for number in range(3)]
    spares.close_idle = lambda: idle.pop().close() if idle else None
    sparing.open("/top/a", create=True)
    assert (len(idle), spares.held) == (2, 2)


def test_a_disk_that_has_room_for_no_spare_begins_without() -> None:
    disk, spares, _ = limited(limit=3, spare_count=10)
    assert spares.held == 3
    assert not spares.is_whole
    spares.close()
    assert disk.open_count == 0


def test_a_log_rolls_and_reads_on_at_the_limit_and_loses_nothing() -> None:
    disk, spares, sparing = limited(limit=1000, spare_count=12)
    cache = SegmentCache()
    log = Log.create(sparing, "/top/log", SMALL, cache)
    spares.close_idle = cache.close_idle
    # The spares, and the files of one active segment, which are not open yet.
    disk.limit = disk.open_count_max = disk.open_count + 3
    records = [b"%05d" % number + b"." * 1000 for number in range(200)]
    for number, record in enumerate(records):
        block = Block.from_records([record])
        assert log.append(block, timestamp_ms=number, raft_index=number + 2, term=1) == number
        # Cold ones too.
        assert log.read(number // 2, 1)[0].base_offset == number // 2
    assert len(log.describe()) > 40
    assert disk.open_count_max <= disk.limit
    # Then every sealed segment is synced, and what it held comes back.
    log.begin_sync()()
    log.begin_sync()()
    cache.close_idle()
    assert spares.refresh()
    log.close()
    reopened = Log.open(disk.disk, "/top/log", SMALL)
    found = [record for batch in reopened.read(0, 1 << 30) for record in batch.records()]
    while len(found) < len(records):
        found += [r for batch in reopened.read(len(found), 1 << 30) for r in batch.records()]
    assert found == records


@pytest.mark.parametrize(
    "operation",
    [
        lambda disk, top: disk.open(f"{top}/new", create=True),
        lambda disk, top: disk.open(f"{top}/old", writable=False),
        lambda disk, top: disk.list_directory(top),
        lambda disk, top: disk.sync_directory(top),
        lambda disk, top: disk.lock(f"{top}/LOCK"),
    ],
    ids=["create", "open", "list", "sync directory", "lock"],
)
def test_the_real_disk_says_that_no_descriptor_is_left(
    operation: Callable[[Disk, str], object], tmp_path: Path, lowest_free: int
) -> None:
    disk, top = RealDisk(), str(tmp_path)
    disk.open(f"{top}/old", create=True).close()
    with highest_descriptor(lowest_free - 1), pytest.raises(DescriptorsExhausted, match=top):
        operation(disk, top)
    assert disk.list_directory(top) == ["old"]


def test_a_real_map_takes_a_descriptor(tmp_path: Path) -> None:
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    file.reserve(10)
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    with highest_descriptor(descriptor - 1), pytest.raises(DescriptorsExhausted):
        file.map(10, writable=True)
    file.map(10, writable=True).close()


def test_real_spares_follow_a_limit_that_is_lowered_and_raised(
    tmp_path: Path, lowest_free: int
) -> None:
    disk = RealDisk()
    disk.open(f"{tmp_path}/FORMAT", create=True).close()
    spares = SpareDescriptors(disk, f"{tmp_path}/FORMAT", 10)
    sparing = SparingDisk(disk, spares)
    try:
        with highest_descriptor(lowest_free + 3):
            sparing.open(f"{tmp_path}/a", create=True).close()
            assert not spares.refresh()
            assert spares.held <= 4
        assert spares.refresh()
    finally:
        spares.close()
