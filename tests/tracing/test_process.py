"""A process that is told to trace: it does, or says in one warning why not and what to do, and works in any case."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys

import pytest
from opentelemetry.sdk.resources import Resource

from distlog.logs import JsonLines, TextLines
from distlog.runtime import ThreadWorker
from distlog.tracing.process import ProcessTracing
from distlog.tracing.spans import NO_TRACER, SERVED
from tests.tracing.fake_spans import FakeSpan, FakeTracer

OTLP = {"OTEL_TRACES_EXPORTER": "otlp"}


def tracing_of(environ: dict[str, str]) -> ProcessTracing:
    async def run() -> ProcessTracing:
        tracing = ProcessTracing(environ, "n7", ThreadWorker)
        await tracing.stop(0.1)
        return tracing

    return asyncio.run(run())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_node_that_is_not_asked_traces_nothing_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing = tracing_of({})
    assert (tracing.tracer, tracing.counts) == (NO_TRACER, None)
    assert caplog.records == []


def test_a_node_that_is_asked_traces(caplog: pytest.LogCaptureFixture) -> None:
    tracing = tracing_of(OTLP)
    assert tracing.tracer.is_on
    assert tracing.counts is not None
    assert warnings(caplog) == []


def test_without_the_extra_a_node_says_what_to_install_and_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("opentelemetry.sdk", "distlog.tracing.export")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    tracing = tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert (tracing.tracer, tracing.counts) == (NO_TRACER, None)
    (line,) = warnings(caplog)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT asks for it" in line
    assert "pip install 'distlog[otel]'" in line


@pytest.mark.parametrize(
    "wrong",
    [
        {"OTEL_TRACES_SAMPLER": "some"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_a_mistake_in_the_variables_traces_nothing_rather_than_everything(
    wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    tracing = tracing_of(OTLP | wrong)
    assert (tracing.tracer, tracing.counts) == (NO_TRACER, None)
    ((name, value),) = wrong.items()
    (line,) = warnings(caplog)
    assert f"problem={name}={value}: " in line


def test_what_only_the_library_refuses_is_said_as_well(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    tracing = tracing_of(OTLP)
    assert tracing.counts is None
    (line,) = warnings(caplog)
    assert line.startswith("nothing is traced: correct or unset the variable problem=")
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in line


def test_who_records_is_the_node_unless_the_variables_say_it_in_other_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distlog.tracing.exporting import resource_of

    def shown(resource: Resource) -> list[object]:
        names = ("service.name", "service.instance.id", "region")
        return [resource.attributes.get(name) for name in names]

    assert shown(resource_of("n7")) == ["distlog", "n7", None]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders-log")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,region=eu")
    assert shown(resource_of("n7")) == ["orders-log", "pod-7", "eu"]


def logged(form: logging.Formatter) -> str:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(form)
    logger = logging.Logger("distlog.test")
    logger.addHandler(handler)
    logger.warning("something is slow path=%s", "a")
    return output.getvalue()


def test_a_line_that_is_logged_while_a_traced_call_is_served_has_its_ids() -> None:
    assert "trace_id" not in logged(JsonLines()) + logged(TextLines())
    token = SERVED.set(FakeSpan(FakeTracer(), "a call"))
    try:
        line = json.loads(logged(JsonLines()))
        assert (line["trace_id"], line["span_id"]) == ("a trace", "0")
        assert logged(TextLines()).endswith(
            " something is slow path=a trace_id=a trace span_id=0\n"
        )
    finally:
        SERVED.reset(token)
