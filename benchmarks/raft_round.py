"""One Raft round of a small entry on three nodes with fsync, beside what it cannot be faster than.

    python -m benchmarks.raft_round [--runs 5] [--rounds 2000] [--durability os] [--json]

Three processes on loopback, each the node that `distlog serve` runs but for gRPC; the leader's process appends 100 bytes,
waits until a majority has synced and it has applied them, and begins again.  In turn with each round the same process sends 100
bytes to an echo on another process and back, by bare asyncio, and syncs 4 KiB: the one round trip and the one fsync without which no
entry can be acknowledged; with durability os, the round trip alone.  Both see the same machine in the same second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.cluster import NAMES, free_ports, machine
from benchmarks.figures import Figure, table
from distlog.block import Block
from distlog.consensus.durability import Durability
from distlog.errors import DistlogError
from distlog.node import Node
from distlog.node_settings import NodeSettings
from distlog.serve import _tune_garbage_collector, real_ports

RECORD = b"x" * 100
WARM_UP_ROUNDS = 300
START_DEADLINE_S = 20.0


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Caller(asyncio.Protocol):
    """Sends a piece of bytes and waits until as many are back."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            self._answered.set_result(None)

    async def call(self, data: bytes) -> None:
        self._missing = len(data)
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        await self._answered


def node_of(name: str, root: Path, ports: dict[str, int], durability: Durability) -> Node:
    """Return one of the three nodes."""
    settings = NodeSettings(
        node_id=name,
        data_dir=str(root / name),
        peer_listen=("127.0.0.1", ports[name]),
        peers={each: ("127.0.0.1", ports[each]) for each in NAMES},
        durability=durability,
    )
    return Node(settings, real_ports())


async def follow(
    name: str, root: Path, ports: dict[str, int], echo_port: int, durability: Durability
) -> None:
    """Run a follower, and an echo, until the standard input ends."""
    node = node_of(name, root, ports, durability)
    await node.start("127.0.0.1:1")
    if echo_port:
        await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", echo_port)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        if node.replicated_log.is_leader:
            with contextlib.suppress(DistlogError):
                await node.replicated_log.transfer_leadership(NAMES[0])
        await asyncio.wait([ended], timeout=0.5)
    node.abandon()


async def lead(
    root: Path, ports: dict[str, int], echo_port: int, rounds: int, durability: Durability
) -> tuple[list[float], list[float], list[float]]:
    """Return the times of a round, of a round trip and of an fsync, in seconds, in the order taken."""
    node = node_of(NAMES[0], root, ports, durability)
    await node.start("127.0.0.1:1")
    await _led_by(node)
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(_Caller, "127.0.0.1", echo_port)
    file = os.open(root / "raw", os.O_CREAT | os.O_RDWR)
    os.pwrite(file, bytes(4096) * rounds * 2, 0)
    os.fsync(file)
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    block = Block.from_records([RECORD])
    for number in range(WARM_UP_ROUNDS + rounds):
        began_at = time.perf_counter()
        await node.replicated_log.propose_append("", block)
        proposed_at = time.perf_counter()
        await caller.call(RECORD)
        called_at = time.perf_counter()
        os.pwrite(file, bytes(4096), 4096 * (number % rounds))
        os.fdatasync(file)
        synced_at = time.perf_counter()
        if number >= WARM_UP_ROUNDS:
            times[0].append(proposed_at - began_at)
            times[1].append(called_at - proposed_at)
            times[2].append(synced_at - called_at)
    os.close(file)
    node.abandon()
    return times


async def _led_by(node: Node) -> None:
    """Wait until the node leads; another one that does hands over to it."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not node.replicated_log.is_leader:
        if time.monotonic() > deadline:
            raise SystemExit(f"no leader within {START_DEADLINE_S} s")
        await asyncio.sleep(0.05)


def one_run(
    directory: Path | None, rounds: int, durability: Durability
) -> tuple[list[float], list[float], list[float]]:
    """Start three nodes, the first of them in this process, and measure."""
    root = Path(tempfile.mkdtemp(prefix="distlog-bench-", dir=directory))
    ports = dict(zip((*NAMES, "echo"), free_ports(4, "127.0.0.1"), strict=True))
    echo_port = ports.pop("echo")
    followers = [_follower(name, root, ports, echo_port, durability) for name in NAMES[1:]]
    try:
        return uvloop.run(lead(root, ports, echo_port, rounds, durability))
    finally:
        for follower in followers:
            assert follower.stdin is not None
            follower.stdin.close()
            follower.wait(timeout=10)
        shutil.rmtree(root)


def _follower(
    name: str, root: Path, ports: dict[str, int], echo_port: int, durability: Durability
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.raft_round", "--follow", name]
    command += ["--root", str(root), "--ports", json.dumps(ports), "--durability", durability.value]
    command += ["--echo", str(echo_port if name == NAMES[1] else 0)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def percentile_ms(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def figures_of(
    runs: list[tuple[list[float], list[float], list[float]]], durability: Durability
) -> list[Figure]:
    """Return what is reported of the runs."""

    def of(place: int, share: float) -> list[float]:
        return [percentile_ms(run[place], share) for run in runs]

    def possible(share: float) -> list[float]:
        if not syncs:
            return of(1, share)
        return [
            percentile_ms([trip + sync for trip, sync in zip(run[1], run[2], strict=True)], share)
            for run in runs
        ]

    syncs = durability is Durability.FSYNC
    beside = "a round trip and an fsync" if syncs else "a round trip"
    at_most = 5.0 if syncs else None
    return [
        Figure("Raft round, p50", "ms", of(0, 0.5), possible(0.5), beside, at_most=at_most),
        Figure("Raft round, p99", "ms", of(0, 0.99), possible(0.99), beside),
        Figure("raw round trip, p50", "ms", of(1, 0.5)),
        Figure("4 KiB fdatasync, p50", "ms", of(2, 0.5)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data")
    parser.add_argument("--durability", type=Durability, default=Durability.FSYNC)
    parser.add_argument("--json", action="store_true")
    for name in ("--follow", "--root", "--ports", "--echo"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    durability = arguments.durability
    logging.basicConfig(level=logging.ERROR)
    _tune_garbage_collector()
    if arguments.follow:
        ports = json.loads(arguments.ports)
        root, echo_port = Path(arguments.root), int(arguments.echo)
        uvloop.run(follow(arguments.follow, root, ports, echo_port, durability))
        return
    runs = [
        one_run(arguments.directory, arguments.rounds, durability) for _ in range(arguments.runs)
    ]
    figures = figures_of(runs, durability)
    if arguments.json:
        report = [figure.as_dict() for figure in figures]
        said = {"durability": durability.value, "rounds": arguments.rounds, "figures": report}
        print(json.dumps({"machine": machine(), **said}))
        return
    print(
        f"{machine()}; durability {durability.value}; {arguments.runs} runs of {arguments.rounds} rounds"
    )
    print(table(figures))


if __name__ == "__main__":
    main()
