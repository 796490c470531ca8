"""Read index: what a node must have applied before it may say "not there" (Raft thesis, section 6.4).

The leader remembers its commit index, asks all voters whether its term is still theirs, and when a majority says yes no later leader can
have committed anything before the question was asked.  A follower asks the leader to do that.  Nothing is written and no
clock is trusted.  All reads that wait when a round begins are served by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from distlog.consensus.messages import (
    LeadershipQuery,
    LeadershipReply,
    Message,
    ReadIndexReply,
    ReadIndexRequest,
)
from distlog.consensus.raft import Raft
from distlog.errors import NoLeader, Overloaded

WAITING_MAX = 20_000
RETRY_DELAY_S = 0.1


@dataclass(slots=True)
class _Round:
    """One question to all voters."""

    number: int
    term: int
    raft_index: int
    confirmed: set[str]
    # Called with the raft index, or None when leadership was lost.
    answers: list[Callable[[int | None], None]]


class ReadIndex:
    """The read index of one group, on leader and follower."""

    def __init__(self, raft: Raft, transmit: Callable[[str, Message], None]) -> None:
        self._raft = raft
        self._transmit = transmit
        self._number = 0
        # Reads that arrived since the last round began; served by the next one.
        self._next: list[Callable[[int | None], None]] = []
        # The round under way; None: the next read begins one.
        self._round: _Round | None = None
        # Questions of this follower to the leader, by number; and who was asked.
        self._asked: dict[int, tuple[str, asyncio.Future[int]]] = {}
        # (raft index to have applied, future) of reads whose index is known.
        self._applying: list[tuple[int, asyncio.Future[int]]] = []

    async def wait(self) -> int:
        """Return a raft index that is applied here and covers everything acknowledged before the call.

        Raises NoLeader when no leader can tell now, Overloaded when too many wait.  The caller bounds the time.
        """
        if len(self._next) + len(self._asked) + len(self._applying) >= WAITING_MAX:
            raise Overloaded(queue="reads waiting for a read index", limit=WAITING_MAX)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._raft.is_leader:
            self._read_as_leader(lambda index: self._known(future, index))
        else:
            self._ask_leader(future)
        return await future

    # --- Leader --------------------------------------------------------------------------------

    def _read_as_leader(self, answer: Callable[[int | None], None]) -> None:
        if not self._raft.is_ready_leader:
            # Until an entry of its own term is committed a leader does not know what is.
            answer(None)
            return
        self._next.append(answer)
        if self._round is None:
            self._begin_round()

    def _begin_round(self) -> None:
        raft = self._raft
        self._number += 1
        answers, self._next = self._next, []
        self._round = _Round(self._number, raft.term, raft.commit_index, set(), answers)
        for voter in sorted(raft.voters & raft.connected):
            self._transmit(voter, LeadershipQuery(raft.term, self._number))
        self._check_round()

    def _check_round(self) -> None:
        while self._round is not None:
            current = self._round
            voter_count = len(self._raft.voters) + 1
            if not self._raft.is_leader or self._raft.term != current.term:
                result = None
            elif 2 * (len(current.confirmed & self._raft.voters) + 1) > voter_count:
                result = current.raft_index
            else:
                return
            self._round = None
            for answer in current.answers:
                answer(result)
            if self._next and self._round is None:
                self._begin_round()

    # --- Follower ------------------------------------------------------------------------------

    def _ask_leader(self, future: asyncio.Future[int]) -> None:
        leader = self._raft.leader_id
        if leader is None or leader not in self._raft.connected:
            future.set_exception(no_leader("nobody can tell where the log ends"))
            return
        self._number += 1
        number = self._number
        self._asked[number] = (leader, future)
        # Whatever ends the wait, the question must not stay behind.
        future.add_done_callback(lambda _: self._asked.pop(number, None))
        self._transmit(leader, ReadIndexRequest(self._raft.term, number))

    # --- Events --------------------------------------------------------------------------------

    def receive(self, sender: str, message: Message) -> None:
        """Take a message of another voter."""
        match message:
            case LeadershipQuery():
                # Equal terms confirm; another term in the reply denies.
                self._transmit(sender, LeadershipReply(self._raft.term, message.number))
            case LeadershipReply():
                current = self._round
                if (
                    current is not None
                    and message.number == current.number
                    and message.sender_term == current.term
                    and self._raft.replicas.counts(sender)
                ):
                    current.confirmed.add(sender)
                    self._check_round()
            case ReadIndexRequest():
                number = message.number
                if len(self._next) >= WAITING_MAX:
                    self._transmit(sender, ReadIndexReply(self._raft.term, number, None))
                    return
                self._read_as_leader(
                    lambda index: self._transmit(
                        sender, ReadIndexReply(self._raft.term, number, index)
                    )
                )
            case ReadIndexReply():
                asked = self._asked.pop(message.number, None)
                if asked is not None and asked[0] == sender:
                    self._known(asked[1], message.raft_index)

    def progressed(self) -> None:
        """Call after each step: entries may be applied, leadership may be lost."""
        self._check_round()
        if not self._raft.is_leader:
            self._refuse_next()
        self._refuse_unanswerable()
        if self._applying:
            applied = self._raft.last_applied
            waiting, self._applying = self._applying, []
            for index, future in waiting:
                if future.done():
                    continue
                if index <= applied:
                    future.set_result(index)
                else:
                    self._applying.append((index, future))

    def ask_again(self) -> None:
        """Call once in a while: a question may be lost, or was answered by a voter that did not know the term yet."""
        current = self._round
        if current is not None:
            for voter in sorted(self._raft.connected - current.confirmed):
                self._transmit(voter, LeadershipQuery(current.term, current.number))

    def close(self) -> None:
        """Fail all who wait."""
        for _, future in [*self._asked.values(), *self._applying]:
            if not future.done():
                future.set_exception(no_leader("this node is stopping"))
        current, self._round = self._round, None
        if current is not None:
            for answer in current.answers:
                answer(None)
        self._refuse_next()

    def _refuse_next(self) -> None:
        refused, self._next = self._next, []
        for answer in refused:
            answer(None)

    def _refuse_unanswerable(self) -> None:
        """Fail the questions to a leader that is gone."""
        for leader, future in list(self._asked.values()):
            gone = leader != self._raft.leader_id or leader not in self._raft.connected
            if gone and not future.done():
                future.set_exception(no_leader("the leader changed while it was asked"))

    def _known(self, future: asyncio.Future[int], raft_index: int | None) -> None:
        if future.done():
            return
        if raft_index is None:
            future.set_exception(no_leader("the leader is not ready to tell where the log ends"))
        elif raft_index <= self._raft.last_applied:
            future.set_result(raft_index)
        else:
            self._applying.append((raft_index, future))


def no_leader(problem: str) -> NoLeader:
    """Return the error of a call that needs a leader now."""
    return NoLeader(problem=problem, retry_delay_s=RETRY_DELAY_S)
