"""What the crash matrix found once, each on its own: a restart must not believe what only looks durable."""

from __future__ import annotations

import pytest

from distlog.consensus.checkpoint import write_checkpoint
from distlog.consensus.commands import DeleteTopic
from distlog.consensus.journal import Journal
from distlog.errors import DiskFailed
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.crash.node_life import Life, Opened, open_node
from tests.consensus.journal_history import DIRECTORY, History, state, sync
from tests.storage.crash.damage import PowerCut


def test_an_operation_that_a_failed_sync_left_in_the_page_cache_is_written_again() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    history.set_term_vote(1, "n1")
    history.sync()
    history.set_term_vote(2, "n2")
    disk.fail_syncs = True
    with pytest.raises(DiskFailed):
        sync(history.journal)
    restarted = disk.kill()
    # The vote was not sent; the next process may answer by it.
    assert state(Journal.open(restarted, DIRECTORY)).vote == "n2"
    assert state(Journal.open(restarted.crash_keeping([]), DIRECTORY)).vote == "n2"


def test_only_what_nothing_proves_durable_is_written_again() -> None:
    disk = SimulatedDisk()
    history = History(Journal.open(disk, DIRECTORY))
    for number in range(50):
        history.append(b"%d" % number * 200)
        history.sync()
    written: list[int] = []
    restarted = disk.kill()
    restarted.hook = lambda operation, path: written.append(operation == "write")
    Journal.open(restarted, DIRECTORY)
    assert sum(written) == 1
    assert len(restarted.unsynced()) == 0


def test_a_checkpoint_that_a_killed_process_renamed_is_durable_before_files_go_by_it() -> None:
    life = Life()
    life.live(1)
    found = open_node(life.disk, lambda disk: disk)
    assert isinstance(found, Opened)
    orders = found.machine.topic_by_name("orders")
    assert orders is not None
    history = History(found.journal)
    life.history = history
    life._propose(found, DeleteTopic(orders.topic_id))
    image = found.machine.capture(
        previous=life.committed[-2],
        last=life.committed[-1],
        configuration=found.recovered.image.configuration,  # type: ignore[union-attr]
        durable_sequence=found.journal.durable_sequence,
    )
    image.sync_logs()

    def kill(operation: str, path: str) -> None:
        if operation == "sync directory" and path.endswith("/groups/0"):
            raise PowerCut

    life.disk.hook = kill
    with pytest.raises(PowerCut):
        write_checkpoint(life.disk, found.directory.checkpoint_path, image)
    restarted = life.disk.kill()
    again = open_node(restarted, lambda disk: disk)
    assert isinstance(again, Opened)
    assert again.machine.topic_by_name("orders") is None
    # The topic's files are gone.  If the rename went too, the older checkpoint would miss them.
    for item in restarted.unsynced():
        assert isinstance(open_node(restarted.crash_keeping([item]), lambda disk: disk), Opened)
    assert isinstance(open_node(restarted.crash_keeping([]), lambda disk: disk), Opened)
