"""Finding the leader, and single reads: with hints, with wrong ones, and with nodes that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from distlog.api.log.v1 import log_pb2
from distlog.client import Client, Server, routing
from distlog.client.answers import merged
from distlog.client.attempts import PAUSE_FACTOR_MAX, Backoff, read_error, write_error
from distlog.errors import (
    AnswerInvalid,
    InvalidRequest,
    NoLeader,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    Overloaded,
    Unreachable,
)
from tests.client.fake_cluster import FakeCluster, FakeNode
from tests.client.running import run


def client_of(cluster: FakeCluster, timeout_s: float = 20.0) -> Client:
    return Client(cluster.addresses, retry_pause_s=0.001, timeout_s=timeout_s)


def test_one_address_is_enough() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.leader = 2
            async with Client(cluster.addresses[0], timeout_s=20) as client:
                await client.produce(b"a")
            assert "Produce" in cluster.nodes[2].calls
            assert cluster.nodes[0].calls == ["GetServers"]

    run(scenario())


def test_the_leader_is_asked_for_once() -> None:
    async def scenario() -> None:
        async with FakeCluster(node_count=1) as cluster, client_of(cluster) as client:
            for _ in range(3):
                await client.produce(b"a")
            assert cluster.nodes[0].calls.count("GetServers") == 1

    run(scenario())


def test_whom_a_node_names_is_not_asked_who_it_is() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            async with Client(cluster.addresses[0], retry_pause_s=0.001, timeout_s=20) as client:
                await client.produce(b"a")
                await client.read(0, prefer=cluster.addresses[2])
            assert cluster.nodes[2].calls == ["Consume"]

    run(scenario())


def test_nodes_of_two_clusters_are_never_taken_for_one() -> None:
    async def scenario() -> None:
        async with FakeCluster(node_count=1) as one, FakeCluster(node_count=1) as other:
            one.cluster_id, other.cluster_id = "a" * 16, "b" * 16
            addresses = (one.addresses[0], other.addresses[0])
            async with Client(addresses, retry_pause_s=0.001, timeout_s=20) as client:
                with pytest.raises(InvalidRequest, match=f"belongs to cluster {'[ab]' * 16}"):
                    await client.produce(b"a")
                foreign = next(each for each in addresses if each not in client._routing._verified)
                with pytest.raises(InvalidRequest, match="name nodes of one cluster"):
                    await client.read(0, prefer=foreign)
            assert "Produce" not in one.nodes[0].calls + other.nodes[0].calls

    run(scenario())


def test_a_client_notices_that_another_cluster_is_at_its_addresses() -> None:
    async def scenario() -> None:
        async with FakeCluster(node_count=1) as cluster, client_of(cluster) as client:
            cluster.cluster_id = "a" * 16
            await client.produce(b"a")
            cluster.cluster_id = "b" * 16
            node = cluster.nodes[0]
            node.calls.clear()
            # The client looks at who the nodes are; this answer comes behind that one.
            await node.called("GetServers")
            await client.node_status(node.address)
            for call in (client.produce(b"b"), client.read(0)):
                with pytest.raises(InvalidRequest, match=f"belongs to cluster {'b' * 16}"):
                    await call
            assert "Produce" not in node.calls

    run(scenario())


def test_nobody_writes_to_another_cluster_that_took_the_addresses_while_the_client_was_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "LOOK_INTERVAL_S", 1000.0)
    monkeypatch.setattr(routing, "LOOK_AGE_MAX_S", 0.0)

    async def scenario() -> None:
        async with FakeCluster(node_count=1) as cluster, client_of(cluster) as client:
            cluster.cluster_id = "a" * 16
            await client.produce(b"a")
            cluster.cluster_id = "b" * 16
            with pytest.raises(InvalidRequest, match=f"belongs to cluster {'b' * 16}"):
                await client.produce(b"b")
            assert cluster.log == [b"a"]

    run(scenario())


def test_the_looks_of_a_client_that_nobody_uses_come_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing, "LOOK_INTERVAL_S", 0.01)

    async def scenario() -> None:
        async with FakeCluster(node_count=1) as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            node, loop = cluster.nodes[0], asyncio.get_running_loop()

            async def look_s() -> float:
                began_at = loop.time()
                node.calls.clear()
                await node.called("GetServers")
                return loop.time() - began_at

            pauses = [await look_s() for _ in range(8)]
            # Twice as long each time.
            assert pauses[-1] > 0.6
            await client.produce(b"b")
            assert await look_s() < 0.6

    run(scenario())


def test_a_client_that_is_in_use_knows_a_new_node_within_a_second_and_outlives_all_others() -> None:
    async def scenario() -> None:
        async with FakeCluster(node_count=2) as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            old, new = list(cluster.nodes), FakeNode(cluster, "n9")
            await new.start()
            cluster.nodes.append(new)
            loop = asyncio.get_running_loop()
            added_at = loop.time()
            while new.address not in client._routing.addresses:
                old[0].calls.clear()
                await old[0].called("GetServers")
                # The answer is under way; this one comes behind it, and teaches the client nothing.
                await client.node_status(old[0].address)
            assert loop.time() - added_at < 1.5
            cluster.move_leader()
            cluster.move_leader()
            for node in old:
                node.is_down = True
            await client.produce(b"b")
            assert "Produce" in new.calls

    run(scenario())


def test_parity_b17_a_client_lists_addresses_with_their_roles_and_learns_when_they_change() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:

            async def leaders() -> list[str]:
                return [each.address for each in await client.servers() if each.is_leader]

            assert [each.address for each in await client.servers()] == cluster.addresses
            assert await leaders() == [cluster.addresses[0]]
            cluster.move_leader()
            assert await leaders() == [cluster.addresses[1]]
            new = FakeNode(cluster, "n9")
            await new.start()
            cluster.nodes.append(new)
            assert new.address in [each.address for each in await client.servers()]

    run(scenario())


def test_a_client_asks_another_node_when_the_leader_does_not_say_who_the_nodes_are() -> None:
    async def scenario() -> None:
        async with FakeCluster(node_count=2) as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            leader, other = cluster.nodes
            leader.is_down = True
            other.calls.clear()
            await other.called("GetServers")

    run(scenario())


def test_a_refusal_with_a_hint_is_followed_without_asking_around() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            await client.produce(b"a")
            cluster.move_leader()
            for node in cluster.nodes:
                node.calls.clear()
            await client.produce(b"b")
            assert [node.calls for node in cluster.nodes] == [["Produce"], ["Produce"], []]

    run(scenario())


def test_a_node_that_wrongly_takes_itself_for_the_leader_is_outvoted() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.leader = 1
            cluster.nodes[0].delusion = cluster.nodes[0].address
            assert [server.is_leader for server in await client.servers()] == [False, True, False]
            await client.produce(b"a")
            assert "Produce" not in cluster.nodes[0].calls

    run(scenario())


def test_without_a_leader_the_deadline_ends_it_and_nothing_is_written() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster, timeout_s=0.1) as client:
            cluster.leader, cluster.election_rounds = None, 1_000_000
            with pytest.raises(NoLeader, match="3 nodes answered and none knows one"):
                await client.produce(b"a")
            with pytest.raises(NoLeader):
                await client.describe_topic()
            cluster.problem = "no majority: start n3"
            with pytest.raises(
                NoLeader, match="knows one; one of them says: no majority: start n3"
            ):
                await client.produce(b"a")
            assert cluster.log == []

    run(scenario())


def test_an_election_is_waited_for() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.leader, cluster.election_rounds = None, 10
            assert await client.produce(b"a") == 0

    run(scenario())


@asynccontextmanager
async def silent_address() -> AsyncIterator[str]:
    """An address that accepts connections and never says anything."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


