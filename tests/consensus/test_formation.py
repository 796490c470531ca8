"""Forming a cluster of a fixed set: once, with everybody, and never with a directory that is not the one it was."""

from __future__ import annotations

from distlog.consensus.configuration import Configuration
from distlog.consensus.formation import Formation
from distlog.peer.handshake import Hello

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
