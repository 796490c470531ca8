"""The three files of one segment, open together; and how they are named, kept open and let go.

A segment of base offset B is `B.log` (store), `B.idx` (index) and `B.batch` (batch table), B as 20
digits.  The active segment holds its files open; those of sealed segments are opened on demand and
kept by a `SegmentCache`, so that a long log does not use up descriptors and maps.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from distlog.errors import CorruptBatch, DistlogError
from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.batch_table import BatchTable
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.index import ROW_SIZE as INDEX_ROW_SIZE
from distlog.storage.index import Index
from distlog.storage.mapped_file import MappedFile
from distlog.storage.store import Store

STORE, INDEX, TABLE = ".log", ".idx", ".batch"
SUFFIXES = (STORE, INDEX, TABLE)
OPEN_SEGMENTS_MAX = 64


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When a segment is full.  Replicated: every node must roll at the same batch."""

    # Bytes of store; a first batch that is larger gets a segment of its own.
    store_size_max: int = 64 << 20
    # Rows of index.
    row_count_max: int = 1 << 20


def segment_path(directory: str, base_offset: int, suffix: str) -> str:
    return f"{directory}/{base_offset:020d}{suffix}"


def list_segments(disk: Disk, directory: str) -> dict[int, set[str]]:
    """Return the suffixes that exist for each base offset, ascending; other names are left out."""
    found: dict[int, set[str]] = {}
    for name in disk.list_directory(directory):
        for suffix in SUFFIXES:
            digits = name.removesuffix(suffix)
            if len(digits) == 20 and digits.isdecimal() and name.endswith(suffix):
                found.setdefault(int(digits), set()).add(suffix)
    return dict(sorted(found.items()))


def remove_segment(disk: Disk, directory: str, base_offset: int) -> None:
    """Remove what exists of a segment's files."""
    for suffix in SUFFIXES:
        path = segment_path(directory, base_offset, suffix)
        if disk.exists(path):
            disk.remove(path)


class Counts(NamedTuple):
    """How much data is in the files of a segment: bytes of store, rows of index and of table."""

    store_size: int
    record_count: int
    batch_count: int


