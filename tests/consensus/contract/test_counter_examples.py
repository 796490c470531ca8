"""What the library does wrong by itself: one schedule for each rule around it, on connections that lose nothing but their end.

A test that fails here says that the library does that no more: then look whether the rule that it names may go, and whether the others
still fit.  The same schedules are harmless with the rules (tests/consensus/test_raft_rules.py and the simulation).
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pysyncobj.node import Node

from tests.consensus.contract.bare_library import Cluster, bare_cluster


def led_by_a(cluster: Cluster) -> None:
    """Let a lead all others, with an entry of its own term committed everywhere."""
    others = cluster.names[1:]
    assert cluster.elect("a", *others)
    cluster.settle("a", *others)


def test_a_leader_acknowledges_an_entry_that_one_disk_of_three_has() -> None:
    """Rules: CommitGate, PersistenceGate.  It counts its own copy at once, and nobody is asked what is durable."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", "x")
        cluster.tick("a", "a")
        cluster.exchange("a", "b")
        cluster.tick("a")
        assert cluster.acknowledged() == ["x"]
        # A power cut takes what a did not sync.
        cluster.journals["a"].deleteEntriesFrom(len(cluster.journals["a"]) - 1)
        assert [name for name in "abc" if "x" in cluster.values(name)] == ["b"]


def test_entries_that_are_sent_again_delete_acknowledged_ones() -> None:
    """Rule: AppendFilter.  The first acknowledgement moves the next index back; a follower deletes all behind what comes again."""
    with bare_cluster("abc", appendEntriesBatchSizeBytes=150) as cluster:
        led_by_a(cluster)
        values = [f"c{number}" + "." * 60 for number in range(6)]
        cluster.put("a", *values)
        cluster.tick("a", "a")
        cluster.lose("c")
        cluster.deliver("a", "b")
        cluster.deliver("b", "a", 2)
        cluster.tick("a")
        cluster.deliver("b", "a")
        cluster.tick("a")
        assert cluster.acknowledged() == values
        cluster.deliver("a", "b", 1)
        assert cluster.values("b") != values, (
            "acknowledged, and gone from one of the two that had it"
        )
        cluster.lose("a", "b")
        assert cluster.elect("b", "c")
        cluster.settle("b", "c")
        cluster.tick("b")
        assert cluster["b"].applied == values[: len(cluster["b"].applied)] != values


