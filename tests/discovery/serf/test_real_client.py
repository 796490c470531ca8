"""Every command of the client, against the real agent."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from distlog.discovery.serf.client import AgentAddress, SerfClient
from distlog.discovery.serf.errors import (
    AgentAnswerInvalid,
    AgentNotAuthenticated,
    AgentRefused,
    AgentUnreachable,
)
from distlog.discovery.serf.values import (
    AgentStatus,
    LogLine,
    MemberEvent,
    QueryAcknowledged,
    QueryAnswered,
    QueryReceived,
    UserEvent,
)
from distlog.runtime import TcpNetwork
from tests.discovery.serf.real_agents import RealAgent, needs_serf, real_agent, until

pytestmark = needs_serf
Story = Callable[[RealAgent, SerfClient], Awaitable[None]]


def with_agent(directory: Path, story: Story, **configuration: object) -> None:
    async def run() -> None:
        with real_agent(directory, "one", **configuration) as agent:
            client = await agent.client()
            async with asyncio.timeout(60):
                await story(agent, client)
            client.close()

    asyncio.run(run())


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


async def status_of(client: SerfClient, name: str) -> AgentStatus | None:
    return next((each.status for each in await client.members() if each.name == name), None)


def test_members_with_their_tags_and_addresses(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        (member,) = await client.members()
        assert (member.name, member.status) == ("one", AgentStatus.ALIVE)
        assert f"{member.host}:{member.port}" == agent.gossip
        assert member.tags == {"role": "x"}
        assert await client.members_filtered(tags={"role": "x|y"}, status="alive") == [member]
        assert await client.members_filtered(name="two") == []
        assert (await client.stats())["agent"]["name"] == "one"
        coordinate = await client.coordinate("one")
        assert coordinate is not None
        assert len(coordinate.vector) == 8
        assert await client.coordinate("two") is None

    with_agent(tmp_path, story, tags={"role": "x"})


def test_tags_are_set_and_deleted_and_need_not_be_utf_8(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        await client.set_tags({"a": "1", "b": "\udcff"}, delete=["role"])
        assert (await client.members())[0].tags == {"a": "1", "b": "\udcff"}
        with pytest.raises(AgentRefused, match="exceeds limit of 512 bytes"):
            await client.set_tags({"a": "x" * 600})
        assert (await client.members())[0].tags["a"] == "1"

    with_agent(tmp_path, story, tags={"role": "x"})


def test_joining_leaving_and_being_forgotten(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        with pytest.raises(AgentRefused, match="refused join"):
            await client.join(["127.0.0.1:1"])
        with real_agent(tmp_path, "two") as two, real_agent(tmp_path, "three") as three:
            for other in (two, three):
                (await other.client()).close()
            assert await client.join([two.gossip, three.gossip]) == 2
            assert await status_of(client, "two") is AgentStatus.ALIVE
            await (await two.client()).leave()
            assert two.process is not None
            assert await asyncio.to_thread(two.process.wait) == 0
            await until(lambda: is_(client, "two", AgentStatus.LEFT), "two has left")
            three.kill()
            await until(lambda: is_(client, "three", AgentStatus.FAILED), "three is missed")
            await client.force_leave("three")
            await until(lambda: is_(client, "three", AgentStatus.LEFT), "three is forgotten")
            await client.force_leave("three", prune=True)
            await until(lambda: is_(client, "three", None), "three is gone")
            await client.force_leave("nobody")

    with_agent(tmp_path, story)


async def is_(client: SerfClient, name: str, status: AgentStatus | None) -> bool:
    return await status_of(client, name) is status


def test_events_come_on_streams_until_they_are_closed(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        events, log = await client.stream(), await client.monitor("debug")
        await client.send_event("deploy", b"\xff\x00", coalesce=False)
        seen = [await anext(events), await anext(events)]
        assert {type(each) for each in seen} == {MemberEvent, UserEvent}
        (user,) = [each for each in seen if isinstance(each, UserEvent)]
        assert (user.name, user.payload, user.is_coalesced) == ("deploy", b"\xff\x00", False)
        assert isinstance(await anext(log), LogLine)
        await events.close()
        await log.close()
        await client.send_event("later")
        assert await client.members()
        assert [each async for each in events] == []

    with_agent(tmp_path, story)


def test_queries_are_acknowledged_and_answered_and_end(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        events = await client.stream("query")
        asked = await client.query("uptime", b"\x01", acknowledge=True, timeout_s=2)
        query = await anext(events)
        assert isinstance(query, QueryReceived)
        assert (query.name, query.payload) == ("uptime", b"\x01")
        await client.respond(query.number, b"long")
        answers = [each async for each in asked]
        assert sorted(answers, key=repr) == [
            QueryAcknowledged("one"),
            QueryAnswered("one", b"long"),
        ]

    with_agent(tmp_path, story)


def test_keys_are_rolled_without_an_interruption(tmp_path: Path) -> None:
    first, second = new_key(), new_key()

    async def story(agent: RealAgent, client: SerfClient) -> None:
        assert (await client.list_keys()).counts == {first: 1}
        assert (await client.install_key(second)).error_count == 0
        assert (await client.use_key(second)).answer_count == 1
        await client.remove_key(first)
        assert (await client.list_keys()).counts == {second: 1}
        with pytest.raises(AgentRefused):
            await client.install_key("no key")

    with_agent(tmp_path, story, encrypt_key=first)


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_for_the_rpc_is_told_from_everything_else(tmp_path: Path, key: str) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        address = AgentAddress(agent.address.host, agent.address.port, key)

        async def ask() -> None:
            await (await SerfClient.open(TcpNetwork(), address)).members()

        with pytest.raises(AgentNotAuthenticated, match="--serf-rpc-auth-file"):
            await ask()

    with_agent(tmp_path, story)


def test_a_filter_that_is_no_expression_costs_the_connection(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        with pytest.raises(AgentUnreachable):
            await client.members_filtered(name="(")
        assert (await (await agent.client()).members())[0].name == "one"

    with_agent(tmp_path, story)


def test_the_gossip_port_is_not_taken_for_the_rpc(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        host, _, port = agent.gossip.rpartition(":")
        # What it says, or whether it hangs up, depends on how it reads our bytes.
        with pytest.raises((AgentAnswerInvalid, AgentUnreachable), match="RPC address"):
            await SerfClient.open(TcpNetwork(), AgentAddress(host, int(port), "key"), timeout_s=30)

    with_agent(tmp_path, story)


def test_many_requests_at_once_get_their_own_answers(tmp_path: Path) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        async def ask(number: int) -> None:
            for _ in range(50):
                if number % 2:
                    assert (await client.stats())["agent"]["name"] == "one"
                else:
                    assert [each.name for each in await client.members()] == ["one"]

        await asyncio.gather(*(ask(number) for number in range(8)))

    with_agent(tmp_path, story)


def test_a_killed_agent_ends_what_waits_and_the_next_one_is_another_connection(
    tmp_path: Path,
) -> None:
    async def story(agent: RealAgent, client: SerfClient) -> None:
        stream = await client.stream("user:never")
        agent.kill()
        with pytest.raises(AgentUnreachable):
            await anext(stream)
        with pytest.raises(AgentUnreachable):
            await client.members()
        agent.start()
        assert (await (await agent.client()).members())[0].name == "one"

    with_agent(tmp_path, story)
