"""What is believed of what others say that a request is part of; and that nothing is recorded where nobody records."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from distlog.tracing.recording import RecordingTracer, tracer_of
from distlog.tracing.spans import CONTEXT_SIZE, NO_TRACER, Kind, Span
from tests.tracing.test_one_trace import HOSTILE, SAMPLED, SPAN_ID, TRACE_ID

TRACER = tracer_of(TracerProvider(shutdown_on_exit=False))


def begun(parent: object = None) -> Span:
    span = TRACER.begin("a span", Kind.INTERNAL, parent, {})
    assert span is not None
    return span


def test_a_context_that_one_node_tells_another_leads_back_to_its_span() -> None:
    span = begun()
    assert len(span.context) == CONTEXT_SIZE
    assert span.context[:16].hex() == span.ids[0]
    further = TRACER.go_on(span.context, "further", Kind.SERVER, {})
    assert further is not None
    assert further.ids[0] == span.ids[0]
    assert further.ids[1] != span.ids[1]
    assert span.traceparent == f"00-{span.ids[0]}-{span.ids[1]}-{span.context[24]:02x}"
    assert span.metadata == (("traceparent", span.traceparent),)


@pytest.mark.parametrize(
    "context",
    [
        b"",
        bytes(CONTEXT_SIZE),
        bytes(16) + b"12345678\x01",
        b"1" * 16 + bytes(8) + b"\x01",
        b"1" * (CONTEXT_SIZE + 1),
    ],
)
def test_a_context_that_is_none_is_no_part_of_anything(context: bytes) -> None:
    assert TRACER.go_on(context, "further", Kind.SERVER, {}) is None


def test_a_context_that_its_sender_does_not_sample_is_not_gone_on_with() -> None:
    assert TRACER.go_on(b"1" * 24 + b"\x00", "further", Kind.SERVER, {}) is None


@pytest.mark.parametrize("header", HOSTILE.values(), ids=list(HOSTILE))
def test_nonsense_in_a_header_is_nothing(header: str) -> None:
    assert TRACER.parent_in([("traceparent", header)]) is None
    assert TRACER.parent_of(header) is None


@given(header=st.text(max_size=200))
def test_no_text_is_more_than_nonsense_or_a_context(header: str) -> None:
    for parent in (TRACER.parent_of(header), TRACER.parent_in([("traceparent", header)])):
        assert parent is None or trace.get_current_span(parent).get_span_context().is_valid


@pytest.mark.parametrize(
    "metadata",
    [
        [("traceparent", SAMPLED), ("traceparent", SAMPLED.replace("4", "5"))],
        [("traceparent", SAMPLED.encode())],
        [("tracestate", "vendor=7")],
        [("user-agent", SAMPLED)],
        [],
    ],
    ids=["two of them", "bytes", "a state alone", "another header", "nothing"],
)
def test_metadata_without_one_header_that_says_it_are_nothing(
    metadata: list[tuple[str, object]],
) -> None:
    assert TRACER.parent_in(metadata) is None


@pytest.mark.parametrize("state", ["x" * 513, "no state", ",,,", "a=" + "b" * 300])
def test_a_state_that_is_none_leaves_the_context_of_use(state: str) -> None:
    parent = TRACER.parent_in([("traceparent", SAMPLED), ("tracestate", state)])
    assert begun(parent).ids[0] == TRACE_ID


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known() -> None:
    parent = TRACER.parent_of(f"01-{TRACE_ID}-{SPAN_ID}-01-more")
    assert begun(parent).ids[0] == TRACE_ID


def test_a_program_without_an_sdk_records_nothing() -> None:
    assert tracer_of(trace.ProxyTracerProvider()) is NO_TRACER
    assert tracer_of(trace.NoOpTracerProvider()) is NO_TRACER
    assert isinstance(TRACER, RecordingTracer)
    assert NO_TRACER.begin("x", Kind.SERVER, None, {}) is None
    assert NO_TRACER.go_on(b"1" * CONTEXT_SIZE, "x", Kind.SERVER, {}) is None
    assert NO_TRACER.parent_in([("traceparent", SAMPLED)]) is None
    assert (NO_TRACER.parent_of(SAMPLED), NO_TRACER.parent_here()) == (None, None)


def test_an_sdk_that_is_disabled_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracer_of(TracerProvider(shutdown_on_exit=False)) is NO_TRACER


def test_a_client_loads_opentelemetry_only_if_its_program_has_and_no_node_loads_the_sdk_for_nothing() -> (
    None
):
    script = """
import asyncio, sys
from distlog.client import Client
import distlog.serve
async def main():
    async with Client("127.0.0.1:1"):
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"
