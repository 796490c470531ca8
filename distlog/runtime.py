"""The ports through which the product reaches time, threads and the network, so that a simulation can stand in for them.

Nothing else in distlog reads a clock, starts a thread or opens a connection to a peer.  `SystemClock`, `ThreadWorker`
and `TcpNetwork` are the real ones; the simulation has twins that run on virtual time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Clock(Protocol):
    """Where a node reads the time."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    def wall_ms(self) -> int:
        """Return milliseconds since the Unix epoch; they may jump."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Worker(Protocol):
    """Runs blocking work off the event loop: one call at a time, in the order submitted."""

    def submit(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        """Run `function(*args)`; the future carries its result or its exception."""

    def close(self) -> None:
        """Wait for what was submitted, then stop.  Nothing may be submitted afterwards."""


class ThreadWorker:
    """A worker that is one thread of its own."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def submit(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def close(self) -> None:
        self._executor.shutdown(wait=True)


class Network(Protocol):
    """Byte-stream connections between nodes."""

    async def listen(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> asyncio.AbstractServer:
        """Accept connections on `host`:`port`.  Raises OSError when the address cannot be bound."""

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        """Open one connection; the protocol's `connection_made` gets its transport.  Raises OSError."""


class TcpNetwork:
    """The machine's TCP stack."""

    async def listen(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> asyncio.AbstractServer:
        return await asyncio.get_running_loop().create_server(protocol_factory, host, port)

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        await asyncio.get_running_loop().create_connection(protocol_factory, host, port)
