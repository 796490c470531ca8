"""A look at a log's directory that changes nothing: what `distlog inspect` shows and `distlog
verify` checks.

A survey is shallow (what was promised is taken as it is, only what follows it is checked) or deep
(every checksum, every row).  Nothing is opened for writing; what the next start would do about an
oddity is said in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from distlog.errors import CorruptBatch, DataDirectoryUnusable
from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.disk import Disk
from distlog.storage.log_mark import MARK_NAME, LogMark, MarkFile
from distlog.storage.seed_segment import SeedSegment, seed_segments
from distlog.storage.segment_check import (
    Extent,
    Fault,
    index_fault,
    marked_extent,
    sealed_extent,
    walk_batches,
)
from distlog.storage.segment_files import (
    STORE,
    SUFFIXES,
    TABLE,
    SegmentFiles,
    list_segments,
    segment_path,
)


@dataclass(frozen=True, slots=True)
class SegmentSurvey:
    """What there is of one segment."""

    base_offset: int
    next_offset: int
    batch_count: int
    # Bytes of frames; the files may be larger by reserved space.
    store_size: int
    # None in an empty segment, and in one of the seed, which kept no time.
    first_timestamp_ms: int | None
    last_timestamp_ms: int | None

    @property
    def record_count(self) -> int:
        return self.next_offset - self.base_offset


@dataclass(slots=True)
class LogSurvey:
    """What there is of one log."""

    path: str
    # Whether it is a directory of the seed system.
    is_seed: bool
    start_offset: int
    next_offset: int
    # Up to here it was synced; None if nothing says so.
    promised_offset: int | None
    segments: list[SegmentSurvey] = field(default_factory=list)
    # What is wrong with what was promised: the first fault of each segment.
    faults: list[Fault] = field(default_factory=list)
    # What is odd and harms nobody, in sentences.
    notes: list[str] = field(default_factory=list)

    @property
    def store_size(self) -> int:
        return sum(segment.store_size for segment in self.segments)


def survey_log(
    disk: Disk,
    path: str,
    mark: LogMark | None = None,
    *,
    deep: bool = False,
    progress: Callable[[int], None] = lambda size: None,
) -> LogSurvey:
    """Look at a log's directory.  `mark` is a checkpoint's; without one the log's own counts.

    progress: called with the bytes of frames that were checked so far.
    Raises DataDirectoryUnusable if there is no log.
    """
    found = list_segments(disk, path)
    marks = MarkFile.open(disk, path, writable=False)
    if marks is None and mark is None:
        if not found:
            raise DataDirectoryUnusable(path=path, problem="there is no log in it")
        if not any(TABLE in suffixes for suffixes in found.values()):
            return _survey_seed(disk, path, list(found))
    own_mark = None
    if marks is not None:
        own_mark = marks.mark
        marks.close()
    return _Survey(disk, path, found, mark or own_mark, deep, progress).run()


class _Survey:
    """One pass over the segments of a log, in the order of their offsets."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        found: dict[int, set[str]],
        mark: LogMark | None,
        deep: bool,
        progress: Callable[[int], None],
    ) -> None:
        self._disk = disk
        self._path = path
        self._found = found
        self._deep = deep
        self._progress = progress
        self._checked_size = 0
        first, last = min(found, default=0), max(found, default=0)
        # Without a mark all segments but the last are taken as promised, as recovery does.
        self._mark = mark or LogMark(first, last, 0, last, 0)
        start = self._mark.start_offset
        self._log = LogSurvey(path, False, start, start, mark.next_offset if mark else None)
        if mark is None:
            self._note(
                f"{path}/{MARK_NAME} is missing or cannot be read: nothing says what was synced"
            )

    def run(self) -> LogSurvey:
        log, mark = self._log, self._mark
        bases = list(self._found)
        for base_offset, following in pairwise([*bases, None]):
            assert base_offset is not None
            if following is not None and following <= mark.start_offset:
                self._note(f"{self._file(base_offset)} was trimmed: the next start removes it")
            elif base_offset > log.next_offset and base_offset > mark.segment_base_offset:
                self._note(f"{self._file(base_offset)} follows what is not whole: it goes as well")
            else:
                if base_offset > log.next_offset:
                    self._missing(log.next_offset, base_offset)
                self._segment(base_offset, self._promised_end(base_offset, following))
        if log.next_offset < mark.next_offset:
            self._missing(log.next_offset, mark.next_offset)
        return log

    def _promised_end(self, base_offset: int, following: int | None) -> int:
        """Return one past the last offset that this segment must have."""
        mark = self._mark
        if base_offset < mark.segment_base_offset:
            return mark.segment_base_offset if following is None else following
        return mark.next_offset if base_offset == mark.segment_base_offset else base_offset

    def _segment(self, base_offset: int, promised: int) -> None:
        missing = set(SUFFIXES) - self._found[base_offset]
        if missing:
            path = self._file(base_offset, min(missing))
            self._report(Fault(path, 0, base_offset, "the file is missing"), promised)
            self._log.next_offset = max(self._log.next_offset, promised)
            return
        files = SegmentFiles.open(self._disk, self._path, base_offset)
        try:
            extent, fault = self._check(files, base_offset, promised)
            if fault is None and extent.next_offset < promised:
                position = extent.batch_count * TABLE_ROW_SIZE
                problem = f"the batches end at offset {extent.next_offset}, not at {promised}"
                fault = Fault(files.table.path, position, extent.next_offset, problem)
            if fault is not None:
                self._report(fault, promised)
            self._log.segments.append(_describe(files, extent))
            self._log.next_offset = max(extent.next_offset, promised)
        finally:
            files.close()

    def _check(
        self, files: SegmentFiles, base_offset: int, promised: int
    ) -> tuple[Extent, Fault | None]:
        """Return how far the segment is whole, and the first thing that is wrong with it."""
        start = Extent(0, base_offset, 0, 0)
        if self._deep:
            checked = self._checked_size
            extent, fault = walk_batches(files, start, lambda size: self._progress(checked + size))
            self._checked_size += extent.store_size
            wrong_row = index_fault(files, extent)
            if wrong_row is not None and (fault is None or wrong_row.offset < fault.offset):
                fault = wrong_row
            return extent, fault
        try:
            if base_offset == self._mark.segment_base_offset:
                start = marked_extent(files, self._mark)
            elif promised > base_offset:
                return sealed_extent(files, promised), None
        except CorruptBatch as error:
            return start, Fault(error.path, error.position, base_offset, error.problem)
        return walk_batches(files, start)

    # --- What is said about it --------------------------------------------------------------------

    def _missing(self, first: int, end: int) -> None:
        problem = f"no segment has offsets {first} to {end - 1}"
        self._log.faults.append(Fault(self._file(first), 0, first, problem))
        self._log.next_offset = end

    def _report(self, fault: Fault, promised: int) -> None:
        if fault.offset < promised:
            self._log.faults.append(fault)
            return
        self._note(
            f"{fault.path} is not whole at byte {fault.position}, offset {fault.offset} "
            f"({fault.problem}): that was never synced, the next start cuts or repairs it"
        )

    def _note(self, sentence: str) -> None:
        self._log.notes.append(sentence)

    def _file(self, base_offset: int, suffix: str = STORE) -> str:
        return segment_path(self._path, base_offset, suffix)


