"""One log: records in the order of their offsets, in segments of which only the last is written.

All methods belong to one thread (the event loop).  What may run in a worker is what they return: a `ReadPlan`, a `TimeSearch`, a
`RetentionPlan`, and the functions of `begin_sync` and `begin_remove_trimmed`.  Only opening and closing wait for
the disk: the caller decides when to sync and when to remove files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from distlog.block import Block
from distlog.errors import DataDirectoryUnusable, OffsetOutOfRange
from distlog.storage.batch_table import BatchRow
from distlog.storage.description import SegmentDescription, describe
from distlog.storage.disk import Disk
from distlog.storage.listing import SegmentListing
from distlog.storage.log_mark import EMPTY_MARK, MARK_NAME, LogMark, MarkFile
from distlog.storage.log_sync import LogSync
from distlog.storage.open_files import SegmentCache, WrittenFiles
from distlog.storage.read_plan import ReadPlan
from distlog.storage.recovery import Recovered, Recovery
from distlog.storage.replacement import fits, held, overlapping, replace
from distlog.storage.retention import RetentionPlan, start_by_offset, start_by_size
from distlog.storage.seed_segment import SeedSegment, seed_segments
from distlog.storage.segment import Segment
from distlog.storage.segment_files import (
    TABLE,
    SegmentFiles,
    SegmentLimits,
    list_segments,
    remove_segment,
)
from distlog.storage.stored_batch import StoredBatch
from distlog.storage.time_search import TimeSearch

__all__ = [
    "BatchRow",
    "Log",
    "LogMark",
    "ReadPlan",
    "RetentionPlan",
    "SegmentLimits",
    "StoredBatch",
    "TimeSearch",
    "remove_log",
]


class Log:
    """A log's directory, open."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        limits: SegmentLimits,
        cache: SegmentCache,
        segments: Sequence[Segment | SeedSegment],
    ) -> None:
        """Use `create`, `open` or `open_at`."""
        self._disk = disk
        self._path = path
        self._limits = limits
        self._cache = cache
        # Ascending and without gaps.
        self._segments = list(segments)
        last = self._segments[-1]
        # The last segment, which alone is written; None in a seed's directory, which is only read.
        self._active = last if isinstance(last, Segment) else None
        # The first offset still kept.  Invariant: it is not before the first segment.
        self.start_offset = self._segments[0].base_offset
        # One past the last record.
        self.next_offset = last.next_offset
        # That of the last batch; no later batch has an earlier one.
        self.last_timestamp_ms = 0
        # What opening did beyond reading, in sentences: the caller logs them.
        self.recovery: list[str] = []
        self._marks: MarkFile | None = None
        # What the next sync has to cover beside the active files: those of sealed segments, and names.
        self._unsynced: list[WrittenFiles] = []
        self._names_changed = False
        self._last_sync: LogSync | None = None

    # --- Open -------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        disk: Disk,
        path: str,
        limits: SegmentLimits,
        cache: SegmentCache | None = None,
        *,
        durable: bool = True,
    ) -> Log:
        """Make an empty log in a new or empty directory.  It is durable when this returns.

        durable: if False nothing is synced, and nothing waits for the disk.  The log is durable after its first sync and
        one of the directory that it lies in; a crash before leaves any part of its names.
        """
        cache = SegmentCache() if cache is None else cache
        if not durable:
            disk.make_directory(path, durable=False)
            recovered = Recovery(disk, path, limits, cache).recover(EMPTY_MARK)
            return cls._recovered(disk, path, limits, cache, recovered, MarkFile.absent(disk, path))
        disk.make_directory(path)
        marks = MarkFile.create(disk, path)
        marks.write(EMPTY_MARK)
        # First: without a mark, files of a segment would be taken for a seed's.
        disk.sync_directory(path)
        recovered = Recovery(disk, path, limits, cache).recover(EMPTY_MARK)
        disk.sync_directory(path)
        recovered.names_changed = False
        return cls._recovered(disk, path, limits, cache, recovered, marks)

    @classmethod
    def open(
        cls, disk: Disk, path: str, limits: SegmentLimits, cache: SegmentCache | None = None
    ) -> Log:
        """Open a log that has no checkpoint: keep what was synced and every whole batch after it.

        What is not whole is cut off, what was promised and is damaged is set aside; `recovery` says
        so.  A directory of the seed system is opened in place, to be read.
        """
        found = list_segments(disk, path)
        marks = MarkFile.open(disk, path)
        cache = SegmentCache() if cache is None else cache
        if marks is None and not any(TABLE in suffixes for suffixes in found.values()):
            if not found:
                raise DataDirectoryUnusable(path=path, problem="there is no log in it")
            return cls(disk, path, limits, cache, seed_segments(disk, path, list(found)))
        doubt = ""
        if marks is None:
            doubt = f"{path}/{MARK_NAME} is missing: what was synced is inferred"
        else:
            # What a trim left goes because the mark says so: first the mark must be there to stay.
            marks.confirm()
            doubt = marks.problem
        recovery = Recovery(disk, path, limits, cache)
        recovered = recovery.recover(marks.mark if marks else None, doubt)
        log = cls._recovered(disk, path, limits, cache, recovered, marks)
        if log._names_changed or marks is None or marks.mark != log.mark():
            # Recovery synced the files that it kept.  The process that made them may have been
            # killed before it synced their names; from now on both are promised.
            log._names_changed = True
            log.begin_sync()()
        return log

    @classmethod
    def open_at(
        cls,
        disk: Disk,
        path: str,
        limits: SegmentLimits,
        mark: LogMark,
        cache: SegmentCache | None = None,
    ) -> Log:
        """Open a log at a checkpoint's mark: everything after it is cut off.

        A sealed segment that is missing or cut short is set aside (`has_set_aside`), and reads of it are refused until `replace`.
        Raises CorruptBatch if the segment of the mark is not whole up to it; nothing was promised beyond it.
        """
        cache = SegmentCache() if cache is None else cache
        marks = MarkFile.open(disk, path) or MarkFile.create(disk, path)

        def before_cut(cuts: bool) -> None:
            # A mark beyond what is about to be cut would later take the cut for damage.
            if marks.mark != mark:
                marks.write(mark)
            elif cuts:
                marks.confirm()

        recovered = Recovery(disk, path, limits, cache).cut_to(mark, before_cut)
        if marks.problem:
            recovered.notes.append(marks.problem)
        if recovered.names_changed:
            # What was cut off must not come back beside what takes its place.
            disk.sync_directory(path)
            recovered.names_changed = False
        return cls._recovered(disk, path, limits, cache, recovered, marks)

    @classmethod
    def _recovered(
        cls,
        disk: Disk,
        path: str,
        limits: SegmentLimits,
        cache: SegmentCache,
        recovered: Recovered,
        marks: MarkFile | None,
    ) -> Log:
        log = cls(disk, path, limits, cache, recovered.segments)
        log.start_offset = recovered.start_offset
        log.last_timestamp_ms = recovered.last_timestamp_ms
        log.recovery = recovered.notes
        log._names_changed = recovered.names_changed
        log._marks = marks
        if log._active is not None:
            # A log that nobody uses has nothing open.
            log._active.files.close()
        return log

    @property
    def path(self) -> str:
        return self._path

    @property
    def is_read_only(self) -> bool:
        """Tell whether this is a directory of the seed system: import it to append to it."""
        return self._active is None

    # --- Append -----------------------------------------------------------------------------------

    def append(self, block: Block, *, timestamp_ms: int, raft_index: int, term: int) -> int:
        """Append a checked block as one batch, and return its base offset.

        The stored time is never before that of the batch before.  Raises StorageFull, and then
        nothing was appended.
        """
        active = self._active
        assert active is not None, "a seed's directory is only read"
        if not active.has_room(block, self._limits):
            active = self._roll()
        timestamp_ms = max(timestamp_ms, self.last_timestamp_ms)
        base_offset = self.next_offset
        active.append(block, timestamp_ms, raft_index, term)
        self.next_offset = active.next_offset
        self.last_timestamp_ms = timestamp_ms
        return base_offset

    def _roll(self) -> Segment:
        """Seal the active segment and begin the next one."""
        assert self._active is not None
        # First the part that a full disk can refuse.
        files = self._cache.with_room(
            lambda: SegmentFiles.create(self._disk, self._path, self.next_offset, self._limits)
        )
        self._unsynced.append(self._active.seal())
        active = Segment(self._disk, self._path, self.next_offset, self._cache, files)
        self._segments.append(active)
        self._active = active
        self._names_changed = True
        return active

    # --- Read -------------------------------------------------------------------------------------

    def plan_read(self, offset: int, size_max: int) -> ReadPlan:
        """Decide a read of whole batches from the one that holds `offset`, which may begin before
        it.

        At least one batch, and more while their bytes fit `size_max`.  Raises OffsetOutOfRange.
        """
        number = self._find_segment(offset)
        first = self._segments[number]
        if first is self._active:
            return ReadPlan([first], offset, size_max, blocking=False)
        segments = [first]
        size = 0
        for segment in self._segments[number + 1 :]:
            # The active segment stays with this thread.
            if size >= size_max or segment is self._active:
                break
            segments.append(segment)
            size += segment.store_size
        return ReadPlan(segments, offset, size_max, blocking=True)

    def read(self, offset: int, size_max: int) -> list[StoredBatch]:
        """Read at once what `plan_read` describes; a sealed segment blocks."""
        return self.plan_read(offset, size_max).run()

    def read_record(self, offset: int) -> bytes:
        """Return one record's data, through the index.  Raises OffsetOutOfRange, CorruptBatch."""
        return self._segments[self._find_segment(offset)].read_record(offset)

    def batch_of(self, offset: int) -> BatchRow:
        """Return what the table says of the batch that holds `offset`."""
        return self._segments[self._find_segment(offset)].batch_of(offset)

    def _find_segment(self, offset: int) -> int:
        if not self.start_offset <= offset < self.next_offset:
            raise OffsetOutOfRange(
                offset=offset, start_offset=self.start_offset, high_watermark=self.next_offset
            )
        last = len(self._segments) - 1
        if offset >= self._segments[last].base_offset:
            return last
        return bisect_right(self._segments, offset, key=lambda segment: segment.base_offset) - 1

    def plan_time_search(self, timestamp_ms: int) -> TimeSearch:
        """Decide the search for the first batch at or after `timestamp_ms`, of those that are kept.

        It gives the batch's base offset (or `start_offset`, where it begins before), and
        `next_offset` if there is none.  Raises CorruptBatch if a damaged row of the active segment
        hides it.
        """
        segments, end = self._kept_segments(), self.next_offset
        if timestamp_ms > self.last_timestamp_ms or self.start_offset == end:
            segments = []
        elif self._active is not None:
            segments = segments[:-1]
            if self._active.batch_count:
                end = self._active.find_time(timestamp_ms)
                if end > self._active.base_offset:
                    segments = []
        return TimeSearch(segments, timestamp_ms, self.start_offset, end)

    @property
    def size(self) -> int:
        """Bytes of store of the segments that hold what is kept."""
        return sum([segment.store_size for segment in self._kept_segments()])

    def _kept_segments(self) -> list[Segment | SeedSegment]:
        first = bisect_right(
            self._segments, self.start_offset, key=lambda segment: segment.base_offset
        )
        return self._segments[first - 1 :]

    # --- Trim -------------------------------------------------------------------------------------

    def plan_retention(
        self, *, size: int = 0, before_ms: int | None = None, offset: int = 0
    ) -> RetentionPlan:
        """Decide the question which start would keep only what a retention asks for.

        size: at least the newest so many bytes of store; 0: all.  before_ms: what is not older than
        this time; None: all.  offset: this one and what is after it.  Where they differ the higher
        start is the answer.  It is never below `start_offset`, and where it is higher whole
        segments go.
        """
        segments, start = self._kept_segments(), self.start_offset
        if size:
            start = max(start, start_by_size(segments, size))
        start = max(start, start_by_offset(segments, offset))
        return RetentionPlan(segments, start, before_ms)

    def trim(self, start_offset: int) -> None:
        """Make the records before `start_offset` unreadable.  No file is touched."""
        assert self._active is not None, "a seed's directory is only read"
        self.start_offset = max(self.start_offset, min(start_offset, self.next_offset))

    def has_trimmed(self, start_offset: int) -> bool:
        """Tell whether a sealed segment lies below `start_offset`."""
        first = self._segments[0]
        return first.next_offset <= start_offset and first is not self._active

    def begin_remove_trimmed(self, start_offset: int) -> Callable[[], None]:
        """Let go of the sealed segments that lie below `start_offset` and that nobody reads any more.

        Only after a mark that contains the trim is durable.  What a reader still holds goes next time.  Returns a function that
        unlinks the files: run it in a worker, once.
        """
        assert start_offset <= self.start_offset, "the files of what can be read are kept"
        self._close_synced()
        syncing = {files.path for files in self._last_sync.files} if self._last_sync else set()
        removed: list[int] = []
        while (first := self._segments[0]) is not self._active:
            if first.next_offset > start_offset or len(first.readers) or first.path in syncing:
                break
            self._forget_unsynced(first.path)
            first.close()
            removed.append(first.base_offset)
            del self._segments[0]
            self._names_changed = True

        def unlink() -> None:
            for base_offset in removed:
                remove_segment(self._disk, self._path, base_offset)

        return unlink

    def _forget_unsynced(self, path: str) -> None:
        for files in self._unsynced:
            if files.path == path:
                files.close()
        self._unsynced = [files for files in self._unsynced if files.path != path]

    # --- Sync -------------------------------------------------------------------------------------

    def mark(self) -> LogMark:
        """Return where the log is now: what a checkpoint keeps of it."""
        active = self._active
        assert active is not None, "a seed's directory is only read"
        return LogMark(
            self.start_offset,
            self.next_offset,
            self.last_timestamp_ms,
            active.base_offset,
            active.store_size,
        )

    def begin_sync(self) -> LogSync:
        """Return a function that makes everything up to its `mark`, taken now, durable.

        Run it in a worker, once, and before the next `begin_sync` or `close`; if it raises DiskFailed, the process must stop.
        """
        assert self._active is not None, "a seed's directory is only read"
        if self._marks is None:
            self._marks = MarkFile.absent(self._disk, self._path)
            self._names_changed = True
        written = self._unsynced
        active = self._active.files
        if active.changed:
            written.append(active)
        names_changed = self._names_changed
        last = self._last_sync
        if last is not None:
            self._close_synced()
            if not last.done:
                # It never ran to its end: do its part too.
                written = [*last.files, *[files for files in written if files not in last.files]]
                names_changed = names_changed or last.names_changed
        sync = LogSync(
            self._disk, self._path, written, self._marks, self.mark(), names_changed=names_changed
        )
        for files in written:
            files.changed, files.last_sync = False, sync
        self._unsynced, self._names_changed = [], False
        self._last_sync = sync
        return sync

    def _close_synced(self) -> None:
        if self._last_sync is not None and self._last_sync.done:
            for files in self._last_sync.files:
                # One that was active then may have been written to, and sealed, since.
                if files.is_sealed and files.is_synced:
                    files.close()
            self._last_sync = None

    # --- Replace ----------------------------------------------------------------------------------

    @property
    def has_set_aside(self) -> bool:
        """Tell whether a segment could not be read when the log was opened, and was not replaced since."""
        return any(segment.quarantine is not None for segment in self._segments)

    def hold(self, first: int, end: int) -> AbstractContextManager[None]:
        """Have the files of the sealed segments with one of these offsets stay, whatever is trimmed or deleted meanwhile."""
        return held(overlapping(self._segments, first, end))

    def can_replace(self, listings: Sequence[SegmentListing]) -> bool:
        """Tell whether sealed segments of a peer fit in the place of those that they overlap."""
        return fits(self._segments, listings)

    def replace(self, listings: Sequence[SegmentListing]) -> None:
        """Have segments be read whose files were put in place, durably, instead of those that they overlap: `can_replace`."""
        new = [Segment.sealed(self._disk, self._path, each, self._cache) for each in listings]
        replace(self._segments, new)

    # --- End --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back reserved space, make everything durable, and close the files.  Blocks."""
        if self._active is not None:
            self._active.give_back()
            self.begin_sync()()
            self._close_synced()
        for segment in self._segments:
            segment.close()

    def discard(self) -> bool:
        """Close the files of a log that is about to be removed; nothing is made durable.  False if a reader holds a part of it."""
        if any(len(segment.readers) for segment in self._segments):
            return False
        for files in (*self._unsynced, *(self._last_sync.files if self._last_sync else ())):
            files.close()
        for segment in self._segments:
            segment.close()
        return True

    def describe(self) -> list[SegmentDescription]:
        """Return what there is, segment by segment."""
        return describe(self._segments)


def remove_log(disk: Disk, path: str) -> None:
    """Remove a log's directory, of a topic that was deleted or never came to be.  Its log is
    closed.
    """
    for base_offset in list_segments(disk, path):
        remove_segment(disk, path, base_offset)
    mark_path = f"{path}/{MARK_NAME}"
    if disk.exists(mark_path):
        disk.remove(mark_path)
    disk.remove(path)
