"""What the journal keeps in memory, and how the rest comes back from its files."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import pytest

from distlog.consensus.journal import Journal
from distlog.consensus.journal_entries import CHUNK_SIZE
from distlog.consensus.journal_format import operation_size
from distlog.errors import CorruptJournal, DiskFailed
from distlog.storage.disk import RealDisk
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, state, sync

FIRST_FILE = f"{DIRECTORY}/00000000000000000001.journal"
VOTE_SIZE = operation_size(2)


def test_payloads_that_left_the_cache_are_read_back() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY, file_size_max=5000, cache_size_max=3000))
    for number in range(310):
        history.append(b"%d" % number * 10)
        if number % 7 == 6:
            history.sync()
        if number % 50 == 49:
            history.truncate_from(history.journal.last_index - 20)
    history.sync()
    reads: list[str] = []
    disk.hook = lambda operation, path: reads.append(operation)
    assert state(history.journal) == history.now
    assert reads.count("read") > 50
    reads.clear()
    assert history.journal.entry(history.journal.last_index) == history.now.entries[-1]
    assert reads == [], "the newest entries are in memory"


def test_entries_that_are_not_durable_never_leave_memory() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, cache_size_max=0)
    for raft_index in range(1, 100):
        journal.append(bytes(1000), raft_index, 1)
    ticket = journal.begin_sync()
    assert ticket is not None
    disk.fail_at = disk.operation_count + 1
    assert len(journal.entries(1, 100)) == 99
    disk.fail_at = None
    ticket.run()
    journal.finish_sync(ticket)
    journal.append(b"new", 100, 1)
    disk.fail_at = disk.operation_count + 1
    assert journal.entry(100) == (b"new", 100, 1)
    with pytest.raises(DiskFailed):
        journal.entry(1)


def test_a_payload_that_rotted_on_the_disk_is_not_handed_out() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, cache_size_max=0)
    journal.append(b"abcdefgh", 1, 1)
    sync(journal)
    disk.open(FIRST_FILE).write_at(VOTE_SIZE + 48, [b"X"])
    with pytest.raises(CorruptJournal, match="entry 1 cannot be read back"):
        journal.entry(1)


def test_an_entry_in_the_place_of_another_is_not_handed_out() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, cache_size_max=0)
    for raft_index in (1, 2):
        journal.append(b"abcdefgh", raft_index, 1)
    sync(journal)
    file = disk.open(FIRST_FILE)
    file.write_at(VOTE_SIZE, [file.read_at(VOTE_SIZE + 56, 56)])
    with pytest.raises(CorruptJournal, match="entry 2 is where entry 1 was written"):
        journal.entry(1)


def test_few_files_are_open_however_many_are_read_back() -> None:
    disk = RecordingDisk()
    journal = Journal.open(disk, DIRECTORY, file_size_max=1, cache_size_max=0)
    for raft_index in range(1, 51):
        journal.append(b"x", raft_index, 1)
    sync(journal)
    assert [entry.raft_index for entry in journal.entries(1, 51)] == list(range(1, 51))
    assert disk.open_count <= 5
    journal.close()
    assert disk.open_count == 0


class RecordingDisk(SimulatedDisk):
    """Counts the files that are open."""

    open_count = 0

    def open(self, path: str, *, create: bool = False, writable: bool = True):  # type: ignore[no-untyped-def]
        file = super().open(path, create=create, writable=writable)
        self.open_count += 1

        def close() -> None:
            self.open_count -= 1

        file.close = close  # type: ignore[method-assign]
        return file


def test_memory_stays_flat_over_200_000_entries_appended_and_compacted(tmp_path: Path) -> None:
    disk = RealDisk()
    journal = Journal.open(
        disk, str(tmp_path / "journal"), file_size_max=1 << 20, cache_size_max=1 << 16
    )
    try:
        for raft_index in range(1, 200_001):
            # What lives at the end was allocated in the last fifth, and the rest of it is gone.
            if raft_index == 160_001:
                tracemalloc.start()
            journal.append(b"%0100d" % raft_index, raft_index, 1)
            if raft_index % 2000 == 0:
                sync(journal)
                remove = journal.compact(raft_index - 3 * CHUNK_SIZE // 2)
                if remove is not None:
                    remove()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # The cache, three chunks of columns and the files: not 24 bytes more for an entry that went.
    assert size < 40_000 * 12
    assert journal.size < 3 << 20
    assert len(disk.list_directory(str(tmp_path / "journal"))) < 4
    journal.close()
