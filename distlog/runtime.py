"""The ports through which the product reaches time, threads and the network, so that a simulation can stand in for them.

Nothing else in distlog reads a clock, starts a thread or opens a connection to a peer.  `SystemClock`, `ThreadWorker`
and `TcpNetwork` are the real ones; the simulation has twins that run on virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from distlog.storage.disk import DiskFile
from distlog.storage.kernel_sync import KernelSync

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

    def sync(self, file: DiskFile) -> asyncio.Future[None]:
        """Make what was written to `file` until now durable, as `file.sync` does, when what was submitted before is done.

        What is submitted afterwards may run meanwhile.  The file must stay open until then.
        """

    def close(self) -> None:
        """Wait for what was submitted, then stop.  Nothing may be submitted afterwards."""


class ThreadWorker:
    """A worker that is one thread of its own, and has the kernel sync files without it where that can be.

    concurrent.futures would do, at twice the price: a hand-over to and from the thread is on the path of every append.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Jobs whose future is not settled yet.
        self._unsettled_count = 0
        # Made with the first sync; then never changes.
        self._kernel: _KernelSyncs | None = None
        # A daemon: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._unsettled_count += 1
        self._jobs.put(_Job(loop, future, function, args))
        return future

    def sync(self, file: DiskFile) -> asyncio.Future[None]:
        if self._unsettled_count == 0:
            # Nothing is before it.
            if self._kernel is None:
                self._kernel = _KernelSyncs(asyncio.get_running_loop())
            future = self._kernel.begin(file)
            if future is not None:
                return future
        return self.submit(file.sync)

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        if self._kernel is not None:
            self._kernel.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, error = None, None
            try:
                result = job.function(*job.args)
            except BaseException as raised:
                error = raised
            # The loop may be closed: then nobody waits.
            with contextlib.suppress(RuntimeError):
                job.loop.call_soon_threadsafe(self._finish, job.future, result, error)

    def _finish(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._unsettled_count -= 1
        _settle(future, result, error)


class _KernelSyncs:
    """Futures of what the kernel syncs, on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._kernel = KernelSync.open()
        if self._kernel is not None:
            loop.add_reader(self._kernel.descriptor, self._finish)

    def begin(self, file: DiskFile) -> asyncio.Future[None] | None:
        """Begin a sync; None if the kernel does not take it."""
        if self._kernel is None:
            return None
        number = self._kernel.begin(file)
        if number is None:
            return None
        future = self._futures[number] = self._loop.create_future()
        return future

    def _finish(self) -> None:
        assert self._kernel is not None
        for number, failure in self._kernel.finished():
            _settle(self._futures.pop(number), None, failure)

    def close(self) -> None:
        """Wait for the syncs under way.  Blocks."""
        if self._kernel is not None:
            self._loop.remove_reader(self._kernel.descriptor)
            self._kernel.close()


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


# Of a connection that comes in to a port with TLS, until it is encrypted.
TLS_HANDSHAKE_TIMEOUT_S = 5.0


class TcpNetwork:
    """The machine's TCP stack."""

    def __init__(self, listening: ssl.SSLContext | None = None) -> None:
        """listening: what connections that come in are encrypted with; None: they are not."""
        self._listening = listening

    async def listen(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> asyncio.AbstractServer:
        return await asyncio.get_running_loop().create_server(
            protocol_factory,
            host,
            port,
            ssl=self._listening,
            ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if self._listening else None,
        )

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        await asyncio.get_running_loop().create_connection(protocol_factory, host, port)


async def resolve(name: str) -> Sequence[str]:
    """Return the addresses that a name stands for, IPv4 and IPv6.  Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        # An empty label, or one that is too long.
        raise OSError(f"{name!r} is no name of a host") from None
    return list(dict.fromkeys(str(place[0]) for *_, place in found))
