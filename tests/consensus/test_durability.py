"""Durability OS: entries are promised when they are written, terms and votes when they are synced."""

from __future__ import annotations

import pytest

from distlog.consensus.durability import Durability
from distlog.consensus.journal import Journal, read_operations
from distlog.consensus.messages import AppendReply, Message, VoteReply, VoteRequest
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.journal_history import DIRECTORY, flush, sync
from tests.consensus.voters import ELECTION_S, Voters

# --- The journal ----------------------------------------------------------------------------------


def open_journal(disk: SimulatedDisk, file_size_max: int = 64 << 20) -> Journal:
    """Return a journal that has begun its file, with entry 1."""
    journal = Journal.open(disk, DIRECTORY, file_size_max=file_size_max, durability=Durability.OS)
    journal.append(b"begins the file", 1, 1)
    sync(journal)
    return journal


def after_kill(disk: SimulatedDisk) -> Journal:
    return Journal.open(disk.kill(), DIRECTORY)


def after_power_cut(disk: SimulatedDisk) -> Journal:
    """Open what is left where nothing survives that was not synced."""
    return Journal.open(disk.crash_keeping([]), DIRECTORY)


def test_an_entry_is_promisable_when_it_is_written_and_durable_when_that_is_synced() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(b"late", 2, 1)
    assert (journal.promisable_index, journal.durable_index) == (1, 1)
    sync(journal)
    assert (journal.promisable_index, journal.durable_index) == (2, 1)
    assert journal.promisable_sequence == journal.sequence == journal.durable_sequence + 1
    assert (after_kill(disk).last_index, after_power_cut(disk).last_index) == (2, 1)
    flush(journal)
    assert (journal.durable_index, journal.durable_sequence) == (2, journal.sequence)
    assert after_power_cut(disk).last_index == 2
    assert journal.begin_flush() is None


def test_a_vote_is_promisable_when_it_is_synced_with_everything_before_it() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append(b"before", 2, 1)
    sync(journal)
    journal.set_term_vote(2, "n2")
    journal.append(b"behind", 3, 2)
    assert journal.must_sync
    sync(journal)
    assert journal.promisable_sequence == journal.durable_sequence == journal.sequence
    recovered = after_power_cut(disk)
    assert (recovered.term, recovered.vote, recovered.last_index) == (2, "n2", 3)
    journal.append(b"with no vote", 4, 2)
    assert not journal.must_sync


def test_a_vote_that_comes_while_entries_are_being_written_does_not_leave_with_them() -> None:
    journal = open_journal(SimulatedDisk())
    journal.append(b"entry", 2, 1)
    ticket = journal.begin_sync()
    assert ticket is not None
    journal.set_term_vote(2, "n2")
    ticket.run()
    journal.finish_sync(ticket)
    assert journal.durable_sequence < journal.promisable_sequence < journal.vote_sequence


def test_a_file_is_synced_to_its_end_before_the_next_one_begins() -> None:
    operations: list[tuple[str, str]] = []
    disk = SimulatedDisk()
    journal = open_journal(disk, file_size_max=200)
    journal.append(bytes(200), 2, 1)
    sync(journal)
    assert journal.durable_index == 1
    disk.hook = lambda operation, path: operations.append((operation, path[-12:]))
    journal.append(b"in the next file", 3, 1)
    sync(journal)
    assert [operation for operation, _ in operations] == [
        "sync", "open", "sync directory", "write", "sync",
    ]  # fmt: skip
    assert operations[0][1] != operations[-1][1]
    assert journal.durable_index == 3


def test_an_operation_says_only_what_was_synced_when_it_was_written() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for raft_index in range(2, 6):
        journal.append(b"entry", raft_index, 1)
        sync(journal)
        if raft_index == 3:
            flush(journal)
    said = [operation.durable_sequence for operation in read_operations(disk.kill(), DIRECTORY)]
    assert said == [0, 0, 2, 2, 4, 4]


def test_a_truncation_lowers_what_a_flush_under_way_makes_durable() -> None:
    journal = open_journal(SimulatedDisk())
    for raft_index in (2, 3):
        journal.append(b"old", raft_index, 1)
    sync(journal)
    flushed = journal.begin_flush()
    assert flushed is not None
    journal.truncate_from(2)
    assert journal.promisable_index == 1
    for raft_index in (2, 3):
        journal.append(b"new", raft_index, 2)
    sync(journal)
    flushed.file.sync()
    journal.finish_flush(flushed)
    assert (journal.durable_index, journal.promisable_index) == (1, 3)
    flush(journal)
    assert journal.durable_index == 3


