"""The ports through which the product reaches time, threads and the network, so that a simulation can stand in for them.

Nothing else in distlog reads a clock, starts a thread or opens a connection to a peer.  `SystemClock`, `ThreadWorker`
and `TcpNetwork` are the real ones; the simulation has twins that run on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

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
    """A worker that is one thread of its own.

    concurrent.futures would do, at twice the price: a hand-over to and from the thread is on the path of every append.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put(_Job(loop, future, function, args))
        return future

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = None, None
            try:
                result = job.function(*job.args)
            except BaseException as raised:
                error = raised
            # The loop may be closed: then nobody waits.
            with contextlib.suppress(RuntimeError):
                job.loop.call_soon_threadsafe(_settle, job.future, result, error)


class _Job(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


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
