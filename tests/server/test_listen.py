"""Binding the address, and stopping: nothing hangs, nothing is lost, everybody is told."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from distlog import errors
from distlog.addresses import is_loopback
from distlog.api.log.v1 import log_pb2
from distlog.server.limits import ServerLimits
from distlog.server.listen import Listener, socket_address
from tests.server.fake_replicated_log import FakeReplicatedLog
from tests.server.serving import Serving, refusal, serve
from tests.server.test_consume_stream import fill, settled, tail

PRODUCE = log_pb2.ProduceRequest(record=b"x")


def listener(host: str, port: int = 0, *, insecure: bool = False) -> Listener:
    return Listener(
        FakeReplicatedLog(), host=host, port=port, insecure=insecure, random_bytes=bytes, now=float
    )


def test_an_address_in_use_is_refused_with_the_flag_to_change() -> None:
    async def body(server: Serving) -> None:
        with pytest.raises(errors.AddressUnavailable) as caught:
            await listener("127.0.0.1", server.port).start()
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{server.port}: it is in use, or it is not an address of this machine; "
            "stop what uses it, or choose another --listen"
        )
        # The first one is not disturbed.
        assert (await server.log.Produce(PRODUCE)).offset == 0

    serve(body)


def test_a_port_can_be_used_again_after_a_stop() -> None:
    async def body(server: Serving) -> None:
        await server.listener.stop()
        again = listener("127.0.0.1", server.port)
        assert await again.start() == server.port
        await again.stop()

    serve(body)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "node.example"])
def test_an_address_beyond_loopback_must_be_meant(host: str) -> None:
    async def body() -> None:
        with pytest.raises(errors.ConfigurationInvalid) as caught:
            await listener(host).start()
        assert caught.value.key == "listen"
        assert "--insecure" in str(caught.value)

    asyncio.run(body())


def test_an_address_that_is_not_of_this_machine_is_unavailable_even_when_meant() -> None:
    async def body() -> None:
        with pytest.raises(errors.AddressUnavailable):
            await listener("192.0.2.1", insecure=True).start()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("host", "expected", "address"),
    [
        ("127.0.0.1", True, "127.0.0.1:7"),
        ("127.8.9.10", True, "127.8.9.10:7"),
        ("::1", True, "[::1]:7"),
        ("localhost", True, "127.0.0.1:7"),
        ("0.0.0.0", False, "0.0.0.0:7"),
        ("::", False, "[::]:7"),
        ("localhost.example", False, "localhost.example:7"),
        ("", False, ":7"),
    ],
)
def test_only_loopback_addresses_are_loopback(host: str, expected: bool, address: str) -> None:
    assert is_loopback(host) is expected
    assert socket_address(host, 7) == address


def test_a_stop_with_a_thousand_tails_takes_less_than_five_seconds() -> None:
    async def body(server: Serving) -> None:
        channels = [server.open_channel() for _ in range(10)]
        tails = [
            channel.unary_stream("/log.v1.Log/ConsumeStream")(b"")
            for channel in channels
            for _ in range(100)
        ]
        await server.fake.until(lambda: len(server.fake.waiting) == len(tails))
        async with asyncio.timeout(5):
            await server.listener.stop()
        assert server.fake.waiting == {}
        for stream in tails:
            refused = await refusal(stream.read())
            assert refused.code == grpc.StatusCode.UNAVAILABLE
            assert isinstance(refused.error, errors.ShuttingDown)
        for channel in channels:
            await channel.close()

    serve(body)


def test_a_stop_cuts_a_write_that_does_not_end() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        writing = asyncio.ensure_future(refusal(server.log.Produce(PRODUCE)))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        await server.listener.stop(timeout_s=0.05)
        # From the transport, so the client takes the outcome as unknown.
        assert (await writing).error is None

    serve(body)


def test_new_calls_are_told_that_the_node_stops_while_old_ones_end() -> None:
    async def body(server: Serving) -> None:
        server.fake.holding = True
        writing = asyncio.ensure_future(answer(server.log.Produce(PRODUCE)))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        stopping = asyncio.ensure_future(server.listener.stop(timeout_s=20))
        for call in (
            server.log.Produce(PRODUCE),
            server.log.ProduceStream(iter([PRODUCE])).read(),
            tail(server).read(),
            server.cluster.Status(log_pb2.StatusRequest()),
        ):
            refused = await refusal(call)
            assert refused.code == grpc.StatusCode.UNAVAILABLE
            assert isinstance(refused.error, errors.ShuttingDown)
        assert len(server.fake.proposed) == 1
        assert not stopping.done()
        server.fake.release()
        assert (await writing).offset == 0
        await stopping

    serve(body)


def test_a_stop_does_not_wait_for_a_reader_that_does_not_read() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stream = tail(server)
        await stream.read()
        await settled(server, lambda: len(server.fake.read_sizes))
        async with asyncio.timeout(5):
            await server.listener.stop(timeout_s=0.5)
        assert server.listener.tail_count == 0

    serve(body)


def test_a_stop_does_not_wait_for_an_idle_produce_stream() -> None:
    async def body(server: Serving) -> None:
        stream = server.log.ProduceStream()
        await stream.write(PRODUCE)
        assert (await stream.read()).offset == 0
        async with asyncio.timeout(5):
            await server.listener.stop(timeout_s=20)
        assert isinstance((await refusal(stream.read())).error, errors.ShuttingDown)

    serve(body)


def test_a_second_stop_and_a_stop_without_a_start_do_nothing() -> None:
    async def body(server: Serving) -> None:
        await server.listener.stop()
        await server.listener.stop()
        await listener("127.0.0.1").stop()

    serve(body)


async def answer(call: Any) -> Any:
    return await call


def test_connections_beyond_the_limit_are_closed_and_those_within_it_served() -> None:
    async def body() -> None:
        limited = Listener(
            FakeReplicatedLog(),
            host="127.0.0.1",
            port=0,
            insecure=False,
            random_bytes=bytes,
            now=float,
            limits=ServerLimits(connection_count_max=2),
        )
        port = await limited.start()
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        try:
            for reader, _ in connections:
                # A server of HTTP/2 speaks first.
                assert await reader.read(1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            # One that goes makes room for another.
            connections.pop()[1].close()
            assert await served(port)
        finally:
            for _, writer in connections:
                writer.close()
            await limited.stop()

    asyncio.run(body())


async def served(port: int) -> bool:
    """Tell whether a new connection is served within the time of a test."""
    async with asyncio.timeout(10):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            found = await reader.read(1)
            writer.close()
            if found:
                return True
