"""Clients and strangers that mean harm, at real nodes: each costs a bounded amount of memory, and the next good client is served.

Memory is that of the process, as the kernel counts it; the bounds are a few times what was measured, and a tenth of what the attack
would cost without the limit that it meets.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from random import Random

import grpc
import pytest

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.peer.handshake import Greeting, Hello, encode_message
from distlog.server.limits import ServerLimits
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.http2 import (
    CONSUME,
    CONSUME_BATCH,
    CONSUME_STREAM,
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    PING,
    PRODUCE,
    PRODUCE_STREAM,
    RST_STREAM,
    SETTINGS,
    BadClient,
    frame,
    header_block,
    message,
    text,
)
from tests.processes.process_cluster import ProcessCluster, until
from tests.processes.test_bad_input import EXIT_USAGE

MIB = 1 << 20
# Bytes that a stream may send before the server has said more, in HTTP/2.  What is beyond is refused at some time, for that.
WINDOW_SIZE = 65_535
LIMITS = ServerLimits()
Attack = Callable[["Victim"], Awaitable[None]]


class Victim:
    """A node, as who attacks it sees it, and as the kernel does."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.node = cluster["n1"]
        self._clients: list[BadClient] = []

    @property
    def memory_size(self) -> int:
        return self._status("VmRSS:")

    @property
    def memory_peak(self) -> int:
        """The most that it ever had."""
        return self._status("VmHWM:")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.node.process_id}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(name))
        return int(line.split()[1]) << 10

    @property
    def descriptor_count(self) -> int:
        return len(list(Path(f"/proc/{self.node.process_id}/fd").iterdir()))

    async def connect(self, *, preface: bool = True) -> BadClient:
        client = await BadClient.connect(self.node.host, self.node.client_port, preface=preface)
        self._clients.append(client)
        return client

    async def serves(self) -> None:
        """Fail unless a good client gets an answer, and its record a place, soon."""
        async with asyncio.timeout(5), self.cluster.channel("n1") as channel:
            log = log_pb2_grpc.LogStub(channel)
            produced = await log.Produce(log_pb2.ProduceRequest(record=b"good"))
            request = log_pb2.ConsumeRequest(offset=produced.offset)
            assert (await log.Consume(request)).record == b"good"

    async def settled(self) -> None:
        """Return when every call of the bad clients has begun, and the node takes no more memory for them."""

        async def begun() -> bool:
            kinds = [kind for client in self._clients for kind, _ in client.received]
            return kinds.count(HEADERS) >= len(self._clients) * LIMITS.connection_stream_count_max

        await until(begun, "every call has begun")
        highest, unchanged_count = 0, 0
        while unchanged_count < 30:
            await self.serves()
            unchanged_count = 0 if self.memory_size > highest + MIB else unchanged_count + 1
            highest = max(highest, self.memory_size)

    async def hang_up(self) -> None:
        for client in self._clients:
            await client.close()
        self._clients.clear()


@asynccontextmanager
async def attacked(
    make_cluster: MakeCluster, growth_max: int, files_max: int
) -> AsyncIterator[Victim]:
    """Yield a node that serves, and must do so afterwards, with at most so much more memory and no descriptor lost."""
    cluster = make_cluster(("n1",))
    cluster.start()
    await cluster.leader()
    victim = Victim(cluster)
    await victim.serves()
    descriptors, memory_size = victim.descriptor_count, victim.memory_size
    try:
        yield victim
        await victim.serves()
        growth = victim.memory_size - memory_size
    finally:
        await victim.hang_up()
    print(f"{growth / MIB:.1f} MiB more")
    assert growth < growth_max, f"{growth / MIB:.1f} MiB more"

    async def all_closed() -> bool:
        return victim.descriptor_count <= descriptors + files_max

    await until(all_closed, "the descriptors of the attack are closed")
    await victim.serves()
    await cluster.terminate()


def attack(make_cluster: MakeCluster, body: Attack, *, growth_max: int, files_max: int = 2) -> None:
    """files_max: descriptors that the node may have more afterwards, for files."""

    async def main() -> None:
        async with attacked(make_cluster, growth_max, files_max) as victim:
            await body(victim)

    asyncio.run(main())


# --- Connections ---------------------------------------------------------------------------------


