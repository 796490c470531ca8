"""The port for clients over TLS: who gets in, under which name, and what everybody else is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import read_error
from distlog.client.routing import CHANNEL_OPTIONS, Node
from distlog.client.tls import tls_credentials
from distlog.errors import ConfigurationInvalid, Unreachable
from distlog.security.certificates import CLIENT, TlsPaths
from distlog.security.subject import subject_of
from distlog.security.tls import Credentials
from distlog.serve import real_ports
from distlog.server.limits import ServerLimits
from distlog.server.listen import Listener
from tests.security.authorities import Pki
from tests.server.fake_replicated_log import FakeReplicatedLog

LOOPBACK = "127.0.0.1"
CALL_TIMEOUT_S = 10.0
Certificate = Callable[[Pki], grpc.ChannelCredentials | None]


@asynccontextmanager
async def listening(
    credentials: Credentials | None, limits: ServerLimits | None = None
) -> AsyncIterator[int]:
    listener = Listener(
        FakeReplicatedLog(),
        host=LOOPBACK,
        port=0,
        insecure=False,
        random_bytes=bytes,
        now=float,
        credentials=credentials.server_credentials() if credentials else None,
        limits=limits,
    )
    port = await listener.start()
    try:
        yield port
    finally:
        await listener.stop(timeout_s=0)


async def told(port: int, credentials: grpc.ChannelCredentials | None) -> str:
    """Produce once; return "" if that went well, and otherwise what the client says of it."""
    node = Node(f"{LOOPBACK}:{port}", credentials)
    try:
        await node.log.Produce(log_pb2.ProduceRequest(record=b"x"), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        problem = read_error(error, "n1")
        assert isinstance(problem, Unreachable)
        return problem.problem
    finally:
        await node.close()
    return ""


def channel(paths: TlsPaths) -> grpc.ChannelCredentials:
    """Return what a client connects with, whatever its files hold."""
    key, chain, roots = (Path(each).read_bytes() for each in (paths.key, paths.cert, paths.ca))
    return grpc.ssl_channel_credentials(roots, key, chain)


def with_own_authority(pki: Pki) -> grpc.ChannelCredentials:
    other = Pki(pki.directory / "other")
    other.client("alice")
    return channel(other.paths("alice", ca=pki.ca))


def self_signed(pki: Pki) -> grpc.ChannelCredentials:
    return channel(Pki(pki.directory / "own", name="alice").paths("alice", ca=pki.ca))


CLOSED = "it speaks TLS, and wants a certificate that it trusts"
CLIENTS: dict[str, tuple[Certificate, str]] = {
    "a client": (lambda pki: channel(pki.client("alice")), ""),
    "a node": (lambda pki: channel(pki.node("n2")), ""),
    "a client without TLS": (lambda _: None, CLOSED),
    "no certificate": (lambda pki: tls_credentials(pki.ca), CLOSED),
    "another authority": (with_own_authority, CLOSED),
    "self-signed": (self_signed, CLOSED),
    "expired": (lambda pki: channel(pki.client("alice", begin_days=-9, days=-1)), CLOSED),
    "not yet valid": (lambda pki: channel(pki.client("alice", begin_days=1)), CLOSED),
}


@pytest.mark.parametrize("who", CLIENTS)
def test_only_who_shows_a_certificate_of_the_authority_gets_in(who: str, tmp_path: Path) -> None:
    certificate, problem = CLIENTS[who]
    pki = Pki(tmp_path)

    async def scenario() -> None:
        async with listening(pki.credentials(pki.node("n1"))) as port:
            said = await told(port, certificate(pki))
            assert bool(said) == bool(problem)
            assert problem in said
            assert await told(port, channel(pki.client("bob"))) == "", "nobody else is disturbed"

    asyncio.run(scenario())


def expired_node(pki: Pki) -> Credentials:
    """Return the credentials of a node whose certificate has expired while it ran."""
    return swapped(pki, pki.node("n1", begin_days=-9, days=-1))


def swapped(pki: Pki, paths: TlsPaths) -> Credentials:
    """Return credentials that show another certificate than the one that was checked."""

    class Swapped(Credentials):
        def server_credentials(self) -> grpc.ServerCredentials:
            key, chain = Path(paths.key).read_bytes(), Path(paths.cert).read_bytes()
            return grpc.ssl_server_credentials([(key, chain)], Path(pki.ca).read_bytes(), True)

    good = pki.credentials(pki.node("good"))
    return Swapped(pki.paths("good"), good._files, good._clock)


def test_a_node_is_asked_at_an_address_of_a_name_that_its_certificate_names(tmp_path: Path) -> None:
    """As discovery by DNS does: certificates name hosts, and not the addresses that they have today."""
    pki = Pki(tmp_path)
    own = pki.credentials(pki.node("n2", hosts=["n2.example"]))
    ask_node = real_ports(own).ask_node

    async def scenario() -> None:
        async with listening(pki.credentials(pki.node("n1", hosts=["nodes.example"]))) as port:
            with pytest.raises(Unreachable, match="it does not say yet who it is"):
                await ask_node((LOOPBACK, port), "nodes.example")
            for name in ("", "other.example"):
                with pytest.raises(Unreachable, match="does not name the host"):
                    await ask_node((LOOPBACK, port), name)

    asyncio.run(scenario())


NODES: dict[str, tuple[Callable[[Pki], Credentials | None], str]] = {
    "another host": (
        lambda pki: pki.credentials(pki.node("n1", hosts=["n1.example"])),
        "its certificate does not name the host at which it was reached",
    ),
    "another authority": (
        lambda pki: (lambda other: other.credentials(other.node("n1")))(Pki(pki.directory / "other")),
        "its certificate is not signed by an authority of --tls-ca",
    ),
    "expired": (expired_node, "has expired"),
    "not yet valid": (
        lambda pki: swapped(pki, pki.node("n1", begin_days=1)),
        "its certificate is not valid yet",
    ),
    "no TLS": (lambda _: None, "it does not speak TLS: leave out --tls-ca"),
}  # fmt: skip


@pytest.mark.parametrize("what", NODES)
def test_a_client_says_what_is_wrong_with_the_certificate_of_a_node(
    what: str, tmp_path: Path
) -> None:
    credentials, problem = NODES[what]
    pki = Pki(tmp_path)

    async def scenario() -> None:
        async with listening(credentials(pki)) as port:
            assert problem in await told(port, channel(pki.client("alice")))

    asyncio.run(scenario())


def by_common_name(pki: Pki) -> TlsPaths:
    pki.put("carol", pki.authority.sign("carol", [], [CLIENT], pki.now, pki.authority.end))
    return pki.paths("carol")


def by_uri(pki: Pki) -> TlsPaths:
    names = [
        x509.UniformResourceIdentifier("spiffe://example/alice"),
        x509.DNSName("alice.example"),
    ]
    pki.put("alice", pki.authority.sign("x", names, [CLIENT], pki.now, pki.authority.end))
    return pki.paths("alice")


SUBJECTS: dict[str, tuple[Callable[[Pki], TlsPaths], str]] = {
    "a name": (lambda pki: pki.client("alice"), "alice"),
    "an address of mail": (lambda pki: pki.client("alice@example.org"), "alice@example.org"),
    "a URI": (by_uri, "spiffe://example/alice"),
    "a common name": (by_common_name, "carol"),
    "a node": (lambda pki: pki.node("n2"), "distlog://node/n2"),
    "an address": (lambda pki: pki.other("dave", ["10.0.0.1"]), "dave"),
}


@pytest.mark.parametrize("how", SUBJECTS)
def test_the_subject_of_a_call_is_what_the_certificate_names(how: str, tmp_path: Path) -> None:
    sign, subject = SUBJECTS[how]
    pki = Pki(tmp_path)

    async def who(_request: bytes, context: Any) -> bytes:
        found = subject_of(context.auth_context())
        return found.encode()

    async def scenario() -> None:
        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(who)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Test", {"Who": handler}),)
        )
        credentials = pki.credentials(pki.node("n1")).server_credentials()
        port = server.add_secure_port(f"{LOOPBACK}:0", credentials)
        await server.start()
        address = f"{LOOPBACK}:{port}"
        async with grpc.aio.secure_channel(address, channel(sign(pki)), CHANNEL_OPTIONS) as opened:
            call = opened.unary_unary("/test.Test/Who")
            assert await call(b"", timeout=CALL_TIMEOUT_S) == subject.encode()
        await server.stop(0)

    asyncio.run(scenario())


def client_context(pki: Pki, name: str) -> ssl.SSLContext:
    """Return what a client of this name connects with, whatever the node calls itself."""
    paths = pki.client(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pki.ca)
    context.load_cert_chain(paths.cert, paths.key)
    context.set_alpn_protocols(["h2"])
    return context


async def certificate_at(pki: Pki, port: int, server_name: str | None = None) -> bytes:
    """Return the certificate that the port shows, in PEM."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol,
        LOOPBACK,
        port,
        ssl=client_context(pki, "probe"),
        server_hostname=server_name or "",
    )
    shown = transport.get_extra_info("ssl_object").getpeercert(True)
    transport.abort()
    return ssl.DER_cert_to_PEM_cert(shown).encode()


