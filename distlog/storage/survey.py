"""A look at a log's directory that changes nothing: what `distlog inspect` shows and `distlog
verify` checks.

A survey is shallow (what was promised is taken as it is, only what follows it is checked) or deep
(every checksum, every row, see segment_scan.py).  Nothing is opened for writing; what the next start
would do about an oddity is said in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from distlog.errors import CorruptBatch, DataDirectoryUnusable
from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.disk import Disk
from distlog.storage.invariants import Fault, Invariant
from distlog.storage.log_mark import MARK_NAME, LogMark, MarkFile, damaged_slots
from distlog.storage.mark_check import misfit, misfit_of_log
from distlog.storage.seed_segment import SeedSegment, seed_segments
from distlog.storage.segment_check import Extent, marked_extent, sealed_extent, walk_batches
from distlog.storage.segment_files import (
    STORE,
    SUFFIXES,
    TABLE,
    SegmentFiles,
    list_segments,
    segment_path,
)
from distlog.storage.segment_scan import Provenance, Scanned, SegmentScan

# Faults of one log after which a survey looks no further.
FAULT_COUNT_MAX = 100


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
    # Entry and term that brought the first batch, and the last; None where nothing says it, and in a deep survey.
    first_entry: tuple[int, int] | None = None
    last_entry: tuple[int, int] | None = None

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
    # What is wrong with what was promised: in a shallow survey at most one fault of each segment, in a
    # deep one all of them, up to a limit.
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
    is_removed: bool = False,
    fault_count_max: int = FAULT_COUNT_MAX,
    provenance: Provenance | None = None,
    progress: Callable[[int], None] = lambda size: None,
) -> LogSurvey:
    """Look at a log's directory.  `mark` is a checkpoint's; without one the log's own counts.

    is_removed: the next start removes the log, as the checkpoint does not have it; an interrupted removal leaves any part.
    provenance: tells which rows of what was promised no entry brought; asked in a deep survey.
    progress: called with the bytes of frames that were checked so far.
    Raises DataDirectoryUnusable if there is no log.
    """
    found = list_segments(disk, path)
    marks = MarkFile.open(disk, path)
    if marks is None and mark is None:
        if not found:
            raise DataDirectoryUnusable(path=path, problem="there is no log in it")
        if not any(TABLE in suffixes for suffixes in found.values()):
            return _survey_seed(disk, path, found)
    survey = _Survey(disk, path, found, mark or (marks.mark if marks else None), deep, progress)
    survey.provenance = provenance
    survey.fault_count_max = fault_count_max
    survey.look_at_mark(mark, marks)
    log = survey.run()
    if mark is not None and marks is not None and not is_removed:
        survey.hold_against(marks, mark)
    return log


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
        self.provenance: Provenance | None = None
        self.fault_count_max = FAULT_COUNT_MAX
        # That of the last batch so far.
        self._last_timestamp_ms: int | None = None
        first, last = min(found, default=0), max(found, default=0)
        # Without a mark all segments but the last are taken as promised, as recovery does.
        self._mark = mark or LogMark(first, last, 0, last, 0)
        start = self._mark.start_offset
        self._log = LogSurvey(path, False, start, start, mark.next_offset if mark else None)
        if mark is None:
            self._note(
                f"{path}/{MARK_NAME} is missing or cannot be read: nothing says what was synced"
            )

    def look_at_mark(self, checkpointed: LogMark | None, own: MarkFile | None) -> None:
        """Look at the file that has the log's own mark."""
        path = f"{self._path}/{MARK_NAME}"
        if own is None:
            if checkpointed is not None:
                self._note(f"{path} is missing: the next start makes it from the checkpoint")
            return
        for position in damaged_slots(self._disk, self._path):
            problem = "the mark that begins here does not have its checksum"
            self._log.faults.append(Fault(path, position, None, problem, Invariant.MARK_READABLE))

    def hold_against(self, marks: MarkFile, checkpointed: LogMark) -> None:
        """Hold the log's own mark against a checkpoint's and, once `run` has seen it, against the log."""
        path, own, log = f"{self._path}/{MARK_NAME}", marks.mark, self._log
        if any(fault.invariant == Invariant.MARK_READABLE for fault in log.faults):
            # The one that counts is damaged, and the other one is older.
            return
        if own is None:
            self._note(f"{path} says nothing: the next start writes it from the checkpoint")
            return
        if own == checkpointed:
            return
        problem = misfit(own, checkpointed)
        if not problem and not log.faults:
            problem = misfit_of_log(self._disk, self._path, own, self._found, log.next_offset)
        if problem:
            log.faults.append(Fault(path, 0, own.next_offset, problem, Invariant.MARK_FITS))

    def run(self) -> LogSurvey:
        log, mark = self._log, self._mark
        bases = list(self._found)
        for base_offset, following in pairwise([*bases, None]):
            assert base_offset is not None
            if len(log.faults) >= self.fault_count_max:
                self._note(f"{self._path}: not looked at from {base_offset:020d}{STORE} on")
                log.next_offset = max(log.next_offset, mark.next_offset)
                return log
            if following is not None and following <= mark.start_offset:
                self._note(f"{self._file(base_offset)} was trimmed: the next start removes it")
            elif base_offset > mark.segment_base_offset and base_offset != log.next_offset:
                self._note(f"{self._file(base_offset)} follows what is not whole: it goes as well")
            else:
                if base_offset > log.next_offset:
                    self._missing(log.next_offset, base_offset)
                elif log.segments and base_offset < log.next_offset:
                    problem = f"the segment before it goes to offset {log.next_offset - 1}"
                    self._fault(base_offset, STORE, problem, Invariant.SEGMENTS_CHAIN)
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
            fault = Fault(path, 0, base_offset, "the file is missing", Invariant.FILE_PRESENT)
            self._report(fault, promised)
            self._log.next_offset = max(self._log.next_offset, promised)
        elif self._deep:
            self._scan(base_offset, promised)
        else:
            self._glance(base_offset, promised)

    # --- A segment, every byte of it ------------------------------------------------------------------

    def _scan(self, base_offset: int, promised: int) -> None:
        log, before = self._log, len(self._log.faults)
        scan = SegmentScan(
            self._disk,
            self._path,
            base_offset,
            provenance=self._provenance_until(promised),
            progress=lambda size: self._progress(self._checked_size + size),
        )
        cut = False
        try:
            for fault in scan.faults():
                if not self._report(fault, promised):
                    # The next start cuts here: what follows counts for nothing.
                    cut = True
                    break
                if len(log.faults) >= self.fault_count_max:
                    break
            scanned = scan.scanned
            if not cut and len(log.faults) < self.fault_count_max:
                self._ends(base_offset, scanned, promised, before)
        finally:
            scan.close()
        self._checked_size += scanned.store_size
        log.segments.append(
            SegmentSurvey(
                base_offset,
                scanned.next_offset,
                scanned.batch_count,
                scanned.store_size,
                scanned.first_timestamp_ms,
                scanned.last_timestamp_ms,
            )
        )
        log.next_offset = max(scanned.next_offset, promised)

    def _ends(self, base_offset: int, scanned: Scanned, promised: int, before: int) -> None:
        """Check how a segment goes on from the one before, and where it ends; `before` are older faults."""
        first, last = scanned.first_timestamp_ms, self._last_timestamp_ms
        if first is not None and last is not None and first < last and promised > base_offset:
            problem = "the time of its first batch is before that of the last one before it"
            self._fault(base_offset, TABLE, problem, Invariant.TIMES_ORDERED)
        self._last_timestamp_ms = scanned.last_timestamp_ms or last
        if scanned.next_offset < promised:
            path, position = self._file(base_offset, TABLE), scanned.batch_count * TABLE_ROW_SIZE
            if all(fault.path != path for fault in self._log.faults[before:]):
                problem = f"the batches end at offset {scanned.next_offset}, not at {promised}"
                fault = Fault(path, position, scanned.next_offset, problem, Invariant.FILE_SIZE)
                self._log.faults.append(fault)
        elif base_offset == self._mark.segment_base_offset and len(self._log.faults) == before:
            self._glance_at_mark(base_offset)

    def _glance_at_mark(self, base_offset: int) -> None:
        files = SegmentFiles.open(self._disk, self._path, base_offset)
        try:
            marked_extent(files, self._mark)
        except CorruptBatch as error:
            fault = Fault(
                error.path, error.position, base_offset, error.problem, Invariant.MARK_FITS
            )
            self._log.faults.append(fault)
        finally:
            files.close()

    def _provenance_until(self, promised: int) -> Provenance | None:
        ask = self.provenance
        if ask is None:
            return None
        # What follows was never promised: another leader may have had its entries taken back.
        return lambda rows: ask(rows[rows["base_offset"] < promised])

    # --- A segment, as recovery looks at it -----------------------------------------------------------

    def _glance(self, base_offset: int, promised: int) -> None:
        files = SegmentFiles.open(self._disk, self._path, base_offset)
        try:
            extent, fault = self._extent(files, base_offset, promised)
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

    def _extent(
        self, files: SegmentFiles, base_offset: int, promised: int
    ) -> tuple[Extent, Fault | None]:
        """Return how far the segment is whole, and why it ends there if something is wrong."""
        start = Extent(0, base_offset, 0, 0)
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
        fault = Fault(self._file(first), 0, first, problem, Invariant.SEGMENTS_CHAIN)
        self._log.faults.append(fault)
        self._log.next_offset = end

    def _fault(self, base_offset: int, suffix: str, problem: str, invariant: Invariant) -> None:
        """Say what is wrong with how a segment begins."""
        path = self._file(base_offset, suffix)
        self._log.faults.append(Fault(path, 0, base_offset, problem, invariant))

    def _report(self, fault: Fault, promised: int) -> bool:
        """Take a fault down; False if what it is about was never promised, and so is none."""
        assert fault.offset is not None, "every fault of a segment has an offset"
        if fault.offset < promised:
            self._log.faults.append(fault)
            return True
        self._note(
            f"{fault.path} is not whole at byte {fault.position}, offset {fault.offset} "
            f"({fault.problem}): that was never synced, the next start cuts or repairs it"
        )
        return False

    def _note(self, sentence: str) -> None:
        self._log.notes.append(sentence)

    def _file(self, base_offset: int, suffix: str = STORE) -> str:
        return segment_path(self._path, base_offset, suffix)


