"""What both disks promise, and what only the simulated one can do: lose, refuse, and come back."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier

import pytest

from distlog.errors import DataDirectoryInUse, DiskFailed, StorageFull
from distlog.storage.disk import PARTS_MAX, Disk, RealDisk
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.simulated_medium import PAGE_SIZE


@pytest.fixture
def place(place: tuple[Disk, str]) -> tuple[Disk, str]:
    """A disk and an empty directory on it."""
    disk, path = place
    disk.make_directory(path)
    return place


def test_what_is_written_is_read_and_short_at_the_end(place: tuple[Disk, str]) -> None:
    disk, top = place
    file = disk.open(f"{top}/a", create=True)
    file.write_at(2, [b"one", bytearray(b"two"), memoryview(b"three")])
    assert file.size() == 13
    assert file.read_at(0, 100) == b"\0\0onetwothree"
    assert file.read_at(5, 3) == b"two"
    assert file.read_at(13, 5) == b""
    file.close()
    assert disk.open(f"{top}/a", writable=False).read_at(8, 5) == b"three"


def test_what_is_not_kept_in_memory_is_read_again(place: tuple[Disk, str]) -> None:
    disk, top = place
    file = disk.open(f"{top}/a", create=True)
    data = os.urandom(3 * PAGE_SIZE + 5)
    file.write_at(0, [data])
    file.sync()
    disk.drop_cache(f"{top}/a")
    assert file.read_at(0, len(data) + 1) == data
    with pytest.raises(DiskFailed, match="No such file"):
        disk.drop_cache(f"{top}/b")


def test_more_parts_than_one_system_call_takes_are_all_written(place: tuple[Disk, str]) -> None:
    disk, top = place
    parts = [b"%05d" % number for number in range(2 * PARTS_MAX + 7)]
    file = disk.open(f"{top}/a", create=True)
    file.write_at(3, parts)
    assert file.read_at(3, 1 << 20) == b"".join(parts)


def test_a_map_and_the_file_are_the_same_bytes(place: tuple[Disk, str]) -> None:
    disk, top = place
    file = disk.open(f"{top}/a", create=True)
    file.reserve(2 * PAGE_SIZE)
    memory = file.map(2 * PAGE_SIZE, writable=True)
    view = memory.view()
    view[10:15] = b"hello"
    assert file.read_at(10, 5) == b"hello"
    file.write_at(20, [b"world"])
    assert bytes(view[20:25]) == b"world"
    view.release()
    memory.close()
    reader = disk.open(f"{top}/a", writable=False).map(PAGE_SIZE, writable=False)
    with pytest.raises(TypeError):
        reader.view()[0:1] = b"x"


def test_reserving_grows_with_zeros_and_never_shrinks(place: tuple[Disk, str]) -> None:
    disk, top = place
    file = disk.open(f"{top}/a", create=True)
    file.write_at(0, [b"abc"])
    file.reserve(1000)
    file.reserve(10)
    assert file.size() == 1000
    assert file.read_at(0, 6) == b"abc\0\0\0"


def test_bytes_cut_off_come_back_as_zeros(place: tuple[Disk, str]) -> None:
    disk, top = place
    file = disk.open(f"{top}/a", create=True)
    file.write_at(0, [b"abcdef"])
    file.truncate(2)
    assert file.size() == 2
    file.truncate(6)
    assert file.read_at(0, 10) == b"ab\0\0\0\0"


def test_names_are_listed_sorted_renamed_over_and_removed(place: tuple[Disk, str]) -> None:
    disk, top = place
    for name in ("b", "a", "c"):
        disk.open(f"{top}/{name}", create=True).write_at(0, [name.encode()])
    disk.rename(f"{top}/c", f"{top}/a")
    assert disk.list_directory(top) == ["a", "b"]
    assert disk.open(f"{top}/a").read_at(0, 9) == b"c"
    disk.remove(f"{top}/b")
    assert not disk.exists(f"{top}/b")
    disk.sync_directory(top)


def test_nodes_that_start_at_once_make_the_parent_of_their_directories_together(
    tmp_path: Path,
) -> None:
    together = Barrier(4)

    def make(number: int) -> None:
        together.wait(10)
        RealDisk().make_directory(f"{parent}/of/all/n{number}")

    with ThreadPoolExecutor(4) as nodes:
        for turn in range(50):
            parent = tmp_path / str(turn)
            list(nodes.map(make, range(4)))
            assert len(list((parent / "of/all").iterdir())) == 4


def test_directories_are_made_with_their_parents_and_removed_when_empty(
    place: tuple[Disk, str],
) -> None:
    disk, top = place
    disk.make_directory(f"{top}/x/y/z")
    disk.make_directory(f"{top}/x/y/z")
    assert disk.is_directory(f"{top}/x/y")
    disk.open(f"{top}/x/file", create=True)
    assert not disk.is_directory(f"{top}/x/file")
    with pytest.raises(DiskFailed, match="not empty"):
        disk.remove(f"{top}/x")
    disk.remove(f"{top}/x/y/z")
    assert disk.list_directory(f"{top}/x/y") == []


def test_what_cannot_be_done_says_what_and_where(place: tuple[Disk, str]) -> None:
    disk, top = place
    disk.open(f"{top}/a", create=True)
    with pytest.raises(DiskFailed, match=rf"open {top}/none: No such file"):
        disk.open(f"{top}/none")
    with pytest.raises(DiskFailed, match="exists"):
        disk.open(f"{top}/a", create=True)
    with pytest.raises(DiskFailed, match="No such file"):
        disk.open(f"{top}/none/a", create=True)
    with pytest.raises(DiskFailed, match="Not a directory"):
        disk.list_directory(f"{top}/a")
    with pytest.raises(DiskFailed):
        disk.make_directory(f"{top}/a/b")
    for operation in (disk.remove, disk.sync_directory, disk.list_directory):
        with pytest.raises(DiskFailed, match="No such file"):
            operation(f"{top}/none")
    with pytest.raises(DiskFailed, match="No such file"):
        disk.rename(f"{top}/none", f"{top}/b")


def test_a_lock_is_held_once_and_free_after_its_release(place: tuple[Disk, str]) -> None:
    disk, top = place
    lock = disk.lock(f"{top}/LOCK")
    with pytest.raises(DataDirectoryInUse):
        disk.lock(f"{top}/LOCK")
    lock.release()
    disk.lock(f"{top}/LOCK").release()


def test_free_space_is_what_may_still_be_written(place: tuple[Disk, str]) -> None:
    disk, top = place
    assert disk.free_space(top) > 1 << 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_real_disk_tells_a_full_one_from_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    file.write_at(0, [b"abc"])

    def refuse(*_: object) -> None:
        os.ftruncate(os.open(f"{tmp_path}/a", os.O_RDWR), 50)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(os, "pwritev", refuse)
    with pytest.raises(StorageFull, match="a: free space"):
        file.reserve(100)
    assert file.size() == 3, "a refused reservation must not leave the file grown"
    monkeypatch.setattr(os, "pwrite", refuse)
    for parts in ([b"def"], [b"d", b"ef"]):
        with pytest.raises(StorageFull):
            file.write_at(3, parts)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_the_real_disk_says_why_the_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    disk = RealDisk()
    for operation in (
        lambda: disk.open(f"{tmp_path}/a", create=True),
        lambda: disk.lock(f"{tmp_path}/a"),
        lambda: disk.sync_directory(str(tmp_path)),
    ):
        with pytest.raises(DiskFailed) as caught:
            operation()
        assert caught.value.problem.startswith(os.strerror(number))
        assert caught.value.path.startswith(str(tmp_path))


def test_the_real_disk_goes_on_after_short_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, position: pwrite(fd, b"".join(parts)[:3], position)
    )
    monkeypatch.setattr(os, "pwrite", lambda fd, data, position: pwrite(fd, data[:2], position))
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    file.write_at(1, [b"abcd", b"efgh", b"i"])
    file.write_at(10, [b"jklmn"])
    file.write_at(15, [memoryview(b"opqrs")])
    assert file.read_at(0, 30) == b"\0abcdefghijklmnopqrs"


def test_a_failed_fdatasync_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = RealDisk().open(f"{tmp_path}/a", create=True)
    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(DiskFailed, match=r"sync .*: Input/output error"):
        file.sync()


# --- The simulated disk ---------------------------------------------------------------------------


def crashes(disk: SimulatedDisk, count: int = 200) -> list[SimulatedDisk]:
    return [disk.crash(Random(seed)) for seed in range(count)]


def content(disk: SimulatedDisk, path: str) -> bytes:
    return disk.open(path).read_at(0, 1 << 30)


def durable_file(disk: SimulatedDisk, path: str, data: bytes) -> None:
    file = disk.open(path, create=True)
    file.write_at(0, [data])
    file.sync()
    disk.sync_directory("/")


def test_what_was_synced_survives_every_crash() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"x" * 10_000)
    assert {content(survivor, "/a") for survivor in crashes(disk)} == {b"x" * 10_000}


def test_unsynced_pages_survive_in_any_combination() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"o" * 3 * PAGE_SIZE)
    disk.open("/a").write_at(0, [b"n" * 3 * PAGE_SIZE])
    found = {content(survivor, "/a")[::PAGE_SIZE] for survivor in crashes(disk)}
    assert found == {bytes([a, b, c]) for a in b"on" for b in b"on" for c in b"on"}


def test_writes_through_a_map_are_unsynced_until_the_file_is_synced() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"o" * 2 * PAGE_SIZE)
    file = disk.open("/a")
    memory = file.map(2 * PAGE_SIZE, writable=True)
    memory.view()[PAGE_SIZE + 7] = ord("n")
    found = {content(survivor, "/a")[PAGE_SIZE + 7 :][:1] for survivor in crashes(disk)}
    assert found == {b"o", b"n"}
    memory.close()
    file.sync()
    found = {content(survivor, "/a")[PAGE_SIZE + 7 :][:1] for survivor in crashes(disk)}
    assert found == {b"n"}


def test_an_unsynced_size_is_any_that_the_file_had_since_its_last_sync() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"abc")
    file = disk.open("/a")
    file.write_at(3, [b"def"])
    file.truncate(1)
    found = {content(survivor, "/a") for survivor in crashes(disk)}
    assert {len(data) for data in found} == {1, 3, 6}
    assert found <= {b"a", b"abc", b"abcdef", b"a\0\0", b"a\0\0\0\0\0", b"abc\0\0\0"}


def test_an_unsynced_name_may_be_there_or_not_and_an_unsynced_file_may_be_short() -> None:
    disk = SimulatedDisk()
    disk.open("/a", create=True).write_at(0, [b"abc"])
    names = {tuple(survivor.list_directory("/")) for survivor in crashes(disk)}
    assert names == {(), ("a",)}
    disk.sync_directory("/")
    found = {content(survivor, "/a") for survivor in crashes(disk)}
    assert found == {b"", b"abc", b"\0\0\0"}


def test_a_rename_or_removal_is_undone_by_a_crash_until_the_directory_is_synced() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/checkpoint", b"old")
    durable_file(disk, "/gone", b"")
    durable_file(disk, "/tmp", b"new")
    disk.rename("/tmp", "/checkpoint")
    disk.remove("/gone")
    assert {content(survivor, "/checkpoint") for survivor in crashes(disk)} == {b"old", b"new"}
    assert {survivor.exists("/gone") for survivor in crashes(disk)} == {False, True}
    disk.sync_directory("/")
    assert {content(survivor, "/checkpoint") for survivor in crashes(disk)} == {b"new"}
    assert {survivor.exists("/gone") for survivor in crashes(disk)} == {False}


def test_pages_written_back_early_may_be_older_than_the_last_write() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"1")
    disk.open("/a").write_at(0, [b"2"])
    for seed in range(10):
        disk.write_back(Random(seed))
    disk.open("/a").write_at(0, [b"3"])
    assert {content(survivor, "/a") for survivor in crashes(disk)} == {b"2", b"3"}


def test_the_same_seed_gives_the_same_crash() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"o" * 8 * PAGE_SIZE)
    disk.open("/a").write_at(0, [b"n" * 8 * PAGE_SIZE])
    assert content(disk.crash(Random(7)), "/a") == content(disk.crash(Random(7)), "/a")


def test_a_crash_or_a_kill_leaves_the_disk_that_it_was_taken_from_alone() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"old")
    lock = disk.lock("/LOCK")
    for survivor in (disk.crash(Random(1)), disk.kill()):
        survivor.lock("/LOCK").release()
        survivor.open("/a").write_at(0, [b"new"])
    assert content(disk, "/a") == b"old"
    lock.release()


def test_a_killed_process_loses_nothing_but_what_it_wrote_is_still_not_synced() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"old")
    disk.open("/a").write_at(0, [b"new"])
    survivor = disk.kill()
    assert content(survivor, "/a") == b"new"
    assert {content(power_cut, "/a") for power_cut in crashes(survivor)} == {b"old", b"new"}


def test_a_full_disk_refuses_growth_and_keeps_what_is_there() -> None:
    disk = SimulatedDisk(capacity=10)
    file = disk.open("/a", create=True)
    file.write_at(0, [b"12345678"])
    for grow in (lambda: file.reserve(11), lambda: file.write_at(8, [b"abc"])):
        with pytest.raises(StorageFull):
            grow()
    assert (file.size(), disk.free_space("/")) == (8, 2)
    file.write_at(2, [b"xx"])
    disk.open("/b", create=True).reserve(2)
    with pytest.raises(StorageFull):
        file.reserve(9)
    disk.remove("/b")
    file.reserve(10)


def test_a_nearly_full_disk_gives_what_is_needed_if_not_what_is_wanted() -> None:
    disk = SimulatedDisk(capacity=10)
    file = disk.open("/a", create=True)
    assert file.reserve(4, 8) == 8
    assert file.reserve(9, 16) == 9
    with pytest.raises(StorageFull):
        file.reserve(11, 16)
    assert file.size() == 9


def test_the_real_disk_gives_what_is_needed_if_not_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RealDisk().open(f"{tmp_path}/a", create=True)
    assert file.reserve(4, 8) == 8
    allocate = os.posix_fallocate

    def refuse_much(descriptor: int, first: int, size: int) -> None:
        if size > 16:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, first, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse_much)
    assert file.reserve(12, 100) == 12
    with pytest.raises(StorageFull):
        file.reserve(17, 100)
    assert file.size() == 12


def test_a_sync_that_fails_for_lack_of_space_is_a_failed_sync_and_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = RealDisk().open(f"{tmp_path}/a", create=True)
    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    for sync in (file.sync, lambda: RealDisk().sync_directory(str(tmp_path))):
        with pytest.raises(DiskFailed):
            sync()


def test_the_nth_operation_fails_and_the_hook_sees_them_all() -> None:
    seen: list[tuple[str, str]] = []
    disk = SimulatedDisk(hook=lambda operation, path: seen.append((operation, path)))
    disk.fail_at = 3
    file = disk.open("/a", create=True)
    file.write_at(0, [b"x"])
    with pytest.raises(DiskFailed):
        file.sync()
    file.sync()
    assert seen == [("open", "/a"), ("write", "/a"), ("sync", "/a"), ("sync", "/a")]


def test_a_failing_sync_makes_nothing_durable() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"old")
    disk.fail_syncs = True
    file = disk.open("/a")
    file.write_at(0, [b"new"])
    with pytest.raises(DiskFailed):
        file.sync()
    with pytest.raises(DiskFailed):
        disk.sync_directory("/")
    assert {content(survivor, "/a") for survivor in crashes(disk)} == {b"old", b"new"}


def test_a_failed_sync_takes_what_it_did_not_write_for_clean() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"old")
    file = disk.open("/a")
    file.write_at(0, [b"new"])
    disk.fail_at = disk.operation_count + 1
    with pytest.raises(DiskFailed):
        file.sync()
    for later in (disk, disk.kill()):
        assert content(later, "/a") == b"new"
        later.open("/a").sync()
        # It succeeds, and means nothing.
        assert {content(survivor, "/a") for survivor in crashes(later)} == {b"old", b"new"}
        later.open("/a").write_at(0, [b"new"])
        later.open("/a").sync()
        assert {content(survivor, "/a") for survivor in crashes(later)} == {b"new"}


def test_what_a_power_cut_takes_can_be_chosen_one_by_one() -> None:
    disk = SimulatedDisk()
    durable_file(disk, "/a", b"o" * 3 * PAGE_SIZE)
    disk.open("/a").write_at(0, [b"n" * 3 * PAGE_SIZE])
    disk.open("/a").truncate(5)
    disk.open("/b", create=True)
    found = disk.unsynced()
    assert [item.kind for item in found] == ["page", "page", "page", "size", "name"]
    assert content(disk.crash_keeping([]), "/a") == b"o" * 3 * PAGE_SIZE
    assert content(disk.crash_keeping(found), "/a") == b"n" * 5
    assert content(disk.crash_keeping(found[:1]), "/a")[:6] == b"n" * 5 + b"\0"
    assert content(disk.crash_keeping(found[3:4]), "/a") == b"o" * 5
    survivors = [disk.crash_keeping([item]).exists("/b") for item in found]
    assert survivors == [False, False, False, False, True]
