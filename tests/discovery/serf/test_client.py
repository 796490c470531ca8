"""The client of the agent's RPC, against an agent that is late, silent, hasty, gone, or no agent at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from distlog.discovery.serf.client import IN_FLIGHT_COUNT_MAX, AgentAddress, SerfClient
from distlog.discovery.serf.errors import (
    AgentAnswerInvalid,
    AgentNotAuthenticated,
    AgentRefused,
    AgentSilent,
    AgentUnreachable,
)
from distlog.discovery.serf.stream import WAITING_COUNT_MAX
from distlog.discovery.serf.values import Dropped, LogLine
from distlog.errors import InvalidRequest, Overloaded
from distlog.runtime import TcpNetwork
from tests.discovery.serf.fake_agent import HOST, MEMBER, FakeAgent, header, packed

MEMBERS = packed({"Members": [MEMBER]})
STATS = packed({"agent": {"name": "n1.1"}})


def with_agent(story: Callable[[FakeAgent], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), FakeAgent() as agent:
            await story(agent)

    asyncio.run(run())


def answers(command: str, seq: int, body: object) -> bytes:
    """Answer as an agent does."""
    known = {"members": MEMBERS, "stats": STATS}
    return header(seq) + known.get(command, b"")


def test_answers_are_matched_by_number_in_whatever_order_they_come() -> None:
    async def story(agent: FakeAgent) -> None:
        client = await agent.client()
        members = asyncio.create_task(client.members())
        stats = asyncio.create_task(client.stats())
        stats_seq = await agent.until_asked("stats")
        members_seq = await agent.until_asked("members")
        agent.say(header(stats_seq) + STATS + header(members_seq) + MEMBERS)
        assert (await members)[0].name == "n1.1"
        assert await stats == {"agent": {"name": "n1.1"}}
        client.close()

    with_agent(story)


def test_a_late_answer_is_never_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(agent: FakeAgent) -> None:
        client = await agent.client()
        monkeypatch.setattr("distlog.discovery.serf.client.SLOW_TIMEOUT_S", 0.05)
        with pytest.raises(AgentSilent, match="did not answer list-keys"):
            await client.list_keys()
        late = await agent.until_asked("list-keys")
        stats = asyncio.create_task(client.stats())
        seq = await agent.until_asked("stats")
        keys = {"NumNodes": 1, "NumResp": 1, "NumErr": 0, "Messages": None, "Keys": None}
        agent.say(header(late) + packed(keys) + header(seq) + STATS)
        assert await stats == {"agent": {"name": "n1.1"}}
        assert client.is_open
        client.close()

    with_agent(story)


def test_a_request_that_is_cancelled_leaves_the_others_in_step() -> None:
    async def story(agent: FakeAgent) -> None:
        client = await agent.client()
        given_up = asyncio.create_task(client.members())
        late = await agent.until_asked("members")
        given_up.cancel()
        await asyncio.wait([given_up])
        agent.say(header(late) + MEMBERS)
        agent.answer = answers
        assert await client.stats() == {"agent": {"name": "n1.1"}}
        client.close()

    with_agent(story)


def test_too_many_requests_without_an_answer_are_refused_at_once() -> None:
    async def story(agent: FakeAgent) -> None:
        client = await agent.client()
        waiting = [asyncio.create_task(client.members()) for _ in range(IN_FLIGHT_COUNT_MAX)]
        await agent.until_asked("members")
        with pytest.raises(Overloaded):
            await client.members()
        client.close()
        for task in waiting:
            with pytest.raises(AgentUnreachable):
                await task

    with_agent(story)


def test_a_request_that_is_too_large_is_refused_before_it_is_sent() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = answers
        client = await agent.client()
        with pytest.raises(InvalidRequest):
            await client.send_event("x", b"y" * 100_000)
        assert await client.members()
        client.close()

    with_agent(story)


def test_a_lost_connection_ends_everything_that_waits_and_every_later_call() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: header(seq) if command == "stream" else b""
        client = await agent.client()
        stream = await client.stream()
        waiting = asyncio.create_task(client.members())
        await agent.until_asked("members")
        agent.hang_up()
        with pytest.raises(AgentUnreachable, match="closed the connection"):
            await waiting
        with pytest.raises(AgentUnreachable):
            await anext(stream)
        with pytest.raises(AgentUnreachable):
            await client.stats()
        assert not client.is_open

    with_agent(story)


def test_an_error_is_raised_in_words_and_the_connection_goes_on() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: (
            header(seq, "2 errors:\n\t* refused\n") + packed({"Num": 0})
            if command == "join"
            else answers(command, seq, body)
        )
        client = await agent.client()
        with pytest.raises(AgentRefused, match=r"refused join: 2 errors: \* refused$"):
            await client.join(["10.0.0.1:7946"])
        assert await client.members()
        client.close()

    with_agent(story)


@pytest.mark.parametrize("error", ["Authentication required", "Unsupported command"])
def test_an_answer_before_the_body_was_read_ends_the_connection(error: str) -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: header(seq, error)
        client = await agent.client()
        wanted = AgentNotAuthenticated if error.startswith("Auth") else AgentRefused
        with pytest.raises(wanted):
            await client.join(["10.0.0.1:7946"])
        assert not client.is_open

    with_agent(story)


@pytest.mark.parametrize(
    "answer",
    [b"\xff\xff", packed({"Seq": 99, "Error": ""}), packed("hello"), b"\x91" * 10_000],
    ids=["no map", "nobody asked", "text", "nested"],
)
def test_garbage_is_an_error_in_words_and_ends_the_connection(answer: bytes) -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda *_: answer
        client = await agent.client()
        with pytest.raises(AgentAnswerInvalid, match="check that this is an agent's RPC address"):
            await client.members()
        assert not client.is_open

    with_agent(story)


def test_a_body_that_is_no_list_of_members_ends_the_connection() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: header(seq) + packed({"Members": [{"Name": 1}]})
        client = await agent.client()
        with pytest.raises(AgentAnswerInvalid):
            await client.members()
        assert not client.is_open

    with_agent(story)


def test_a_stream_that_is_not_read_is_bounded_and_says_how_much_is_missing() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: (
            header(seq) if command == "monitor" else answers(command, seq, body)
        )
        client = await agent.client()
        stream = await client.monitor()
        seq = await agent.until_asked("monitor")
        for number in range(WAITING_COUNT_MAX + 500):
            agent.say(header(seq) + packed({"Log": str(number)}))
        # What was said before it has come when this is answered.
        await client.members()
        read = [await anext(stream) for _ in range(WAITING_COUNT_MAX + 1)]
        assert read[:-1] == [LogLine(str(number)) for number in range(WAITING_COUNT_MAX)]
        assert read[-1] == Dropped(500)
        agent.say(header(seq) + packed({"Log": "next"}))
        assert await anext(stream) == LogLine("next")
        client.close()

    with_agent(story)


def test_records_that_come_after_the_stop_of_a_stream_are_dropped() -> None:
    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: (
            header(seq) if command in ("monitor", "stop") else answers(command, seq, body)
        )
        client = await agent.client()
        stream = await client.monitor()
        seq = await agent.until_asked("monitor")
        await stream.close()
        agent.say(header(seq) + packed({"Log": "late"}))
        assert await client.members()
        assert [record async for record in stream] == []
        client.close()

    with_agent(story)


def test_who_does_not_listen_is_unreachable() -> None:
    async def story() -> None:
        async with FakeAgent() as agent:
            address = agent.address
        with pytest.raises(AgentUnreachable, match="check that it runs"):
            await SerfClient.open(TcpNetwork(), address)

    asyncio.run(story())


def test_who_never_answers_the_handshake_is_silent() -> None:
    async def story() -> None:
        never = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await never.wait()
            writer.close()

        server = await asyncio.start_server(serve, HOST, 0)
        address = AgentAddress(HOST, server.sockets[0].getsockname()[1])
        with pytest.raises(AgentSilent, match="handshake"):
            await SerfClient.open(TcpNetwork(), address, timeout_s=0.1)
        never.set()
        server.close()

    asyncio.run(story())


def test_no_key_is_in_an_error_or_a_description() -> None:
    key = "c2VjcmV0"

    async def story(agent: FakeAgent) -> None:
        agent.answer = lambda command, seq, body: (
            header(seq, f"cannot decode {key}") + packed({"Keys": None})
        )
        client = await agent.client()
        with pytest.raises(AgentRefused) as raised:
            await client.install_key(key)
        assert key not in str(raised.value) + repr(raised.value)
        assert key not in repr(AgentAddress(HOST, 1, key)) + str(AgentAddress(HOST, 1, key))
        client.close()

    with_agent(story)
