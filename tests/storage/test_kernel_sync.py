"""Syncs by the kernel, on the real one: what it is told to sync is synced, said once, and a failure is said once."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from distlog.errors import DiskFailed
from distlog.storage import kernel_sync
from distlog.storage.disk import RealDisk
from distlog.storage.kernel_sync import IN_FLIGHT_MAX, KernelSync
from distlog.storage.simulated_disk import SimulatedDisk


@pytest.fixture
def kernel() -> Iterator[KernelSync]:
    opened = KernelSync.open()
    assert opened is not None, "the platform that is supported has it"
    yield opened
    opened.close()


def ended(kernel: KernelSync, count: int = 1) -> list[tuple[int, DiskFailed | None]]:
    """Wait until so many syncs have ended, as an event loop does."""
    found: list[tuple[int, DiskFailed | None]] = []
    while len(found) < count:
        readable, _, _ = select.select([kernel.descriptor], [], [], 10)
        assert readable, "the kernel says when it has done it"
        found += kernel.finished()
    return found


def test_a_sync_ends_and_is_said_once(kernel: KernelSync, tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "file"), create=True)
    file.write_at(0, [b"x" * 100])
    number = kernel.begin(file)
    assert ended(kernel) == [(number, None)]
    assert kernel.finished() == []
    file.close()


def test_several_are_told_apart_and_more_than_the_queue_holds_are_refused(
    kernel: KernelSync, tmp_path: Path
) -> None:
    disk = RealDisk()
    files = [disk.open(str(tmp_path / str(n)), create=True) for n in range(IN_FLIGHT_MAX)]
    numbers = [kernel.begin(file) for file in files]
    assert kernel.begin(files[0]) is None
    assert len(set(numbers)) == IN_FLIGHT_MAX
    assert sorted(ended(kernel, IN_FLIGHT_MAX), key=lambda each: each[0]) == [
        (number, None) for number in numbers
    ]
    assert kernel.begin(files[0]) is not None
    ended(kernel)
    for file in files:
        file.close()


def test_a_file_may_be_closed_while_it_is_synced(kernel: KernelSync, tmp_path: Path) -> None:
    file = RealDisk().open(str(tmp_path / "file"), create=True)
    file.write_at(0, [b"x" * (1 << 20)])
    number = kernel.begin(file)
    file.close()
    assert ended(kernel) == [(number, None)]


def test_a_failure_of_the_disk_says_which_file_and_what_to_do(
    kernel: KernelSync, tmp_path: Path
) -> None:
    file = RealDisk().open(str(tmp_path / "file"), create=True)
    number = kernel.begin(file)
    assert number is not None
    ended(kernel)
    kernel._paths[number] = file.path
    found, failure = kernel._ended(number, -errno.EIO)
    assert found == number
    assert isinstance(failure, DiskFailed)
    assert failure.path == file.path
    assert "Input/output error" in str(failure)
    assert "dmesg" in str(failure)
    file.close()


def test_what_the_kernel_cannot_sync_is_left_to_a_thread(kernel: KernelSync) -> None:
    reading, writing = os.pipe()

    class Pipe:
        path = "pipe"

        def descriptor(self) -> int:
            return writing

    assert kernel.begin(Pipe()) is None  # type: ignore[arg-type]
    simulated = SimulatedDisk().open("file", create=True)
    assert kernel.begin(simulated) is None
    os.close(reading)
    os.close(writing)


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_sync, "SYSTEM_CALLS", {})
    assert KernelSync.open() is None


def test_without_a_descriptor_for_it_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "eventfd", none_left)
    assert KernelSync.open() is None
