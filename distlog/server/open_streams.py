"""The streams that are open: how many tails there may be, and what a stop has to end.

A stream would stay open for ever; a stop asks each to end, and it then ends with ShuttingDown, so that its client goes to
another node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distlog.consensus.replicated_log import STOP_RETRY_DELAY_S
from distlog.errors import Overloaded, ShuttingDown
from distlog.server.calls import Ended


class OpenStreams:
    """Every stream spends its life inside `open`."""

    def __init__(self, tail_count_max: int) -> None:
        self._tail_count_max = tail_count_max
        self.tail_count = 0
        # The requests of streams that have many, by the method of the stream: from when one was read to when its answer was written.
        self.answered: dict[str, Ended] = {}
        self._scopes: set[asyncio.Timeout] = set()
        self._ended = False

    def answered_of(self, method: str) -> Ended:
        """Return where the requests of the streams of a method are counted."""
        return self.answered.setdefault(method, Ended())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Interrupt the body with ShuttingDown as soon as `end_all` is called, whatever it waits for."""
        if self._ended:
            raise ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S)
        # A timeout that is due only when the node stops: it tells its own interruption from the client's cancel.
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                yield
        except TimeoutError:
            if scope.expired():
                raise ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S) from None
            raise
        finally:
            self._scopes.discard(scope)

    @asynccontextmanager
    async def open_tail(self) -> AsyncIterator[None]:
        """As `open`, for one of a limited number.  Raises Overloaded at the limit."""
        if self.tail_count >= self._tail_count_max:
            raise Overloaded(queue="tails open on this node", limit=self._tail_count_max)
        self.tail_count += 1
        try:
            async with self.open():
                yield
        finally:
            self.tail_count -= 1

    def end_all(self) -> None:
        """End every stream, and those that would open later."""
        self._ended = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
