"""Nodes as processes with the standard variables, and a collector on loopback that the test is."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from distlog.client import Client
from tests.monitoring.prometheus import get
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import NODE_IDS, ProcessCluster, random_host, until

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = b"a value that nobody must see"
# Less than an exporter waits for its collector by itself.
STOP_TIMEOUT_S = 8.0
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Collector:
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        # (node, name of the span, trace id in hexadecimal), and all that came.
        self.spans: list[tuple[str, str, str]] = []
        self.bytes = b""
        # What it answers, and when: a collector that hangs does so at the end of the test.
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200:
                    collector.take(body)
                collector.answers.wait()
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer((random_host(), 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def take(self, body: bytes) -> None:
        self.bytes += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    (about["service.instance.id"], span.name, span.trace_id.hex())
                    for span in scope.spans
                ]

    def names(self, node_id: str) -> list[str]:
        return [name for node, name, _ in self.spans if node == node_id]

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def asked(cluster: ProcessCluster, **variables: str) -> ProcessCluster:
    for node in cluster:
        node.variables = SOON | variables
        node.arguments += ["--http-listen", node.http_address]
    return cluster


async def values(cluster: ProcessCluster, node_id: str, name: str) -> dict[str, float]:
    """Return the samples of one metric, by what is in their braces."""
    _, body = await get(cluster[node_id].http_address, "/metrics")
    lines = [line for line in body.splitlines() if line.startswith(f"distlog_{name}")]
    found = [line.removeprefix(f"distlog_{name}").rpartition(" ") for line in lines]
    return {labels.strip("{}"): float(value) for labels, _, value in found}


def test_a_collector_is_sent_one_trace_by_all_three_nodes(
    make_cluster: MakeCluster, collector: Collector
) -> None:
    cluster = asked(make_cluster(), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)

    async def scenario() -> None:
        cluster.start()
        leader = await cluster.leader()
        async with Client(cluster.addresses) as client:
            await client.produce(SECRET, key=SECRET)

        async def is_there() -> bool:
            applied = [node for node, name, _ in collector.spans if name == "apply"]
            produced = "log.v1.Log/Produce" in collector.names(leader)
            return produced and set(applied) == set(NODE_IDS)

        await until(is_there, "the collector has the spans of all nodes")
        (trace_id,) = {
            trace_id for _, name, trace_id in collector.spans if name == "log.v1.Log/Produce"
        }

        async def is_whole() -> bool:
            applied = {
                node
                for node, name, trace in collector.spans
                if (name, trace) == ("apply", trace_id)
            }
            return applied == set(NODE_IDS)

        await until(is_whole, "and they are of one trace")
        assert SECRET not in collector.bytes
        counts = await values(cluster, leader, "spans_total")
        assert counts['outcome="exported"'] >= 6
        assert counts['outcome="dropped"'] == counts['outcome="failed"'] == 0
        await cluster.terminate()

    asyncio.run(scenario())


def test_a_node_that_stops_sends_what_waits(
    make_cluster: MakeCluster, collector: Collector
) -> None:
    cluster = asked(make_cluster(("n1",)), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    cluster["n1"].variables["OTEL_BSP_SCHEDULE_DELAY"] = "3600000"

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            await client.produce(SECRET)
        assert collector.spans == []
        await cluster.terminate()
        assert "log.v1.Log/Produce" in collector.names("n1")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "allways_on"},
    ],
    ids=["ratio 0", "always_off", "disabled", "no exporter", "a mistake"],
)
def test_what_is_not_to_be_sampled_is_not_exported(
    variables: dict[str, str], make_cluster: MakeCluster, collector: Collector
) -> None:
    cluster = asked(
        make_cluster(("n1",)), OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **variables
    )

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            for number in range(20):
                await client.produce(b"%d" % number)
        counts = await values(cluster, "n1", "spans_total")
        assert sum(counts.values()) == 0
        await cluster.terminate()
        assert collector.spans == []

    asyncio.run(scenario())


def test_the_sampler_s_part_of_all_traces_is_exported(
    make_cluster: MakeCluster, collector: Collector
) -> None:
    cluster = asked(
        make_cluster(("n1",)),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
    )
    count = 400

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            await asyncio.gather(*[client.produce(b"%d" % number) for number in range(count)])
        await cluster.terminate()
        # By chance less or more, once in many millions of runs.
        assert 50 < collector.names("n1").count("log.v1.Log/Produce") < 160

    asyncio.run(scenario())


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_a_collector_that_takes_nothing_disturbs_no_write_and_no_stop(
    hangs: bool, make_cluster: MakeCluster, collector: Collector
) -> None:
    cluster = asked(
        make_cluster(("n1",)),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_BSP_MAX_QUEUE_SIZE="64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
    )
    if hangs:
        collector.answers.clear()
    # It asks to be tried again, later.
    collector.status = 503

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            await asyncio.gather(*[client.produce(b"%d" % number) for number in range(200)])
        counts = await values(cluster, "n1", "spans_total")
        assert counts['outcome="dropped"'] > 0
        assert counts['outcome="exported"'] == 0
        assert await values(cluster, "n1", "spans_waiting_max") == {"": 64}
        assert await cluster["n1"].terminate(STOP_TIMEOUT_S) == 0

    asyncio.run(scenario())


def test_spans_on_the_console_are_lines_and_lines_of_the_log_name_them(
    make_cluster: MakeCluster,
) -> None:
    cluster = asked(make_cluster(("n1",)), OTEL_TRACES_EXPORTER="console")
    node = cluster["n1"]
    node.variables["DISTLOG_LOG_FORMAT"] = "json"

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            await client.produce(SECRET)
        await cluster.terminate()

    asyncio.run(scenario())
    # Nothing that it says is anything else.
    lines = [json.loads(line) for line in node.says().splitlines()]
    spans = [line for line in lines if "context" in line]
    assert "log.v1.Log/Produce" in {span["name"] for span in spans}
    (asked_for,) = [line for line in lines if line.get("event") == "traces are exported"]
    assert (asked_for["exporter"], asked_for["queue_size"]) == ("console", 2048)
    (ready,) = [line for line in lines if line.get("event") == "this node is ready for clients"]
    assert ready["address"] == node.address
    assert SECRET.decode() not in node.says()
