"""Real small file systems for a node's data: they get full, turn read-only, or lose the disk below them.

Only root may mount.  Run as root, as CI does, everything here must work, or the test fails; anybody else's run skips these
tests and says so.  Whatever a test mounts is gone after it: unmounted, lazily if something still holds it, and with it
the loop device.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20
BALLAST = "ballast"
# <linux/loop.h> and <linux/fcntl.h>.
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
F_ADD_SEALS, F_SEAL_FUTURE_WRITE = 1033, 0x10
ATTEMPTS_MAX = 100
COMMAND_TIMEOUT_S = 30
BUSY_TIMEOUT_S = 3
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
        """Unmount what nobody uses any more.

        Whoever looks at a process in /proc keeps its memory, and so its mapped files, a moment longer than it lives.
        """
        end = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                run_as_admin("umount", str(self.place))
            except AssertionError as problem:
                if "busy" not in str(problem) or time.monotonic() > end:
                    raise
            else:
                return


class LoopDevice:
    """A disk in memory, which can be told to fail."""

    def __init__(self, size: int) -> None:
        self._memory = _new_memory(size)
        self.path = _attach(self._memory)

    def fail_writes(self) -> None:
        """From now on every write gets an I/O error, and reads go on.

        (A file in a file system that is full is no such disk: the loop driver takes a short write for a whole one.  Nor is a device
        that is made smaller: when it cannot read either, ext4 may stop for ever, with all that wait for it.)
        """
        fcntl.fcntl(self._memory, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)

    def replace(self) -> None:
        """Put a disk that works in its place, with what was written to this one.  Nothing may use it."""
        copy = _new_memory(os.fstat(self._memory).st_size)
        for start, end in _data_ranges(self._memory):
            for position in range(start, end, MIB):
                data = os.pread(self._memory, min(MIB, end - position), position)
                os.pwrite(copy, data, position)
        self.close()
        self._memory = copy
        self.path = _attach(copy)

    def close(self) -> None:
        """Let the device go; with a file system that is still mounted, as soon as it is not."""
        device = os.open(self.path, os.O_RDWR)
        try:
            fcntl.ioctl(device, LOOP_CLR_FD)
        finally:
            os.close(device)
        os.close(self._memory)


def _new_memory(size: int) -> int:
    memory = os.memfd_create("disk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    return memory


def _attach(memory: int) -> str:
    """Return the path of the loop device that shows this file."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        for _ in range(ATTEMPTS_MAX):
            path = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR)
            try:
                fcntl.ioctl(device, LOOP_SET_FD, memory)
            except OSError as error:
                # Somebody else was faster.
                if error.errno != errno.EBUSY:
                    raise
            else:
                return path
            finally:
                os.close(device)
    finally:
        os.close(control)
    raise AssertionError("there is no free loop device")


def _data_ranges(file: int) -> Iterator[tuple[int, int]]:
    """Yield what is no hole."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


class Ext4(FileSystem):
    """An ext4 on a loop device."""

    def __init__(self, place: Path, disk: LoopDevice, options: str) -> None:
        """Mount what is on `disk`."""
        super().__init__(place)
        self.disk = disk
        self._options = options
        self.mount()

    def mount(self) -> None:
        run_as_admin("mount", "-t", "ext4", "-o", self._options, self.disk.path, str(self.place))

    def fail(self) -> None:
        """Let the kernel find an error in it: with errors=remount-ro, it takes no writes from then on."""
        name = Path(self.disk.path).name
        Path("/sys/fs/ext4", name, "trigger_fs_error").write_text("a test\n")

    def fail_writes(self) -> None:
        """Let the disk below take no writes."""
        self.disk.fail_writes()

    def repair(self) -> None:
        """Put it on a disk that works, check it and repair it, and mount it again.  Nobody uses it."""
        self.unmount()
        self.disk.replace()
        program = shutil.which("e2fsck", path=ADMIN_PATH)
        assert program is not None, "e2fsck is not installed: install e2fsprogs"
        done = subprocess.run(
            [program, "-f", "-y", self.disk.path],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        # 1: errors were corrected.
        assert done.returncode in (0, 1), done.stdout + done.stderr
        self.mount()


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
        """Mount a new ext4 of `size` bytes."""
        place = self._new_place()
        disk = LoopDevice(size)
        try:
            # Nothing kept back for root, and all tables written now, not by the kernel when it finds time.
            lazy = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
            details = ("-m", "0", "-b", "4096", "-J", "size=4", "-E", lazy)
            run_as_admin("mkfs.ext4", "-q", "-F", *details, disk.path)
            mounted = Ext4(place, disk, options)
        except BaseException:
            disk.close()
            raise
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
                each.disk.close()
        assert problems == [], problems
