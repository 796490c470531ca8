"""Dialling one peer: when, how often, and one dial at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from distlog.peer.limits import PeerLimits
from distlog.runtime import Network


class Backoff:
    """The delays between dials of one peer: short after a loss, doubling while it fails, a second when refused.

    Both ends of a lost connection dial; the jitter keeps them from doing it at the same moment every time.
    """

    def __init__(self, limits: PeerLimits, random: Random) -> None:
        self._limits = limits
        self._random = random
        # Dials and short-lived connections since the last one that worked.
        self._failure_count = 0
        self._refused = False

    def succeeded(self) -> None:
        """Forget what went wrong before."""
        self._failure_count = 0
        self._refused = False

    def failed(self) -> None:
        """Wait twice as long before the next dial."""
        self._failure_count += 1
        self._refused = False

    def refused(self) -> None:
        """Wait as long as it goes: only an operator can change the answer."""
        self._refused = True

    def next_delay_s(self) -> float:
        """Return how long to wait before the next dial."""
        delay_min, delay_max = self._limits.redial_delay_min_s, self._limits.redial_delay_max_s
        if self._refused:
            return delay_max * self._random.uniform(1.0, 1.25)
        if self._failure_count == 0:
            return delay_min * self._random.random()
        # The exponent is cut off only to keep the power small.
        delay: float = min(delay_max, delay_min * 2.0 ** min(self._failure_count, 30))
        return delay * self._random.uniform(0.5, 1.0)


class Dialler:
    """Opens connections to one address, when told to and while `is_wanted` says so."""

    def __init__(
        self,
        *,
        network: Network,
        address: tuple[str, int],
        protocol_factory: Callable[[], asyncio.Protocol],
        is_wanted: Callable[[], bool],
        on_failure: Callable[[str], None],
        backoff: Backoff,
        deadline_s: float,
    ) -> None:
        """Prepare.  A failed dial is told to `on_failure`, counted by `backoff`, and followed by another."""
        self._network = network
        self._address = address
        self._protocol_factory = protocol_factory
        self._is_wanted = is_wanted
        self._on_failure = on_failure
        self._backoff = backoff
        self._deadline_s = deadline_s
        # At most one of the two: the wait before a dial, or the dial until its transport is connected.
        self._timer: asyncio.TimerHandle | None = None
        self._dial: asyncio.Task[None] | None = None
        self._closed = False

    def dial_later(self) -> None:
        """Dial after the backoff's delay, unless a dial is due or under way or nobody wants one."""
        if self._timer is None and self._dial is None and self._is_wanted() and not self._closed:
            delay_s = self._backoff.next_delay_s()
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.dial_now)

    def dial_now(self) -> None:
        """Dial without delay, unless a dial is under way or nobody wants one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dial is None and self._is_wanted() and not self._closed:
            self._dial = asyncio.get_running_loop().create_task(self._connect())

    def abandon(self) -> None:
        """Stop for good, also a dial under way."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._dial is not None:
            self._dial.cancel()

    async def close(self) -> None:
        """Stop for good, and wait for the end of a dial under way."""
        self.abandon()
        if self._dial is not None:
            await asyncio.wait([self._dial])

    async def _connect(self) -> None:
        host, port = self._address
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._network.connect(self._protocol_factory, host, port)
        # A host name that cannot be encoded is a ValueError.
        except (OSError, ValueError) as error:
            self._backoff.failed()
            problem = getattr(error, "strerror", None) or str(error) or "no answer in time"
            self._on_failure(f"{host}:{port}: {problem}")
        finally:
            self._dial = None
            self.dial_later()
