"""How long it takes until a new node votes, until a dead one is replaced, and how long writes stand still in a rolling restart.

    python -m benchmarks.members [--history 256MiB] [--trials 3] [--json] [--quick]

Three nodes with their default settings, of which one began the cluster and the others joined it.

- join: from the start of a fourth node's process to the moment at which the leader says that it votes; with an empty cluster, and with
  so much history that it copies a checkpoint and segments.
- replace: a node is killed and its disk emptied; from `remove` to the moment at which its successor votes, its start included.
- rolling restart: each of the three is stopped in order, started again and waited for, one after the other, while clients write one
  record after the other; the longest time without any acknowledgement.  A call that fails ends the program.
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
from benchmarks.cluster import NAMES, free_ports, machine
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
    """Nodes on fresh directories below `root`; the first begins the cluster, the others join it."""

    def __init__(self, root: Path) -> None:
        names = (*NAMES, NEW)
        ports = free_ports(2 * len(names))
        self._root = root
        self._ports = {name: (ports.pop(), ports.pop()) for name in names}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def address(self, name: str) -> str:
        """Return where clients reach a node."""
        return f"127.0.0.1:{self._ports[name][0]}"

    @property
    def addresses(self) -> list[str]:
        return [self.address(name) for name in NAMES]

    def start(self, name: str) -> None:
        """Start a node that does not run."""
        way = ["--join", ",".join(self.addresses)] if name != NAMES[0] else ["--bootstrap"]
        command = [sys.executable, "-m", "distlog", "serve", "--node-id", name, *way]
        command += ["--data-dir", str(self._root / name), "--listen", self.address(name)]
        command += ["--peer-listen", f"127.0.0.1:{self._ports[name][1]}"]
        with (self._root / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT
            )

    def lose(self, name: str) -> None:
        """End a node with -9, and lose its disk."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
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
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()


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
