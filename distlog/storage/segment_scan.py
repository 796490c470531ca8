"""Every check of one segment, in one pass over its three files: what `distlog verify` does.

Faults are yielded in the order of their offsets, and the scan goes on behind each of them.  Memory is a few windows: bytes
of store that are read together, with the index rows of their records.  A window is checked as a whole, and batch by batch only
if that fails.

Everything is read with pread into memory that is used again: a bad sector is then a fault like any other, and what was just
read is still in the processor's cache.  A second thread that reads ahead was tried and gained nothing: the interpreter's
lock is handed over too slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from distlog.block import PREFIX, PREFIX_SIZE
from distlog.errors import DiskFailed
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.index import ROW_SIZE as INDEX_ROW_SIZE
from distlog.storage.invariants import Fault, Invariant
from distlog.storage.segment_files import INDEX, STORE, TABLE, segment_path
from distlog.storage.table_scan import Rows, Run, TableScan, row_ends

# Bytes of store that are read and checked together: enough to make the cost of a numpy call small, and not more than
# stays in the processor's cache.
WINDOW_SIZE = 2 << 20
# Rows that tell cheaply that records are not of one size.
SAMPLE_ROWS = 64
# Batches below this are checked as slices of bytes, which are cheaper to make than slices of arrays.
COPIED_SIZE_MAX = 8 << 10

# Returns the numbers of those among some rows that no entry of the journal has brought.
Provenance = Callable[[Rows], npt.NDArray[np.intp]]
Progress = Callable[[int], None]
Octets = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Scanned:
    """How far a segment goes by the rows that were checked so far."""

    batch_count: int
    next_offset: int
    store_size: int
    first_timestamp_ms: int | None = None
    last_timestamp_ms: int | None = None


class _Buffer:
    """Memory that is filled again and again, and grows to what one window needs."""

    def __init__(self) -> None:
        self._octets: Octets = np.empty(0, dtype=np.uint8)

    def fill(self, file: DiskFile, position: int, size: int) -> Octets | None:
        """Return `size` bytes from `position`, until the next call; None if the file ends before."""
        if len(self._octets) < size:
            self._octets = np.empty(size, dtype=np.uint8)
        octets = self._octets[:size]
        return octets if file.read_into(position, octets.data) == size else None


class _Window:
    """Rows whose frames and index rows are read and checked together."""

    def __init__(self) -> None:
        self._store = _Buffer()
        self._index = _Buffer()
        # Numbers that follow each other, as the offsets of index rows must.
        self._offsets = np.empty(0, dtype=np.uint64)

    def is_whole(self, store: DiskFile, index: DiskFile, base_offset: int, rows: Rows) -> bool:
        """Read the window of `rows`, and tell whether everything in it is right; a no does not say where."""
        first, last = rows[0], rows[-1]
        start, offset = int(first["position"]), int(first["base_offset"])
        size = int(last["position"]) + int(last["size"]) - start
        count = int(last["base_offset"]) + int(last["record_count"]) - offset
        if count * PREFIX_SIZE > size or start + size > store.size():
            return False
        index_position = (offset - base_offset) * INDEX_ROW_SIZE
        try:
            octets = self._store.fill(store, start, size)
            index_octets = self._index.fill(index, index_position, count * INDEX_ROW_SIZE)
        except DiskFailed:
            return False
        if octets is None or index_octets is None:
            return False
        starts = rows["position"] - np.uint64(start)
        if not _have_checksums(octets, starts.tolist(), rows["data_crc32c"].tolist()):
            return False
        index_rows = index_octets.view("<u8").reshape(-1, 2)
        step = _common_step(index_octets.view("<u8"), octets)
        if step:
            expected = (rows["base_offset"] - np.uint64(offset)) * np.uint64(step)
            return index_rows[0].tolist() == [offset, start] and bool((starts == expected).all())
        if len(self._offsets) < count:
            self._offsets = np.arange(count, dtype=np.uint64)
        self._offsets += np.uint64(offset) - self._offsets[0]
        if not (index_rows[:, 0] == self._offsets[:count]).all():
            return False
        batches = (rows["base_offset"] - np.uint64(offset)).view(np.int64)
        positions = index_rows[:, 1] - np.uint64(start)
        return bool((positions[batches] == starts).all()) and _positions_match(
            octets, positions.view(np.int64)
        )


class SegmentScan:
    """One pass over the files of a segment, which all exist."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        base_offset: int,
        *,
        row_count: int | None = None,
        provenance: Provenance | None = None,
        progress: Progress = lambda size: None,
    ) -> None:
        """row_count: check so many batches, from the first on; None: all.

        progress: called with the bytes of store that are checked so far.
        """
        self._files = {
            suffix: disk.open(segment_path(directory, base_offset, suffix), writable=False)
            for suffix in (STORE, INDEX, TABLE)
        }
        self._store, self._index = self._files[STORE], self._files[INDEX]
        self._store_size = self._store.size()
        self._base_offset = base_offset
        self._row_count = row_count
        self._provenance = provenance
        self._progress = progress
        # What was checked, wrong or not.
        self.scanned = Scanned(0, base_offset, 0)
        # One past the last index row that a fault was said about: rows in a line are one fault.
        self._wrong_rows_end = -1

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong, in order.  Whoever has seen enough stops; then call `close`."""
        return (step for step in self.steps() if step is not None)

    def steps(self) -> Iterator[Fault | None]:
        """Yield what is wrong, in order, and None after each window in which nothing is: for who gives way in between."""
        window = _Window()
        for item in TableScan(self._files[TABLE], self._base_offset, self._row_count):
            if isinstance(item, Fault):
                yield item
                continue
            yield from self._of_nobody(item)
            for number, rows in _windows(item):
                if window.is_whole(self._store, self._index, self._base_offset, rows):
                    self._advance(number, rows)
                    yield None
                    continue
                for place in range(len(rows)):
                    yield from self._batch(rows[place])
                    self._advance(number + place, rows[place : place + 1])

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _of_nobody(self, run: Run) -> Iterator[Fault]:
        if self._provenance is None:
            return
        for place in self._provenance(run.rows).tolist():
            row = run.rows[place]
            problem = f"the row says entry {row['raft_index']} of term {row['term']}, which brought no batch here"
            position = (run.number + place) * run.rows.itemsize
            yield Fault(
                self._files[TABLE].path,
                position,
                int(row["base_offset"]),
                problem,
                Invariant.PROVENANCE,
            )

    def _advance(self, number: int, rows: Rows) -> None:
        first, last = rows[0], rows[-1]
        scanned = self.scanned
        scanned.batch_count = number + len(rows)
        scanned.next_offset = int(last["base_offset"]) + int(last["record_count"])
        scanned.store_size = int(last["position"]) + int(last["size"])
        if scanned.first_timestamp_ms is None:
            scanned.first_timestamp_ms = int(first["timestamp_ms"])
        scanned.last_timestamp_ms = int(last["timestamp_ms"])
        self._progress(scanned.store_size)

    # --- A batch in which something is wrong --------------------------------------------------------------------

    def _batch(self, row: np.void) -> Iterator[Fault]:
        position, size = int(row["position"]), int(row["size"])
        offset, count = int(row["base_offset"]), int(row["record_count"])
        positions: npt.NDArray[np.uint64] | None = None
        problem, invariant = "", Invariant.BATCH_CHECKSUM
        if position + size > self._store_size:
            problem = (
                f"the file ends at {self._store_size}, before the batch does at {position + size}"
            )
            invariant = Invariant.FILE_SIZE
        else:
            try:
                frames = self._store.read_at(position, size)
            except DiskFailed as error:
                problem, invariant, frames = str(error), Invariant.READABLE, b""
            if not problem and google_crc32c.value(frames) != int(row["data_crc32c"]):
                problem = "the batch that begins here does not have the checksum that its row says"
            elif not problem:
                positions = _frame_positions(frames, position, count)
                if positions is None:
                    problem, invariant = (
                        f"the frames from here on are not {count} records",
                        Invariant.FRAMES_MATCH,
                    )
        if problem:
            yield Fault(self._store.path, position, offset, problem, invariant)
        yield from self._index_rows(offset, count, position, positions)

    def _index_rows(
        self, offset: int, count: int, position: int, positions: npt.NDArray[np.uint64] | None
    ) -> Iterator[Fault]:
        """Compare index rows with where the frames are; without `positions` only the first is known."""
        first = offset - self._base_offset
        try:
            data = self._index.read_at(first * INDEX_ROW_SIZE, count * INDEX_ROW_SIZE)
        except DiskFailed as error:
            yield from self._wrong_rows(first, first + count, str(error), Invariant.READABLE)
            return
        found = np.frombuffer(data, dtype="<u8", count=len(data) // INDEX_ROW_SIZE * 2).reshape(
            -1, 2
        )
        wrong = found[:, 0] != np.arange(offset, offset + len(found), dtype=np.uint64)
        if positions is not None:
            wrong |= found[:, 1] != positions[: len(found)]
        elif len(found):
            wrong[0] |= int(found[0, 1]) != position
        for place in np.flatnonzero(wrong).tolist():
            expected = int(positions[place]) if positions is not None else position
            problem = f"the row says offset {found[place, 0]} at {found[place, 1]}, not {offset + place} at {expected}"
            yield from self._wrong_rows(
                first + place, first + place + 1, problem, Invariant.INDEX_MATCHES
            )
        if len(found) < count:
            yield from self._wrong_rows(
                first + len(found), first + count, "the rows end here", Invariant.FILE_SIZE
            )

    def _wrong_rows(
        self, first: int, end: int, problem: str, invariant: Invariant
    ) -> Iterator[Fault]:
        if first != self._wrong_rows_end:
            position = first * INDEX_ROW_SIZE
            yield Fault(self._index.path, position, self._base_offset + first, problem, invariant)
        self._wrong_rows_end = end


def _windows(run: Run) -> Iterator[tuple[int, Rows]]:
    """Cut a run into pieces of about WINDOW_SIZE bytes of store; with the number of each one's first row."""
    _, ends = row_ends(run.rows)
    first = 0
    while first < len(run.rows):
        limit = int(run.rows[first]["position"]) + WINDOW_SIZE
        end = max(first + 1, int(np.searchsorted(ends, limit, side="right")))
        yield run.number + first, run.rows[first:end]
        first = end


