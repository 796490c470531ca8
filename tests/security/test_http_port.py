"""The port for monitoring with certificates: probes need none, what names topics and nodes is for those who show one."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from distlog.monitoring.http import HttpServer, text_page
from distlog.monitoring.pages import GUARDED
from distlog.runtime import SystemClock, TcpNetwork
from distlog.security import network as tls_network
from distlog.security.certificates import TlsPaths
from distlog.security.network import HTTP, TlsNetwork
from distlog.security.tls import Credentials
from tests.security.authorities import Pki

LOOPBACK = "127.0.0.1"
TIMEOUT_S = 20.0
REQUEST = "GET {} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n"
loops = pytest.mark.parametrize("loop", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
Loop = Callable[..., None]


@dataclass
class Monitored:
    """A node's port for monitoring, and who asks there."""

    pki: Pki
    credentials: Credentials
    network: TlsNetwork
    port: int

    def context(self, paths: TlsPaths | None = None) -> ssl.SSLContext:
        """Return what somebody connects with who trusts the authority, and shows a certificate if there is one."""
        made = ssl.create_default_context(cafile=self.pki.ca)
        if paths is not None:
            made.load_cert_chain(paths.cert, paths.key)
        return made

    async def open(
        self, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = None if context is None else "localhost"
        return await asyncio.open_connection(LOOPBACK, self.port, ssl=context, server_hostname=name)

    async def get(self, path: str, context: ssl.SSLContext | None) -> int:
        """Return the status of a page; 0: the connection is closed without one."""
        try:
            reader, writer = await self.open(context)
            writer.write(REQUEST.format(path).encode())
            answer = await reader.read()
            writer.close()
        except OSError:
            return 0
        return int(answer.split(b" ")[1]) if answer else 0

    async def shown(self) -> bytes:
        """Return the certificate that the port shows, in PEM."""
        _, writer = await self.open(self.context())
        certificate = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return ssl.DER_cert_to_PEM_cert(certificate).encode()


def monitored(
    loop: Loop,
    directory: Path,
    body: Callable[[Monitored], Awaitable[None]],
    guarded: frozenset[str] = GUARDED,
) -> None:
    async def scenario() -> None:
        pki = Pki(directory / "pki")
        credentials = pki.credentials(pki.node("n1"))
        network = TlsNetwork(
            TcpNetwork(),
            lambda _: credentials.http_context(),
            SystemClock(),
            what=HTTP,
        )
        pages = dict.fromkeys(("/livez", "/readyz", *sorted(GUARDED)), lambda: text_page("fine"))
        server = HttpServer(pages, SystemClock(), guarded=guarded)
        port = await server.start(network, LOOPBACK, 0)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await body(Monitored(pki, credentials, network, port))
        finally:
            server.stop()

    loop(scenario())


@loops
def test_a_probe_without_a_certificate_is_told_its_health_and_nothing_else(
    loop: Loop, tmp_path: Path
) -> None:
    async def body(node: Monitored) -> None:
        probe, prometheus = node.context(), node.context(node.pki.client("prometheus"))
        for path, stranger in (
            ("/livez", 200),
            ("/readyz", 200),
            ("/metrics", 403),
            ("/status", 403),
        ):
            assert await node.get(path, probe) == stranger, path
            assert await node.get(path, prometheus) == 200, path
            # What one was shown is not kept for the other.
            assert await node.get(path, probe) == stranger, path
        assert await node.get("/status?x=1", probe) == 403
        # A kubelet trusts anybody.
        kubelet = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        kubelet.check_hostname, kubelet.verify_mode = False, ssl.CERT_NONE
        assert await node.get("/livez", kubelet) == 200

    monitored(loop, tmp_path, body)


@loops
def test_whoever_says_so_shows_everything_to_everybody(loop: Loop, tmp_path: Path) -> None:
    async def body(node: Monitored) -> None:
        assert await node.get("/metrics", node.context()) == 200

    monitored(loop, tmp_path, body, guarded=frozenset())


REFUSED: dict[str, tuple[Callable[[Monitored, Path], ssl.SSLContext | None], str]] = {
    "plain": (lambda node, _: None, "no_tls"),
    "another authority": (
        lambda node, directory: node.context(Pki(directory / "other").client("prometheus")),
        "untrusted",
    ),
    "self-signed": (
        lambda node, directory: node.context(Pki(directory / "own", name="p").paths("p")),
        "untrusted",
    ),
    "expired": (
        lambda node, _: node.context(node.pki.client("p", begin_days=-9, days=-1)),
        "untrusted",
    ),
    "not yet valid": (
        lambda node, _: node.context(node.pki.client("p", begin_days=1, days=9)),
        "untrusted",
    ),
    "an older tls": (lambda node, _: older(node.context()), "old_tls"),
}


def older(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@loops
@pytest.mark.parametrize("who", REFUSED)
def test_a_certificate_that_is_no_good_is_worse_than_none(
    who: str, loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, reason = REFUSED[who]
    caplog.set_level(logging.INFO)

    async def body(node: Monitored) -> None:
        assert await node.get("/livez", made(node, tmp_path)) == 0
        assert node.network.failures[reason] == 1
        said = [record.getMessage() for record in caplog.records]
        assert any("connection for monitoring not secured" in line for line in said), said
        assert await node.get("/livez", node.context()) == 200, "nobody else is disturbed"

    monitored(loop, tmp_path, body)


@loops
def test_who_says_nothing_does_not_keep_out_a_probe(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_network, "HANDSHAKE_COUNT_MAX", 3)

    async def body(node: Monitored) -> None:
        silent = [await asyncio.open_connection(LOOPBACK, node.port) for _ in range(5)]
        assert await silent[0][0].read() == b""
        assert await node.get("/livez", node.context()) == 200
        assert node.network.failures["pushed_out"] >= 2
        for _, writer in silent:
            writer.close()

    monitored(loop, tmp_path, body)


@loops
def test_new_certificates_are_shown_without_a_restart(loop: Loop, tmp_path: Path) -> None:
    async def body(node: Monitored) -> None:
        certificate = node.pki.directory / "n1.pem"
        before = certificate.read_bytes()
        assert await node.shown() == before
        node.pki.node("n1", days=60)
        assert node.credentials.read_again()
        assert await node.shown() == certificate.read_bytes() != before

    monitored(loop, tmp_path, body)
