"""The pods of the chart, run: three that find each other by a name, answer their probes, and are restarted one by one."""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.charts import CASES, objects_of
from tests.deploy.confined import Network, at, command, confined
from tests.deploy.containers import Run, pod_runs, read_image
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import require_root
from tests.processes.process_cluster import CALL_TIMEOUT_S, ProcessCluster, until

IMAGE = read_image()
(CASE,) = [case for case in CASES if case.name == "insecure"]
(STATEFUL_SET,) = [each for each in objects_of(CASE) if each["kind"] == "StatefulSet"]
(CONTAINER,) = STATEFUL_SET["spec"]["template"]["spec"]["containers"]
NODES = f"{STATEFUL_SET['spec']['serviceName']}.default.svc"
RUNS = {run.name: run for run in pod_runs(STATEFUL_SET, IMAGE)}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    require_root()
    return Network(tmp_path)


def start_pod(cluster: ProcessCluster, network: Network, name: str, run: Run) -> None:
    """Start a pod at a new address, which its names lead to from now on, as they do in a cluster.  Others have the old ones in mind."""
    node = cluster[name]
    node.host, node.client_port, node.peer_port = network.add(f"{name}.{NODES}", NODES), 8400, 8401
    placed = at(run, node.host)
    node.prefix = confined(network, node.data_dir, placed.variables)
    assert placed.arguments[0] == "serve"
    node.arguments = list(placed.arguments[1:])
    node.start()


async def stop_pod(cluster: ProcessCluster, network: Network, name: str) -> None:
    await cluster.terminate(name)
    network.remove(cluster[name].host)


async def probe(cluster: ProcessCluster, name: str, which: str) -> tuple[int, str]:
    """Do what the kubelet does; 0: nothing listens yet."""
    http_get = CONTAINER[which]["httpGet"]
    (port,) = [
        each["containerPort"] for each in CONTAINER["ports"] if each["name"] == http_get["port"]
    ]

    def get() -> tuple[int, str]:
        connection = http.client.HTTPConnection(cluster[name].host, port, timeout=CALL_TIMEOUT_S)
        try:
            connection.request("GET", http_get["path"])
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        except ConnectionRefusedError:
            return 0, ""
        finally:
            connection.close()

    return await asyncio.to_thread(get)


async def ready(cluster: ProcessCluster, *names: str) -> None:
    async def answered() -> bool:
        answers = [await probe(cluster, name, "readinessProbe") for name in names]
        return all(status == 200 for status, _ in answers)

    await until(answered, f"{names} are ready", describe=cluster.describe)


def test_pods_find_each_other_by_a_name_and_answer_their_probes(
    make_cluster: MakeCluster, network: Network, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_cluster(tuple(RUNS))
        first, *others = RUNS

        # A pod that waits for the others is alive and not ready, and the name of all nodes leads to it.
        start_pod(cluster, network, first, RUNS[first])

        async def answers() -> bool:
            return (await probe(cluster, first, "startupProbe"))[0] == 200

        await until(answers, "it answers", describe=cluster.describe)
        assert (await probe(cluster, first, "livenessProbe"))[0] == 200
        status, why = await probe(cluster, first, "readinessProbe")
        assert status == 503
        assert why

        for name in others:
            start_pod(cluster, network, name, RUNS[name])
        await ready(cluster, *RUNS)

        server = f"{NODES}:8400"
        given: Any = (network, tmp_path / "client", {**IMAGE.variables, "DISTLOG_SERVER": server})
        produced = await command(*given, ("produce", "-"), b"one\ntwo\n")
        assert produced[0] == 0, produced
        listed = await command(*given, ("cluster", "status"))
        assert all(f"{name}.{NODES}:8400".encode() in listed[1] for name in RUNS), listed

        # As a rolling update does it: from the last to the first, each when the one before is ready; every pod has another address then.
        for name in reversed(list(RUNS)):
            await stop_pod(cluster, network, name)
            start_pod(cluster, network, name, RUNS[name])
            await ready(cluster, *RUNS)
        consumed = await command(*given, ("consume", "--from", "start", "--count", "2"))
        assert consumed[:2] == (0, b"one\ntwo\n"), consumed

    asyncio.run(scenario())
