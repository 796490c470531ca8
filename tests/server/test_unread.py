"""Consumers that do not read: what they leave in memory is limited, and who reads is served all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from distlog import errors
from distlog.errors import Overloaded
from distlog.server.consume_stream import READ_SIZE
from distlog.server.limits import ServerLimits
from distlog.server.unread import Unread
from tests.server.serving import Serving, refusal, serve
from tests.server.test_consume_stream import RECORD_COUNT, fill, read, settled, tail

LIMITS = ServerLimits(
    connection_unread_size_max=100, unread_size_max=150, unread_timeout_s=float("inf")
)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await body()

    asyncio.run(main())


async def steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_readers_of_a_connection_wait_for_each_other() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as first, unread.reader("a") as second:
            await first.room_for(70)
            waiting = asyncio.create_task(second.room_for(40))
            await steps()
            assert not waiting.done()
            first.release()
            await waiting
            assert unread.size == 40
        assert unread.size == 0

    run(body)


def test_all_readers_that_wait_get_room_when_there_is_some() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as first, unread.reader("a") as second, unread.reader("a") as third:
            await first.room_for(90)
            waiting = [asyncio.create_task(each.room_for(40)) for each in (second, third)]
            await steps()
            first.release()
            await asyncio.gather(*waiting)
            assert unread.size == 80

    run(body)


def test_a_reader_that_wants_room_again_lets_those_go_first_that_wait() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as fast, unread.reader("a") as second, unread.reader("a") as third:
            await fast.room_for(100)
            waiting = [asyncio.create_task(each.room_for(100)) for each in (second, third)]
            await steps()

            async def read_on() -> None:
                fast.release()
                await fast.room_for(100)

            again = asyncio.create_task(read_on())
            await waiting[0]
            second.release()
            await waiting[1]
            assert not again.done()
            third.release()
            await again

    run(body)


def test_a_connection_that_holds_nothing_gets_room_whatever_the_others_hold() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as a, unread.reader("b") as b, unread.reader("c") as c:
            await a.room_for(500)
            await b.room_for(100)
            await c.room_for(100)
            assert unread.size == 700

    run(body)


def test_a_second_reader_waits_while_all_connections_together_hold_too_much() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as a, unread.reader("b") as b, unread.reader("b") as second:
            await a.room_for(100)
            await b.room_for(10)
            waiting = asyncio.create_task(second.room_for(60))
            await steps()
            assert not waiting.done()
            a.release()
            await waiting

    run(body)


def test_a_read_that_turns_out_larger_than_the_room_is_not_held() -> None:
    async def body() -> None:
        unread = Unread(LIMITS)
        with unread.reader("a") as first, unread.reader("a") as second:
            await first.room_for(50)
            await second.room_for(50)
            assert not second.has_read(51)
            assert unread.size == 50
            assert first.has_read(60)
            assert unread.size == 60

    run(body)


def test_who_waits_too_long_is_told_what_for() -> None:
    async def body() -> None:
        limits = ServerLimits(connection_unread_size_max=100, unread_timeout_s=0)
        unread = Unread(limits)
        with unread.reader("a") as first, unread.reader("a") as second:
            await first.room_for(100)
            with pytest.raises(Overloaded, match="have not read"):
                await second.room_for(1)
            first.release()
            await second.room_for(1)

    run(body)


def test_tails_that_are_not_read_leave_room_for_those_of_other_connections() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stuck = [tail(server)]
        await stuck[0].read()
        stuck += [tail(server) for _ in range(2)]
        await settled(server, lambda: len(server.fake.read_sizes))
        async with server.open_channel() as channel:
            other = channel.unary_stream("/log.v1.Log/ConsumeStream")(b"")
            for _ in range(RECORD_COUNT):
                assert await other.read() is not grpc.aio.EOF
            other.cancel()
        for each in stuck:
            each.cancel()

    serve(body, ServerLimits(connection_unread_size_max=READ_SIZE, unread_size_max=READ_SIZE))


def test_a_tail_that_finds_no_room_for_long_ends_with_overloaded() -> None:
    async def body(server: Serving) -> None:
        fill(server.fake)
        stuck = tail(server)
        await stuck.read()
        await settled(server, lambda: len(server.fake.read_sizes))
        refused = await refusal(tail(server).read())
        assert isinstance(refused.error, errors.Overloaded)
        # The one that has room goes on.
        assert len(await read(stuck, 20)) == 20
        stuck.cancel()

    serve(body, ServerLimits(connection_unread_size_max=1, unread_timeout_s=0.05))