def test_refusals_of_pipelined_messages_undo_the_rewind_for_ever() -> None:
    """Rule: AcknowledgementFilter.  A follower whose last entry conflicts never catches up with a leader that is far ahead."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", "stale")
        cluster.tick("a")
        cluster.lose("a")
        assert cluster.elect("b", "c")
        cluster.put("b", *[f"g{number}" + "." * 20_000 for number in range(12)])
        cluster.settle("b", "c", rounds=5)
        cluster.lose("a")
        before = len(cluster.log("a"))
        for _ in range(100):
            cluster.tick("b")
            cluster.deliver("b", "a")
            cluster.deliver("a", "b")
            cluster.exchange("b", "c")
            cluster.tick("a")
        assert len(cluster.log("a")) <= before < len(cluster.log("b"))


def test_an_acknowledgement_of_an_older_term_counts() -> None:
    """Rule: AcknowledgementFilter.  Replies carry no term, so an entry that two of five have is committed."""
    with bare_cluster("abcde") as cluster:
        led_by_a(cluster)
        cluster.put("a", *[f"old{number}" for number in range(8)])
        cluster.tick("a", "a")
        cluster.deliver("a", "b")
        slow = ("b", "a")
        cluster.lose_all_but(slow)
        assert cluster.elect("c", "d", "e")
        cluster.lose_all_but(slow)
        cluster.tick("c")
        # The new leader brings a and b in line: the old entries are deleted.
        cluster.deliver("c", "a")
        cluster.deliver("a", "c")
        cluster.tick("c")
        cluster.deliver("c", "a")
        cluster.deliver("c", "b")
        cluster.tick("c")
        cluster.deliver("c", "b")
        cluster.lose_all_but(slow)
        assert cluster.elect("a", "d", "e")
        cluster.put("a", "x1", "x2", "x3")
        cluster.queues["a", "b"].clear()
        for _ in range(4):
            cluster.tick("a")
            cluster.exchange("a", "d")
        assert cluster.acknowledged() == []
        cluster.deliver("b", "a")
        cluster.tick("a")
        assert "x3" in cluster.acknowledged()
        assert [name for name in "abcde" if "x3" in cluster.values(name)] == ["a", "d"]


def test_a_vote_that_arrives_twice_counts_twice() -> None:
    """Rule: VoteFilter.  Two leaders in one term."""
    with bare_cluster("abcde") as cluster:
        cluster.elect("a")
        cluster.deliver("a", "b")
        cluster.queues["b", "a"].append(cluster.queues["b", "a"][0])
        cluster.deliver("b", "a")
        cluster.elect("c", "d", "e")
        assert cluster["a"]._isLeader()
        assert cluster["c"]._isLeader()
        assert cluster["a"].raftCurrentTerm == cluster["c"].raftCurrentTerm


def test_a_voter_that_was_cut_off_deposes_the_leader() -> None:
    """Rule: PreVote.  It comes back with a higher term, although it cannot win."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", "x")
        cluster.settle("a", "b")
        cluster.lose("c")
        assert not cluster.elect("c", "a"), "its log is older"
        assert not cluster["a"]._isLeader(), "but the leader has stepped down for it"