def test_an_address_that_never_answers_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, silent_address() as silent:
            addresses = [silent, *cluster.addresses]
            async with Client(addresses, retry_pause_s=0.001, timeout_s=20) as client:
                assert await client.produce(b"a") == 0

    run(scenario())


def test_an_address_that_never_answers_is_an_error_in_the_end() -> None:
    async def scenario() -> None:
        async with silent_address() as silent, Client(silent, timeout_s=0.1) as client:
            with pytest.raises(Unreachable):
                await client.produce(b"a")
            with pytest.raises(Unreachable):
                await client.describe_topic()

    run(scenario())


def test_something_else_that_speaks_grpc_is_recognised() -> None:
    async def scenario() -> None:
        server = grpc.aio.server()
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            async with Client(address, timeout_s=0.1) as client:
                with pytest.raises(Unreachable, match="does not know the call"):
                    await client.produce(b"a")
                with pytest.raises(AnswerInvalid, match="does not know the call"):
                    await client.read(0)
        finally:
            await server.stop(None)

    run(scenario())


def test_no_address_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(InvalidRequest, match="addresses"):
        Client(" , ")


# --- Single reads ---


def test_a_record_and_the_range_are_read_from_any_node_that_answers() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            cluster.fill([b"a", b"b"])
            await cluster.nodes[0].stop()
            cluster.nodes[1].is_down = True
            assert (await client.read(1)).value == b"b"
            topic = await client.describe_topic()
            assert (topic.start_offset, topic.high_watermark) == (0, 2)
            with pytest.raises(OffsetOutOfRange):
                await client.read(2)

    run(scenario())


