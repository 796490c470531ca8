"""What the standard variables of OpenTelemetry ask of this process: which exporter, how much is sampled, how much may wait.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ has them.  An empty variable is one that is not set.
The SDK reads some of them itself, and then takes a sampler that it does not know for all, or a number that is none for its own: here
they are looked at before, and nothing is traced for a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

DISABLED, EXPORTER = "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"
SAMPLER, SAMPLER_ARG = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
# One of them, as the exporter takes it; others it writes to the log, and they may hold the key to a collector.
HEADER = re.compile(
    r"[ \t]*[!#-'*+.\-0-9A-Z^-z|~]+[ \t]*=[ \t]*[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
)
QUEUE_SIZE, BATCH_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
DELAY = "OTEL_BSP_SCHEDULE_DELAY"
OTLP, CONSOLE, NONE = "otlp", "console", "none"
HTTP_PROTOBUF = "http/protobuf"
RATIO_SAMPLERS = ("traceidratio", "parentbased_traceidratio")
SAMPLERS = (
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
    *RATIO_SAMPLERS,
)
# What may wait at most, whatever is asked for: a span takes about 2 KiB.
QUEUE_SIZE_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.  Without an exporter nothing is traced."""

    exporter: str
    # Which variable says so, for messages.
    variable: str = ""
    # Spans that may wait, spans that are sent at a time, and how long the first of them waits.
    queue_size: int = 2048
    batch_size: int = 512
    delay_s: float = 5.0


def asked(environ: Mapping[str, str]) -> Asked:
    """Return what the variables ask for.  Raises ValueError, which says what is wrong with which of them."""
    if _value(environ, DISABLED).lower() == "true":
        return Asked(NONE)
    exporter, variable = _value(environ, EXPORTER).lower(), EXPORTER
    if not exporter:
        # By the standard it would be otlp, to this machine; who has installed the extra has not asked for that yet.
        set_ones = [name for name in ENDPOINTS if _value(environ, name)]
        exporter, variable = (OTLP, set_ones[0]) if set_ones else (NONE, "")
    if exporter not in (OTLP, CONSOLE, NONE):
        raise ValueError(f"{variable}={exporter}: otlp, console and none are known")
    if exporter == NONE:
        return Asked(NONE)
    if exporter == OTLP:
        _check_protocol(environ)
        _check_headers(environ)
    _check_sampler(environ)
    queue_size = _number(environ, QUEUE_SIZE, 2048, QUEUE_SIZE_MAX)
    batch_size = _number(environ, BATCH_SIZE, min(512, queue_size), queue_size)
    delay_s = _number(environ, DELAY, 5000, 3_600_000) / 1000
    return Asked(exporter, variable, queue_size, batch_size, delay_s)


def _check_protocol(environ: Mapping[str, str]) -> None:
    for name in PROTOCOLS:
        protocol = _value(environ, name)
        if protocol:
            if protocol != HTTP_PROTOBUF:
                raise ValueError(
                    f"{name}={protocol}: {HTTP_PROTOBUF} is known, at port 4318 of a collector"
                )
            return


def _check_headers(environ: Mapping[str, str]) -> None:
    for name in HEADERS:
        headers = re.split(r"[ \t]*,[ \t]*", environ.get(name, ""))
        if not all(not each or HEADER.fullmatch(each.strip()) for each in headers):
            raise ValueError(f"{name}: it is NAME=VALUE,... and is not shown, as it may be secret")


def _check_sampler(environ: Mapping[str, str]) -> None:
    sampler = _value(environ, SAMPLER).lower()
    if sampler and sampler not in SAMPLERS:
        raise ValueError(f"{SAMPLER}={sampler}: {', '.join(SAMPLERS)} are known")
    if sampler not in RATIO_SAMPLERS:
        return
    text = _value(environ, SAMPLER_ARG)
    try:
        is_ratio = not text or 0 <= float(text) <= 1
    except ValueError:
        is_ratio = False
    if not is_ratio:
        raise ValueError(f"{SAMPLER_ARG}={text}: it is a part of all traces, from 0 to 1")


def _number(environ: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = _value(environ, name)
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= highest:
        raise ValueError(f"{name}={text}: it is a number from 1 to {highest}")
    return int(text)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
