"""The read index: nobody waits for ever, and nobody is answered without a majority."""

from __future__ import annotations

import asyncio

import pytest

from distlog.consensus.messages import Message
from distlog.consensus.reads import ReadIndex
from distlog.errors import NoLeader
from tests.consensus.voters import Voters


class Readers:
    """The read indexes of the voters of a cluster, which talk when a test lets them."""

    def __init__(self, cluster: Voters) -> None:
        self.sent: list[tuple[str, str, Message]] = []
        self.by_name = {
            name: ReadIndex(
                cluster[name].raft,
                lambda receiver, message, name=name: self.sent.append((name, receiver, message)),
            )
            for name in cluster.names
        }

    def exchange(self) -> None:
        while self.sent:
            sender, receiver, message = self.sent.pop(0)
            self.by_name[receiver].receive(sender, message)


def led_by_a() -> tuple[Voters, Readers]:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    return cluster, Readers(cluster)


def test_a_leader_answers_when_a_majority_has_confirmed_its_term() -> None:
    async def story() -> None:
        cluster, readers = led_by_a()
        read = asyncio.ensure_future(readers.by_name["a"].wait())
        await asyncio.sleep(0)
        assert not read.done()
        readers.exchange()
        assert await read == cluster["a"].raft.commit_index

    asyncio.run(story())


def test_a_follower_asks_the_leader_and_waits_until_it_has_applied_as_much() -> None:
    async def story() -> None:
        cluster, readers = led_by_a()
        cluster.propose("a", b"x")
        cluster.tick("a")
        cluster.exchange("a", "c")
        cluster.tick("a")
        read = asyncio.ensure_future(readers.by_name["b"].wait())
        await asyncio.sleep(0)
        readers.exchange()
        readers.by_name["b"].progressed()
        assert not read.done(), "b has not applied what a has committed"
        cluster.settle("a", "b", "c")
        readers.by_name["b"].progressed()
        assert await read <= cluster["b"].raft.last_applied

    asyncio.run(story())


def test_a_question_that_was_lost_is_asked_again() -> None:
    async def story() -> None:
        _, readers = led_by_a()
        read = asyncio.ensure_future(readers.by_name["a"].wait())
        await asyncio.sleep(0)
        # Answered by nobody: the connections broke, or the voters did not know the term yet.
        readers.sent.clear()
        readers.by_name["a"].ask_again()
        readers.exchange()
        assert await read > 0

    asyncio.run(story())


def test_who_waits_is_told_when_the_node_stops() -> None:
    async def story() -> None:
        _, readers = led_by_a()
        reads = [asyncio.ensure_future(readers.by_name[name].wait()) for name in "aab"]
        await asyncio.sleep(0)
        for name in "ab":
            readers.by_name[name].close()
        for read in reads:
            with pytest.raises(NoLeader):
                await read

    asyncio.run(story())


def test_without_a_leader_nobody_can_tell() -> None:
    async def story() -> None:
        readers = Readers(Voters())
        with pytest.raises(NoLeader):
            await readers.by_name["b"].wait()

    asyncio.run(story())
