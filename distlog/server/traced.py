"""The spans of what this node is asked: one for each call that is answered once, one for each request of a stream that writes.

Streams have none themselves: they last as long as their clients.  Nor has what clients ask all the time to find the leader.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from distlog.server.gate import DEFAULT_TOPIC
from distlog.tracing.spans import SERVED, Kind, Parent, Span, Tracer

OK, UNKNOWN = "OK", "UNKNOWN"
PRODUCE_STREAM, PRODUCE_BATCH = "log.v1.Log/ProduceStream", "log.v1.Log/ProduceBatch"
NEVER = ("log.v1.Log.GetServers", "grpc.health.v1.Health.Check")
# Codes that are this node's fault, as the semantic conventions have it; of the others its caller knows what they mean.
FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


def is_traced(tracer: Tracer, method: MethodDescriptor) -> bool:
    """Tell whether calls of a method have a span of their own."""
    is_stream = method.server_streaming or method.client_streaming
    return tracer.is_on and not is_stream and method.full_name not in NEVER


def begin_call(tracer: Tracer, method: MethodDescriptor, context: Any) -> Span | None:
    """Begin the span of a call, within which its handler runs; None: it is not sampled."""
    name = f"{method.containing_service.full_name}/{method.name}"
    span = begin(tracer, name, tracer.parent_in(context.invocation_metadata() or ()))
    SERVED.set(span)
    return span


def begin(tracer: Tracer, name: str, parent: Parent | None) -> Span | None:
    """Begin the span of something that was asked."""
    return tracer.begin(name, Kind.SERVER, parent, {"rpc.system.name": "grpc", "rpc.method": name})


def note_topic(topic: str, record_count: int) -> None:
    """Say of what is served now where it writes."""
    span = SERVED.get()
    if span is not None:
        span.note(
            {
                "messaging.destination.name": topic or DEFAULT_TOPIC,
                "messaging.batch.message_count": record_count,
            }
        )


def end_call(span: Span, code: str) -> None:
    """The answer is made, or it is known why there is none."""
    SERVED.set(None)
    end(span, code)


def end(span: Span, code: str) -> None:
    """End the span of something that was answered with this code."""
    span.note({"rpc.response.status_code": code})
    if code in FAULTS:
        span.end(code)
    else:
        if code != OK:
            span.note({"error.type": code})
        span.end()


class RequestSpans:
    """The spans of the requests of one stream, which are answered in order.  Use it only where the tracer is on."""

    def __init__(self, tracer: Tracer, method: str, context: Any) -> None:
        self._tracer = tracer
        self._method = method
        self._parent = tracer.parent_in(context.invocation_metadata() or ())
        # Of the requests that are not answered yet, the oldest first; None: it is not sampled, or could not be read.
        self._open: deque[Span | None] = deque()

    def taken(self) -> None:
        """Count a request, before it is looked at."""
        SERVED.set(None)
        self._open.append(None)

    def begin(self, topic: str, record_count: int, traceparent: str = "") -> None:
        """Begin the span of the request that was taken last, of which this is known now.

        traceparent: what it is part of, as it says itself; "": what the stream is.
        """
        parent = self._tracer.parent_of(traceparent) if traceparent else self._parent
        span = begin(self._tracer, self._method, parent)
        if span is not None:
            SERVED.set(span)
            note_topic(topic, record_count)
            self._open[-1] = span

    def answered(self, code: str = OK) -> None:
        """The oldest request was answered."""
        span = self._open.popleft()
        if span is not None:
            end(span, code)

    def close(self) -> None:
        """The stream is over: what was not answered is not."""
        for span in self._open:
            if span is not None:
                end(span, UNKNOWN)
        self._open.clear()
