"""What a part of a node does in a task of its own, until it is done or the part is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """At most one task at a time.  One that fails is a failure of the node."""

    def __init__(
        self, failed: Callable[[BaseException], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        """failed(): gets what a task ended with.  ended(): called before, and after every other task."""
        self._failed = failed
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to do it, unless something is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(work())
            self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._ended()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
