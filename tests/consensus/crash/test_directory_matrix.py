"""A whole data directory, opened after a crash at every disk operation of its life, and of the start after the crash before."""

from __future__ import annotations

from random import Random

import pytest

from distlog.errors import DataDirectoryUnusable, DiskFailed
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.crash.node_life import Life
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import READING, power_cuts


def cut_everywhere(life: Life, seed: int, *, full: bool) -> int:
    """Live, and open what each power cut of that life may leave; return how many cases that were."""
    random = Random(seed)
    cases = operations = 0

    def cut(operation: str, path: str) -> None:
        nonlocal cases, operations
        if operation in READING:
            return
        operations += 1
        # Each single thing is tried at some operations, nothing and everything at all of them.
        singles = full or operations % 4 == 0
        for survivor in power_cuts(life.disk, random, count=1, full=full, singles=singles):
            life.check(survivor)
            cases += 1

    life.live(seed, cut)
    return cases


def test_a_power_cut_at_any_operation_keeps_any_part_of_what_was_not_synced(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, cut_everywhere(Life(), seed, full=tally.full))
    tally.require("data directory", kind, 800)


def test_a_process_killed_at_any_operation_leaves_what_a_power_cut_may_still_take(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, power cut after the start"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, kill_everywhere(Life(), seed))
    tally.require("data directory", kind, 150)


def kill_everywhere(life: Life, seed: int) -> int:
    """Live, and open what the process leaves that is killed before each operation; return how many cases that were."""
    cases = 0

    def kill(operation: str, path: str) -> None:
        nonlocal cases
        if operation not in READING:
            life.check(life.disk.kill())
            cases += 1

    life.live(seed, kill)
    return cases


def test_a_second_crash_at_any_operation_of_the_start(tally: CrashTally) -> None:
    kind = "second crash at every operation of the start"
    for seed in range(3) if tally.full else range(1):
        step = 1 if tally.full else 41
        tally.count("data directory", kind, crash_twice(Life(), seed, step))
    tally.require("data directory", kind, 300)


def crash_twice(life: Life, seed: int, step: int) -> int:
    """Live, crash at one operation in `step`, and again while what is left is opened; return how many cases that were."""
    random = Random(seed)
    cases = operations = 0

    def crash(operation: str, path: str) -> None:
        nonlocal cases, operations
        operations += 1
        if operation not in READING and operations % step == 0:
            for disk in (life.disk.kill(), life.disk.crash(random)):
                cases += crash_again(life, disk, random)

    life.live(seed, crash)
    return cases


def crash_again(life: Life, disk: SimulatedDisk, random: Random) -> int:
    """Crash at every operation of a start on `disk`; return how many cases that were."""
    cases = 0

    def again(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        life.check(disk.crash_keeping([]))
        life.check(disk.crash(random))
        cases += 2

    disk.hook = again
    life.check(disk)
    return cases


def test_after_a_failed_sync_nothing_is_believed_that_only_looks_written(
    tally: CrashTally,
) -> None:
    kind = "every single sync fails, restart, power cut after it"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, fail_every_sync(seed))
    tally.require("data directory", kind, 60)


def fail_every_sync(seed: int) -> int:
    """Fail each sync of a life, restart, and cut the power; return how many cases that were."""
    whole = Life()
    syncs: list[int] = []

    def note(operation: str, path: str) -> None:
        if operation in ("sync", "sync directory"):
            syncs.append(whole.disk.operation_count)

    whole.live(seed, note)
    for number in syncs:
        life = Life()
        life.disk.fail_at = number
        with pytest.raises((DiskFailed, DataDirectoryUnusable)):
            life.live(seed)
        life.check(life.disk.kill())
    return len(syncs)
