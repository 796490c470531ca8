"""Print the records of a topic to standard output.

Without --follow it ends with the last record that was acknowledged when it began; an empty log prints nothing. raw prints each value
and a newline; json prints one object a line, with the value as text, or as base64 in value_base64 if it is no UTF-8.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, BinaryIO

from distlog.cli.arguments import add_server_argument, add_timeout_argument, count
from distlog.cli.connecting import connected
from distlog.cli.json_fields import text_fields
from distlog.cli.units import MOMENT_WORDS, is_offset, moment_ms
from distlog.errors import ConfigurationInvalid, OffsetOutOfRange

if TYPE_CHECKING:
    from distlog.client import Batch, Client, Record

TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_server_argument(parser)
    parser.add_argument("--topic", default="", help="the topic to read (default: default)")
    parser.add_argument(
        "--from",
        dest="start",
        default="start",
        metavar="OFFSET|start|end|TIME",
        help="where to begin (default start, the first record that is kept); a time is the first record of that "
        "time or later: 2026-01-31T12:00:00Z",
    )
    parser.add_argument("--count", type=count, metavar="N", help="end after this many records")
    parser.add_argument(
        "--follow", action="store_true", help="wait for more at the end, until Ctrl-C"
    )
    parser.add_argument(
        "--format",
        choices=("raw", "json"),
        default="raw",
        help="how a record is printed (default raw)",
    )
    add_timeout_argument(
        parser, TIMEOUT_S, "give up after no node could be read from for this long"
    )


def run(namespace: argparse.Namespace) -> int:
    start = namespace.start
    if start not in ("start", "end") and not is_offset(start) and moment_ms(start) is None:
        problem = f"must be an offset, start, end or {MOMENT_WORDS}, not {start!r}"
        raise ConfigurationInvalid("--from", problem)
    if sys.stdout is None:
        raise BrokenPipeError
    asyncio.run(consume(namespace, sys.stdout.buffer))
    return 0


async def consume(namespace: argparse.Namespace, output: BinaryIO) -> None:
    """Print until the end.  Raises BrokenPipeError when nobody reads the output any more."""
    lines_of = LINES[namespace.format]
    async with connected(namespace, timeout_s=namespace.timeout) as client:
        start, end = await range_of(client, namespace)
        remaining = namespace.count
        if remaining == 0:
            return
        consumer = client.consume(namespace.topic, start=start, end=end)
        async with consumer, aclosing(consumer.batches()) as batches:
            try:
                async for batch in batches:
                    lines = lines_of(batch)[:remaining]
                    output.write(b"\n".join(lines) + b"\n")
                    if namespace.follow:
                        output.flush()
                    if remaining is not None:
                        remaining -= len(lines)
                        if remaining == 0:
                            break
            finally:
                output.flush()


async def range_of(client: Client, namespace: argparse.Namespace) -> tuple[int, int | None]:
    """Return where to begin, and before which offset to end: None to go on for ever."""
    if namespace.follow and namespace.start.isdecimal():
        return int(namespace.start), None
    timestamp_ms = moment_ms(namespace.start)
    position = None
    if timestamp_ms is not None:
        position = await client.offset_for_time(timestamp_ms, topic=namespace.topic)
    topic = await client.describe_topic(namespace.topic)
    known = {"start": topic.start_offset, "end": topic.high_watermark}
    if position is not None:
        # The topic may have been trimmed since.
        known[namespace.start] = max(position.offset, topic.start_offset)
    start = known[namespace.start] if namespace.start in known else int(namespace.start)
    if not topic.start_offset <= start <= topic.high_watermark:
        raise OffsetOutOfRange(start, topic.start_offset, topic.high_watermark)
    return start, None if namespace.follow else topic.high_watermark


def raw_lines(batch: Batch) -> list[bytes]:
    return batch.values()


def json_lines(batch: Batch) -> list[bytes]:
    return [json_line(record) for record in batch.records()]


def json_line(record: Record) -> bytes:
    fields: dict[str, Any] = {"offset": record.offset, "timestamp_ms": record.timestamp_ms}
    fields.update(text_fields("value", record.value))
    if record.key is not None:
        fields.update(text_fields("key", record.key))
    if record.headers:
        fields["headers"] = [
            {"name": name, **text_fields("value", content)} for name, content in record.headers
        ]
    return json.dumps(fields, ensure_ascii=False).encode()


LINES: dict[str, Callable[[Batch], list[bytes]]] = {"raw": raw_lines, "json": json_lines}
