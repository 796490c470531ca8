"""What a traced produce costs a node, beside one that is not.

    python -m benchmarks.tracing [--runs 9] [--json]

One process, no network: what is called for one unary Produce with an entry of its own.  `off` is all that a node without a tracer does;
`not sampled` are calls for which the sampler says no, without a context and with that of a caller who said no.  `leader` and `follower` are
their shares of a produce that is sampled, with the spans that they begin and end; `export` is what the exporter's thread does to send them,
which competes with the event loop for the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio, Sampler

from benchmarks.steps import Step, print_figures, us_each
from distlog.api.log.v1 import log_pb2
from distlog.consensus.entry_traces import EntryTraces
from distlog.consensus.messages import AppendEntries, AppendReply
from distlog.server.traced import begin_call, end_call, is_traced, note_topic
from distlog.tracing.recording import tracer_of
from distlog.tracing.spans import NO_TRACER, Tracer

# What a node does for a call beside its work, which takes some hundreds of microseconds.
OFF_AT_MOST_US = 1.0
CALLS, SAMPLED_CALLS = 20_000, 500
TERM, PAYLOAD = 1, b"an entry"
METHOD = log_pb2.DESCRIPTOR.services_by_name["Log"].methods_by_name["Produce"]
AGENT = ("user-agent", "grpc-python-asyncio/1.68.0")
UNSAMPLED = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")


class Call:
    """What gRPC gives for a call."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._metadata


class Kept(SpanProcessor):
    """Keeps spans that are over, for who looks at what their export costs."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def traced(sampler: Sampler) -> tuple[Tracer, Kept]:
    kept = Kept()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(kept)
    return tracer_of(provider), kept


def call_of(tracer: Tracer, context: Any) -> Callable[[], None]:
    """Return what a call does that is not sampled."""
    is_on = is_traced(tracer, METHOD)

    def call() -> None:
        span = begin_call(tracer, METHOD, context) if is_on else None
        if span is not None:
            end_call(span, "OK")

    return call


def off() -> None:
    """Ask what a node asks that records nothing: for the call, its proposal, and at each station of its entry."""
    traces = NOT_FOLLOWED
    for _ in range(4):
        if traces.is_on:
            raise AssertionError
    for _ in range(10):
        if traces.is_following:
            raise AssertionError


NOT_FOLLOWED = EntryTraces(NO_TRACER)


def leaders_share(tracer: Tracer) -> Callable[[], AppendEntries]:
    """Return what a leader does for one call with an entry of its own; it returns what a follower is sent."""
    traces, indexes = EntryTraces(tracer), count(2)
    entry = (PAYLOAD, lambda _result, _failure: None)

    def share() -> AppendEntries:
        index = next(indexes)
        span = begin_call(tracer, METHOD, Call(AGENT))
        assert span is not None
        note_topic("", 1)
        proposed = span.child("propose")
        traces.proposed(PAYLOAD, [proposed])
        traces.numbered([entry], index, TERM)
        entries = [(PAYLOAD, index, TERM)]
        told = [traces.sending(follower, entries) for follower in ("n2", "n3")]
        traces.synced(index)
        traces.acknowledged("n2", index + 1)
        with traces.applying(index, TERM):
            pass
        proposed.end()
        span.then("acknowledge")
        end_call(span, "OK")
        traces.acknowledged("n3", index + 1)
        assert not traces.is_following
        return AppendEntries(TERM, index, 1, index - 1, TERM, 1, entries, told[0])

    return share


def followers_share(tracer: Tracer, sent: AppendEntries) -> Callable[[], None]:
    """Return what a follower does for it."""
    traces = EntryTraces(tracer)
    ((_, index, _),) = sent.entries

    def share() -> None:
        traces.received("n1", sent)
        traces.replied("n1", AppendReply(TERM, sent.number, index + 1, True, False))
        with traces.applying(index, TERM):
            pass
        assert not traces.is_following

    return share


def measured() -> Iterator[Step]:
    yield "off", us_each(CALLS, off), OFF_AT_MOST_US
    hardly, _ = traced(ParentBasedTraceIdRatio(0))
    yield "not sampled", us_each(CALLS, call_of(hardly, Call(AGENT))), None
    yield "not sampled by its caller", us_each(CALLS, call_of(hardly, Call(AGENT, UNSAMPLED))), None
    everything, kept = traced(ALWAYS_ON)
    leader = leaders_share(everything)
    sent = leader()
    yield f"leader, {len(kept.spans)} spans", us_each(SAMPLED_CALLS, leader), None
    kept.spans.clear()
    follower = followers_share(everything, sent)
    follower()
    yield f"follower, {len(kept.spans)} spans", us_each(SAMPLED_CALLS, follower), None
    kept.spans.clear()
    leader()
    spans = kept.spans * 50

    def export() -> None:
        encode_spans(spans).SerializePartialToString()

    yield "export of the leader's", us_each(10, export) / 50, None


def main(arguments: Sequence[str] | None = None) -> None:
    print_figures(__doc__, measured, arguments)


if __name__ == "__main__":
    main()
