"""How long records wait for others to share their block, and the one who sends for something to send."""

from __future__ import annotations

import asyncio


class Linger:
    """The clock of the open block, and the bell of the sender."""

    def __init__(self, linger_s: float) -> None:
        """linger_s: how long a record may wait for others; 0: only while other blocks are on their way."""
        self._linger_s = linger_s
        # Set when there may be something to do.
        self._work = asyncio.Event()
        # When the wait of the open block ends, on the loop's clock.
        self._over_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A block was begun, or cut: the sender has to look."""
        if self._linger_s:
            self._over_at = asyncio.get_running_loop().time() + self._linger_s
        self._work.set()

    def look(self) -> None:
        """Have the sender look again: there is room, or the waiting is over."""
        self._work.set()

    def end(self) -> None:
        """Have what waits sent as soon as possible."""
        self._over_at = 0.0
        self._work.set()

    @property
    def is_over(self) -> bool:
        """Tell whether the open block has waited long enough."""
        return not self._over_at or asyncio.get_running_loop().time() >= self._over_at

    async def wait(self) -> None:
        """Return when there may be something to do."""
        if not self.is_over and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._over_at, self._look_late)
        self._work.clear()
        await self._work.wait()

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_late(self) -> None:
        self._timer = None
        self._work.set()
