"""The journal in use: what it holds, what is durable when, and which files it keeps."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from distlog.consensus.journal import Journal, JournalEntry, SyncTicket
from distlog.consensus.journal_format import PAYLOAD_SIZE_MAX, operation_size
from distlog.consensus.journal_recovery import read_operations
from distlog.errors import DescriptorsExhausted, DiskFailed, StorageFull
from distlog.storage.disk import RealDisk
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, state, sync

FIRST_FILE = f"{DIRECTORY}/00000000000000000001.journal"
VOTE_SIZE = operation_size(2)

# Sequence by sequence: what an empty journal writes for term 3 and a vote for n1, entries 1 ("hello") and 2 (empty), a
# sync, and the removal of entry 2.
GOLDEN = """
32000000 a3d369d8 00000000 03000000 0100000000000000 0000000000000000 0000000000000000 0000000000000000 ffff 000000000000
34000000 950c41a1 a3d369d8 03000000 0200000000000000 0000000000000000 0000000000000000 0300000000000000 02006e31 00000000
35000000 635e8a78 950c41a1 01000000 0300000000000000 0000000000000000 0100000000000000 0300000000000000 68656c6c6f 000000
30000000 4d6fe719 635e8a78 01000000 0400000000000000 0000000000000000 0200000000000000 0300000000000000
30000000 6d6bfa5c 4d6fe719 02000000 0500000000000000 0400000000000000 0200000000000000 0000000000000000
"""


def test_each_kind_of_operation_is_written_to_the_byte_as_documented() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY)
    journal.set_term_vote(3, "n1")
    journal.append(b"hello", 1, 3)
    journal.append(b"", 2, 3)
    sync(journal)
    journal.truncate_from(2)
    sync(journal)
    assert disk.list_directory(DIRECTORY) == ["00000000000000000001.journal"]
    file = disk.open(FIRST_FILE)
    assert file.read_at(0, file.size()) == bytes.fromhex(GOLDEN)


def test_the_example_in_the_description_of_the_format_is_what_is_written() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY)
    journal.set_term_vote(3, "n1")
    journal.append(b"hello", 1, 3)
    sync(journal)
    journal.truncate_from(1)
    sync(journal)
    page = Path(__file__).parents[2] / "docs" / "format-journal.md"
    example = page.read_text("utf-8").split("```")[1]
    file = disk.open(FIRST_FILE)
    assert file.read_at(0, file.size()) == bytes.fromhex(example)


def test_a_new_journal_makes_its_directory_and_is_empty() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY)
    assert disk.exists(DIRECTORY)
    assert (len(journal), journal.first_index, journal.last_index) == (0, 0, 0)
    assert (journal.term, journal.vote, journal.vote_sequence) == (0, None, 0)
    assert (journal.sequence, journal.durable_sequence, journal.durable_index) == (0, 0, 0)
    assert journal.recovery == []
    assert journal.begin_sync() is None
    assert journal.size == 0


def test_entries_are_there_at_once_and_compare_equal_to_plain_tuples() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    journal.append(b"a", 7, 1)
    journal.append(b"b", 8, 2)
    assert journal.entry(8) == (b"b", 8, 2)
    assert journal.entries(7, 9) == [(b"a", 7, 1), (b"b", 8, 2)]
    assert journal.entries(8, 8) == []
    assert (journal.first_index, journal.last_index, len(journal)) == (7, 8, 2)
    assert [journal.term_at(index) for index in (6, 7, 8, 9)] == [None, 1, 2, None]


def test_entries_term_and_vote_are_there_after_reopening(tmp_path: Path) -> None:
    directory = str(tmp_path / "journal")
    history = History(Journal.open(RealDisk(), directory, file_size_max=2000))
    for number in range(100):
        history.append(b"%d" % number * number)
        if number % 10 == 5:
            history.set_term_vote(number, None if number % 20 == 5 else "n2")
            history.truncate_from(history.journal.last_index - 2)
            history.sync()
    history.sync()
    history.journal.close()
    reopened = Journal.open(RealDisk(), directory, cache_size_max=3000)
    assert state(reopened) == history.now
    assert reopened.sequence == reopened.durable_sequence == history.journal.sequence
    assert reopened.durable_index == history.journal.last_index
    assert reopened.vote_sequence <= reopened.sequence
    assert reopened.size == history.journal.size
    assert reopened.recovery == []
    reopened.close()


def test_opening_writes_no_file_and_the_first_operation_after_it_begins_one() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    history.append(b"before")
    history.sync()
    reopened = History(Journal.open(disk, DIRECTORY))
    assert len(disk.list_directory(DIRECTORY)) == 1
    reopened.append(b"after")
    reopened.sync()
    assert disk.list_directory(DIRECTORY) == [
        "00000000000000000001.journal",
        "00000000000000000003.journal",
    ]
    assert state(Journal.open(disk, DIRECTORY)) == reopened.now


def test_an_entry_must_follow_the_last_one() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    journal.append(b"", 5, 1)
    for raft_index in (4, 5, 7):
        with pytest.raises(AssertionError):
            journal.append(b"", raft_index, 1)
    assert journal.last_index == 5


def test_a_payload_has_up_to_64_mib() -> None:
    payload = bytes(PAYLOAD_SIZE_MAX)
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY)
    with pytest.raises(AssertionError):
        journal.append(payload + b"x", 1, 1)
    journal.append(payload, 1, 1)
    journal.append(b"behind it", 2, 1)
    sync(journal)
    reopened = Journal.open(disk, DIRECTORY, cache_size_max=0)
    assert reopened.entry(1).payload == payload
    assert reopened.entry(2).payload == b"behind it"
    assert len(disk.list_directory(DIRECTORY)) == 2


def test_setting_the_same_term_and_vote_writes_nothing() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    journal.set_term_vote(0, None)
    assert journal.sequence == 0
    journal.set_term_vote(4, "n1")
    sequence = journal.vote_sequence
    assert sequence == journal.sequence
    journal.set_term_vote(4, "n1")
    assert journal.sequence == sequence
    with pytest.raises(AssertionError):
        journal.set_term_vote(3, None)


# --- Truncation and durability ------------------------------------------------------------------


def begin(journal: Journal) -> SyncTicket:
    ticket = journal.begin_sync()
    assert ticket is not None
    return ticket


def test_nothing_is_durable_before_its_sync_has_finished() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    journal.append(b"a", 1, 1)
    ticket = begin(journal)
    journal.append(b"b", 2, 1)
    assert (journal.durable_sequence, journal.durable_index) == (0, 0)
    ticket.run()
    assert (journal.durable_sequence, journal.durable_index) == (0, 0)
    journal.finish_sync(ticket)
    assert (journal.durable_sequence, journal.durable_index) == (ticket.sequence, 1)
    assert journal.sequence == ticket.sequence + 1
    sync(journal)
    assert (journal.durable_sequence, journal.durable_index) == (journal.sequence, 2)


def test_one_sync_is_under_way_at_a_time() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    journal.append(b"a", 1, 1)
    ticket = begin(journal)
    journal.append(b"b", 2, 1)
    with pytest.raises(AssertionError):
        journal.begin_sync()
    ticket.run()
    journal.finish_sync(ticket)
    with pytest.raises(AssertionError):
        journal.finish_sync(ticket)


def test_an_entry_replaced_during_a_sync_is_not_durable_when_that_sync_ends() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    for raft_index in (1, 2, 3):
        journal.append(b"old", raft_index, 1)
    ticket = begin(journal)
    journal.truncate_from(2)
    journal.append(b"new", 2, 2)
    journal.append(b"new", 3, 2)
    ticket.run()
    journal.finish_sync(ticket)
    assert journal.durable_index == 1
    sync(journal)
    assert journal.durable_index == 3


def test_truncation_lowers_what_is_durable_at_once() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    for raft_index in (1, 2, 3):
        journal.append(b"old", raft_index, 1)
    sync(journal)
    journal.truncate_from(3)
    assert journal.durable_index == 2
    journal.append(b"new", 3, 2)
    assert journal.durable_index == 2
    journal.truncate_from(1)
    assert (len(journal), journal.last_index, journal.durable_index) == (0, 0, 0)


def test_only_entries_that_exist_are_truncated() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY)
    with pytest.raises(AssertionError):
        journal.truncate_from(1)
    journal.append(b"", 5, 1)
    for raft_index in (4, 6):
        with pytest.raises(AssertionError):
            journal.truncate_from(raft_index)


def test_an_emptied_journal_takes_any_index_and_older_files_bring_nothing_back() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    for _ in range(10):
        history.append(b"x")
    history.sync()
    # Entries 1 to 5 are forgotten, but their file stays.
    assert history.journal.compact(6) is None
    history.truncate_from(6)
    history.append(b"far on", raft_index=500)
    history.sync()
    assert state(Journal.open(disk, DIRECTORY)).entries == (JournalEntry(b"far on", 500, 0),)


# --- Files --------------------------------------------------------------------------------------


def test_each_operation_begins_on_eight_bytes_and_each_file_with_term_and_vote() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY, file_size_max=400))
    history.set_term_vote(3, "n1")
    for size in range(30):
        history.append(bytes(size))
    history.sync()
    operations = list(read_operations(disk, DIRECTORY))
    assert [operation.sequence for operation in operations] == list(range(1, len(operations) + 1))
    assert all(operation.position % 8 == 0 for operation in operations)
    firsts = [operation for operation in operations if operation.position == 0]
    assert len(firsts) == len(disk.list_directory(DIRECTORY)) > 3
    assert {operation.kind for operation in firsts} == {3}
    assert {(operation.term, operation.payload) for operation in firsts[1:]} == {(3, b"\x02\0n1")}
    # A file ends with the operation that reaches the limit, none is split, and `size` counts every byte.
    sizes = [disk.open(f"{DIRECTORY}/{name}").size() for name in disk.list_directory(DIRECTORY)]
    assert all(400 <= size < 400 + operation_size(30) for size in sizes[:-1])
    assert history.journal.size == sum(sizes)


def test_a_restated_vote_holds_nothing_up() -> None:
    journal = Journal.open(SimulatedDisk(), DIRECTORY, file_size_max=1)
    journal.set_term_vote(3, "n1")
    sequence = journal.vote_sequence
    for raft_index in range(1, 5):
        journal.append(b"", raft_index, 3)
    assert journal.vote_sequence == sequence


def test_one_ticket_writes_once_and_syncs_once() -> None:
    operations: list[str] = []
    disk = SimulatedDisk(hook=lambda operation, path: operations.append(operation))
    journal = Journal.open(disk, DIRECTORY)
    journal.append(b"first", 1, 1)
    sync(journal)
    operations.clear()
    for raft_index in range(2, 5000):
        journal.append(bytes(raft_index), raft_index, 1)
    ticket = begin(journal)
    assert operations == [], "begin_sync does not touch the disk"
    ticket.run()
    journal.finish_sync(ticket)
    assert operations == ["write", "sync"]


def test_a_file_is_synced_and_the_next_has_a_durable_name_before_it_is_written() -> None:
    operations: list[str] = []
    disk = SimulatedDisk(hook=lambda operation, path: operations.append(operation))
    journal = Journal.open(disk, DIRECTORY, file_size_max=VOTE_SIZE + 1)
    operations.clear()
    for raft_index in (1, 2):
        journal.append(b"", raft_index, 1)
    sync(journal)
    assert operations == ["open", "sync directory", "write", "sync"] * 2


@pytest.mark.parametrize("operation_number", range(1, 5))
def test_after_a_refused_disk_operation_nothing_can_be_synced_any_more(
    operation_number: int,
) -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY)
    journal.append(b"promised to nobody", 1, 1)
    ticket = begin(journal)
    disk.fail_at = disk.operation_count + operation_number
    with pytest.raises(DiskFailed):
        ticket.run()
    assert (journal.durable_sequence, journal.durable_index) == (0, 0)
    with pytest.raises(AssertionError):
        journal.begin_sync()
    journal.close()


def test_a_full_disk_is_said_and_what_was_durable_stays() -> None:
    disk = SimulatedDisk(capacity=10_000)
    journal = Journal.open(disk, DIRECTORY)
    journal.append(bytes(5000), 1, 1)
    sync(journal)
    journal.append(bytes(5000), 2, 1)
    ticket = begin(journal)
    with pytest.raises(StorageFull):
        ticket.run()
    assert journal.durable_index == 1
    assert Journal.open(disk.kill(), DIRECTORY).entries(1, 2) == [(bytes(5000), 1, 1)]


@pytest.mark.parametrize("left", range(0, 12_000, 500))
def test_a_sync_that_found_no_space_goes_on_where_it_was(left: int) -> None:
    """Wherever it stopped: between two files, or before a part of one."""
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, file_size_max=4000)
    history = History(journal)
    history.set_term_vote(1, "n1")
    history.append(b"first")
    history.sync()
    for number in range(4):
        history.append(bytes([number]) * 2500)
    disk.capacity = disk.used + left
    ticket = begin(journal)
    while True:
        try:
            ticket.run()
            break
        except StorageFull:
            disk.capacity += 700
    journal.finish_sync(ticket)
    assert journal.durable_sequence == journal.sequence
    for seed in range(5):
        recovered = Journal.open(disk.crash(Random(seed)), DIRECTORY, file_size_max=4000)
        history.check_recovered(recovered, durable_sequence=journal.sequence)


@pytest.mark.parametrize("refused", ["open", "sync directory"])
def test_a_sync_that_found_no_descriptor_goes_on_where_it_was(refused: str) -> None:
    """Also the name of the new file is durable then, whichever of the two was refused."""
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, file_size_max=4000)
    history = History(journal)
    history.set_term_vote(1, "n1")
    for number in range(3):
        history.append(bytes([number]) * 2500)
    refusals = 2

    def hook(operation: str, path: str) -> None:
        nonlocal refusals
        if operation == refused and refusals:
            refusals -= 1
            raise DescriptorsExhausted(path=path)

    disk.hook = hook
    ticket = begin(journal)
    for _ in range(2):
        with pytest.raises(DescriptorsExhausted):
            ticket.run()
    ticket.run()
    journal.finish_sync(ticket)
    for seed in range(10):
        recovered = Journal.open(disk.crash(Random(seed)), DIRECTORY, file_size_max=4000)
        history.check_recovered(recovered, durable_sequence=journal.sequence)


# --- Compaction ---------------------------------------------------------------------------------


def filled(disk: SimulatedDisk, count: int) -> Journal:
    """Return a journal with entries 1 to `count`, two in a file, all durable."""
    journal = Journal.open(disk, DIRECTORY, file_size_max=VOTE_SIZE + 2 * operation_size(1))
    journal.set_term_vote(2, "n3")
    for raft_index in range(1, count + 1):
        journal.append(b"x", raft_index, 2)
    sync(journal)
    return journal


def test_compaction_keeps_the_entry_that_it_names_and_removes_whole_files_before_it() -> None:
    disk = SimulatedDisk()
    journal = filled(disk, 20)
    files = disk.list_directory(DIRECTORY)
    size = journal.size
    remove = journal.compact(11)
    assert (journal.first_index, journal.last_index, len(journal)) == (11, 20, 10)
    assert journal.term_at(10) is None
    assert remove is not None
    assert disk.list_directory(DIRECTORY) == files, "nothing is removed on the loop"
    remove()
    kept = disk.list_directory(DIRECTORY)
    assert kept == files[len(files) - len(kept) :]
    assert journal.size == sum(disk.open(f"{DIRECTORY}/{name}").size() for name in kept) < size
    reopened = Journal.open(disk, DIRECTORY)
    assert reopened.entries(11, 21) == journal.entries(11, 21)
    assert reopened.first_index in (10, 11)
    assert (reopened.term, reopened.vote) == (2, "n3")
    assert journal.compact(11) is None


def test_compaction_removes_no_file_before_the_entry_that_it_names_is_durable() -> None:
    disk = SimulatedDisk()
    journal = filled(disk, 1)
    for raft_index in range(2, 10):
        journal.append(b"x", raft_index, 2)
    assert journal.compact(9) is None
    sync(journal)
    remove = journal.compact(9)
    assert remove is not None
    remove()
    assert len(disk.list_directory(DIRECTORY)) == 1
    assert Journal.open(disk, DIRECTORY).entry(9) == (b"x", 9, 2)


def test_compaction_keeps_what_a_truncation_removed_until_the_truncation_is_durable() -> None:
    disk = SimulatedDisk()
    journal = Journal.open(disk, DIRECTORY, file_size_max=1)
    for raft_index in (1, 2, 3):
        journal.append(b"old", raft_index, 1)
    sync(journal)
    journal.truncate_from(2)
    journal.append(b"new", 2, 2)
    assert journal.compact(2) is None
    assert Journal.open(disk.kill(), DIRECTORY).entry(2) == (b"old", 2, 1)


def test_removals_go_in_order_and_one_that_failed_is_taken_up_again() -> None:
    disk = SimulatedDisk()
    journal = filled(disk, 20)
    first, second = journal.compact(11), journal.compact(15)
    assert first is not None
    assert second is not None
    disk.fail_at = disk.operation_count + 2
    with pytest.raises(DiskFailed):
        second()
    assert Journal.open(disk.kill(), DIRECTORY).last_index == 20
    first()
    assert Journal.open(disk.kill(), DIRECTORY).first_index in (14, 15)


def test_only_an_entry_that_exists_can_be_compacted_to() -> None:
    journal = filled(SimulatedDisk(), 3)
    for raft_index in (0, 4):
        with pytest.raises(AssertionError):
            journal.compact(raft_index)
    assert len(journal) == 3
