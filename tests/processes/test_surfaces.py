"""Everybody who may knock, at every port of a real node with certificates and a policy: who gets what, cell by cell."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.api.status import DETAILS_KEY, error_from_status
from distlog.client.tls import tls_credentials
from distlog.errors import NotAuthorized
from distlog.peer.frames import FrameDecoder, MalformedFrame
from distlog.peer.handshake import Greeting, Hello, decode_message, encode_message
from distlog.peer.limits import PeerLimits
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import (
    CALL_TIMEOUT_S,
    CHANNEL_OPTIONS,
    TIMEOUT_S,
    NodeProcess,
    tls_flags,
)
from tests.processes.test_membership import come_by

# find: GetServers; read: Consume; list: ListTopics; rule: GetPolicy.  peer: whether its greeting is read at the port for nodes.
TABLE = """
             find read list rule  peer  /livez /readyz /metrics /status
plain        -    -    -    -     -     -      -       -        -
stranger     -    -    -    -     -     +      +       -        -
impostor     -    -    -    -     -     -      -       -        -
nobody       +    -    -    -     -     +      +       +        +
reader       +    +    -    -     -     +      +       +        +
admin        +    +    +    +     -     +      +       +        +
n2           +    -    -    -     +     +      +       +        +
"""
# Those of them that have a certificate of the authority.
NAMED = ("nobody", "reader", "admin", "n2")
HELLO = Hello(node_id="n2", directory_id="d" * 32, joins=True)


@dataclass(frozen=True)
class Visitor:
    """Who knocks: the files that it shows, "" for none, and whether it speaks TLS at all."""

    ca: str
    cert: str = ""
    key: str = ""
    has_tls: bool = True

    @property
    def context(self) -> ssl.SSLContext | None:
        if not self.has_tls:
            return None
        made = ssl.create_default_context(cafile=self.ca)
        made.check_hostname = False
        if self.cert:
            made.load_cert_chain(self.cert, self.key)
        return made

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        return tls_credentials(self.ca, self.cert, self.key) if self.has_tls else None


CALLS: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
    "find": lambda log, cluster: log.GetServers(
        log_pb2.GetServersRequest(), timeout=CALL_TIMEOUT_S
    ),
    "read": lambda log, cluster: log.Consume(log_pb2.ConsumeRequest(), timeout=CALL_TIMEOUT_S),
    "list": lambda log, cluster: cluster.ListTopics(
        log_pb2.ListTopicsRequest(), timeout=CALL_TIMEOUT_S
    ),
    "rule": lambda log, cluster: cluster.GetPolicy(
        log_pb2.GetPolicyRequest(), timeout=CALL_TIMEOUT_S
    ),
}


async def may_call(node: NodeProcess, visitor: Visitor, name: str) -> bool:
    """Tell whether a call is answered; what it is refused with must be the policy, or that there was no connection."""
    credentials = visitor.credentials
    channel = (
        grpc.aio.insecure_channel(node.address, CHANNEL_OPTIONS)
        if credentials is None
        else grpc.aio.secure_channel(node.address, credentials, CHANNEL_OPTIONS)
    )
    async with channel:
        stubs = log_pb2_grpc.LogStub(channel), log_pb2_grpc.ClusterStub(channel)
        try:
            await CALLS[name](*stubs)
        except grpc.aio.AioRpcError as error:
            refused = error
        else:
            return True
    details = dict(refused.trailing_metadata() or ()).get(DETAILS_KEY)
    is_denied = isinstance(error_from_status(details), NotAuthorized)
    assert is_denied or refused.code() is grpc.StatusCode.UNAVAILABLE, refused
    return False


async def is_heard(node: NodeProcess, visitor: Visitor) -> bool:
    """Tell whether the port for nodes answers a greeting with one."""
    try:
        reader, writer = await asyncio.open_connection(
            node.host, node.peer_port, ssl=visitor.context
        )
        writer.write(encode_message(Greeting(1, 1, HELLO)))
        answer = await reader.read(1 << 16)
    except OSError:
        return False
    writer.transport.abort()
    decoder = FrameDecoder(PeerLimits().payload_size_max())
    decoder.receive_data(answer)
    try:
        frame = decoder.next_frame()
    except MalformedFrame:
        # An alert of TLS, in clear.
        return False
    return frame is not None and isinstance(decode_message(frame.payload), Greeting)


async def is_shown(node: NodeProcess, visitor: Visitor, path: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection(
            node.host, node.http_port, ssl=visitor.context
        )
        writer.write(f"GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    except OSError:
        return False
    writer.close()
    assert not answer or answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 403")), answer
    return answer.startswith(b"HTTP/1.1 200")


async def cell(node: NodeProcess, visitor: Visitor, surface: str) -> bool:
    async with asyncio.timeout(TIMEOUT_S):
        if surface == "peer":
            return await is_heard(node, visitor)
        if surface in CALLS:
            return await may_call(node, visitor, surface)
        return await is_shown(node, visitor, surface)


def test_each_port_lets_in_whom_the_table_says(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster, pki, others = make_cluster(["n1"]), tmp_path / "pki", tmp_path / "others"

    async def scenario() -> None:
        node = cluster["n1"]
        come_by(cluster, "n1", "--bootstrap")
        node.arguments += ["--http-listen", node.http_address]
        names = ("--nodes", "n1,n2", "--clients", "admin,reader,nobody", "--hosts", node.host)
        for directory in (pki, others):
            assert (await run("certs", str(directory), *names)).status == 0
        cluster.secure(pki, "admin")
        cluster.start()
        await cluster.leader()
        admin = ("--server", node.address, *tls_flags(pki, "admin"))
        for rule in (("admin", "*", "*"), ("reader", "consume", "default")):
            assert (await run("acl", "add", *rule, *admin)).status == 0
        assert (await run("produce", *admin, given=b"one\n")).status == 0

        ca = tls_flags(pki, "admin")[1]
        visitors = {name: Visitor(*tls_flags(pki, name)[1::2]) for name in NAMED}
        visitors["plain"] = Visitor(ca, has_tls=False)
        visitors["stranger"] = Visitor(ca)
        visitors["impostor"] = Visitor(ca, *tls_flags(others, "admin")[3::2])
        surfaces, *rows = [line.split() for line in TABLE.strip().splitlines()]
        assert {row[0] for row in rows} == visitors.keys()
        found = [
            [name, *["-+"[await cell(node, visitors[name], surface)] for surface in surfaces]]
            for name, *_ in rows
        ]
        assert found == rows
        await cluster.terminate()

    asyncio.run(scenario())
