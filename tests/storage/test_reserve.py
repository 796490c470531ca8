"""The reserve pays for what was promised when the disk is full, comes back when there is space, and is never half believed."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from distlog.errors import DiskFailed, StorageFull
from distlog.storage.disk import RealDisk
from distlog.storage.reserve import BLOCK_SIZE, Reserve, ReservedDisk
from distlog.storage.simulated_disk import SimulatedDisk

SIZE = 16 * BLOCK_SIZE


def blocks_of(path: Path) -> int:
    """Return the bytes that the file system has given to a file."""
    return path.stat().st_blocks * 512


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


def test_what_the_reserve_cannot_pay_is_refused_and_leaves_file_and_reserve_as_they_were() -> None:
    _, reserve, reserved = full_disk()
    file = reserved.open("/a", create=True)
    with pytest.raises(StorageFull):
        file.reserve(SIZE + 1)
    assert (file.size(), reserve.held) == (0, SIZE)
    with pytest.raises(StorageFull):
        file.write_at(0, [bytes(SIZE + 1)])
    assert reserve.held == SIZE, "what is smaller can be paid for"
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


def test_a_reserve_takes_back_a_part_where_there_is_no_space_for_all_of_it() -> None:
    disk, reserve, reserved = full_disk()
    reserved.open("/a", create=True).write_at(0, [bytes(SIZE)])
    assert reserve.held == 0
    disk.remove("/ballast")
    ballast(disk, left=SIZE // 2 + SIZE // 4)
    assert not reserve.restore()
    assert (reserve.held, disk.free_space("/")) == (SIZE // 2, SIZE // 4), "the margin stays free"
    assert not reserve.restore()
    assert reserve.held == SIZE // 2


def test_threads_that_use_the_reserve_at_the_same_time_leave_no_hole_in_it(tmp_path: Path) -> None:
    """A size that was read before another thread cut the file would make it longer again, without a block of the disk."""
    path = tmp_path / "reserve"
    size = 8 << 20
    reserve = Reserve(RealDisk(), str(path), size)

    def give_up(piece: int) -> None:
        for _ in range(32):
            reserve.give_up(piece)

    for _ in range(15):
        assert reserve.restore()
        threads = [Thread(target=give_up, args=(piece,)) for piece in (BLOCK_SIZE, 128 << 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reserve.held == size - 32 * (BLOCK_SIZE + (128 << 10))
        assert blocks_of(path) >= reserve.held
    reserve.close()


def test_a_reserve_that_was_copied_as_a_hole_has_its_blocks_after_a_start(tmp_path: Path) -> None:
    """`cp --sparse=always`, tar and rsync leave out what is zeros."""
    path = tmp_path / "reserve"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    assert blocks_of(path) == 0
    reserve = Reserve(RealDisk(), str(path), 1 << 20)
    assert reserve.is_whole
    assert blocks_of(path) >= 1 << 20
    reserve.close()


def test_a_hole_that_a_full_disk_cannot_fill_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimulatedDisk(capacity=100 * BLOCK_SIZE)
    Reserve(disk, "/reserve", SIZE).close()
    ballast(disk)
    file = disk.open("/reserve")

    def refuse(size: int, wanted: int = 0) -> int:
        raise StorageFull(path=file.path)

    monkeypatch.setattr(file, "reserve", refuse)
    monkeypatch.setattr(disk, "open", lambda path: file)
    reserve = Reserve(disk, "/reserve", SIZE)
    assert (reserve.held, reserve.is_whole) == (0, False)


def test_a_node_starts_on_a_full_disk_without_a_whole_reserve() -> None:
    disk = SimulatedDisk(capacity=SIZE // 4)
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
