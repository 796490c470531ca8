"""Spans on the API of OpenTelemetry.  The API alone records nothing: whoever wants traces installs an SDK, which is its provider.

An SDK calls samplers and processors that may be anybody's.  Whatever they raise costs the trace, and nothing that is traced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from distlog import __version__
from distlog.tracing.spans import (
    CONTEXT_SIZE,
    NO_ATTRIBUTES,
    NO_TRACER,
    Attributes,
    Kind,
    Metadata,
    Parent,
    Span,
    Tracer,
)

logger = logging.getLogger(__name__)

SCOPE = "distlog"
TRACE_PARENT, TRACE_STATE = "traceparent", "tracestate"
# As W3C has them; version 00 of the first has 55 characters, and a later version may have more.
TRACE_PARENT_SIZE_MAX, TRACE_STATE_SIZE_MAX = 128, 512
TRACE_ID_SIZE, SPAN_ID_SIZE = 16, 8
NOTHING = Context()
ERROR = trace.Status(trace.StatusCode.ERROR)
KINDS = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.SERVER: trace.SpanKind.SERVER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
}
_propagator = TraceContextTextMapPropagator()


def tracer_of(provider: trace.TracerProvider | None = None) -> Tracer:
    """Return a tracer of a provider; None: of that of the program.  NO_TRACER if that records nothing."""
    provider = provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return NO_TRACER
    tracer = provider.get_tracer(SCOPE, __version__)
    # What an SDK gives that was disabled.
    return NO_TRACER if isinstance(tracer, trace.NoOpTracer) else RecordingTracer(tracer)


class _Harmless:
    """Runs what an SDK does: an exception ends the body and nothing else, and the log has the first one."""

    def __init__(self) -> None:
        self._has_said = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if not self._has_said:
            self._has_said = True
            logger.warning(
                "traces are incomplete, since what records them fails: mend its sampler or its processors",
                exc_info=error,
            )
        return True


class RecordingTracer:
    """Begins spans with a tracer of the API."""

    is_on = True

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._harmless = _Harmless()

    def begin(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Attributes
    ) -> Span | None:
        with self._harmless:
            span = self._tracer.start_span(
                name, NOTHING if parent is None else parent, KINDS[kind], attributes
            )
            if span.is_recording():
                return RecordedSpan(self._tracer, span, self._harmless)
        return None

    def go_on(self, context: bytes, name: str, kind: Kind, attributes: Attributes) -> Span | None:
        parent = _parent_of_bytes(context)
        return None if parent is None else self.begin(name, kind, parent, attributes)

    def parent_here(self) -> Parent | None:
        return contexts.get_current()

    def parent_in(self, metadata: Iterable[tuple[str, Any]]) -> Parent | None:
        found: dict[str, str] = {}
        for key, value in metadata:
            if key in (TRACE_PARENT, TRACE_STATE):
                if key in found or not isinstance(value, str):
                    # Which of two is meant nobody can know.
                    return None
                found[key] = value
        return _extracted(found) if TRACE_PARENT in found else None

    def parent_of(self, traceparent: str) -> Parent | None:
        return _extracted({TRACE_PARENT: traceparent}) if traceparent else None


class RecordedSpan:
    """One span of the API."""

    __slots__ = ("_harmless", "_last", "_span", "_tracer")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, harmless: _Harmless) -> None:
        self._tracer = tracer
        self._span = span
        self._harmless = harmless
        # Its last part, once that has begun.
        self._last: Span | None = None

    @property
    def context(self) -> bytes:
        own = self._span.get_span_context()
        return (
            own.trace_id.to_bytes(TRACE_ID_SIZE)
            + own.span_id.to_bytes(SPAN_ID_SIZE)
            + bytes([own.trace_flags & 0xFF])
        )

    @property
    def traceparent(self) -> str:
        return self._carried().get(TRACE_PARENT, "")

    @property
    def metadata(self) -> Metadata:
        return tuple(self._carried().items())

    def _carried(self) -> dict[str, str]:
        carried: dict[str, str] = {}
        _propagator.inject(carried, trace.set_span_in_context(self._span, NOTHING))
        return carried

    @property
    def ids(self) -> tuple[str, str]:
        own = self._span.get_span_context()
        return trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id)

    def child(
        self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes = NO_ATTRIBUTES
    ) -> Span:
        parent = trace.set_span_in_context(self._span, NOTHING)
        span: trace.Span = trace.INVALID_SPAN
        with self._harmless:
            span = self._tracer.start_span(name, parent, KINDS[kind], attributes)
        return RecordedSpan(self._tracer, span, self._harmless)

    def then(self, name: str) -> None:
        self._last = self.child(name)

    def note(self, attributes: Attributes) -> None:
        with self._harmless:
            self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        with self._harmless:
            self._span.add_event(name, attributes)

    def link(self, other: Span) -> None:
        linked = _span_context(other.context)
        if linked is not None:
            with self._harmless:
                self._span.add_link(linked)

    def end(self, problem: str = "") -> None:
        if self._last is not None:
            self._last.end(problem)
        with self._harmless:
            if problem:
                self._span.set_attribute("error.type", problem)
                self._span.set_status(ERROR)
            self._span.end()


def _parent_of_bytes(context: bytes) -> Parent | None:
    found = _span_context(context)
    if found is None:
        return None
    return trace.set_span_in_context(trace.NonRecordingSpan(found), NOTHING)


def _span_context(context: bytes) -> trace.SpanContext | None:
    if len(context) != CONTEXT_SIZE:
        return None
    end = TRACE_ID_SIZE + SPAN_ID_SIZE
    found = trace.SpanContext(
        int.from_bytes(context[:TRACE_ID_SIZE]),
        int.from_bytes(context[TRACE_ID_SIZE:end]),
        is_remote=True,
        trace_flags=trace.TraceFlags(context[end]),
    )
    return found if found.is_valid else None


def _extracted(carried: dict[str, str]) -> Parent | None:
    if len(carried[TRACE_PARENT]) > TRACE_PARENT_SIZE_MAX:
        return None
    if len(carried.get(TRACE_STATE, "")) > TRACE_STATE_SIZE_MAX:
        # The rest of it is of use without the state.
        del carried[TRACE_STATE]
    found = _propagator.extract(carried, NOTHING)
    return found if trace.get_current_span(found).get_span_context().is_valid else None
