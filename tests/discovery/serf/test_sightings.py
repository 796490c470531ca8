"""What the members of a gossip are to a node: nodes of its cluster, earlier runs, twins, and strangers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from distlog.discovery.serf.sightings import sightings_of
from distlog.discovery.serf.tags import NodeState, TaggedNode, tags_of
from distlog.discovery.serf.values import AgentMember, AgentStatus
from distlog.discovery.view import MemberStatus
from tests.discovery.worlds import description_of

OWN = TaggedNode(description_of("n1"), 10)
ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT


def member(
    node_id: str,
    run: int,
    status: AgentStatus = AgentStatus.ALIVE,
    *,
    place: str = "",
    state: NodeState = NodeState.UP,
    cluster_id: str | None = None,
) -> AgentMember:
    own = description_of(node_id, place)
    if cluster_id is not None:
        own = replace(own, cluster_id=cluster_id)
    tags = tags_of(TaggedNode(own, run, state))
    return AgentMember(f"{node_id}.{run}", "10.0.0.1", 7946, tags, status)


@pytest.mark.parametrize(
    ("status", "state", "seen"),
    [
        (AgentStatus.ALIVE, NodeState.UP, ALIVE),
        (AgentStatus.LEAVING, NodeState.UP, ALIVE),
        (AgentStatus.FAILED, NodeState.UP, FAILED),
        (AgentStatus.NONE, NodeState.UP, FAILED),
        (AgentStatus.LEFT, NodeState.UP, LEFT),
        (AgentStatus.ALIVE, NodeState.STOPPED, FAILED),
        (AgentStatus.ALIVE, NodeState.LEFT, LEFT),
    ],
)
def test_what_becomes_of_a_status(
    status: AgentStatus, state: NodeState, seen: MemberStatus
) -> None:
    found = sightings_of([member("n2", 1, status, state=state)], OWN)
    assert found.nodes["n2"].status is seen
    assert found.nodes["n2"].description == description_of("n2")


def test_an_agent_of_others_that_leaves_says_nothing_for_its_node() -> None:
    for state, seen in (
        (NodeState.UP, FAILED),
        (NodeState.STOPPED, FAILED),
        (NodeState.LEFT, LEFT),
    ):
        left = replace(member("n2", 1, AgentStatus.LEFT, state=state), name="west")
        assert sightings_of([left], OWN).nodes["n2"].status is seen


def test_of_two_names_of_a_node_the_alive_one_counts_then_that_of_the_later_run() -> None:
    old_alive, old_failed = member("n2", 1), member("n2", 1, AgentStatus.FAILED)
    new_alive, new_failed = member("n2", 2), member("n2", 2, AgentStatus.FAILED)
    for members, status, run in (
        ([old_failed, new_alive], ALIVE, 2),
        ([old_alive, new_failed], ALIVE, 1),
        ([old_alive, new_alive], ALIVE, 2),
        ([old_failed, new_failed], FAILED, 2),
    ):
        for order in itertools.permutations(members):
            found = sightings_of(order, OWN)
            assert (found.nodes["n2"].status, found.nodes["n2"].run) == (status, run)
            assert found.conflicts == {}


def test_strangers_and_other_clusters_are_left_out_and_counted() -> None:
    stranger = AgentMember("web", "10.0.0.9", 7946, {"role": "web"}, AgentStatus.ALIVE)
    members = [stranger, member("n2", 1, cluster_id="another"), member("n3", 1, cluster_id="")]
    found = sightings_of(members, OWN)
    assert list(found.nodes) == ["n3"]
    assert (found.stranger_count, found.other_cluster_count) == (1, 1)
    nobody_yet = replace(OWN, description=replace(OWN.description, cluster_id=""))
    assert list(sightings_of(members, nobody_yet).nodes) == ["n2", "n3"]


def test_nodes_with_one_id_and_different_directories_are_a_conflict_while_both_are_up() -> None:
    twins = [member("n2", 1), member("n2", 2, place="elsewhere")]
    found = sightings_of(twins, OWN)
    assert "directory-elsewhere" in found.conflicts["n2"]
    one_down = [member("n2", 1, AgentStatus.FAILED), member("n2", 2, place="elsewhere")]
    assert sightings_of(one_down, OWN).conflicts == {}


def test_a_node_does_not_see_itself_but_its_twin_and_its_earlier_names() -> None:
    members = [
        member("n1", 10),
        member("n1", 9),
        member("n1", 8, AgentStatus.FAILED),
        member("n1", 7, AgentStatus.LEFT),
        member("n1", 11, AgentStatus.FAILED),
        member("n1", 6, AgentStatus.FAILED, place="elsewhere"),
    ]
    found = sightings_of(members, OWN)
    assert found.nodes == {}
    assert found.conflicts == {}
    assert found.superseded_names == ["n1.8"]
    twin = sightings_of([*members, member("n1", 12, place="elsewhere")], OWN)
    assert list(twin.conflicts) == ["n1"]


def test_failed_names_of_nodes_that_have_a_later_one_are_to_be_cleaned_up() -> None:
    foreign = replace(member("n3", 1, AgentStatus.FAILED), name="west")
    members = [
        member("n2", 1, AgentStatus.FAILED),
        member("n2", 2, AgentStatus.FAILED),
        member("n2", 3, AgentStatus.FAILED),
        member("n2", 9, place="elsewhere"),
        foreign,
        member("n3", 2),
        member("n4", 1, AgentStatus.LEAVING),
        member("n4", 2),
    ]
    for order in (members, members[::-1]):
        assert sorted(sightings_of(order, OWN).superseded_names) == ["n2.1", "n2.2"]


def test_failed_names_and_addresses_of_others_are_kept_for_errands() -> None:
    members = [member("n2", 1, AgentStatus.FAILED), member("n2", 2), member("n3", 5)]
    found = sightings_of(members, OWN)
    assert found.failed_names == {"n2": ["n2.1"]}
    assert found.addresses == ["10.0.0.1:7946", "10.0.0.1:7946"]
