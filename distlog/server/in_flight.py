"""What one stream of requests has proposed and not answered: its limits, and the wait for room under them."""

from __future__ import annotations

import asyncio

from distlog.server.limits import ServerLimits


class InFlight:
    """Requests and their bytes.  The stream is not read while there is no room, and so the client has to wait."""

    def __init__(self, limits: ServerLimits) -> None:
        self._count_max = limits.stream_in_flight_count_max
        self._size_max = limits.stream_in_flight_size_max
        self._count = 0
        self._size = 0
        self._room = asyncio.Event()

    async def room_for(self, size: int) -> None:
        """Return when one more request of `size` bytes fits; one that is larger than the limit goes alone."""
        while self._count and (
            self._count >= self._count_max or self._size + size > self._size_max
        ):
            self._room.clear()
            await self._room.wait()

    def add(self, size: int) -> None:
        """Count a request."""
        self._count += 1
        self._size += size

    def remove(self, size: int) -> None:
        """A request of `size` bytes is answered."""
        self._count -= 1
        self._size -= size
        self._room.set()
