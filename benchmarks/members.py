"""How long it takes until a new node votes, until a dead one is replaced, and how long writes stand still in a rolling restart.

    python -m benchmarks.members [--history 256MiB] [--trials 3] [--json] [--quick]

Three nodes with their default settings, of which one began the cluster and the others joined it.

- join: from the start of a fourth node's process to the moment at which the leader says that it votes; with an empty cluster, and with
  so much history that it copies a checkpoint and segments.
- replace: a node is killed and its disk emptied; from `remove` to the moment at which its successor votes, its start included.
- rolling restart: each of the three is stopped in order, started again and waited for, one after the other, while clients write one
  record after the other; the longest time without any acknowledgement.  A call that fails ends the program.

And nodes that are all started with the same --join and --expect 3, each time on fresh directories:

- form: from the start of the first process until a record is acknowledged, and until all answer at other addresses after a kill of all.
- detect and replace: a voter is killed while a fourth node stands by; until the leader's view says that it has failed, and until the
  spare votes and the dead one is no member, with --dead-after-s 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from benchmarks.catch_up import load
from benchmarks.cluster import HOST, NAMES, free_ports, machine
from benchmarks.figures import Figure, table
from distlog.cli.units import size as parse_size
from distlog.client import Client
from distlog.errors import DistlogError

NEW = "n4"
TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.02
WRITER_COUNT = 4
RECORD = b"x" * 100
# Before the first node is stopped and after the last one is back, everything shall be warm and quiet.
SETTLE_S = 1.0
QUICK_HISTORY_SIZE = 16 << 20


class GrowingCluster:
    """Nodes on fresh directories below `root`; the first begins the cluster, the others join it, or all are started alike."""

    def __init__(self, root: Path, alike: Sequence[str] = ()) -> None:
        """alike: what all nodes are started with beside the same --join; empty: the first one begins."""
        self._alike = alike
        names = (*NAMES, NEW)
        ports = free_ports(2 * len(names))
        self._root = root
        self._ports = {name: (ports.pop(), ports.pop()) for name in names}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def address(self, name: str) -> str:
        """Return where clients reach a node."""
        return f"{HOST}:{self._ports[name][0]}"

    @property
    def addresses(self) -> list[str]:
        return [self.address(name) for name in NAMES]

    def move(self) -> None:
        """Have all nodes at other addresses from their next start on."""
        ports = free_ports(2 * len(self._ports))
        self._ports = {name: (ports.pop(), ports.pop()) for name in self._ports}

    def start(self, name: str) -> None:
        """Start a node that does not run."""
        joins = self._alike or name != NAMES[0]
        way = ["--join", ",".join(self.addresses)] if joins else ["--bootstrap"]
        way += self._alike
        command = [sys.executable, "-m", "distlog", "serve", "--node-id", name, *way]
        command += ["--data-dir", str(self._root / name), "--listen", self.address(name)]
        command += ["--peer-listen", f"{HOST}:{self._ports[name][1]}"]
        command += ["--http-listen", "none", "--log-format", "text"]
        with (self._root / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self, name: str) -> None:
        """End a node with -9."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def lose(self, name: str) -> None:
        """End a node with -9, and lose its disk."""
        self.kill(name)
        shutil.rmtree(self._root / name)

    async def stop(self, name: str) -> None:
        """Stop a node in order.  Ends the program if it does not."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.wait, EXIT_TIMEOUT_S)
        if status:
            raise SystemExit(f"{name} ended with {status}: see {self._root / name}.out")

    def close(self) -> None:
        """Leave no process behind."""
        for name in list(self._processes):
            self.kill(name)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return when a condition holds; who does not answer yet does not meet it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if await condition():
                return
        except DistlogError:
            pass
        await asyncio.sleep(POLL_INTERVAL_S)
    raise SystemExit(f"not within {TIMEOUT_S:g} s: {what}")


async def votes(client: Client, name: str) -> None:
    """Return when the leader says that a node votes."""

    async def voting() -> bool:
        return any(each.node_id == name and each.is_voter for each in await client.members())

    await until(voting, f"{name} votes")


async def level(client: Client, cluster: GrowingCluster, names: Sequence[str]) -> None:
    """Return when these nodes have applied what the furthest of them has now."""

    async def applied() -> list[int]:
        statuses = [await client.node_status(cluster.address(name)) for name in names]
        return [status.applied_index for status in statuses]

    end = 0

    async def answered() -> bool:
        nonlocal end
        end = max(await applied())
        return True

    async def reached() -> bool:
        return min(await applied()) >= end

    await until(answered, "all nodes answer")
    await until(reached, "all nodes have the same")


async def join(client: Client, cluster: GrowingCluster) -> float:
    """Return how long a new node takes from its start until it votes; it is removed again."""
    begin = time.perf_counter()
    cluster.start(NEW)
    await votes(client, NEW)
    seconds = time.perf_counter() - begin
    await client.remove_member(NEW)
    cluster.lose(NEW)
    return seconds


async def replace(client: Client, cluster: GrowingCluster) -> float:
    """Return how long it takes to have three voters again after one of them and its disk are lost."""
    await client.transfer_leadership(NAMES[0])
    dead = NAMES[-1]
    cluster.lose(dead)
    begin = time.perf_counter()
    await client.remove_member(dead)
    cluster.start(dead)
    await votes(client, dead)
    return time.perf_counter() - begin


class Writers:
    """Calls that append one record after the other, and how long none of them was answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_stopping = False
        self._answered_at = time.perf_counter()
        self.count = 0
        self.gap_s = 0.0
        self._tasks = [asyncio.create_task(self._write()) for _ in range(WRITER_COUNT)]

    async def _write(self) -> None:
        while not self._is_stopping:
            await self._client.produce(RECORD)
            now = time.perf_counter()
            self.gap_s = max(self.gap_s, now - self._answered_at)
            self._answered_at = now
            self.count += 1

    async def stop(self) -> None:
        """Let each end its last call.  Ends the program in words if a call has failed."""
        self._is_stopping = True
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                raise SystemExit(f"a call failed during the rolling restart: {result}")


