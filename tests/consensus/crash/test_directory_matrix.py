"""A whole data directory, opened after a crash at every disk operation of its life, and of the start after the crash before."""

from __future__ import annotations

from random import Random

from distlog.errors import DataDirectoryUnusable, DiskFailed
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.crash.crashes import (
    crash_twice,
    cut_everywhere,
    fail_every_sync,
    kill_everywhere,
)
from tests.consensus.crash.node_life import Life
from tests.crash_tally import CrashTally


def cut_node(life: Life, seed: int, *, full: bool) -> int:
    return cut_everywhere(life, seed, count=1, full=full, singles_every=4)


def test_a_power_cut_at_any_operation_keeps_any_part_of_what_was_not_synced(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, cut_node(Life(), seed, full=tally.full))
    tally.require("data directory", kind, 800)


def test_a_process_killed_at_any_operation_leaves_what_a_power_cut_may_still_take(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, power cut after the start"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, kill_everywhere(Life(), seed))
    tally.require("data directory", kind, 150)


def test_a_second_crash_at_any_operation_of_the_start(tally: CrashTally) -> None:
    kind = "second crash at every operation of the start"
    for seed in range(3) if tally.full else range(1):
        step = 1 if tally.full else 41
        tally.count("data directory", kind, crash_twice(Life(), seed, two_cuts, step=step))
    tally.require("data directory", kind, 300)


def two_cuts(disk: SimulatedDisk, random: Random) -> tuple[SimulatedDisk, SimulatedDisk]:
    return disk.crash_keeping([]), disk.crash(random)


def test_after_a_failed_sync_nothing_is_believed_that_only_looks_written(
    tally: CrashTally,
) -> None:
    kind = "every single sync fails, restart, power cut after it"
    for seed in range(8) if tally.full else range(1):
        tally.count("data directory", kind, fail_syncs(seed))
    tally.require("data directory", kind, 60)


def fail_syncs(seed: int) -> int:
    return fail_every_sync(Life, seed, (DiskFailed, DataDirectoryUnusable))
