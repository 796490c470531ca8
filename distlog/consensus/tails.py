"""Those who wait at the end of a topic for it to grow.  They cost nothing until it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distlog.errors import DistlogError, Overloaded, TopicNotFound


class Tails:
    """The waiting readers of all topics, on one node."""

    def __init__(self, waiting_max: int) -> None:
        """waiting_max: readers of one topic that may wait."""
        self._waiting_max = waiting_max
        # Per topic id: who waits for the high watermark to pass which offset.
        self._waiting: dict[int, dict[asyncio.Future[None], int]] = {}

    async def wait(self, topic_id: int, offset: int) -> None:
        """Return when the topic's high watermark is above `offset`, which it is not yet.

        Raises Overloaded when too many wait, TopicNotFound when the topic is deleted, and what `fail` is given.
        """
        waiting = self._waiting.setdefault(topic_id, {})
        if len(waiting) >= self._waiting_max:
            raise Overloaded(queue="readers waiting at the end", limit=self._waiting_max)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[future] = offset
        try:
            await future
        finally:
            waiting.pop(future, None)

    @property
    def count(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def wake(self, high_watermark: Callable[[int], int | None]) -> None:
        """Call when something was applied.  high_watermark(topic_id): None if there is no such topic any more."""
        for topic_id, waiting in list(self._waiting.items()):
            end = high_watermark(topic_id)
            if end is None:
                _fail(waiting, TopicNotFound(topic=f"id {topic_id}"))
                del self._waiting[topic_id]
                continue
            for future, offset in list(waiting.items()):
                if offset < end and not future.done():
                    future.set_result(None)

    def fail(self, error: DistlogError) -> None:
        """End every wait with `error`."""
        for waiting in self._waiting.values():
            _fail(waiting, error)


def _fail(waiting: dict[asyncio.Future[None], int], error: DistlogError) -> None:
    for future in list(waiting):
        if not future.done():
            future.set_exception(error)
