"""Nodes over TLS: whoever is none of this cluster's does not speak there, and both ends say so in words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import uvloop

from distlog.peer.handshake import Hello
from distlog.peer.limits import PeerLimits
from distlog.runtime import Network, SystemClock, TcpNetwork
from distlog.security import network as tls_network
from distlog.security.certificates import TlsPaths
from distlog.security.network import TlsNetwork
from distlog.security.tls import Credentials
from tests.peer.nodes import PeerNode
from tests.peer.test_tcp import Signal, observed
from tests.security.authorities import NODE_NAME, Pki

LOOPBACK = "127.0.0.1"
loops = pytest.mark.parametrize("loop", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])


def secured(credentials: Credentials, peer_name: str = NODE_NAME) -> TlsNetwork:
    return TlsNetwork(TcpNetwork(), credentials.peer_context, SystemClock(), peer_name=peer_name)


def node(name: str, network: Network, peers: dict[str, tuple[str, int]], expected: str) -> PeerNode:
    hello = Hello(node_id=name, directory_id=f"directory-of-{name}", cluster_id="c")
    made = PeerNode(
        network, SystemClock(), 0, hello, peers, listen=(LOOPBACK, 0), limits=PeerLimits()
    )
    made.expected = {expected: ""}
    return made


class Ends:
    """Two nodes, the second of which dials the first, and what both of them log."""

    def __init__(self, first: PeerNode, second: PeerNode, signal: Signal) -> None:
        self.first, self.second, self.signal = first, second, signal

    @property
    def port(self) -> int:
        return self.first.peers.listening_port

    async def connected(self) -> None:
        await self.signal.until(
            lambda: bool(self.first.owner.connected and self.second.owner.connected)
        )


@asynccontextmanager
async def ends(first: Network, second: Network, second_id: str = "n2") -> AsyncIterator[Ends]:
    signal = Signal()
    one = node("n1", first, {}, second_id)
    observed(one, signal)
    await one.peers.start()
    two = node(second_id, second, {"n1": (LOOPBACK, one.peers.listening_port)}, "n1")
    observed(two, signal)
    await two.peers.start()
    try:
        yield Ends(one, two, signal)
    finally:
        await one.peers.stop()
        await two.peers.stop()


class Said(logging.Handler):
    """What is logged while a test runs, and a way to wait for it."""

    def __init__(self, signal: Signal) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._signal = signal

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._signal()

    async def wait_for(self, *parts: str) -> None:
        await self._signal.until(
            lambda: any(all(part in line for part in parts) for line in self.lines)
        )


@asynccontextmanager
async def listening_to(signal: Signal) -> AsyncIterator[Said]:
    said = Said(signal)
    root = logging.getLogger("distlog")
    level = root.level
    root.addHandler(said)
    root.setLevel(logging.INFO)
    try:
        yield said
    finally:
        root.removeHandler(said)
        root.setLevel(level)


@loops
def test_nodes_with_certificates_of_their_own_speak_with_each_other(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    first, second = (secured(pki.credentials(pki.node(name))) for name in ("n1", "n2"))

    async def scenario() -> None:
        async with ends(first, second) as both:
            await both.connected()
            large = bytes(range(256)) * 4096
            assert both.first.send("n2", large)
            assert both.second.send("n1", b"small")
            await both.signal.until(lambda: both.second.owner.payloads("n1") == [large])
            await both.signal.until(lambda: both.first.owner.payloads("n2") == [b"small"])
            assert both.first.peers.waiting_size("n2") == 0

    loop(scenario())


STRANGERS: dict[str, tuple[Callable[[Pki], TlsPaths], str, str]] = {
    "a client": (
        lambda pki: pki.client("alice"),
        "the certificate (DNS:alice, CN:alice) is no node's",
        "clients use the other port",
    ),
    "another node": (
        lambda pki: pki.node("n3"),
        "does not make it n2",
        "must carry URI:distlog://node/n2",
    ),
    "a host": (
        lambda pki: pki.other("n2", ["localhost", "n2"]),
        "the certificate (DNS:localhost, DNS:n2, CN:n2) is no node's",
        "--tls-peer-name",
    ),
}


@loops
@pytest.mark.parametrize("who", STRANGERS)
def test_who_is_no_node_of_this_cluster_is_refused_and_both_ends_say_why(
    who: str, loop: Callable[..., None], tmp_path: Path
) -> None:
    sign, why, remedy = STRANGERS[who]
    pki = Pki(tmp_path)
    first, second = secured(pki.credentials(pki.node("n1"))), secured(unchecked(pki, sign(pki)))

    async def scenario() -> None:
        async with ends(first, second) as both, listening_to(both.signal) as said:
            await said.wait_for("peer refused", why, remedy)
            await said.wait_for("this node was refused by a peer", why, remedy)
            assert both.first.owner.hellos == []
            assert not both.first.owner.connected

    loop(scenario())


def unchecked(pki: Pki, paths: TlsPaths) -> Credentials:
    """Return credentials whose certificate need not be good for a server."""
    pki.node("unused")
    credentials = pki.credentials(pki.paths("unused"))
    for is_dialling in (False, True):
        credentials.peer_context(is_dialling=is_dialling).load_cert_chain(paths.cert, paths.key)
    return credentials


@loops
def test_who_answers_in_place_of_a_node_is_refused_by_the_one_that_dialled(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    """It is n1 by its word, and somebody else by its certificate."""
    pki = Pki(tmp_path)
    first = secured(pki.credentials(pki.node("n3")), "any")
    second = secured(pki.credentials(pki.node("n2")))

    async def scenario() -> None:
        async with ends(first, second) as both, listening_to(both.signal) as said:
            await said.wait_for("peer refused", "n1: the certificate", "does not make it n1")
            assert not both.second.owner.hellos

    loop(scenario())


DISTRUSTED: dict[str, tuple[Callable[[Pki, Path], TlsPaths], str]] = {
    "another authority": (
        lambda _, directory: Pki(directory / "other").node("n2"),
        "unable to get local issuer certificate",
    ),
    "self-signed": (
        lambda _, directory: Pki(directory / "own", name="n2").paths("n2"),
        "self-signed certificate",
    ),
    "expired": (
        lambda pki, _: pki.node("n2", begin_days=-9, days=-1),
        "certificate has expired",
    ),
    "not yet valid": (
        lambda pki, _: pki.node("n2", begin_days=1, days=9),
        "certificate is not yet valid",
    ),
}


@loops
@pytest.mark.parametrize("how", DISTRUSTED)
def test_a_certificate_that_cannot_be_trusted_ends_the_handshake(
    how: str, loop: Callable[..., None], tmp_path: Path
) -> None:
    sign, problem = DISTRUSTED[how]
    pki = Pki(tmp_path)
    paths = sign(pki, tmp_path)
    first, second = secured(pki.credentials(pki.node("n1"))), secured(unchecked(pki, paths))

    async def scenario() -> None:
        async with ends(first, second) as both, listening_to(both.signal) as said:
            await said.wait_for("peer not secured", "its certificate cannot be trusted", problem)
            await said.wait_for("peer hung up before it said who it is")
            assert first.failures["untrusted"] >= 1
            assert both.first.owner.hellos == []

    loop(scenario())


@loops
def test_a_node_without_tls_does_not_reach_one_with_it_and_both_say_so(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    with_tls = secured(pki.credentials(pki.node("n1")))

    async def scenario() -> None:
        async with ends(with_tls, TcpNetwork()) as both, listening_to(both.signal) as said:
            await said.wait_for("peer not secured", "the other end does not speak TLS")
            assert with_tls.failures["no_tls"] >= 1
        async with ends(TcpNetwork(), with_tls) as both, listening_to(both.signal) as said:
            await said.wait_for("peer broke the protocol")
            await said.wait_for("peer not reached", "TLS handshake")

    loop(scenario())


@loops
def test_an_older_tls_is_refused(loop: Callable[..., None], tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    first = secured(pki.credentials(pki.node("n1")))
    old = pki.credentials(pki.node("n2"))
    context = old.peer_context(is_dialling=True)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def scenario() -> None:
        async with ends(first, secured(old)) as both, listening_to(both.signal) as said:
            await said.wait_for("peer not secured", "the other end speaks no TLS 1.3")
            assert first.failures["old_tls"] >= 1
            await said.wait_for("peer not reached", "TLS")

    loop(scenario())


@loops
def test_an_organizational_unit_or_an_authority_of_their_own_can_make_nodes(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    pki, clients = Pki(tmp_path / "nodes"), Pki(tmp_path / "clients")
    for name in ("n1", "n2"):
        pki.other(name, ["localhost"], unit="log-nodes")

    def credentials(name: str) -> Credentials:
        return pki.credentials(pki.paths(name, ca=clients.ca, peer_ca=pki.ca))

    async def scenario(peer_name: str) -> None:
        pair = [secured(credentials(name), peer_name) for name in ("n1", "n2")]
        async with ends(*pair) as both:
            await both.connected()

    async def stranger() -> None:
        pair = [secured(credentials("n1"), "any"), secured(unchecked(pki, clients.node("n2")))]
        async with ends(*pair) as both, listening_to(both.signal) as said:
            await said.wait_for("peer not secured", "unable to get local issuer certificate")

    for peer_name in ("OU:log-nodes", "CN:{node}", "any"):
        loop(scenario(peer_name))
    loop(stranger())


@loops
def test_renewed_certificates_are_shown_by_new_connections_without_a_restart(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    credentials = pki.credentials(pki.node("n1"))
    first, second = secured(credentials), secured(pki.credentials(pki.node("n2")))

    async def scenario() -> None:
        async with ends(first, second) as both:
            await both.connected()
            assert await shown(both) == (tmp_path / "n1.pem").read_bytes()
            pki.node("n1", days=60)
            assert credentials.read_again()
            assert both.first.owner.connected, "what is connected stays"
            assert await shown(both) == (tmp_path / "n1.pem").read_bytes()

    async def shown(both: Ends) -> bytes:
        context = pki.credentials(pki.paths("n2")).peer_context(is_dialling=True)
        reader, writer = await asyncio.open_connection(LOOPBACK, both.port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        assert await reader.read() == b""
        return ssl.DER_cert_to_PEM_cert(certificate).encode()

    loop(scenario())


async def closed(reader: asyncio.StreamReader) -> None:
    """Return when the far end has closed the connection, having sent nothing."""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


@loops
def test_who_connects_and_says_nothing_makes_room_for_who_does(
    loop: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = Pki(tmp_path)
    monkeypatch.setattr(tls_network, "HANDSHAKE_COUNT_MAX", 3)
    first, second = (secured(pki.credentials(pki.node(name))) for name in ("n1", "n2"))

    async def scenario() -> None:
        async with ends(first, second) as both:
            await both.connected()
            silent = [await asyncio.open_connection(LOOPBACK, both.port) for _ in range(5)]
            for reader, _ in silent[:2]:
                await closed(reader)
            assert first.failures["pushed_out"] == 2
            assert both.first.owner.connected
            for _, writer in silent:
                writer.close()

    loop(scenario())


@loops
def test_many_who_connect_at_once_and_are_gone_again_leave_nothing_behind(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    first, second = (secured(pki.credentials(pki.node(name))) for name in ("n1", "n2"))

    async def scenario() -> None:
        unexpected: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unexpected.append(told))
        async with ends(first, second) as both:
            await both.connected()
            count = 2 * tls_network.HANDSHAKE_COUNT_MAX
            for _ in range(3):
                opened = await asyncio.gather(
                    *(asyncio.open_connection(LOOPBACK, both.port) for _ in range(count))
                )
                for number, (_, writer) in enumerate(opened):
                    if number % 2:
                        writer.write(b"GET / HTTP/1.1\r\n\r\n")
                    writer.transport.abort()
            renewed = asyncio.Event()
            two = secured(pki.credentials(pki.paths("n2")))
            await two.connect(lambda: Opened(renewed), LOOPBACK, both.port)
            await asyncio.wait_for(renewed.wait(), 10)
            assert both.first.owner.connected
        gc.collect()
        assert unexpected == []

    loop(scenario())


@loops
def test_who_is_pushed_out_before_it_was_its_turn_is_just_gone(
    loop: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = Pki(tmp_path)
    monkeypatch.setattr(tls_network, "HANDSHAKE_COUNT_MAX", 0)
    network = secured(pki.credentials(pki.node("n1")))

    async def scenario() -> None:
        unexpected: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unexpected.append(told))
        server = await network.listen(asyncio.Protocol, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        await closed(reader)
        writer.close()
        server.close()
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        assert unexpected == []
        assert network.failures["pushed_out"] == sum(network.failures.values()) == 1

    loop(scenario())


class Opened(asyncio.Protocol):
    """Says that it is connected."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._event.set()


