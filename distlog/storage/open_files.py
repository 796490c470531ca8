"""Which segments' files are open: as few as the process can afford, the ones that were used last.

A log that nobody uses holds no descriptor and no map, however many segments it has.  Files that were written since they were last
synced are the exception: they stay open, because a failed write-back is reported only to who had the file open.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from distlog.errors import DescriptorsExhausted
from distlog.storage.disk import Disk
from distlog.storage.log_sync import LogSync
from distlog.storage.segment_files import (
    SUFFIXES,
    Counts,
    SegmentFiles,
    SegmentLimits,
    segment_path,
)

Result = TypeVar("Result")

# Sealed segments whose files wait for the next reader: three descriptors each.
SEALED_MAX = 64
# Segments whose files are open to be written, at most: three descriptors each, and one more for each file that is mapped.
WRITTEN_MAX = 10_240
WRITTEN_DESCRIPTORS = 6
# How many of those that were not used for longest are looked at for one that can be closed without a sync.
LOOKED_AT_MAX = 16


class SegmentCache:
    """Open files of the segments of many logs, the least recently used closed first.

    Sealed segments: threads take files out and put them back; files that are out belong to who took them, and two threads that
    read one segment have a set each.  Every step is one operation of OrderedDict, which the interpreter does not interrupt, so no
    lock is needed.  Written segments belong to the thread of their logs.
    """

    def __init__(self, open_max: int = SEALED_MAX, written_max: int = 256) -> None:
        self._open_max = open_max
        self._idle: OrderedDict[str, SegmentFiles] = OrderedDict()
        self._written_max = written_max
        # How many may be open now: fewer than `written_max` where the process ran out of descriptors.
        self._room = written_max
        # The least recently used first.
        self._written: OrderedDict[WrittenFiles, None] = OrderedDict()
        # The process was short of descriptors since files were used last.
        self._give_way = False
        # A sync was needed to close something: a checkpoint would make many of them free at once.
        self.is_short = False
        # Stores in which a read found a batch that was changed, since somebody asked last.
        self.damaged: set[str] = set()

    @classmethod
    def within(cls, open_max: int) -> SegmentCache:
        """Return one for a process that may have `open_max` files open: a half of them for written segments, and more than enough
        for sealed ones.
        """
        return cls(written_max=max(1, min(WRITTEN_MAX, open_max // 2 // WRITTEN_DESCRIPTORS)))

    def __len__(self) -> int:
        """Return how many sealed segments wait for the next reader."""
        return len(self._idle)

    # --- Sealed segments ----------------------------------------------------------------------------

    def take(self, path: str) -> SegmentFiles | None:
        """Return the idle files of the segment whose store is `path`, if there are any."""
        return self._idle.pop(path, None)

    def put(self, files: SegmentFiles) -> None:
        """Keep `files` for the next reader, or close them."""
        if self._idle.setdefault(files.store.path, files) is not files:
            files.close()
        if len(self._idle) > self._open_max:
            self._close_idle(self._open_max)

    def close_idle(self) -> None:
        """Close all idle files: the process is short of descriptors.  From any thread."""
        self._give_way = True
        self._close_idle(0)

    def _close_idle(self, kept: int) -> None:
        while len(self._idle) > kept:
            try:
                _, oldest = self._idle.popitem(last=False)
            except KeyError:
                break
            oldest.close()

    def drop(self, path: str) -> None:
        """Close the idle files of a segment, if there are any."""
        files = self.take(path)
        if files is not None:
            files.close()

    # --- Written segments ---------------------------------------------------------------------------

    @property
    def written_count(self) -> int:
        """How many segments have their files open to be written."""
        return len(self._written)

    def used(self, files: WrittenFiles) -> None:
        """Note that `files` are open and are used now.  May close others; blocks if none of them is synced."""
        written = self._written
        if self._give_way:
            self._make_way()
        elif files in written:
            written.move_to_end(files)
            return
        # Not among them while others are chosen to be closed.
        written.pop(files, None)
        while len(written) >= self._room:
            self._close_one()
        written[files] = None

    def _make_way(self) -> None:
        """Close half of what is open: readers need descriptors too, and cannot take them from here."""
        self._give_way = False
        self._room = max(1, len(self._written) // 2)

    def _close_one(self) -> None:
        for oldest in islice(self._written, LOOKED_AT_MAX):
            if oldest.is_synced:
                oldest.close()
                return
        self.is_short = True
        oldest = next(iter(self._written))
        oldest.sync()
        oldest.changed = False
        oldest.close()

    def with_room(self, operation: Callable[[], Result]) -> Result:
        """Do an operation that opens files; where no descriptor is left, close what was not used for longest, and try again.

        Raises DescriptorsExhausted when nothing is left to close.
        """
        while True:
            try:
                return operation()
            except DescriptorsExhausted:
                if not self._written:
                    raise
                self._make_way()
                while len(self._written) >= self._room:
                    self._close_one()

    def begin_checkpoint(self) -> None:
        """Note that everything that is written is about to be synced."""
        self.is_short = False
        self._room = self._written_max

    def forget(self, files: WrittenFiles) -> None:
        """Note that `files` are closed."""
        self._written.pop(files, None)


class WrittenFiles:
    """The files of one segment that is written, or was and is not synced yet: open when they are needed."""

    def __init__(
        self, disk: Disk, directory: str, base_offset: int, cache: SegmentCache, files: SegmentFiles
    ) -> None:
        assert files.limits is not None, "opened for writing"
        self._disk = disk
        self._directory = directory
        self.base_offset = base_offset
        self._cache = cache
        self._limits: SegmentLimits = files.limits
        # None while they are closed; then `_counts` is what they hold.
        self._files: SegmentFiles | None = files
        self._counts = files.counts
        # Nothing is written any more.
        self.is_sealed = False
        # Written since the last sync was begun.
        self.changed = False
        # The last sync that covers them, done or not.
        self.last_sync: LogSync | None = None
        cache.used(self)

    @property
    def path(self) -> str:
        """The path of the store, which names the segment."""
        return segment_path(self._directory, self.base_offset, SUFFIXES[0])

    @property
    def counts(self) -> Counts:
        """How much data they hold."""
        return self._counts if self._files is None else self._files.counts

    def open(self) -> SegmentFiles:
        """Return the files, to be used at once and not kept: they may be closed when those of another segment are opened."""
        if self._files is None:
            files = self._cache.with_room(
                lambda: SegmentFiles.open(
                    self._disk, self._directory, self.base_offset, self._limits
                )
            )
            files.narrow(self._counts)
            self._files = files
        self._cache.used(self)
        return self._files

    def seal(self) -> None:
        """Take note that nothing is written any more: a sync gives back the space beyond the data."""
        self._counts = self.counts
        self.is_sealed = True
        # Its size is, by the sync that gives back the space.
        self.changed = True
        if self._files is not None:
            self._files.unmap()

    # --- Sync ---------------------------------------------------------------------------------------

    @property
    def is_synced(self) -> bool:
        """Tell whether nothing was written that is not durable."""
        return not self.changed and (self.last_sync is None or self.last_sync.done)

    def sync(self) -> None:
        """Make what is written durable.  Safe in a worker while the files are used: it has descriptors of its own."""
        exact = self._counts.sizes if self.is_sealed else (None, None, None)
        for suffix, size in zip(SUFFIXES, exact, strict=True):
            file = self._disk.open(segment_path(self._directory, self.base_offset, suffix))
            try:
                # Exact sizes say, to every later start, that the segment was complete and synced.
                if size is not None and file.size() != size:
                    file.truncate(size)
                file.sync()
            finally:
                file.close()

    # --- End ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is open; `open` opens it again."""
        self._cache.forget(self)
        if self._files is not None:
            self._counts = self._files.counts
            self._files.close()
            self._files = None
