"""Two PeerNetworks over the machine's own TCP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from distlog.peer.handshake import Greeting, Hello, Refused, encode_message
from distlog.peer.limits import PeerLimits
from distlog.runtime import SystemClock, TcpNetwork
from tests.peer.nodes import PeerNode
from tests.peer.strangers import Stranger

MIB = 1 << 20
LOOPBACK = "127.0.0.1"


def node(name: str, peers: dict[str, tuple[str, int]], expected: str, **hello: str) -> PeerNode:
    """Return a node that listens on any free port."""
    described = {"directory_id": f"directory-of-{name}", "cluster_id": "c", **hello}
    made = PeerNode(
        TcpNetwork(),
        SystemClock(),
        0,
        Hello(node_id=name, **described),  # type: ignore[arg-type]
        peers,
        listen=(LOOPBACK, 0),
        limits=PeerLimits(),
    )
    made.expected = {expected: f"directory-of-{expected}"}
    return made


class Signal:
    """Wakes a test when something has happened that may be what it waits for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self, *_: object) -> None:
        self._event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._event.clear()
                await self._event.wait()


def observed(made: PeerNode, signal: Signal) -> None:
    """Wake `signal` whenever the node is told something."""
    for name in ("hello_received", "peer_connected", "peer_disconnected", "frame_received"):
        method = getattr(made.owner, name)

        def told(*args: object, method: Callable[..., None] = method) -> None:
            method(*args)
            signal()

        setattr(made.owner, name, told)


async def with_two_nodes(main: Callable[[PeerNode, PeerNode, Signal], Awaitable[None]]) -> None:
    signal = Signal()
    first = node("n1", {}, "n2")
    observed(first, signal)
    await first.peers.start()
    second = node("n2", {"n1": (LOOPBACK, first.peers.listening_port)}, "n1")
    observed(second, signal)
    await second.peers.start()
    try:
        await signal.until(lambda: bool(first.owner.connected and second.owner.connected))
        await main(first, second, signal)
    finally:
        await first.peers.stop()
        await second.peers.stop()
    assert not first.owner.connected
    assert not second.owner.connected


def test_a_thousand_frames_small_and_large_arrive_both_ways_in_order() -> None:
    source = Random(1)
    large = source.randbytes(8 * MIB)
    sizes = [source.choice([0, 1, 100, 5_000, 100_000]) for _ in range(998)]
    payloads = [large[:size] + b"%d" % number for number, size in enumerate(sizes)]
    payloads.insert(300, large)
    payloads.insert(700, large[::-1])

    async def main(first: PeerNode, second: PeerNode, signal: Signal) -> None:
        async def send_all(sender: PeerNode, receiver: PeerNode) -> None:
            name, own = receiver.hello.node_id, sender.hello.node_id
            for number, payload in enumerate(payloads):
                while not sender.send(name, payload):
                    await signal.until(lambda: sender.peers.waiting_size(name) < 8 * MIB)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await signal.until(lambda: len(receiver.owner.payloads(own)) == len(payloads))
            assert receiver.owner.payloads(own) == payloads

        await asyncio.gather(send_all(first, second), send_all(second, first))
        assert first.peers.counters["frames_received"] == 1000
        assert second.peers.waiting_size("n1") == 0

    asyncio.run(with_two_nodes(main))


def test_a_stopped_node_is_noticed_and_can_come_back_on_its_port() -> None:
    async def main(first: PeerNode, second: PeerNode, signal: Signal) -> None:
        port = first.peers.listening_port
        await first.peers.stop()
        await signal.until(lambda: not second.owner.connected)
        back = PeerNode(
            TcpNetwork(),
            SystemClock(),
            1,
            first.hello,
            {},
            listen=(LOOPBACK, port),
            limits=PeerLimits(),
        )
        back.expected = {"n2": ""}
        observed(back, signal)
        await back.peers.start()
        try:
            await signal.until(lambda: bool(back.owner.connected and second.owner.connected))
        finally:
            await back.peers.stop()

    asyncio.run(with_two_nodes(main))


def test_a_refusal_arrives_in_words() -> None:
    async def main(first: PeerNode, second: PeerNode, signal: Signal) -> None:
        wiped = node("n2", {"n1": (LOOPBACK, first.peers.listening_port)}, "n1", directory_id="new")
        knock = Stranger()
        await TcpNetwork().connect(lambda: knock, LOOPBACK, first.peers.listening_port)
        knock.transport.write(greeting_of(wiped))
        async with asyncio.timeout(5):
            await knock.closed.wait()
        (refused,) = knock.messages()
        assert isinstance(refused, Refused)
        assert "the directory of n2 is not the one known" in refused.problem
        assert second.owner.changes == [("connected", "n1")]

    asyncio.run(with_two_nodes(main))


def greeting_of(made: PeerNode) -> bytes:
    return encode_message(Greeting(1, 1, made.hello))
