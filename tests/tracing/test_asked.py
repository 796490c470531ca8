"""What the standard variables ask for: nothing unless they do, and never more than they say."""

from __future__ import annotations

import pytest
from opentelemetry.util.re import parse_env_headers

from distlog.tracing.asked import CONSOLE, HEADERS, NONE, OTLP, QUEUE_SIZE_MAX, Asked, asked

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "exporter", "variable"),
    [
        ({}, NONE, ""),
        ({"OTEL_SERVICE_NAME": "log", "OTEL_TRACES_SAMPLER": "always_on"}, NONE, ""),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c:4318"}, NONE, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, OTLP, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": " Console "}, CONSOLE, "OTEL_TRACES_EXPORTER"),
        ({ENDPOINT: "http://c:4318"}, OTLP, ENDPOINT),
        ({ENDPOINT: ""}, NONE, ""),
        ({"OTEL_TRACES_EXPORTER": "", ENDPOINT: "http://c:4318"}, OTLP, ENDPOINT),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"},
            OTLP,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://c:4318"}, NONE, ""),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "nonsense"}, NONE, ""),
        ({"OTEL_SDK_DISABLED": "1", ENDPOINT: "http://c:4318"}, OTLP, ENDPOINT),
        (
            {ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            OTLP,
            ENDPOINT,
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            CONSOLE,
            "OTEL_TRACES_EXPORTER",
        ),
    ],
)
def test_traces_are_exported_if_and_where_the_variables_say_so(
    environ: dict[str, str], exporter: str, variable: str
) -> None:
    found = asked(environ)
    assert (found.exporter, found.variable) == (exporter, variable)


def test_the_queue_has_the_limits_that_are_asked_for() -> None:
    otlp = {"OTEL_TRACES_EXPORTER": "otlp"}
    assert asked(otlp) == Asked(OTLP, "OTEL_TRACES_EXPORTER", 2048, 512, 5.0)
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "250"}
    assert asked(otlp | sizes) == Asked(OTLP, "OTEL_TRACES_EXPORTER", 100, 100, 0.25)
    sizes["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] = "7"
    assert asked(otlp | sizes).batch_size == 7


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "otlp, console and none are known"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf is known"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf is known"),
        ("OTEL_TRACES_SAMPLER", "traceidration", "parentbased_traceidratio are known"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1 to"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE_SIZE_MAX + 1), "from 1 to"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4000", "from 1 to 2048"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "from 1 to"),
        ("OTEL_BSP_SCHEDULE_DELAY", "٣", "from 1 to"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "from 1 to"),
    ],
)
def test_a_mistake_is_said_with_what_would_be_right(name: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        asked({ENDPOINT: "http://c:4318", name: value})
    assert f"{name}={value}" in str(raised.value)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer s3cr3t",
        "s3cr3t",
        "a=b,s3cr3t",
        "a=s3cr3t;c",
        'a="s3cr3t"',
        "a b=s3cr3t",
    ],
)
def test_headers_that_are_none_are_not_shown(name: str, text: str) -> None:
    """The exporter would write them to the log, where others read the key to the collector."""
    with pytest.raises(ValueError, match=f"{name}: it is NAME=VALUE") as raised:
        asked({ENDPOINT: "http://c:4318", name: text})
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("name", HEADERS)
def test_the_exporter_has_nothing_to_say_of_headers_that_are_taken(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("a=b", " a = b , authorization=Bearer%20x==,", "x-key=a b", "a=", ""):
        assert asked({ENDPOINT: "http://c:4318", name: text}).exporter == OTLP
        parse_env_headers(text, liberal=True)
    assert caplog.text == ""


@pytest.mark.parametrize("ratio", ["1 %", "-0.1", "1.1", "nan", "inf", "one"])
def test_a_part_that_is_none_is_not_taken_for_all(ratio: str) -> None:
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio"}
    with pytest.raises(ValueError, match="from 0 to 1"):
        asked(environ | {"OTEL_TRACES_SAMPLER_ARG": ratio})
    for good in ("", "0", "0.01", "1"):
        assert asked(environ | {"OTEL_TRACES_SAMPLER_ARG": good}).exporter == OTLP
