"""Real nodes with the certificates of `distlog certs`: everything that works without works with them, and nobody else gets in."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from distlog.cli.main import main
from distlog.client.client import Client
from distlog.client.tls import tls_credentials
from distlog.errors import OffsetOutOfRange
from distlog.security.tls import LOOK_INTERVAL_S
from tests.processes import commands
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import (
    CALL_TIMEOUT_S,
    NODE_IDS,
    TIMEOUT_S,
    NodeProcess,
    ProcessCluster,
    free_ports,
    tls_flags,
    until,
)

CLIENT, PROBE = "alice", "probe"


def certs(directory: Path, cluster: ProcessCluster, *arguments: str) -> None:
    """Make certificates for a cluster."""
    hosts = ",".join(dict.fromkeys(node.host for node in cluster))
    nodes = ",".join(node.node_id for node in cluster)
    named = ["--nodes", nodes, "--hosts", hosts, "--clients", CLIENT]
    assert main(["certs", str(directory), *named, *arguments]) == 0


async def secured(cluster: ProcessCluster, directory: Path) -> None:
    """Make certificates, give them to the nodes, and start those."""
    certs(directory, cluster)
    cluster.secure(directory, CLIENT)
    cluster.start()


def test_parity_b16_three_nodes_with_certificates_hold_each_record_once(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await secured(cluster, tmp_path / "pki")
        leader = await cluster.leader()
        follower = next(name for name in NODE_IDS if name != leader)
        async with Client(cluster.addresses, credentials=cluster.credentials) as client:
            offset = await client.produce(b"foo")
            for name in (leader, follower):
                address = cluster[name].address
                record = await client.read(offset, min_offset=offset, prefer=address)
                assert record.value == b"foo"
                with pytest.raises(OffsetOutOfRange):
                    await client.read(offset + 1, prefer=address)
            async with client.consume(start=0, end=offset + 1) as records:
                assert [record.value async for record in records] == [b"foo"]
        await cluster.terminate()

    asyncio.run(scenario())


def test_every_command_works_with_certificates_and_says_so_without(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await secured(cluster, tmp_path / "pki")
        server = ["--server", cluster.addresses]
        flags = [*server, *tls_flags(tmp_path / "pki", CLIENT)]
        waited = await commands.run("cluster", "wait", "--expect", "3", *flags)
        assert waited.status == 0, waited.errors
        produced = await commands.run("produce", *flags, "-", given=b"one\ntwo\n")
        assert produced.status == 0, produced.errors
        consumed = await commands.run("consume", *flags, "--count", "2")
        assert (consumed.status, consumed.output) == (0, b"one\ntwo\n")
        for command in (("cluster", "status"), ("cluster", "members"), ("topic", "list")):
            shown = await commands.run(*command, *flags)
            assert shown.status == 0, shown.errors
        refused = await commands.run("topic", "list", *server)
        assert refused.status == 1
        assert "it speaks TLS, and wants a certificate that it trusts (--tls-ca" in refused.errors
        half = await commands.run(
            "topic", "list", *server, "--tls-ca", str(tmp_path / "pki" / "ca.pem")
        )
        assert half.status == 1
        assert "wants a certificate that it trusts" in half.errors

    asyncio.run(scenario())


def test_a_node_joins_and_leaves_with_its_certificate(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster()

    async def scenario() -> None:
        for node in cluster:
            position = node.arguments.index("--peers")
            way = ["--bootstrap"] if node.node_id == "n1" else ["--join", cluster["n1"].address]
            node.arguments[position : position + 2] = way
        await secured(cluster, tmp_path / "pki")
        flags = ["--server", cluster["n1"].address, *tls_flags(tmp_path / "pki", CLIENT)]
        waited = await commands.run("cluster", "wait", "--expect", "3", *flags)
        assert waited.status == 0, waited.errors
        leader = await cluster.leader()
        # Whoever does not lead has to ask the leader, at its port for clients.
        leaving = next(name for name in NODE_IDS if name != leader)
        flags[1] = cluster[leaving].address
        left = await commands.run("leave", *flags)
        assert left.status == 0, left.errors
        assert await cluster[leaving].wait_for_exit() == 0
        kept = [name for name in NODE_IDS if name != leaving]
        await cluster.leader(*kept)

    asyncio.run(scenario())


def test_health_is_told_to_a_probe_and_to_nobody_without_a_certificate(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(["n1"])

    async def scenario() -> None:
        await secured(cluster, tmp_path / "pki")
        await cluster.leader()
        ca, cert, key = tls_flags(tmp_path / "pki", PROBE)[1::2]
        cluster.credentials = tls_credentials(ca, cert, key)
        async with cluster.channel("n1") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "log.v1.Log", "leader"):
                request = health_pb2.HealthCheckRequest(service=service)
                answer = await health.Check(request, timeout=CALL_TIMEOUT_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        cluster.credentials = tls_credentials(ca)
        async with cluster.channel("n1") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S
                )
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def context(certificates: Path, name: str) -> ssl.SSLContext:
    ca, cert, key = tls_flags(certificates, name)[1::2]
    made = ssl.create_default_context(cafile=ca)
    made.load_cert_chain(cert, key)
    made.check_hostname = False
    made.set_alpn_protocols(["h2"])
    return made


async def shown(node: NodeProcess, port: int, how: ssl.SSLContext) -> bytes:
    """Return the certificate that a port of a node shows, in PEM.  Raises OSError if the handshake fails."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol, node.host, port, ssl=how, server_hostname=""
    )
    certificate = transport.get_extra_info("ssl_object").getpeercert(True)
    transport.abort()
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def test_no_port_speaks_an_older_tls(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(["n1", "n2"])
    pki = tmp_path / "pki"

    async def scenario() -> None:
        await secured(cluster, pki)
        await cluster.leader()
        node = cluster["n1"]
        for port in (node.client_port, node.peer_port):
            certificate = await shown(node, port, context(pki, CLIENT))
            assert certificate == (pki / "n1.pem").read_bytes()
            old = context(pki, CLIENT)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(OSError, match=r"(?i)protocol|eof|reset|alert|^$"):
                await shown(node, port, old)
        await cluster.leader()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["by itself", "at SIGHUP"])
