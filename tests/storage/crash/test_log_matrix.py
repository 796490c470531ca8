"""A log of its own, opened after a crash at every disk operation of its life, and of the recovery from the crash before."""

from __future__ import annotations

from random import Random

import pytest

from distlog.errors import DiskFailed
from distlog.storage.simulated_disk import SimulatedDisk
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import READING, power_cuts
from tests.storage.crash.log_life import (
    Life,
    Through,
    check_at_checkpoint,
    check_goes_on,
    check_recovered,
    live,
)


def cut_everywhere(life: Life, seed: int, *, full: bool) -> int:
    """Live, and open what each power cut of that life may leave; return how many cases that were."""
    random = Random(seed)
    cases = operations = 0

    def cut(operation: str, path: str) -> None:
        nonlocal cases, operations
        if operation in READING:
            return
        operations += 1
        # Each single thing is tried at every other operation, nothing and everything at all of them.
        singles = full or operations % 2 == 0
        for survivor in power_cuts(life.disk, random, count=1, full=full, singles=singles):
            if full or cases % 3 == 0:
                check_at_checkpoint(life, survivor.kill())
                cases += 1
            check_recovered(life, survivor)
            cases += 1

    live(life, seed, cut)
    return cases


def test_a_power_cut_at_any_operation_keeps_any_part_of_what_was_not_synced(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(8) if tally.full else (3,):
        tally.count("log", kind, cut_everywhere(Life(), seed, full=tally.full))
    tally.require("log", kind, 1_500)


def test_a_process_killed_at_any_operation_leaves_what_a_power_cut_may_still_take(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, power cut after the recovery"
    for seed in range(8) if tally.full else (1,):
        tally.count("log", kind, kill_everywhere(Life(), seed))
    tally.require("log", kind, 300)


def kill_everywhere(life: Life, seed: int) -> int:
    """Live, and open what the process leaves that is killed before each operation; return how many cases that were."""
    cases = 0

    def kill(operation: str, path: str) -> None:
        nonlocal cases
        if operation not in READING:
            check_recovered(life, life.disk.kill())
            check_goes_on(life, life.disk.kill())
            cases += 3

    live(life, seed, kill)
    return cases


def test_a_second_crash_at_any_operation_of_the_recovery(tally: CrashTally) -> None:
    kind = "second crash at every operation of the recovery"
    for seed in range(4) if tally.full else (1,):
        tally.count("log", kind, crash_twice(Life(), seed, full=tally.full))
    tally.require("log", kind, 400)


def crash_twice(life: Life, seed: int, *, full: bool) -> int:
    """Live, and crash now and then (in the full product: everywhere), and again while what is left is opened."""
    random = Random(seed)
    cases = operations = 0

    def crash(operation: str, path: str) -> None:
        nonlocal cases, operations
        operations += 1
        if operation not in READING and (full or operations % 47 == 0):
            for disk in (life.disk.kill(), life.disk.crash(random)):
                cases += crash_again(life, disk, random, full=full)

    live(life, seed, crash)
    return cases


def crash_again(life: Life, disk: SimulatedDisk, random: Random, *, full: bool) -> int:
    """Crash at every operation of both ways to open `disk`; return how many cases that were."""
    cases = 0

    def again(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        for survivor in power_cuts(twin, random, count=1, full=full) if full else few_cuts():
            check(life, survivor)
            cases += 1

    def few_cuts() -> tuple[SimulatedDisk, SimulatedDisk]:
        return twin.crash_keeping([]), twin.crash(random)

    for check in (check_recovered, check_at_checkpoint):
        twin = disk.kill()
        twin.hook = again
        check(life, twin)
    return cases


def test_after_a_failed_sync_nothing_is_believed_that_only_looks_written(
    tally: CrashTally,
) -> None:
    kind = "every single sync fails, restart, power cut after it"
    for seed in range(20) if tally.full else (1, 2, 3):
        tally.count("log", kind, fail_every_sync(lambda disk: disk, seed))
    tally.require("log", kind, 120)


def fail_every_sync(through: Through, seed: int) -> int:
    """Fail each sync of a life, restart, and cut the power; return how many cases that were."""
    syncs: list[int] = []
    whole = Life(through=through)

    def note(operation: str, path: str) -> None:
        if operation in ("sync", "sync directory"):
            syncs.append(whole.disk.operation_count)

    live(whole, seed, note)
    for number in syncs:
        life = Life(through=through)
        life.disk.fail_at = number
        with pytest.raises(DiskFailed):
            live(life, seed, None)
        check_recovered(life, life.disk.kill())
        check_goes_on(life, life.disk.kill())
    return 2 * len(syncs)


def test_a_disk_that_refuses_any_operation_of_a_recovery_costs_nothing(tally: CrashTally) -> None:
    kind = "every operation of a recovery is refused, restart"
    life, random = Life(), Random(7)
    operations = 0

    def refuse(operation: str, path: str) -> None:
        nonlocal operations
        operations += 1
        if operation in READING or (operations % 17 and not tally.full):
            return
        disk = life.disk.crash(random)
        for nth in range(1, 200):
            twin = disk.kill()
            twin.fail_at = nth
            try:
                check_recovered(life, twin)
            except (AssertionError, DiskFailed) as error:
                if not isinstance(error.__cause__ or error, DiskFailed):
                    raise
                twin.fail_at = None
                check_recovered(life, twin.kill())
                tally.count("log", kind)
            else:
                break

    live(life, 5, refuse)
    tally.require("log", kind, 200)
