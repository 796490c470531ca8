"""How fast a node copies what it missed, beside what the same bytes take over a raw socket with an fsync at the end.

    python -m benchmarks.catch_up [--size 1GiB] [--rate 0] [--json]

One of three nodes is away while the others get `--size` bytes of records, far more than their journals keep.  The copy's figure is the
time from the start of its process to the moment at which it lives on the copied state, less what the same start takes without
anything to copy.  The limit is measured in the same run: another process sends as many bytes over loopback, they are written to a
file on the same disk in pieces of 1 MiB, with fdatasync after every 64 MiB and at the end.

With `--rate` (the nodes' --copy-rate-max) above 0 the figure of interest is another one: the latency of single records while the copy
runs, against that before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import tempfile
import time
from pathlib import Path
from random import Random

from benchmarks.cluster import NAMES, BenchCluster, machine, running_cluster
from benchmarks.produce_latency import percentile
from distlog.cli.units import size as parse_size
from distlog.client import Client
from distlog.errors import DistlogError

PIECE_SIZE = 1 << 20
SYNC_SIZE = 64 << 20
RECORD_SIZE = 16 << 10
AWAY = "n3"
POLL_INTERVAL_S = 0.02
PROBE_INTERVAL_S = 0.005
TIMEOUT_S = 1800.0


def raw_seconds(size: int, directory: Path | None) -> float:
    """Return how long `size` bytes take from a socket of another process to the disk."""
    os.sync()
    listening = socket.create_server(("127.0.0.1", 0))
    sender = multiprocessing.get_context("spawn").Process(
        target=send_raw, args=(listening.getsockname()[1], size)
    )
    sender.start()
    connection, _ = listening.accept()
    with tempfile.NamedTemporaryFile(dir=directory) as file, connection:
        connection.recv(1)
        begin = time.perf_counter()
        buffer, done, filled = memoryview(bytearray(PIECE_SIZE)), 0, 0
        while done < size:
            count = connection.recv_into(buffer[filled:])
            done, filled = done + count, filled + count
            if filled == PIECE_SIZE or done == size:
                os.write(file.fileno(), buffer[:filled])
                filled = 0
                if done % SYNC_SIZE == 0:
                    os.fdatasync(file.fileno())
        os.fdatasync(file.fileno())
        seconds = time.perf_counter() - begin
    listening.close()
    sender.join()
    return seconds


def send_raw(port: int, size: int) -> None:
    piece = os.urandom(PIECE_SIZE)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"!")
        for _ in range(0, size, PIECE_SIZE):
            connection.sendall(piece)


async def load(client: Client, size: int) -> None:
    """Append records of `size` bytes in all."""
    record = os.urandom(RECORD_SIZE)
    async with await client.open_producer() as producer:
        for _ in range(0, size, RECORD_SIZE):
            await producer.produce(record)


async def copied(client: Client, cluster: BenchCluster, applied_index: int) -> float:
    """Start the node that was away; return the seconds until it has applied `applied_index`."""
    begin = time.perf_counter()
    cluster.start(AWAY)
    while time.perf_counter() < begin + TIMEOUT_S:
        try:
            status = await client.node_status(cluster.address(AWAY))
        except DistlogError:
            status = None
        if status is not None and status.applied_index >= applied_index:
            return time.perf_counter() - begin
        await asyncio.sleep(POLL_INTERVAL_S)
    raise SystemExit(f"nothing was copied within {TIMEOUT_S:g} s")


async def probe(client: Client, ended: asyncio.Event) -> list[float]:
    """Append small records, one at a time, until told to end; return the seconds of each."""
    times = []
    while not ended.is_set():
        begin = time.perf_counter()
        await client.produce(b"x" * 100)
        times.append(time.perf_counter() - begin)
        await asyncio.sleep(PROBE_INTERVAL_S)
    return times


async def applied_index(client: Client, cluster: BenchCluster) -> int:
    statuses = [
        await client.node_status(cluster.address(name)) for name in cluster.pids if name != AWAY
    ]
    return min(status.applied_index for status in statuses)


async def measure(cluster: BenchCluster, size: int, *, with_probe: bool) -> dict[str, float]:
    """Return the figures of one copy."""
    async with Client(cluster.addresses, random=Random()) as client:
        await client.produce(b"the cluster is formed")
        idle_start_s = await restart(client, cluster)
        cluster.kill(AWAY)
        await load(client, size)
        # Both have it all, and a checkpoint of it, before the clock runs.
        await asyncio.sleep(2.0)
        # What the load has left to be written back is not the copy's.
        os.sync()
        before: list[float] = []
        if with_probe:
            before = await timed_probe(client, 5.0)
        ended = asyncio.Event()
        probing = asyncio.ensure_future(probe(client, ended)) if with_probe else None
        seconds = await copied(client, cluster, await applied_index(client, cluster))
        stalls = {
            name: (await client.node_status(cluster.address(name))).stall_max_ms
            for name in cluster.pids
        }
        ended.set()
        during = await probing if probing is not None else []
    figures = {"copy_s": seconds - idle_start_s, "idle_start_s": idle_start_s}
    figures |= {f"stall_max_ms_{name}": stall for name, stall in stalls.items()}
    if with_probe:
        figures["p99_before_ms"] = percentile(sorted(before), 0.99)
        figures["p99_during_ms"] = percentile(sorted(during), 0.99)
        figures["during_count"] = len(during)
    return figures


async def restart(client: Client, cluster: BenchCluster) -> float:
    """Return how long the node that is going to be away takes to start when there is nothing to copy."""
    end = await applied_index(client, cluster)
    cluster.kill(AWAY)
    return await copied(client, cluster, end)


async def timed_probe(client: Client, seconds: float) -> list[float]:
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, ended.set)
    return await probe(client, ended)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=parse_size, default=1 << 30)
    parser.add_argument("--rate", type=int, default=0, help="bytes a second; 0: as fast as it goes")
    parser.add_argument("--directory", type=Path, help="where the data is (default: the system's)")
    parser.add_argument("--probe", action="store_true", help="measure latencies meanwhile")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = arguments.size
    settings = ("--copy-rate-max", str(arguments.rate), "--journal-size-max", "64MiB")
    settings += ("--checkpoint-journal-size", "16MiB")
    with running_cluster(arguments.directory, settings=settings) as cluster:
        figures = asyncio.run(measure(cluster, size, with_probe=arguments.probe))
    figures["raw_s"] = raw_seconds(size, arguments.directory)
    figures["share_of_raw"] = figures["raw_s"] / figures["copy_s"]
    if arguments.json:
        print(json.dumps({"machine": machine(), "size": size, **figures}))
        return
    print(machine())
    print(f"{size >> 20} MiB: copied in {figures['copy_s']:.2f} s, raw in {figures['raw_s']:.2f} s")
    print(
        f"that is {100 * figures['share_of_raw']:.0f} % of the raw speed (at least 50 are wanted)"
    )
    longest = ", ".join(f"{name} {figures[f'stall_max_ms_{name}']:.0f}" for name in NAMES)
    print(f"the event loops were held up for at most: {longest} ms")
    if arguments.probe:
        print(
            f"p99 of a record: {figures['p99_before_ms']:.1f} ms before, {figures['p99_during_ms']:.1f} ms during the copy"
        )


if __name__ == "__main__":
    main()
