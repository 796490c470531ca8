"""The commands of the compose file, run: three nodes form a cluster, are healthy, take records, and keep them over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.deploy.confined import Network, at, command, confined
from tests.deploy.containers import compose_commands, compose_services, read_compose, read_image
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import require_root
from tests.processes.process_cluster import ProcessCluster, until

IMAGE = read_image()


@pytest.fixture
def network(tmp_path: Path) -> Network:
    require_root()
    return Network(tmp_path)


def place(cluster: ProcessCluster, network: Network) -> None:
    """Have each node of the cluster be that service of the file."""
    runs = compose_services(IMAGE)
    hosts = {node.node_id: network.add(node.node_id) for node in cluster}
    for node in cluster:
        node.host, node.client_port, node.peer_port = hosts[node.node_id], 8400, 8401
        run = at(runs[node.node_id], node.host)
        node.prefix = confined(network, node.data_dir, run.variables)
        assert run.arguments[0] == "serve"
        node.arguments = list(run.arguments[1:])


def test_three_nodes_form_a_cluster_that_is_healthy_and_survives_a_restart(
    make_cluster: MakeCluster, network: Network, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_cluster(tuple(name for name in compose_services(IMAGE) if name != "client"))
        place(cluster, network)
        cluster.start("n1")
        await cluster.all_answer("n1")
        status, said = await health(cluster, network, "n1")
        assert status == 1
        assert said.startswith("not ready: forming: ")

        cluster.start("n2", "n3")
        await cluster.leader()

        async def healthy() -> bool:
            found = [await health(cluster, network, name) for name in cluster.nodes]
            return all(status == 0 and said.startswith("ready: ") for status, said in found)

        await until(healthy, "all are healthy", describe=cluster.describe)

        client = compose_services(IMAGE)["client"]
        given = [
            each[each.index("client") + 1 :] for each in compose_commands() if "client" in each
        ]
        lines = b"".join(b"%d\n" % number for number in range(1, 1001))

        async def run(arguments: Sequence[str]) -> bytes:
            data = tmp_path / "client"
            status, output, errors = await command(
                network, data, client.variables, arguments, lines
            )
            assert status == 0, errors
            return output

        await run(given[0])
        consumed, listed = await asyncio.gather(run(given[1]), run(client.arguments))
        assert consumed == b"1\n2\n3\n"
        assert all(f"{name}:8400".encode() in listed for name in cluster.nodes)

        formed = await cluster_ids(cluster)
        await cluster.terminate()
        cluster.start()
        await cluster.leader()
        await cluster.reach(1000)
        assert await cluster_ids(cluster) == formed
        assert len(formed) == 1
        # It wrote where its volume is, and nowhere else: everything else was read-only.
        for node in cluster:
            assert (node.data_dir / "node.json").is_file()

    asyncio.run(scenario())


async def health(cluster: ProcessCluster, network: Network, name: str) -> tuple[int, str]:
    """Run the health check of the image beside a node; return its exit status and what it says."""
    node = cluster[name]
    # The node's container has an address of its own, on which it listens everywhere.
    variables = at(compose_services(IMAGE)[name], node.host).variables
    status, said, errors = await command(
        network, node.data_dir, variables, (), program=IMAGE.health()
    )
    assert errors == ""
    return status, said.decode()


async def cluster_ids(cluster: ProcessCluster) -> set[str]:
    found = [await cluster.status(name) for name in cluster.nodes]
    assert all(found)
    return {each.cluster_id for each in found if each is not None}


def test_every_service_but_the_client_is_a_node() -> None:
    nodes = [name for name, run in compose_services(IMAGE).items() if run.arguments[0] == "serve"]
    assert [*nodes, "client"] == list(read_compose()["services"])