def test_a_paused_follower_is_sent_the_whole_backlog_in_one_tick() -> None:
    """Rule: SendWindow.  What the transport answers is not looked at."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", *[str(number) + "." * 1000 for number in range(2000)])
        cluster.tick("a")
        cluster.lose("a")
        cluster["a"].transport.receive(
            Node("b"),
            {"type": "next_node_idx", "next_node_idx": 3, "reset": True, "success": False},
        )
        cluster.tick("a")
        assert sum(map(len, cluster.queues["a", "b"])) > 2_000_000


# --- Why snapshots and files of the library are not used (docs/decisions/0005) ----------------------


def test_a_snapshot_commits_entries_that_nobody_verified() -> None:
    with bare_cluster("abc", logCompactionBatchSize=64) as cluster:
        led_by_a(cluster)
        cluster.put("a", "lost1", "lost2", "lost3")
        cluster.tick("a")
        cluster.lose("a")
        assert cluster.elect("b", "c")
        cluster.put("b", *[f"good{number}" for number in range(6)])
        cluster.settle("b", "c", rounds=5)
        compact(cluster, "b")
        cluster.lose("a")
        for _ in range(12):
            cluster.tick("b")
            for _ in list(cluster.queues["b", "a"]):
                cluster.deliver("b", "a", 1)
                cluster.deliver("a", "b")
                cluster.tick("a")
            if cluster["a"].applied:
                break
        assert cluster.acknowledged("lost") == ["lost1", "lost2", "lost3"]
        assert not any(value.startswith("lost") for value in cluster["b"].applied)


def test_a_second_copy_of_a_snapshot_deletes_acknowledged_entries() -> None:
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.lose("b", "c")
        cluster.put("a", *[f"p{number}" for number in range(5)])
        cluster.settle("a", "c", rounds=4)
        compact(cluster, "a")
        cluster.lose("b")
        cluster.exchange("a", "c")
        # b is back: two heartbeats, two refusals, two snapshots.
        cluster.tick("a", "a")
        cluster.deliver("a", "b")
        cluster.lose("c")
        cluster.put("a", "q1", "q2")
        cluster.deliver("b", "a", 1)
        cluster.tick("a", "a")
        cluster.deliver("b", "a", 1)
        cluster.tick("a")
        sent = [pickle.loads(each) for each in cluster.queues["a", "b"]]
        parts = [place for place, each in enumerate(sent) if each.get("serialized")]
        firsts = [place for place in parts if sent[place]["serialized"][1]]
        assert len(firsts) == 2
        cluster.deliver("a", "b", firsts[1])
        cluster.deliver("b", "a")
        cluster.tick("a")
        assert cluster.acknowledged("q") == ["q1", "q2"]
        cluster.deliver("a", "b", parts[-1] - firsts[1] + 1)
        assert "q1" not in cluster.values("b")


def test_a_snapshot_that_cannot_be_loaded_is_acknowledged() -> None:
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", *[f"lost{number}" for number in range(9)])
        cluster.tick("a")
        cluster.lose("a")
        assert cluster.elect("b", "c")
        cluster.put("b", "g0", "g1", "g2")
        cluster.settle("b", "c", rounds=4)
        compact(cluster, "b")
        cluster.lose("a", "c")

        def fail() -> None:
            raise OSError("the disk is full")

        cluster["a"]._SyncObj__serializer.deserialize = fail
        cluster.put("b", "new1", "new2")
        for _ in range(14):
            cluster.tick("b")
            cluster.deliver("b", "a")
            cluster.deliver("a", "b")
        cluster.tick("b")
        assert "new1" in cluster.acknowledged()
        assert "new1" not in cluster.values("a")


def test_a_dump_that_is_newer_than_the_journal_empties_it(tmp_path: Path) -> None:
    """How the checkpoint is told (journal_view.py): its two entries begin the list until it is loaded."""
    with bare_cluster("abc") as cluster:
        dump = {"fullDumpFile": str(tmp_path / "b"), "useFork": False}
        cluster.journals.pop("b")
        cluster.start("b", "abc", **dump)
        assert cluster.elect("a", "b", "c")
        cluster.settle("a", "b", "c")
        cluster.put("a", "a1", "a2")
        for _ in range(4):
            cluster.tick("a")
            cluster.exchange("a", "b")
            cluster.tick("b")
        cluster.put("a", "b1", "b2")
        cluster.tick("a", "a")
        cluster.lose("c")
        cluster.exchange("a", "b")
        cluster.tick("a")
        assert "b2" in cluster.acknowledged()
        assert "b2" in cluster.values("b")
        cluster["b"].forceLogCompaction()
        cluster.tick("b")
        cluster.start("b", "abc", **dump)  # A crash between the dump and the compaction.
        cluster.tick("b")
        assert "b2" not in cluster.values("b")


def test_a_callback_is_never_called_when_a_snapshot_covers_its_entry() -> None:
    """Why what is in flight is given up as unknown when leadership is lost (proposals.py)."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.put("a", "pending")
        cluster.tick("a")
        cluster.lose("a")
        assert cluster.elect("b", "c")
        cluster.put("b", "g0", "g1", "g2")
        cluster.settle("b", "c", rounds=4)
        compact(cluster, "b")
        cluster.lose("a")
        for _ in range(12):
            cluster.tick("b")
            cluster.exchange("b", "a")
        for _ in range(5):
            cluster.tick("b")
            cluster.exchange("b", "a")
            cluster.tick("a")
        assert cluster["a"].applied == ["g0", "g1", "g2"]
        assert "pending" not in [value for value, _ in cluster.outcomes]


# --- Why its membership changes are not used --------------------------------------------------------


def test_several_membership_changes_at_once_split_the_cluster() -> None:
    """Rule: OneChange."""
    with bare_cluster("abc", dynamicMembershipChange=True) as cluster:
        led_by_a(cluster)
        cluster.lose("a", "b", "c")
        for name in "defg":
            cluster["a"].addNodeToCluster(Node(name))
        cluster.tick("a", "a")
        for name in "defg":
            cluster.start(name, "abcdefg")
        for name in "defg":
            for _ in range(2):
                cluster.tick("a")
                cluster.exchange("a", name)
        cluster.put("a", "w")
        cluster.tick("a", "a")
        cluster.exchange("a", "d", "e", "f")
        cluster.tick("a")
        assert cluster.acknowledged() == ["w"]
        assert cluster.elect("b", "c"), "which never heard of the others, and lack the entry"
        assert "w" not in cluster.values("b")


