"""Opening a log's directory: what is kept, cut, rebuilt or set aside.

Both ways of opening start from a mark: what lies before it was synced, and is checked only for being there (a flipped bit is
found by the read that needs the byte).

- `cut_to` (consensus): what lies after the mark is removed, since the journal brings it again.  The segment of the mark must be
  whole up to it: the journal goes on there, and every node must roll at the same batch.
- `recover` (a log on its own): after the mark each batch is checked, and the log is cut at the first that is not whole.

What is missing before the mark is never cut away: the sealed segment is put into quarantine, its files stay as they are, and reads of it
are refused until it is replaced.  `recover` does the same with the segment of the mark, and goes on in a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from distlog.errors import CorruptBatch
from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.disk import Disk
from distlog.storage.index import ROW_SIZE as INDEX_ROW_SIZE
from distlog.storage.invariants import Fault
from distlog.storage.log_mark import LogMark
from distlog.storage.open_files import SegmentCache
from distlog.storage.rewriting import rewrite
from distlog.storage.segment import Segment
from distlog.storage.segment_check import (
    Extent,
    ends_right,
    last_whole_row,
    marked_extent,
    rebuild_index,
    sealed_extent,
    walk_batches,
)
from distlog.storage.segment_files import (
    INDEX,
    STORE,
    SUFFIXES,
    Counts,
    SegmentFiles,
    SegmentLimits,
    list_segments,
    remove_segment,
    segment_path,
)

# Bytes of one of what `Counts` counts.
UNITS = (1, INDEX_ROW_SIZE, TABLE_ROW_SIZE)


@dataclass(slots=True)
class Recovered:
    """A log's segments as they were found or made, ascending; the last one is active."""

    start_offset: int
    last_timestamp_ms: int
    segments: list[Segment] = field(default_factory=list)
    # What was done, one sentence each.
    notes: list[str] = field(default_factory=list)
    # Names were made or removed that the directory does not durably have or lack yet.
    names_changed: bool = False

    @property
    def next_offset(self) -> int:
        return self.segments[-1].next_offset