def test_two_syncs_are_never_under_way() -> None:
    journal = open_journal(SimulatedDisk())
    journal.append(b"entry", 2, 1)
    sync(journal)
    assert journal.begin_flush() is not None
    with pytest.raises(AssertionError):
        journal.begin_flush()
    journal.set_term_vote(2, None)
    with pytest.raises(AssertionError):
        journal.begin_sync()


def test_no_file_goes_before_what_lets_it_go_is_durable() -> None:
    journal = open_journal(SimulatedDisk(), file_size_max=1000)
    for raft_index in range(2, 20):
        journal.append(bytes(100), raft_index, 1)
        sync(journal)
    assert 10 < journal.durable_index < 19
    assert journal.compact(19) is None
    flush(journal)
    assert journal.compact(19) is not None


# --- The rules ------------------------------------------------------------------------------------


def elected() -> Voters:
    """Return three voters, led by a, that write and sync only when the test says so."""
    cluster = Voters(durability=Durability.OS)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    for name in "abc":
        flush(cluster[name].journal)
    cluster.sync_at_once = False
    return cluster


def test_a_follower_acknowledges_what_it_has_written() -> None:
    cluster = elected()
    cluster.lose("a")
    cluster.propose("a", b"entry")
    cluster.tick("a")
    cluster.deliver("a", "b")
    journal = cluster["b"].journal
    assert claimed(cluster) <= journal.promisable_index < journal.last_index
    cluster["b"].sync()
    assert claimed(cluster) == journal.last_index > journal.durable_index


def claimed(cluster: Voters) -> int:
    """Return up to which entry b's answers on their way claim to have a's log."""
    replies = cluster.decoded(cluster.queues["b", "a"])
    return max(
        (reply.next_index - 1 for reply in replies if isinstance(reply, AppendReply)), default=0
    )


def test_a_leader_counts_what_it_has_written() -> None:
    cluster = elected()
    cluster.propose("a", b"entry")
    cluster.tick("a")
    cluster.deliver("a", "b")
    cluster["b"].sync()
    cluster.deliver("b", "a")
    cluster.tick("a")
    assert cluster.acknowledged() == []
    cluster["a"].sync()
    cluster.tick("a")
    assert cluster.acknowledged() == [b"entry"]
    assert cluster["a"].journal.durable_index < cluster["a"].journal.last_index


def test_a_voter_that_is_alone_acknowledges_what_it_has_written() -> None:
    cluster = Voters("a", durability=Durability.OS)
    cluster.elect("a")
    cluster.tick("a", "a")
    flush(cluster["a"].journal)
    cluster.propose("a", b"entry")
    cluster.tick("a", "a")
    assert cluster.acknowledged() == [b"entry"]
    assert cluster["a"].journal.durable_index < cluster["a"].journal.last_index


def test_a_vote_leaves_only_when_no_power_cut_can_take_it() -> None:
    cluster = elected()
    cluster.propose("a", b"entry")
    cluster.tick("a")
    cluster.deliver("a", "b")
    cluster.deliver("a", "c")
    for name in "abc":
        cluster[name].sync()
    cluster.depose("a")
    cluster.lose("a")
    cluster.clock.now += 3 * ELECTION_S
    # It asks whether it would win, and then for the vote.
    cluster["c"].raft.tick()
    cluster.exchange("c", "b")
    cluster["c"].raft.tick()
    for voter, other, kind in (("c", "b", VoteRequest), ("b", "c", VoteReply)):
        journal = cluster[voter].journal
        assert journal.vote == "c"
        assert not sent(cluster, voter, other, kind), "its term and its vote are not synced"
        assert journal.durable_index < journal.promisable_index, "and entries neither"
        cluster[voter].sync()
        assert sent(cluster, voter, other, kind)
        recovered = Journal.open(cluster[voter].disk.crash_keeping([]), "journal")
        assert (recovered.term, recovered.vote) == (journal.term, "c")
        cluster.deliver(voter, other)
    cluster["c"].raft.tick()
    assert cluster["c"].raft.is_leader


def sent(cluster: Voters, sender: str, receiver: str, kind: type[Message]) -> bool:
    """Tell whether a message of a kind is on its way."""
    return any(isinstance(each, kind) for each in cluster.decoded(cluster.queues[sender, receiver]))