def test_certificates_are_renewed_while_nodes_run_and_clients_write(
    how: str, cluster: ProcessCluster, tmp_path: Path
) -> None:
    pki = tmp_path / "pki"

    async def scenario() -> None:
        await secured(cluster, pki)
        await cluster.leader()
        async with Client(cluster.addresses, credentials=cluster.credentials) as client:
            count = itertools.count()
            written: list[bytes] = []

            async def write() -> None:
                value = b"%d" % next(count)
                await client.produce(value)
                written.append(value)

            await write()
            certs(pki, cluster, "--force", "--days", "90")
            if how == "at SIGHUP":
                for node in cluster:
                    node.signal(signal.SIGHUP)
            for node in cluster:
                for port in (node.client_port, node.peer_port):

                    async def is_renewed(node: NodeProcess = node, port: int = port) -> bool:
                        await write()
                        certificate = await shown(node, port, context(pki, CLIENT))
                        return certificate == (pki / f"{node.node_id}.pem").read_bytes()

                    within_s = TIMEOUT_S if how == "by itself" else LOOK_INTERVAL_S
                    await until(is_renewed, f"{node.node_id} is renewed", timeout_s=within_s)
                assert "certificates renewed names=URI:distlog://node/" in node.says()
            # A node that comes back meets the others with what is new at both ends.
            cluster.kill("n2")
            cluster.start("n2")
            await cluster.leader()
            async with client.consume(start=0, end=len(written)) as records:
                assert [record.value async for record in records] == written
        await cluster.terminate()

    asyncio.run(scenario())


def test_a_node_that_is_still_starting_takes_over_what_is_new_at_sighup(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """A start may take minutes, and the signal would end a process that does not expect it."""
    cluster, pki = make_cluster(["n1"]), tmp_path / "pki"
    node = cluster["n1"]

    async def scenario() -> None:
        await secured(cluster, pki)
        await cluster.leader()
        await cluster.terminate()
        # A disk that does not answer: it opens this for as long as nobody writes there.
        checkpoint = node.data_dir / "groups" / "0" / "checkpoint"
        checkpoint.unlink()
        os.mkfifo(checkpoint)
        cluster.start()

        async def says(text: str, count: int) -> bool:
            return node.is_running and node.says().count(text) == count

        await until(lambda: says("starting version", 2), "it starts")
        certs(pki, cluster, "--force", "--days", "90")
        node.signal(signal.SIGHUP)
        await until(lambda: says("certificates renewed", 1), "it has the new certificates")
        node.kill()

    asyncio.run(scenario())


def test_a_client_with_a_certificate_is_no_peer_and_is_told(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """A node that was given a client's certificate does not even start; its holder gets no further at the peer port."""
    cluster = make_cluster(["n1", "n2"])
    pki = tmp_path / "pki"

    async def scenario() -> None:
        await secured(cluster, pki)
        await cluster.leader()
        node = cluster["n1"]
        reader, writer = await asyncio.open_connection(
            node.host, node.peer_port, ssl=context(pki, CLIENT)
        )
        async with asyncio.timeout(TIMEOUT_S):
            answer = await reader.read()
        writer.close()
        assert b"is no node's: one must carry URI:distlog://node/{node}" in answer
        assert "peer refused" in node.says()
        assert "(DNS:alice, CN:alice) is no node's" in node.says()
        started = await commands.run(
            *("serve", "--node-id", "n2", "--data-dir", str(tmp_path / "n2")),
            *("--listen", f"{node.host}:{free_ports(node.host, 1)[0]}"),
            *tls_flags(pki, CLIENT),
        )
        assert started.status == 2
        assert "--tls-cert" in started.complaint
        assert "is not made for serverAuth" in started.complaint
        assert not (tmp_path / "n2").exists()

    asyncio.run(scenario())


def test_a_node_with_the_certificate_of_another_does_not_start(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(["n1", "n2"])

    async def scenario() -> None:
        certs(tmp_path / "pki", cluster)
        started = await commands.run(
            *("serve", "--node-id", "n2", "--data-dir", str(tmp_path / "n2")),
            *tls_flags(tmp_path / "pki", "n1"),
        )
        assert started.status == 2
        assert "this node would be refused by the others" in started.complaint
        assert "must carry URI:distlog://node/n2 (--tls-peer-name)" in started.complaint

    asyncio.run(scenario())
