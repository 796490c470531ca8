"""Removes what was staged and is of no use: the node has everything without it.

A copy that is interrupted leaves what it has fetched for the next one, and so does `distlog cluster rejoin`, which stages what a directory
has.  Then the leader's journal turns out to reach back far enough, or another peer gives what is missing, and nobody asks for it
any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from distlog.catch_up.background import Background
from distlog.catch_up.copying import Staging
from distlog.errors import DistlogError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# Between two looks.
INTERVAL_S = 60.0
# How long a leader may take to say where the log ends.
TIMEOUT_S = 10.0


class Leftovers:
    """Looks after `incoming` of one node while nothing is copied."""

    def __init__(
        self,
        *,
        staging: Staging,
        is_wanted: Callable[[], bool],
        confirm: Callable[[], Awaitable[object]],
        failed: Callable[[BaseException], None],
    ) -> None:
        """is_wanted(): something is being copied, or is to be.

        confirm(): returns when this node has all that was acknowledged before the call; raises DistlogError where nobody can tell.
        """
        self._staging = staging
        self._is_wanted = is_wanted
        self._confirm = confirm
        self.counters: Counter[str] = Counter(cleared=0)
        self._work = Background(failed)

    def start(self) -> None:
        self._work.begin(self._run)

    def close(self) -> None:
        self._work.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            if not self._is_wanted() and not await self._on_disk(self._staging.incoming.is_empty):
                await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._confirm()
        except (DistlogError, TimeoutError):
            # Perhaps it lacks something: what is staged may be of use.
            return
        async with self._staging.lock:
            if self._is_wanted():
                return
            await self._on_disk(self._staging.incoming.clear)
        self.counters["cleared"] += 1
        logger.info("what was staged for a copy is not needed and was removed")

    def _on_disk(self, operation: Callable[[], Result]) -> Awaitable[Result]:
        return self._staging.write_worker.submit(operation)
