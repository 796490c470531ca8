"""The commands of the compose file, run: three nodes form a cluster, are healthy, take records, and keep them over a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from distlog.api.log.v1 import log_pb2
from tests.deploy.confined import Network, at, command, confined
from tests.deploy.containers import compose_commands, compose_services, read_compose, read_image
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import require_root
from tests.processes.process_cluster import ProcessCluster

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
        cluster.start()
        await cluster.leader()
        await healthy(cluster, network)

        client = compose_services(IMAGE)["client"]
        lines = b"".join(b"%d\n" % number for number in range(1, 1001))
        said = []
        for each in compose_commands():
            if "client" in each:
                arguments = each[each.index("client") + 1 :]
                said.append(
                    await command(network, tmp_path / "client", client.variables, arguments, lines)
                )
        assert [status for status, _, _ in said] == [0, 0], said
        assert said[1][1] == b"1\n2\n3\n"

        status, output, _ = await command(
            network, tmp_path / "client", client.variables, client.arguments
        )
        assert status == 0
        assert all(f"{name}:8400".encode() in output for name in cluster.nodes)

        identities = {(await known(cluster, name)).cluster_id for name in cluster.nodes}
        await cluster.terminate()
        cluster.start()
        await cluster.leader()
        await cluster.reach(1000)
        again = {(await known(cluster, name)).cluster_id for name in cluster.nodes}
        assert again == identities
        assert len(again) == 1
        # It wrote where its volume is, and nowhere else: everything else was read-only.
        for node in cluster:
            assert (node.data_dir / "node.json").is_file()

    asyncio.run(scenario())


async def healthy(cluster: ProcessCluster, network: Network) -> None:
    """Run the health check of the image beside each node."""

    async def check(host: str, data: Path) -> None:
        arguments = [each.replace("127.0.0.1", host) for each in IMAGE.health_command[1:]]
        assert arguments != IMAGE.health_command[1:]
        status, output, errors = await command(network, data, IMAGE.variables, arguments)
        assert (status, errors) == (0, ""), (output, errors)

    await asyncio.gather(*(check(node.host, node.data_dir) for node in cluster))


async def known(cluster: ProcessCluster, node_id: str) -> log_pb2.StatusResponse:
    status = await cluster.status(node_id)
    assert status is not None
    return status


def test_a_node_alone_is_not_healthy(make_cluster: MakeCluster, network: Network) -> None:
    async def scenario() -> None:
        cluster = make_cluster(("n1", "n2", "n3"))
        place(cluster, network)
        cluster.start("n1")
        await cluster.all_answer("n1", timeout_s=10)
        arguments = [
            each.replace("127.0.0.1", cluster["n1"].host) for each in IMAGE.health_command[1:]
        ]
        arguments[arguments.index("--timeout") + 1] = "1"
        status, _, errors = await command(
            network, cluster["n1"].data_dir, IMAGE.variables, arguments
        )
        assert status == 1
        assert "leader" in errors

    asyncio.run(scenario())


def test_every_service_but_the_client_is_a_node() -> None:
    nodes = [name for name, run in compose_services(IMAGE).items() if run.arguments[0] == "serve"]
    assert [*nodes, "client"] == list(read_compose()["services"])