def _describe(files: SegmentFiles, extent: Extent) -> SegmentSurvey:
    base_offset, counts = files.index.base_offset, (extent.batch_count, extent.store_size)
    try:
        if extent.batch_count:
            first, last = files.table.row(0), files.table.row(extent.batch_count - 1)
            return SegmentSurvey(
                base_offset,
                extent.next_offset,
                *counts,
                first.timestamp_ms,
                last.timestamp_ms,
                (first.raft_index, first.term),
                (last.raft_index, last.term),
            )
    except CorruptBatch:
        # It is among the faults if anybody looks for them.
        pass
    return SegmentSurvey(base_offset, extent.next_offset, *counts, None, None)


def _survey_seed(disk: Disk, path: str, found: dict[int, set[str]]) -> LogSurvey:
    """A seed has no checksums: what can be checked is how its records follow each other."""
    bases = [base_offset for base_offset in found if STORE in found[base_offset]]
    first = min(found)
    log = LogSurvey(path, True, first, first, None)
    for base_offset in found.keys() - set(bases):
        store = segment_path(path, base_offset, STORE)
        problem = "the file is missing"
        log.faults.append(Fault(store, 0, base_offset, problem, Invariant.FILE_PRESENT))
    for segment in seed_segments(disk, path, bases):
        if segment.base_offset > log.next_offset and log.segments:
            before = log.segments[-1]
            problem = (
                f"the records end at offset {before.next_offset}, and the next segment begins at "
                f"{segment.base_offset}"
            )
            store = segment_path(path, before.base_offset, STORE)
            log.faults.append(
                Fault(
                    store, before.store_size, before.next_offset, problem, Invariant.SEGMENTS_CHAIN
                )
            )
        log.segments.append(_describe_seed(segment))
        log.notes += segment.oddities()
        log.next_offset = segment.next_offset
        segment.close()
    return log


def _describe_seed(segment: SeedSegment) -> SegmentSurvey:
    return SegmentSurvey(
        segment.base_offset, segment.next_offset, 0, segment.store_size, None, None
    )
