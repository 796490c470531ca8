"""Real nodes find each other, and everybody who asks any of them hears who they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distlog.client.client import Client
from tests.processes.process_cluster import ProcessCluster, free_ports, until
from tests.processes.test_membership import SIX, MakeGrowing, all_vote, come_by, removed
from tests.processes.test_membership import make_growing as make_growing

# A second, by the promise; the machine may be busy with everything else.
KNOWN_WITHIN_S = 3.0


def move(cluster: ProcessCluster, node_id: str) -> None:
    """Have a node that is down come back at other ports."""
    node = cluster[node_id]
    node.client_port, node.peer_port = free_ports(node.host, 2)
    for flag, address in (("--listen", node.address), ("--peer-listen", node.peer_address)):
        node.arguments[node.arguments.index(flag) + 1] = address


def test_a_node_that_is_told_of_no_member_finds_one_by_a_name_and_joins(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        # An address is a name that stands for itself.
        name = f"dns://{cluster['n1'].address}"
        come_by(cluster, "n1", "--bootstrap", "--discovery", name)
        for node_id in ("n2", "n3"):
            come_by(cluster, node_id, "--discovery", name)
        cluster.start("n2", "n3")

        async def say_that_they_wait() -> bool:
            said = "no node is found by its name"
            return all(said in cluster[node_id].says() for node_id in ("n2", "n3"))

        await until(say_that_they_wait, "they wait for the first")
        cluster.start("n1")
        await all_vote(cluster, "n1", "n2", "n3")
        await cluster.terminate()
        cluster.start()
        await cluster.leader("n1", "n2", "n3")

    asyncio.run(scenario())


def test_every_node_and_a_client_in_use_know_of_a_change_within_a_second(
    make_growing: MakeGrowing, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        cluster = make_growing(SIX[:4])
        cluster.start("n1", "n2", "n3")
        await all_vote(cluster, "n1", "n2", "n3")
        async with Client(cluster["n1"].address) as client:
            await client.produce(b"in use")
            up = ["n1", "n2", "n3"]

            async def known_by_all(change: str, *node_ids: str) -> None:
                """Measure from when the first of them says so."""
                wanted = {cluster[node_id].address for node_id in node_ids}

                async def listed(asked: str) -> bool:
                    servers = await cluster.servers(asked)
                    return servers is not None and {each.rpc_addr for each in servers} == wanted

                async def by_any() -> bool:
                    return any([await listed(asked) for asked in up])

                async def by_all() -> bool:
                    await client.produce(b"in use")
                    is_listed = all([await listed(asked) for asked in up])
                    return is_listed and wanted == set(client._routing._announced)

                loop = asyncio.get_running_loop()
                await until(by_any, f"{change} is known", describe=cluster.describe)
                since = loop.time()
                await until(by_all, f"{change} is known by all", timeout_s=KNOWN_WITHIN_S)
                figure(f"{change}: known everywhere {loop.time() - since:.2f} s after the first")

            cluster.start("n4")
            up.append("n4")
            await known_by_all("a node that joins", "n1", "n2", "n3", "n4")
            await all_vote(cluster, *SIX[:4])
            await cluster.terminate("n3")
            move(cluster, "n3")
            cluster.start("n3")
            await known_by_all("a node that moves", "n1", "n2", "n3", "n4")
            await removed(cluster, "n4")
            up.remove("n4")
            await known_by_all("a node that is removed", "n1", "n2", "n3")

    asyncio.run(scenario())


def test_gossip_is_on_by_default_and_another_setting_beside_it_is_no_quarrel(
    make_growing: MakeGrowing,
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2", "n3"))
        cluster.start("n1", "n2")
        await all_vote(cluster, "n1", "n2")
        come_by(cluster, "n3", "--join", cluster["n1"].address)
        cluster["n3"].arguments += ["--discovery", f"dns://{cluster['n1'].address}"]
        cluster.start("n3")
        await all_vote(cluster, "n1", "n2", "n3")
        async with Client(cluster.addresses) as client:
            for number in range(200):
                await client.produce(b"%d" % number)
        await cluster.reach(200)
        for node in cluster:
            assert "peer refused" not in node.says()
            assert "broke the protocol" not in node.says()

    asyncio.run(scenario())
