"""What three nodes with fsync make of it: each load is a run of `distlog bench`, a process of its own, as a user has it.

latency       one record at a time: by call, on a stream, by 16 callers, and until a tailing consumer has it
throughput    batches of several shapes in, and records and batches out, with the processor's time of each node
tls           some of that with certificates, with a policy as well, and in the same minutes without either
observed      writes to nodes whose metrics are asked for, and that trace a hundredth or all of it, and in the same minutes without
idle          the processor's time of nodes that nobody uses
history       memory after much was written, cost with a history and with many topics, restart after kill -9
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.cluster import NAMES, BenchCluster
from benchmarks.failover import settled
from benchmarks.limits import CALLERS, Runs
from benchmarks.processes import processor_s, resident_mb
from distlog.client import Client, Rule

LOG_SERVICE = "log.v1.Log"
READY_TIMEOUT_S = 60.0
# Of a run that ends when its records are through.
DURATION_MAX_S = 3600.0
POLL_INTERVAL_S = 0.02
SMALL, LARGE = 100, 1024
# As many bytes in one block of so many records as in one of ten.
MANY, LARGE_MANY = 10_000, 1_000
FEW, FEW_SIZE = 10, (SMALL + 8) * MANY // 10 - 8
TARGET_TOPICS = 100
# Of a policy.
RULE_COUNT = 100
TIMEOUT_S = 60.0
# Of a run that ends when its records are through.
DURATION_MAX_S = 3600.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    # Of each load, measured and before that.
    seconds: float = 2.0
    warm_up_s: float = 0.5
    # Records of each load instead, however long they take; 0: as many as there is time for.
    count: int = 0
    # Records that are read, of 100 bytes.
    read_count: int = 1_000_000
    # Bytes of records in the history.
    history: int = 1 << 30
    topics: int = TARGET_TOPICS
    idle_s: float = 3.0


class Loads:
    """The loads on one cluster."""

    def __init__(self, cluster: BenchCluster, directory: Path, sizes: Sizes) -> None:
        """directory: on the file system that the nodes keep their data on."""
        self._cluster = cluster
        self._directory = directory
        self._sizes = sizes

    def bench(self, action: str, *arguments: str) -> dict[str, Any]:
        """Run `distlog bench` to its end and return its report."""
        command = [sys.executable, "-m", "distlog", "bench", action, "--json"]
        command += ["--server", ",".join(self._cluster.addresses), *arguments]
        command += self._cluster.client_flags
        count = self._sizes.count
        if "--count" not in arguments and not count:
            command += ["--duration", str(self._sizes.seconds)]
            command += ["--warm-up", str(self._sizes.warm_up_s)]
        else:
            command += ["--duration", str(DURATION_MAX_S), "--warm-up", "0"]
            command += [] if "--count" in arguments else ["--count", str(count)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"distlog bench {action} {' '.join(arguments)}: {done.stderr.strip()}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def ask(self, question: Callable[[Client], Awaitable[Found]]) -> Found:
        """Return what a client of the cluster is told."""

        async def asked() -> Found:
            credentials = self._cluster.credentials
            async with Client(
                self._cluster.addresses, timeout_s=TIMEOUT_S, credentials=credentials
            ) as client:
                return await question(client)

        return asyncio.run(asked())

    def settle(self) -> None:
        """Wait until all nodes have the same, and the disk has it too."""
        self.ask(lambda client: settled(client, self._cluster))
        # That file system only: others' may be slow, or broken.
        subprocess.run(["sync", "--file-system", self._directory], check=True)

    # --- Latency ---

    def latency(self) -> Runs:
        """Return each latency once, in milliseconds, and the rate of many callers."""
        call = self.bench("latency", "--of", "call")["latency"]
        stream = self.bench("latency", "--of", "stream")["latency"]
        calls = self.bench("latency", "--of", "call", "--callers", str(CALLERS))
        leader, *followers = self._leader_first()
        tails = ("latency", "--of", "tail", "--rate", "200", "--server")
        # A consumer reads from the first node that it is given.
        tail = self.bench(*tails, ",".join([leader, *followers]))["latency"]
        elsewhere = self.bench(*tails, ",".join([*followers, leader]))["latency"]
        return {
            "call_p50_ms": call["p50_ms"],
            "call_p99_ms": call["p99_ms"],
            "stream_p50_ms": stream["p50_ms"],
            "stream_p99_ms": stream["p99_ms"],
            "call_16_per_s": calls["records_per_s"],
            "tail_p50_ms": tail["p50_ms"],
            "tail_p99_ms": tail["p99_ms"],
            "tail_elsewhere_p50_ms": elsewhere["p50_ms"],
            "tail_elsewhere_p99_ms": elsewhere["p99_ms"],
        }

    def _leader_first(self) -> list[str]:
        leader = self.ask(lambda client: settled(client, self._cluster))
        address = dict(zip(NAMES, self._cluster.addresses, strict=True))[leader]
        return sorted(self._cluster.addresses, key=lambda each: each != address)

    # --- Throughput ---

    def throughput(self, number: int) -> Runs:
        """Return each throughput once.  number: of the run; every load has a topic of its own."""
        own = self.written(f"own-{number}", SMALL)
        large = self.written(f"large-{number}", LARGE)
        large_many = self.written(f"large-many-{number}", LARGE, LARGE_MANY)
        many = self.written(f"many-{number}", SMALL, MANY)
        few = self.written(f"few-{number}", FEW_SIZE, FEW)
        read = [
            self.bench("consume", "--topic", "read", "--by", by)
            for by in ("records", "lists", "batches")
        ]
        return {
            "produce_per_s": own["records_per_s"],
            "produce_cpu_us": own["client_cpu_us_per_record"],
            "produce_large_mb_s": large["megabytes_per_s"],
            "produce_large_many_mb_s": large_many["megabytes_per_s"],
            "produce_many_per_s": many["records_per_s"],
            "produce_many_cpu_us": many["client_cpu_us_per_record"],
            "many_node_us": many["node_us_per_record"],
            "many_block_node_ms": many["node_us_per_record"] * MANY / 1000,
            "few_block_node_ms": few["node_us_per_record"] * FEW / 1000,
            "read_records_per_s": read[0]["records_per_s"],
            "read_lists_per_s": read[1]["records_per_s"],
            "read_batches_mb_s": read[2]["megabytes_per_s"],
            "read_records_cpu_us": read[0]["client_cpu_us_per_record"],
            "read_lists_cpu_us": read[1]["client_cpu_us_per_record"],
            "read_batches_cpu_us": read[2]["client_cpu_us_per_record"],
        }

    def some_of_each(self, number: int) -> tuple[float, float, float, float, float]:
        """Return a figure of each kind, to be compared with those of another cluster; `fill_for_reading` comes first.

        Records/s in batches of small ones, MB/s of large ones, records/s one by one, MB/s read, milliseconds of a call.
        """
        many = self.written(f"many-{number}", SMALL, MANY)
        large_many = self.written(f"large-many-{number}", LARGE, LARGE_MANY)
        own = self.written(f"own-{number}", SMALL)
        read = self.bench("consume", "--topic", "read", "--by", "batches")
        call = self.bench("latency", "--of", "call")["latency"]
        return (
            many["records_per_s"],
            large_many["megabytes_per_s"],
            own["records_per_s"],
            read["megabytes_per_s"],
            call["p50_ms"],
        )

    def observed(self, topic: str, name: str) -> Iterator[Runs]:
        """Yield what `benchmarks.observed` names of writes, one load after the other; figures begin with `name`, topics with `topic`."""
        yield {f"{name}_many_per_s": self.written(f"many-{topic}", SMALL, MANY)["records_per_s"]}
        yield {f"{name}_own_per_s": self.written(f"own-{topic}", SMALL)["records_per_s"]}
        calls = self.bench("latency", "--of", "call", "--callers", str(CALLERS))
        yield {f"{name}_calls_per_s": calls["records_per_s"]}
        call = self.bench("latency", "--of", "call")["latency"]
        yield {f"{name}_call_{each}": call[each] for each in ("p50_ms", "p99_ms")}

    @contextmanager
    def policy(self) -> Iterator[None]:
        """Have every call asked about, by a policy of RULE_COUNT rules that allows everything that is measured here."""
        rules = [Rule("admin", "*", "*")]
        rules += [
            Rule(f"subject-{number}", "orders-*", "produce") for number in range(1, RULE_COUNT)
        ]
        self.ask(lambda client: client.change_policy(add=rules))
        self.settle()
        try:
            yield
        finally:
            self.ask(lambda client: client.change_policy(remove=rules, may_open=True))
            self.settle()

    def fill_for_reading(self) -> None:
        """Write what is read."""
        self.written("read", SMALL, count=self._sizes.read_count, keep=True)

    def written(
        self, topic: str, size: int, batch: int = 0, *, count: int | None = None, keep: bool = False
    ) -> dict[str, Any]:
        """Write into a topic that is made for it, and deleted unless it is to be kept.

        The report then also has `node_us_per_record`: the processor's time of the node that took the most.
        """
        self.settle()
        before = self._processor_s()
        arguments = ["--topic", topic, "--create-topic", "--record-size", str(size)]
        arguments += ["--batch", str(batch or "auto")]
        if count is not None:
            arguments += ["--count", str(count)]
        report = self.bench("produce", *arguments)
        after = self._processor_s()
        found = self.ask(lambda client: client.describe_topic(topic))
        spent = max(after[name] - before[name] for name in before)
        # Those of the warm-up, too: they took their time.
        report["node_us_per_record"] = 1e6 * spent / found.high_watermark
        if not keep:
            self.ask(lambda client: client.delete_topic(topic))
        return report

    def _processor_s(self) -> dict[str, float]:
        return {name: processor_s(pid) for name, pid in self._cluster.pids.items()}

    # --- At rest, and with a history ---

    def idle(self) -> Runs:
        """Return the share of a core that the busiest of the nodes takes while nobody uses them, in percent."""
        before, began_at = self._processor_s(), time.monotonic()
        time.sleep(self._sizes.idle_s)
        after, elapsed_s = self._processor_s(), time.monotonic() - began_at
        return {
            "idle_percent": max(100 * (after[name] - before[name]) / elapsed_s for name in after)
        }

    def cost(self, number: int, what: str) -> Runs:
        """Return what a record costs the busiest node now."""
        report = self.written(f"cost-{what.replace('_', '-')}-{number}", SMALL, MANY)
        return {f"{what}_node_us": report["node_us_per_record"]}

    def write_history(self) -> Runs:
        """Write the history in two halves; return the memory of the largest node after each."""
        found = {}
        for half in ("half", "all"):
            count = max(MANY, self._sizes.history // 2 // LARGE)
            self.written(f"history-{half}", LARGE, count=count, keep=True)
            found[f"memory_{half}_mb"] = max(map(resident_mb, self._cluster.pids.values()))
        return found

    def make_topics(self) -> None:
        """Create as many topics as a user may have."""

        async def create(client: Client) -> None:
            for number in range(self._sizes.topics):
                await client.create_topic(f"topic-{number}")

        self.ask(create)

    def restart(self) -> Runs:
        """End a node with -9, start it, and return the seconds until it says that it is ready."""
        self.settle()
        leader = self.ask(lambda client: settled(client, self._cluster))
        name = next(each for each in NAMES if each != leader)
        address = dict(zip(NAMES, self._cluster.addresses, strict=True))[name]
        self._cluster.kill(name)
        began_at = time.monotonic()
        self._cluster.start(name)
        while not is_ready(address):
            if time.monotonic() > began_at + READY_TIMEOUT_S:
                raise SystemExit(f"{name} is not ready within {READY_TIMEOUT_S:g} s of its start")
            time.sleep(POLL_INTERVAL_S)
        return {"restart_s": time.monotonic() - began_at}


def is_ready(address: str) -> bool:
    """Tell whether the node at `address` says that it serves its log."""
    try:
        # A connection for each question: one that met a closed port waits a second before it tries again.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=LOG_SERVICE), timeout=1
            )
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
