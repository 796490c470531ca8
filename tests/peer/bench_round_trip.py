"""What a small message between two nodes costs, against a bare asyncio echo: run it with `python -m`.

    python -m tests.peer.bench_round_trip [COUNT]

Both far ends live in a second process, over loopback TCP.  Calls to the two alternate, so that whatever else the machine
does meets both.  CPU is that of the calling process, which is one side of the exchange; the far side costs the same.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import cast

from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.peer.network import PeerNetwork
from distlog.runtime import SystemClock, TcpNetwork

LOOPBACK = "127.0.0.1"
SIZE = 100
FLOOD = 200


class EchoingOwner:
    """Sends every frame back."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.network: PeerNetwork
        self.received: Callable[[], None] | None = None

    def hello_received(self, hello: Hello) -> None:
        pass

    def peer_connected(self, node_id: str) -> None:
        self.connected.set()

    def peer_disconnected(self, node_id: str) -> None:
        pass

    def frame_received(self, node_id: str, channel: Channel, group: int, payload: bytes) -> None:
        if self.received is not None:
            self.received()
        else:
            self.network.send(node_id, channel, group, payload)


def peer_network(
    node_id: str, peers: dict[str, tuple[str, int]], owner: EchoingOwner
) -> PeerNetwork:
    owner.network = PeerNetwork(
        network=TcpNetwork(),
        clock=SystemClock(),
        random=Random(),
        identity=lambda: Hello(node_id=node_id, directory_id=node_id, cluster_id="c"),
        listen_host=LOOPBACK,
        listen_port=0,
        peers=peers,
        events=owner,
        is_expected=lambda hello: None,
    )
    return owner.network


class RawEcho(asyncio.Protocol):
    """The least that asyncio can do."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class RawCaller(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received: Callable[[], None] = lambda: None

    def data_received(self, data: bytes) -> None:
        self.received()


async def serve() -> None:
    network = peer_network("far", {}, EchoingOwner())
    await network.start()
    server = await asyncio.get_running_loop().create_server(RawEcho, LOOPBACK, 0)
    print(network.listening_port, server.sockets[0].getsockname()[1], flush=True)
    # Until the parent closes the pipe.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await network.stop()


async def measure(peer_port: int, raw_port: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    owner = EchoingOwner()
    network = peer_network("near", {"far": (LOOPBACK, peer_port)}, owner)
    await network.start()
    _, raw = await loop.create_connection(RawCaller, LOOPBACK, raw_port)
    await owner.connected.wait()
    payload = b"x" * SIZE

    async def peer_call() -> None:
        done = loop.create_future()
        owner.received = lambda: done.set_result(None)
        network.send("far", Channel.RAFT, 0, payload)
        await done

    async def raw_call() -> None:
        done = loop.create_future()
        raw.received = lambda: done.set_result(None)
        raw.transport.write(payload)
        await done

    calls = {"peer": peer_call, "raw": raw_call}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            began = time.perf_counter()
            await call()
            wall[name].append((time.perf_counter() - began) * 1e6)
    for name, times in wall.items():
        times.sort()
        print(
            f"{name:5} round trip  p50 {statistics.median(times):6.1f} us   "
            f"p99 {times[int(len(times) * 0.99)]:6.1f} us   "
            f"CPU {await cpu_us(calls[name], count):5.1f} us per round trip, one side"
        )
    await flood(network, owner, payload, count)
    await network.stop()


async def cpu_us(call: Callable[[], Awaitable[None]], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        await call()
    return (time.process_time() - began) / count * 1e6


async def flood(network: PeerNetwork, owner: EchoingOwner, payload: bytes, count: int) -> None:
    """Send many at a time and wait for all: what a message costs when there is something to gather."""
    received = 0
    done = asyncio.Event()

    def arrived() -> None:
        nonlocal received
        received += 1
        if received % FLOOD == 0:
            done.set()

    owner.received = arrived
    began, began_cpu = time.perf_counter(), time.process_time()
    rounds = max(1, count // 20)
    for _ in range(rounds):
        done.clear()
        for _ in range(FLOOD):
            network.send("far", Channel.RAFT, 0, payload)
        await done.wait()
    messages = rounds * FLOOD
    print(
        f"peer  {FLOOD} at a time  {messages / (time.perf_counter() - began):,.0f} round trips per s   "
        f"CPU {(time.process_time() - began_cpu) / messages * 1e6:.1f} us per message sent and received"
    )


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    command = [sys.executable, "-m", "tests.peer.bench_round_trip", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        ports = child.stdout.readline().split()
        asyncio.run(measure(int(ports[0]), int(ports[1]), count))
        child.stdin.close()


if __name__ == "__main__":
    main()