def test_the_status_of_a_node_is_its_own_view() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster, client_of(cluster) as client:
            status = await client.node_status(cluster.addresses[0])
            assert (status.node_id, status.role, status.term, status.leader_id) == (
                "n1",
                "leader",
                1,
                "n1",
            )
            assert [member.lag for member in status.members] == [0, 2, 2]
            follower = await client.node_status(cluster.addresses[1])
            assert (follower.role, [member.lag for member in follower.members]) == (
                "follower",
                [None] * 3,
            )
            await cluster.nodes[2].stop()
            with pytest.raises(Unreachable):
                await client.node_status(cluster.addresses[2])

    run(scenario())


def test_lists_of_several_nodes_become_one() -> None:
    first = [Server("n1", "a:1", True, True), Server("n2", "", False, False)]
    second = [Server("n2", "b:1", True, True), Server("n1", "a:1", False, True)]
    third = [Server("n2", "b:1", True, True), Server("n3", "", False, False)]
    assert merged([first, second, third]) == [
        Server("n1", "a:1", False, True),
        Server("n2", "b:1", True, True),
        Server("n3", "", False, False),
    ]
    assert merged([]) == []


# --- What a failed attempt means ---

# Of HTTP/2: what a client begins with, and types of frames.
PREFACE_SIZE, HEADERS, SETTINGS = 24, b"\x01", b"\x04"


def test_a_status_of_the_transport_leaves_the_outcome_of_a_write_unknown() -> None:
    metadata = grpc.aio.Metadata()
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
        error = grpc.aio.AioRpcError(code, metadata, metadata, details="x")
        assert isinstance(write_error(error, "a:1"), OutcomeUnknown)
        assert isinstance(read_error(error, "a:1"), Unreachable)


def test_a_write_for_which_no_connection_came_about_was_never_sent() -> None:
    async def scenario() -> None:
        async with silent_address() as address:
            pass
        # Nobody listens there any more.
        node = routing.Node(address)
        try:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await node.log.Produce(log_pb2.ProduceRequest(), timeout=10)
        finally:
            await node.close()
        assert isinstance(write_error(failed.value, address), Unreachable)

    run(scenario())


def test_a_write_whose_connection_breaks_may_have_been_carried_out() -> None:
    async def scenario() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Take a connection of HTTP/2, and close it when the head of a call has come."""
            writer.write(bytes(3) + SETTINGS + bytes(5))
            await reader.readexactly(PREFACE_SIZE)
            kind = b""
            while kind != HEADERS:
                head = await reader.readexactly(9)
                kind = head[3:4]
                await reader.readexactly(int.from_bytes(head[:3]))
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            node = routing.Node(f"{host}:{port}")
            try:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await node.log.Produce(log_pb2.ProduceRequest(), timeout=10)
            finally:
                await node.close()
        assert isinstance(write_error(failed.value, "a:1"), OutcomeUnknown)

    run(scenario())


def test_pauses_double_to_a_limit_and_a_hint_is_followed_at_once_but_once() -> None:
    backoff = Backoff(1.0, None)
    overloaded, hint = Overloaded("q", 1), NotLeader("n2", "a:1")
    assert [backoff.next_pause_s(overloaded) for _ in range(7)] == [
        1,
        2,
        4,
        8,
        16,
        PAUSE_FACTOR_MAX,
        PAUSE_FACTOR_MAX,
    ]
    backoff.reset()
    assert [backoff.next_pause_s(hint) for _ in range(3)] == [0, 2, 4]
