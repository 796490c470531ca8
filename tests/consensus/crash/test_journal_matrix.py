"""The journal, opened after a crash at every disk operation of its life, and of the recovery from the crash before."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from distlog.consensus.journal import Journal
from distlog.errors import DiskFailed, DistlogError
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, state
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import READING, power_cuts
from tests.storage.crash.log_life import Through

FILE_SIZE_MAX = 6_000
CACHE_SIZE_MAX = 3_000


def open_journal(
    disk: SimulatedDisk, through: Through, proven_sequence: int = 0, kind: type[Journal] = Journal
) -> Journal:
    try:
        return kind.open(
            through(disk),
            DIRECTORY,
            proven_sequence=proven_sequence,
            file_size_max=FILE_SIZE_MAX,
            cache_size_max=CACHE_SIZE_MAX,
        )
    except DistlogError as error:
        if isinstance(error, DiskFailed):
            raise
        raise AssertionError(f"it does not open: {error}") from error


class Life:
    """A journal's disk, and beside the journal what a list makes of the same calls."""

    def __init__(self, through: Through = lambda disk: disk, kind: type[Journal] = Journal) -> None:
        """`through` and `kind` are where a fault can be planted."""
        self.disk = SimulatedDisk()
        self.disk.make_directory(DIRECTORY)
        self.through = through
        self.history = History(open_journal(self.disk, through, kind=kind))

    def live(self, seed: int, hook: Hook | None) -> None:
        """Append, vote, truncate, roll, sync and compact."""
        random = Random(seed)
        history, journal = self.history, self.history.journal
        self.disk.hook = hook
        for term in range(1, 8):
            history.set_term_vote(term, random.choice((None, "n1", "n2")))
            for _ in range(random.randrange(1, 5)):
                history.append(random.randbytes(random.choice((8, 100, 1000, 5000))))
            if random.random() < 0.5:
                history.sync()
            if random.random() < 0.3:
                self.disk.write_back(random)
            if random.random() < 0.4:
                history.truncate_from(random.randint(journal.first_index, journal.last_index))
            if journal.durable_index >= journal.first_index > 0 and random.random() < 0.7:
                history.compact(random.randint(journal.first_index, journal.durable_index))
            history.sync()
        self.disk.hook = None

    def check(self, disk: SimulatedDisk) -> None:
        """Open what a crash left; then take away all that recovery did not sync, and open that; then go on."""
        durable = self.history.journal.durable_sequence
        recovered = open_journal(disk, self.through, durable)
        self.history.check_recovered(recovered, durable_sequence=durable)
        bare = disk.crash_keeping([])
        again = open_journal(bare, self.through, recovered.durable_sequence)
        assert state(again) == state(recovered), "recovery promised what was not durable"
        self._check_goes_on(bare, again)

    def _check_goes_on(self, disk: SimulatedDisk, journal: Journal) -> None:
        heir = History(journal)
        heir.append(b"after the crash")
        heir.set_term_vote(heir.now.term + 1, None)
        heir.sync()
        heir.append(b"and this was not synced")
        twice = open_journal(disk.crash_keeping([]), self.through)
        heir.check_recovered(twice, durable_sequence=journal.durable_sequence)


def cut_everywhere(life: Life, seed: int, *, full: bool) -> int:
    """Live, and open what each power cut of that life may leave; return how many cases that were."""
    random = Random(seed)
    cases = 0

    def cut(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        for survivor in power_cuts(life.disk, random, count=2, full=full):
            life.check(survivor)
            cases += 1

    life.live(seed, cut)
    return cases


def test_a_power_cut_at_any_operation_keeps_any_part_of_what_was_not_synced(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(60) if tally.full else range(10):
        tally.count("journal", kind, cut_everywhere(Life(), seed, full=tally.full))
    tally.require("journal", kind, 800)


def test_a_process_killed_at_any_operation_leaves_what_a_power_cut_may_still_take(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, power cut after the recovery"
    for seed in range(100) if tally.full else range(10):
        tally.count("journal", kind, kill_everywhere(Life(), seed))
    tally.require("journal", kind, 200)


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


def test_a_second_crash_at_any_operation_of_the_recovery(tally: CrashTally) -> None:
    kind = "second crash at every operation of the recovery"
    for seed in range(20) if tally.full else range(3):
        tally.count("journal", kind, crash_twice(Life(), seed, full=tally.full))
    tally.require("journal", kind, 800)


def crash_twice(life: Life, seed: int, *, full: bool) -> int:
    """Live, crash everywhere, and crash again while what is left is opened; return how many cases that were."""
    random = Random(seed)
    cases = 0

    def crash(operation: str, path: str) -> None:
        nonlocal cases
        if operation not in READING:
            for disk in (life.disk.kill(), life.disk.crash(random)):
                cases += crash_again(life, disk, random, full=full)

    life.live(seed, crash)
    return cases


def crash_again(life: Life, disk: SimulatedDisk, random: Random, *, full: bool) -> int:
    """Crash at every operation of opening `disk`; return how many cases that were."""
    cases = 0

    def again(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        for survivor in power_cuts(disk, random, count=1, full=full):
            life.check(survivor)
            cases += 1

    disk.hook = again
    life.check(disk)
    return cases


def test_after_a_failed_sync_nothing_is_believed_that_only_looks_written(
    tally: CrashTally,
) -> None:
    kind = "every single sync fails, restart, power cut after it"
    for seed in range(60) if tally.full else range(12):
        tally.count("journal", kind, fail_every_sync(Life, seed))
    tally.require("journal", kind, 100)


def fail_every_sync(begin: Callable[[], Life], seed: int) -> int:
    """Fail each sync of a life, restart, and cut the power; return how many cases that were."""
    whole = begin()
    syncs: list[int] = []

    def note(operation: str, path: str) -> None:
        if operation in ("sync", "sync directory"):
            syncs.append(whole.disk.operation_count)

    whole.live(seed, note)
    for number in syncs:
        life = begin()
        life.disk.fail_at = number
        with pytest.raises(DiskFailed):
            life.live(seed, None)
        life.check(life.disk.kill())
    return len(syncs)
