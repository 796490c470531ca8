"""Nodes with agents that somebody else runs, among members that are no nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from distlog.discovery.serf.agent import ExternalAgent
from distlog.discovery.serf.client import AgentAddress
from distlog.discovery.serf.discovery import SerfDiscovery
from distlog.discovery.serf.errors import AgentAnswerInvalid, AgentNotAuthenticated
from distlog.discovery.view import Description, MemberStatus
from distlog.runtime import SystemClock, TcpNetwork
from tests.discovery.serf.fake_agent import FakeAgent, packed
from tests.discovery.serf.real_agents import RealAgent, needs_serf, real_agent, until
from tests.discovery.worlds import description_of, moved

ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT


def discovery_at(own: Description, address: AgentAddress, *join: str) -> SerfDiscovery:
    clock, network = SystemClock(), TcpNetwork()
    agent = ExternalAgent(address, network)
    return SerfDiscovery(own, agent, join=join, network=network, clock=clock, run=clock.wall_ms())


async def started(own: Description, agent: RealAgent, *join: str) -> SerfDiscovery:
    (await agent.client()).close()
    made = discovery_at(own, agent.address, *join)
    await made.start()
    return made


def status(discovery: SerfDiscovery, node_id: str) -> MemberStatus | None:
    member = discovery.members().get(node_id)
    return member.status if member else None


@contextmanager
def two_agents(directory: Path) -> Iterator[tuple[RealAgent, RealAgent]]:
    with (
        real_agent(directory, "east", tags={"role": "web"}) as east,
        real_agent(directory, "west", retry_join=[east.gossip]) as west,
    ):
        yield east, west


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await story()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    asyncio.run(limited())


@needs_serf
def test_nodes_find_each_other_and_a_node_that_goes_leaves_the_agent_alone(tmp_path: Path) -> None:
    async def story() -> None:
        with two_agents(tmp_path) as (east, west):
            n1 = await started(description_of("n1"), east)
            n2 = await started(description_of("n2"), west)
            await until(lambda: status(n1, "n2") is status(n2, "n1") is ALIVE, "both are seen")
            n2.announce(moved(description_of("n2"), "elsewhere"))
            await until(
                lambda: n1.members()["n2"].description.peer_address == "elsewhere:8401",
                "what n2 says now is seen",
            )
            await n2.close()
            await until(lambda: status(n1, "n2") is FAILED, "n2 has stopped")
            n2 = await started(description_of("n2"), west)
            await until(lambda: status(n1, "n2") is ALIVE, "n2 is back")
            await n2.leave()
            await until(lambda: status(n1, "n2") is LEFT, "n2 has left")
            client = await west.client()
            assert {each.status for each in await client.members()} == {"alive"}
            tags = {each.name: each.tags for each in await client.members()}
            assert tags["east"]["role"] == "web"
            client.close()
            await n1.close()

    run(story)


@needs_serf
def test_members_that_are_no_nodes_of_this_cluster_are_counted_and_not_shown(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        with (
            two_agents(tmp_path) as (east, west),
            real_agent(tmp_path, "web", retry_join=[east.gossip]),
        ):
            n1 = await started(description_of("n1"), east)
            other = replace(description_of("n2"), cluster_id="another")
            n2 = await started(other, west)
            await until(lambda: n1.other_cluster_count == 1, "the other cluster is counted")
            await until(lambda: n1.stranger_count == 1, "the stranger is counted")
            assert list(n1.members()) == ["n1"]
            assert list(n2.members()) == ["n2"]
            await n1.close()
            await n2.close()

    run(story)


@needs_serf
def test_agents_that_do_not_know_each_other_are_told_to_join(tmp_path: Path) -> None:
    async def story() -> None:
        with real_agent(tmp_path, "east") as east, real_agent(tmp_path, "west") as west:
            n1 = await started(description_of("n1"), east)
            n2 = await started(description_of("n2"), west, west.gossip, east.gossip)
            await until(lambda: status(n1, "n2") is status(n2, "n1") is ALIVE, "both are seen")
            await n1.close()
            await n2.close()

    run(story)


@needs_serf
def test_an_agent_that_was_restarted_gets_its_tags_again(tmp_path: Path) -> None:
    async def story() -> None:
        with two_agents(tmp_path) as (east, west):
            n1 = await started(description_of("n1"), east)
            n2 = await started(description_of("n2"), west)
            await until(lambda: status(n1, "n2") is ALIVE, "n2 is seen")
            west.kill()
            west.start()

            async def has_tags() -> bool:
                client = await west.client()
                tags = {each.name: each.tags for each in await client.members()}
                client.close()
                return tags.get("west", {}).get("distlog.id") == "n2"

            await until(has_tags, "the tags are set again")
            await until(lambda: status(n1, "n2") is ALIVE, "n2 is seen again")
            await until(lambda: n2.age_s() < 1.5, "n2 has a view again")
            await n1.close()
            await n2.close()

    run(story)


@needs_serf
def test_an_agent_may_come_later_than_its_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        with real_agent(tmp_path, "east") as east:
            (await east.client()).close()
            east.kill()
            n1 = discovery_at(description_of("n1"), east.address)
            await n1.start()
            assert "no Serf agent answers" in caplog.text
            await until(lambda: n1.age_s() > 0.5, "nothing is confirmed")
            east.start()
            await until(lambda: n1.age_s() < 0.5, "the view is true")
            await n1.close()

    run(story)


@needs_serf
def test_a_wrong_key_keeps_the_node_from_starting(tmp_path: Path) -> None:
    async def story() -> None:
        with real_agent(tmp_path, "east") as east:
            (await east.client()).close()
            wrong = AgentAddress(east.address.host, east.address.port, "wrong")
            with pytest.raises(AgentNotAuthenticated, match="--serf-rpc-auth-file"):
                await discovery_at(description_of("n1"), wrong).start()

    run(story)


def test_a_program_that_is_no_agent_keeps_the_node_from_starting() -> None:
    async def story() -> None:
        async with FakeAgent() as stranger:
            stranger.greeting = packed("220 mail.example ESMTP")
            with pytest.raises(AgentAnswerInvalid, match="no Serf agent"):
                await discovery_at(description_of("n1"), stranger.address).start()
        await stranger.closed()

    run(story)


def test_an_agent_that_lies_costs_the_view_nothing_but_its_age() -> None:
    async def story() -> None:
        async with FakeAgent() as liar:
            liar.answer = lambda command, seq, body: packed({"Seq": seq, "Error": ""}, [1, 2])
            n1 = discovery_at(description_of("n1"), liar.address)
            await n1.start()
            await liar.until_asked("stats")
            await until(lambda: n1.age_s() > 0.2, "the view ages")
            assert list(n1.members()) == ["n1"]
            await n1.close()
        await liar.closed()

    run(story)
