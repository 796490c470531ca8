"""What the files of a node that does not run say: the one look that `inspect` and `verify` share.

It takes a data directory, the directory of one log, or one of the seed system; it opens nothing for
writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from distlog.consensus.checkpoint import CheckpointImage, TopicImage, read_checkpoint
from distlog.consensus.journal_format import OperationKind, decode_vote
from distlog.consensus.journal_recovery import OperationReader
from distlog.consensus.state_machine import DEFAULT_TOPIC, FIRST_INDEX
from distlog.errors import CorruptCheckpoint, CorruptJournal, DataDirectoryUnusable
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk
from distlog.storage.segment_check import Fault
from distlog.storage.survey import LogSurvey, survey_log

Progress = Callable[[int], None]


@dataclass(slots=True)
class JournalSurvey:
    """What the journal holds."""

    first_index: int = 0
    # 0 if there is no entry.
    last_index: int = 0
    # Term of each entry from `first_index` on.
    terms: list[int] = field(default_factory=list)
    term: int = 0
    vote: str | None = None
    operation_count: int = 0
    size: int = 0

    def term_at(self, raft_index: int) -> int | None:
        if self.terms and self.first_index <= raft_index <= self.last_index:
            return self.terms[raft_index - self.first_index]
        return None


@dataclass(frozen=True, slots=True)
class TopicSurvey:
    """One log, and the topic that it is."""

    # None if only the journal knows it.
    name: str | None
    # None outside a data directory.
    topic_id: int | None
    log: LogSurvey


@dataclass(slots=True)
class Look:
    """Everything that was seen."""

    path: str
    # None if this is one log and not a data directory.
    directory: DataDirectory | None = None
    checkpoint: CheckpointImage | None = None
    journal: JournalSurvey | None = None
    topics: list[TopicSurvey] = field(default_factory=list)
    # Faults outside the logs; each log has its own.
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def all_faults(self) -> list[Fault]:
        return [*self.faults, *(fault for topic in self.topics for fault in topic.log.faults)]

    def all_notes(self) -> list[str]:
        return [*self.notes, *(note for topic in self.topics for note in topic.log.notes)]


def look_at(disk: Disk, path: str, *, deep: bool, progress: Progress = lambda size: None) -> Look:
    """Look at a stopped node's data directory, at one log, or at a directory of the seed system.

    deep: check every byte.  progress: called with the bytes of frames checked so far.
    Raises DataDirectoryInUse if a node runs on it, DataDirectoryUnusable if it is none of these.
    """
    if not disk.is_directory(path):
        problem = "it is a file" if disk.exists(path) else "there is no such directory"
        raise DataDirectoryUnusable(path=path, problem=problem)
    if not DataDirectory.is_at(disk, path):
        _require_unlocked(disk, path)
        log = survey_log(disk, path, deep=deep, progress=progress)
        return Look(path, topics=[TopicSurvey(None, None, log)])
    directory = DataDirectory.open_offline(disk, path)
    try:
        look = Look(path, directory)
        _look_at_checkpoint(disk, look)
        _look_at_journal(disk, look)
        _look_at_topics(disk, look, deep, progress)
    finally:
        directory.close()
    return look


def _require_unlocked(disk: Disk, path: str) -> None:
    """Refuse the log of a node that runs: DATA_DIR/groups/0/topics/ID lies four levels below
    its lock.
    """
    parts = path.rstrip("/").split("/")
    above = "/".join(parts[:-4]) or ("/" if path.startswith("/") else ".")
    if len(parts) > 4 and DataDirectory.is_at(disk, above):
        DataDirectory.open_offline(disk, above).close()


def _look_at_checkpoint(disk: Disk, look: Look) -> None:
    assert look.directory is not None
    try:
        look.checkpoint = read_checkpoint(disk, look.directory.checkpoint_path)
    except CorruptCheckpoint as error:
        look.faults.append(Fault(error.path, 0, 0, error.problem))
        return
    image = look.checkpoint
    if image is not None and dict(image.configuration.voters) != look.directory.voters:
        path = look.directory.checkpoint_path
        look.faults.append(Fault(path, 0, 0, "its voters are not those of node.json"))


def _look_at_journal(disk: Disk, look: Look) -> None:
    assert look.directory is not None
    path, image = look.directory.journal_path, look.checkpoint
    look.journal = journal = JournalSurvey()
    if not disk.exists(path):
        if image is not None:
            look.faults.append(Fault(path, 0, 0, "the directory is missing"))
        return
    reader = OperationReader(disk, path, image.durable_sequence if image else 0)
    try:
        for operation in reader:
            journal.operation_count += 1
            if operation.kind == OperationKind.ENTRY:
                if not journal.terms:
                    journal.first_index = operation.raft_index
                journal.terms.append(operation.term)
            elif operation.kind == OperationKind.TRUNCATE_FROM:
                del journal.terms[max(0, operation.raft_index - journal.first_index) :]
            else:
                journal.term, journal.vote = operation.term, decode_vote(operation.payload)
    except CorruptJournal as error:
        look.faults.append(Fault(error.path, error.position, 0, error.problem))
    journal.last_index = journal.first_index + len(journal.terms) - 1 if journal.terms else 0
    journal.size = sum(file.size for file in reader.files)
    look.notes += reader.notes
    if image is not None:
        problem = _misfit(journal, image)
        if problem:
            look.faults.append(Fault(path, 0, 0, problem))


def _misfit(journal: JournalSurvey, image: CheckpointImage) -> str:
    """Return why a node would not start from this journal and this checkpoint; empty if it
    would.
    """
    if journal.last_index < image.raft_index:
        return f"it ends before the checkpoint at entry {image.raft_index}"
    if journal.first_index > image.raft_index - 1:
        return (
            f"it begins at entry {journal.first_index}, after the checkpoint at {image.raft_index}"
        )
    if journal.term_at(image.raft_index) != image.term:
        return f"its entry {image.raft_index} is not the checkpoint's"
    return ""


def _look_at_topics(disk: Disk, look: Look, deep: bool, progress: Progress) -> None:
    directory, image = look.directory, look.checkpoint
    assert directory is not None
    known: dict[int, TopicImage] = (
        {topic.topic_id: topic for topic in image.topics} if image else {}
    )
    names = disk.list_directory(directory.topics_path) if disk.exists(directory.topics_path) else []
    topic_ids = {int(name) for name in names if len(name) == 20 and name.isdecimal()}
    checked = 0
    for topic_id in sorted(known.keys() | topic_ids):
        path, topic = directory.topic_path(topic_id), known.get(topic_id)
        if topic_id not in topic_ids:
            look.faults.append(Fault(path, 0, 0, "the directory is missing"))
            continue
        try:
            log = survey_log(
                disk,
                path,
                topic.mark if topic else None,
                deep=deep,
                progress=partial(_report, progress, checked),
            )
        except DataDirectoryUnusable:
            look.notes.append(f"{path} holds no log: its creation was interrupted")
            continue
        checked += log.store_size
        name = topic.name if topic else (DEFAULT_TOPIC if topic_id == FIRST_INDEX else None)
        if topic is None and image is not None:
            look.notes.append(
                f"{path} is not in the checkpoint: the next start removes it, and makes it anew if "
                "the journal says so"
            )
        look.topics.append(TopicSurvey(name, topic_id, log))


def _report(progress: Progress, before: int, size: int) -> None:
    progress(before + size)
