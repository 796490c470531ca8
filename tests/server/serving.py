"""A listener on a free port over a fake log, with a client, for as long as a `with` block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1.log_pb2_grpc import ClusterStub, LogStub
from distlog.api.status import DETAILS_KEY, error_from_status
from distlog.discovery.view import Member
from distlog.errors import DistlogError
from distlog.server.gate import Gate
from distlog.server.limits import ServerLimits
from distlog.server.listen import Listener
from tests.server.fake_replicated_log import FakeReplicatedLog

# Each channel has connections of its own, takes every message, and never repeats a call.
CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # What a client takes that nobody reads from is a constant then, and not what gRPC has measured of the machine and its load: without a
    # limit, tens of MiB.
    ("grpc.http2.bdp_probe", 0),
]
INCIDENT_BYTES = bytes.fromhex("00112233445566778899")


@dataclass
class Serving:
    fake: FakeReplicatedLog
    # How the node sees itself, as its listener is told; None: it has only begun to start.
    itself: Member | None
    listener: Listener
    port: int
    channel: grpc.aio.Channel

    @property
    def log(self) -> Any:
        return LogStub(self.channel)

    @property
    def cluster(self) -> Any:
        return ClusterStub(self.channel)

    def open_channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", CHANNEL_OPTIONS)


async def calls_are_over() -> None:
    """Let both ends of every call see that it is over.

    A completion that gRPC delivers after its event loop has closed would be reported in some later test.
    """
    calls: set[Any] = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        await asyncio.wait(calls, timeout=10)


@asynccontextmanager
async def serving(
    fake: FakeReplicatedLog | None = None,
    limits: ServerLimits | None = None,
    gate: Gate | None = None,
) -> AsyncIterator[Serving]:
    """Serve `fake`; stop without grace at the end."""
    fake = fake or FakeReplicatedLog()
    listener = Listener(
        fake,
        host="127.0.0.1",
        port=0,
        insecure=False,
        random_bytes=lambda size: INCIDENT_BYTES[:size],
        now=asyncio.get_running_loop().time,
        gate=gate,
        limits=limits,
        itself=lambda: served.itself,
    )
    port = await listener.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", CHANNEL_OPTIONS) as channel:
        try:
            served = Serving(fake, None, listener, port, channel)
            yield served
        finally:
            await listener.stop(timeout_s=0)
    await calls_are_over()


def serve(
    body: Callable[[Serving], Awaitable[None]],
    limits: ServerLimits | None = None,
    gate: Gate | None = None,
) -> None:
    """Run an async test body against a server of its own."""

    async def run() -> None:
        async with asyncio.timeout(30), serving(limits=limits, gate=gate) as server:
            await body(server)

    asyncio.run(run())


@dataclass(frozen=True)
class Refusal:
    """How a call failed: its code, its text, and the error that its details carry (None: the transport's)."""

    code: grpc.StatusCode
    text: str
    error: DistlogError | None


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Await a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        trailers = error.trailing_metadata() or ()
        details = next((value for key, value in trailers if key == DETAILS_KEY), None)
        return Refusal(error.code(), error.details() or "", error_from_status(details))
    raise AssertionError(f"the call should fail, it answered {answer!r}")
