"""Every byte and every bit of a small log: what is damaged is found out, what is not is all there, nothing is cut away but a
tail that nobody was promised.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distlog.errors import CorruptBatch, DistlogError
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.log_mark import MARK_NAME
from distlog.storage.segment_files import INDEX, STORE, TABLE
from distlog.storage.simulated_disk import SimulatedDisk
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import content, cut, files_of, flipped, torn
from tests.storage.crash.log_life import NESTED, PATH, Batch, Life

LIMITS = SegmentLimits(store_size_max=1 << 12, row_count_max=5)
# Two segments of five records; the last batch is the tail.
APPENDED = (
    (b"hello", b""),
    (b"world!!!", NESTED, b"x"),
    (b"second", b"segment"),
    (NESTED, b"", b"the tail"),
)
MARK_PATH = f"{PATH}/{MARK_NAME}"


class Small(Life):
    """A small log; `promised_count` of its batches were synced, and it was closed or killed."""

    def __init__(self, promised_count: int, *, closed: bool) -> None:
        super().__init__()
        self.is_closed = closed
        log = Log.create(self.disk, PATH, LIMITS)
        for number, records in enumerate(APPENDED):
            if number == promised_count:
                self.sync(log)
            self.append(log, records)
        if promised_count == len(APPENDED):
            self.sync(log)
        if closed:
            log.close()
        self.disk = self.disk.kill()

    def data_size(self, path: str, *, promised: bool = False) -> int:
        """Return how many bytes of a file hold data (that was promised); what follows means nothing."""
        if path == MARK_PATH:
            return 128
        base_offset = int(path.rpartition("/")[2].partition(".")[0])
        end = self.promised.next_offset if promised else self.next_offset
        mine = [
            batch
            for batch in self.batches
            if base_offset <= batch.base_offset < base_offset + 5 and batch.next_offset <= end
        ]
        records = [record for batch in mine for record in batch.records]
        sizes = {
            STORE: sum(8 + len(record) for record in records),
            INDEX: 16 * len(records),
            TABLE: 64 * len(mine),
        }
        return sizes[path[path.rindex(".") :]]

    def batch_at(self, path: str, position: int) -> Batch:
        """Return the batch that a byte of a store or a table belongs to."""
        base_offset = int(path.rpartition("/")[2].partition(".")[0])
        for batch in self.batches:
            if batch.base_offset < base_offset:
                continue
            position -= 64 if path.endswith(TABLE) else sum(8 + len(r) for r in batch.records)
            if position < 0:
                return batch
        raise AssertionError(f"{path} has no such byte")


def small_logs(*, full: bool) -> Iterator[Small]:
    """Yield what a small log can be: promised whole or but for its tail, closed or killed."""
    yield Small(len(APPENDED), closed=True)
    if full:
        yield Small(len(APPENDED), closed=False)
    yield Small(len(APPENDED) - 1, closed=False)


class Outcome:
    """What opening a damaged log led to."""

    def __init__(self, small: Small, disk: SimulatedDisk, path: str) -> None:
        """Open it and read it, batch by batch and record by record; fail if anything is not what was appended."""
        before = content(disk, path)
        log = Log.open(disk, PATH, LIMITS)
        self.notes = log.recovery
        # Batches that are refused, and batches that are gone.
        self.refused = [batch for batch in small.batches if not reads(log, batch)]
        self.gone = [batch for batch in self.refused if batch.base_offset >= log.next_offset]
        for batch in self.gone:
            self.refused.remove(batch)
            assert batch.next_offset > small.promised.next_offset, "what was promised was cut away"
        # The damaged file is evidence.  An index is none: it is rebuilt; a mark is overwritten.
        size = min(len(before), small.data_size(path, promised=True))
        self.is_kept = content(disk, path)[:size] == before[:size]
        if self.refused and not path.endswith(INDEX):
            assert self.is_kept, f"{path} was changed, and it is all that is left of {self.refused}"


def reads(log: Log, batch: Batch) -> bool:
    """Tell whether a batch reads, and if so as it was appended."""
    if batch.base_offset >= log.next_offset:
        return False
    try:
        found = log.read(batch.base_offset, 0)[0]
    except CorruptBatch:
        return False
    assert (found.base_offset, tuple(found.records())) == (batch.base_offset, batch.records)
    assert (found.timestamp_ms, found.raft_index) == (batch.timestamp_ms, batch.raft_index)
    assert (found.term, found.attributes) == (batch.term, batch.attributes)
    for offset, record in enumerate(batch.records, batch.base_offset):
        assert log.read_record(offset) == record
    return True


def test_every_flipped_bit_is_found_out_unless_it_means_nothing(tally: CrashTally) -> None:
    kind, nothing = "every bit of every file flipped", "bit flipped where bytes mean nothing"
    for small in small_logs(full=tally.full):
        for path, data in files_of(small.disk, PATH).items():
            size = small.data_size(path)
            assert not any(data[size:]), "what is reserved is zeros"
            for position in range(size):
                # A log that was closed is tried in full, the others bit by bit along their bytes.
                for bit in range(8) if tally.full or small.is_closed else (position % 8,):
                    disk = flipped(small.disk, path, position, bit)
                    check_flip(small, path, position, Outcome(small, disk, path))
                    tally.count("log", kind)
            step = 1 if tally.full else 37
            for position in range(size, len(data), step):
                disk = flipped(small.disk, path, position, position % 8)
                outcome = Outcome(small, disk, path)
                assert not outcome.refused + outcome.gone
                # Rows that nobody wrote are said to be cut off; other reserved bytes are not looked at.
                assert bool(outcome.notes) == (path.endswith(TABLE) and position < 64 * 1024)
                tally.count("log", nothing)
    tally.require("log", kind, 6_000)
    tally.require("log", nothing, 100)


def check_flip(small: Small, path: str, position: int, outcome: Outcome) -> None:
    """Hold what a flipped bit led to against what it must lead to."""
    where = f"{path} at {position}"
    if path == MARK_PATH:
        # The other slot counts, and it is said.
        assert not outcome.refused + outcome.gone, where
        assert outcome.notes, where
    elif path.endswith(INDEX):
        # A cache: repaired, or passed over.
        assert not outcome.refused + outcome.gone, where
    else:
        batch = small.batch_at(path, position)
        if batch.next_offset > small.promised.next_offset:
            assert (outcome.gone, outcome.refused) == ([batch], []), where
            assert outcome.notes, where
        else:
            assert batch in outcome.refused, where
            assert not outcome.gone or outcome.notes, where
            if path.endswith(STORE):
                assert outcome.refused == [batch], where


def test_a_file_that_ends_at_any_byte_is_found_out(tally: CrashTally) -> None:
    kind = "every file cut at every byte"
    for small in small_logs(full=tally.full):
        for path in files_of(small.disk, PATH):
            for size in range(small.data_size(path)):
                disk = cut(small.disk, path, size)
                check_cut(small, path, size, Outcome(small, disk, path))
                tally.count("log", kind)
    tally.require("log", kind, 1_400)


def test_a_file_that_is_torn_at_any_byte_is_found_out(tally: CrashTally) -> None:
    kind = "every file torn at every byte: what follows is as it was before"
    for small in small_logs(full=tally.full):
        earlier = files_of(Small(len(APPENDED) - 1, closed=False).disk, PATH)
        empty = dict.fromkeys(earlier, b"")
        for path in files_of(small.disk, PATH):
            size = small.data_size(path)
            for before in (empty, earlier):
                for position in range(size):
                    disk = torn(small.disk, path, position, before[path])
                    same = content(disk, path) == content(small.disk, path)
                    outcome = Outcome(small, disk, path)
                    if same:
                        assert not outcome.refused + outcome.gone
                    else:
                        check_cut(small, path, position, outcome)
                    tally.count("log", kind)
    tally.require("log", kind, 2_800)


def check_cut(small: Small, path: str, size: int, outcome: Outcome) -> None:
    """Hold what a file that has only `size` good bytes led to against what it must lead to."""
    where = f"{path} up to {size}"
    if path == MARK_PATH or path.endswith(INDEX):
        assert not outcome.refused + outcome.gone, where
        return
    batch = small.batch_at(path, size)
    if batch.next_offset > small.promised.next_offset:
        assert not outcome.refused, where
        # Without its row a batch was not appended, and there is nothing to say about it.
        assert outcome.gone in ([], [batch]), where
    elif outcome.refused:
        assert outcome.is_kept
    else:
        raise AssertionError(f"{where}: what was promised is neither whole nor refused")


def test_a_missing_file_is_found_out(tally: CrashTally) -> None:
    for small in small_logs(full=tally.full):
        for path in files_of(small.disk, PATH):
            disk = small.disk.kill()
            disk.remove(path)
            try:
                log = Log.open(disk, PATH, LIMITS)
            except DistlogError as error:
                pytest.fail(f"without {path} it does not open at all: {error}")
            refused = [batch for batch in small.batches if not reads(log, batch)]
            assert log.recovery, path
            if path == MARK_PATH or path.endswith(INDEX):
                assert not refused
            else:
                assert refused
                assert log.next_offset >= small.promised.next_offset
            tally.count("log", "each file missing")
