"""Leadership transfer: the target has everything before it campaigns, and who asked is told how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from distlog.consensus.messages import TimeoutNow
from distlog.consensus.transfer import LeadershipTransfer
from distlog.errors import LeadershipNotTransferred
from tests.consensus.voters import HEARTBEAT_S, Voters

# Of a story in which each voter lets a heartbeat pass several times.
TIMEOUT_S = 20 * HEARTBEAT_S


class HandOver:
    """Three voters led by `a`, and the transfer of its group."""

    def __init__(self) -> None:
        self.cluster = Voters()
        self.cluster.elect("a", "b", "c")
        self.cluster.settle("a", "b", "c")
        self.resumed = 0
        self.transfer = LeadershipTransfer(self.cluster["a"].raft, TIMEOUT_S, self._resume)

    def _resume(self) -> None:
        self.resumed += 1

    @property
    def timeouts_sent(self) -> list[str]:
        """Return who is on the way to be told to campaign."""
        told = []
        for (_, receiver), queue in self.cluster.queues.items():
            if any(isinstance(message, TimeoutNow) for message in self.cluster.decoded(queue)):
                told.append(receiver)
        return told

    def step(self) -> None:
        self.cluster.settle("a", "b", "c", rounds=1)
        self.transfer.progressed()


def story(body: Callable[[HandOver], Awaitable[None]]) -> None:
    async def run() -> None:
        await body(HandOver())

    asyncio.run(run())


def test_the_target_leads_as_soon_as_it_has_everything() -> None:
    async def body(hand_over: HandOver) -> None:
        cluster = hand_over.cluster
        cluster.propose("a", b"last")
        future = hand_over.transfer.begin("c", ())
        hand_over.transfer.progressed()
        assert hand_over.timeouts_sent == []
        hand_over.step()
        hand_over.step()
        cluster.tick("a")
        hand_over.transfer.progressed()
        assert hand_over.timeouts_sent == ["c"]
        cluster.settle("c", "a", "b")
        hand_over.transfer.progressed()
        assert cluster["c"].raft.is_ready_leader
        assert await future == "c"
        assert not hand_over.transfer.is_under_way
        assert cluster.acknowledged() == [b"last"]

    story(body)


def test_without_a_target_the_voter_that_has_most_and_may_lead_is_chosen() -> None:
    async def body(hand_over: HandOver) -> None:
        cluster = hand_over.cluster
        cluster.propose("a", b"x")
        cluster.settle("a", "c", rounds=2)
        hand_over.transfer.begin(None, ())
        hand_over.transfer.progressed()
        assert hand_over.timeouts_sent == ["c"]

    async def body_avoiding(hand_over: HandOver) -> None:
        hand_over.transfer.begin(None, {"b"})
        hand_over.transfer.progressed()
        assert hand_over.timeouts_sent == ["c"]

    story(body)
    story(body_avoiding)


def test_a_target_that_cannot_catch_up_in_time_leaves_leadership_where_it_was() -> None:
    async def body(hand_over: HandOver) -> None:
        cluster = hand_over.cluster
        cluster.propose("a", b"x")
        future = hand_over.transfer.begin("c", ())
        for _ in range(30):
            cluster.settle("a", "b", rounds=1)
            cluster.lose("c")
            hand_over.transfer.progressed()
        with pytest.raises(LeadershipNotTransferred, match="c did not catch up"):
            await future
        assert hand_over.resumed == 1
        assert cluster["a"].raft.is_leader

    story(body)


def test_a_target_that_is_told_and_does_nothing_leaves_leadership_where_it_was() -> None:
    async def body(hand_over: HandOver) -> None:
        future = hand_over.transfer.begin("c", ())
        hand_over.transfer.progressed()
        hand_over.cluster.lose("c")
        for _ in range(30):
            hand_over.cluster.settle("a", "b", rounds=1)
            hand_over.transfer.progressed()
        with pytest.raises(LeadershipNotTransferred, match="told to take over"):
            await future
        assert hand_over.resumed == 1

    story(body)


def test_a_target_whose_connection_is_lost_is_given_up_at_once() -> None:
    async def body(hand_over: HandOver) -> None:
        hand_over.cluster.propose("a", b"x")
        future = hand_over.transfer.begin("c", ())
        hand_over.cluster["a"].raft.peer_disconnected("c")
        hand_over.transfer.progressed()
        with pytest.raises(LeadershipNotTransferred):
            await future

    story(body)


@pytest.mark.parametrize(
    ("target", "avoid", "problem"),
    [
        ("a", (), "a is not another voter"),
        ("z", (), "z is not another voter"),
        (None, ("b", "c"), "no other voter"),
    ],
)
def test_nobody_to_hand_over_to_is_said_at_once(
    target: str | None, avoid: tuple[str, ...], problem: str
) -> None:
    async def body(hand_over: HandOver) -> None:
        with pytest.raises(LeadershipNotTransferred, match=problem):
            hand_over.transfer.begin(target, avoid)
        assert not hand_over.transfer.is_under_way

    story(body)


def test_a_second_request_joins_the_first_or_is_refused() -> None:
    async def body(hand_over: HandOver) -> None:
        first = hand_over.transfer.begin("c", ())
        second = hand_over.transfer.begin(None, ())
        with pytest.raises(LeadershipNotTransferred, match="to c"):
            hand_over.transfer.begin("b", ())
        hand_over.transfer.close()
        for future in (first, second):
            with pytest.raises(LeadershipNotTransferred, match="stopping"):
                await future

    story(body)


def test_only_the_leader_of_the_term_can_make_a_voter_campaign() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    raft = cluster["c"].raft
    term = raft.term
    raft.receive("b", TimeoutNow(term))
    raft.receive("a", TimeoutNow(term - 1))
    cluster.tick("c")
    assert raft.term == term
    raft.receive("a", TimeoutNow(term))
    cluster.tick("c")
    assert raft.term == term + 1


def test_of_voters_that_have_what_is_committed_the_one_that_was_there_for_longest_is_chosen() -> (
    None
):
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    raft = cluster["a"].raft
    assert raft.successors() == ["b", "c"]
    cluster.restart("b", cluster["b"].disk.kill())
    cluster.settle("a", "b", "c")
    assert raft.matched["b"] == raft.matched["c"]
    assert raft.successors() == ["c", "b"]
    cluster.propose("a", b"x")
    cluster.settle("a", "b", rounds=2)
    assert raft.successors() == ["b", "c"], "one that lacks what is committed has to catch up first"
