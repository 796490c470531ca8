"""What an SDK calls may be anybody's, and may fail: that costs the trace, and neither a record nor its acknowledgement."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from distlog.client import Client
from distlog.tracing.recording import tracer_of
from distlog.tracing.spans import Kind
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run


class Faulty(SpanProcessor):
    """Fails at the beginning, or at the end, of each span."""

    def __init__(self, *, at_start: bool) -> None:
        self._at_start = at_start

    def on_start(self, span: object, parent_context: object = None) -> None:
        if self._at_start:
            raise ValueError("a mistake of its author")

    def on_end(self, span: object) -> None:
        raise ValueError("a mistake of its author")


class Undecided(Sampler):
    """Fails for every span but the first so many."""

    def __init__(self, count: int) -> None:
        self._left = count

    def should_sample(self, *about: object, **more: object) -> object:  # type: ignore[override]
        self._left -= 1
        if self._left < 0:
            raise ValueError("a mistake of its author")
        return ALWAYS_ON.should_sample(*about, **more)  # type: ignore[arg-type]

    def get_description(self) -> str:
        return "undecided"


def provider_with(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


PROVIDERS = {
    "at the start": lambda: provider_with(Faulty(at_start=True)),
    "at the end": lambda: provider_with(Faulty(at_start=False)),
    "no decision": lambda: TracerProvider(sampler=Undecided(0), shutdown_on_exit=False),
    "no decision on a part": lambda: TracerProvider(sampler=Undecided(1), shutdown_on_exit=False),
}
providers = pytest.mark.parametrize("name", PROVIDERS)


@providers
def test_a_span_can_be_used_to_its_end_whatever_fails_below_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = tracer_of(PROVIDERS[name]())
    for _ in range(3):
        span = tracer.begin("a span", Kind.INTERNAL, None, {})
        if span is not None:
            part = span.child("a part")
            part.note({"a": 1})
            part.event("something")
            part.link(span)
            span.then("the last part")
            part.end("WRONG")
            assert len(part.context) == len(span.context)
            assert part.traceparent in ("", *dict(part.metadata).values())
            span.end()
    said = [each.getMessage() for each in caplog.records if each.name.startswith("distlog")]
    assert len(said) == 1, said


@providers
def test_records_are_written_and_acknowledged_once(name: str) -> None:
    async def scenario() -> None:
        async with (
            FakeCluster() as cluster,
            Client(cluster.addresses, timeout_s=20, tracer_provider=PROVIDERS[name]()) as client,
        ):
            assert await client.produce(b"a") == 0
            async with await client.open_producer() as producer:
                acknowledged = await producer.produce(b"b")
                assert await acknowledged == 1
                whole = await producer.produce_batch([b"c", b"d"])
                assert await whole == range(2, 4)
            assert cluster.log == [b"a", b"b", b"c", b"d"]

    run(scenario())
