"""The reserve pays for what was promised when the disk is full, comes back when there is space, and is never half believed."""

from __future__ import annotations

import pytest

from distlog.errors import DiskFailed, StorageFull
from distlog.storage.reserve import BLOCK_SIZE, Reserve, ReservedDisk
from distlog.storage.simulated_disk import SimulatedDisk

SIZE = 16 * BLOCK_SIZE


def ballast(disk: SimulatedDisk, *, left: int = 0) -> None:
    """Fill the disk up to `left` bytes, as another program would."""
    path = "/ballast"
    file = disk.open(path, create=not disk.exists(path))
    file.reserve(file.size() + disk.free_space("/") - left)


def full_disk() -> tuple[SimulatedDisk, Reserve, ReservedDisk]:
    disk = SimulatedDisk(capacity=100 * BLOCK_SIZE)
    reserve = Reserve(disk, "/reserve", SIZE)
    assert reserve.is_whole
    ballast(disk)
    return disk, reserve, ReservedDisk(disk, reserve)


def test_a_disk_with_space_fills_the_reserve_and_leaves_it_alone() -> None:
    disk = SimulatedDisk(capacity=100 * BLOCK_SIZE)
    reserve = Reserve(disk, "/reserve", SIZE)
    ReservedDisk(disk, reserve).open("/a", create=True).write_at(0, [bytes(SIZE)])
    assert reserve.is_whole
    assert disk.used == 2 * SIZE


def test_a_write_that_finds_no_space_takes_what_it_needs_from_the_reserve() -> None:
    _, reserve, reserved = full_disk()
    file = reserved.open("/a", create=True)
    file.write_at(0, [b"x" * BLOCK_SIZE, b"y"])
    assert file.read_at(0, SIZE) == b"x" * BLOCK_SIZE + b"y"
    assert not reserve.is_whole
    assert reserve.held == SIZE - 2 * BLOCK_SIZE


def test_a_reservation_takes_what_is_needed_and_not_what_would_be_comfortable() -> None:
    _, reserve, reserved = full_disk()
    file = reserved.open("/a", create=True)
    assert file.reserve(BLOCK_SIZE, SIZE) == BLOCK_SIZE
    assert file.reserve(BLOCK_SIZE + 1, SIZE) == BLOCK_SIZE + 1
    assert reserve.held == SIZE - 2 * BLOCK_SIZE


def test_what_the_reserve_cannot_pay_is_refused_and_leaves_the_file_as_it_was() -> None:
    _, reserve, reserved = full_disk()
    file = reserved.open("/a", create=True)
    with pytest.raises(StorageFull):
        file.reserve(SIZE + 1)
    assert (file.size(), reserve.held) == (0, 0)
    with pytest.raises(StorageFull):
        file.write_at(0, [bytes(SIZE + 1)])
    # What it gave up is free, for whoever comes first.
    file.write_at(0, [bytes(SIZE)])


def test_a_reserve_comes_back_when_there_is_space_and_a_margin() -> None:
    disk, reserve, reserved = full_disk()
    reserved.open("/a", create=True).write_at(0, [bytes(BLOCK_SIZE)])
    assert not reserve.restore()
    disk.remove("/ballast")
    ballast(disk, left=BLOCK_SIZE)
    assert not reserve.restore(), "just enough would be gone with the next write"
    disk.remove("/ballast")
    assert reserve.restore()
    assert reserve.is_whole


def test_a_node_starts_on_a_full_disk_without_a_whole_reserve() -> None:
    disk = SimulatedDisk(capacity=SIZE)
    reserve = Reserve(disk, "/reserve", SIZE)
    assert (reserve.is_whole, reserve.held) == (False, 0)
    assert not reserve.give_up(1)


def test_a_reserve_that_is_configured_smaller_gives_the_rest_back() -> None:
    disk = SimulatedDisk(capacity=100 * BLOCK_SIZE)
    Reserve(disk, "/reserve", SIZE).close()
    reserve = Reserve(disk, "/reserve", BLOCK_SIZE)
    assert (reserve.held, disk.used) == (BLOCK_SIZE, BLOCK_SIZE)


def test_a_reserve_that_cannot_even_be_created_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()

    def refuse(path: str, **_: object) -> None:
        raise StorageFull(path=path)

    monkeypatch.setattr(disk, "open", refuse)
    with pytest.raises(DiskFailed, match="reserve"):
        Reserve(disk, "/reserve", SIZE)