def _have_checksums(octets: Octets, starts: list[int], checksums: list[int]) -> bool:
    """Tell whether the batches that begin at `starts`, and fill `octets`, have these checksums."""
    value = google_crc32c.value
    ends = [*starts[1:], len(octets)]
    data: bytes | Octets = (
        octets if len(octets) > COPIED_SIZE_MAX * len(starts) else octets.tobytes()
    )
    return [value(data[first:end]) for first, end in zip(starts, ends, strict=True)] == checksums


def _common_step(index_words: npt.NDArray[np.uint64], octets: Octets) -> int:
    """Return the size of each frame, if each index row names a frame of one size and they fill `octets`; otherwise 0.

    Records of one size are common, and then nothing has to be gathered.  The first row is not looked at.
    """
    count = len(index_words) // 2
    if len(octets) % count:
        return 0
    step = len(octets) // count
    for end in (min(count, SAMPLE_ROWS), count):
        rows = index_words[: 2 * end]
        steps = rows[2:] - rows[:-2]
        if len(steps) and (steps[:2].tolist() != [1, step] or (steps[2:] != steps[:-2]).any()):
            return 0
    words = np.ndarray((count,), dtype="<u8", buffer=octets, strides=(step,))
    return step if step >= PREFIX_SIZE and bool((words == step - PREFIX_SIZE).all()) else 0


