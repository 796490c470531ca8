"""Crashes at every disk operation of a life: what the crash matrices of the journal and of a whole data directory share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

import pytest

from distlog.errors import DistlogError
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.storage.crash.damage import READING, power_cuts

# What a second crash may leave of a disk, to be opened one after the other.
Survivors = Callable[[SimulatedDisk, Random], Iterable[SimulatedDisk]]


class Life(Protocol):
    """What happens on a disk, and what any disk that a crash leaves of it must hold."""

    disk: SimulatedDisk

    def live(self, seed: int, hook: Hook | None) -> None:
        """Do what `seed` says; `hook` is called before each operation of the disk."""

    def check(self, disk: SimulatedDisk) -> None:
        """Open what a crash left, and hold it against what was promised by now."""


def cut_everywhere(life: Life, seed: int, *, count: int, full: bool, singles_every: int = 1) -> int:
    """Live, and open what each power cut of that life may leave; return how many cases that were.

    count: random subsets of what was not synced.  singles_every: each single thing is tried at one operation in so many, nothing
    and everything at all of them.
    """
    random = Random(seed)
    cases = operations = 0

    def cut(operation: str, path: str) -> None:
        nonlocal cases, operations
        if operation in READING:
            return
        operations += 1
        singles = full or operations % singles_every == 0
        for survivor in power_cuts(life.disk, random, count=count, full=full, singles=singles):
            life.check(survivor)
            cases += 1

    life.live(seed, cut)
    return cases


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


def crash_twice(life: Life, seed: int, survivors: Survivors, *, step: int = 1) -> int:
    """Live, crash at one operation in `step`, and again while what is left is opened; return how many cases that were."""
    random = Random(seed)
    cases = operations = 0

    def crash(operation: str, path: str) -> None:
        nonlocal cases, operations
        operations += 1
        if operation not in READING and operations % step == 0:
            for disk in (life.disk.kill(), life.disk.crash(random)):
                cases += crash_again(life, disk, random, survivors)

    life.live(seed, crash)
    return cases


def crash_again(life: Life, disk: SimulatedDisk, random: Random, survivors: Survivors) -> int:
    """Crash at every operation of opening `disk`; return how many cases that were."""
    cases = 0

    def again(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        for survivor in survivors(disk, random):
            life.check(survivor)
            cases += 1

    disk.hook = again
    life.check(disk)
    return cases


def fail_every_sync(
    begin: Callable[[], Life], seed: int, raised: tuple[type[DistlogError], ...]
) -> int:
    """Fail each sync of a life, which ends with an error that is `raised`, restart, and cut the power; return how many cases that were."""
    whole = begin()
    syncs: list[int] = []

    def note(operation: str, path: str) -> None:
        if operation in ("sync", "sync directory"):
            syncs.append(whole.disk.operation_count)

    whole.live(seed, note)
    for number in syncs:
        life = begin()
        life.disk.fail_at = number
        with pytest.raises(raised):
            life.live(seed, None)
        life.check(life.disk.kill())
    return len(syncs)
