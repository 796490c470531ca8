"""When what waits becomes an entry: a lone append at once, and those of several callers together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distlog.consensus.commands import decode_entry
from distlog.consensus.library import Done
from distlog.consensus.proposals import (
    GATHER_PAUSE_S,
    GATHER_TIME_MAX_S,
    WAITING_SIZE_MAX,
    Proposals,
)
from distlog.consensus.space import Space
from distlog.errors import ShuttingDown
from distlog.storage.reserve import Reserve
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.entries import append
from tests.consensus.nodes import on_virtual_time
from tests.consensus.states import Replica
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop


class Leader:
    """Proposals, and a group that takes a step whenever it is kicked."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        space = Space(Reserve(SimulatedDisk(), "reserve", 64 << 20), lambda: 1)
        machine = Replica().machine
        clock = VirtualClock(self.loop)
        self.proposals = Proposals(machine, clock, space, 1 << 30, self._kick)
        # How many commands each entry had, and when it left.
        self.entries: list[tuple[int, float]] = []
        self.under_way: list[Done] = []

    def _kick(self) -> None:
        self.loop.call_soon(self._step)

    def _step(self) -> None:
        for payload, done in self.proposals.take_entries():
            self.entries.append((len(decode_entry(payload).commands), self.loop.time()))
            self.under_way.append(done)

    def submit(self, count: int = 1, size: int = 1) -> list[asyncio.Future[Any]]:
        return [self.proposals.submit(append(bytes(size))) for _ in range(count)]

    async def answer(self) -> None:
        """Have the entry that is under way applied."""
        done = self.under_way.pop(0)
        done([None] * self.entries[-1][0], 0)
        await asyncio.sleep(0)

    @property
    def counts(self) -> list[int]:
        return [count for count, _ in self.entries]


def story(body: Callable[[Leader], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(Leader())

    on_virtual_time(main)


async def steps() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_lone_append_leaves_at_once_every_time() -> None:
    async def body(leader: Leader) -> None:
        for number in range(5):
            leader.submit()
            await steps()
            assert leader.counts == [1] * (number + 1)
            await leader.answer()
        assert leader.loop.time() == leader.entries[0][1], "no time has passed"

    story(body)


def test_what_comes_while_an_entry_is_under_way_shares_the_next_with_who_is_answered() -> None:
    async def body(leader: Leader) -> None:
        leader.submit()
        await steps()
        leader.submit(3)
        await steps()
        assert leader.counts == [1]
        await leader.answer()
        await steps()
        assert leader.counts == [1], "the one who was answered comes again, most likely"
        leader.submit()
        await steps()
        assert leader.counts == [1, 4]
        await leader.answer()
        leader.submit(4)
        await steps()
        assert leader.counts == [1, 4, 4]

    story(body)


def test_who_does_not_come_again_is_not_waited_for_long() -> None:
    async def body(leader: Leader) -> None:
        leader.submit()
        await steps()
        leader.submit(3)
        answered_at = leader.loop.time()
        await leader.answer()
        await leader.loop.pass_time(2 * GATHER_PAUSE_S)
        assert leader.counts == [1, 3]
        assert leader.entries[-1][1] - answered_at <= 1.1 * GATHER_PAUSE_S
        await leader.answer()
        await leader.loop.pass_time(2 * GATHER_PAUSE_S)
        leader.submit()
        await steps()
        assert leader.counts == [1, 3, 1], "the gathering of nobody is over"

    story(body)


def test_a_trickle_does_not_hold_up_those_who_wait() -> None:
    async def body(leader: Leader) -> None:
        leader.submit(100)
        await steps()
        await leader.answer()
        answered_at = leader.loop.time()
        while len(leader.entries) == 1:
            leader.submit()
            await leader.loop.pass_time(GATHER_PAUSE_S / 2)
        assert leader.entries[1][1] - answered_at <= GATHER_TIME_MAX_S + 2 * GATHER_PAUSE_S
        assert leader.counts[1] >= 8

    story(body)


def test_many_bytes_wait_for_nobody() -> None:
    async def body(leader: Leader) -> None:
        leader.submit(3)
        await steps()
        leader.submit(1, WAITING_SIZE_MAX)
        await steps()
        assert leader.counts == [3, 1]

    story(body)


def test_who_loses_the_leadership_waits_for_nobody_any_more() -> None:
    async def body(leader: Leader) -> None:
        leader.submit(3)
        await steps()
        await leader.answer()
        (waiting,) = leader.submit()
        leader.proposals.abandon("leadership was lost", lambda: ShuttingDown(retry_delay_s=1))
        assert isinstance(waiting.exception(), ShuttingDown)
        leader.submit()
        await steps()
        assert leader.counts == [3, 1]

    story(body)