def test_after_a_restart_the_voters_are_those_of_the_constructor() -> None:
    """Rule: ConfigurationLog."""
    with bare_cluster("abc", dynamicMembershipChange=True) as cluster:
        led_by_a(cluster)
        for name in "de":
            cluster.start(name, "abc" + name)
            cluster["a"].addNodeToCluster(Node(name))
            for _ in range(8):
                cluster.tick("a")
                cluster.exchange("a", *[other for other in "bcde" if other in cluster.voters])
        assert len(cluster["a"].otherNodes) == 4
        cluster.lose("a", "b")
        for name in "ab":
            cluster.journals[name].commit_index = 1
            cluster.start(name, "abc")
        assert cluster.elect("a", "b"), "two of five"
        assert cluster.elect("c", "d", "e")


def test_a_voter_that_knows_no_others_elects_itself() -> None:
    """Rule: Candidacy.  Also why a cluster is formed before a voter is made (formation.py)."""
    with bare_cluster("a") as cluster:
        assert cluster.elect("a")


# --- Smaller ones -----------------------------------------------------------------------------------


def test_an_entry_larger_than_a_batch_does_not_arrive() -> None:
    """Why appendEntriesBatchSizeBytes is larger than any entry."""
    with bare_cluster("ab", appendEntriesBatchSizeBytes=100) as cluster:
        assert cluster.elect("a", "b")
        cluster.settle("a", "b", rounds=2)
        failures = 0
        for size in range(60, 400, 10):
            cluster["a"]._applyCommand(b"y" * size, None, 100)
            cluster.tick("a", "a")
            while cluster.queues["a", "b"]:
                failures += isinstance(
                    raised_by(lambda: cluster.deliver("a", "b", 1)),
                    EOFError | pickle.UnpicklingError,
                )
            cluster.exchange("a", "b")
        assert failures


def test_an_entry_whose_application_raises_is_applied_at_every_tick() -> None:
    """Why whatever `apply` raises stops the node."""
    with bare_cluster("a") as cluster:
        assert cluster.elect("a")
        calls = []

        def fail(*_: Any, **__: Any) -> None:
            calls.append(1)
            raise ValueError

        cluster["a"]._idToMethod[0] = fail
        cluster.put("a", "z")
        for _ in range(6):
            raised_by(lambda: cluster.tick("a"))
        assert len(calls) > 1
        assert cluster.outcomes == []


def test_an_unknown_version_applies_later_entries_twice() -> None:
    """Why every payload is opaque to the library."""
    with bare_cluster("a") as cluster:
        assert cluster.elect("a")
        cluster.tick("a")
        cluster["a"]._applyCommand(pickle.dumps(7, 2), None, 3)
        cluster.put("a", "k1", "k2")
        cluster.tick(*"aaaaa")
        assert len(cluster["a"].applied) > 2


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_tick_applies_everything_that_is_committed(count: int) -> None:
    """Why a slice of the journal is bounded while it is applied (journal_view.py)."""
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        cluster.put("a", *map(str, range(count)))
        cluster.tick("a", "a")
        cluster.exchange("a", "b")
        before = len(cluster["a"].applied)
        cluster.tick("a")
        assert len(cluster["a"].applied) - before == count


def compact(cluster: Cluster, name: str) -> None:
    """Have a voter write a snapshot and drop the entries that it covers."""
    cluster[name].forceLogCompaction()
    cluster.tick(name, name, name)


def raised_by(action: Any) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None
