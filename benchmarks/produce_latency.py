"""Latency of one unary Produce against three fsyncing nodes, beside an empty unary call to a bare server.

    python -m benchmarks.produce_latency [--runs 5] [--calls 2000] [--json]

The bare server is a grpc.aio server in a process of its own that does nothing.  Both are called by one client, call by call
alternating, so that both see the same machine; every Produce carries 100 bytes and returns after a majority has synced them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from benchmarks.cluster import machine, three_nodes
from distlog.api.log.v1 import log_pb2, log_pb2_grpc

RECORD = b"x" * 100
WARM_UP_CALLS = 200
BARE_METHOD = "/bare.Bare/Call"


class _BareHandler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        async def call(_request: bytes, _context: Any) -> bytes:
            return b""

        return grpc.unary_unary_rpc_method_handler(call) if details.method == BARE_METHOD else None


async def serve_bare() -> None:
    """Serve the empty call on a free port, which is printed, until the standard input ends."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_BareHandler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


async def measure(
    bare_address: str, leader_address: str, calls: int
) -> tuple[list[float], list[float]]:
    """Return the latencies of the empty call and of Produce, in seconds, sorted."""
    async with (
        grpc.aio.insecure_channel(bare_address) as bare_channel,
        grpc.aio.insecure_channel(leader_address) as channel,
    ):
        bare = bare_channel.unary_unary(BARE_METHOD)
        produce = log_pb2_grpc.LogStub(channel).Produce
        request = log_pb2.ProduceRequest(record=RECORD)
        empty: list[float] = []
        durable: list[float] = []
        for number in range(WARM_UP_CALLS + calls):
            begin = time.perf_counter()
            await bare(b"")
            middle = time.perf_counter()
            await produce(request)
            end = time.perf_counter()
            if number >= WARM_UP_CALLS:
                empty.append(middle - begin)
                durable.append(end - middle)
    return sorted(empty), sorted(durable)


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which `share` of an ordered list lies, in milliseconds."""
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def one_run(bare_address: str, leader_address: str, calls: int) -> dict[str, float]:
    try:
        empty, durable = asyncio.run(measure(bare_address, leader_address, calls))
    except grpc.aio.AioRpcError as error:
        raise SystemExit(
            f"a call failed, so there is nothing to report: {error.details()}"
        ) from None
    return {
        "empty_p50_ms": percentile(empty, 0.5),
        "empty_p99_ms": percentile(empty, 0.99),
        "produce_p50_ms": percentile(durable, 0.5),
        "produce_p99_ms": percentile(durable, 0.99),
        "ratio_p50": percentile(durable, 0.5) / percentile(empty, 0.5),
    }


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return, per figure, the median, least and greatest of the runs."""
    return {
        name: {
            "median": statistics.median(run[name] for run in runs),
            "min": min(run[name] for run in runs),
            "max": max(run[name] for run in runs),
        }
        for name in runs[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2000, help="pairs of calls in a run")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes keep their data (default: the system's)"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare-server", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare_server:
        asyncio.run(serve_bare())
        return
    bare = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.produce_latency", "--bare-server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert bare.stdin is not None
    assert bare.stdout is not None
    try:
        bare_address = f"127.0.0.1:{int(bare.stdout.readline())}"
        with three_nodes(arguments.directory) as addresses:
            runs = [
                one_run(bare_address, addresses[0], arguments.calls) for _ in range(arguments.runs)
            ]
    finally:
        bare.stdin.close()
        bare.wait(timeout=10)
    figures = summary(runs)
    if arguments.json:
        print(json.dumps({"machine": machine(), "calls": arguments.calls, "runs": runs, **figures}))
        return
    print(f"{machine()}; {arguments.runs} runs of {arguments.calls} pairs of calls")
    print(f"{'':16}{'median':>9}{'min':>9}{'max':>9}")
    for name, row in figures.items():
        print(f"{name:16}" + "".join(f"{row[key]:9.3f}" for key in ("median", "min", "max")))


if __name__ == "__main__":
    main()
