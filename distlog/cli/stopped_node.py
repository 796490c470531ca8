"""What the files of a node that does not run say: the one look that `inspect` and `verify` share.

It takes a data directory, the directory of one log, or one of the seed system; it opens nothing for
writing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from distlog.cli.journal_survey import JournalSurvey, survey_journal
from distlog.consensus.checkpoint import CheckpointImage, TopicImage, read_checkpoint
from distlog.consensus.configuration import Configuration
from distlog.consensus.state_machine import DEFAULT_TOPIC, FIRST_INDEX
from distlog.consensus.topics import LOG_NAME, synced_log
from distlog.errors import CorruptCheckpoint, DataDirectoryUnusable, DiskFailed
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk
from distlog.storage.invariants import Fault, Invariant, unreadable
from distlog.storage.log_mark import EMPTY_MARK, MARK_NAME
from distlog.storage.segment_files import SUFFIXES
from distlog.storage.survey import FAULT_COUNT_MAX, LogSurvey, survey_log

Progress = Callable[[int], None]

# What belongs where; anything else is left alone, and said.
LOG_FILES = re.compile(
    rf"[0-9]{{20}}({'|'.join(re.escape(each) for each in SUFFIXES)})|{MARK_NAME}"
)
DIRECTORY_NAMES = re.compile(
    r"FORMAT|LOCK|node\.json|reserve|serf|groups|audit\.log(\.[0-9]+)?|lost\+found|backup-.*"
)
GROUP_NAMES = re.compile(r"journal|checkpoint|topics|incoming")
# What an interrupted replacement leaves behind.
TEMPORARY_NAMES = re.compile(r"(FORMAT|node\.json)\.tmp|checkpoint\.new")


@dataclass(frozen=True, slots=True)
class TopicSurvey:
    """One log, and the topic that it is."""

    # None if nothing says it.
    name: str | None
    # None outside a data directory.
    topic_id: int | None
    log: LogSurvey
    # As the checkpoint has it; None if it has not.
    image: TopicImage | None = None


@dataclass(slots=True)
class Look:
    """Everything that was seen."""

    path: str
    # None if this is one log and not a data directory.
    directory: DataDirectory | None = None
    checkpoint: CheckpointImage | None = None
    journal: JournalSurvey | None = None
    topics: list[TopicSurvey] = field(default_factory=list)
    # Faults outside the logs and the journal, which have their own.
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def all_faults(self) -> list[Fault]:
        journal = self.journal.faults if self.journal else []
        logs = [fault for topic in self.topics for fault in topic.log.faults]
        return [*self.faults, *journal, *logs]

    def all_notes(self) -> list[str]:
        journal = self.journal.notes if self.journal else []
        return [*self.notes, *journal, *(note for topic in self.topics for note in topic.log.notes)]


def look_at(disk: Disk, path: str, *, deep: bool, progress: Progress = lambda size: None) -> Look:
    """Look at a stopped node's data directory, at one log, or at a directory of the seed system.

    deep: check every byte.  progress: called with the bytes of frames checked so far.
    Raises DataDirectoryInUse if a node runs on it, FormatUnsupported, and DataDirectoryUnusable if it is none of these or,
    unless that is looked for, nobody's.
    """
    path = path.rstrip("/") or "/"
    if not disk.is_directory(path):
        problem = "it is a file" if disk.exists(path) else "there is no such directory"
        raise DataDirectoryUnusable(path=path, problem=problem)
    if not DataDirectory.is_at(disk, path):
        _require_unlocked(disk, path)
        log = survey_log(disk, path, deep=deep, progress=progress)
        look = Look(path, topics=[TopicSurvey(None, None, log)])
        _note_strangers(disk, look, path, LOG_FILES)
        return look
    try:
        directory = DataDirectory.open_offline(disk, path)
    except DataDirectoryUnusable as error:
        if not deep:
            raise
        # Whose directory it is comes first: what else there is cannot be judged without.
        fault = Fault(path, 0, None, error.problem, Invariant.IDENTITY_READABLE)
        return Look(path, faults=[fault])
    try:
        look = Look(path, directory)
        _look_at_names(disk, look, directory)
        _look_for_switch(disk, look, directory)
        _look_at_checkpoint(disk, look, directory)
        look.journal = survey_journal(disk, directory.journal_path, look.checkpoint, deep=deep)
        _look_for_checkpoint(disk, look, directory)
        _look_at_topics(disk, look, directory, deep, progress)
    finally:
        directory.close()
    return look


def _look_for_switch(disk: Disk, look: Look, directory: DataDirectory) -> None:
    if disk.exists(f"{directory.incoming_path}/switch"):
        look.notes.append(
            f"{directory.incoming_path}: the node was going over to a copied state when it stopped. Its next start ends that, so "
            "start it before anything is done about what else is found here"
        )


def _require_unlocked(disk: Disk, path: str) -> None:
    """Refuse the log of a node that runs: DATA_DIR/groups/0/topics/ID lies four levels below
    its lock.
    """
    parts = path.split("/")
    above = "/".join(parts[:-4]) or ("/" if path.startswith("/") else ".")
    if len(parts) > 4 and DataDirectory.is_at(disk, above):
        DataDirectory.open_offline(disk, above).close()


# --- Names ----------------------------------------------------------------------------------------


def _look_at_names(disk: Disk, look: Look, directory: DataDirectory) -> None:
    _note_strangers(disk, look, directory.path, DIRECTORY_NAMES)
    groups_path = directory.group_path.rpartition("/")[0]
    _note_strangers(disk, look, groups_path, re.compile("0"))
    _note_strangers(disk, look, directory.group_path, GROUP_NAMES)
    _note_strangers(disk, look, directory.topics_path, LOG_NAME)


def _note_strangers(disk: Disk, look: Look, path: str, known: re.Pattern[str]) -> None:
    """Say which names in a directory are none of those that belong there."""
    for name in disk.list_directory(path) if disk.is_directory(path) else ():
        if known.fullmatch(name):
            continue
        if TEMPORARY_NAMES.fullmatch(name):
            said = "was left by a write that was interrupted: nothing needs it"
        else:
            said = "is none of distlog's: left alone"
        look.notes.append(f"{path}/{name} {said}")


# --- The parts of a data directory ----------------------------------------------------------------


def _look_at_checkpoint(disk: Disk, look: Look, directory: DataDirectory) -> None:
    problem = _misfit(directory)
    if problem:
        path = f"{directory.path}/node.json"
        look.faults.append(Fault(path, 0, None, problem, Invariant.IDENTITY_FITS))
    path = directory.checkpoint_path
    try:
        look.checkpoint = image = read_checkpoint(disk, path)
    except CorruptCheckpoint as error:
        fault = Fault(error.path, 0, None, error.problem, Invariant.CHECKPOINT_READABLE)
        look.faults.append(fault)
        return
    except DiskFailed as error:
        look.faults.append(unreadable(error, Invariant.CHECKPOINT_READABLE))
        return
    if image is None:
        return
    configuration = image.configuration
    compared: list[tuple[str, object, object]] = [
        ("cluster id", configuration.cluster_id, directory.cluster_id)
    ]
    if configuration.raft_index == FIRST_INDEX:
        # Nobody has joined or left since.
        compared.insert(0, ("voters", dict(configuration.voters), directory.voters))
    for what, found, expected in compared:
        if found != expected:
            problem = f"its {what} and those of node.json are not the same"
            look.faults.append(Fault(path, 0, None, problem, Invariant.IDENTITY_FITS))


def _misfit(directory: DataDirectory) -> str:
    """Return what does not fit in node.json; empty if all of it does."""
    if directory.voters is None:
        return ""
    # A node that joined later is none of those that the cluster was formed with.
    own_id = directory.voters.get(directory.node_id, directory.directory_id)
    if own_id != directory.directory_id:
        return f"its voters do not have {directory.node_id} with this directory's id"
    if directory.cluster_id != Configuration.form(directory.voters).cluster_id:
        return "its cluster id is not the one that its voters come to"
    return ""


def _look_for_checkpoint(disk: Disk, look: Look, directory: DataDirectory) -> None:
    """Without a checkpoint the journal must have everything, from the first entry on."""
    journal = look.journal
    if journal is None or journal.faults or disk.exists(directory.checkpoint_path):
        return
    problem = ""
    if journal.first_index > FIRST_INDEX:
        problem = f"the file is missing, and the journal begins at entry {journal.first_index}"
    elif (
        not journal.first_index
        and disk.is_directory(directory.topics_path)
        and _has_synced_log(disk, directory.topics_path)
    ):
        problem = "the file is missing, the journal is empty, and there are logs with records"
    if problem:
        path = directory.checkpoint_path
        look.faults.append(Fault(path, 0, None, problem, Invariant.JOURNAL_FITS))


def _has_synced_log(disk: Disk, path: str) -> bool:
    try:
        return synced_log(disk, path) is not None
    except DiskFailed:
        # The look at that log says it.
        return False


def _topic_names(disk: Disk, directory: DataDirectory) -> list[str]:
    path = directory.topics_path
    names = disk.list_directory(path) if disk.is_directory(path) else []
    return [name for name in names if LOG_NAME.fullmatch(name)]


def _look_at_topics(
    disk: Disk, look: Look, directory: DataDirectory, deep: bool, progress: Progress
) -> None:
    known = {topic.topic_id: topic for topic in look.checkpoint.topics} if look.checkpoint else {}
    topic_ids = {int(name) for name in _topic_names(disk, directory)}
    checked = 0
    for topic_id in sorted(known.keys() | topic_ids):
        path, topic = directory.topic_path(topic_id), known.get(topic_id)
        if topic_id not in topic_ids:
            fault = Fault(path, 0, None, "the directory is missing", Invariant.FILE_PRESENT)
            look.faults.append(fault)
            continue
        log = _survey(disk, look, path, topic, deep, partial(_report, progress, checked))
        if log is None:
            continue
        checked += log.store_size
        look.topics.append(TopicSurvey(_name(look, topic_id, topic), topic_id, log, topic))
        _note_strangers(disk, look, path, LOG_FILES)
        if topic is None and look.checkpoint is not None:
            look.notes.append(_unknown(look, path, topic_id))


def _survey(
    disk: Disk,
    look: Look,
    path: str,
    topic: TopicImage | None,
    deep: bool,
    progress: Progress,
) -> LogSurvey | None:
    """Look at one topic's log; None if it cannot be, which is then said."""
    journal, image = look.journal, look.checkpoint
    if topic is None and not disk.exists(f"{path}/{MARK_NAME}"):
        # The mark comes first; without it, and in a data directory, files are no log of the seed system either.
        look.notes.append(f"{path} holds no log: its creation, or its removal, was interrupted")
        return None
    # The next start removes a log that is in no checkpoint, and makes it anew from the journal: nothing of it
    # was promised.  If checkpoint or journal is lost, the log's own mark says what was.
    lost = _is_checkpoint_lost(look) or bool(journal and journal.faults)
    without = None if lost else EMPTY_MARK
    provenance = None
    if journal is not None and journal.terms and not lost:
        provenance = journal.provenance(image.raft_index if image else journal.last_index)
    remaining = max(1, FAULT_COUNT_MAX - len(look.all_faults()))
    try:
        return survey_log(
            disk,
            path,
            topic.mark if topic else without,
            deep=deep,
            is_removed=topic is None,
            fault_count_max=remaining,
            provenance=provenance,
            progress=progress,
        )
    except DiskFailed as error:
        look.faults.append(unreadable(error, Invariant.FILE_PRESENT))
    return None


def _is_checkpoint_lost(look: Look) -> bool:
    """Tell whether it is open what the checkpoint was."""
    assert look.directory is not None
    path = look.directory.checkpoint_path
    return look.checkpoint is None and any(fault.path == path for fault in look.faults)


def _name(look: Look, topic_id: int, topic: TopicImage | None) -> str | None:
    if topic is not None:
        return topic.name
    if topic_id == FIRST_INDEX:
        return DEFAULT_TOPIC
    return look.journal.topic_name(topic_id) if look.journal else None


def _unknown(look: Look, path: str, topic_id: int) -> str:
    """Return what the next start does to a log that the checkpoint does not have."""
    name = look.journal.topic_name(topic_id) if look.journal else None
    if name is None:
        return f"{path} is not in the checkpoint: the next start removes it"
    return (
        f"{path} is topic {name}, created after the checkpoint: the next start makes it anew from "
        "the journal"
    )


def _report(progress: Progress, before: int, size: int) -> None:
    progress(before + size)
