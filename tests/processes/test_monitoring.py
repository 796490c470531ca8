"""Three nodes and a real Prometheus that asks them: each panel of the dashboard has data, and a drill is told as it is."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography.x509 import load_pem_x509_certificate

from distlog.client.client import Client
from tests.monitoring.prometheus import ROOT, RULES, Prometheus, get, needs_prometheus
from tests.monitoring.test_deployed import queries
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.file_systems import MIB, FileSystems
from tests.processes.load import Load
from tests.processes.process_cluster import NODE_IDS, ProcessCluster, free_ports, until
from tests.processes.test_tls import secured

CAPTURE = ROOT / "docs" / "dashboard.md"
# What the drill brings about; they need not wait as long here as where somebody sleeps.
EXPECTED = ("NodeDown", "StorageFull", "DiskFillsUp", "MajorityAtRisk")
SMALL_DISK = ("--disk-reserve-size", "40MiB", "--checkpoint-interval-s", "0.5")


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ProcessCluster:
    """Three nodes with a port for monitoring each."""
    made = make_cluster(NODE_IDS, *SMALL_DISK)
    for node in made:
        node.arguments += ["--http-listen", node.http_address]
    return made


@pytest.fixture
def prometheus(cluster: ProcessCluster, tmp_path: Path) -> Iterator[Prometheus]:
    host = cluster["n1"].host
    (tmp_path / "prometheus").mkdir()
    made = Prometheus(
        tmp_path / "prometheus",
        host,
        free_ports(host, 1)[0],
        [node.http_address for node in cluster],
    )
    yield made
    made.stop()


def test_probes_are_answered_from_the_start_to_the_end(cluster: ProcessCluster) -> None:
    async def scenario() -> None:
        node = cluster["n1"]
        cluster.start("n1")

        async def waits() -> bool:
            return (await get(node.http_address, "/readyz"))[0] == 503

        await until(waits, "the first node says that it waits for the others")
        _, words = await get(node.http_address, "/readyz")
        assert words.startswith("not ready: forming: ")
        assert "n2, n3" in words
        assert await get(node.http_address, "/livez") == (200, "alive\n")
        cluster.start("n2", "n3")

        async def ready() -> bool:
            answers = [await get(each.http_address, "/readyz") for each in cluster]
            return all(status == 200 for status, _ in answers)

        await until(ready, "all are ready")
        shown = json.loads((await get(node.http_address, "/status"))[1])
        assert shown["node_id"] == "n1"
        assert shown["ready"]
        assert len(shown["members"]) == 3
        cluster.kill("n2", "n3")

        async def alone() -> bool:
            return "no majority" in (await get(node.http_address, "/readyz"))[1]

        await until(alone, "the one that is left says that there is no majority")
        assert await get(node.http_address, "/livez") == (200, "alive\n")

    asyncio.run(scenario())


def test_with_certificates_probes_need_none_and_who_shows_one_is_told_when_the_node_s_ends(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    pki = tmp_path / "pki"

    async def scenario() -> None:
        await secured(cluster, pki)
        await cluster.leader()
        certificate = load_pem_x509_certificate((pki / "n1.pem").read_bytes())
        address = cluster["n1"].http_address
        probe = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        known = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        known.load_cert_chain(pki / "probe.pem", pki / "probe.key")

        async def ready() -> bool:
            return (await get(address, "/readyz", probe))[0] == 200

        await until(ready, "n1 is ready")
        assert await get(address, "/livez", probe) == (200, "alive\n")
        assert await get(address, "/livez") == (0, ""), "nothing is said in clear"
        assert (await get(address, "/status", probe))[0] == 403
        status, page = await get(address, "/metrics", known)
        assert status == 200
        shown = re.search(r"^distlog_certificate_expiry_timestamp_seconds (\S+)$", page, re.M)
        assert shown is not None
        assert float(shown[1]) == certificate.not_valid_after_utc.timestamp()
        assert 'distlog_tls_handshake_failures_total{port="http",reason="no_tls"} 1.0' in page
        assert 'distlog_authorization_decisions_total{action="produce",outcome="denied"} 0' in page

    asyncio.run(scenario())


@needs_prometheus
def test_prometheus_asks_nodes_with_certificates_as_the_page_says(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(["n1"])
    node = cluster["n1"]
    node.arguments += ["--http-listen", node.http_address]
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    block = re.search(r"```yaml\n(.*?)```", page, re.S)
    assert block is not None
    files = yaml.safe_load(block[1])["scrape_configs"][0]
    assert files["scheme"] == "https"

    async def scenario() -> None:
        await secured(cluster, tmp_path / "pki")
        tls = {
            name: value.replace("/etc/prometheus", str(tmp_path / "pki"))
            for name, value in files["tls_config"].items()
        }
        (tmp_path / "prometheus").mkdir()
        made = Prometheus(
            tmp_path / "prometheus",
            node.host,
            free_ports(node.host, 1)[0],
            [node.http_address],
            f", scheme: https, tls_config: {json.dumps(tls)}",
        )
        made.start("groups: []")

        async def asked() -> bool:
            return [value for _, value in await made.query("distlog_ready")] == [1.0]

        try:
            await until(asked, "it has the metrics of the node", timeout_s=60)
        finally:
            made.stop()

    asyncio.run(scenario())


@needs_prometheus
def test_every_panel_of_the_dashboard_has_data(
    cluster: ProcessCluster, prometheus: Prometheus, request: pytest.FixtureRequest
) -> None:
    is_captured = request.config.getoption("--rewrite")

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        prometheus.start(RULES.read_text("utf-8"))
        missing = dict(queries())
        if is_captured:
            # Enough of it that rates are those of all nodes.
            missing["asked often"] = "min(count_over_time(up[5m])) >= 20"
        lines: list[str] = []
        is_over: list[bool] = []
        async with Client(cluster.addresses) as client, asyncio.TaskGroup() as tasks:

            async def write_and_read() -> None:
                producer = await client.open_producer()
                while not is_over:
                    await (await producer.produce(b"x" * 1000))
                    await client.read(await client.produce(b"x" * 1000))

            tasks.create_task(write_and_read())

            async def answered() -> bool:
                for panel, expression in list(missing.items()):
                    found = await prometheus.query(expression)
                    if found:
                        del missing[panel]
                return not missing

            try:
                await until(answered, "each panel has data", timeout_s=60)
                for panel, expression in queries().items():
                    found = await prometheus.query(expression)
                    lines.extend(captured(panel, found, cluster))
            finally:
                # The writer ends with it.
                is_over.append(True)
        assert await prometheus.firing() == set()
        if is_captured:
            CAPTURE.write_text("\n".join([*CAPTURE_HEAD, *sorted(lines), ""]), "utf-8")

    asyncio.run(scenario())


CAPTURE_HEAD = (
    "# What the dashboard shows",
    "",
    "Three nodes that somebody writes to and reads from, one record at a time, as a real Prometheus answers the queries of",
    "[deploy/grafana/distlog.json](../deploy/grafana/distlog.json) some seconds after their start. Written by",
    "`pytest tests/processes/test_monitoring.py --rewrite`.",
    "",
    "| panel | series | value |",
    "|---|---|---|",
)


def captured(
    panel: str, found: list[tuple[dict[str, str], float]], cluster: ProcessCluster
) -> Iterator[str]:
    """Yield one line for each series, with the nodes called by their names."""
    names = {node.http_address: node.node_id for node in cluster}
    for labels, value in found:
        shown = {
            name: names.get(text, text)
            for name, text in labels.items()
            if name not in ("__name__", "job")
        }
        series = ", ".join(f"{name}={text}" for name, text in sorted(shown.items()))
        yield f"| {panel} | {series} | {value:.6g} |"


@needs_prometheus
def test_a_drill_with_one_dead_node_and_one_full_disk_is_told_as_it_is(
    disks: FileSystems, cluster: ProcessCluster, prometheus: Prometheus
) -> None:
    disk = disks.tmpfs(128 * MIB)
    cluster["n2"].place(disk.place / "data")

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=2, tail_count=1, seed=8) as load:
            await load.allow(100)
            await load.acknowledged(50)
            if await cluster.leader() == "n2":
                moved = await run(
                    *("cluster", "transfer-leadership", "--to", "n1"),
                    *("--server", cluster.addresses),
                )
                assert moved.status == 0, moved
            await load.finish()
        leader = await cluster.leader()
        (dead,) = {"n1", "n3"} - {leader}
        prometheus.start(rules_at_once())
        disk.fill()
        async with Client(cluster.addresses) as client:
            for _ in range(20):
                await client.produce(b"x" * 200_000)
        await until(lambda: is_full(cluster), "n2 says that its disk is full")
        cluster.kill(dead)
        full, gone = cluster["n2"].http_address, cluster[dead].http_address

        async def told() -> bool:
            return await prometheus.firing() == {
                ("DistlogNodeDown", gone),
                ("DistlogStorageFull", full),
                ("DistlogDiskFillsUp", full),
                ("DistlogMajorityAtRisk", ""),
            }

        async def said() -> str:
            return str(await prometheus.firing())

        await until(told, "the alerts fire that should, and no others", describe=said)
        # Readiness: the leader leads, the full one says what it does not do, the dead one says nothing.
        assert await get(cluster[leader].http_address, "/readyz") == (200, "ready: leading\n")
        full_words = "ready: following: it takes no writes: its disk is full\n"
        assert await get(full, "/readyz") == (200, full_words)
        assert (await get(gone, "/livez"))[0] == 0
        # Metrics.
        by_node = {
            name: {labels["instance"]: value for labels, value in await prometheus.query(name)}
            for name in ("up", "distlog_storage_full", "distlog_ready")
        }
        one = cluster[leader].http_address
        assert by_node["up"] == {one: 1, full: 1, gone: 0}
        assert by_node["distlog_storage_full"] == {one: 0, full: 1}
        assert by_node["distlog_ready"] == {one: 1, full: 1}
        connected = await prometheus.query(f'distlog_member_connected{{instance="{one}"}}')
        assert {labels["member"]: value for labels, value in connected} == {"n2": 1, dead: 0}
        # Status.
        shown = await run("cluster", "status", "--json", "--server", cluster.addresses)
        nodes = {node["node_id"]: node for node in json.loads(shown.output)["nodes"]}
        assert {name: node["role"] for name, node in nodes.items()} == {
            leader: "leader",
            "n2": "follower",
            dead: "unreachable",
        }
        assert [name for name, node in nodes.items() if node["storage_full"]] == ["n2"]

    asyncio.run(scenario())


async def is_full(cluster: ProcessCluster) -> bool:
    status = await cluster.status("n2")
    return status is not None and status.storage_full


def rules_at_once() -> str:
    """Return the rules, those that the drill brings about firing at once."""
    rules = RULES.read_text("utf-8")
    for name in EXPECTED:
        rules, count = re.subn(rf"(alert: Distlog{name}\n.*\n.*\n +for: )\S+", r"\g<1>1s", rules)
        assert count == 1
    return rules
