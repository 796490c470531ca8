"""What a node that leaves is told when those it asks answer badly; whole clusters that leave are in tests/simulation/test_reconcile.py."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from distlog.consensus.configuration import Configuration
from distlog.consensus.reads import no_leader
from distlog.errors import MemberNotFound, OutcomeUnknown, Unreachable
from distlog.membership.departure import Departure

NODES = ("n1", "n2", "n3")
UNKNOWN = OutcomeUnknown(cause="the connection broke")
AWAY = Unreachable(addresses="n2:8400", problem="nobody listens")


class Cluster:
    """Members of whom nobody leads, as one of them sees it; they answer as they are told to, the last answer again and again."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []
        self.is_announced = False
        self.configuration = Configuration("c", dict.fromkeys(NODES, "d"))
        self.raft = SimpleNamespace(replicas=SimpleNamespace(directory_id="d"))
        self.is_leader = False

    def status(self, *, with_topics: bool) -> Any:
        members = [SimpleNamespace(node_id=each, client_address=f"{each}:8400") for each in NODES]
        return SimpleNamespace(leader_address="", members=members)

    async def remove_member(self, place: tuple[str, int], _member: object) -> None:
        self.asked.append(place)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer

    async def leave(self) -> None:
        self.is_announced = True


async def left(cluster: Cluster, timeout_s: float = 1.0) -> Departure:
    anything: Any = cluster
    departure = Departure(
        SimpleNamespace(node_id="n1"), anything, anything, anything, lambda: anything
    )  # type: ignore[arg-type]
    await departure.leave(timeout_s)
    return departure


def test_without_a_leader_the_others_are_asked_in_turns_and_never_the_node_itself() -> None:
    cluster = Cluster(no_leader("an election"), no_leader("an election"), None)
    departure = asyncio.run(left(cluster))
    assert departure.left.done()
    assert cluster.is_announced
    assert sorted(set(cluster.asked)) == [("n2", 8400), ("n3", 8400)]


@pytest.mark.parametrize(
    "answers", [(UNKNOWN,), (UNKNOWN, AWAY), (AWAY, UNKNOWN, no_leader("an election"))]
)
def test_what_was_once_in_doubt_is_not_denied_by_those_who_do_not_know(
    answers: tuple[Exception, ...],
) -> None:
    cluster = Cluster(*answers)
    with pytest.raises(OutcomeUnknown, match="ask it to leave again"):
        asyncio.run(left(cluster, 0.7))
    assert not cluster.is_announced


def test_doubt_ends_when_a_leader_does_not_find_the_member() -> None:
    cluster = Cluster(UNKNOWN, AWAY, MemberNotFound(node_id="n1"))
    assert asyncio.run(left(cluster)).left.done()


def test_without_doubt_the_last_refusal_is_told() -> None:
    with pytest.raises(Unreachable, match="nobody listens"):
        asyncio.run(left(Cluster(no_leader("an election"), AWAY), 0.5))


def test_what_one_caller_is_told_is_no_word_about_what_another_has_asked() -> None:
    class Slow(Cluster):
        """Refuses the first question after the second was answered, with doubt."""

        has_answered = asyncio.Event()

        async def remove_member(self, place: tuple[str, int], _member: object) -> None:
            self.asked.append(place)
            number = len(self.asked)
            if number == 1:
                await self.has_answered.wait()
            if number == 2:
                self.has_answered.set()
                raise UNKNOWN
            raise no_leader("an election")

    async def scenario() -> None:
        anything: Any = Slow(None)
        departure = Departure(
            SimpleNamespace(node_id="n1"), anything, anything, anything, lambda: anything
        )  # type: ignore[arg-type]
        asked = [asyncio.create_task(departure.leave(0.3)) for _ in range(2)]
        await asyncio.wait(asked)
        assert [type(each.exception()) for each in asked] == [OutcomeUnknown] * 2

    asyncio.run(scenario())


def test_a_node_that_was_removed_stops_also_when_nobody_waits_for_the_answer_any_more() -> None:
    class Hurried(Cluster):
        """Whoever asked is gone while discovery is told."""

        async def leave(self) -> None:
            raise asyncio.CancelledError

    async def scenario() -> None:
        anything: Any = Hurried(None)
        departure = Departure(
            SimpleNamespace(node_id="n1"), anything, anything, anything, lambda: anything
        )  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await departure.leave(1.0)
        assert departure.left.done()

    asyncio.run(scenario())
