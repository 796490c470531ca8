"""Small writes of the journal: on the loop, with the sync left to the kernel or to a worker."""

from __future__ import annotations

from random import Random

import pytest

from distlog.consensus.journal import LOOP_WRITE_MAX, Journal, SyncTicket
from distlog.errors import StorageFull
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, sync


def begin(journal: Journal) -> SyncTicket:
    ticket = journal.begin_sync()
    assert ticket is not None
    return ticket


def test_what_is_little_is_written_on_the_loop_and_only_its_sync_is_left() -> None:
    disk, twin = SimulatedDisk(), SimulatedDisk()
    for each, by_loop in ((disk, True), (twin, False)):
        journal = Journal.open(each, DIRECTORY)
        journal.append(b"begins the file", 1, 1)
        ticket = begin(journal)
        assert ticket.write is None, "a new file takes several syncs, in their order"
        ticket.run()
        journal.finish_sync(ticket)
        for raft_index, payload in enumerate((b"small", bytes(5000), b"another"), 2):
            journal.append(payload, raft_index, 1)
        ticket = begin(journal)
        assert ticket.write is not None
        if by_loop:
            file = ticket.write()
            assert Journal.open(each.crash(Random(1)), DIRECTORY).last_index < 4
            file.sync()
        else:
            ticket.run()
        journal.finish_sync(ticket)
        journal.append(bytes(LOOP_WRITE_MAX), 5, 1)
        ticket = begin(journal)
        assert ticket.write is None, "what is large would hold up the loop"
    (path,) = [f"{DIRECTORY}/{name}" for name in disk.list_directory(DIRECTORY)]
    found = [each.open(path, writable=False).read_at(0, 1 << 20) for each in (disk, twin)]
    assert found[0] == found[1]


def test_a_write_on_the_loop_that_found_no_space_is_repeated() -> None:
    disk = SimulatedDisk(capacity=8000)
    journal = Journal.open(disk, DIRECTORY)
    journal.append(b"first", 1, 1)
    sync(journal)
    journal.append(bytes(9000), 2, 1)
    ticket = begin(journal)
    assert ticket.write is not None
    with pytest.raises(StorageFull):
        ticket.write()
    disk.capacity = 1 << 20
    ticket.write().sync()
    journal.finish_sync(ticket)
    assert Journal.open(disk.kill(), DIRECTORY).entries(2, 3) == [(bytes(9000), 2, 1)]
