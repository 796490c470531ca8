"""Where the time goes: the processor's time of a block, part by part, in each process; and the way of one append, station by station.

    python -m benchmarks.where_time_goes [--seconds 5] [--calls 500] [--directory DIRECTORY] [--json] [--write | --quick]

A load runs twice: as it is, for the processor's time of each process (user and system, by the kernel's account), and with a sampler in
each process (`benchmarks.instrumented`), for the share that each part has in it.  Time in other threads, gRPC's above all, counts where
the main thread was meanwhile, which is mostly the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.cluster import DISTLOG, NAMES, BenchCluster, leader_first, machine, running_cluster
from benchmarks.pages import PAGE, write_page
from benchmarks.processes import TICKS_PER_S
from distlog.api.log.v1 import log_pb2, log_pb2_grpc

# Between these it writes its tables.
MARKS = ("<!-- where_time_goes writes from here -->", "<!-- where_time_goes to here -->")
BLOCK = 10_000
RECORD_SIZE = 100
WARM_UP_CALLS = 200
# Between two calls: what one leaves to do must not be in the way of the next.
PAUSE_S = 0.004
LOADS = {
    "produce": ("produce", "--batch", str(BLOCK), "--topic", "produced"),
    "consume, records": ("consume", "--by", "records", "--topic", "read"),
    "consume, lists": ("consume", "--by", "lists", "--topic", "read"),
    "consume, batches": ("consume", "--by", "batches", "--topic", "read"),
}
DURATION_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    # Of the load that writes; None: as many records as are read, however long that takes.
    seconds: float | None
    # Records that are read.
    read_count: int
    calls: int


QUICK = Sizes(None, 2 * BLOCK, 20)
# User and system, in microseconds a block; and the share of each part.
Cost = tuple[float, float]
Shares = dict[str, float]


def instrumented(mode: str, output: Path) -> tuple[str, ...]:
    return ("-m", "benchmarks.instrumented", mode, str(output))


def processor_ticks(pid: int) -> tuple[int, int]:
    """Return the ticks that a process took, of user's and system's time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def roles_of(cluster: BenchCluster) -> dict[str, str]:
    """Return the name of the leader, and of one follower."""
    leader = leader_first(cluster.addresses)[0]
    name = dict(zip(cluster.addresses, NAMES, strict=True))[leader]
    return {"leader": name, "follower": next(each for each in NAMES if each != name)}


def bench(
    program: Sequence[str], cluster: BenchCluster, arguments: Sequence[str]
) -> dict[str, Any]:
    """Run one load to its end; return its report, with the user's and the system's time of the client."""
    command = [sys.executable, *program, "bench", *arguments]
    command += ["--json", "--server", ",".join(leader_first(cluster.addresses))]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    report["client"] = (
        after.children_user - before.children_user,
        after.children_system - before.children_system,
    )
    return report


def fill(cluster: BenchCluster, count: int) -> None:
    """Write what is read."""
    arguments = ("produce", "--batch", str(BLOCK), "--topic", "read", "--create-topic")
    bench(DISTLOG, cluster, (*arguments, "--record-size", str(RECORD_SIZE), "--count", str(count)))


def measured(
    load: str, cluster: BenchCluster, sizes: Sizes, client: Sequence[str] = DISTLOG
) -> dict[str, Cost]:
    """Run one load and return what a block cost each process."""
    roles = roles_of(cluster)
    arguments = [*LOADS[load], "--warm-up", "0"]
    if load == "produce":
        arguments += ["--create-topic", "--record-size", str(RECORD_SIZE)]
    if load == "produce" and sizes.seconds is not None:
        arguments += ["--duration", str(sizes.seconds)]
    else:
        arguments += ["--count", str(sizes.read_count), "--duration", str(DURATION_MAX_S)]
    before = {role: processor_ticks(cluster.pids[name]) for role, name in roles.items()}
    report = bench(client, cluster, arguments)
    after = {role: processor_ticks(cluster.pids[name]) for role, name in roles.items()}
    unit = 1e6 * BLOCK / report["records"]
    costs = {
        role: (
            unit * (after[role][0] - before[role][0]) / TICKS_PER_S,
            unit * (after[role][1] - before[role][1]) / TICKS_PER_S,
        )
        for role in roles
    }
    user_s, system_s = report["client"]
    return {**costs, "client": (unit * user_s, unit * system_s)}


def shares_of(path: Path) -> Shares:
    counts: dict[str, int] = json.loads(path.read_text("utf-8"))
    total = max(1, sum(counts.values()))
    return {part: count / total for part, count in counts.items()}