class Recovery:
    """One opening of one log's directory."""

    def __init__(
        self, disk: Disk, directory: str, limits: SegmentLimits, cache: SegmentCache
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._limits = limits
        self._cache = cache
        # Suffixes that exist, by base offset; what is removed leaves it.
        self._found = list_segments(disk, directory)
        self._log = Recovered(0, 0)

    # --- The two ways -----------------------------------------------------------------------------

    def cut_to(self, mark: LogMark, before_cut: Callable[[bool], None]) -> Recovered:
        """Keep exactly what lies before `mark`.

        Raises CorruptBatch if the segment of the mark is not whole up to it; nothing that a start needs was removed then.
        before_cut: called once all of it was found, before anything that follows it goes, and told whether anything does.
        """
        mark = self._after_trim(mark)
        self._log = Recovered(mark.start_offset, mark.last_timestamp_ms)
        self._remove_trimmed(mark)
        self._known_segments(mark)
        extent, files = self._marked_segment(mark)
        later = [base for base in self._found if base > mark.segment_base_offset]
        if not len(files.table.written_after(extent.batch_count)):
            # Reserved space in which nothing was appended: what has no row is gone over by the next append.  There may be
            # thousands of logs that nobody wrote to since, and a cut of each would be synced.
            files.narrow(_counts(files, extent))
        before_cut(bool(later) or files.counts != _counts(files, extent))
        # The last one first: a crash in between leaves no gap.
        for base_offset in reversed(later):
            self._remove(base_offset, "it begins after the checkpoint, and the journal has it")
        self._activate(files, extent, changed=False)
        return self._log

    def recover(self, mark: LogMark | None, doubt: str = "") -> Recovered:
        """Keep what lies before the mark and every whole batch that follows it.

        doubt: why more may have been promised than the mark says; empty if that cannot be.
        """
        mark = self._after_trim(mark or self._infer_mark())
        self._log = Recovered(mark.start_offset, mark.last_timestamp_ms)
        if doubt:
            self._note(doubt)
        self._remove_trimmed(mark)
        self._known_segments(mark)
        try:
            extent, files = self._marked_segment(mark)
        except CorruptBatch as error:
            if mark.next_offset == mark.segment_base_offset:
                # Nothing was promised, yet there is something: not what a crash leaves.
                raise
            fault = Fault(error.path, error.position, mark.segment_base_offset, error.problem)
            self._quarantine(mark.segment_base_offset, mark.next_offset, fault)
            self._remove_later(mark.segment_base_offset)
            self._start_segment(mark.next_offset)
            return self._log
        self._walk(mark.segment_base_offset, files, extent, cautious=bool(doubt))
        return self._log

    # --- Before the mark --------------------------------------------------------------------------

    def _infer_mark(self) -> LogMark:
        """Return the mark of a log whose own is lost: all segments but the last are taken as
        promised.
        """
        first, last = min(self._found, default=0), max(self._found, default=0)
        return LogMark(first, last, 0, last, 0)

    def _after_trim(self, mark: LogMark) -> LogMark:
        """Move a mark to the next segment if its own was sealed, trimmed and removed since.

        That segment was sealed where the mark is, so the next append rolled there, and does again.
        """
        base_offset = mark.segment_base_offset
        if mark.start_offset < mark.next_offset or mark.next_offset == base_offset:
            return mark
        if self._found.get(base_offset) == set(SUFFIXES):
            return mark
        if self._found.get(mark.next_offset, set(SUFFIXES)) != set(SUFFIXES):
            # Its names never were promised either.
            remove_segment(self._disk, self._directory, mark.next_offset)
            del self._found[mark.next_offset]
        return mark._replace(segment_base_offset=mark.next_offset, store_position=0)

    def _remove_trimmed(self, mark: LogMark) -> None:
        """Remove what a trim left behind: it was durable, the removal was not."""
        bases = [base for base in self._found if base < mark.segment_base_offset]
        for base_offset, next_base in pairwise([*bases, mark.segment_base_offset]):
            if next_base <= mark.start_offset:
                self._remove(base_offset, f"it lies below the start offset {mark.start_offset}")

    def _known_segments(self, mark: LogMark) -> None:
        """Check that the sealed segments before the mark are there, and chain; set aside what is not."""
        bases = [base for base in self._found if base < mark.segment_base_offset]
        end = bases[0] if bases else mark.segment_base_offset
        if mark.start_offset < end:
            self._missing(mark.start_offset, end)
        for base_offset, end in pairwise([*bases, mark.segment_base_offset]):
            try:
                segment = self._sealed_segment(base_offset, end)
            except CorruptBatch as error:
                fault = Fault(error.path, error.position, base_offset, error.problem)
                self._quarantine(base_offset, end, fault)
                continue
            self._log.segments.append(segment)
            if segment.next_offset < end:
                self._missing(segment.next_offset, end)

    def _missing(self, first: int, end: int) -> None:
        problem = f"no segment has offsets {first} to {end - 1}"
        fault = Fault(segment_path(self._directory, first, STORE), 0, first, problem)
        self._quarantine(first, end, fault)

    def _sealed_segment(self, base_offset: int, end: int) -> Segment:
        """Check a segment that may hold offsets up to `end`; its last row says how far it goes."""
        self._check_present(base_offset)
        files = SegmentFiles.open(self._disk, self._directory, base_offset, self._limits)
        try:
            extent = sealed_extent(files, end)
            self._repair_index(files, extent)
        finally:
            files.close()
        self._log.last_timestamp_ms = max(self._log.last_timestamp_ms, extent.last_timestamp_ms)
        return self._segment(base_offset, extent)

    def _marked_segment(self, mark: LogMark) -> tuple[Extent, SegmentFiles]:
        """Open the segment that the mark lies in, and find the mark's row in its table."""
        base_offset = mark.segment_base_offset
        if mark.next_offset == base_offset and not self._has_bytes(base_offset):
            # It held nothing, so not all of its names need to have reached the disk.
            remove_segment(self._disk, self._directory, base_offset)
            start = Extent(0, base_offset, 0, mark.last_timestamp_ms)
            return start, self._create(base_offset)
        self._check_present(base_offset)
        files = SegmentFiles.open(self._disk, self._directory, base_offset, self._limits)
        try:
            extent = marked_extent(files, mark)
            self._repair_index(files, extent)
        except BaseException:
            files.close()
            raise
        return extent, files

    def _has_bytes(self, base_offset: int) -> bool:
        for suffix in self._found.get(base_offset, set()):
            file = self._disk.open(
                segment_path(self._directory, base_offset, suffix), writable=False
            )
            size = file.size()
            file.close()
            if size:
                return True
        return False

    def _check_present(self, base_offset: int) -> None:
        missing = set(SUFFIXES) - self._found.get(base_offset, set())
        if missing == {INDEX}:
            # It is rebuilt from the store; the other two hold what nothing else has.
            self._disk.open(segment_path(self._directory, base_offset, INDEX), create=True).close()
            self._log.names_changed = True
        elif missing:
            path = segment_path(self._directory, base_offset, min(missing))
            raise CorruptBatch(path=path, position=0, problem="the file is missing")

    # --- After the mark ---------------------------------------------------------------------------

    def _walk(
        self, base_offset: int, files: SegmentFiles, start: Extent, *, cautious: bool
    ) -> None:
        """Follow the whole batches from `start` through the segments, and cut where they end."""
        while True:
            extent, fault = walk_batches(files, start)
            if fault and cautious and self._keep_unpromised(files, base_offset, extent, fault):
                return
            if extent != start:
                self._rebuild_index(files, start, extent)
            if fault:
                self._note(
                    f"cut {files.store.path} at offset {extent.next_offset}: {fault.problem}"
                )
            following = extent.next_offset
            if fault or following == base_offset or self._found.get(following) != set(SUFFIXES):
                break
            self._rewrite(files, start, extent)
            # Also if nothing is new here: its exact size, which says that it is complete, may be.
            self._finish(files, extent, changed=True)
            files.close()
            self._log.segments.append(self._segment(base_offset, extent))
            base_offset = following
            files = SegmentFiles.open(self._disk, self._directory, base_offset, self._limits)
            start = Extent(0, base_offset, 0, extent.last_timestamp_ms)
        self._remove_later(base_offset)
        self._rewrite(files, start, extent)
        self._activate(files, extent, changed=extent != start)

    def _keep_unpromised(
        self, files: SegmentFiles, base_offset: int, extent: Extent, fault: Fault
    ) -> bool:
        """Set a segment aside if whole rows follow the fault: without a mark, they may have
        been promised.
        """
        last = last_whole_row(files.table, extent.batch_count + 1)
        if last is None:
            return False
        files.close()
        self._quarantine(base_offset, last.next_offset, fault)
        self._remove_later(base_offset)
        self._start_segment(last.next_offset)
        return True

    def _remove_later(self, base_offset: int) -> None:
        for later in reversed([base for base in self._found if base > base_offset]):
            self._remove(later, "it follows what was never synced and is not whole")

    # --- What both do -----------------------------------------------------------------------------

    def _activate(self, files: SegmentFiles, extent: Extent, *, changed: bool) -> None:
        self._finish(files, extent, changed=changed)
        base_offset = files.index.base_offset
        segment = Segment(self._disk, self._directory, base_offset, self._cache, files)
        segment.measure()
        self._log.segments.append(segment)
        self._log.last_timestamp_ms = max(self._log.last_timestamp_ms, extent.last_timestamp_ms)

    def _finish(self, files: SegmentFiles, extent: Extent, *, changed: bool) -> None:
        """Cut a segment's files to what is whole, durably: what is cut off must not come back."""
        counts = _counts(files, extent)
        if files.counts != counts:
            files.narrow(counts)
            files.truncate()
            changed = True
        if changed:
            files.sync()

    def _rewrite(self, files: SegmentFiles, start: Extent, extent: Extent) -> None:
        """Write what was found after the mark again: it is about to be promised, and perhaps only looks written."""
        if extent == start:
            return
        before, now = _counts(files, start), _counts(files, extent)
        for suffix, first, end, unit in zip(SUFFIXES, before, now, UNITS, strict=True):
            path = segment_path(self._directory, files.index.base_offset, suffix)
            file = self._disk.open(path)
            try:
                rewrite(file, first * unit, end * unit)
            finally:
                file.close()

    def _repair_index(self, files: SegmentFiles, extent: Extent) -> None:
        """Rebuild the index of what was synced if its end is wrong.  Nothing is wrong with it
        otherwise.
        """
        if ends_right(files.index, files.store, _end(files, extent)):
            return
        start = Extent(0, files.index.base_offset, 0, 0)
        try:
            self._rebuild_index(files, start, extent)
        except CorruptBatch as error:
            if files.index.row_count < extent.next_offset - files.index.base_offset:
                raise
            # The rows are there, the store is damaged: the read that needs the damaged batch says
            # so.
            self._note(f"found {error.path} corrupt at byte {error.position}: {error.problem}")

    def _rebuild_index(self, files: SegmentFiles, start: Extent, extent: Extent) -> None:
        begin, end = _end(files, start), _end(files, extent)
        count = rebuild_index(files.index, files.store, begin, end)
        if count:
            files.index.truncate()
            files.index.sync()
            self._note(f"rebuilt {count} rows of {files.index.path} from the store")

    def _segment(self, base_offset: int, extent: Extent) -> Segment:
        segment = Segment(self._disk, self._directory, base_offset, self._cache)
        segment.next_offset = extent.next_offset
        segment.store_size = extent.store_size
        segment.batch_count = extent.batch_count
        return segment

    def _quarantine(self, base_offset: int, next_offset: int, fault: Fault) -> None:
        segment = self._segment(base_offset, Extent(0, next_offset, 0, 0))
        segment.quarantine = fault.error()
        self._log.segments.append(segment)
        self._note(
            f"offsets {base_offset} to {next_offset - 1} cannot be read: {fault.path} is corrupt "
            f"at byte {fault.position} ({fault.problem}); its files are kept"
        )

    def _start_segment(self, base_offset: int) -> None:
        files = self._create(base_offset)
        segment = Segment(self._disk, self._directory, base_offset, self._cache, files)
        self._log.segments.append(segment)

    def _create(self, base_offset: int) -> SegmentFiles:
        self._log.names_changed = True
        return SegmentFiles.create(self._disk, self._directory, base_offset, self._limits)

    def _remove(self, base_offset: int, reason: str) -> None:
        remove_segment(self._disk, self._directory, base_offset)
        del self._found[base_offset]
        self._log.names_changed = True
        path = segment_path(self._directory, base_offset, STORE)
        self._note(f"removed {path} and its index and table: {reason}")

    def _note(self, sentence: str) -> None:
        self._log.notes.append(sentence)


def _counts(files: SegmentFiles, extent: Extent) -> Counts:
    record_count = extent.next_offset - files.index.base_offset
    return Counts(extent.store_size, record_count, extent.batch_count)


def _end(files: SegmentFiles, extent: Extent) -> tuple[int, int]:
    return extent.next_offset - files.index.base_offset, extent.store_size
