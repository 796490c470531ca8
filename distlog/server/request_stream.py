"""The two halves of a stream of requests that are answered in order: a reader that proposes, a writer that answers.

reader   context -> what the request became ->+
                                              |  queue, in order; at its end an error, or None when the client is done
writer   context <- answer <- the oldest <----+
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc

from distlog.errors import DistlogError
from distlog.server.gate import Access
from distlog.server.open_streams import OpenStreams

# What a request became: a future of its result, or what the writer knows how to answer.
Outcome = TypeVar("Outcome")


class RequestStream(Generic[Outcome]):
    """One such stream.  How many requests are between the halves is bounded by who takes them (in_flight.py)."""

    def __init__(self, streams: OpenStreams, access: Access, context: Any) -> None:
        """access: as long as it holds requests are read; what was read before is answered."""
        self._streams = streams
        self._access = access
        self._context = context
        self._answered = streams.answered_of(access.method)
        self._now = asyncio.get_running_loop().time
        # What a request became, its size, and when it was read.
        self._queue: asyncio.Queue[tuple[Outcome, int, float] | Exception | None] = asyncio.Queue()

    async def run(
        self,
        take: Callable[[bytes], Awaitable[tuple[Outcome, int]]],
        answer: Callable[[Outcome, int], Awaitable[str]],
    ) -> None:
        """Serve the stream to its end.  Raises the error that it ends with.

        take(data) returns what a request became, and its size; what it raises ends the reading.  answer(outcome, size) writes the
        answer, and returns the code in it; what it raises ends the stream at once.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(take))
                end = await self._answer(answer)
                reading.cancel()
        finally:
            self._abandon()
        if end is not None:
            raise end

    async def _read(self, take: Callable[[bytes], Awaitable[tuple[Outcome, int]]]) -> None:
        end: Exception | None = None
        try:
            async with self._access.watched(), self._streams.open():
                while (data := await self._context.read()) is not grpc.aio.EOF:
                    read_at = self._now()
                    self._queue.put_nowait((*await take(data), read_at))
        except (DistlogError, grpc.aio.BaseError) as error:
            end = error
        self._queue.put_nowait(end)

    async def _answer(self, answer: Callable[[Outcome, int], Awaitable[str]]) -> Exception | None:
        """Answer all; return what the stream ends with.  Never raises, as the task group would wrap it."""
        try:
            while isinstance(taken := await self._queue.get(), tuple):
                outcome, size, read_at = taken
                code = await answer(outcome, size)
                self._answered.add(code, self._now() - read_at)
        except Exception as error:
            return error
        return taken

    def _abandon(self) -> None:
        """Nobody waits for what is still in flight: asyncio must not report its errors as forgotten ones."""
        while not self._queue.empty():
            taken = self._queue.get_nowait()
            if not isinstance(taken, tuple):
                continue
            outcome: object = taken[0]
            if isinstance(outcome, asyncio.Future) and not outcome.cancel():
                outcome.exception()
