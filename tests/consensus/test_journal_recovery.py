"""What opening makes of a damaged journal: a torn tail is the end, anything that was promised is corruption."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from distlog.consensus.journal import Journal
from distlog.consensus.journal_format import (
    HEADER,
    Operation,
    encode_header,
    encode_vote,
    file_path,
    operation_size,
    padding,
)
from distlog.consensus.journal_recovery import READ_SIZE, durable_sequence_in, read_operations
from distlog.errors import CorruptJournal
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, state


@dataclass
class Sample:
    """A journal at rest, and what it went through."""

    disk: SimulatedDisk
    history: History
    operations: list[Operation]

    @property
    def last_file(self) -> int:
        return self.operations[-1].file_sequence

    def copy(self) -> SimulatedDisk:
        return self.disk.kill()

    def expected(self, damaged: SimulatedDisk) -> int | None:
        """Return the sequence up to which recovery must come, None for CorruptJournal: by comparing bytes."""
        contents = {
            name: (old, contents_of(damaged)[name]) for name, old in contents_of(self.disk).items()
        }
        whole = [
            is_whole(operation, *contents[operation.file_sequence]) for operation in self.operations
        ]
        if all(whole):
            return self.operations[-1].sequence
        bad = self.operations[whole.index(False)]
        beyond = [
            operation.durable_sequence
            for operation, is_there in zip(self.operations, whole, strict=True)
            if is_there and operation.sequence > bad.sequence
        ]
        if bad.file_sequence != self.last_file or max(beyond, default=0) >= bad.sequence:
            return None
        return bad.sequence - 1


def contents_of(disk: SimulatedDisk) -> dict[int, bytes]:
    """Return every journal file's bytes, by its first sequence."""
    contents = {}
    for name in disk.list_directory(DIRECTORY):
        file = disk.open(f"{DIRECTORY}/{name}", writable=False)
        contents[int(name.split(".")[0])] = file.read_at(0, file.size())
    return contents


def is_whole(operation: Operation, old: bytes, new: bytes) -> bool:
    start, end = operation.position, operation.position + HEADER.size + len(operation.payload)
    return old[start:end] == new[start:end]


def sample(*, ticket_sizes: list[int], file_size_max: int = 300) -> Sample:
    """Return a journal of entries of many sizes, votes and truncations, in tickets of so many calls."""
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY, file_size_max=file_size_max))
    number = 0
    for size in ticket_sizes:
        for _ in range(size):
            number += 1
            if number % 5 == 1:
                history.set_term_vote(number, None if number % 2 else "n1")
            elif number % 7 == 0:
                history.truncate_from(history.journal.last_index)
            else:
                history.append(bytes(range(1, number % 11)))
        history.sync()
    return Sample(disk, history, list(read_operations(disk, DIRECTORY)))


SAMPLES = {
    "one ticket": sample(ticket_sizes=[4], file_size_max=10_000),
    "small tickets in one file": sample(ticket_sizes=[1, 2, 1, 3, 2], file_size_max=10_000),
    "a last file of one ticket": sample(ticket_sizes=[4, 3, 2], file_size_max=170),
    "many files": sample(ticket_sizes=[3, 3, 1, 1, 2, 1, 1]),
}


