"""How fast this node sends what others copy: so many bytes in a second, whoever asks."""

from __future__ import annotations

from distlog.runtime import Clock

# What may be sent at once after a pause.
BURST_S = 0.1


class Pace:
    """A budget that fills with time."""

    def __init__(self, clock: Clock, rate_max: int) -> None:
        """rate_max: bytes in a second; 0: as fast as it goes."""
        self._clock = clock
        self.rate_max = rate_max
        # When all that was sent is paid for.
        self._paid_at = clock.monotonic()

    def delay_s(self) -> float:
        """Return how long to wait before more is sent."""
        if not self.rate_max:
            return 0.0
        return max(0.0, self._paid_at - BURST_S - self._clock.monotonic())

    def sent(self, size: int) -> None:
        """Take `size` bytes from the budget."""
        if self.rate_max:
            self._paid_at = max(self._paid_at, self._clock.monotonic()) + size / self.rate_max

    def part_size(self, size: int) -> int:
        """Return how much of `size` bytes goes in one piece: no more than a tenth of a second's."""
        return min(size, max(4096, int(self.rate_max * BURST_S))) if self.rate_max else size
