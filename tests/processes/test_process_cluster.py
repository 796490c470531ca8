"""The clusters of processes that tests make."""

from __future__ import annotations

from pathlib import Path

from tests.processes.process_cluster import ProcessCluster, free_ports


def test_no_two_nodes_have_a_port_in_common(tmp_path: Path) -> None:
    # So many that two of them would be given the same one, were each given any that is free.
    cluster = ProcessCluster(tmp_path, [f"n{number}" for number in range(150)])
    nodes = list(cluster)
    ports = [port for each in nodes for port in (each.client_port, each.peer_port, each.http_port)]
    ports += free_ports(nodes[0].host, 50)
    assert len(set(ports)) == len(ports) == 500