@pytest.mark.parametrize("server_name", [None, "localhost", "somebody.else.example"])
def test_a_node_shows_its_certificate_whatever_name_it_is_called_by(
    server_name: str | None, tmp_path: Path
) -> None:
    """Whoever dials an address calls no name; it is the client that compares names."""
    pki = Pki(tmp_path)

    async def scenario() -> None:
        async with listening(pki.credentials(pki.node("n1"))) as port:
            shown = await certificate_at(pki, port, server_name)
            assert shown == (tmp_path / "n1.pem").read_bytes()

    asyncio.run(scenario())


def test_renewed_certificates_and_authorities_are_taken_without_a_restart(tmp_path: Path) -> None:
    pki, newer = Pki(tmp_path), Pki(tmp_path / "newer")
    newcomer = newer.client("erin")

    async def scenario() -> None:
        credentials = pki.credentials(pki.node("n1"))
        async with listening(credentials) as port:
            old = Node(f"{LOOPBACK}:{port}", channel(pki.client("alice")))
            await old.log.Produce(log_pb2.ProduceRequest(record=b"1"), timeout=CALL_TIMEOUT_S)
            assert await told(port, channel(newer.paths("erin", ca=pki.ca))) != ""
            pki.node("n1", days=60)
            pki.trust(newer)
            assert credentials.read_again()
            assert await certificate_at(pki, port) == (tmp_path / "n1.pem").read_bytes()
            trusting = TlsPaths(newcomer.cert, newcomer.key, pki.ca)
            assert await told(port, channel(trusting)) == ""
            # Who is connected stays so.
            await old.log.Produce(log_pb2.ProduceRequest(record=b"2"), timeout=CALL_TIMEOUT_S)
            await old.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half"])
