"""What the leader is asked to append: admitted, packed into entries, and settled when its fate is known.

submit -> admission -> waiting --(next step of the group)--> entry -> proposed -> applied: the result
                                                                          or leadership lost: the outcome is unknown
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distlog import measures
from distlog.consensus.admission import Admission
from distlog.consensus.commands import (
    COMMAND_COUNT_MAX,
    ENTRY_HEADER,
    Append,
    Command,
    CreateTopic,
    DeleteTopic,
    TrimTopic,
    command_size,
    encode_entry,
)
from distlog.consensus.entry_traces import EntryTraces
from distlog.consensus.library import Done
from distlog.consensus.reads import no_leader
from distlog.consensus.results import AppendResult, Result
from distlog.consensus.space import (
    ENTRY_CREATED_COUNT_MAX,
    ENTRY_SPLIT_COUNT_MAX,
    ENTRY_TOPIC_COUNT_MAX,
    Space,
)
from distlog.consensus.state_machine import StateMachine
from distlog.errors import DistlogError, OutcomeUnknown, Overloaded
from distlog.runtime import Clock
from distlog.tracing.spans import SERVED, Span

# What waits at a step is packed into entries of about this size: one large entry would delay what comes after it.
ENTRY_SIZE_TARGET = 1 << 20
# A lone append goes at once.  Others wait for the entry that is on its way, and then share one, and its fsyncs: the more there are, the
# less each costs.  So many bytes do not wait: it is their own transfer that takes time.
WAITING_SIZE_MAX = 256 << 10
# Who has just been answered asks again at once, one call after the other: an entry that left with the first of them would make all the
# others wait for it, and callers would take turns.  So the next one leaves when as many wait as take part, when none has come
# for a while, or at the latest after so long.
GATHER_PAUSE_S = 0.001
GATHER_TIME_MAX_S = 0.005

# What sets space free.  A full disk takes these while half of the reserve is left, or nothing but another program could free it.
FREEING = (TrimTopic, DeleteTopic)


@dataclass(slots=True, eq=False)
class Proposal:
    """A command on its way, and who waits for its outcome."""

    command: Command
    size: int
    waiters: list[asyncio.Future[Any]] = field(default_factory=list)
    # Of the request that it came with, and of the proposal; None: they are not traced.
    request_span: Span | None = None
    span: Span | None = None

    def trace(self, request_span: Span | None) -> None:
        """Have it be a part of the request that is served now, if that is traced."""
        if request_span is not None:
            self.request_span = request_span
            self.span = request_span.child("propose")

    def settle(self, result: Result) -> None:
        """Give the result, or the error, to all who wait."""
        if self.span is not None:
            self._end_span(self.span, result)
        for waiter in self.waiters:
            if waiter.done():
                continue
            if isinstance(result, DistlogError):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)
        self.waiters.clear()

    def _end_span(self, span: Span, result: Result) -> None:
        self.span = None
        if isinstance(result, DistlogError):
            span.end(result.reason)
        else:
            span.end()
            if self.request_span is not None:
                self.request_span.then("acknowledge")


class Proposals:
    """The proposals of one leader, from when they are taken to when they are applied."""

    def __init__(
        self,
        state_machine: StateMachine,
        clock: Clock,
        space: Space,
        size_max: int,
        kick: Callable[[], None],
        traces: EntryTraces | None = None,
    ) -> None:
        """size_max: bytes that may be on their way; kick() has the group take a step soon."""
        self._traces = traces or EntryTraces()
        self._clock = clock
        self._space = space
        self.size_max = size_max
        self._kick = kick
        self._loop = asyncio.get_running_loop()
        self._admission: Admission[Proposal] = Admission(state_machine)
        # Admitted, not in an entry yet; and their bytes.
        self._waiting: list[Proposal] = []
        self._waiting_size = 0
        # In an entry, not applied yet, by the number of the entry.
        self._proposed: dict[int, list[Proposal]] = {}
        self._entry_count = 0
        # How many have to wait for the next entry to leave, and until when at the latest; 0: it need not wait.
        self._gathering_count = 0
        self._gathering_until = 0.0
        self._gathering: asyncio.TimerHandle | None = None
        # Bytes of both.
        self._size = 0
        # Of the entries: commands in each, bytes, and seconds from when it was made to when it was applied.
        self.counts = measures.Histogram(measures.COUNTS)
        self.sizes = measures.Histogram(measures.SIZES)
        self.durations = measures.Histogram(measures.DURATIONS_S)

    @property
    def waiting_count(self) -> int:
        """Commands that are in no entry yet."""
        return len(self._waiting)

    @property
    def size(self) -> int:
        """Bytes of commands on their way."""
        return self._size

    def submit(self, command: Command) -> asyncio.Future[Any]:
        """Take a command, or recognise it; the future carries its result.

        Raises Overloaded, StorageFull, DescriptorsExhausted, and what refuses the command at once.
        """
        size = command_size(command)
        if self._space.is_full and not (
            isinstance(command, FREEING) and self._space.pays_for(ENTRY_HEADER.size + size)
        ):
            raise self._space.refusal()
        if self._size + size > self.size_max:
            raise Overloaded(queue="bytes of proposals waiting", limit=self.size_max)
        if len(self._waiting) >= COMMAND_COUNT_MAX:
            raise Overloaded(queue="proposals waiting", limit=COMMAND_COUNT_MAX)
        future: asyncio.Future[Any] = self._loop.create_future()
        proposal = Proposal(command, size)
        admitted = self._admission.admit(command, proposal)
        if isinstance(admitted, DistlogError):
            raise admitted
        if isinstance(admitted, AppendResult):
            future.set_result(admitted)
            return future
        admitted.waiters.append(future)
        if admitted is proposal:
            if self._traces.is_on:
                proposal.trace(SERVED.get())
            self._waiting.append(proposal)
            self._waiting_size += size
            self._size += size
            if self._may_go:
                self._kick()
        return future

    def take_entries(self) -> Sequence[tuple[bytes, Done]]:
        """Pack what waits into entries, to be proposed in this step; nothing while enough is on its way.

        As many as there is reserved space for; the rest goes on waiting, or is refused if the disk is full by now.
        """
        if not self._waiting or not self._may_go:
            return ()
        if self._space.is_full:
            self._refuse_waiting(lambda command: not isinstance(command, FREEING))
        waiting, room = self._waiting, self._space.room
        timestamp_ms = self._clock.wall_ms()
        entries: list[tuple[bytes, Done]] = []
        first = 0
        while first < len(waiting):
            end, size = _end_of_entry(waiting, first)
            room -= self._space.commands_cost(size, end - first)
            if room < 0 and (entries or not self._space.may_exceed):
                break
            entries.append(self._entry(waiting[first:end], timestamp_ms))
            self._waiting_size -= size - ENTRY_HEADER.size
            first = end
        self._waiting = waiting[first:]
        if self._space.is_full:
            self._refuse_waiting(lambda command: True)
        return entries

    @property
    def _may_go(self) -> bool:
        """Tell whether what waits makes an entry now, and does not wait for one that is on its way or for others to come."""
        if self._waiting_size >= WAITING_SIZE_MAX:
            return True
        return not self._proposed and len(self._waiting) >= self._gathering_count

    def _refuse_waiting(self, is_refused: Callable[[Command], bool]) -> None:
        """Refuse what is in no entry yet, because the disk is full: nothing of it was written."""
        waiting, self._waiting = self._waiting, []
        for proposal in waiting:
            if not is_refused(proposal.command):
                self._waiting.append(proposal)
                continue
            self._waiting_size -= proposal.size
            self._forget(proposal)
            proposal.settle(self._space.refusal())

    def _entry(self, proposals: list[Proposal], timestamp_ms: int) -> tuple[bytes, Done]:
        self._entry_count += 1
        number = self._entry_count
        self._proposed[number] = proposals
        payload = encode_entry([proposal.command for proposal in proposals], timestamp_ms)
        if self._traces.is_on:
            spans = [proposal.span for proposal in proposals if proposal.span is not None]
            if spans:
                self._traces.proposed(payload, spans)
        self.counts.add(len(proposals))
        self.sizes.add(len(payload))
        began_at = self._clock.monotonic()

        def done(results: Any, failure: int) -> None:
            self.durations.add(self._clock.monotonic() - began_at)
            self._settle_entry(number, results, failure)

        return payload, done

    def _settle_entry(self, number: int, results: Sequence[Result] | None, failure: int) -> None:
        proposals = self._proposed.pop(number, None)
        if proposals is None:
            # Leadership was lost meanwhile, and their outcome was called unknown.
            return
        self._gather(len(proposals))
        if self._waiting and self._may_go:
            # There is room for another entry.
            self._kick()
        if results is None or failure:
            for proposal in proposals:
                self._forget(proposal)
                proposal.settle(no_leader("leadership was lost before the entry was proposed"))
            return
        for proposal, result in zip(proposals, results, strict=True):
            self._forget(proposal)
            proposal.settle(result)

    def _gather(self, answered_count: int) -> None:
        """Have the next entry wait for those who are answered now, unless that is one who is alone."""
        self._end_gathering()
        expected_count = answered_count + len(self._waiting)
        if expected_count > 1:
            self._gathering_count = expected_count
            self._gathering_until = self._clock.monotonic() + GATHER_TIME_MAX_S
            self._watch_gathering()

    def _watch_gathering(self) -> None:
        self._gathering = self._loop.call_later(
            GATHER_PAUSE_S, self._look_who_came, len(self._waiting)
        )

    def _look_who_came(self, count_before: int) -> None:
        if (
            len(self._waiting) > count_before
            and self._clock.monotonic() < self._gathering_until
            and not self._may_go
        ):
            self._watch_gathering()
            return
        self._end_gathering()
        if self._waiting:
            self._kick()

    def _end_gathering(self) -> None:
        self._gathering_count = 0
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _forget(self, proposal: Proposal) -> None:
        self._size -= proposal.size
        self._admission.settle(proposal.command)

    def abandon(self, cause: str, refusal: Callable[[], DistlogError]) -> None:
        """Give everything up: what is proposed may be written, or not; what waits was not, and gets `refusal()`."""
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        proposed, self._proposed = self._proposed, {}
        self._size = 0
        self._end_gathering()
        self._admission.clear()
        for proposal in waiting:
            proposal.settle(refusal())
        for proposals in proposed.values():
            for proposal in proposals:
                proposal.settle(OutcomeUnknown(cause=cause))


def _end_of_entry(waiting: Sequence[Proposal], first: int) -> tuple[int, int]:
    """Return where the entry that begins with `waiting[first]` ends, and its size."""
    size = ENTRY_HEADER.size
    topic_ids: set[int] = set()
    # The attributes of the batch that each topic's records become: others begin another one, and so do those behind what is no append.
    attributes: dict[int, int] = {}
    batch_count = created_count = 0
    for position in range(first, len(waiting)):
        command = waiting[position].command
        if isinstance(command, Append):
            topic_id, found = command.topic_id, command.block.attributes
            topic_ids.add(topic_id)
            if attributes.get(topic_id) != found:
                batch_count += 1
                attributes[topic_id] = found
        else:
            attributes.clear()
            created_count += isinstance(command, CreateTopic)
        if position > first and (
            size + waiting[position].size > ENTRY_SIZE_TARGET
            or batch_count + created_count > ENTRY_TOPIC_COUNT_MAX
            or batch_count - len(topic_ids) > ENTRY_SPLIT_COUNT_MAX
            or created_count > ENTRY_CREATED_COUNT_MAX
        ):
            return position, size
        size += waiting[position].size
    return len(waiting), size
