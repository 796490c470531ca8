"""Every byte and every bit of a small journal: damage before what is proven durable is refused, damage after it is the end."""

from __future__ import annotations

from dataclasses import dataclass

from distlog.consensus.journal import Journal
from distlog.consensus.journal_format import Operation, file_path, operation_size
from distlog.consensus.journal_recovery import read_operations
from distlog.errors import CorruptJournal
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, state
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import content, cut, files_of, flipped, torn


@dataclass
class Small:
    """A small journal of several files, with what nobody reads in it."""

    disk: SimulatedDisk
    history: History
    operations: list[Operation]
    # What something else knows to be durable: a checkpoint.
    proven_sequence: int

    def operation_at(self, path: str, position: int) -> Operation | None:
        """Return the operation that a byte belongs to; None for padding and the tail of an earlier crash."""
        for operation in self.operations:
            if path == file_path(DIRECTORY, operation.file_sequence):
                offset = position - operation.position
                if 0 <= offset < 48 + len(operation.payload):
                    return operation
        return None

    def proves_durable(self, operation: Operation) -> bool:
        """Tell whether anything but the operation itself says that it was durable."""
        last_file = self.operations[-1].file_sequence
        if operation.file_sequence < last_file:
            return True
        later = [other for other in self.operations if other.sequence > operation.sequence]
        return operation.sequence <= max(
            self.proven_sequence, *(other.durable_sequence for other in later), 0
        )


def small_journal(proven_sequence: int) -> Small:
    """Return a journal of a file with a torn tail, one with a truncation in it, and the last."""
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    history.set_term_vote(1, "n1")
    history.append(b"first")
    history.sync()
    history.append(b"this one was being written when the power went")
    history.sync()
    torn_path = file_path(DIRECTORY, 1)
    disk = cut(disk, torn_path, len(content(disk, torn_path)) - 10)
    history = History(Journal.open(disk, DIRECTORY, file_size_max=180))
    history.append(b"second!!")
    history.append(b"to be truncated")
    history.truncate_from(3)
    history.set_term_vote(2, None)
    history.sync()
    history.append(b"third")
    history.sync()
    history.append(b"fourth")
    history.sync()
    history.append(b"not proven durable")
    history.sync()
    return Small(disk, history, list(read_operations(disk.kill(), DIRECTORY)), proven_sequence)


def check(small: Small, disk: SimulatedDisk, path: str, position: int, *, is_cut: bool) -> str:
    """Open a journal that is damaged from a byte on, or there only; return what that byte was."""
    operation = small.operation_at(path, position)
    files = files_of(disk, DIRECTORY)
    lost = operation
    if operation is None and is_cut:
        # What follows in the file is gone as well.
        file_sequence = int(path.rpartition("/")[2].partition(".")[0])
        lost = next(
            (
                other
                for other in small.operations
                if other.file_sequence == file_sequence and other.position >= position
            ),
            None,
        )
    journal, refusal = None, ""
    try:
        journal = Journal.open(disk, DIRECTORY, proven_sequence=small.proven_sequence)
    except CorruptJournal as error:
        refusal = str(error)
    if journal is None:
        assert lost is not None, f"{path} at {position}: {refusal}"
        assert small.proves_durable(lost), f"{path} at {position}: {refusal}"
        assert path in refusal
        assert files_of(disk, DIRECTORY) == files, "what is left is evidence"
        return "refused"
    if lost is None:
        assert state(journal) == small.history.now
        return "nothing"
    assert not small.proves_durable(lost), f"{path} at {position}: cut away in silence"
    assert journal.sequence == lost.sequence - 1
    assert state(journal) == small.history.at(journal.sequence)
    is_clean_end = is_cut and position <= lost.position
    assert journal.recovery or is_clean_end, "it ends before where it did, and does not say so"
    return "end"


def small_journals() -> list[Small]:
    small = small_journal(0)
    return [small, small_journal(small.operations[-1].sequence)]


def test_every_flipped_bit_is_found_out_unless_it_means_nothing(tally: CrashTally) -> None:
    kinds = {
        "refused": "bit flipped in what is proven durable",
        "end": "bit flipped in what nothing proves: the end, and said",
        "nothing": "bit flipped where bytes mean nothing",
    }
    meaningless = 0
    for small in small_journals():
        for path, data in files_of(small.disk, DIRECTORY).items():
            for position in range(len(data)):
                # With a checkpoint's proof, bit by bit along the bytes.
                bits = range(8) if tally.full or not small.proven_sequence else (position % 8,)
                meaningless += len(bits) * (small.operation_at(path, position) is None)
                for bit in bits:
                    disk = flipped(small.disk, path, position, bit)
                    found = check(small, disk, path, position, is_cut=False)
                    tally.count("journal", kinds[found])
    assert tally.cases("journal", kinds["nothing"]) == meaningless
    tally.require("journal", kinds["refused"], 5_000)
    tally.require("journal", kinds["end"], 400)
    # Padding, and the torn tail of an earlier crash in a file that has a successor.
    padding = sum(
        operation_size(len(operation.payload)) - 48 - len(operation.payload)
        for operation in small_journals()[0].operations
    )
    assert meaningless > 8 * padding > 0


def test_a_file_that_ends_or_is_torn_at_any_byte_is_found_out(tally: CrashTally) -> None:
    kind = "every file cut, and torn, at every byte"
    for small in small_journals():
        for path, data in files_of(small.disk, DIRECTORY).items():
            for position in range(len(data)):
                check(small, cut(small.disk, path, position), path, position, is_cut=True)
                tally.count("journal", kind)
                disk = torn(small.disk, path, position, b"")
                if content(disk, path) != data:
                    first = next(k for k in range(len(data)) if content(disk, path)[k] != data[k])
                    check(small, disk, path, first, is_cut=True)
                    tally.count("journal", kind)
    tally.require("journal", kind, 2_000)


def test_a_missing_file_is_found_out(tally: CrashTally) -> None:
    for small in small_journals():
        paths = list(files_of(small.disk, DIRECTORY))
        for path in paths:
            disk = small.disk.kill()
            disk.remove(path)
            lost = next(
                operation
                for operation in small.operations
                if path == file_path(DIRECTORY, operation.file_sequence)
            )
            before = files_of(disk, DIRECTORY)
            try:
                journal = Journal.open(disk, DIRECTORY, proven_sequence=small.proven_sequence)
            except CorruptJournal:
                assert files_of(disk, DIRECTORY) == before
            else:
                # The first files may have been compacted, the last may never have had a name.
                assert path == paths[0] or not small.proves_durable(lost)
                assert set(state(journal).entries) <= set(small.history.now.entries)
            tally.count("journal", "each file missing")
