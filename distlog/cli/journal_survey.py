"""What the journal of a node that does not run says, and whether it fits the checkpoint beside it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from distlog.consensus.checkpoint import CheckpointImage
from distlog.consensus.commands import NO_OP, CreateTopic, Entry, decode_entry
from distlog.consensus.configuration import decode_configuration_entry, is_configuration
from distlog.consensus.journal import JournalEntry
from distlog.consensus.journal_format import Operation, OperationKind, decode_vote, file_path
from distlog.consensus.journal_recovery import OperationReader
from distlog.consensus.recovery import misfit
from distlog.consensus.state_machine import TOPIC_ID_SHIFT
from distlog.errors import CorruptJournal, DiskFailed, EntryCorrupt, EntryUnknown
from distlog.storage.disk import Disk
from distlog.storage.invariants import Fault, Invariant, unreadable
from distlog.storage.segment_scan import Provenance
from distlog.storage.table_scan import Rows


@dataclass(slots=True)
class JournalSurvey:
    """What the journal holds."""

    path: str
    # Of the entry after the last that was forgotten; 0 if there is no entry.
    first_index: int = 0
    # Term of each entry from `first_index` on.
    terms: array[int] = field(default_factory=lambda: array("Q"))
    term: int = 0
    vote: str | None = None
    operation_count: int = 0
    # Of the operations: the first, the last, and up to which one they say that they were durable.
    first_sequence: int = 0
    last_sequence: int = 0
    durable_sequence: int = 0
    # Base names and bytes of the files, oldest first.
    files: list[tuple[str, int]] = field(default_factory=list)
    # Names of the topics that an entry creates, by raft index; in a deep look.
    created: dict[int, list[str]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.terms) - 1 if self.terms else 0

    @property
    def size(self) -> int:
        return sum(size for _, size in self.files)

    def term_at(self, raft_index: int) -> int | None:
        if self.terms and self.first_index <= raft_index <= self.last_index:
            return self.terms[raft_index - self.first_index]
        return None

    def topic_name(self, topic_id: int) -> str | None:
        """Return the name that the creation with this id asks for, if the journal has it."""
        names = self.created.get(topic_id & (1 << TOPIC_ID_SHIFT) - 1, [])
        number = topic_id >> TOPIC_ID_SHIFT
        return names[number] if number < len(names) else None

    def provenance(self, last_applied: int) -> Provenance:
        """Return what finds the rows whose entry was not applied by `last_applied`, or has another term."""
        terms, first = np.array(self.terms, dtype=np.uint64), self.first_index

        def of_nobody(rows: Rows) -> npt.NDArray[np.intp]:
            indexes = rows["raft_index"]
            wrong = indexes > last_applied
            known = np.flatnonzero((indexes >= first) & (indexes < first + len(terms)))
            places = (indexes[known] - np.uint64(first)).astype(np.intp)
            wrong[known] |= terms[places] != rows["term"][known]
            return np.flatnonzero(wrong)

        return of_nobody


def survey_journal(
    disk: Disk, path: str, image: CheckpointImage | None, *, deep: bool
) -> JournalSurvey:
    """Read a journal from its first operation to its last; deep: what the entries hold as well."""
    journal = JournalSurvey(path)
    if not disk.exists(path):
        if image is not None:
            fault = Fault(path, 0, None, "the directory is missing", Invariant.FILE_PRESENT)
            journal.faults.append(fault)
        return journal
    reader = OperationReader(disk, path, image.durable_sequence if image else 0)
    # The entries that the checkpoint has as well, as the journal has them last.
    compared: dict[int, JournalEntry] = {}
    wanted = {image.previous.raft_index, image.raft_index} if image else set()
    try:
        for operation in reader:
            _take(journal, operation)
            if operation.kind == OperationKind.ENTRY:
                if operation.raft_index in wanted:
                    entry = JournalEntry(operation.payload, operation.raft_index, operation.term)
                    compared[operation.raft_index] = entry
                if deep:
                    _look_into(journal, operation)
    except CorruptJournal as error:
        fault = Fault(error.path, error.position, None, error.problem, Invariant.JOURNAL_CHAIN)
        journal.faults.append(fault)
    except DiskFailed as error:
        journal.faults.append(unreadable(error, Invariant.JOURNAL_CHAIN))
    journal.files = [(file_path("", file.first_sequence)[1:], file.size) for file in reader.files]
    journal.notes += reader.notes
    if image is not None and not journal.faults:
        problem = misfit(
            journal.first_index,
            journal.last_index,
            image,
            lambda entry: compared.get(entry.raft_index) == entry,
        )
        if problem:
            journal.faults.append(Fault(path, 0, None, problem, Invariant.JOURNAL_FITS))
    return journal


def _take(journal: JournalSurvey, operation: Operation) -> None:
    """Do to the survey what an operation does to the journal."""
    journal.operation_count += 1
    journal.first_sequence = journal.first_sequence or operation.sequence
    journal.last_sequence = operation.sequence
    journal.durable_sequence = max(journal.durable_sequence, operation.durable_sequence)
    if operation.kind == OperationKind.ENTRY:
        if not journal.terms:
            journal.first_index = operation.raft_index
        elif operation.raft_index != journal.last_index + 1:
            path = file_path(journal.path, operation.file_sequence)
            problem = f"entry {operation.raft_index} follows entry {journal.last_index}"
            raise CorruptJournal(path, operation.position, problem)
        journal.terms.append(operation.term)
    elif operation.kind == OperationKind.TRUNCATE_FROM:
        del journal.terms[max(0, operation.raft_index - journal.first_index) :]
        for raft_index in [each for each in journal.created if each >= operation.raft_index]:
            del journal.created[raft_index]
    else:
        journal.term, journal.vote = operation.term, decode_vote(operation.payload)


def _look_into(journal: JournalSurvey, operation: Operation) -> None:
    """Check what an entry holds, its blocks included, and note the topics that it creates."""
    try:
        entry = entry_of(operation.payload)
    except (EntryCorrupt, EntryUnknown) as error:
        path = file_path(journal.path, operation.file_sequence)
        problem = f"entry {operation.raft_index}: {error}"
        fault = Fault(path, operation.position, None, problem, Invariant.ENTRY_READABLE)
        journal.faults.append(fault)
        return
    names = [command.name for command in entry.commands if isinstance(command, CreateTopic)]
    if names:
        journal.created[operation.raft_index] = names


def entry_of(payload: bytes) -> Entry:
    """Return the commands of an entry; one that a new leader begins with has none, and a configuration has none."""
    if is_configuration(payload):
        return Entry(decode_configuration_entry(payload, 0)[1], ())
    return Entry(0, ()) if payload == NO_OP else decode_entry(payload)