def _describe(files: SegmentFiles, extent: Extent) -> SegmentSurvey:
    first = last = None
    try:
        if extent.batch_count:
            first = files.table.row(0).timestamp_ms
            last = files.table.row(extent.batch_count - 1).timestamp_ms
    except CorruptBatch:
        # It is among the faults if anybody looks for them.
        pass
    return SegmentSurvey(
        files.index.base_offset,
        extent.next_offset,
        extent.batch_count,
        extent.store_size,
        first,
        last,
    )


def _survey_seed(disk: Disk, path: str, bases: list[int]) -> LogSurvey:
    """A seed has no checksums: what can be checked is how its records follow each other."""
    log = LogSurvey(path, True, bases[0], bases[0], None)
    for segment in seed_segments(disk, path, bases):
        if segment.base_offset > log.next_offset:
            before = log.segments[-1]
            problem = (
                f"the records end at offset {before.next_offset}, and the next segment begins at "
                f"{segment.base_offset}"
            )
            store = segment_path(path, before.base_offset, STORE)
            log.faults.append(Fault(store, before.store_size, before.next_offset, problem))
        log.segments.append(_describe_seed(segment))
        log.next_offset = segment.next_offset
        segment.close()
    return log


def _describe_seed(segment: SeedSegment) -> SegmentSurvey:
    return SegmentSurvey(
        segment.base_offset, segment.next_offset, 0, segment.store_size, None, None
    )
