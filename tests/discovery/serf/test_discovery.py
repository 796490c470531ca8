"""The backend against an agent that answers what the test wants: how often it is asked, and how it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distlog.discovery.serf.agent import ExternalAgent
from distlog.discovery.serf.discovery import SerfDiscovery, SerfSettings
from distlog.discovery.serf.tags import TaggedNode, tags_of
from distlog.discovery.view import MemberStatus
from distlog.runtime import SystemClock, TcpNetwork
from tests.discovery.serf.fake_agent import FakeAgent, header, packed
from tests.discovery.serf.real_agents import until
from tests.discovery.worlds import description_of


class Gossip:
    """What a fake agent knows: answers for a FakeAgent."""

    def __init__(self) -> None:
        self.own: dict[str, str] = {}
        self.others: list[dict[str, Any]] = []
        self.forced: list[str] = []
        self.look_count = 0

    def add(self, node_id: str, run: int, status: str) -> None:
        tags = tags_of(TaggedNode(description_of(node_id), run))
        self.others.append(
            {**member(f"{node_id}.{run}", len(self.others) + 2), "Tags": tags, "Status": status}
        )

    def answer(self, command: str, seq: int, body: Any) -> bytes:
        match command:
            case "stats":
                return header(seq) + packed({"agent": {"name": "own"}})
            case "members":
                self.look_count += 1
                own = {**member("own", 1), "Tags": self.own}
                return header(seq) + packed({"Members": [own, *self.others]})
            case "tags":
                self.own = {**self.own, **body["Tags"]}
            case "force-leave":
                # It is heard, and nothing becomes of it.
                self.forced.append(body["Node"])
        return header(seq)


def member(name: str, number: int) -> dict[str, Any]:
    return {"Name": name, "Addr": bytes([10, 0, 0, number]), "Port": 7946, "Status": "alive"}


def discovery_at(agent: FakeAgent) -> SerfDiscovery:
    network = TcpNetwork()
    return SerfDiscovery(
        description_of("n1"),
        ExternalAgent(agent.address, network),
        network=network,
        clock=SystemClock(),
        run=10,
        settings=SerfSettings(stop_timeout_s=0.2),
    )


def with_gossip(story: Callable[[FakeAgent, Gossip, SerfDiscovery], Awaitable[None]]) -> None:
    async def run() -> None:
        gossip = Gossip()
        async with asyncio.timeout(30), FakeAgent(gossip.answer) as agent:
            await story(agent, gossip, discovery_at(agent))
        await agent.closed()

    asyncio.run(run())


def test_an_agent_is_not_asked_without_a_pause_whatever_wakes_the_node() -> None:
    async def story(agent: FakeAgent, gossip: Gossip, n1: SerfDiscovery) -> None:
        # A name that is to be cleaned up, and stays as it is.
        gossip.add("n2", 1, "failed")
        gossip.add("n2", 2, "alive")
        began = asyncio.get_running_loop().time()
        await n1.start()
        await until(lambda: len(gossip.forced) >= 5, "it is tried again")
        took_s = asyncio.get_running_loop().time() - began
        assert gossip.look_count <= 2 + took_s / 0.05
        assert set(gossip.forced) == {"n2.1"}
        assert n1.members()["n2"].status is MemberStatus.ALIVE
        await n1.close()

    with_gossip(story)


def test_what_is_to_be_forgotten_waits_for_the_next_agent() -> None:
    async def story(agent: FakeAgent, gossip: Gossip, n1: SerfDiscovery) -> None:
        gossip.add("n2", 1, "failed")
        await n1.start()
        await until(lambda: "n2" in n1.members(), "n2 is seen")
        agent.hang_up()
        n1.forget("n2")
        n1.forget("n3")
        await until(lambda: "n2.1" in gossip.forced, "it is forgotten")
        await n1.close()

    with_gossip(story)


def test_a_connection_that_is_lost_while_it_closes_holds_nothing_up() -> None:
    async def story(agent: FakeAgent, gossip: Gossip, _: SerfDiscovery) -> None:
        for turns in range(20):
            n1, looks = discovery_at(agent), gossip.look_count
            await n1.start()
            await until(lambda looks=looks: gossip.look_count > looks, "it looks")  # type: ignore[misc]
            agent.hang_up()
            # Anywhere between the loss and the moment when it is noticed.
            for _ in range(turns):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await n1.close()

    with_gossip(story)