async def roll(client: Client, cluster: GrowingCluster) -> float:
    """Restart the nodes one after the other under load; return the longest time without an acknowledgement."""
    writers = Writers(client)
    await asyncio.sleep(SETTLE_S)
    for name in NAMES:
        await cluster.stop(name)
        cluster.start(name)
        await level(client, cluster, NAMES)
    await asyncio.sleep(SETTLE_S)
    await writers.stop()
    if not writers.count:
        raise SystemExit("nothing was written during the rolling restart")
    return writers.gap_s


async def measure(cluster: GrowingCluster, history_size: int, trials: int) -> list[Figure]:
    """Return all figures."""
    mib = f"{history_size >> 20} MiB of history"
    async with Client(cluster.addresses, random=Random()) as client:
        for name in NAMES:
            cluster.start(name)
            await votes(client, name)
        empty = [await join(client, cluster) for _ in range(trials)]
        await load(client, history_size)
        await level(client, cluster, NAMES)
        # A node that stops writes a checkpoint: afterwards the journals have nothing of the history any more.
        pauses = [await roll(client, cluster) for _ in range(trials)]
        full = [await join(client, cluster) for _ in range(trials)]
        replaced = []
        for _ in range(trials):
            replaced.append(await replace(client, cluster))
            await level(client, cluster, NAMES)
    return [
        Figure("a node joins, from its start to its vote: empty cluster", "s", empty),
        Figure(f"the same, {mib}", "s", full),
        Figure(f"a dead node is replaced, from remove to the vote, {mib}", "s", replaced),
        Figure("longest pause of writes in a rolling restart", "s", pauses),
    ]


async def form(cluster: GrowingCluster) -> tuple[float, float]:
    """Return how long empty nodes take until one acknowledges a record, and the same for all of them at other addresses."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        for name in NAMES:
            cluster.start(name)
        async with Client(cluster.addresses, random=Random()) as client:
            await client.produce(RECORD)
            seconds.append(time.perf_counter() - begin)
            await level(client, cluster, NAMES)
        if len(seconds) == 1:
            for name in NAMES:
                cluster.kill(name)
            cluster.move()
    return seconds[0], seconds[1]


async def detect_and_replace(cluster: GrowingCluster) -> tuple[float, float]:
    """Return how long after its kill a voter is seen to have failed, and until a spare votes in its place."""
    async with Client(cluster.addresses, random=Random()) as client:
        await client.transfer_leadership(NAMES[0])
        cluster.start(NEW)

        async def is_spare() -> bool:
            status = await client.node_status(cluster.address(NAMES[0]))
            return any("a place:" in each.waits_for for each in status.planned)

        await until(is_spare, f"{NEW} has everything")
        dead = NAMES[-1]
        cluster.kill(dead)
        begin = time.perf_counter()

        async def is_detected() -> bool:
            seen = (await client.membership(cluster.address(NAMES[0]))).seen
            return any(each.node_id == dead and each.status == "failed" for each in seen)

        async def is_replaced() -> bool:
            members = {each.node_id: each.is_voter for each in await client.members()}
            return dead not in members and members.get(NEW, False)

        await until(is_detected, f"{dead} is seen to have failed")
        detected = time.perf_counter() - begin
        await until(is_replaced, f"{NEW} votes in its place")
        return detected, time.perf_counter() - begin


def measure_alike(directory: Path, trials: int) -> list[Figure]:
    """Return the figures of nodes that are all started alike."""
    runs: list[tuple[float, ...]] = []
    for trial in range(trials):
        root = directory / f"alike-{trial}"
        root.mkdir()
        cluster = GrowingCluster(root, ["--expect", "3", "--dead-after-s", "1"])
        try:
            formed = asyncio.run(form(cluster))
            runs.append((*formed, *asyncio.run(detect_and_replace(cluster))))
        finally:
            cluster.close()
    names = (
        "three empty nodes form a cluster, from their start to a record",
        "the same after a kill of all, at other addresses",
        "a dead voter is seen to have failed, from its kill",
        "a spare votes in its place, from the kill, --dead-after-s 1",
    )
    return [Figure(name, "s", [run[place] for run in runs]) for place, name in enumerate(names)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--history", type=parse_size, default=256 << 20)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where the data is (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="see that it works: once, with little")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    history, trials = (QUICK_HISTORY_SIZE, 1) if chosen.quick else (chosen.history, chosen.trials)
    root = Path(tempfile.mkdtemp(prefix="distlog-members-", dir=chosen.directory))
    cluster = GrowingCluster(root)
    try:
        figures = asyncio.run(measure(cluster, history, trials))
        cluster.close()
        figures += measure_alike(root, trials)
    finally:
        cluster.close()
        shutil.rmtree(root)
    if chosen.json:
        found = {"machine": machine(), "figures": [figure.as_dict() for figure in figures]}
        print(json.dumps(found))
        return
    print(machine())
    print(table(figures))


if __name__ == "__main__":
    main()