def _positions_match(octets: Octets, positions: npt.NDArray[np.int64]) -> bool:
    """Tell whether there is a frame at each position, and the frames are all that there is in `octets`."""
    lengths = np.empty(len(positions), dtype=np.int64)
    np.subtract(positions[1:], positions[:-1], out=lengths[:-1])
    lengths[-1] = len(octets) - positions[-1]
    lengths -= PREFIX_SIZE
    # Beginning at 0 and ending at the end, with no length below zero: every prefix lies within.
    if positions[0] or lengths.min() < 0:
        return False
    # The eight bytes at each place, as one number: most places are not aligned.
    words = np.ndarray((len(octets) - PREFIX_SIZE + 1,), dtype="<i8", buffer=octets, strides=(1,))
    return bool((words[positions] == lengths).all())


def _frame_positions(frames: bytes, position: int, count: int) -> npt.NDArray[np.uint64] | None:
    """Return where each of `count` frames begins, the first at `position`; None if they are not that many."""
    found: list[int] = []
    at = 0
    while at + PREFIX_SIZE <= len(frames) and len(found) < count:
        found.append(position + at)
        at += PREFIX_SIZE + int(PREFIX.unpack_from(frames, at)[0])
    if at != len(frames) or len(found) != count:
        return None
    return np.array(found, dtype=np.uint64)
