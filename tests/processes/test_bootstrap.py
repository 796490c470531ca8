"""Real nodes that are all started alike: they form a cluster, come back anywhere, replace each other, and leave for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.process_cluster import ProcessCluster, free_ports, until
from tests.processes.test_leadership import Writers
from tests.processes.test_membership import all_vote, come_by, members, same_records

FOUR = ("n1", "n2", "n3", "n4")
MakeAlike = Callable[..., ProcessCluster]


def start_alike(cluster: ProcessCluster, *settings: str) -> None:
    """Have all nodes find each other by the same list from their next start on."""
    for node in cluster:
        come_by(cluster, node.node_id, "--join", cluster.addresses)
        node.arguments += settings


@pytest.fixture
def make_alike(make_cluster: Callable[..., ProcessCluster]) -> MakeAlike:
    """Make clusters whose nodes are all started with the same --join and --expect 3, not started."""

    def make(node_ids: Sequence[str] = FOUR, *settings: str) -> ProcessCluster:
        cluster = make_cluster(node_ids, *settings)
        start_alike(cluster, "--expect", "3")
        return cluster

    return make


async def shown(cluster: ProcessCluster, server: str = "") -> dict[str, Any]:
    """Return the nodes of `distlog cluster members`, by node id."""
    server = server or cluster.addresses
    finished = await run("cluster", "members", "--json", "--server", server)
    assert finished.status == 0, finished
    return {node["node_id"]: node for node in json.loads(finished.output)["nodes"]}


def test_three_nodes_with_the_same_flags_form_a_cluster_and_find_each_other_at_new_addresses(
    make_alike: MakeAlike, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        cluster = make_alike(("n1", "n2", "n3"))
        begin = loop.time()
        cluster.start()
        leader = await cluster.leader("n1", "n2", "n3")
        figure(f"three empty nodes lead and follow {loop.time() - begin:.2f} s after their start")
        async with Client(cluster.addresses) as client:
            for number in range(20):
                await client.produce(b"%d" % number)

        async def is_written_down() -> bool:
            status = await cluster.status(await cluster.leader_of_any())
            return status is not None and status.target == 3

        await until(is_written_down, "the target is known", describe=cluster.describe)
        records = await cluster.read_log(leader, 20)
        cluster.kill()
        for node in cluster:
            node.client_port, node.peer_port = free_ports(node.host, 2)
            for flag, address in (("--listen", node.address), ("--peer-listen", node.peer_address)):
                node.arguments[node.arguments.index(flag) + 1] = address
        start_alike(cluster)
        begin = loop.time()
        cluster.start()
        await cluster.leader("n1", "n2", "n3")
        figure(f"the same, killed, at new addresses: {loop.time() - begin:.2f} s")
        async with Client(cluster.addresses) as client:
            await client.produce(b"after")
        await cluster.reach(21)
        assert await cluster.read_log("n2", 20) == records

        async def are_written_down() -> bool:
            seen = await shown(cluster)
            return all(seen[each.node_id]["peer_address"] == each.peer_address for each in cluster)

        await until(are_written_down, "the new addresses are known", describe=cluster.describe)

    asyncio.run(scenario())


def test_a_dead_node_is_replaced_by_one_that_was_started_like_it(
    make_alike: MakeAlike, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        cluster = make_alike(FOUR, "--dead-after-s", "3")
        cluster.start("n1", "n2", "n3")
        leader = await cluster.leader("n1", "n2", "n3")
        await all_vote(cluster, "n1", "n2", "n3")
        cluster.start("n4")

        async def is_spare() -> bool:
            return await members(cluster, voters=False) == ["n4"]

        await until(is_spare, "n4 is a learner", describe=cluster.describe)
        dead = next(each for each in ("n1", "n2", "n3") if each != leader)
        left = sorted({*FOUR} - {dead})
        async with Writers(cluster) as writers:
            await writers.more()
            begin = loop.time()
            cluster.kill(dead)

            async def says_what_it_would_do() -> bool:
                finished = await run("cluster", "status", "--server", cluster.addresses)
                text = finished.output.decode()
                return "it to come back, or" in text and "WAITS FOR" in text

            await until(says_what_it_would_do, "the status says why nothing is done yet")
            figure(f"a dead node is seen to be dead {loop.time() - begin:.1f} s after its kill")
            await all_vote(cluster, *left)
            figure(f"and replaced {loop.time() - begin:.1f} s after it, with --dead-after-s 3")
            await writers.more()
            await writers.finish()
            await same_records(cluster, writers, *left)
        # It comes back, and is told that it is no member any more.
        cluster.start(dead)

        async def is_told() -> bool:
            return "it was removed from the cluster" in cluster[dead].says()

        await until(is_told, "the dead one is told")

    asyncio.run(scenario())


def test_parity_b14_who_joins_and_leaves_is_seen_and_whoever_left_stays_seen_as_left(
    make_alike: MakeAlike,
) -> None:
    async def scenario() -> None:
        cluster = make_alike(("n1", "n2", "n3"))
        cluster.start()
        await cluster.leader("n1", "n2", "n3")

        async def seen_by(*node_ids: str) -> dict[str, set[str]]:
            """Return as what each node is seen by these."""
            views = [await shown(cluster, cluster[each].address) for each in node_ids]
            names = ("n1", "n2", "n3")
            return {
                name: {view[name]["seen"]["status"] for view in views if view.get(name)}
                for name in names
            }

        async def all_alive() -> bool:
            seen = await seen_by("n1", "n2", "n3")
            return all(statuses == {"alive"} for statuses in seen.values())

        await until(all_alive, "all see all alive", describe=cluster.describe)
        leader = await cluster.leader("n1", "n2", "n3")
        gone = next(each for each in ("n1", "n2", "n3") if each != leader)
        left = sorted({"n1", "n2", "n3"} - {gone})
        finished = await run("leave", "--server", cluster[gone].address)
        assert (finished.status, finished.errors) == (0, "")
        assert await cluster[gone].wait_for_exit() == 0

        async def has_left() -> bool:
            return (await seen_by(*left))[gone] == {"left"}

        await until(has_left, "it is seen as left", describe=cluster.describe)
        assert (await shown(cluster, cluster[left[0]].address))[gone]["role"] is None

    asyncio.run(scenario())


def test_parity_b15_after_a_node_left_two_are_listed_and_it_gets_no_records(
    make_alike: MakeAlike,
) -> None:
    async def scenario() -> None:
        cluster = make_alike(("n1", "n2", "n3"))
        cluster.start()
        gone = await cluster.leader("n1", "n2", "n3")
        left = sorted({"n1", "n2", "n3"} - {gone})
        async with Writers(cluster) as writers:
            await writers.more()
            finished = await run("cluster", "leave", "--server", cluster[gone].address)
            assert (finished.status, finished.errors) == (0, ""), finished
            assert f"{gone} is no member any more, and stops" in finished.output.decode()
            assert await cluster[gone].wait_for_exit() == 0
            await writers.more()
            await writers.finish()
        await same_records(cluster, writers, *left)
        for asked in left:
            servers = await cluster.servers(asked)
            assert servers is not None
            assert [each.id for each in servers] == left
            assert sum(each.is_leader for each in servers) == 1
        assert "its data directory never comes back" in cluster[gone].says()
        cluster.start(gone)

        async def is_told() -> bool:
            return "it was removed from the cluster" in cluster[gone].says()

        await until(is_told, "its directory does not come back")
        end = len(writers.acknowledged)
        assert (await cluster.high_watermark(gone) or 0) < end, "it gets no records"

    asyncio.run(scenario())


def test_a_node_with_leave_on_stop_is_no_member_after_a_stop(make_alike: MakeAlike) -> None:
    async def scenario() -> None:
        cluster = make_alike(("n1", "n2", "n3"), "--leave-on-stop")
        cluster.start()
        leader = await cluster.leader("n1", "n2", "n3")
        await cluster.terminate(leader)
        left = sorted({"n1", "n2", "n3"} - {leader})
        await all_vote(cluster, *left)
        # Of two both are needed: the second stays a member.
        await cluster.terminate(left[0])
        await all_vote(cluster, left[1])

    asyncio.run(scenario())


def test_nodes_that_were_told_different_numbers_say_so(make_alike: MakeAlike) -> None:
    async def scenario() -> None:
        cluster = make_alike(("n1", "n2"))
        arguments = cluster["n2"].arguments
        arguments[arguments.index("--expect") + 1] = "2"
        cluster.start()

        async def say_so() -> bool:
            said = "it was started with --expect 2, and this node with --expect 3"
            return said in cluster["n1"].says()

        await until(say_so, "n1 says so")

    asyncio.run(scenario())
