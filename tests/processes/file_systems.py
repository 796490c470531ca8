"""Real small file systems for a node's data: they get full, turn read-only, or lose the disk below them.

Only root may mount.  Run as root, as CI does, everything here must work, or the test fails; anybody else's run skips these
tests and says so.  Whatever a test mounts is gone after it: unmounted, lazily if something still holds it, and with it
the loop device.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

MIB = 1 << 20
BALLAST = "ballast"
# <linux/loop.h>: read and set the state of a loop device, and where in it the size limit is.
LOOP_GET_STATUS64, LOOP_SET_STATUS64 = 0x4C05, 0x4C04
LOOP_INFO_SIZE, SIZE_LIMIT_POSITION = 232, 32
COMMAND_TIMEOUT_S = 30
# Where administrators' commands are, also for those who do not have them in their PATH.
ADMIN_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def require_root() -> None:
    """Skip the test, in words, where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system: run the tests as root to have this one")


def run_as_admin(*command: str) -> str:
    """Run a command that must succeed; return what it printed."""
    program = shutil.which(command[0], path=ADMIN_PATH)
    assert program is not None, f"{command[0]} is not installed: install e2fsprogs and mount"
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


class FileSystem:
    """A file system that is mounted."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    def free_size(self) -> int:
        status = os.statvfs(self.place)
        return status.f_bavail * status.f_frsize

    def fill(self, left: int = 0) -> int:
        """Use up all space but `left` bytes, as somebody else's file would; return how much that was."""
        descriptor = os.open(self.place / BALLAST, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            begun = size = os.fstat(descriptor).st_size
            step = MIB
            # In ever smaller steps: what a file system still has is not what it says.
            while step >= 4096:
                if self.free_size - step < left:
                    step //= 2
                    continue
                try:
                    os.posix_fallocate(descriptor, size, step)
                    size += step
                except OSError:
                    step //= 2
            return size - begun
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """Take the ballast away."""
        (self.place / BALLAST).unlink()

    def remount(self, options: str) -> None:
        run_as_admin("mount", "-o", f"remount,{options}", str(self.place))

    def unmount(self) -> None:
        """Unmount what nobody uses any more."""
        run_as_admin("umount", str(self.place))


class Ext4(FileSystem):
    """An ext4 in a file."""

    def __init__(self, place: Path, image: Path) -> None:
        super().__init__(place)
        self.image = image

    @property
    def device(self) -> str:
        """The loop device, as /sys names it."""
        for line in Path("/proc/mounts").read_text().splitlines():
            device, place, *_ = line.split()
            if place == str(self.place):
                return Path(device).name
        # mount(8) may show the image where the kernel shows the device.
        raise AssertionError(f"{self.place} is not mounted")

    def fail(self) -> None:
        """Let the kernel find an error in it: with errors=remount-ro, it takes no writes from then on."""
        Path("/sys/fs/ext4", self.device, "trigger_fs_error").write_text("a test\n")

    def lose(self) -> None:
        """Let the disk below fail for all but its first MiB: what is written there gets an I/O error.

        (An image in a file system that is too small is no such disk: the loop driver takes a short write for a whole one, so
        an fsync succeeds and the data is gone.)
        """
        self._limit_device(MIB)

    def find_again(self) -> None:
        """Have the disk below back, with what was on it."""
        self._limit_device(0)

    def _limit_device(self, size: int) -> None:
        descriptor = os.open(f"/dev/{self.device}", os.O_RDONLY)
        try:
            state = bytearray(LOOP_INFO_SIZE)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, state)
            struct.pack_into("<Q", state, SIZE_LIMIT_POSITION, size)
            fcntl.ioctl(descriptor, LOOP_SET_STATUS64, bytes(state))
        finally:
            os.close(descriptor)

    def mount(self, options: str) -> None:
        """Mount it again, after `unmount`."""
        _mount_image(self.image, self.place, options)

    def repair(self) -> None:
        """Check and repair it while it is not mounted."""
        program = shutil.which("e2fsck", path=ADMIN_PATH)
        assert program is not None, "e2fsck is not installed: install e2fsprogs"
        done = subprocess.run(
            [program, "-f", "-y", str(self.image)],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        # 1: errors were corrected.
        assert done.returncode in (0, 1), done.stdout + done.stderr


class FileSystems:
    """The file systems of one test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mounted: list[FileSystem] = []

    def _new_place(self) -> Path:
        place = self._directory / f"disk-{len(self._mounted) + 1}"
        place.mkdir(parents=True)
        return place

    def tmpfs(self, size: int) -> FileSystem:
        """Mount an empty file system of `size` bytes, in memory."""
        place = self._new_place()
        run_as_admin("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place))
        mounted = FileSystem(place)
        self._mounted.append(mounted)
        return mounted

    def ext4(self, size: int, *, options: str = "rw") -> Ext4:
        """Mount a new ext4 of `size` bytes, from a sparse file."""
        place = self._new_place()
        image = self._directory / f"{place.name}.ext4"
        with image.open("wb") as file:
            file.truncate(size)
        # Nothing kept back for root, and all tables written now, not by the kernel when it finds time.
        lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        run_as_admin(
            "mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4", "-E", lazy, str(image)
        )
        _mount_image(image, place, options)
        mounted = Ext4(place, image)
        self._mounted.append(mounted)
        return mounted

    def close(self) -> None:
        """Leave nothing mounted, whatever state it is in."""
        problems = []
        for each in reversed(self._mounted):
            while os.path.ismount(each.place):
                try:
                    each.unmount()
                except AssertionError as problem:
                    problems.append(str(problem))
                    run_as_admin("umount", "--lazy", str(each.place))
            if isinstance(each, Ext4):
                each.image.unlink()
        assert problems == [], problems


def _mount_image(image: Path, place: Path, options: str) -> None:
    # The loop device goes with the mount.
    run_as_admin("mount", "-t", "ext4", "-o", f"loop,{options}", str(image), str(place))
