"""One pass over a segment's batch table: which rows are whole and continue each other, and what is wrong between them.

Rows are read in pieces and checked together; only a piece in which something is wrong is walked row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from distlog.errors import DiskFailed
from distlog.storage.batch_table import ROW_SIZE
from distlog.storage.disk import DiskFile
from distlog.storage.invariants import Fault, Invariant

# The whole row, as docs/format.md has it.
ROWS = np.dtype(
    [
        ("base_offset", "<u8"),
        ("position", "<u8"),
        ("record_count", "<u4"),
        ("size", "<u4"),
        ("timestamp_ms", "<i8"),
        ("raft_index", "<u8"),
        ("term", "<u8"),
        ("attributes", "<u2"),
        ("zero", "<u2"),
        ("zeros", "<u4"),
        ("data_crc32c", "<u4"),
        ("row_crc32c", "<u4"),
    ]
)
assert ROWS.itemsize == ROW_SIZE
Rows = npt.NDArray[np.void]
Flags = npt.NDArray[np.bool_]
CHECKED_SIZE = 60
# Rows that are read at once.
CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """Rows that are whole and continue each other, at least one; `number` is that of the first."""

    number: int
    rows: Rows


class TableScan:
    """The runs of one table, in order, with the faults between them."""

    def __init__(self, file: DiskFile, base_offset: int, row_count: int | None = None) -> None:
        """row_count: look at so many rows, from the first on; None: at all that the file has."""
        self._file = file
        self._row_count = row_count
        # What the next row has to begin with; what follows a fault begins anew.
        self._offset = base_offset
        self._position = 0
        self._timestamp_ms = -(1 << 63)
        # The first of the rows right before the next one that are not whole, and whether that was said.
        self._gap: int | None = None
        self._gap_said = False

    def __iter__(self) -> Iterator[Run | Fault]:
        size = self._file.size() // ROW_SIZE * ROW_SIZE
        if self._row_count is not None:
            size = min(size, self._row_count * ROW_SIZE)
        for start in range(0, size, CHUNK_ROWS * ROW_SIZE):
            try:
                data = self._file.read_at(start, min(CHUNK_ROWS * ROW_SIZE, size - start))
            except DiskFailed as error:
                yield Fault(self._file.path, start, self._offset, str(error), Invariant.READABLE)
                self._gap, self._gap_said = start // ROW_SIZE, True
                continue
            yield from self._chunk(start // ROW_SIZE, np.frombuffer(data, dtype=ROWS), data)

    def _chunk(self, number: int, rows: Rows, data: bytes) -> Iterator[Run | Fault]:
        written: Flags = np.any(np.frombuffer(data, dtype="<u8").reshape(len(rows), -1), axis=1)
        if not written.any():
            # Reserved space, unless a later row is written.
            self._gap = number if self._gap is None else self._gap
            return
        whole = _are_whole(rows, data)
        if self._gap is None and whole.all() and self._continue(rows):
            self._accept(rows[-1])
            yield Run(number, rows)
            return
        first = 0
        for place in range(len(rows)):
            fault = self._fault(
                number + place, rows[place], bool(whole[place]), bool(written[place])
            )
            if fault is not None or not whole[place]:
                if first < place:
                    yield Run(number + first, rows[first:place])
                first = place if whole[place] else place + 1
            if fault is not None:
                yield fault
            if whole[place]:
                self._accept(rows[place])
        if first < len(rows):
            yield Run(number + first, rows[first:])

    def _continue(self, rows: Rows) -> bool:
        """Tell whether the first row continues what was before, and each other one the row above."""
        first = rows[0]
        return (
            int(first["base_offset"]) == self._offset
            and int(first["position"]) == self._position
            and int(first["timestamp_ms"]) >= self._timestamp_ms
            and bool(
                (rows["base_offset"][1:] == (rows["base_offset"] + rows["record_count"])[:-1]).all()
            )
            and bool((rows["position"][1:] == (rows["position"] + rows["size"])[:-1]).all())
            and bool((rows["timestamp_ms"][1:] >= rows["timestamp_ms"][:-1]).all())
        )

    def _accept(self, row: np.void) -> None:
        self._offset = int(row["base_offset"]) + int(row["record_count"])
        self._position = int(row["position"]) + int(row["size"])
        self._timestamp_ms = int(row["timestamp_ms"])

    def _fault(self, number: int, row: np.void, whole: bool, written: bool) -> Fault | None:
        """Return what is wrong with a row; rows in a line that are not whole are one fault."""
        if not whole:
            self._gap = number if self._gap is None else self._gap
            if not written or self._gap_said:
                return None
            self._gap_said = True
            return self._at(self._gap, "the row's checksum is wrong", Invariant.ROW_CHECKSUM)
        gap, said = self._gap, self._gap_said
        self._gap, self._gap_said = None, False
        if gap is not None:
            if said:
                return None
            return self._at(
                gap, "rows follow this one, which was never written", Invariant.ROW_CHECKSUM
            )
        problem, invariant = "", Invariant.OFFSETS_CHAIN
        if int(row["base_offset"]) != self._offset:
            problem = f"the row has offset {row['base_offset']} where {self._offset} comes next"
        elif int(row["position"]) != self._position:
            problem = f"the row has position {row['position']} where {self._position} comes next"
            invariant = Invariant.POSITIONS_CHAIN
        elif int(row["timestamp_ms"]) < self._timestamp_ms:
            problem = "the row's time is before that of the row above"
            invariant = Invariant.TIMES_ORDERED
        return self._at(number, problem, invariant) if problem else None

    def _at(self, number: int, problem: str, invariant: Invariant) -> Fault:
        return Fault(self._file.path, number * ROW_SIZE, self._offset, problem, invariant)


def _are_whole(rows: Rows, data: bytes) -> Flags:
    """Tell of each row whether it is what was written."""
    value = google_crc32c.value
    found = [value(data[at : at + CHECKED_SIZE]) for at in range(0, len(data), ROW_SIZE)]
    whole: Flags = np.array(found, dtype=np.uint32) == rows["row_crc32c"]
    whole &= (rows["zero"] == 0) & (rows["zeros"] == 0) & (rows["record_count"] > 0)
    return whole


def row_ends(rows: Rows) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return, for each row, one past its last offset and one past its last byte."""
    return rows["base_offset"] + rows["record_count"], rows["position"] + rows["size"]