@loops
def test_a_handshake_that_does_not_end_is_given_up(
    loop: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki = Pki(tmp_path)
    monkeypatch.setattr(tls_network, "HANDSHAKE_TIMEOUT_S", 0.2)
    first, second = (secured(pki.credentials(pki.node(name))) for name in ("n1", "n2"))

    async def scenario() -> None:
        async with ends(first, second) as both:
            await both.connected()
            reader, writer = await asyncio.open_connection(LOOPBACK, both.port)
            writer.write(b"\x16\x03\x01")
            await closed(reader)
            writer.close()

    loop(scenario())


@loops
def test_a_handshake_may_begin_before_anybody_listens_to_it(
    loop: Callable[..., None], tmp_path: Path
) -> None:
    """The first message is there before the connection is taken over by TLS: as from a machine that is fast."""
    pki = Pki(tmp_path)
    network = secured(pki.credentials(pki.node("n1")))
    client = pki.credentials(pki.node("n2")).peer_context(is_dialling=True)

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).write(b"hello")

    async def scenario() -> None:
        arriving: list[asyncio.Protocol] = []

        class Early(TcpNetwork):
            async def listen(
                self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
            ) -> asyncio.AbstractServer:
                return await super().listen(lambda: Split(protocol_factory()), host, port)

        class Split(asyncio.Protocol):
            """Keeps the connection to itself until something has come, and then passes both on in one step."""

            def __init__(self, protocol: asyncio.Protocol) -> None:
                self._protocol = protocol

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self._transport = transport

            def data_received(self, data: bytes) -> None:
                arriving.append(self._protocol)
                # uvloop's transports are of no class of asyncio's.
                cast(asyncio.Transport, self._transport).set_protocol(self._protocol)
                self._protocol.connection_made(self._transport)
                self._protocol.data_received(data)

        early = TlsNetwork(Early(), network._context, SystemClock(), peer_name=NODE_NAME)
        server = await early.listen(Answer, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=client)
            assert await reader.readexactly(5) == b"hello"
        writer.close()
        server.close()
        assert len(arriving) == 1

    loop(scenario())
