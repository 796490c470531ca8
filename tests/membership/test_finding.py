"""What a node makes of a view: whom it joins by, and which of the nodes there it takes for a member."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from distlog.consensus.configuration import NOWHERE, Addresses, Configuration
from distlog.discovery.backend import Backend
from distlog.discovery.view import Description, Member, MemberStatus
from distlog.membership.finding import Finding
from distlog.node_settings import DiscoverySettings, NodeSettings
from tests.discovery.worlds import description_of

CONFIGURATION = Configuration.form({"n1": "directory-n1", "n2": "directory-n2"})
CLUSTER_ID = CONFIGURATION.cluster_id


class Shown:
    """A backend that shows what it is given."""

    def __init__(self) -> None:
        self.nodes: dict[str, Member] = {}

    def members(self) -> Mapping[str, Member]:
        return self.nodes

    def show(self, description: Description, status: MemberStatus = MemberStatus.ALIVE) -> None:
        self.nodes[description.node_id] = Member(description, status, run=1, since=0.0)


def node(node_id: str, **changes: Any) -> Description:
    return replace(description_of(node_id), cluster_id=CLUSTER_ID, **changes)


def settings_of(*join: tuple[str, int]) -> NodeSettings:
    return NodeSettings(
        node_id="n1",
        data_dir="data",
        peer_listen=("n1", 8401),
        peers={"n1": ("n1", 8401)},
        join=join,
        discovery=DiscoverySettings(Backend.DNS, "distlog.example", 8400),
    )


def finding_of(*join: tuple[str, int], is_formed: bool = False) -> tuple[Finding, Shown]:
    """Return what n1 finds, with a view that shows nobody yet."""
    neighbours: Any = SimpleNamespace()
    group: Any = SimpleNamespace(configuration=CONFIGURATION) if is_formed else None
    ports: Any = SimpleNamespace()
    finding = Finding(settings_of(*join), ports, neighbours, lambda: group)
    shown = Shown()
    finding._discovery = shown  # type: ignore[assignment]
    return finding, shown


def test_a_node_joins_by_whoever_is_alive_in_a_cluster_and_tells_an_address() -> None:
    finding, shown = finding_of()
    assert finding.client_addresses() == []
    shown.show(node("n1"))
    shown.show(node("n2"))
    shown.show(node("n3"), MemberStatus.FAILED)
    shown.show(node("n4"), MemberStatus.LEFT)
    shown.show(replace(description_of("n5"), cluster_id=""))
    shown.show(node("n6", client_address=""))
    shown.show(node("n7", client_address="[::1]:8400"))
    assert finding.client_addresses() == [("n2", 8400), ("::1", 8400)]


def test_those_of_join_come_first_and_once() -> None:
    finding, shown = finding_of(("h", 8400), ("n2", 8400))
    shown.show(node("n2"))
    shown.show(node("n3"))
    assert finding.client_addresses() == [("h", 8400), ("n2", 8400), ("n3", 8400)]


def test_nodes_of_two_clusters_are_no_reason_to_choose_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    finding, shown = finding_of()
    assert finding.client_addresses() == []
    shown.show(node("n2"))
    shown.show(replace(description_of("n3"), cluster_id="another"))
    for _ in range(3):
        assert finding.client_addresses() == []
    told = [each.getMessage() for each in caplog.records]
    assert [each.partition("problem=")[2] for each in told] == [
        "none was found yet",
        f"they belong to different clusters: {', '.join(sorted(['another', CLUSTER_ID]))}",
    ]


@pytest.mark.parametrize(
    ("shown_as", "status"),
    [
        (node("n2"), MemberStatus.FAILED),
        (node("n2"), MemberStatus.LEFT),
        (node("n2", directory_id="another"), MemberStatus.ALIVE),
        (node("n2", directory_id=""), MemberStatus.ALIVE),
        (replace(node("n2"), cluster_id="another"), MemberStatus.ALIVE),
        (node("n3"), MemberStatus.ALIVE),
        (node("n1"), MemberStatus.ALIVE),
    ],
)
def test_only_an_alive_member_with_its_own_directory_is_where_the_view_shows_it(
    shown_as: Description, status: MemberStatus
) -> None:
    finding, shown = finding_of(is_formed=True)
    shown.show(shown_as, status)
    assert finding._found(shown_as.node_id) == NOWHERE
    shown.show(node("n2"))
    assert finding._found("n2") == Addresses("n2:8401", "n2:8400")
    before, _ = finding_of(is_formed=False)
    assert before._found("n2") == NOWHERE