def test_a_handshake_that_does_not_end_is_given_up(begun: bytes, tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    async def scenario() -> None:
        limits = ServerLimits(handshake_timeout_s=0.2)
        async with asyncio.timeout(30), listening(pki.credentials(pki.node("n1")), limits) as port:
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(begun)
            await reader.read()
            writer.close()

    asyncio.run(scenario())


def test_who_has_a_certificate_and_does_not_begin_to_speak_is_hung_up_on(tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    async def scenario() -> None:
        limits = ServerLimits(handshake_timeout_s=0.2)
        async with asyncio.timeout(30), listening(pki.credentials(pki.node("n1")), limits) as port:
            reader, writer = await asyncio.open_connection(
                LOOPBACK, port, ssl=client_context(pki, "alice"), server_hostname=""
            )
            writer.write(b"PRI * HTT")
            await reader.read()
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RSA", "P-256", "P-384"],
)
def test_every_kind_of_key_that_is_taken_serves_nodes_and_clients(
    key: CertificateIssuerPrivateKeyTypes, tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    pki.node("n1")
    pki.client("alice")

    async def scenario() -> None:
        async with listening(pki.credentials(pki.with_key("n1", key))) as port:
            alice = pki.with_key("alice", key)
            assert await told(port, tls_credentials(pki.ca, alice.cert, alice.key)) == ""

    asyncio.run(scenario())


def test_with_certificates_a_node_may_listen_beyond_loopback(tmp_path: Path) -> None:
    pki = Pki(tmp_path)

    async def scenario() -> None:
        listener = Listener(
            FakeReplicatedLog(),
            host="0.0.0.0",
            port=0,
            insecure=False,
            random_bytes=bytes,
            now=float,
            credentials=pki.credentials(pki.node("n1")).server_credentials(),
        )
        port = await listener.start()
        assert await told(port, channel(pki.client("alice"))) == ""
        await listener.stop(timeout_s=0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"cert": "a", "key": "b"}, "--tls-ca: is required with a certificate"),
        ({"ca": "a", "cert": "b"}, "--tls-key: is required with --tls-cert"),
        ({"ca": "a", "key": "b"}, "--tls-cert: is required with --tls-key"),
        ({"ca": "absent.pem"}, "--tls-ca: absent.pem cannot be read"),
    ],
)
def test_a_client_says_which_of_its_files_is_missing(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=problem):
        tls_credentials(**{"ca": "", **given})


def test_a_client_may_have_another_authority_than_the_nodes(tmp_path: Path) -> None:
    nodes, clients = Pki(tmp_path / "nodes"), Pki(tmp_path / "clients")
    paths = clients.client("alice")
    tls_credentials(nodes.ca, paths.cert, paths.key)
