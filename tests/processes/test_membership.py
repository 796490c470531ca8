"""Members of a cluster of real processes come and go: by flags, by commands, under load, and after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.process_cluster import NodeProcess, ProcessCluster, until
from tests.processes.test_catch_up import JOURNAL, MIB, check_equal, load
from tests.processes.test_leadership import Writers

SIX = ("n1", "n2", "n3", "n4", "n5", "n6")
MakeGrowing = Callable[..., ProcessCluster]


def come_by(cluster: ProcessCluster, node_id: str, *way: str) -> None:
    """Have a node come to its cluster in this way from its next start on, and not as one of a fixed set."""
    arguments = cluster[node_id].arguments
    for flag, width in (("--peers", 2), ("--join", 2), ("--bootstrap", 1)):
        if flag in arguments:
            place = arguments.index(flag)
            del arguments[place : place + width]
    arguments += way


@pytest.fixture
def make_growing(make_cluster: Callable[..., ProcessCluster]) -> MakeGrowing:
    """Make clusters of which n1 begins and the others join by any of the first three, not started."""

    def make(node_ids: Sequence[str] = SIX, *settings: str) -> ProcessCluster:
        cluster = make_cluster(node_ids, *settings)
        addresses = ",".join(cluster[node_id].address for node_id in node_ids[:3])
        come_by(cluster, "n1", "--bootstrap")
        for node_id in node_ids[1:]:
            come_by(cluster, node_id, "--join", addresses)
        return cluster

    return make


async def members(cluster: ProcessCluster, *, voters: bool) -> list[str]:
    async def known() -> list[str] | None:
        status = await cluster.status(await cluster.leader_of_any())
        if status is None:
            return None
        return [member.node_id for member in status.members if member.learner is not voters]

    return await until(known, "the leader names the members", describe=cluster.describe)


async def all_vote(cluster: ProcessCluster, *node_ids: str) -> None:
    """Wait until exactly these nodes vote, and nobody learns."""

    async def voting() -> bool:
        is_quiet = await members(cluster, voters=False) == []
        return is_quiet and await members(cluster, voters=True) == sorted(node_ids)

    await until(voting, f"{', '.join(node_ids)} vote", describe=cluster.describe)


async def removed(cluster: ProcessCluster, node_id: str, *flags: str) -> None:
    finished = await run("cluster", "remove", node_id, "--server", cluster.addresses, *flags)
    assert (finished.status, finished.errors) == (0, "")
    assert f"{node_id} is no member any more".encode() in finished.output


async def same_records(cluster: ProcessCluster, writers: Writers, *node_ids: str) -> None:
    """Every acknowledged record is where it was said to be, on each of these nodes."""
    count = len(writers.acknowledged)
    await cluster.reach(count, *node_ids)
    for node_id in node_ids:
        records = {value: offset for offset, value in await cluster.read_log(node_id, count)}
        assert records == writers.acknowledged


def test_three_nodes_started_together_become_a_cluster_and_start_again_with_the_same_flags(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start("n3", "n2", "n1")
        await all_vote(cluster, "n1", "n2", "n3")
        async with Client(cluster.addresses) as client:
            await client.produce(b"kept")
        listed = await cluster.servers("n2")
        assert listed is not None
        assert [server.id for server in listed] == ["n1", "n2", "n3"]
        assert all(server.rpc_addr == cluster[server.id].address for server in listed)
        await cluster.terminate()
        identities = [(node.data_dir / "node.json").read_bytes() for node in cluster]
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        await cluster.reach(1)
        assert identities == [(node.data_dir / "node.json").read_bytes() for node in cluster]
        # The flags mean nothing any more, and need not be there.
        cluster.kill("n1", "n2")
        for node_id in ("n1", "n2"):
            come_by(cluster, node_id)
        cluster.start("n1", "n2")
        await cluster.leader()

    asyncio.run(scenario())


def test_a_cluster_grows_to_five_and_shrinks_to_one_under_load(make_growing: MakeGrowing) -> None:
    async def scenario() -> None:
        cluster = make_growing()
        cluster.start("n1")
        await cluster.leader("n1")
        async with Writers(cluster) as writers:
            await writers.more()
            for count, node_id in enumerate(("n2", "n3", "n4", "n5"), 2):
                cluster.start(node_id)
                await all_vote(cluster, *SIX[:count])
                await writers.more()
            for node_id in ("n1", "n3", "n5", "n2"):
                await removed(cluster, node_id)
                cluster.kill(node_id)
                await writers.more()
            await writers.finish()
            assert await members(cluster, voters=True) == ["n4"]
            await same_records(cluster, writers, "n4")

    asyncio.run(scenario())


def test_a_removed_or_wiped_node_says_what_to_do_and_comes_back_with_an_empty_disk(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        async with Client(cluster.addresses) as client:
            await client.produce(b"kept")
        name = (await cluster.followers())[0]
        node = cluster[name]
        before = (node.data_dir / "node.json").read_bytes()
        cluster.kill(name)
        node.wipe()
        cluster.start(name)
        await says(node, "remove that one first (distlog cluster remove)")
        await removed(cluster, name)
        await all_vote(cluster, "n1", "n2", "n3")
        assert (node.data_dir / "node.json").read_bytes() != before
        await cluster.reach(1)

        await removed(cluster, name)
        await says(node, "was removed from the cluster", "--join")
        cluster.kill(name)
        node.output.unlink()
        # Its directory stays refused.
        cluster.start(name)
        await says(node, "was removed from the cluster", "--join")
        assert name not in await members(cluster, voters=True)

    asyncio.run(scenario())


async def says(node: NodeProcess, *words: str) -> None:
    async def has_said() -> bool:
        return all(each in node.says() for each in words)

    await until(has_said, f"{node.node_id} says {words}")


def test_a_fixed_set_takes_a_node_that_joins_and_is_started_with_the_flags_of_one_that_grew(
    make_growing: MakeGrowing,
) -> None:
    """Then none of them has an address of the others; they ask at the client addresses that they are given."""

    async def scenario() -> None:
        cluster = make_growing(SIX[:4])
        ways = {node.node_id: node.arguments[-2:] for node in cluster}
        peers = ",".join(f"{each}={cluster[each].peer_address}" for each in SIX[:3])
        for node_id in SIX[:3]:
            come_by(cluster, node_id, "--peers", peers)
        cluster.start("n1", "n2", "n3")
        await cluster.leader("n1", "n2", "n3")
        cluster.start("n4")
        await all_vote(cluster, *SIX[:4])
        async with Client(cluster.addresses) as client:
            await client.produce(b"kept")
        cluster.kill()
        for node_id in SIX[:3]:
            come_by(cluster, node_id, *(("--bootstrap",) if node_id == "n1" else ways[node_id]))
        cluster.start()
        await all_vote(cluster, *SIX[:4])
        await cluster.leader()
        await cluster.reach(1)

    asyncio.run(scenario())


def test_a_node_that_joins_when_journals_have_forgotten_their_beginning_copies_and_votes_for_one_that_goes(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(SIX[:4], *JOURNAL)
        cluster.start("n1", "n2", "n3")
        await all_vote(cluster, "n1", "n2", "n3")
        await load(cluster, 36 * MIB)
        cluster.start("n4")
        await all_vote(cluster, *SIX[:4])
        assert cluster["n4"].says().count("going over to a copied checkpoint") == 1
        await removed(cluster, await cluster.leader())
        left = await members(cluster, voters=True)
        assert len(left) == 3
        assert "n4" in left
        await cluster.terminate(*set(SIX[:4]).difference(left))
        await load(cluster, MIB)
        await check_equal(cluster, *left)

    asyncio.run(scenario())
