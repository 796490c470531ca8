"""The pods of the chart, run: three that find each other by their names, answer their probes, and are restarted one by one."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from pathlib import Path

import pytest

from tests.deploy.charts import CASES, objects_of
from tests.deploy.confined import Network, at, command, confined
from tests.deploy.containers import Run, pod_runs, read_image
from tests.processes.commands import run as run_command
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import require_root
from tests.processes.process_cluster import CALL_TIMEOUT_S, ProcessCluster, until

IMAGE = read_image()
NODES = "distlog-nodes.default.svc"
# As many as form the cluster.
POD_COUNT = 3


class Pods:
    """The first pods of the chart with some values, and where they run."""

    def __init__(self, case_name: str, network: Network, directory: Path) -> None:
        (case,) = [case for case in CASES if case.name == case_name]
        (stateful_set,) = [each for each in objects_of(case) if each["kind"] == "StatefulSet"]
        (self.container,) = stateful_set["spec"]["template"]["spec"]["containers"]
        self.runs = {run.name: run for run in pod_runs(stateful_set, IMAGE)[:POD_COUNT]}
        self.network = network
        self.directory = directory
        # What a client in the same cluster is given.
        self.client_variables = {**IMAGE.variables, "DISTLOG_SERVER": f"{NODES}:8400"}
        mounts = {each["name"]: each["mountPath"] for each in self.container["volumeMounts"]}
        self._certificates = mounts.get("tls")

    async def make_certificates(self) -> None:
        """Have what the secret holds, if there is one."""
        if self._certificates is None:
            return
        made = self.directory / "certificates"
        hosts = f"*.{NODES},{NODES}"
        arguments = ("certs", str(made), "--nodes", ",".join(self.runs), "--hosts", hosts)
        done = await run_command(*arguments)
        assert done.status == 0, done.errors
        for name, run in self.runs.items():
            placed = [each.replace(self._certificates, str(made)) for each in run.command]
            self.runs[name] = Run(name, tuple(placed), run.variables)
        for variable, file in (("CA", "ca.pem"), ("CERT", "admin.pem"), ("KEY", "admin.key")):
            self.client_variables[f"DISTLOG_TLS_{variable}"] = str(made / file)

    def start(self, cluster: ProcessCluster, name: str) -> None:
        """Start a pod at a new address, which its names lead to from now on.  Others have the old one in mind."""
        node = cluster[name]
        node.host = self.network.add(f"{name}.{NODES}", NODES)
        node.client_port, node.peer_port = 8400, 8401
        placed = at(self.runs[name], node.host)
        node.prefix = confined(self.network, node.data_dir, placed.variables)
        assert placed.arguments[0] == "serve"
        node.arguments = list(placed.arguments[1:])
        node.start()

    async def stop(self, cluster: ProcessCluster, name: str) -> None:
        await cluster.terminate(name)
        self.network.remove(cluster[name].host)

    async def probe(self, cluster: ProcessCluster, name: str, which: str) -> tuple[int, str]:
        """Do what the kubelet does; 0: nothing listens yet."""
        http_get = self.container[which]["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        return await asyncio.to_thread(
            get,
            http_get["scheme"],
            cluster[name].host,
            ports[http_get["port"]],
            http_get["path"],
        )

    async def ready(self, cluster: ProcessCluster, *names: str) -> None:
        async def answered() -> bool:
            answers = [await self.probe(cluster, name, "readinessProbe") for name in names]
            return all(status == 200 for status, _ in answers)

        await until(answered, f"{names} are ready", describe=cluster.describe)

    async def client(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run a command in a pod of its own; return what it printed.  Fails if it fails."""
        data = self.directory / "client"
        status, output, errors = await command(
            self.network, data, self.client_variables, arguments, given
        )
        assert status == 0, errors
        return output


def get(scheme: str, host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=CALL_TIMEOUT_S)
    if scheme == "HTTPS":
        # The kubelet trusts whoever answers, and shows no certificate.
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            host, port, timeout=CALL_TIMEOUT_S, context=trusting
        )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8")
    except ConnectionRefusedError:
        return 0, ""
    finally:
        connection.close()


@pytest.mark.parametrize("case_name", ["insecure", "everything"])
def test_pods_find_each_other_by_their_names_and_answer_their_probes(
    case_name: str, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    require_root()
    pods = Pods(case_name, Network(tmp_path), tmp_path)

    async def scenario() -> None:
        await pods.make_certificates()
        cluster = make_cluster(tuple(pods.runs))
        first, *others = pods.runs

        # A pod that waits for the others is alive and not ready.
        pods.start(cluster, first)

        async def answers() -> bool:
            return (await pods.probe(cluster, first, "startupProbe"))[0] == 200

        await until(answers, "it answers", describe=cluster.describe)
        assert (await pods.probe(cluster, first, "livenessProbe"))[0] == 200
        status, why = await pods.probe(cluster, first, "readinessProbe")
        assert status == 503
        assert why

        for name in others:
            pods.start(cluster, name)
        await pods.ready(cluster, *pods.runs)
        await pods.client("produce", "-", given=b"one\ntwo\n")
        listed = await pods.client("cluster", "status")
        assert all(f"{name}.{NODES}:8400".encode() in listed for name in pods.runs)

        # The second case looks them up by their service.
        async def seen() -> bool:
            found = json.loads(await pods.client("cluster", "members", "--json"))["nodes"]
            return [each["seen"] and each["seen"]["status"] for each in found] == ["alive"] * 3

        await until(seen, "all are seen", describe=cluster.describe)

        # As a rolling update does it: from the last to the first, each when the one before is ready.  Every pod has another address then.
        for name in reversed(list(pods.runs)):
            await pods.stop(cluster, name)
            pods.start(cluster, name)
            await pods.ready(cluster, *pods.runs)
        assert await pods.client("consume", "--from", "start", "--count", "2") == b"one\ntwo\n"

    asyncio.run(scenario())
