"""The small file systems themselves: they are as small as they say, fail as they should, and leave nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.processes.file_systems import MIB, FileSystem, FileSystems, require_root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    require_root()
    return tmp_path


def mounts() -> str:
    return Path("/proc/mounts").read_text()


def refused(file: Path) -> int | None:
    """Return the error number of writing a block to a new file, None if it was taken."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, bytes(64 << 10))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_file_system_is_full_with_its_ballast_and_not_without(directory: Path, kind: str) -> None:
    disks = FileSystems(directory)
    try:
        disk: FileSystem = disks.tmpfs(8 * MIB) if kind == "tmpfs" else disks.ext4(16 * MIB)
        assert str(disk.place) in mounts()
        assert disk.fill() > 4 * MIB
        assert refused(disk.place / "a") == errno.ENOSPC
        disk.empty()
        assert refused(disk.place / "a") is None
        assert disk.fill(left=2 * MIB) > MIB
        assert 2 * MIB <= disk.free_size < 3 * MIB
    finally:
        disks.close()
    assert str(directory) not in mounts()


def test_an_ext4_that_found_an_error_is_read_only_until_it_is_repaired(directory: Path) -> None:
    disks = FileSystems(directory)
    try:
        disk = disks.ext4(16 * MIB, options="errors=remount-ro")
        assert refused(disk.place / "a") is None
        disk.fail()
        assert refused(disk.place / "b") == errno.EROFS
        disk.repair()
        assert refused(disk.place / "b") is None
    finally:
        disks.close()
    assert str(directory) not in mounts()


def test_a_disk_that_takes_no_write_keeps_what_was_synced(directory: Path) -> None:
    disks = FileSystems(directory)
    try:
        disk = disks.ext4(16 * MIB, options="errors=remount-ro")
        assert refused(disk.place / "a") is None
        disk.fail_writes()
        assert refused(disk.place / "b") in (errno.EIO, errno.EROFS)
        disk.repair()
        assert (disk.place / "a").read_bytes() == bytes(64 << 10)
        assert refused(disk.place / "c") is None
    finally:
        disks.close()
    assert str(directory) not in mounts()


def test_what_is_still_in_use_is_unmounted_all_the_same_and_reported(directory: Path) -> None:
    disks = FileSystems(directory)
    disk = disks.ext4(16 * MIB)
    with (disk.place / "held").open("wb"), pytest.raises(AssertionError, match="busy"):
        disks.close()
    assert str(directory) not in mounts()
