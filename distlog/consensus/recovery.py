"""From a data directory to a state that may take part again: checkpoint, journal, topic logs, in that order.

The checkpoint says what was applied and durable; every topic log is cut back to it; the journal must hold the checkpoint's
last entry and what follows, and is applied again as a leader confirms it.  If they do not fit each other the node may have promised
what it lost: it refuses to start as this member, and its files are kept.  A sealed segment is of no use to any of this: what is
committed is on other nodes too, and is fetched from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from distlog.consensus.checkpoint import CheckpointImage, read_checkpoint
from distlog.consensus.durability import Durability
from distlog.consensus.journal import FILE_SIZE_MAX, Journal, JournalEntry
from distlog.consensus.state_machine import StateMachine
from distlog.errors import CorruptBatch, CorruptCheckpoint, CorruptJournal
from distlog.storage.disk import Disk


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a group begins with."""

    journal: Journal
    state_machine: StateMachine
    image: CheckpointImage | None
    # What recovery found and did, for the log.
    notes: tuple[str, ...]


def recover(
    disk: Disk,
    *,
    journal_path: str,
    checkpoint_path: str,
    topics_path: str,
    journal_file_size_max: int = FILE_SIZE_MAX,
    durability: Durability = Durability.FSYNC,
    is_checkpoint_copied: bool = False,
    tell: Callable[[str], None] = lambda _words: None,
) -> Recovered:
    """Open what one group keeps.  Blocks.

    journal_file_size_max: bytes; the journal is forgotten by whole files, so a small part of what it may have in all.
    tell(words): called, where this runs, with what is done now and how far that is.
    is_checkpoint_copied: the checkpoint is another node's, copied since the journal was written: a journal that does not fit begins
    anew at it, with the same term and vote.

    A sealed segment that is missing or cut short does not keep the node from taking part: it is set aside in its log, and the notes say
    so.  Raises CorruptJournal, CorruptCheckpoint, DiskFailed, StorageFull; nothing was lost by trying.
    """
    if disk.exists(checkpoint_path):
        # A killed process may have left the new one without its name being durable.  What only the old one needs goes below.
        disk.sync_directory(checkpoint_path.rpartition("/")[0] or ".")
    image = read_checkpoint(disk, checkpoint_path)
    tell("its journal is read")
    journal = Journal.open(
        disk,
        journal_path,
        proven_sequence=image.durable_sequence if image is not None else 0,
        file_size_max=journal_file_size_max,
        durability=durability,
    )
    if image is not None and is_checkpoint_copied:
        _begin_anew_unless_fit(journal, image)
    if image is not None:
        _require_fit(journal, image, journal_path)
    try:
        state_machine = StateMachine.open(
            disk, topics_path, image, journal_first_index=journal.first_index, tell=tell
        )
    except CorruptBatch as error:
        # Of a segment that is written: the journal goes on exactly where the checkpoint ends.
        problem = f"corrupt at byte {error.position} ({error.problem}), where the journal goes on"
        raise CorruptCheckpoint(path=error.path, problem=problem) from error
    notes = list(journal.recovery)
    for topic in state_machine.topics():
        notes += topic.log.recovery
    return Recovered(journal, state_machine, image, tuple(notes))


def _require_fit(journal: Journal, image: CheckpointImage, journal_path: str) -> None:
    problem = misfit(journal.first_index, journal.last_index, image, partial(_is_held, journal))
    if problem:
        raise CorruptJournal(path=journal_path, position=0, problem=problem)


def _begin_anew_unless_fit(journal: Journal, image: CheckpointImage) -> None:
    """Replace the entries of a journal by the checkpoint's two, unless it has them.  Blocks; durable on return.

    All that goes is superseded: what lies up to the checkpoint's index is in the checkpoint, and what lies behind follows an entry
    that is not the committed one.  Term and vote stay: they are this node's promises.
    """
    is_held = partial(_is_held, journal)
    if not misfit(journal.first_index, journal.last_index, image, is_held) or is_held(image.last):
        # What follows an entry that is held may be acknowledged: it never goes.
        return
    if len(journal):
        journal.truncate_from(journal.first_index)
    if image.term > journal.term:
        # In a term that this node has not seen it cannot have voted.
        journal.set_term_vote(image.term, None)
    for entry in (image.previous, image.last):
        journal.append(*entry)
    ticket = journal.begin_sync()
    assert ticket is not None, "two entries wait for it"
    ticket.run()
    journal.finish_sync(ticket)
    remove_files = journal.compact(image.previous.raft_index)
    if remove_files is not None:
        remove_files()


def _is_held(journal: Journal, entry: JournalEntry) -> bool:
    # What is in it its checksum has told when the journal was read.
    return journal.term_at(entry.raft_index) == entry.term


def misfit(
    first_index: int,
    last_index: int,
    image: CheckpointImage,
    is_held: Callable[[JournalEntry], bool],
) -> str:
    """Return why no node starts from a journal of these entries (0, 0: none) and a checkpoint; empty if one does.

    is_held(entry): whether the journal has this entry of the checkpoint at its index, which lies in it.
    """
    if last_index < image.raft_index:
        return f"it ends before the checkpoint at entry {image.raft_index}"
    if first_index > image.previous.raft_index:
        return f"it begins at entry {first_index}, after the checkpoint at {image.raft_index}"
    for entry in (image.previous, image.last):
        if entry.raft_index and not is_held(entry):
            return f"its entry {entry.raft_index} is not the checkpoint's"
    return ""
