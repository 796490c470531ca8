"""How long writes stand still when the leader dies: kill -9 of the leader of three nodes, to the next acknowledged write.

    python -m benchmarks.failover [--trials 50] [--json]

The nodes have their default settings.  One client appends small records one after the other; the leader is killed between two
of them.  A trial's figure is the time from the kill to the acknowledgement of the next record, so it has everything in it: that the
others notice, vote and commit, and that the client finds whom they elected.  Then the dead node is started again, and the next
trial begins when all three have the same entries.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from random import Random

from benchmarks.cluster import BenchCluster, machine, running_cluster
from benchmarks.produce_latency import percentile
from distlog.client import Client, NodeStatus
from distlog.errors import DistlogError

RECORD = b"x" * 100
# Records before a kill: the client is at the leader and everything is warm.
WARM_UP_RECORDS = 20
SETTLE_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.05


async def measure(cluster: BenchCluster, trials: int) -> list[float]:
    """Return the seconds of each trial, in order."""
    times = []
    async with Client(cluster.addresses, random=Random()) as client:
        for number in range(trials):
            leader = await settled(client, cluster)
            for _ in range(WARM_UP_RECORDS):
                await client.produce(RECORD)
            begin = time.perf_counter()
            cluster.kill(leader)
            await client.produce(RECORD)
            times.append(time.perf_counter() - begin)
            print(f"trial {number + 1}: {1000 * times[-1]:.0f} ms", flush=True)
            cluster.start(leader)
    return times


async def settled(client: Client, cluster: BenchCluster) -> str:
    """Wait until all nodes name the same leader and have applied the same; return the leader's id."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline:
        statuses = await asyncio.gather(
            *(client.node_status(address) for address in cluster.addresses), return_exceptions=True
        )
        known = [status for status in statuses if isinstance(status, NodeStatus)]
        for status in statuses:
            if isinstance(status, BaseException) and not isinstance(status, DistlogError):
                raise status
        if len(known) == len(cluster.addresses):
            states = {(status.leader_id, status.term, status.applied_index) for status in known}
            if len(states) == 1 and known[0].leader_id:
                return known[0].leader_id
        await asyncio.sleep(POLL_INTERVAL_S)
    raise SystemExit(f"the nodes do not agree within {SETTLE_TIMEOUT_S} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes keep their data (default: the system's)"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with running_cluster(arguments.directory) as cluster:
        times = sorted(asyncio.run(measure(cluster, arguments.trials)))
    figures = {
        "p50_ms": percentile(times, 0.5),
        "p99_ms": percentile(times, 0.99),
        "max_ms": percentile(times, 1.0),
    }
    if arguments.json:
        print(json.dumps({"machine": machine(), "trials": arguments.trials, **figures}))
        return
    print(f"{machine()}; {arguments.trials} trials")
    print("   ".join(f"{name} {value:.0f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
