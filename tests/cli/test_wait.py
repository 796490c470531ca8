"""`distlog cluster wait` goes by what the nodes say themselves."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from distlog.cli.wait import agreement, own_command, voter_count
from distlog.client.values import Member, NodeStatus


def status(node_id: str, leader_id: str, term: int, cluster_id: str = "c") -> NodeStatus:
    """Return a status in which only what counts here is set."""
    return NodeStatus(
        node_id=node_id,
        cluster_id=cluster_id,
        role="leader" if node_id == leader_id else "follower",
        term=term,
        leader_id=leader_id,
        commit_index=0,
        applied_index=0,
        last_index=0,
        checkpoint_index=0,
        journal_size=0,
        members=(),
        topics=(),
        version="",
    )


def agreeing(*statuses: NodeStatus) -> list[str]:
    return sorted(each.node_id for each in agreement(statuses))


def test_nodes_that_name_the_same_leader_in_the_same_term_agree() -> None:
    assert agreeing(status("n1", "n2", 3), status("n2", "n2", 3), status("n3", "n2", 3)) == [
        "n1",
        "n2",
        "n3",
    ]


def test_nobody_agrees_while_no_leader_is_known() -> None:
    assert agreeing() == []
    assert agreeing(status("n1", "", 3), status("n2", "", 4)) == []


def test_a_leader_that_does_not_say_so_itself_may_be_dead() -> None:
    assert agreeing(status("n1", "n2", 3), status("n3", "n2", 3)) == []
    assert agreeing(status("n1", "n2", 3), status("n2", "", 3)) == []


def test_the_newest_term_decides() -> None:
    assert agreeing(status("n1", "n1", 3), status("n2", "n3", 4), status("n3", "n3", 4)) == [
        "n2",
        "n3",
    ]


def test_a_node_of_another_cluster_does_not_count() -> None:
    assert agreeing(status("n1", "n1", 3), status("n2", "n1", 3, "other")) == ["n1"]


def test_a_node_that_is_asked_under_two_addresses_counts_once() -> None:
    assert agreeing(status("n1", "n1", 3), status("n1", "n1", 3)) == ["n1"]


@pytest.mark.parametrize(
    ("voters", "learners", "target", "expected"),
    [
        pytest.param(3, 0, 3, 3, id="all vote"),
        pytest.param(1, 2, 0, 3, id="without a target whoever joins votes soon"),
        pytest.param(3, 2, 3, 3, id="spares stay learners"),
        pytest.param(2, 2, 3, 3, id="one of them is about to vote"),
        pytest.param(4, 0, 3, 4, id="one more than the target is to go"),
    ],
)
def test_all_that_vote_or_are_about_to_are_waited_for(
    voters: int, learners: int, target: int, expected: int
) -> None:
    members = tuple(
        Member(f"n{each}", "", False, True, 0, is_voter=each < voters)
        for each in range(voters + learners)
    )
    leader = dataclasses.replace(status("n0", "n0", 1), members=members, target=target)
    assert voter_count(leader) == expected


@pytest.mark.parametrize(
    ("program", "shown"),
    [(".venv/bin/distlog", ".venv/bin/distlog"), ("/usr/local/bin/distlog", "distlog")],
)
def test_the_hint_can_be_typed_in_this_directory(
    program: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / program)])
    assert own_command() == shown
