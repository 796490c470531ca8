"""Forming a cluster of a fixed set: once, with everybody, and never with a directory that is not the one it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from distlog.consensus.agreement import NOTHING, Agreement, Proposal
from distlog.consensus.configuration import Addresses, Configuration
from distlog.consensus.formation import Formation
from distlog.peer.handshake import Hello

HERE = Addresses("h2:8401", "h2:8400")
NAMES = frozenset({"n1", "n2", "n3"})


def hello(node_id: str, directory_id: str, configuration: Configuration | None = None) -> Hello:
    return Hello(
        node_id=node_id,
        directory_id=directory_id,
        cluster_id=configuration.cluster_id if configuration else "",
        voters=dict(configuration.voters) if configuration else {},
    )


def fresh(node_id: str, directory_id: str) -> Formation:
    return Formation(node_id, directory_id, NAMES, None)


FORMED = Configuration.form({"n1": "d1", "n2": "d2", "n3": "d3"})


def test_a_cluster_forms_only_when_every_voter_was_heard() -> None:
    formation = fresh("n1", "d1")
    assert formation.hear(hello("n2", "d2")) is None
    assert formation.missing() == ["n3"]
    assert formation.hear(hello("n3", "d3")) == FORMED


def test_every_node_forms_the_same_configuration_whatever_the_order() -> None:
    formation = fresh("n3", "d3")
    formation.hear(hello("n1", "d1"))
    assert formation.hear(hello("n2", "d2")) == FORMED


def test_a_cluster_of_one_forms_alone() -> None:
    assert Formation("n1", "d1", {"n1"}, None).known() == Configuration.form({"n1": "d1"})


def test_a_fixed_set_of_three_does_not_form_alone() -> None:
    assert fresh("n1", "d1").known() is None


def test_a_node_that_missed_the_forming_adopts_the_configuration_that_names_its_directory() -> None:
    formation = fresh("n3", "d3")
    greeting = hello("n1", "d1", FORMED)
    assert formation.judge(greeting) is None
    assert formation.hear(greeting) == FORMED


def test_a_configuration_that_is_not_what_its_cluster_id_says_is_not_adopted() -> None:
    forged = Configuration("0" * 16, FORMED.voters)
    assert fresh("n3", "d3").hear(hello("n1", "d1", forged)) is None


def test_a_wiped_node_learns_that_the_cluster_knows_it_with_another_directory() -> None:
    refused = fresh("n2", "new").judge(hello("n1", "d1", FORMED))
    assert refused is not None
    assert "another data directory" in str(refused)


def test_a_formed_node_refuses_a_wiped_one_and_says_how_to_come_back() -> None:
    refused = Formation("n1", "d1", NAMES, FORMED).judge(hello("n2", "new"))
    assert refused is not None
    assert "replace" in str(refused)
    assert "no voter" in str(refused)


def test_a_wiped_node_and_one_that_never_met_it_form_nothing_without_the_third() -> None:
    wiped, late = fresh("n2", "new"), fresh("n3", "d3")
    assert wiped.hear(hello("n3", "d3")) is None
    assert late.hear(hello("n2", "new")) is None
    # The third is back: it accepts the one that it knows, and that one leaves the wiped one behind.
    assert late.hear(hello("n1", "d1", FORMED)) == FORMED
    assert late.judge(hello("n2", "new")) is not None
    assert wiped.judge(hello("n1", "d1", FORMED)) is not None


def test_another_cluster_and_an_unknown_node_are_refused() -> None:
    formation = Formation("n1", "d1", NAMES, FORMED)
    other = Configuration("f" * 16, FORMED.voters)
    assert "belongs to cluster" in str(formation.judge(hello("n2", "d2", other)))
    assert "--peers" in str(formation.judge(hello("n9", "d9")))
    assert formation.judge(hello("n1", "d1")) is not None, "nobody else may use this node's id"


def test_a_formed_node_accepts_a_voter_that_is_not_formed_yet() -> None:
    assert Formation("n1", "d1", NAMES, FORMED).judge(hello("n2", "d2")) is None


# --- Joining, and members that change ---------------------------------------------------------------


def joining(node_id: str = "n4", directory: str = "d4") -> Formation:
    return Formation(node_id, directory, set(), None)


def changed(newest: Configuration, committed: Configuration | None = None) -> Formation:
    """Return what n1 knows when the members are others than those that the cluster was formed with."""
    formation = Formation("n1", "d1", NAMES, FORMED)
    formation.members = lambda: (newest, committed or newest)
    return formation


def member(node_id: str, directory: str, configuration: Configuration, **more: Any) -> Hello:
    return Hello(
        node_id=node_id,
        directory_id=directory,
        cluster_id=FORMED.cluster_id,
        voters=dict(FORMED.voters),
        members=configuration.members,
        configuration_index=configuration.raft_index,
        **more,
    )


def asks(node_id: str, directory: str) -> Hello:
    return Hello(node_id=node_id, directory_id=directory, joins=True)


def test_a_node_that_joins_forms_nothing_and_waits_for_a_hello_that_has_it() -> None:
    formation = joining()
    assert formation.known() is None
    assert formation.judge(member("n1", "d1", FORMED)) is None
    assert formation.hear(member("n1", "d1", FORMED)) is None
    other = replace(FORMED, learners={"n4": "another"})
    assert formation.hear(member("n1", "d1", other)) is None, "somebody else has its name"
    mine = replace(FORMED, learners={"n4": "d4"})
    assert formation.hear(member("n1", "d1", mine)) == FORMED, "the base, as everybody has it"
    assert not formation.joins


def test_a_node_that_joins_believes_no_cluster_id_that_is_not_the_hash_of_its_voters() -> None:
    formation = joining()
    forged = Hello(
        node_id="n1",
        directory_id="d1",
        cluster_id="f" * 16,
        voters=dict(FORMED.voters),
        members={"n4": "d4"},
    )
    assert formation.hear(forged) is None


def test_two_nodes_that_join_have_nothing_to_say_to_each_other() -> None:
    assert "waits to join" in str(joining().judge(asks("n5", "d5")))


def test_who_asks_to_join_is_listened_to_unless_its_name_is_taken() -> None:
    formation = changed(FORMED)
    assert formation.judge(asks("n4", "d4")) is None
    assert "remove that one first" in str(formation.judge(asks("n2", "a-new-disk")))


def test_a_removed_identity_is_told_so_and_its_name_may_come_back() -> None:
    removed = replace(FORMED.without("n2"), raft_index=9)
    formation = changed(removed)
    assert "was removed" in str(formation.judge(member("n2", "d2", FORMED)))
    assert "was removed" in str(formation.judge(asks("n2", "d2")))
    assert formation.judge(asks("n2", "a-new-disk")) is None


def test_a_removal_that_is_not_committed_does_not_count_yet() -> None:
    """It may be lost with its leader, and who was to be removed is needed as a voter then."""
    formation = changed(replace(FORMED.without("n2"), raft_index=9), FORMED)
    assert formation.judge(member("n2", "d2", FORMED)) is None


def test_a_leader_that_a_member_has_not_heard_of_yet_is_listened_to() -> None:
    """It joined, became a voter and won, while this node was away."""
    newer = replace(FORMED, voters={**FORMED.voters, "n4": "d4"}, raft_index=20)
    assert changed(FORMED).judge(member("n4", "d4", newer)) is None
    replaced = replace(FORMED.without("n2").with_learner("n2", "new", {"n2": HERE}), raft_index=20)
    assert changed(FORMED).judge(member("n2", "new", replaced)) is None


def test_a_stranger_needs_more_than_the_name_of_the_cluster() -> None:
    for stranger in (
        member("n9", "d9", FORMED),
        member("n9", "d9", replace(FORMED, voters={"n9": "d9"}, raft_index=99)),
        Hello(node_id="n9", directory_id="d9", cluster_id=FORMED.cluster_id, joins=True),
    ):
        assert "--peers" in str(changed(FORMED).judge(stranger))


# --- Nodes that agree -----------------------------------------------------------------------------


def expecting(name: str, directory: str, expect: int = 3) -> Formation:
    agreement = Agreement(name, directory, expect, NOTHING, lambda _proposal: None)
    agreement.looked_around()
    return Formation(name, directory, set(), None, agreement)


def waiting(name: str, directory: str, expect: int = 3, **others: Any) -> Hello:
    return Hello(node_id=name, directory_id=directory, joins=True, expect=expect, **others)


def test_nodes_that_were_started_alike_form_a_cluster_when_they_agree() -> None:
    formation = expecting("n1", "d1")
    heard = [waiting("n2", "d2"), waiting("n3", "d3")]
    assert [formation.judge(each) for each in heard] == [None, None]
    assert [formation.hear(each) for each in heard] == [None, None]
    agreement = formation.agreement
    assert agreement is not None
    assert agreement.proposal == Proposal(FORMED.voters)
    said: dict[str, Any] = {"proposal": dict(FORMED.voters), "agreed": True}
    assert formation.hear(waiting("n2", "d2", **said)) is None
    assert formation.missing() == ["n3 with data directory d3 to agree"]
    assert formation.hear(waiting("n3", "d3", **said)) == FORMED


def test_a_node_that_finds_a_cluster_joins_it_and_forms_none() -> None:
    formation = expecting("n4", "d4")
    member = replace_members(hello("n1", "d1", FORMED), {**FORMED.voters, "n4": "d4"})
    assert formation.judge(hello("n1", "d1", FORMED)) is None
    assert formation.hear(hello("n1", "d1", FORMED)) is None
    assert formation.missing() == [
        f"cluster {FORMED.cluster_id}, which it has found, to take it in"
    ]
    assert formation.hear(member) == FORMED


def replace_members(heard: Hello, members: dict[str, str]) -> Hello:
    return msgspec.structs.replace(heard, members=members)


def test_nodes_that_expect_different_numbers_refuse_each_other_in_words() -> None:
    refused = expecting("n1", "d1").judge(waiting("n2", "d2", expect=5))
    assert refused is not None
    assert "started with --expect 3, and that one with --expect 5: give all nodes the same" in str(
        refused
    )


def test_a_node_that_only_joins_is_told_what_it_waits_for() -> None:
    refused = expecting("n1", "d1").judge(waiting("n2", "d2", expect=0))
    assert refused is not None
    assert "waits for 3 nodes with --expect 3" in str(refused)
    refused = Formation("n1", "d1", set(), None).judge(waiting("n2", "d2"))
    assert refused is not None
    assert "this node waits to join a cluster" in str(refused)
