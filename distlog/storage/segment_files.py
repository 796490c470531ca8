"""The three files of one segment, open together; and how they are named.

A segment of base offset B is `B.log` (store), `B.idx` (index) and `B.batch` (batch table), B as 20
digits.  Which of them are open is open_files.py's business.
"""

from __future__ import annotations

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
from distlog.storage.verified import VerifiedRecords

STORE, INDEX, TABLE = ".log", ".idx", ".batch"
SUFFIXES = (STORE, INDEX, TABLE)


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

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of data in each file, in the order of SUFFIXES."""
        return (
            self.store_size,
            self.record_count * INDEX_ROW_SIZE,
            self.batch_count * TABLE_ROW_SIZE,
        )


class SegmentFiles:
    """A store with its index and its batch table."""

    def __init__(
        self, store: Store, index: Index, table: BatchTable, limits: SegmentLimits | None = None
    ) -> None:
        self.store = store
        self.index = index
        self.table = table
        # None if they were opened to be read.
        self.limits = limits
        self.verified = VerifiedRecords()

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
        sizes = counts.sizes
        try:
            # The table first: it says most about what is missing.
            for file, size in reversed(list(zip(files, sizes, strict=True))):
                _require_size(file, size)
        except DistlogError:
            _close_files(files)
            raise
        store, index, table = map(MappedFile, files, sizes)
        return cls(
            Store(store, counts.store_size),
            Index(index, base_offset, counts.record_count),
            BatchTable(table, counts.batch_count),
        )

    @classmethod
    def _of(
        cls, files: list[DiskFile], base_offset: int, limits: SegmentLimits | None
    ) -> SegmentFiles:
        store_size, index_size, table_size = [file.size() for file in files]
        counts = Counts(store_size, index_size // INDEX_ROW_SIZE, table_size // TABLE_ROW_SIZE)
        room: tuple[int | None, ...] = (None, None, None)
        if limits is not None:
            row_count_max = limits.row_count_max
            room = Counts(limits.store_size_max, row_count_max, row_count_max).sizes
        store, index, table = [
            MappedFile(file, size, size_max=size_max)
            for file, size, size_max in zip(files, counts.sizes, room, strict=True)
        ]
        return cls(
            Store(store, counts.store_size),
            Index(index, base_offset, counts.record_count),
            BatchTable(table, counts.batch_count),
            limits,
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

    def sync(self) -> None:
        """Make all three durable.  Blocks."""
        self.store.sync()
        self.index.sync()
        self.table.sync()

    def unmap(self) -> None:
        """End the maps; the descriptors stay."""
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
