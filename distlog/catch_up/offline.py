"""What an operator does with the data directory of a node that does not run, when it cannot go on as the member that it was.

rejoin              what cannot be trusted any more goes aside, the directory gets another identity, and segments that are whole are staged,
                    so that the node copies only what it lacks when it is taken into the cluster again as a new member
force_new_cluster   most voters are lost for ever: this node goes on alone, as a cluster with another id, with all that it has

Both keep what they replace in a directory below the data directory.  While they work, node.json is not there, and no node starts without
it; an interrupted one is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from distlog.catch_up.switch import open_state
from distlog.consensus.checkpoint import write_checkpoint
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import FILE_SIZE_MAX
from distlog.consensus.recovery import Recovered
from distlog.errors import CorruptBatch, DataDirectoryUnusable, DiskFailed
from distlog.storage.data_directory import IDENTITY_NAME, DataDirectory, Identity
from distlog.storage.disk import Disk
from distlog.storage.incoming import Incoming
from distlog.storage.segment_files import SUFFIXES, Counts, list_segments, segment_path
from distlog.storage.segment_scan import SegmentScan

BACKUP_PREFIX = "backup-"
COPY_SIZE = 1 << 20
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Rejoining:
    """What `rejoin` has done."""

    node_id: str
    backup_path: str
    # Segments that are whole, and their bytes of store; and those that are not, by the path of their store.
    kept_count: int
    kept_size: int
    damaged: tuple[str, ...]


def rejoin(
    disk: Disk, path: str, *, random: Random, now: str, node_id: str = "", progress: Progress
) -> Rejoining:
    """Make the directory of a stopped node one of a new member that has its segments.  Blocks.

    now: a text that tells this moment from others, for the name of the backup.  node_id: who it belongs to, where node.json cannot say
    it.  progress: called with the bytes that were checked so far.
    Raises DataDirectoryInUse if the node runs, DataDirectoryUnusable if nobody knows whose directory it is.
    """
    with DataDirectory.hold(disk, path) as directory:
        identity = directory.identity_of(_backups(disk, path))
        name = node_id or (identity.node_id if identity is not None else "")
        if not name:
            problem = f"{IDENTITY_NAME} cannot be read, so nothing says whose it is: name the node with --node-id"
            raise DataDirectoryUnusable(path=path, problem=problem)
        backup = _back_up(disk, directory, now, moves=True)
        incoming = Incoming(disk, directory.incoming_path, directory.topics_path)
        staged = _stage_all(disk, incoming, directory.topics_path, progress)
        _move(disk, directory.topics_path, f"{backup}/topics")
        directory.become(Identity(name, random.randbytes(16).hex()))
    return Rejoining(name, backup, *staged)


def identity_at(disk: Disk, path: str) -> Identity | None:
    """Return whose directory this is, or was before a command that was interrupted; None if nothing says it.

    Raises DataDirectoryInUse, DataDirectoryUnusable.
    """
    with DataDirectory.hold(disk, path) as directory:
        return directory.identity_of(_backups(disk, path))


def _backups(disk: Disk, path: str) -> list[str]:
    """Return the backups that there are, the newest first."""
    names = [name for name in disk.list_directory(path) if name.startswith(BACKUP_PREFIX)]
    return [f"{path}/{name}" for name in sorted(names, reverse=True)]


def _back_up(disk: Disk, directory: DataDirectory, now: str, *, moves: bool) -> str:
    """Back up what says who a node is and what it has promised: identity, journal, checkpoint; return where it is now.

    moves: nothing of it is needed in its place any more, nor space for a second one.  In either way node.json is in its place no more:
    no node starts here, neither what it was nor what it will be, until all is done.
    """
    path, backup = directory.path, f"{directory.path}/{BACKUP_PREFIX}{now}"
    if disk.exists(backup):
        raise DataDirectoryUnusable(path=path, problem=f"{backup} is there already: try again")
    disk.make_directory(backup)
    identity = f"{path}/{IDENTITY_NAME}"
    if moves:
        _move(disk, identity, f"{backup}/{IDENTITY_NAME}")
        _move(disk, directory.checkpoint_path, f"{backup}/checkpoint")
        _move(disk, directory.journal_path, f"{backup}/journal")
        return backup
    _copy(disk, identity, f"{backup}/{IDENTITY_NAME}")
    _copy(disk, directory.checkpoint_path, f"{backup}/checkpoint")
    disk.make_directory(f"{backup}/journal")
    for name in disk.list_directory(directory.journal_path):
        _copy(disk, f"{directory.journal_path}/{name}", f"{backup}/journal/{name}")
    disk.sync_directory(f"{backup}/journal")
    disk.sync_directory(backup)
    if disk.exists(identity):
        disk.remove(identity)
    disk.sync_directory(path)
    return backup


def _move(disk: Disk, old: str, new: str) -> None:
    """Give a file or a directory another place, durably."""
    if disk.exists(old):
        disk.rename(old, new)
        for path in (new, old):
            disk.sync_directory(path.rpartition("/")[0])


def _copy(disk: Disk, old: str, new: str) -> None:
    if not disk.exists(old):
        # There never was one, or an interrupted command has it in its own backup.
        return
    source, target = disk.open(old, writable=False), disk.open(new, create=True)
    try:
        for position in range(0, source.size(), COPY_SIZE):
            target.write_at(position, [source.read_at(position, COPY_SIZE)])
        target.sync()
    finally:
        source.close()
        target.close()


def _stage_all(
    disk: Disk, incoming: Incoming, topics_path: str, progress: Progress
) -> tuple[int, int, tuple[str, ...]]:
    """Stage every segment that is whole; return count and bytes of these, and the others."""
    count = size = 0
    damaged: list[str] = []
    names = disk.list_directory(topics_path) if disk.exists(topics_path) else []
    for name in filter(str.isdecimal, names):
        source, target = f"{topics_path}/{name}", incoming.staged_path(int(name))
        for base_offset, suffixes in list_segments(disk, source).items():
            counts = _whole_counts(disk, source, base_offset) if suffixes == set(SUFFIXES) else None
            if counts is None:
                damaged.append(segment_path(source, base_offset, SUFFIXES[0]))
            elif counts.batch_count:
                _stage(disk, source, target, base_offset, counts)
                count, size = count + 1, size + counts.store_size
                progress(size)
    return count, size, tuple(damaged)


def _whole_counts(disk: Disk, directory: str, base_offset: int) -> Counts | None:
    """Check every byte of a segment; return how much is in it, None if something is wrong with it."""
    try:
        scan = SegmentScan(disk, directory, base_offset)
    except DiskFailed:
        return None
    try:
        if next(scan.faults(), None) is not None:
            return None
        scanned = scan.scanned
        return Counts(scanned.store_size, scanned.next_offset - base_offset, scanned.batch_count)
    finally:
        scan.close()


def _stage(disk: Disk, source: str, target: str, base_offset: int, counts: Counts) -> None:
    disk.make_directory(target)
    for suffix, size in zip(SUFFIXES, counts.sizes, strict=True):
        old, new = (segment_path(path, base_offset, suffix) for path in (source, target))
        file = disk.open(old)
        try:
            # Without the space that is reserved beyond its data; what was written lately may not be on the disk yet.
            file.truncate(size)
            file.sync()
        finally:
            file.close()
        if disk.exists(new):
            disk.remove(new)
        # The backup keeps it as well.
        disk.link(old, new)
    disk.sync_directory(target)


# --- Alone --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewCluster:
    """What `force_new_cluster` has done."""

    node_id: str
    backup_path: str
    old_cluster_id: str
    cluster_id: str
    # The last entry that this node had; what it was never told of is lost.
    last_index: int
    # Segments that are missing or cut short, and their offsets: nobody is left who could give them.
    damaged: tuple[str, ...]


def force_new_cluster(disk: Disk, path: str, *, random: Random, now: str) -> NewCluster:
    """Make a stopped node the only voter of a new cluster that has everything that this node has.  Blocks.

    Everything in its journal counts, as it would if it was elected.  The other members of the old cluster can never speak to the new
    one.  Raises DataDirectoryInUse, DataDirectoryUnusable, and as a start does what is damaged: nothing was changed then.
    """
    with DataDirectory.hold(disk, path) as directory:
        identity = directory.identity_of(_backups(disk, path))
        if identity is None or identity.cluster_id is None:
            problem = "it belongs to no cluster: there is nothing to recover"
            raise DataDirectoryUnusable(path=path, problem=problem)
        directory_id = random.randbytes(16).hex()
        configuration = Configuration.form({identity.node_id: directory_id})
        # Its state is what it goes on from; logs only grow.
        backup = _back_up(disk, directory, now, moves=False)
        recovered = open_state(
            Incoming(disk, directory.incoming_path, directory.topics_path),
            journal_path=directory.journal_path,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
            journal_file_size_max=FILE_SIZE_MAX,
            disk=disk,
        )
        topics = recovered.state_machine.topics()
        segments = [segment for topic in topics for segment in topic.log.describe()]
        damaged = tuple(
            f"{segment.path}: offsets {segment.base_offset} to {segment.next_offset - 1}"
            for segment in segments
            if segment.problem
        )
        last_index = _checkpoint_everything(disk, directory, recovered, configuration)
        directory.become(
            Identity(
                identity.node_id,
                directory_id,
                configuration.cluster_id,
                dict(configuration.voters),
            )
        )
    return NewCluster(
        node_id=identity.node_id,
        backup_path=backup,
        old_cluster_id=identity.cluster_id,
        cluster_id=configuration.cluster_id,
        last_index=last_index,
        damaged=damaged,
    )


def _checkpoint_everything(
    disk: Disk, directory: DataDirectory, recovered: Recovered, configuration: Configuration
) -> int:
    """Apply all that the journal has, and write a checkpoint of it; return the last entry's index."""
    journal, machine = recovered.journal, recovered.state_machine
    try:
        for raft_index in range(machine.last_applied_index + 1, journal.last_index + 1):
            entry = journal.entry(raft_index)
            machine.apply_payload(raft_index, entry.term, entry.payload)
        if journal.last_index >= 2:
            image = machine.capture(
                previous=journal.entry(journal.last_index - 1),
                last=journal.entry(journal.last_index),
                configuration=configuration,
                durable_sequence=journal.durable_sequence,
            )
            image.sync_logs()
            write_checkpoint(disk, directory.checkpoint_path, image)
        return journal.last_index
    except CorruptBatch as error:
        raise DataDirectoryUnusable(path=directory.path, problem=str(error)) from error
    finally:
        machine.close()
        journal.close()