class SegmentFiles:
    """A store with its index and its batch table."""

    def __init__(self, store: Store, index: Index, table: BatchTable) -> None:
        self.store = store
        self.index = index
        self.table = table

    @classmethod
    def create(
        cls, disk: Disk, directory: str, base_offset: int, limits: SegmentLimits
    ) -> SegmentFiles:
        """Make three empty files, or none at all if the disk refuses one."""
        files: list[DiskFile] = []
        try:
            for suffix in SUFFIXES:
                path = segment_path(directory, base_offset, suffix)
                files.append(disk.open(path, create=True))
        except DistlogError:
            _close_files(files)
            for file in files:
                disk.remove(file.path)
            raise
        return cls._of(files, base_offset, limits)

    @classmethod
    def open(
        cls, disk: Disk, directory: str, base_offset: int, limits: SegmentLimits | None = None
    ) -> SegmentFiles:
        """Open a segment's files, to be written if `limits` are given.

        Sizes and counts are what the files have room for, in whole rows: `narrow` says what is
        data.
        """
        files = _open_files(disk, directory, base_offset, writable=limits is not None)
        try:
            return cls._of(files, base_offset, limits)
        except DistlogError:
            _close_files(files)
            raise

    @classmethod
    def open_sealed(
        cls, disk: Disk, directory: str, base_offset: int, counts: Counts
    ) -> SegmentFiles:
        """Open a segment's files to be read, as far as they hold data.

        Raises CorruptBatch if a file is too short.  Nothing beyond the data is touched: the sync
        that gives back its space may run at the same time.
        """
        files = _open_files(disk, directory, base_offset, writable=False)
        store, index, table = files
        try:
            _require_size(table, counts.batch_count * TABLE_ROW_SIZE)
            _require_size(index, counts.record_count * INDEX_ROW_SIZE)
            _require_size(store, counts.store_size)
            index_memory = MappedFile(index, counts.record_count * INDEX_ROW_SIZE)
            table_memory = MappedFile(table, counts.batch_count * TABLE_ROW_SIZE)
        except DistlogError:
            _close_files(files)
            raise
        return cls(
            Store(store, counts.store_size),
            Index(index_memory, base_offset, counts.record_count),
            BatchTable(table_memory, counts.batch_count),
        )

    @classmethod
    def _of(
        cls, files: list[DiskFile], base_offset: int, limits: SegmentLimits | None
    ) -> SegmentFiles:
        store_file, index_file, table_file = files
        store_size = store_file.size()
        index_rows = index_file.size() // INDEX_ROW_SIZE
        table_rows = table_file.size() // TABLE_ROW_SIZE
        index_max = table_max = store_memory = None
        if limits is not None:
            index_max = limits.row_count_max * INDEX_ROW_SIZE
            table_max = limits.row_count_max * TABLE_ROW_SIZE
            store_memory = MappedFile(store_file, store_size, size_max=limits.store_size_max)
        index_memory = MappedFile(index_file, index_rows * INDEX_ROW_SIZE, size_max=index_max)
        table_memory = MappedFile(table_file, table_rows * TABLE_ROW_SIZE, size_max=table_max)
        return cls(
            Store(store_file, store_size, store_memory),
            Index(index_memory, base_offset, index_rows),
            BatchTable(table_memory, table_rows),
        )

    def narrow(self, counts: Counts) -> None:
        """Say how much of what the files have room for is data."""
        assert all(room >= count for room, count in zip(self.counts, counts, strict=True))
        self.store.size, self.index.row_count, self.table.row_count = counts

    @property
    def counts(self) -> Counts:
        """What `narrow` said, or what there is room for."""
        return Counts(self.store.size, self.index.row_count, self.table.row_count)

    def is_exact(self) -> bool:
        """Tell whether the files end where the data does."""
        return self.store.is_exact() and self.index.is_exact() and self.table.is_exact()

    def reserve(self, size: int, count: int) -> None:
        """Make sure that one batch of `size` bytes and `count` records can be appended.

        Raises StorageFull, and then nothing was appended.
        """
        self.store.reserve(size)
        self.index.reserve(count)
        self.table.reserve()

    def truncate(self) -> None:
        """Cut each file to its data: the table first, so that no row is left that names what is
        gone.
        """
        self.table.truncate()
        self.index.truncate()
        self.store.truncate()

    def give_back(self) -> None:
        """Cut reserved space off the files.  Safe in a worker after `unmap`."""
        self.store.give_back()
        self.index.give_back()
        self.table.give_back()

    def sync(self) -> None:
        """Make all three durable.  Blocks."""
        self.store.sync()
        self.index.sync()
        self.table.sync()

    def unmap(self) -> None:
        """End the maps; the descriptors stay, to be synced."""
        self.store.unmap()
        self.index.unmap()
        self.table.unmap()

    def close(self) -> None:
        self.store.close()
        self.index.close()
        self.table.close()


def _open_files(disk: Disk, directory: str, base_offset: int, *, writable: bool) -> list[DiskFile]:
    files: list[DiskFile] = []
    try:
        for suffix in SUFFIXES:
            path = segment_path(directory, base_offset, suffix)
            files.append(disk.open(path, writable=writable))
    except DistlogError:
        _close_files(files)
        raise
    return files


def _close_files(files: list[DiskFile]) -> None:
    for file in files:
        file.close()


def _require_size(file: DiskFile, size: int) -> None:
    found = file.size()
    if found < size:
        problem = f"the file ends here and had {size} bytes"
        raise CorruptBatch(path=file.path, position=found, problem=problem)


class SegmentCache:
    """Idle open files of sealed segments, the least recently used closed first.

    Threads take files out and put them back; files that are out belong to who took them, and two
    threads that read one segment have a set each.  Every step is one operation of OrderedDict,
    which the interpreter does not interrupt, so no lock is needed.
    """

    def __init__(self, open_max: int = OPEN_SEGMENTS_MAX) -> None:
        self._open_max = open_max
        self._idle: OrderedDict[str, SegmentFiles] = OrderedDict()

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, path: str) -> SegmentFiles | None:
        """Return the idle files of the segment whose store is `path`, if there are any."""
        return self._idle.pop(path, None)

    def put(self, files: SegmentFiles) -> None:
        """Keep `files` for the next reader, or close them."""
        if self._idle.setdefault(files.store.path, files) is not files:
            files.close()
        while len(self._idle) > self._open_max:
            try:
                _, oldest = self._idle.popitem(last=False)
            except KeyError:
                break
            oldest.close()

    def close_idle(self) -> None:
        """Close all idle files: their descriptors are needed elsewhere."""
        for path in list(self._idle):
            self.drop(path)

    def drop(self, path: str) -> None:
        """Close the idle files of a segment, if there are any."""
        files = self.take(path)
        if files is not None:
            files.close()
