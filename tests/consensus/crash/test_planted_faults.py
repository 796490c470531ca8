"""The crash matrix of journal, checkpoint and data directory fails on a product that forgets a sync or changes the order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from distlog.consensus.journal import Journal
from distlog.consensus.journal_writer import JournalWriter, Write
from distlog.errors import DiskFailed
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.crash.crashes import fail_every_sync
from tests.consensus.crash.node_life import Life as NodeLife
from tests.consensus.crash.test_directory_matrix import cut_node
from tests.consensus.crash.test_journal_matrix import Life as JournalLife
from tests.consensus.crash.test_journal_matrix import UnsyncedLife, cut_journal
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import READING
from tests.storage.crash.faulty_disks import NoDirectorySync, NoRewrite, NoSync, planted


class EagerWriter(JournalWriter):
    """Begins a file before the one before is synced: one sync at the end seems to be enough."""

    def write(self, writes: deque[Write], syncs: bool, is_unsynced: bool) -> None:
        touched: list[DiskFile] = []
        while writes:
            write = writes.popleft()
            if write.position == 0:
                self._file = self._disk.open(write.path, create=True)
                self._disk.sync_directory(self._directory)
            self.file.write_at(write.position, write.parts)
            touched.append(self.file)
        for file in reversed(touched):
            file.sync()


class EagerJournal(Journal):
    def __init__(self, disk: Disk, directory: str, *limits: Any) -> None:
        super().__init__(disk, directory, *limits)
        self._writer = EagerWriter(disk, directory)


class ForgetfulWriter(JournalWriter):
    """Begins a file without a thought of what was only written to the one before."""

    def write(self, writes: deque[Write], syncs: bool, is_unsynced: bool) -> None:
        super().write(writes, syncs, False)


class ForgetfulJournal(Journal):
    def __init__(self, disk: Disk, directory: str, *limits: Any) -> None:
        super().__init__(disk, directory, *limits)
        self._writer = ForgetfulWriter(disk, directory)


class CarelessJournal(Journal):
    """Counts a term and a vote as promised when they are written."""

    @property
    def must_sync(self) -> bool:
        return any(batch.position == 0 for batch in self._queue)


JOURNAL_FAULTS = {
    "the journal is never synced": planted(NoSync, lambda path: path.endswith(".journal")),
    "the name of a new journal file is not synced": planted(
        NoDirectorySync, lambda path: path.endswith("/journal")
    ),
}

NODE_FAULTS = {
    "a checkpoint is renamed without being synced": planted(
        NoSync, lambda path: path.endswith("/checkpoint.new")
    ),
    "the directory is not synced after a checkpoint's rename": planted(
        NoDirectorySync, lambda path: path.endswith("/groups/0")
    ),
    "the logs are never synced": planted(
        NoSync, lambda path: "/topics/" in path and not path.endswith("/synced")
    ),
    "the names in a log's directory are not synced": planted(
        NoDirectorySync, lambda path: "/topics/" in path
    ),
    "node.json is renamed without being synced": planted(
        NoSync, lambda path: path.endswith("/node.json.tmp")
    ),
    "the names of the data directory are not synced": planted(
        NoDirectorySync, lambda path: path == "/node"
    ),
}


@pytest.mark.parametrize("fault", JOURNAL_FAULTS)
def test_a_planted_fault_of_the_journal_is_found(fault: str, tally: CrashTally) -> None:
    with pytest.raises(AssertionError):
        cut_journals(lambda: JournalLife(JOURNAL_FAULTS[fault]))
    tally.count("journal", "planted faults found")


def cut_journals(begin: Callable[[], JournalLife]) -> None:
    for seed in range(10):
        cut_journal(begin(), seed, full=False)


@pytest.mark.parametrize("fault", NODE_FAULTS)
def test_a_planted_fault_of_a_node_is_found(fault: str, tally: CrashTally) -> None:
    with pytest.raises(AssertionError):
        cut_node(NodeLife(NODE_FAULTS[fault]), 0, full=False)
    tally.count("data directory", "planted faults found")


ORDERS = {
    "the journal forgets before the checkpoint is durable": (
        "sync_logs",
        "compact",
        "write",
        "remove_files",
    ),
    "files go before the checkpoint is durable": ("sync_logs", "remove_files", "write", "compact"),
    "the checkpoint is written before the logs are synced": (
        "write",
        "sync_logs",
        "remove_files",
        "compact",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_checkpoint_in_the_wrong_order_is_found(order: str, tally: CrashTally) -> None:
    life = NodeLife()
    life.checkpoint_steps = ORDERS[order]
    with pytest.raises(AssertionError):
        cut_node(life, 0, full=False)
    tally.count("data directory", "planted faults found")


def test_a_journal_file_that_is_begun_too_early_is_found(tally: CrashTally) -> None:
    with pytest.raises(AssertionError):
        cut_journals(lambda: JournalLife(kind=EagerJournal))
    tally.count("journal", "planted faults found")


@pytest.mark.parametrize("kind", [ForgetfulJournal, CarelessJournal])
def test_a_journal_that_leaves_too_much_to_the_system_is_found(
    kind: type[Journal], tally: CrashTally
) -> None:
    with pytest.raises(AssertionError):
        cut_journals(lambda: UnsyncedLife(kind))
    tally.count("journal", "planted faults found")


def test_a_journal_that_trusts_the_page_cache_at_its_start_is_found(tally: CrashTally) -> None:
    fail_every_sync(JournalLife, 1, (DiskFailed,))
    with pytest.raises(AssertionError):
        fail_every_sync(lambda: JournalLife(NoRewrite), 1, (DiskFailed,))
    tally.count("journal", "planted faults found")


def test_a_start_that_does_not_sync_what_a_killed_process_left_is_found(tally: CrashTally) -> None:
    life = NodeLife()
    # The node itself is right, and the one that starts after it is not.

    def kill(operation: str, path: str) -> None:
        if operation not in READING:
            life.check(life.disk.kill())

    def through(disk: SimulatedDisk) -> Disk:
        return disk if disk is life.disk else NoDirectorySync(disk, lambda path: True)

    life.through = through
    with pytest.raises(AssertionError):
        life.live(0, kill)
    tally.count("data directory", "planted faults found")
