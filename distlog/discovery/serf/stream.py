"""What an agent sends of its own accord, between the connection that reads it and whoever takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self

from distlog.discovery.serf.values import Dropped, Record
from distlog.errors import DistlogError

# Records that wait for the reader of one stream.
WAITING_COUNT_MAX = 1024


class SerfStream:
    """Records, as they come: iterate, and close.  A reader that is too slow gets a Dropped for what it has missed."""

    def __init__(self, seq: int, stop: Callable[[int], Awaitable[None]]) -> None:
        """`stop` tells the agent, by the number of the request that opened the stream, that no more is wanted."""
        self._seq = seq
        self._stop = stop
        self._records: deque[Record] = deque()
        # Records that were dropped since the reader took one.
        self._dropped_count = 0
        self._has_ended = False
        self._failure: DistlogError | None = None
        self._woken = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        while True:
            if self._records:
                return self._records.popleft()
            if self._dropped_count:
                dropped, self._dropped_count = Dropped(self._dropped_count), 0
                return dropped
            if self._failure is not None:
                raise self._failure
            if self._has_ended:
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()

    async def close(self) -> None:
        """Tell the agent to send no more.  Nothing that came is lost to a reader that goes on."""
        if not self._has_ended:
            self.end()
            await self._stop(self._seq)

    def put(self, record: Record) -> None:
        if self._dropped_count or len(self._records) >= WAITING_COUNT_MAX:
            self._dropped_count += 1
        else:
            self._records.append(record)
        self._woken.set()

    def end(self, failure: DistlogError | None = None) -> None:
        self._has_ended, self._failure = True, failure
        self._woken.set()
