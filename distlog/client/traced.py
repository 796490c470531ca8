"""What a client records of what it writes, if its program has an SDK of OpenTelemetry; and what it tells the nodes of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import grpc.aio

from distlog.client.routing import Node
from distlog.client.values import DEFAULT_TOPIC
from distlog.errors import DistlogError
from distlog.tracing.spans import NO_TRACER, Kind, Parent, Span, Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

CANCELLED, FAILED = "CANCELLED", "FAILED"


def tracer_of(provider: TracerProvider | None) -> Tracer:
    """Return a tracer of a provider; None: of that of the program, as it is now.

    A program in which nobody has loaded OpenTelemetry has none, and loads it for nothing.
    """
    if provider is None and "opentelemetry.trace" not in sys.modules:
        return NO_TRACER
    from distlog.tracing import recording

    return recording.tracer_of(provider)


def begin_send(tracer: Tracer, topic: str, parent: Parent | None) -> Span | None:
    """Begin the span of records on their way, from the call to the acknowledgement; None: it is not sampled."""
    name = topic or DEFAULT_TOPIC
    return tracer.begin(
        f"send {name}",
        Kind.PRODUCER,
        parent,
        {
            "messaging.system": "distlog",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": name,
        },
    )


async def sent(span: Span, sending: Awaitable[int]) -> int:
    """Await what the span is about, and end it: with an offset, or with why there is none."""
    try:
        offset = await sending
    except BaseException as error:
        span.end(problem_of(error))
        raise
    span.note({"distlog.offset": offset})
    span.end()
    return offset


async def attempt(
    span: Span | None, node: Node, method: str, request: Any, timeout_s: float
) -> Any:
    """Make one call at one node; return its answer.  span: what it is a part of, and the node is told; None: it is not traced."""
    call = getattr(node.log, method)
    if span is None:
        return await call(request, timeout=timeout_s)
    name = f"log.v1.Log/{method}"
    about = {"rpc.system.name": "grpc", "rpc.method": name, "server.address": node.address}
    own = span.child(name, Kind.CLIENT, about)
    try:
        answer = await call(request, timeout=timeout_s, metadata=own.metadata)
    except grpc.aio.AioRpcError as failure:
        own.note({"rpc.response.status_code": failure.code().name})
        own.end(failure.code().name)
        raise
    except BaseException as error:
        own.end(problem_of(error))
        raise
    own.note({"rpc.response.status_code": "OK"})
    own.end()
    return answer


def problem_of(error: BaseException) -> str:
    """Return the word for an error that a span ends with."""
    if isinstance(error, DistlogError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError) else FAILED
