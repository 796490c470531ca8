"""Members of a cluster of real processes come and go: by flags, by commands, under load, and after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.process_cluster import ProcessCluster, free_ports, until
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
    leader = await cluster.leader_of_any()
    status = await cluster.status(leader)
    assert status is not None
    return [member.node_id for member in status.members if member.learner is not voters]


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


def test_a_dead_node_is_removed_and_a_new_one_takes_its_place(make_growing: MakeGrowing) -> None:
    async def scenario() -> None:
        cluster = make_growing()
        cluster.start("n1", "n2", "n3")
        await all_vote(cluster, "n1", "n2", "n3")
        async with Writers(cluster) as writers:
            await writers.more()
            leader = await cluster.leader()
            dead = next(node_id for node_id in ("n1", "n2", "n3") if node_id != leader)
            other = next(n for n in ("n1", "n2", "n3") if n not in (leader, dead))
            cluster.kill(dead)
            cluster[dead].wipe()
            # With two of three up, the third is not given away.
            await until(lambda: says_down(cluster, leader, dead), f"{dead} is missed")
            refused = await run("cluster", "remove", other, "--server", cluster.addresses)
            assert refused.status == 1
            assert "which is no majority" in refused.complaint
            await removed(cluster, dead)
            come_by(cluster, "n4", "--join", cluster[leader].address)
            cluster.start("n4")
            await all_vote(cluster, leader, other, "n4")
            await writers.more()
            await writers.finish()
            await same_records(cluster, writers, leader, other, "n4")

    asyncio.run(scenario())


async def says_down(cluster: ProcessCluster, leader: str, node_id: str) -> bool:
    status = await cluster.status(leader)
    assert status is not None
    return any(m.node_id == node_id and not m.connected for m in status.members)


def test_a_wiped_node_waits_until_its_old_self_is_removed_and_comes_back_under_its_name(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        async with Client(cluster.addresses) as client:
            await client.produce(b"kept")
        before = (cluster["n3"].data_dir / "node.json").read_bytes()
        cluster.kill("n3")
        cluster["n3"].wipe()
        cluster.start("n3")

        async def says_what_to_do() -> bool:
            return "remove that one first (distlog cluster remove)" in cluster["n3"].says()

        await until(says_what_to_do, "the wiped node says what to do")
        await removed(cluster, "n3")
        await all_vote(cluster, "n1", "n2", "n3")
        assert (cluster["n3"].data_dir / "node.json").read_bytes() != before
        await cluster.reach(1)

    asyncio.run(scenario())


def test_a_removed_node_says_what_to_do_and_its_directory_stays_refused(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        leader = await cluster.leader()
        gone = next(node_id for node_id in ("n1", "n2", "n3") if node_id != leader)
        await removed(cluster, gone)

        async def says_so() -> bool:
            said = cluster[gone].says()
            return "was removed from the cluster" in said and "--join" in said

        await until(says_so, "the removed node says what to do")
        cluster.kill(gone)
        cluster[gone].output.unlink()
        cluster.start(gone)
        await until(says_so, "and says it again")
        assert gone not in await members(cluster, voters=True)

    asyncio.run(scenario())


def test_a_node_with_a_wrong_address_tries_again_and_says_so_until_it_is_added_by_command(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start("n1")
        await cluster.leader("n1")
        nobody = f"{cluster['n2'].host}:{free_ports(cluster['n2'].host, 1)[0]}"
        come_by(cluster, "n2", "--join", nobody)
        cluster.start("n2")

        async def has_tried() -> bool:
            lines = [
                each for each in cluster["n2"].says().splitlines() if "cannot join yet" in each
            ]
            return len(lines) >= 3 and all(nobody in line for line in lines)

        await until(has_tried, "it tries again")
        assert await members(cluster, voters=True) == ["n1"]
        added = await run(
            *("cluster", "add", "n2", "--peer", cluster["n2"].peer_address),
            *("--server", cluster["n1"].address),
        )
        assert (added.status, added.output) == (0, b"n2 is a voter now\n")
        again = await run(
            *("cluster", "add", "n2", "--peer", cluster["n2"].peer_address),
            *("--server", cluster["n1"].address),
        )
        assert again.status == 1
        assert "n2 is a member already" in again.complaint

    asyncio.run(scenario())


def test_a_member_that_comes_back_at_another_address_is_found_there(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        moved = cluster["n2"]
        cluster.kill("n2")
        client_port, peer_port = free_ports(moved.host, 2)
        for flag, port in (("--listen", client_port), ("--peer-listen", peer_port)):
            moved.arguments[moved.arguments.index(flag) + 1] = f"{moved.host}:{port}"
        moved.client_port, moved.peer_port = client_port, peer_port
        cluster.start("n2")

        async def is_known() -> bool:
            status = await cluster.status(await cluster.leader())
            assert status is not None
            (known,) = (member for member in status.members if member.node_id == "n2")
            return (known.client_address, known.peer_address) == (moved.address, moved.peer_address)

        await until(is_known, "the new address is known", describe=cluster.describe)
        # All others forget what they heard; the log has it.
        cluster.kill("n1", "n2", "n3")
        cluster.start()
        await cluster.leader()
        await until(is_known, "the new address is remembered", describe=cluster.describe)

    asyncio.run(scenario())


def test_the_directories_of_a_fixed_set_are_started_with_the_flags_of_one_that_grew(
    make_growing: MakeGrowing,
) -> None:
    """None of them has an address of the others; they ask at the client addresses that they are given."""

    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        ways = {node.node_id: node.arguments[-2:] for node in cluster}
        peers = ",".join(f"{node.node_id}={node.peer_address}" for node in cluster)
        for node in cluster:
            come_by(cluster, node.node_id, "--peers", peers)
        cluster.start()
        await cluster.leader("n1", "n2", "n3")
        async with Client(cluster.addresses) as client:
            await client.produce(b"kept")
        await cluster.terminate()
        for node_id, way in ways.items():
            come_by(cluster, node_id, *(("--bootstrap",) if node_id == "n1" else way))
        cluster.start()
        await all_vote(cluster, "n1", "n2", "n3")
        await cluster.leader("n1", "n2", "n3")
        await cluster.reach(1)

    asyncio.run(scenario())


def test_a_fixed_set_takes_a_node_that_joins(make_growing: MakeGrowing) -> None:
    async def scenario() -> None:
        cluster = make_growing(SIX[:4])
        peers = ",".join(f"{each}={cluster[each].peer_address}" for each in SIX[:3])
        for node_id in SIX[:3]:
            come_by(cluster, node_id, "--peers", peers)
        come_by(cluster, "n4", "--join", cluster["n2"].address)
        cluster.start("n1", "n2", "n3")
        await cluster.leader("n1", "n2", "n3")
        cluster.start("n4")
        await all_vote(cluster, *SIX[:4])
        cluster.kill()
        cluster.start()
        await all_vote(cluster, *SIX[:4])

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
