"""The journal on a disk that forgets: a power cut at any moment costs nothing that a finished sync covered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distlog.consensus.journal import Journal, JournalEntry, SyncTicket
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, History, carry_out, state
from tests.crash_tally import CrashTally

FILE_SIZE_MAX = 6000
CACHE_SIZE_MAX = 3000


class PowerCut(Exception):
    """The machine stopped before this disk operation."""


def cut_before(number: int) -> Callable[[str, str], None]:
    """Return a hook that stops the machine before the disk operation with this number, from 0."""
    count = 0

    def hook(operation: str, path: str) -> None:
        nonlocal count
        if count == number:
            raise PowerCut
        count += 1

    return hook


def open_journal(disk: SimulatedDisk) -> Journal:
    return Journal.open(disk, DIRECTORY, file_size_max=FILE_SIZE_MAX, cache_size_max=CACHE_SIZE_MAX)


def payload(random: Random) -> bytes:
    """Return bytes that no other entry has: small ones, and some that span pages."""
    return random.randbytes(random.choice((8, 100, 1000, 5000)))


def live(history: History, random: Random) -> None:
    """Append, vote, truncate, roll, sync and compact."""
    for term in range(history.now.term + 1, history.now.term + 9):
        history.set_term_vote(term, random.choice((None, "n1", "n2")))
        for _ in range(random.randrange(1, 5)):
            history.append(payload(random))
        if random.random() < 0.5:
            history.sync()
        journal = history.journal
        if random.random() < 0.3:
            history.truncate_from(random.randint(journal.first_index, journal.last_index))
        if journal.durable_index >= journal.first_index > 0 and random.random() < 0.7:
            history.compact(random.randint(journal.first_index, journal.durable_index))
        history.sync()


@pytest.mark.seeds(30)
def test_a_power_cut_before_any_disk_operation_costs_nothing_that_was_durable(seed: int) -> None:
    whole = SimulatedDisk()
    live(History(open_journal(whole)), Random(seed))
    for number in range(whole.operation_count):
        # The journal does the same each time, up to the cut.
        disk = SimulatedDisk()
        disk.make_directory(DIRECTORY)
        history = History(open_journal(disk))
        disk.hook = cut_before(number)
        try:
            live(history, Random(seed))
        except PowerCut:
            pass
        else:
            break
        for outcome in range(2):
            crashed = disk.crash(Random(outcome))
            check_after_crash(history, crashed, Random(outcome))
    assert number > 20


def check_after_crash(history: History, crashed: SimulatedDisk, random: Random) -> None:
    """Open what a crash left, also with another crash while it is opened, and go on."""
    durable = history.journal.durable_sequence
    recovered = open_journal(crashed.kill())
    history.check_recovered(recovered, durable_sequence=durable)

    again = crashed.kill()
    again.hook = cut_before(random.randrange(8))
    try:
        open_journal(again)
    except PowerCut:
        again = again.crash(random)
        # What the first crash left is on the medium: a second one takes nothing more.
        assert state(open_journal(again)) == state(recovered)

    again.hook = None
    second = History(open_journal(again))
    second.append(payload(random))
    second.set_term_vote(second.now.term + 1, None)
    second.sync()
    second.append(payload(random))
    twice = open_journal(again.crash(random))
    second.check_recovered(twice, durable_sequence=second.journal.durable_sequence)


@pytest.mark.seeds(40)
def test_whatever_part_of_a_ticket_reaches_the_disk_the_rest_is_cut_and_the_journal_goes_on(
    seed: int,
) -> None:
    random = Random(seed)
    disk = SimulatedDisk()
    history = History(open_journal(disk))
    history.append(payload(random))
    history.sync()
    for _ in range(4):
        for _ in range(random.randrange(1, 12)):
            history.append(payload(random))
        ticket = history.journal.begin_sync()
        assert ticket is not None
        disk.hook = cut_before(random.randrange(3))
        with pytest.raises(PowerCut):
            run_without_the_last_sync(ticket, disk)
        durable = history.journal.durable_sequence
        disk = disk.crash(random)
        recovered = open_journal(disk)
        history.check_recovered(recovered, durable_sequence=durable)
        history = History(recovered)
        history.append(payload(random))
        history.sync()
    history.check_recovered(
        open_journal(disk.crash(random)), durable_sequence=history.journal.sequence
    )


def run_without_the_last_sync(ticket: SyncTicket, disk: SimulatedDisk) -> None:
    """Run a ticket on a machine that stops at the latest when it has run."""
    carry_out(ticket)
    disk.hook = None
    raise PowerCut


@pytest.mark.parametrize("removed_count", [1, 2, 3])
def test_a_power_cut_while_files_are_removed_leaves_no_hole(removed_count: int) -> None:
    for number in range(2 * removed_count + 1):
        for outcome in range(8):
            disk = SimulatedDisk()
            journal = Journal.open(disk, DIRECTORY, file_size_max=1)
            history = History(journal)
            for raft_index in range(6):
                history.append(b"%d" % raft_index)
            history.sync()
            disk.hook = cut_before(number)
            try:
                history.compact(removed_count + 1)
            except PowerCut:
                pass
            else:
                assert number == 2 * removed_count
            recovered = open_journal(disk.crash(Random(outcome)))
            history.check_recovered(recovered, durable_sequence=journal.sequence)


@pytest.mark.seeds(16)
def test_a_removal_that_a_killed_process_left_unfinished_leaves_no_hole_later(seed: int) -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY, file_size_max=1))
    for number in range(6):
        history.append(b"%d" % number)
    history.sync()
    for first_index in (2, 3):
        # The file is removed, but its directory is not synced.
        disk.hook = cut_before(1)
        with pytest.raises(PowerCut):
            history.compact(first_index)
        disk = disk.kill() if first_index == 2 else disk.crash(Random(seed))
        recovered = open_journal(disk)
        history.check_recovered(recovered, durable_sequence=history.journal.sequence)
        history = History(recovered)


# --- Any order of calls, against a list ---------------------------------------------------------


class JournalMachine(RuleBasedStateMachine):
    """Calls in any order, syncs that overlap them, crashes in between; beside it, lists."""

    # Of all examples together, the opening that each begins with included.
    steps = 0

    @initialize()
    def start(self) -> None:
        self.disk = SimulatedDisk()
        self.number = 0
        self.adopt(open_journal(self.disk))

    def adopt(self, journal: Journal) -> None:
        """Go on with a journal that was just opened."""
        self.history = History(journal)
        self.durable: set[JournalEntry] = set(self.history.now.entries)
        self.ticket: SyncTicket | None = None
        self.covered: set[JournalEntry] = set()
        self.first_index = journal.first_index

    @property
    def journal(self) -> Journal:
        return self.history.journal

    @rule(size=st.sampled_from([0, 1, 7, 8, 200, 4100, 9000]), far=st.integers(1, 50))
    def append(self, size: int, far: int) -> None:
        self.number += 1
        if not len(self.journal):
            self.first_index = far
        raft_index = self.journal.last_index + 1 if len(self.journal) else far
        self.history.append(b"%d:" % self.number + bytes(size), raft_index=raft_index)

    @precondition(lambda self: len(self.journal))
    @rule(where=st.floats(0, 1))
    def truncate(self, where: float) -> None:
        self.history.truncate_from(self.some_index(where, self.journal.last_index))

    @rule(vote=st.sampled_from([None, "n1", "n2"]), step=st.integers(0, 2))
    def set_term_vote(self, vote: str | None, step: int) -> None:
        self.history.set_term_vote(self.history.now.term + step, vote)

    @precondition(lambda self: self.ticket is None)
    @rule()
    def begin_sync(self) -> None:
        has_news = self.journal.sequence > self.journal.durable_sequence
        self.ticket = self.journal.begin_sync()
        assert (self.ticket is not None) == has_news
        self.covered = set(self.history.now.entries)

    @precondition(lambda self: self.ticket is not None)
    @rule()
    def finish_sync(self) -> None:
        assert self.ticket is not None
        carry_out(self.ticket)
        self.journal.finish_sync(self.ticket)
        assert self.journal.durable_sequence == self.ticket.sequence
        self.ticket = None
        self.durable |= self.covered

    @precondition(lambda self: len(self.journal))
    @rule(where=st.floats(0, 1))
    def compact(self, where: float) -> None:
        self.first_index = self.some_index(where, self.journal.last_index)
        self.history.compact(self.first_index)

    @rule(seed=st.integers(0, 1 << 16), operations_left=st.integers(0, 6))
    def crash(self, seed: int, operations_left: int) -> None:
        """Cut the power, in the middle of a sync if one is under way, and open what is left."""
        if self.ticket is not None:
            self.disk.hook = cut_before(operations_left)
            with suppress(PowerCut):
                carry_out(self.ticket)
        self.reopen(self.disk.crash(Random(seed)))

    @rule(seed=st.integers(0, 1 << 16))
    def write_back(self, seed: int) -> None:
        self.disk.write_back(Random(seed))

    @rule()
    def kill(self) -> None:
        self.reopen(self.disk.kill())

    def reopen(self, disk: SimulatedDisk) -> None:
        durable_sequence = self.journal.durable_sequence
        self.disk = disk
        recovered = Journal.open(
            disk,
            DIRECTORY,
            proven_sequence=durable_sequence,
            file_size_max=FILE_SIZE_MAX,
            cache_size_max=CACHE_SIZE_MAX,
        )
        self.history.check_recovered(recovered, durable_sequence=durable_sequence)
        self.adopt(recovered)

    def some_index(self, where: float, last: int) -> int:
        first = self.journal.first_index
        return first + round(where * (last - first))

    @invariant()
    def the_journal_is_the_list(self) -> None:
        JournalMachine.steps += 1
        journal, now = self.journal, self.history.now
        entries = [entry for entry in now.entries if entry.raft_index >= self.first_index]
        assert state(journal) == (tuple(entries), now.term, now.vote)
        assert len(journal) == len(entries)
        assert journal.last_index == (entries[-1].raft_index if entries else 0)
        assert [journal.term_at(entry.raft_index) for entry in entries] == [
            entry.term for entry in entries
        ]

    @invariant()
    def what_is_durable_is_what_a_finished_sync_saw(self) -> None:
        durable = [entry.raft_index for entry in self.history.now.entries if entry in self.durable]
        assert self.journal.durable_index == max(durable, default=0)


def test_a_journal_is_a_list_in_any_order_of_calls(tally: CrashTally) -> None:
    """The same examples each time; `--full-matrix --hypothesis-seed N` tries others."""
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(
            max_examples=2_000 if tally.full else 200,
            stateful_step_count=50,
            derandomize=not tally.full,
            database=None,
        ),
    )
    tally.count("journal", "steps of a state machine against a list", JournalMachine.steps)
    tally.require("journal", "steps of a state machine against a list", 3_000)
