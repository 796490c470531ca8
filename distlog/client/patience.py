"""How long a node may keep silent on a stream before the stream is cut and another node is tried.

One timer watches many messages: a time-out of its own for each message would cost more than reading it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Patience:
    """Cuts a stream on which something is awaited and nothing comes, after one to two times `timeout_s`."""

    def __init__(
        self,
        timeout_s: float,
        *,
        progress: Callable[[], int],
        is_waiting: Callable[[], bool],
        cut: Callable[[], object],
    ) -> None:
        """progress: a number that grows with every message that came.  cut: cancels the call."""
        self._timeout_s = timeout_s
        self._progress = progress
        self._is_waiting = is_waiting
        self._cut = cut
        self._timer: asyncio.TimerHandle | None = None
        self._ran_out = False

    def watch(self) -> None:
        """Begin, or go on, to watch; cheap enough for every message that is awaited."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_s, self._look, self._progress())

    def stop(self) -> None:
        """Cut nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ran_out(self) -> bool:
        """Tell whether a CancelledError that a call raised comes from the cut, and not from somebody who cancelled this task."""
        task = asyncio.current_task()
        return self._ran_out and task is not None and not task.cancelling()

    def _look(self, progress: int) -> None:
        self._timer = None
        # Where nothing is awaited nobody is late; the next message that is awaited begins a new watch.
        if not self._is_waiting():
            return
        if self._progress() != progress:
            self.watch()
        else:
            self._ran_out = True
            self._cut()
