"""Handing leadership over: nothing new is proposed until another voter has everything, and then that one campaigns at once.

    begin -> proposals wait -> all that was proposed is applied here and on the target's disk -> TimeoutNow -> another node leads
                                                                          or the time is up -> proposals are taken again

So no append is left with an unknown outcome: what was proposed is answered before, and what waits was not written and goes to the new
leader.  An election without a hand-over needs the followers to miss the leader first; this one takes two round trips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from distlog.consensus.raft import Raft
from distlog.errors import LeadershipNotTransferred

# However long the election time-outs are: appends wait meanwhile, and a target that is well needs milliseconds.
TIMEOUT_MAX_S = 2.0


@dataclass(slots=True)
class _HandOver:
    """One hand-over under way."""

    target: str
    # On Raft's clock: when to give up.
    end: float
    # Whether the target was told to campaign.
    is_told: bool = False
    waiters: list[asyncio.Future[str]] = field(default_factory=list)


class LeadershipTransfer:
    """The hand-over of one group, if there is one."""

    def __init__(self, raft: Raft, timeout_s: float, resume: Callable[[], None]) -> None:
        """timeout_s: after which the leader leads on, TIMEOUT_MAX_S at most.

        resume() is called when proposals may be taken again, since nobody took over.
        """
        self._raft = raft
        self._timeout_s = min(timeout_s, TIMEOUT_MAX_S)
        self._resume = resume
        self._under_way: _HandOver | None = None

    @property
    def is_under_way(self) -> bool:
        """Tell whether nothing may be proposed now."""
        return self._under_way is not None

    def begin(self, target: str | None, avoid: Collection[str]) -> asyncio.Future[str]:
        """Begin, or join the hand-over that is under way if it has that target or none is asked for.

        The future carries the id of the new leader.  It, and this call, raise LeadershipNotTransferred.
        """
        current = self._under_way
        if current is None:
            chosen = self._chosen(target, avoid)
            current = self._under_way = _HandOver(chosen, self._raft.now + self._timeout_s)
        elif target not in (None, current.target):
            raise LeadershipNotTransferred(problem=f"it is being handed over to {current.target}")
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        current.waiters.append(future)
        return future

    def _chosen(self, target: str | None, avoid: Collection[str]) -> str:
        raft = self._raft
        if not raft.is_leader:
            raise LeadershipNotTransferred(problem="this node does not lead")
        if target is not None:
            if target not in raft.voters:
                raise LeadershipNotTransferred(problem=f"{target} is not another voter")
            if target not in raft.replicas.reachable:
                raise LeadershipNotTransferred(problem=f"{target} is not connected")
            return target
        candidates = [voter for voter in raft.successors() if voter not in avoid]
        if not candidates:
            raise LeadershipNotTransferred(problem="no other voter that may lead is connected")
        return candidates[0]

    def progressed(self) -> None:
        """Call after each step: the target may have everything, or lead."""
        current, raft = self._under_way, self._raft
        if current is None:
            return
        if not raft.is_leader and raft.leader_id is not None:
            self._under_way = None
            for waiter in current.waiters:
                if not waiter.done():
                    waiter.set_result(raft.leader_id)
        elif raft.now >= current.end or not self._may_succeed(current):
            self._give_up(current)
        elif raft.is_leader and not current.is_told and raft.has_everything(current.target):
            current.is_told = True
            raft.send_timeout_now(current.target)

    def _may_succeed(self, current: _HandOver) -> bool:
        # A target that was told may have lost the connection and win all the same.
        return current.is_told or current.target in self._raft.replicas.reachable

    def _give_up(self, current: _HandOver) -> None:
        self._under_way = None
        if current.is_told:
            problem = f"{current.target} was told to take over and did not"
        else:
            problem = f"{current.target} did not catch up in time"
        _fail(current, problem)
        self._resume()

    def close(self) -> None:
        """Fail those who wait."""
        current, self._under_way = self._under_way, None
        if current is not None:
            _fail(current, "this node is stopping")


def _fail(hand_over: _HandOver, problem: str) -> None:
    for waiter in hand_over.waiters:
        if not waiter.done():
            waiter.set_exception(LeadershipNotTransferred(problem=problem))
