"""One life of a log, beside it a list of what was appended and promised, and what any disk that it leaves must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from distlog.block import Block
from distlog.errors import DistlogError
from distlog.storage.disk import Disk
from distlog.storage.log import Log, LogMark, SegmentLimits
from distlog.storage.segment_files import TABLE
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.storage.crash.damage import content

PATH = "/log"
LIMITS = SegmentLimits(store_size_max=4_600, row_count_max=9)
# Around a page, so that batches end in one, at its end and beyond; and what looks like frames itself.
SIZES = (0, 1, 90, 700, 4_000)
NESTED = b"\x03\0\0\0\0\0\0\0abc" * 3
Through = Callable[[SimulatedDisk], Disk]


class Batch(NamedTuple):
    """What was appended in one call."""

    base_offset: int
    records: tuple[bytes, ...]
    timestamp_ms: int
    raft_index: int
    term: int
    attributes: int

    @property
    def next_offset(self) -> int:
        return self.base_offset + len(self.records)


@dataclass
class Life:
    """A log's disk, what was given to the log, and what it promised so far."""

    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    # In front of the disk: a planted fault.
    through: Through = lambda disk: disk
    batches: list[Batch] = field(default_factory=list)
    promised: LogMark = field(default=LogMark(0, 0, 0, 0, 0))
    # Where the last trim went, synced or not.
    trimmed_to: int = 0

    def create(self) -> Log:
        return Log.create(self.through(self.disk), PATH, LIMITS)

    @property
    def next_offset(self) -> int:
        return self.batches[-1].next_offset if self.batches else 0

    def append(self, log: Log, records: tuple[bytes, ...]) -> None:
        number = len(self.batches)
        batch = Batch(self.next_offset, records, 1_000 + number // 2, 7 + number, 3, number % 2)
        # Before: a power cut in the middle may or may not have taken it.
        self.batches.append(batch)
        log.append(
            Block.from_records(records, batch.attributes),
            timestamp_ms=batch.timestamp_ms,
            raft_index=batch.raft_index,
            term=batch.term,
        )

    def sync(self, log: Log) -> None:
        mark = log.mark()
        log.begin_sync()()
        self.promised = mark

    def trim(self, log: Log, start_offset: int) -> None:
        self.trimmed_to = start_offset
        log.trim(start_offset)

    def found(self, first: int, end: int) -> list[Batch]:
        """Return the batches that a log of [first, end) has, the one that holds `first` as a whole."""
        return [batch for batch in self.batches if first < batch.next_offset <= end]


def live(life: Life, seed: int, hook: Hook | None) -> None:
    """Append, sync, roll, trim, remove what was trimmed, and stop in order."""
    random = Random(seed)
    log = life.create()
    life.disk.hook = hook
    number = 0
    for step in range(12):
        records = []
        for _ in range(random.randint(1, 5)):
            size = random.choice(SIZES)
            records.append(NESTED if size == 1 else b"%08d" % number * (size // 8))
            number += 1
        life.append(log, tuple(records))
        if random.random() < 0.3:
            life.sync(log)
        if random.random() < 0.3:
            life.disk.write_back(random)
        if step % 5 == 4:
            life.trim(log, random.randint(log.start_offset, log.next_offset))
            life.sync(log)
            log.begin_remove_trimmed(log.start_offset)()
    log.close()
    life.disk.hook = None


# --- What must hold -------------------------------------------------------------------------------


def batches_of(log: Log) -> list[Batch]:
    """Read everything, the checksums of all batches being looked at."""
    found: list[Batch] = []
    offset = log.start_offset
    while offset < log.next_offset:
        for batch in log.read(offset, 1 << 20):
            found.append(
                Batch(
                    batch.base_offset,
                    tuple(batch.records()),
                    batch.timestamp_ms,
                    batch.raft_index,
                    batch.term,
                    batch.attributes,
                )
            )
            offset = batch.next_offset
    return found


def opened(life: Life, disk: SimulatedDisk) -> Log:
    """Open a log and hold it against its life: all that was promised, nothing that was not appended."""
    rows = table_bytes(disk)
    try:
        log = Log.open(life.through(disk), PATH, LIMITS)
    except DistlogError as error:
        raise AssertionError(f"it does not open: {error}") from error
    problems = [segment.problem for segment in log.describe() if segment.problem]
    assert not problems, f"set aside after no more than a power cut: {problems}"
    promised = life.promised
    assert promised.next_offset <= log.next_offset <= life.next_offset, "it lost what was promised"
    assert promised.start_offset <= log.start_offset <= life.trimmed_to
    check_content(life, log)
    lost = {
        path: data
        for path, data in rows.items()
        if not table_bytes(disk).get(path, b"").startswith(data)
    }
    assert not lost or log.recovery, f"rows were cut off in silence: {sorted(lost)}"
    return log


def table_bytes(disk: SimulatedDisk) -> dict[str, bytes]:
    """Return the rows of every batch table, without the zeros that were never written."""
    paths = [f"{PATH}/{name}" for name in disk.list_directory(PATH) if name.endswith(TABLE)]
    return {path: content(disk, path).rstrip(b"\0") for path in paths}


def check_content(life: Life, log: Log) -> None:
    """Hold every batch, and every record found by its offset, against what was appended."""
    expected = life.found(log.start_offset, log.next_offset)
    try:
        assert batches_of(log) == expected
    except DistlogError as error:
        raise AssertionError(f"it cannot be read: {error}") from error
    for batch in expected:
        for offset, record in enumerate(batch.records, batch.base_offset):
            if offset >= log.start_offset:
                assert log.read_record(offset) == record


def check_recovered(life: Life, disk: SimulatedDisk) -> None:
    """Open what a crash left, then take away all that recovery did not sync, and open that."""
    log = opened(life, disk)
    mark = log.mark()
    after = opened(life, disk.crash_keeping([]))
    assert after.mark() == mark, "recovery promised what was not durable"


def check_goes_on(life: Life, disk: SimulatedDisk) -> None:
    """Open what a crash left, append, and open what a second crash leaves."""
    log = opened(life, disk)
    heir = Life(disk, life.through, life.found(0, log.next_offset), log.mark(), log.start_offset)
    heir.append(log, (b"after", b"the crash"))
    heir.sync(log)
    heir.append(log, (b"and this was not synced",))
    opened(heir, disk.crash_keeping([]))
    opened(heir, disk.kill())


def check_at_checkpoint(life: Life, disk: SimulatedDisk) -> None:
    """Open what a crash left at the mark that a checkpoint has: exactly what lies before it."""
    mark = life.promised
    try:
        log = Log.open_at(life.through(disk), PATH, LIMITS, mark)
    except DistlogError as error:
        raise AssertionError(f"it does not open at its checkpoint: {error}") from error
    assert (log.start_offset, log.next_offset) == (mark.start_offset, mark.next_offset)
    check_content(life, log)
    again = Log.open_at(life.through(disk.crash_keeping([])), PATH, LIMITS, mark)
    assert again.mark() == log.mark() == mark
