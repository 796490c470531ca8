"""The journal, opened after a crash at every disk operation of its life, and of the recovery from the crash before."""

from __future__ import annotations

from functools import partial
from random import Random

from distlog.consensus.durability import Durability
from distlog.consensus.journal import Journal
from distlog.errors import DiskFailed, DistlogError
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.consensus.crash.crashes import (
    crash_twice,
    cut_everywhere,
    fail_every_sync,
    kill_everywhere,
)
from tests.consensus.journal_history import DIRECTORY, History, flush, state
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import power_cuts
from tests.storage.crash.log_life import Through

FILE_SIZE_MAX = 6_000
CACHE_SIZE_MAX = 3_000


def open_journal(
    disk: SimulatedDisk,
    through: Through,
    proven_sequence: int = 0,
    kind: type[Journal] = Journal,
    durability: Durability = Durability.FSYNC,
) -> Journal:
    try:
        return kind.open(
            through(disk),
            DIRECTORY,
            proven_sequence=proven_sequence,
            file_size_max=FILE_SIZE_MAX,
            cache_size_max=CACHE_SIZE_MAX,
            durability=durability,
        )
    except DistlogError as error:
        if isinstance(error, DiskFailed):
            raise
        raise AssertionError(f"it does not open: {error}") from error


class Life:
    """A journal's disk, and beside the journal what a list makes of the same calls."""

    def __init__(
        self,
        through: Through = lambda disk: disk,
        kind: type[Journal] = Journal,
        durability: Durability = Durability.FSYNC,
    ) -> None:
        """`through` and `kind` are where a fault can be planted."""
        self.disk = SimulatedDisk()
        self.disk.make_directory(DIRECTORY)
        self.through = through
        self.history = History(open_journal(self.disk, through, kind=kind, durability=durability))

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

    @property
    def kept_sequence(self) -> int:
        """Return up to where operations must be there after what may happen to the disk: a power cut."""
        return self.history.journal.durable_sequence

    def check(self, disk: SimulatedDisk) -> None:
        """Open what a crash left; then take away all that recovery did not sync, and open that; then go on."""
        journal = self.history.journal
        recovered = open_journal(disk, self.through, journal.durable_sequence)
        self.history.check_recovered(recovered, durable_sequence=self.kept_sequence)
        if journal.vote_sequence <= journal.promisable_sequence:
            # Whatever the entries, who was told of this term or got this vote relies on it.
            assert (recovered.term, recovered.vote) == (journal.term, journal.vote)
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


class UnsyncedLife(Life):
    """A journal that is synced behind its promises."""

    def __init__(self, kind: type[Journal] = Journal) -> None:
        super().__init__(kind=kind, durability=Durability.OS)

    def live(self, seed: int, hook: Hook | None) -> None:
        """Write, vote, truncate, roll and compact, and sync now and then."""
        random = Random(seed)
        history, journal = self.history, self.history.journal
        self.disk.hook = hook
        for step in range(24):
            if step % 6 == 0 or random.random() < 0.1:
                history.set_term_vote(history.now.term + 1, random.choice((None, "n1", "n2")))
            for _ in range(random.randrange(1, 4)):
                history.append(random.randbytes(random.choice((8, 100, 1000))))
            history.sync()
            if random.random() < 0.2:
                history.truncate_from(random.randint(journal.first_index, journal.last_index))
            if random.random() < 0.2:
                self.disk.write_back(random)
            if random.random() < 0.25:
                flush(journal)
            if journal.durable_index >= journal.first_index > 0 and random.random() < 0.3:
                history.compact(random.randint(journal.first_index, journal.durable_index))
        self.disk.hook = None


class KilledLife(UnsyncedLife):
    """The same, and the process is killed on a machine that goes on."""

    @property
    def kept_sequence(self) -> int:
        return self.history.journal.promisable_sequence


def cut_journal(life: Life, seed: int, *, full: bool) -> int:
    return cut_everywhere(life, seed, count=2, full=full)


def test_a_power_cut_at_any_operation_keeps_any_part_of_what_was_not_synced(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(60) if tally.full else range(10):
        tally.count("journal", kind, cut_journal(Life(), seed, full=tally.full))
    tally.require("journal", kind, 800)


def test_a_process_killed_at_any_operation_leaves_what_a_power_cut_may_still_take(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, power cut after the recovery"
    for seed in range(100) if tally.full else range(10):
        tally.count("journal", kind, kill_everywhere(Life(), seed))
    tally.require("journal", kind, 200)


def test_a_power_cut_of_a_journal_that_is_synced_behind_its_promises_keeps_what_is_durable_and_every_vote(
    tally: CrashTally,
) -> None:
    """And what is lost is a torn tail to the recovery, never corruption."""
    kind = "power cut at every operation, durability os"
    for seed in range(60) if tally.full else range(10):
        tally.count("journal", kind, cut_journal(UnsyncedLife(), seed, full=tally.full))
    tally.require("journal", kind, 800)


def test_a_kill_of_a_journal_that_is_synced_behind_its_promises_keeps_all_of_them(
    tally: CrashTally,
) -> None:
    kind = "killed at every operation, durability os"
    for seed in range(100) if tally.full else range(10):
        tally.count("journal", kind, kill_everywhere(KilledLife(), seed))
    tally.require("journal", kind, 150)


def test_a_second_crash_at_any_operation_of_the_recovery(tally: CrashTally) -> None:
    kind = "second crash at every operation of the recovery"
    survivors = partial(power_cuts, count=1, full=tally.full)
    for seed in range(20) if tally.full else range(3):
        tally.count("journal", kind, crash_twice(Life(), seed, survivors))
    tally.require("journal", kind, 800)


def test_after_a_failed_sync_nothing_is_believed_that_only_looks_written(
    tally: CrashTally,
) -> None:
    kind = "every single sync fails, restart, power cut after it"
    for seed in range(60) if tally.full else range(12):
        tally.count("journal", kind, fail_every_sync(Life, seed, (DiskFailed,)))
    tally.require("journal", kind, 100)
