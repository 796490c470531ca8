"""`distlog cluster status`: what every node says of itself, and which ones say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distlog.api.log.v1 import log_pb2
from distlog.cli import cluster as cluster_module
from distlog.cli import health, members
from distlog.cli.cluster import (
    NODE_COLUMNS,
    add_member,
    look,
    node_cells,
    node_columns,
    remove_member,
    topic_columns,
    topic_rows,
    transfer_leadership,
    view,
)
from distlog.cli.table import table
from distlog.errors import (
    LeadershipNotTransferred,
    MemberExists,
    MemberNotAdded,
    MemberNotFound,
    MembershipChangeRefused,
)
from tests.cli.commands import distlog, parsed
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run


async def looked(cluster: FakeCluster) -> list[dict[str, Any]]:
    return await look(
        parsed(cluster_module, None, "status", "--server", ",".join(cluster.addresses))
    )


def test_every_node_is_shown_as_it_sees_itself_and_its_lag_as_the_leader_sees_it() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader = 1
            cluster.fill([b"a", b"b"])
            nodes = await looked(cluster)
            assert [node["node_id"] for node in nodes] == ["n1", "n2", "n3"]
            assert [node["role"] for node in nodes] == ["follower", "leader", "follower"]
            assert [node["address"] for node in nodes] == cluster.addresses
            assert [node["lag"] for node in nodes] == [2, 0, 2]
            assert [node["connected"] for node in nodes] == [True] * 3
            assert nodes[0]["topics"] == {"default": {"start_offset": 0, "high_watermark": 2}}

    run(scenario())


def test_a_node_that_does_not_answer_is_shown_as_unreachable() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            await cluster.nodes[2].stop()
            cluster.nodes[2].is_down = True
            nodes = await looked(cluster)
            assert [node["role"] for node in nodes] == ["leader", "follower", "unreachable"]
            assert (nodes[2]["connected"], nodes[2]["term"], nodes[2]["lag"]) == (False, None, 2)
            assert nodes[2]["topics"] == {}

    run(scenario())


def transferred(cluster: FakeCluster, *arguments: str) -> Any:
    servers = ",".join(cluster.addresses)
    command = ("transfer-leadership", "--server", servers, *arguments)
    return transfer_leadership(parsed(cluster_module, None, *command))


def test_leadership_is_handed_to_the_node_that_is_named_by_way_of_the_leader() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader = 1
            assert await transferred(cluster, "--to", "n3") == "n3"
            assert cluster.leader == 2
            assert await transferred(cluster) == "n1"

    run(scenario())


def test_why_leadership_was_not_handed_over_is_said() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(LeadershipNotTransferred, match="n9 is not another voter"):
                await transferred(cluster, "--to", "n9")

    run(scenario())


def changed(cluster: FakeCluster, action: str, *arguments: str) -> Any:
    command = (action, "--server", ",".join(cluster.addresses), *arguments)
    change = add_member if action == "add" else remove_member
    return change(parsed(cluster_module, None, *command))


def test_a_node_that_waits_is_added_and_the_command_returns_when_it_votes() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader = 1
            await changed(cluster, "add", "n4", "--peer", "127.0.0.1:8431")
            assert cluster.members["n4"] is False
            with pytest.raises(MemberExists):
                await changed(cluster, "add", "n4", "--peer", "127.0.0.1:8431")

    run(scenario())


def test_a_node_that_is_not_there_is_waited_for_and_then_it_is_said_what_to_look_at() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(MemberNotAdded, match="not heard it at nowhere:1: see that it runs"):
                await changed(cluster, "add", "n4", "--peer", "nowhere:1", "--timeout", "0.3")

    run(scenario())


def test_a_member_is_removed_when_the_change_before_is_done() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader, cluster.changes_under_way = 2, 2
            await changed(cluster, "remove", "n1")
            assert list(cluster.members) == ["n2", "n3"]
            with pytest.raises(MemberNotFound, match="no member is called n1"):
                await changed(cluster, "remove", "n1")

    run(scenario())


def test_a_removal_whose_answer_is_lost_has_happened() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.loses_answers = 1
            await changed(cluster, "remove", "n3")
            assert "n3" not in cluster.members

    run(scenario())


def test_a_removal_that_would_do_harm_is_refused_unless_forced() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(MembershipChangeRefused, match="too few are up"):
                await changed(cluster, "remove", "n2")
            await changed(cluster, "remove", "n2", "--force")
            assert "n2" not in cluster.members

    run(scenario())


def test_members_and_what_discovery_sees_stand_side_by_side() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = cluster.addresses[1]
            finished = await distlog("cluster", "members", "--server", server)
            assert (finished.code, finished.error) == (0, "")
            lines = finished.output.decode().splitlines()
            assert [line.split() for line in (lines[0], lines[1], lines[4])] == [
                list(members.COLUMNS),
                ["n1", "voter", "-", "-", "-", "n1:1", "-"],
                ["n9", "-", "alive", "2", "s", "n9:2", "-", "1"],
            ]
            finished = await distlog("cluster", "members", "--server", server, "--json")
            shown = json.loads(finished.output)
            assert shown["seen_age_s"] == 0.5
            assert [each["role"] for each in shown["nodes"]] == ["voter"] * 3 + [None]
            assert shown["nodes"][3]["seen"]["status"] == "alive"
            nowhere = await distlog("cluster", "members", "--server", "127.0.0.1:1")
            assert (nowhere.code, "no answer from 127.0.0.1:1" in nowhere.error) == (1, True)

    run(scenario())


def test_a_node_is_told_to_leave_at_its_own_address() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            finished = await distlog("leave", "--server", cluster.addresses[1])
            assert finished.code == 0
            assert finished.output.decode().startswith("n2 is no member any more, and stops.")
            finished = await distlog("cluster", "leave", "--server", cluster.addresses[2])
            assert (finished.code, cluster.left) == (0, ["n2", "n3"])
            finished = await distlog("leave", "--server", ",".join(cluster.addresses))
            assert (finished.code, "one address" in finished.error) == (2, True)

    run(scenario())


def test_the_target_is_set_and_what_is_planned_is_shown_with_what_it_waits_for() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader = 1
            server = ",".join(cluster.addresses)
            finished = await distlog("cluster", "target", "3", "--server", server)
            assert (finished.code, cluster.target) == (0, 3)
            assert finished.output == b"the cluster is meant to have 3 voters\n"
            cluster.planned = [
                log_pb2.PlannedChange(
                    change="remove", node_id="n3", why="it failed", waits_for="its place"
                ),
                log_pb2.PlannedChange(change="promote", node_id="n4", why="it has all"),
            ]
            finished = await distlog("cluster", "status", "--server", server)
            *_, planned, _topics = finished.output.decode().split("\n\n")
            assert planned.splitlines() == [
                "MEMBER  PLANNED  BECAUSE     WAITS FOR",
                "n3      remove   it failed   its place",
                "n4      promote  it has all  nothing: it is next",
            ]
            assert (await looked(cluster))[1]["target"] == 3

    run(scenario())


def test_the_tables_have_a_column_for_each_node() -> None:
    nodes = [
        node_of("n1", "leader", 0, {"default": {"start_offset": 3, "high_watermark": 12}}),
        node_of("n2", "unreachable", None, {}),
    ]
    cells = [node_cells(node, nodes) for node in nodes]
    assert table(("NODE", "ROLE"), [row[:2] for row in cells]).splitlines() == [
        "NODE  ROLE",
        "n1    leader",
        "n2    unreachable",
    ]
    assert node_columns(nodes) == list(NODE_COLUMNS)
    assert cells[1] == ["n2", "unreachable", "h:1", "-", "-", "-", "no", "-", "-"]
    assert topic_columns(nodes) == [
        "TOPIC",
        "START OFFSET",
        "HIGH WATERMARK n1",
        "HIGH WATERMARK n2",
    ]
    assert topic_rows(nodes) == [["default", "3", "12", "-"]]


def test_the_durability_of_each_node_is_shown_where_one_does_not_sync_before_it_promises() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.nodes[1].durability = "os"
            await cluster.nodes[2].stop()
            cluster.nodes[2].is_down = True
            nodes = await looked(cluster)
            assert [node["durability"] for node in nodes] == ["fsync", "os", None]
            assert node_columns(nodes)[-1] == "DURABILITY"
            assert [node_cells(node, nodes)[-1] for node in nodes] == ["fsync", "os", "-"]

    run(scenario())


def test_a_copy_is_shown_with_how_far_it_is_and_damage_instead_of_the_state_of_the_disk() -> None:
    node = node_of("n1", "follower", 7, {})

    def cells(**changed: Any) -> list[str]:
        return node_cells({**node, **changed}, [node])

    assert cells()[-2:] == ["ok", "-"]
    copy = {"source": "n2", "size": 3 << 20, "done_size": 1 << 20, "problem": ""}
    assert cells(copy=copy)[-1] == "1.0 of 3.0 MiB from n2"
    copy |= {"problem": "no room", "source": ""}
    assert cells(copy=copy)[-1] == "1.0 of 3.0 MiB, waits"
    assert cells(damaged=["a segment"])[-2] == "damaged"


@pytest.mark.parametrize(
    ("uptime_s", "text"),
    [(0.4, "0s"), (59.9, "59s"), (61, "1m 1s"), (3725, "1h 2m"), (90000, "1d 1h")],
)
def test_how_long_a_node_has_run_is_shown_in_two_units(uptime_s: float, text: str) -> None:
    node = node_of("n1", "leader", 0, {}) | {"uptime_s": uptime_s, "ready": True}
    assert health.cells(node)[1:4] == ["yes", "-", text]


def test_the_last_problems_of_all_nodes_are_shown_in_order_and_do_nothing_to_a_terminal() -> None:
    def line(number: int, text: str) -> dict[str, Any]:
        return {"time_ms": 1000 * number, "level": "warning", "logger": "distlog.x", "text": text}

    one = node_of("n1", "leader", 0, {}) | {"last_problems": [line(n, "old") for n in range(9)]}
    other = node_of("n2", "follower", 0, {}) | {"last_problems": [line(9, "a\x1b[2Jb\n  c")]}
    rows = health.problem_rows([one, other])
    assert len(rows) == health.PROBLEM_COUNT_MAX
    assert rows[-1] == ["1970-01-01T00:00:09.000Z", "n2", "warning", "a?[2Jb c"]
    assert rows[0][0] == "1970-01-01T00:00:05.000Z"


@pytest.mark.parametrize("value", ["0.1", "4000", "x", "nan"])
def test_a_view_is_refreshed_neither_too_often_nor_too_seldom(value: str) -> None:
    async def scenario() -> None:
        finished = await distlog("cluster", "status", "--watch", value, "--server", "h:1")
        assert finished.code == 2
        assert "from 0.5 to 3600" in finished.error

    run(scenario())


def test_a_view_that_is_refreshed_needs_a_terminal() -> None:
    async def scenario() -> None:
        for flags in ((), ("--json",)):
            finished = await distlog("cluster", "status", "--watch", *flags, "--server", "h:1")
            assert finished.code == 2
            assert "--watch" in finished.error

    run(scenario())


def node_of(node_id: str, role: str, number: int | None, topics: dict[str, Any]) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "address": "h:1",
        "role": role,
        "connected": number is not None,
        "term": number,
        "applied_index": number,
        "lag": number,
        "storage_full": None if number is None else False,
        "stall_max_ms": None if number is None else 0.0,
        "stall_count": None if number is None else 0,
        "durability": None if number is None else "fsync",
        "copy": None,
        "damaged": None if number is None else [],
        "version": "0",
        "ready": None,
        "state": None,
        "problem": "",
        "uptime_s": None,
        "disk_free": None,
        "last_problems": [],
        "topics": topics,
    }


def test_the_exit_code_says_whether_there_is_a_leader() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = cluster.addresses[0]
            finished = await distlog("cluster", "status", "--server", server, "--json")
            assert (finished.code, finished.error) == (0, "")
            status = json.loads(finished.output)
            assert status["leader"] == "n1"
            assert [node["node_id"] for node in status["nodes"]] == ["n1", "n2", "n3"]
            cluster.leader, cluster.election_rounds = None, 1000
            finished = await distlog("cluster", "status", "--server", server)
            assert (finished.code, finished.error) == (1, "")
            assert b"HIGH WATERMARK n3" in finished.output
            cluster.is_formed = False
            cluster.problem = "the cluster is not formed yet: waiting for n9"
            cluster.nodes[1].is_down = True
            finished = await distlog("cluster", "status", "--server", ",".join(cluster.addresses))
            assert (finished.code, finished.error) == (1, "")
            first, *lines = finished.output.decode().splitlines()
            assert first == "there is no cluster yet:"
            addresses = cluster.addresses
            assert lines[0] == f"  {addresses[0]} n1: {cluster.problem}"
            assert lines[1].startswith(f"  {addresses[1]}: no answer from {addresses[1]}")
            assert len(lines) == 3
            # Who watches is told the same.
            servers = ",".join(cluster.addresses)
            watched = await view(parsed(cluster_module, None, "status", "--server", servers))
            assert watched == finished.output.decode().rstrip("\n")

    run(scenario())