def blocks(directory: Path, sizes: Sizes) -> dict[str, dict[str, tuple[Cost, Shares]]]:
    """Return, for each load and each role in it, what a block costs and where that goes.

    Of a node that is read from only the cost is told: it is small.
    """
    outputs = Path(tempfile.mkdtemp(dir=directory))
    found: dict[str, dict[str, tuple[Cost, Shares]]] = {}

    def sampled(name: str) -> Sequence[str]:
        return instrumented("sampled", outputs / name)

    with running_cluster(directory) as cluster:
        fill(cluster, sizes.read_count)
        for load in LOADS:
            costs = measured(load, cluster, sizes)
            if load == "produce":
                found[load] = {role: (cost, {}) for role, cost in costs.items()}
                continue
            measured(load, cluster, sizes, sampled("reader"))
            found[load] = {
                "leader": (costs["leader"], {}),
                "client": (costs["client"], shares_of(outputs / "reader")),
            }
    with running_cluster(directory, sampled) as cluster:
        roles = {**roles_of(cluster), "client": "producer"}
        measured("produce", cluster, sizes, sampled("producer"))
    produced = found["produce"]
    found["produce"] = {
        role: (produced[role][0], shares_of(outputs / name)) for role, name in roles.items()
    }
    return found


# --- The way of one append -----------------------------------------------------------------------


async def call(address: str, count: int) -> list[tuple[float, float]]:
    """Make calls, one at a time; return when each began and ended."""
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = log_pb2_grpc.LogStub(channel)
        for number in range(WARM_UP_CALLS + count):
            await asyncio.sleep(PAUSE_S)
            began_at = time.monotonic()
            await stub.Produce(log_pb2.ProduceRequest(record=b"x" * RECORD_SIZE))
            if number >= WARM_UP_CALLS:
                times.append((began_at, time.monotonic()))
    return times


def way(directory: Path, calls: int) -> list[tuple[float, str, str]]:
    """Return (milliseconds after the call began, who, what) of the stations that most calls pass, in order; medians."""
    outputs = Path(tempfile.mkdtemp(dir=directory))
    with running_cluster(directory, lambda name: instrumented("traced", outputs / name)) as cluster:
        roles = roles_of(cluster)
        address = leader_first(cluster.addresses)[0]
        times = asyncio.run(call(address, calls))
    stations = [
        (1000 * statistics.median(end - began for began, end in times), "client", "answered")
    ]
    for role, name in roles.items():
        passed = json.loads((outputs / name).read_text("utf-8"))
        moments = [moment for moment, _ in passed]
        offsets = defaultdict(list)
        for began_at, ended_at in times:
            seen: dict[str, int] = defaultdict(int)
            for moment, what in passed[bisect(moments, began_at) : bisect(moments, ended_at)]:
                seen[what] += 1
                offsets[what, seen[what]].append(1000 * (moment - began_at))
        for (what, number), found in offsets.items():
            if 2 * len(found) > len(times):
                again = "" if number == 1 else f", {number}"
                stations.append((statistics.median(found), role, what + again))
    return sorted(stations)


# --- What is printed -----------------------------------------------------------------------------


def table_of(found: dict[str, dict[str, tuple[Cost, Shares]]]) -> str:
    """Return one table for each load."""
    lines = []
    for load, roles in found.items():
        lines += ["", f"| {load}, a block of {BLOCK:,} | " + " | ".join(roles) + " |"]
        lines.append("| --- |" + " --- |" * len(roles))
        lines.append(_row("user", [f"{cost[0]:,.0f} us" for cost, _ in roles.values()]))
        lines.append(_row("system", [f"{cost[1]:,.0f} us" for cost, _ in roles.values()]))
        parts = {part for _, shares in roles.values() for part in shares}
        largest = sorted(
            parts, key=lambda part: -max(shares.get(part, 0) for _, shares in roles.values())
        )
        for part in largest:
            lines.append(
                _row(
                    part,
                    [
                        f"{100 * shares[part]:.0f} %" if part in shares else ""
                        for _, shares in roles.values()
                    ],
                )
            )
    return "\n".join(lines)


def way_of(stations: Sequence[tuple[float, str, str]]) -> str:
    """Return the way of one append as a table."""
    lines = ["| ms after the call | who | what |", "| --- | --- | --- |"]
    lines += [f"| {moment:.2f} | {who} | {what} |" for moment, who, what in stations]
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the load that writes")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes(options.seconds, 3_000_000, options.calls)
    with tempfile.TemporaryDirectory(prefix="distlog-bench-", dir=options.directory) as path:
        found = blocks(Path(path), sizes)
        stations = way(Path(path), sizes.calls)
    if options.json:
        print(json.dumps({"machine": machine(), "blocks": found, "way": stations}))
        return
    text = "\n".join((machine(), table_of(found), "", way_of(stations)))
    print(text)
    if options.write:
        write_page(PAGE, MARKS, text)


if __name__ == "__main__":
    main()