@pytest.fixture(params=SAMPLES)
def journal(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


def check_opened(journal: Sample, damaged: SimulatedDisk, sequence: int | None) -> Journal | None:
    """Open a damaged journal, and hold it against what must come out."""
    before = contents_of(damaged)
    if sequence is None:
        with pytest.raises(CorruptJournal):
            Journal.open(damaged, DIRECTORY)
        assert contents_of(damaged) == before, "a corrupt journal is kept as it is"
        return None
    opened = Journal.open(damaged, DIRECTORY)
    assert opened.sequence == sequence
    assert state(opened) == journal.history.at(sequence)
    return opened


def check_goes_on(opened: Journal, disk: SimulatedDisk) -> None:
    """Append, and find it behind what was there."""
    history = History(opened)
    for payload in (b"after", b"the crash"):
        history.append(payload)
        history.sync()
    reopened = Journal.open(disk, DIRECTORY)
    assert state(reopened) == history.now
    assert reopened.sequence == opened.sequence


# --- Every byte, every bit ----------------------------------------------------------------------


def test_the_last_file_cut_at_any_byte_ends_with_its_last_whole_operation(journal: Sample) -> None:
    path = file_path(DIRECTORY, journal.last_file)
    for size in range(journal.disk.open(path).size() + 1):
        damaged = journal.copy()
        damaged.open(path).truncate(size)
        sequence = journal.expected(damaged)
        assert sequence is not None, "what follows is gone, and with it the proof"
        if sequence < journal.last_file and journal.last_file > 1:
            assert sequence == journal.last_file - 1
        opened = check_opened(journal, damaged, sequence)
        assert opened is not None
        check_goes_on(opened, damaged)


@pytest.mark.parametrize("filler", [0x00, 0xFF], ids=["zeros", "ones"])
def test_the_last_file_overwritten_from_any_byte_on_ends_with_its_last_whole_operation(
    journal: Sample, filler: int
) -> None:
    path = file_path(DIRECTORY, journal.last_file)
    size = journal.disk.open(path).size()
    for position in range(size):
        damaged = journal.copy()
        damaged.open(path).write_at(position, [bytes([filler]) * (size - position)])
        check_opened(journal, damaged, journal.expected(damaged))


def test_a_file_with_a_successor_was_durable_to_its_end() -> None:
    journal = SAMPLES["many files"]
    for name, content in contents_of(journal.disk).items():
        if name == journal.last_file:
            continue
        for size in range(len(content)):
            damaged = journal.copy()
            damaged.open(file_path(DIRECTORY, name)).truncate(size)
            check_opened(journal, damaged, journal.expected(damaged))


def test_any_flipped_bit_is_found_and_what_was_proven_durable_is_never_dropped(
    journal: Sample,
) -> None:
    outcomes = set()
    for name, content in contents_of(journal.disk).items():
        for bit in range(8 * len(content)):
            position, octet = bit // 8, content[bit // 8] ^ (1 << bit % 8)
            damaged = journal.copy()
            damaged.open(file_path(DIRECTORY, name)).write_at(position, [bytes([octet])])
            sequence = journal.expected(damaged)
            check_opened(journal, damaged, sequence)
            outcomes.add(sequence)
    assert journal.operations[-1].sequence - 1 in outcomes, (
        "the last operation is proven by nothing"
    )
    assert journal.operations[-1].sequence in outcomes, "padding holds nothing"


def test_any_operation_wiped_out_in_the_middle_is_judged_by_what_lies_beyond(
    journal: Sample,
) -> None:
    for operation in journal.operations:
        damaged = journal.copy()
        path = file_path(DIRECTORY, operation.file_sequence)
        wiped = bytes(HEADER.size + len(operation.payload))
        damaged.open(path).write_at(operation.position, [wiped])
        check_opened(journal, damaged, journal.expected(damaged))


def test_a_wiped_operation_is_corruption_if_a_later_ticket_says_that_it_was_durable() -> None:
    journal = SAMPLES["small tickets in one file"]
    durable = journal.operations[-1].durable_sequence
    for operation in journal.operations:
        damaged = journal.copy()
        damaged.open(file_path(DIRECTORY, 1)).write_at(operation.position + 8, [b"\xff" * 8])
        # The last operation cannot prove anything of itself, nor of its own ticket.
        if operation.sequence <= durable:
            with pytest.raises(CorruptJournal, match=f"operation {operation.sequence}, which was"):
                Journal.open(damaged, DIRECTORY)
        else:
            assert Journal.open(damaged, DIRECTORY).sequence == operation.sequence - 1


# --- Proof from elsewhere -----------------------------------------------------------------------


def test_what_the_checkpoint_proves_must_be_there(journal: Sample) -> None:
    last = journal.operations[-1].sequence
    assert Journal.open(journal.copy(), DIRECTORY, proven_sequence=last).sequence == last
    with pytest.raises(CorruptJournal, match=f"operation {last + 1}, which was durable"):
        Journal.open(journal.copy(), DIRECTORY, proven_sequence=last + 1)
    damaged = journal.copy()
    path = file_path(DIRECTORY, journal.last_file)
    damaged.open(path).truncate(journal.operations[-1].position)
    assert Journal.open(damaged.kill(), DIRECTORY, proven_sequence=last - 1).sequence == last - 1
    check_opened(journal, damaged.kill(), last - 1)
    with pytest.raises(CorruptJournal, match=f"operation {last}, which was durable"):
        Journal.open(damaged, DIRECTORY, proven_sequence=last)


def test_a_journal_without_files_is_corrupt_if_a_checkpoint_knows_of_one() -> None:
    with pytest.raises(CorruptJournal, match="files are missing"):
        Journal.open(SimulatedDisk(), DIRECTORY, proven_sequence=1)


def test_a_missing_file_is_corruption_unless_it_is_the_first_or_the_last() -> None:
    journal = SAMPLES["many files"]
    names = list(contents_of(journal.disk))
    assert len(names) > 2
    for name in names[1:-1]:
        damaged = journal.copy()
        damaged.remove(file_path(DIRECTORY, name))
        with pytest.raises(CorruptJournal, match=f"operation {name}, which was durable"):
            Journal.open(damaged, DIRECTORY)


def test_the_first_operation_behind_removed_files_was_durable() -> None:
    journal = SAMPLES["many files"]
    damaged = journal.copy()
    for name in contents_of(damaged):
        if name != journal.last_file:
            damaged.remove(file_path(DIRECTORY, name))
    assert Journal.open(damaged.kill(), DIRECTORY).term == journal.history.now.term
    damaged.open(file_path(DIRECTORY, journal.last_file)).truncate(20)
    with pytest.raises(CorruptJournal):
        Journal.open(damaged, DIRECTORY)


# --- Torn tails ---------------------------------------------------------------------------------


def torn(operation_count: int) -> tuple[SimulatedDisk, History]:
    """Return a journal whose last ticket, of so many entries, lost its first operation."""
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    history.append(b"promised")
    history.sync()
    size = history.journal.size
    for _ in range(operation_count):
        history.append(b"not promised")
    history.sync()
    disk.open(file_path(DIRECTORY, 1)).write_at(size, [b"\0" * 8])
    return disk, history


def test_a_torn_tail_is_told_and_left_where_it_is_and_never_read_again() -> None:
    disk, _ = torn(3)
    before = contents_of(disk)[1]
    opened = Journal.open(disk, DIRECTORY)
    assert [entry.payload for entry in opened.entries(1, opened.last_index + 1)] == [b"promised"]
    (note,) = opened.recovery
    assert "192 bytes, from 112 on" in note
    assert "ignored" in note
    history = History(opened)
    for _ in range(3):
        history.append(b"new")
        history.sync()
        reopened = Journal.open(disk, DIRECTORY)
        assert state(reopened) == history.now
        assert reopened.recovery == []
    assert contents_of(disk)[1] == before


def test_a_last_file_without_a_whole_operation_is_removed_and_its_name_used_again() -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    disk.open(file_path(DIRECTORY, 1), create=True).write_at(0, [b"\x32\0\0\0torn"])
    opened = Journal.open(disk, DIRECTORY)
    assert (len(opened), opened.sequence) == (0, 0)
    assert "8 bytes, from 0 on" in opened.recovery[0]
    assert "removed" in opened.recovery[1]
    check_goes_on(opened, disk)
    assert list(contents_of(disk)) == [1]


@pytest.mark.seeds(10)
def test_what_a_killed_process_left_in_the_page_cache_is_durable_after_opening(seed: int) -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    history.append(bytes(20_000))
    disk.hook = kill_before_sync
    with pytest.raises(Killed):
        history.sync()
    disk = disk.kill()
    opened = Journal.open(disk, DIRECTORY)
    assert opened.durable_index == 1
    assert state(Journal.open(disk.crash(Random(seed)), DIRECTORY)) == history.now


class Killed(Exception):
    """The process ended here."""


def kill_before_sync(operation: str, path: str) -> None:
    if operation == "sync":
        raise Killed


def test_other_files_in_the_directory_are_left_alone_and_told() -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    for name in ("1.journal", "00000000000000000000.journal", "notes.txt"):
        disk.open(f"{DIRECTORY}/{name}", create=True)
    opened = Journal.open(disk, DIRECTORY)
    assert len(opened.recovery) == 3
    assert all(
        sentence.endswith("is not a journal file: left alone") for sentence in opened.recovery
    )
    assert len(disk.list_directory(DIRECTORY)) == 3


def test_reading_the_operations_changes_nothing_and_stops_at_the_torn_tail() -> None:
    disk, _ = torn(2)
    calls: set[str] = set()
    disk.hook = lambda operation, path: calls.add(operation)
    assert [operation.sequence for operation in read_operations(disk, DIRECTORY)] == [1, 2]
    assert calls == {"open", "read"}


def test_operations_are_read_whole_wherever_a_read_ends() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    size = operation_size(2)
    for gap in range(0, 2 * HEADER.size, 8):
        # The next header starts `gap` bytes before a multiple of what is read at once.
        filler = -(size + HEADER.size + gap) % READ_SIZE
        history.append(bytes(filler))
        size += operation_size(filler)
        history.append(b"x" * 100)
        size += operation_size(100)
    history.append(bytes(3 * READ_SIZE))
    history.append(b"last")
    history.sync()
    assert state(Journal.open(disk, DIRECTORY)) == history.now


# --- Whole operations that do not fit -----------------------------------------------------------


def written(*operations: tuple[int, int, int, int, int, bytes], previous: int = 0) -> SimulatedDisk:
    """Return a disk with one journal file: (kind, sequence, durable sequence, index, term, payload), chained."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    parts = []
    for operation in operations:
        header, previous = encode_header(*operation, previous)
        parts += [header, operation[-1], padding(len(operation[-1]))]
    disk.open(file_path(DIRECTORY, 1), create=True).write_at(0, parts)
    return disk


VOTE = (3, 1, 0, 0, 1, encode_vote("n1"))


@pytest.mark.parametrize(
    ("operations", "problem"),
    [
        ([VOTE, (1, 3, 0, 1, 1, b"")], "operation 3 follows 1"),
        ([VOTE, (1, 2, 2, 1, 1, b"")], "durable before it was written"),
        ([VOTE, (4, 2, 0, 1, 1, b"")], "kind 4, which is unknown"),
        ([VOTE, (0, 2, 0, 1, 1, b"")], "kind 0, which is unknown"),
        ([VOTE, (257, 2, 0, 1, 1, b"")], "kind 257, which is unknown"),
        ([(1, 1, 0, 1, 1, b"")], "does not begin with term and vote"),
        ([VOTE, (1, 2, 0, 1, 1, b""), (1, 3, 0, 3, 1, b"")], "entry 3 follows entry 1"),
        ([(3, 1, 0, 0, 1, b"\x01")], "a vote without a size"),
        ([(3, 1, 0, 0, 1, b"\x03\0n1")], "a vote of another size"),
        ([(3, 1, 0, 0, 1, b"\xff\xffn1")], "a vote of another size"),
        ([(3, 1, 0, 0, 1, b"\x01\0\xff")], "invalid start byte"),
    ],
)
def test_a_whole_operation_that_does_not_fit_is_corruption(
    operations: list[tuple[int, int, int, int, int, bytes]], problem: str
) -> None:
    disk = written(*operations)
    before = contents_of(disk)
    with pytest.raises(CorruptJournal, match=problem):
        Journal.open(disk, DIRECTORY)
    assert contents_of(disk) == before


def test_an_operation_with_another_predecessor_is_corruption() -> None:
    with pytest.raises(CorruptJournal, match="another predecessor"):
        Journal.open(written(VOTE, previous=5), DIRECTORY)


def test_an_operation_larger_than_the_limit_is_not_believed() -> None:
    header = bytearray(encode_header(1, 2, 0, 1, 1, b"", 0)[0])
    header[0:4] = (1 << 31).to_bytes(4, "little")
    disk = written(VOTE)
    file = disk.open(file_path(DIRECTORY, 1))
    file.write_at(file.size(), [header])
    opened = Journal.open(disk, DIRECTORY)
    assert opened.sequence == 1
    assert "no operation has 2147483648 bytes" in opened.recovery[0]


# --- The proof in a tail ------------------------------------------------------------------------


def encoded(sequence: int, durable_sequence: int, payload: bytes) -> bytes:
    header, _ = encode_header(1, sequence, durable_sequence, 1, 1, payload, 0)
    return header + payload + padding(len(payload))


def test_a_tail_proves_what_its_whole_operations_carry() -> None:
    torn_one = bytes(operation_size(0))
    assert durable_sequence_in(b"", 10) == 0
    assert durable_sequence_in(torn_one, 10) == 0
    assert durable_sequence_in(torn_one + encoded(12, 10, b"x"), 10) == 10
    assert durable_sequence_in(torn_one + encoded(12, 11, b"x"), 10) == 11
    assert durable_sequence_in(torn_one + encoded(12, 11, b"x")[:-8], 10) == 0
    two = torn_one + encoded(12, 10, b"x") + bytes(64) + encoded(14, 13, b"y")
    assert durable_sequence_in(two, 10) == 13


def test_what_looks_like_an_operation_inside_a_payload_proves_nothing() -> None:
    imitation = encoded(12, 11, b"")
    tail = bytes(operation_size(0)) + encoded(12, 10, b"12345678" + imitation)
    assert durable_sequence_in(tail, 10) == 10


def test_a_sequence_that_the_bytes_before_cannot_hold_proves_nothing() -> None:
    gap = bytes(operation_size(0))
    assert durable_sequence_in(gap + encoded(13, 11, b""), 10) == 0
    assert durable_sequence_in(2 * gap + encoded(13, 11, b""), 10) == 11