def test_a_thousand_idle_connections_of_clients_cost_little_and_the_next_is_served(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        for _ in range(1000):
            await victim.connect()
        await victim.serves()

    attack(make_cluster, body, growth_max=64 * MIB)


def test_connections_that_say_nothing_or_half_of_a_beginning_keep_out_nobody(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        for place in range(600):
            client = await victim.connect(preface=False)
            client.send((b"", b"PRI * HTT", b"\x16\x03\x01\x02\x00\x01")[place % 3])
        await victim.serves()

    attack(make_cluster, body, growth_max=64 * MIB)


def test_pings_settings_and_calls_that_are_reset_at_any_rate_cost_nothing_that_stays(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        pinging = await victim.connect()
        await flood(pinging, lambda _: frame(PING, 0, 0, bytes(8)))
        # Two more than it may be: it is sent away.
        await asyncio.wait_for(pinging.closed(), 10)
        await flood(await victim.connect(), lambda _: frame(SETTINGS, 0, 0, b""))
        await flood(
            await victim.connect(),
            lambda number: (
                frame(HEADERS, END_HEADERS, 2 * number + 1, header_block(PRODUCE))
                + frame(RST_STREAM, 0, 2 * number + 1, b"\x00\x00\x00\x08")
            ),
        )

    attack(make_cluster, body, growth_max=64 * MIB)


async def flood(client: BadClient, make: Callable[[int], bytes], count: int = 20_000) -> None:
    for start in range(0, count, 100):
        if client.is_closed:
            return
        client.send(b"".join(map(make, range(start, start + 100))))
        await asyncio.wait_for(client.drain(), 10)


# --- Calls ---------------------------------------------------------------------------------------


def test_a_thousand_calls_on_one_connection_are_a_hundred_and_the_others_are_refused(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        client = await victim.connect()
        for number in range(1000):
            client.begin_call(2 * number + 1, PRODUCE_STREAM)
        await client.drain()

        async def refused() -> bool:
            resets = {stream for kind, stream in client.received if kind == RST_STREAM}
            return len(resets) == 1000 - LIMITS.connection_stream_count_max

        await until(refused, "all calls but a hundred are refused")

    attack(make_cluster, body, growth_max=32 * MIB)


def test_metadata_without_end_is_not_kept(make_cluster: MakeCluster) -> None:
    async def body(victim: Victim) -> None:
        header = b"\x00" + text(b"x-endless") + text(b"v" * 1000)
        for _ in range(3):
            endless = await victim.connect()
            endless.send(frame(HEADERS, 0, 1, header_block(PRODUCE)))
            # 20 MB of one block of headers, which never ends.
            await flood(endless, lambda _: frame(CONTINUATION, 0, 1, header))

    attack(make_cluster, body, growth_max=32 * MIB)


def test_a_request_that_is_too_large_or_has_no_end_is_refused_by_what_it_claims(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        sizes = (LIMITS.message_size_max + 1, (1 << 32) - 1)
        for path, claimed_size in product((PRODUCE, PRODUCE_STREAM, CONSUME_STREAM), sizes):
            client = await victim.connect()
            client.begin_call(1, path)
            client.send_data(1, message(bytes(64), claimed_size))

            async def refused(client: BadClient = client) -> bool:
                return bool({HEADERS, RST_STREAM} & client.kinds(1))

            await until(refused, "it is refused before it is there")
            # It goes on all the same, for 32 MiB, or as far as it is let.
            for _ in range(32):
                client.send_data(1, bytes(MIB))
                await asyncio.wait([asyncio.create_task(client.drain())], timeout=0.02)

    attack(make_cluster, body, growth_max=32 * MIB)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_request_is_unpacked_to_the_limit_and_no_further(
    encoding: str, make_cluster: MakeCluster
) -> None:
    """A thousandth of what it would become fits into the window that every stream begins with."""
    zeros = bytes(60 * MIB)
    bomb = gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)
    assert len(bomb) < WINDOW_SIZE - 5

    async def body(victim: Victim) -> None:
        before = victim.memory_peak
        for path in (PRODUCE, PRODUCE_STREAM, CONSUME, "/grpc.health.v1.Health/Check"):
            client = await victim.connect()
            client.begin_call(1, path, [(b"grpc-encoding", encoding.encode())])
            client.send_data(1, message(bomb, is_compressed=True), end=True)

            async def refused(client: BadClient = client) -> bool:
                return bool({HEADERS, RST_STREAM} & client.kinds(1))

            await until(refused, "it is refused")
        await victim.serves()
        growth = victim.memory_peak - before
        print(f"{growth >> 20} MiB")
        # Two of them may be held at once.
        assert growth < 48 * MIB

    attack(make_cluster, body, growth_max=48 * MIB)


def test_requests_that_never_become_whole_cost_what_was_sent_and_no_more(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        for _ in range(4):
            client = await victim.connect()
            for number in range(LIMITS.connection_stream_count_max):
                client.begin_call(2 * number + 1, PRODUCE)
                client.send_data(2 * number + 1, message(bytes(32 << 10), 12 * MIB))
            await client.drain()
        await victim.serves()

    # 12.5 MiB were sent.
    attack(make_cluster, body, growth_max=64 * MIB)


def test_readers_that_never_read_cost_a_bounded_amount_and_no_other_its_records(
    make_cluster: MakeCluster,
) -> None:
    async def body(victim: Victim) -> None:
        record_count = 20
        # From the first large record on: what comes first is what each waits to be rid of.
        requests = (
            (CONSUME_STREAM, log_pb2.ConsumeRequest(offset=1).SerializeToString()),
            (CONSUME_BATCH, log_pb2.ConsumeBatchRequest(offset=1).SerializeToString()),
        )
        async with victim.cluster.channel("n1") as channel:
            log = log_pb2_grpc.LogStub(channel)
            for _ in range(record_count):
                await log.Produce(log_pb2.ProduceRequest(record=bytes(LIMITS.record_size_max)))
            for _ in range(5):
                client = await victim.connect()
                for number in range(LIMITS.connection_stream_count_max):
                    path, request = requests[number % 2]
                    client.begin_call(2 * number + 1, path)
                    client.send_data(2 * number + 1, message(request), end=True)
                await client.drain()
            await victim.settled()
            async with asyncio.timeout(20):
                await whole_log(log, record_count)

    # 500 readers of records of 1 MiB: 2 GB if each had one in memory, four times as gRPC does.
    attack(make_cluster, body, growth_max=600 * MIB, files_max=10)


async def whole_log(log: log_pb2_grpc.LogStub, record_count: int) -> None:
    """Read all of the log, twice, as a good consumer does."""
    for _ in range(2):
        seen = 0
        call = log.ConsumeStream(log_pb2.ConsumeRequest())
        async for _answer in call:
            seen += 1
            if seen == record_count:
                break
        call.cancel()


# --- The peer port -------------------------------------------------------------------------------

HALVES = {
    "nothing": b"",
    "half a size": b"\x40\x00",
    "half a frame": encode_message(Greeting(1, 1, Hello(node_id="n2", directory_id="d" * 32)))[:30],
    "half a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01",
}


def test_a_thousand_connections_to_the_peer_port_that_finish_nothing_disturb_no_election(
    running_cluster: ProcessCluster,
) -> None:
    cluster = running_cluster

    async def main() -> None:
        leader = await cluster.leader()
        before = await cluster.status(leader)
        assert before is not None
        victim = Victim(cluster)
        memory_size, source = victim.memory_size, Random(1)
        writers = []
        for _ in range(1000):
            _, writer = await asyncio.open_connection(victim.node.host, victim.node.peer_port)
            writer.write(source.choice(list(HALVES.values())))
            writers.append(writer)
        await victim.cluster.leader()
        growth = victim.memory_size - memory_size
        descriptors = victim.descriptor_count
        for writer in writers:
            writer.transport.abort()
        after = await cluster.status(leader)
        assert after is not None
        assert (after.leader_id, after.term) == (before.leader_id, before.term)
        assert growth < 32 * MIB
        # Sixty-four strangers at a time, and what is being closed.
        assert descriptors < 300

    asyncio.run(main())


# --- Names ---------------------------------------------------------------------------------------

NAMES = (
    *(".", "..", "../../escape", "/etc/escape", "a/b", "a\\b", "\x00", "n\x00", "a b", "\n", "-\r"),
    *(
        "\u2024\u2024/",
        "\uff0e\uff0e",
        "t\u043epic",
        "caf\u00e9",
        "\u202e",
        "~",
        "%2e%2e%2f",
        "x" * 250,
        "x" * 100_000,
    ),
)


def test_no_topic_name_becomes_a_path(make_cluster: MakeCluster) -> None:
    async def body(victim: Victim) -> None:
        async with victim.cluster.channel("n1") as channel:
            cluster = log_pb2_grpc.ClusterStub(channel)
            log = log_pb2_grpc.LogStub(channel)
            for name in NAMES:
                for call, request in (
                    (cluster.CreateTopic, log_pb2.CreateTopicRequest(topic=name)),
                    (cluster.DeleteTopic, log_pb2.DeleteTopicRequest(topic=name)),
                    (log.Produce, log_pb2.ProduceRequest(topic=name, record=b"x")),
                    (log.Consume, log_pb2.ConsumeRequest(topic=name)),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call(request)
                    assert caught.value.code() in (
                        grpc.StatusCode.INVALID_ARGUMENT,
                        grpc.StatusCode.NOT_FOUND,
                    ), name
            # These are legal, and no less harmless.
            for name in ("...", "-rf", ".hidden", "CON", "00000000000000000001"):
                await cluster.CreateTopic(log_pb2.CreateTopicRequest(topic=name))
                await log.Produce(log_pb2.ProduceRequest(topic=name, record=b"x"))
        topics = victim.node.data_dir / "groups" / "0" / "topics"
        assert all(path.name.isdecimal() and len(path.name) == 20 for path in topics.iterdir())
        beside = {path.name for path in victim.node.data_dir.parent.iterdir()}
        assert beside == {"n1", "n1.out"}

    attack(make_cluster, body, growth_max=64 * MIB, files_max=40)


def test_no_node_id_becomes_a_path() -> None:
    async def main() -> None:
        for name in ("../escape", "a/b", "..", "n\u0456", "x" * 64):
            finished = await run("serve", "--node-id", name, "--listen", "127.0.0.1:0")
            assert finished.status == EXIT_USAGE
            assert "--node-id: must be 1 to 63 of" in finished.complaint

    before = sorted(Path.cwd().iterdir())
    asyncio.run(main())
    assert sorted(Path.cwd().iterdir()) == before
