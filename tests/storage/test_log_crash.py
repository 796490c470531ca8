"""A power cut at every disk operation: what was synced is there, nothing that was not appended is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from random import Random

import pytest

from distlog.block import Block
from distlog.errors import DataDirectoryUnusable, DiskFailed
from distlog.storage.log import Log, LogMark, SegmentLimits
from distlog.storage.simulated_disk import Hook, SimulatedDisk

LIMITS = SegmentLimits(store_size_max=9_000, row_count_max=40)
PATH = "/log"
# Power cuts for each operation: what survives of the unsynced pages differs.
CUTS = 2


@dataclass
class Life:
    """One life of a log: what it was given, and what it promised so far."""

    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    records: list[bytes] = field(default_factory=list)
    promised: LogMark | None = None
    # Where the last trim went, synced or not.
    trimmed_to: int = 0

    def append(self, log: Log, random: Random) -> None:
        sizes = [random.choice([0, 1, 90, 700, 5_000]) for _ in range(random.randint(1, 6))]
        first = len(self.records)
        records = [b"%08d" % (first + k) * (size // 8) for k, size in enumerate(sizes)]
        # Before: a power cut in the middle may or may not have taken it.
        self.records += records
        log.append(Block.from_records(records), timestamp_ms=first, raft_index=first, term=1)

    def sync(self, log: Log) -> None:
        mark = log.mark()
        log.begin_sync()()
        self.promised = mark


def records_of(log: Log) -> list[bytes]:
    return [log.read_record(offset) for offset in range(log.start_offset, log.next_offset)]


def check_recovered(disk: SimulatedDisk, life: Life) -> None:
    promised = life.promised
    log = Log.open(disk, PATH, LIMITS)
    assert not any(segment.problem for segment in log.describe()), log.recovery
    assert log.next_offset <= len(life.records)
    assert records_of(log) == life.records[log.start_offset : log.next_offset]
    if promised is not None:
        assert log.next_offset >= promised.next_offset
        assert promised.start_offset <= log.start_offset <= life.trimmed_to
    # What follows is no part of the recovery, which may be watched.
    disk.hook = None
    before = log.next_offset
    block = Block.from_records([b"after", b"the crash"])
    assert log.append(block, timestamp_ms=1 << 40, raft_index=1, term=2) == before
    assert log.read_record(before + 1) == b"the crash"


def check_at_checkpoint(disk: SimulatedDisk, life: Life) -> None:
    if life.promised is None:
        return
    mark = life.promised
    log = Log.open_at(disk, PATH, LIMITS, mark)
    assert (log.start_offset, log.next_offset) == (mark.start_offset, mark.next_offset)
    assert records_of(log) == life.records[mark.start_offset : mark.next_offset]


def live(life: Life, seed: int, hook: Hook) -> None:
    random = Random(seed)
    log = Log.create(life.disk, PATH, LIMITS)
    life.disk.hook = hook
    for step in range(24):
        life.append(log, random)
        if random.random() < 0.3:
            life.sync(log)
        if random.random() < 0.3:
            life.disk.write_back(random)
        if step % 8 == 7:
            life.trimmed_to = random.randint(log.start_offset, log.next_offset)
            log.trim(life.trimmed_to)
            life.sync(log)
            log.begin_remove_trimmed(log.start_offset)()
    log.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_operation_leaves_what_was_promised(seed: int) -> None:
    life = Life()
    random = Random(1000 + seed)
    cuts = 0

    def cut(operation: str, path: str) -> None:
        nonlocal cuts
        for _ in range(CUTS):
            survivor = life.disk.crash(random)
            check_recovered(survivor, life)
            check_at_checkpoint(life.disk.crash(random), life)
            cuts += 2

    live(life, seed, cut)
    assert cuts > 400


@pytest.mark.parametrize("seed", range(3))
def test_a_process_killed_at_any_operation_loses_nothing(seed: int) -> None:
    life = Life()

    def kill(operation: str, path: str) -> None:
        log = Log.open(life.disk.kill(), PATH, LIMITS)
        # At most the batch that is being appended is not there yet.
        assert len(life.records) - 6 <= log.next_offset <= len(life.records)
        assert records_of(log) == life.records[log.start_offset : log.next_offset]

    live(life, seed, kill)


@pytest.mark.parametrize("seed", range(2))
def test_a_power_cut_at_any_operation_of_a_recovery_changes_nothing_about_it(seed: int) -> None:
    life = Life()
    random = Random(2000 + seed)
    log = Log.create(life.disk, PATH, LIMITS)
    for step in range(12):
        life.append(log, random)
        if step == 5:
            life.sync(log)

    def cut_again(operation: str, path: str) -> None:
        check_recovered(survivor.crash(random), life)
        check_at_checkpoint(survivor.crash(random), life)

    for _ in range(4):
        survivor = life.disk.crash(random)
        survivor.hook = cut_again
        check_recovered(survivor, life)
        survivor = life.disk.crash(random)
        survivor.hook = cut_again
        check_at_checkpoint(survivor, life)


def test_a_power_cut_while_a_log_is_made_leaves_none_or_an_empty_one() -> None:
    found = set()

    def cut(operation: str, path: str) -> None:
        for seed in range(20):
            survivor = disk.crash(Random(seed))
            if not survivor.exists(PATH):
                continue
            try:
                log = Log.open(survivor, PATH, LIMITS)
            except DataDirectoryUnusable:
                found.add("none")
            else:
                assert log.next_offset == 0
                found.add("seed" if log.is_read_only else "empty")

    disk = SimulatedDisk(hook=cut)
    Log.create(disk, PATH, LIMITS)
    for seed in range(20):
        assert not Log.open(disk.crash(Random(seed)), PATH, LIMITS).is_read_only
    assert found == {"none", "empty"}


@pytest.mark.parametrize("nth", range(1, 40))
def test_a_disk_that_fails_one_operation_of_a_recovery_is_an_error_and_loses_nothing(
    nth: int,
) -> None:
    life = Life()
    random = Random(5)
    log = Log.create(life.disk, PATH, LIMITS)
    for step in range(10):
        life.append(log, random)
        if step == 4:
            life.sync(log)
    disk = life.disk.crash(Random(nth))
    disk.fail_at = disk.operation_count + nth
    with contextlib.suppress(DiskFailed):
        Log.open(disk, PATH, LIMITS)
    disk.fail_at = None
    check_recovered(disk, life)


def test_a_failed_sync_promises_nothing() -> None:
    life = Life()
    log = Log.create(life.disk, PATH, LIMITS)
    random = Random(1)
    life.append(log, random)
    life.sync(log)
    life.append(log, random)
    life.disk.fail_syncs = True
    with pytest.raises(DiskFailed):
        log.begin_sync()()
    for _ in range(20):
        check_recovered(life.disk.crash(random), life)
        check_at_checkpoint(life.disk.crash(random), life)
