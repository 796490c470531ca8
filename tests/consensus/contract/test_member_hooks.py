"""The hooks by which the library's set of voters follows the configuration of the journal, held against the installed library."""

from __future__ import annotations

import pytest
from pysyncobj.node import Node

from tests.consensus.contract.bare_library import Cluster, bare_cluster


def led_by_a(cluster: Cluster) -> None:
    assert cluster.elect("a", *cluster.names[1:])
    cluster.settle("a", *cluster.names[1:])


def change(cluster: Cluster, name: str, kind: str, node_id: str) -> bool:
    return bool(cluster[name]._SyncObj__doChangeCluster([kind, node_id]))


def test_a_voter_that_is_added_counts_at_once_and_one_that_is_removed_no_more() -> None:
    """Without its own membership commands, which stay switched off."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.lose("b", "c")
        assert change(cluster, "a", "add", "d")
        assert not change(cluster, "a", "add", "d"), "it is there already"
        assert not change(cluster, "a", "rem", "a"), "nobody removes itself"
        cluster.start("d", "abcd")
        cluster.put("a", "x")
        cluster.settle("a", "b")
        assert cluster.acknowledged() == [], "two of four are no majority"
        cluster.settle("a", "b", "d")
        assert cluster.acknowledged() == ["x"]
        for gone in "cd":
            assert change(cluster, "a", "rem", gone)
        cluster.queues.clear()
        cluster.put("a", "y")
        cluster.settle("a", "b")
        assert cluster.acknowledged() == ["x", "y"]
        assert not cluster.queues["a", "d"], "it is sent nothing"


def test_a_voter_that_is_added_while_an_entry_is_appended_is_sent_it_after_a_refusal() -> None:
    """The journal's view adds it in `add`: what the library then thinks was sent is put right by the answer."""
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        cluster.start("c", "abc")
        journal = cluster.journals["a"]
        add = journal.add

        def adding(command: bytes, idx: int, term: int) -> None:
            add(command, idx, term)
            if len(cluster["a"].otherNodes) == 1:
                change(cluster, "a", "add", "c")
                cluster["a"].transport.addNode(Node("c"))

        journal.add = adding  # type: ignore[method-assign]
        cluster.put("a", "x")
        cluster.settle("a", "b", "c", rounds=5)
        assert cluster.acknowledged() == ["x"]
        assert cluster.log("a") == cluster.log("c")


def test_a_voter_whose_match_is_forgotten_counts_for_nothing_until_it_answers_and_what_is_committed_stays() -> (
    None
):
    with bare_cluster("abcde") as cluster:
        led_by_a(cluster)
        cluster.put("a", "x")
        cluster.settle("a", "b", "c")
        assert cluster.acknowledged() == ["x"]
        committed = cluster["a"].raftCommitIndex
        cluster.lose("c", "d", "e")
        cluster.put("a", "y")
        cluster.settle("a", "b")
        matched = cluster["a"]._SyncObj__raftMatchIndex
        for node in matched:
            matched[node] = 0
        cluster.tick("a")
        assert cluster["a"].raftCommitIndex == committed
        cluster.lose("b")
        cluster.settle("a", "c")
        assert cluster.acknowledged() == ["x"], "two of five are no majority"
        cluster.settle("a", "b", "c")
        assert cluster.acknowledged() == ["x", "y"]
        assert sorted(matched.values())[-2:] == [committed + 1] * 2


def test_a_learner_is_sent_everything_and_counts_for_nothing() -> None:
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster.lose("b", "c")
        cluster.start("d", "abc")
        cluster["a"].transport._onReadonlyNodeConnected(Node("d"))
        cluster.put("a", "x")
        cluster.settle("a", "d")
        assert cluster.values("d") == ["x"]
        assert cluster.acknowledged() == []
        cluster.settle("a", "b")
        assert cluster.acknowledged() == ["x"]


def test_a_learner_is_disconnected_before_it_becomes_a_voter() -> None:
    """The other way round the library forgets how far it is, and fails at the next commit."""
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        transport = cluster["a"].transport
        cluster.start("d", "abc")
        transport._onReadonlyNodeConnected(Node("d"))
        cluster.settle("a", "b", "d")
        transport._onReadonlyNodeDisconnected(Node("d"))
        assert change(cluster, "a", "add", "d")
        transport.addNode(Node("d"))
        cluster.put("a", "x")
        cluster.settle("a", "b", "d")
        assert cluster.acknowledged() == ["x"]
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        transport = cluster["a"].transport
        transport._onReadonlyNodeConnected(Node("d"))
        change(cluster, "a", "add", "d")
        transport._onReadonlyNodeDisconnected(Node("d"))
        cluster.put("a", "x")
        with pytest.raises(KeyError):
            cluster.settle("a", "b", "c")


def test_a_new_leader_goes_on_with_the_learners_that_it_knows() -> None:
    with bare_cluster("abc") as cluster:
        cluster.start("d", "abc")
        cluster["b"].transport._onReadonlyNodeConnected(Node("d"))
        assert cluster.elect("b", "a", "c")
        cluster.put("b", "x")
        cluster.settle("b", "a", "d")
        assert cluster.values("d") == ["x"]


def test_who_grants_a_vote_need_not_know_who_asks() -> None:
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        request = {"type": "request_vote", "term": 5, "last_log_index": 9, "last_log_term": 4}
        cluster["b"].transport.receive(Node("z"), request)
        assert cluster.queues["b", "z"], "the vote is on its way"
