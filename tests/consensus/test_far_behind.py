"""Voters that lack what their leader's journal has forgotten: they are told so, stay quiet, and get entries again when they have it."""

from __future__ import annotations

from distlog.consensus.messages import CheckpointNeeded
from tests.consensus.voters import Voters, directory_of


def a_voter_that_lacks_what_the_leader_has_forgotten() -> Voters:
    """Return a cluster whose leader `a` has compacted its journal beyond what `c` has, which is connected again."""
    cluster = Voters(journal_file_size_max=2000)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster["a"].raft.peer_disconnected("c")
    for number in range(40):
        cluster.propose("a", b"x%d" % number * 20)
        cluster.settle("a", "b", rounds=1)
    cluster.settle("a", "b")
    assert cluster["a"].journal.compact(cluster["a"].raft.last_applied - 1) is not None
    cluster["a"].raft.peer_connected("c", directory_of("c"))
    cluster.lose("c")
    return cluster


def test_a_voter_that_is_too_far_behind_is_told_so_and_stays_quiet() -> None:
    cluster = a_voter_that_lacks_what_the_leader_has_forgotten()
    needed: list[int] = []
    cluster["c"].raft.checkpoint_needed = needed.append
    term = cluster["a"].raft.term
    for _ in range(60):
        cluster.tick("a")
        cluster.deliver("a", "c")
        cluster.tick("c")
        cluster.deliver("c", "a")
    assert set(needed) == {cluster["a"].journal.first_index}
    assert cluster["a"].raft.stranded == {"c"}
    assert not cluster.queues["c", "b"], "it hears its leader, and campaigns with nobody"
    assert cluster["c"].raft.term == term
    assert cluster["c"].raft.leader_id == "a"


def test_the_notice_of_another_leader_or_an_older_term_counts_for_nothing() -> None:
    cluster = a_voter_that_lacks_what_the_leader_has_forgotten()
    needed: list[int] = []
    cluster["c"].raft.checkpoint_needed = needed.append
    cluster.tick("a")
    cluster.deliver("a", "c")
    needed.clear()
    term = cluster["a"].raft.term
    cluster["c"].raft.receive("b", CheckpointNeeded(term, 30))
    cluster["c"].raft.receive("a", CheckpointNeeded(term - 1, 30))
    assert needed == []
    cluster["c"].raft.receive("a", CheckpointNeeded(term, 30))
    assert needed == [30]


def test_a_voter_that_has_what_it_lacked_gets_entries_again() -> None:
    cluster = a_voter_that_lacks_what_the_leader_has_forgotten()
    for _ in range(10):
        cluster.tick("a")
        cluster.deliver("a", "c")
        cluster.deliver("c", "a")
    assert cluster["a"].raft.stranded == {"c"}
    # Its journal begins anew at the leader's checkpoint, as after a copy.
    applied = cluster["a"].raft.last_applied
    journal = cluster["c"].journal
    journal.truncate_from(journal.first_index)
    for entry in cluster["a"].journal.entries(applied - 1, applied + 1):
        journal.append(*entry)
    cluster["c"].sync()
    cluster["a"].raft.peer_disconnected("c")
    cluster.restart("c", cluster["c"].disk.kill(), cluster.restore_point("a", applied))
    cluster["a"].raft.peer_connected("c", directory_of("c"))
    cluster.lose("c")
    cluster.propose("a", b"after")
    cluster.settle("a", "b", "c", rounds=30)
    assert cluster["a"].raft.stranded == set()
    assert cluster["c"].journal.last_index == cluster["a"].journal.last_index


def test_a_voter_is_told_the_first_entry_that_the_leader_goes_on_keeping() -> None:
    """What every voter has may be forgotten as soon as the copy that is asked for has a checkpoint written."""
    cluster = a_voter_that_lacks_what_the_leader_has_forgotten()
    needed: list[int] = []
    cluster["c"].raft.checkpoint_needed = needed.append
    leader = cluster["a"].raft
    leader.retain_from = leader.journal.first_index + 1
    for _ in range(10):
        cluster.tick("a")
        cluster.deliver("a", "c")
        cluster.deliver("c", "a")
    assert set(needed) == {leader.retain_from}
