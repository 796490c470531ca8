"""A node's data directory: who it belongs to, and where its parts are.

    FORMAT            format version; a newer one is refused LOCK              held by the process
    that uses the directory node.json         node id, random directory id, and, once the cluster is
    formed, its id and voters groups/0/         one Raft group: journal/, checkpoint,
    topics/TOPIC_ID/

The directory id is drawn when node.json is first written and never changes: a node that comes back
with another one has lost what it promised.  FORMAT comes first and node.json before everything that
a node could promise, so an interrupted start is told from a directory that lost files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from random import Random

from distlog.block import crc32c
from distlog.errors import (
    DataDirectoryInUse,
    DataDirectoryUnusable,
    DiskFailed,
    FormatUnsupported,
)
from distlog.storage.disk import Disk, DiskLock
from distlog.storage.segment_files import STORE

FORMAT = 1
FORMAT_TEXT = b"1\n"
UNFINISHED = b"unfinished\n"
FORMAT_NAME = "FORMAT"
LOCK_NAME = "LOCK"
IDENTITY_NAME = "node.json"
GROUPS_NAME = "groups"
RESERVE_NAME = "reserve"
TEMPORARY = ".tmp"
DIRECTORY_ID_SIZE = 16
IDENTITY_SIZE_MAX = 1 << 20
IDENTITY_KEYS = frozenset({"node_id", "directory_id", "cluster_id", "voters"})
# Of node.json, and only while an agreement is looked for (consensus/agreement.py).
PROPOSAL_KEY = "proposal"
# Of node.json: the checksum of the other keys.
CHECKSUM_KEY = "crc32c"
# What may be there before FORMAT is: an interrupted first start, or a file system's own.
BEFORE_FORMAT = frozenset({LOCK_NAME, FORMAT_NAME + TEMPORARY, "lost+found"})


@dataclass(frozen=True, slots=True)
class Identity:
    """What node.json says."""

    node_id: str
    # Random, hexadecimal: of this directory, not of the node.
    directory_id: str
    # None until the cluster is formed; then they never change.
    cluster_id: str | None = None
    # Directory id by node id, of all voters.
    voters: dict[str, str] | None = None
    # Until then: with whom the node has proposed to form one, and whether it has agreed to that for good; None: with nobody.
    proposal: tuple[dict[str, str], bool] | None = None


class DataDirectory:
    """A data directory that this process holds."""

    def __init__(self, disk: Disk, path: str, lock: DiskLock | None, identity: Identity) -> None:
        """Use `open` or `open_offline`."""
        self._disk = disk
        self._lock = lock
        self._identity = identity
        self.path = path

    @classmethod
    def open(cls, disk: Disk, path: str, node_id: str, random: Random) -> DataDirectory:
        """Take the directory for `node_id`, and make it if there is none.  Blocks.

        Raises DataDirectoryInUse, DataDirectoryUnusable, FormatUnsupported, StorageFull; nothing
        that was there is changed then.
        """
        return cls._open(disk, path, node_id, random, FORMAT_TEXT)

    @classmethod
    def _open(
        cls, disk: Disk, path: str, node_id: str, random: Random, format_text: bytes
    ) -> DataDirectory:
        try:
            _require_usable(disk, path)
            disk.make_directory(path)
            lock = _lock(disk, path)
            try:
                if _read_format(disk, path) is None:
                    _replace(disk, path, FORMAT_NAME, format_text)
                identity = _settle(disk, path, node_id, random)
            except BaseException:
                lock.release()
                raise
        except DiskFailed as error:
            raise DataDirectoryUnusable(path=path, problem=str(error)) from error
        return cls(disk, path, lock, identity)

    @classmethod
    def begin(cls, disk: Disk, path: str, node_id: str, random: Random) -> DataDirectory:
        """Make a directory that no node starts on before `finish`.  Blocks.

        Raises DataDirectoryUnusable if there is anything in it, and what `open` raises.
        """
        if disk.is_directory(path) and not BEFORE_FORMAT.issuperset(disk.list_directory(path)):
            raise DataDirectoryUnusable(path=path, problem="it is not empty: name a new one")
        return cls._open(disk, path, node_id, random, UNFINISHED)

    def finish(self) -> None:
        """Make a directory of `begin` one that a node starts on.  Blocks; durable on return."""
        _replace(self._disk, self.path, FORMAT_NAME, FORMAT_TEXT)

    @classmethod
    def open_offline(cls, disk: Disk, path: str) -> DataDirectory:
        """Hold the directory of a node that does not run, to look at it.  Nothing is changed.

        Raises DataDirectoryInUse if the node runs, DataDirectoryUnusable if this is no data
        directory.
        """
        try:
            _require_usable(disk, path)
            lock = _lock(disk, path) if disk.exists(f"{path}/{LOCK_NAME}") else None
            try:
                _read_format(disk, path)
                identity = _read_identity(disk, path)
                if identity is None:
                    problem = f"it has no {IDENTITY_NAME}: no node has used it"
                    raise DataDirectoryUnusable(path=path, problem=problem)
            except BaseException:
                if lock is not None:
                    lock.release()
                raise
        except DiskFailed as error:
            raise DataDirectoryUnusable(path=path, problem=str(error)) from error
        return cls(disk, path, lock, identity)

    @classmethod
    @contextmanager
    def hold(cls, disk: Disk, path: str) -> Iterator[DataDirectory]:
        """Hold the directory of a node that does not run, to change whose it is; `identity_of` says whose it was.

        Raises DataDirectoryInUse if the node runs, DataDirectoryUnusable if this is no data directory.
        """
        if not cls.is_at(disk, path):
            raise DataDirectoryUnusable(path=path, problem="it is no data directory of a node")
        _require_usable(disk, path)
        lock = _lock(disk, path)
        try:
            _read_format(disk, path)
            yield cls(disk, path, lock, Identity("", ""))
        finally:
            lock.release()

    def identity_of(self, backups: Sequence[str]) -> Identity | None:
        """Return what node.json says, here or else in the first of `backups` that has one; None if it cannot be read."""
        for path in (self.path, *backups):
            try:
                identity = _read_identity(self._disk, path)
            except DataDirectoryUnusable:
                return None
            if identity is not None:
                return identity
        return None

    def become(self, identity: Identity) -> None:
        """Write down whose directory this is from now on.  Blocks; durable on return."""
        for name in ("journal", "topics"):
            self._disk.make_directory(f"{self.group_path}/{name}")
        _write_identity(self._disk, self.path, identity)
        self._identity = identity

    @staticmethod
    def is_at(disk: Disk, path: str) -> bool:
        """Tell whether `path` looks like a data directory, whole or not."""
        return disk.exists(f"{path}/{FORMAT_NAME}") or disk.exists(f"{path}/{IDENTITY_NAME}")

    @property
    def node_id(self) -> str:
        return self._identity.node_id

    @property
    def directory_id(self) -> str:
        return self._identity.directory_id

    @property
    def cluster_id(self) -> str | None:
        """The cluster's id; None until it is formed."""
        return self._identity.cluster_id

    @property
    def voters(self) -> dict[str, str] | None:
        """Directory id by node id; None until the cluster is formed."""
        return self._identity.voters

    @property
    def group_path(self) -> str:
        return f"{self.path}/{GROUPS_NAME}/0"

    @property
    def format_path(self) -> str:
        return f"{self.path}/{FORMAT_NAME}"

    @property
    def reserve_path(self) -> str:
        return f"{self.path}/{RESERVE_NAME}"

    @property
    def journal_path(self) -> str:
        return f"{self.group_path}/journal"

    @property
    def checkpoint_path(self) -> str:
        return f"{self.group_path}/checkpoint"

    @property
    def incoming_path(self) -> str:
        return f"{self.group_path}/incoming"

    @property
    def topics_path(self) -> str:
        return f"{self.group_path}/topics"

    def topic_path(self, topic_id: int) -> str:
        """Return where the log of a topic is: named by its id, since a name may be used again."""
        return f"{self.topics_path}/{topic_id:020d}"

    def form(self, cluster_id: str, voters: Mapping[str, str]) -> None:
        """Write down, once and durably, which cluster this is and who its voters are.  Blocks."""
        identity = replace(
            self._identity, cluster_id=cluster_id, voters=dict(voters), proposal=None
        )
        if identity == self._identity:
            return
        assert self.cluster_id is None, "a node belongs to one cluster for life"
        _write_identity(self._disk, self.path, identity)
        self._identity = identity

    @property
    def proposal(self) -> tuple[Mapping[str, str], bool]:
        """With whom the node has proposed to form a cluster, and whether it has agreed to that; nobody, if it has not."""
        return self._identity.proposal or ({}, False)

    def propose(self, voters: Mapping[str, str], *, is_agreed: bool) -> None:
        """Write down, durably, with whom the node would form a cluster.  Blocks.  Raises StorageFull, DiskFailed."""
        assert self.cluster_id is None, "a node that belongs to a cluster proposes no other"
        identity = replace(self._identity, proposal=(dict(voters), is_agreed))
        _write_identity(self._disk, self.path, identity)
        self._identity = identity

    def close(self) -> None:
        """Let the directory go."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _require_usable(disk: Disk, path: str) -> None:
    """Refuse what is there and is no data directory, before anything is made in it."""
    if not disk.exists(path):
        return
    if not disk.is_directory(path):
        raise DataDirectoryUnusable(path=path, problem="it is a file, not a directory")
    names = disk.list_directory(path)
    if FORMAT_NAME in names or BEFORE_FORMAT.issuperset(names):
        return
    if any(name.endswith(STORE) for name in names):
        problem = "it holds a log and no node: `distlog import` makes a data directory of it"
    else:
        problem = f"it is not empty and has no {FORMAT_NAME} file: name an empty or a new one"
    raise DataDirectoryUnusable(path=path, problem=problem)


def _lock(disk: Disk, path: str) -> DiskLock:
    try:
        return disk.lock(f"{path}/{LOCK_NAME}")
    except DataDirectoryInUse as error:
        raise DataDirectoryInUse(path=path) from error


def _settle(disk: Disk, path: str, node_id: str, random: Random) -> Identity:
    """Read whose directory this is, or write it."""
    identity = _read_identity(disk, path)
    # The process that wrote it may have been killed before its name was durable: nothing may rest on it before that.
    disk.sync_directory(path)
    if identity is None:
        if disk.exists(f"{path}/{GROUPS_NAME}"):
            problem = (
                f"{IDENTITY_NAME} is missing and {GROUPS_NAME}/ is not: restore that file, or move "
                "the directory away and let the node come back as a new member"
            )
            raise DataDirectoryUnusable(path=path, problem=problem)
        identity = Identity(node_id, random.randbytes(DIRECTORY_ID_SIZE).hex())
        _write_identity(disk, path, identity)
    if identity.node_id != node_id:
        problem = f"it belongs to node {identity.node_id}, not {node_id}: name that one's own"
        raise DataDirectoryUnusable(path=path, problem=problem)
    for name in ("journal", "topics"):
        disk.make_directory(f"{path}/{GROUPS_NAME}/0/{name}")
    return identity


def _read_format(disk: Disk, path: str) -> int | None:
    """Return the format version, None if there is none yet."""
    format_path = f"{path}/{FORMAT_NAME}"
    if not disk.exists(format_path):
        return None
    data = _read(disk, format_path)
    if data == UNFINISHED:
        problem = "it was being filled when that was interrupted: remove it and begin anew"
        raise DataDirectoryUnusable(path=path, problem=problem)
    if data == FORMAT_TEXT:
        return FORMAT
    found = data[:100].decode("utf-8", "replace").removesuffix("\n")
    if not (found.isascii() and found.isdecimal()) or int(found) == FORMAT:
        problem = f"its {FORMAT_NAME} file says {found!r}, which is no version"
        raise DataDirectoryUnusable(path=path, problem=problem)
    raise FormatUnsupported(path=path, found=found, supported=str(FORMAT))


def _read_identity(disk: Disk, path: str) -> Identity | None:
    """Return what node.json says, None if there is none yet."""
    identity_path = f"{path}/{IDENTITY_NAME}"
    if not disk.exists(identity_path):
        return None
    try:
        return _decode_identity(_read(disk, identity_path))
    except (ValueError, KeyError, RecursionError) as error:
        problem = (
            f"{IDENTITY_NAME} cannot be understood ({error}): restore it, or move the directory "
            "away and let the node come back as a new member"
        )
        raise DataDirectoryUnusable(path=path, problem=problem) from error


def _decode_identity(data: bytes) -> Identity:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    # A file without a checksum was written by hand, or before there was one.
    checksum = values.pop(CHECKSUM_KEY, None)
    if checksum is not None and checksum != _checksum(values):
        raise ValueError("its checksum is wrong")
    proposal = _decode_proposal(values.pop(PROPOSAL_KEY, None))
    if values.keys() != IDENTITY_KEYS:
        raise ValueError(f"its keys are not {', '.join(sorted(IDENTITY_KEYS))}")
    node_id, directory_id = values["node_id"], values["directory_id"]
    cluster_id, voters = values["cluster_id"], values["voters"]
    if not (isinstance(node_id, str) and isinstance(directory_id, str) and node_id):
        raise ValueError("node_id and directory_id are strings")
    if len(bytes.fromhex(directory_id)) != DIRECTORY_ID_SIZE:
        raise ValueError(f"directory_id has {2 * DIRECTORY_ID_SIZE} digits")
    if cluster_id is None and voters is None:
        return Identity(node_id, directory_id, proposal=proposal)
    if not (isinstance(cluster_id, str) and cluster_id and isinstance(voters, dict) and voters):
        raise ValueError("cluster_id and voters are both null, or a string and an object")
    if not all(isinstance(voter, str) for voter in voters.values()):
        raise ValueError("voters are directory ids")
    return Identity(node_id, directory_id, cluster_id, voters)


def _decode_proposal(value: object) -> tuple[dict[str, str], bool] | None:
    if value is None:
        return None
    voters, is_agreed = value if isinstance(value, list) and len(value) == 2 else (None, None)
    if not isinstance(voters, dict) or not isinstance(is_agreed, bool):
        raise ValueError("a proposal is an object and true or false")
    if not all(isinstance(voter, str) for voter in voters.values()):
        raise ValueError("voters are directory ids")
    return voters, is_agreed


def _write_identity(disk: Disk, path: str, identity: Identity) -> None:
    values = asdict(identity)
    if identity.proposal is None:
        del values[PROPOSAL_KEY]
    values[CHECKSUM_KEY] = _checksum(values)
    text = json.dumps(values, indent=2, sort_keys=True)
    _replace(disk, path, IDENTITY_NAME, f"{text}\n".encode())


def _checksum(values: Mapping[str, object]) -> str:
    """Return the CRC-32C, 8 hexadecimal digits, of the keys and values without white space, in the order of the keys."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return f"{crc32c(text.encode()):08x}"


def _read(disk: Disk, path: str) -> bytes:
    file = disk.open(path, writable=False)
    try:
        return file.read_at(0, IDENTITY_SIZE_MAX)
    finally:
        file.close()


def _replace(disk: Disk, path: str, name: str, data: bytes) -> None:
    """Write a whole file, so that a crash leaves the old one or the new one."""
    temporary = f"{path}/{name}{TEMPORARY}"
    if disk.exists(temporary):
        disk.remove(temporary)
    file = disk.open(temporary, create=True)
    try:
        file.write_at(0, [data])
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, f"{path}/{name}")
    disk.sync_directory(path)
