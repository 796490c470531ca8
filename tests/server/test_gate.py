"""What a change of the policy costs the event loop while many streams are open."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from distlog.errors import NotAuthorized
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import PolicyDecider
from distlog.security.policy import Action, Permission, Policy
from distlog.server.gate import QUESTIONS_PER_STEP, STREAM_TOPIC_COUNT_MAX, Access, Gate
from distlog.server.permissions import Need, On
from tests.server.secured import RecordedAudit

PRODUCE = Need(Action.PRODUCE, On.EACH_TOPIC)
STREAM_COUNT, TOPIC_COUNT = 3, 500


class Counting(PolicyDecider):
    """Allows what does not begin with `forbidden`, and counts the questions."""

    def __init__(self, forbidden: str = "-") -> None:
        super().__init__(Policy([Permission("root", "*", "*")]))
        self._forbidden = forbidden
        self.asked_count = 0

    def decide(self, subject: str, action: Action, topic: str) -> bool:
        self.asked_count += 1
        return not topic.startswith(self._forbidden)


def stream(gate: Gate, name: str, topic_count: int = TOPIC_COUNT) -> Access:
    """Return a stream that has sent something to many topics."""
    access = Access(gate, "log.v1.Log.ProduceBatch", PRODUCE, "alice", "peer", is_stream=True)
    for number in range(topic_count):
        access.check(f"{name}-{number}")
    return access


def made() -> tuple[Authorizer, Gate]:
    authorizer = Authorizer(Counting())
    return authorizer, Gate(authorizer, RecordedAudit(), lambda size: bytes(size))


def test_the_topics_of_open_streams_are_asked_about_a_few_at_a_time() -> None:
    async def run() -> None:
        authorizer, gate = made()
        async with asyncio.timeout(30), AsyncExitStack() as streams:
            for name in range(STREAM_COUNT):
                await streams.enter_async_context(gate.watch(stream(gate, str(name))))
            decider = Counting()
            authorizer.replace(decider)
            steps = []
            while decider.asked_count < STREAM_COUNT * TOPIC_COUNT:
                before = decider.asked_count
                await asyncio.sleep(0)
                steps.append(decider.asked_count - before)
            assert max(steps) <= QUESTIONS_PER_STEP

    asyncio.run(run())


def test_a_stream_ends_for_the_last_of_its_topics_and_others_go_on() -> None:
    async def run() -> None:
        authorizer, gate = made()

        async def watched(name: str) -> None:
            async with gate.watch(stream(gate, name)):
                authorizer.replace(Counting(forbidden=f"b-{TOPIC_COUNT - 1}"))
                await asyncio.Event().wait()

        async with asyncio.timeout(30), gate.watch(stream(gate, "a")):
            with pytest.raises(NotAuthorized) as denied:
                await watched("b")
            assert denied.value.resource == f"b-{TOPIC_COUNT - 1}"

    asyncio.run(run())


def test_a_stream_remembers_so_many_topics_and_no_more() -> None:
    async def run() -> None:
        _, gate = made()
        assert len(stream(gate, "a", STREAM_TOPIC_COUNT_MAX + 10).topics) == STREAM_TOPIC_COUNT_MAX

    asyncio.run(run())
