"""Append each line of a file, or of standard input, as one record: each exactly once and in order, whatever fails meanwhile.

One newline is taken from the end of each line, every other byte is kept; an empty line is an empty record. If it has to give up it
says which line was the first that is not acknowledged; every line before it is in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from distlog.cli.arguments import add_server_argument, add_timeout_argument
from distlog.cli.connecting import connected
from distlog.cli.lines import read_lines
from distlog.cli.terminal import print_error, print_note, progress
from distlog.errors import DistlogError, InvalidRequest, ProducerStopped

if TYPE_CHECKING:
    from distlog.client import Producer

TIMEOUT_S = 60.0
STANDARD_INPUT = 0


@dataclass(slots=True)
class Summary:
    """What `--json` prints."""

    # Records acknowledged, and the bytes of all that were read.
    records: int = 0
    bytes: int = 0
    # Of the acknowledged records; None if there is none.  Other producers may have written between them.
    first_offset: int | None = None
    last_offset: int | None = None
    # How many of them the log had already when they were sent again: how often repeating was needed.
    repeats: int = 0
    duration_s: float = 0.0
    # Counted from 1; None if everything is acknowledged.
    first_line_not_acknowledged: int | None = None
    error: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="what to read (default -, standard input)",
    )
    add_server_argument(parser)
    parser.add_argument("--topic", default="", help="the topic to write to (default: default)")
    add_timeout_argument(parser, TIMEOUT_S, "give up after this long without an acknowledgement")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON at the end")


def run(namespace: argparse.Namespace) -> int:
    summary = asyncio.run(produce(namespace))
    if namespace.json:
        print(json.dumps(asdict(summary)))
    if summary.error is not None:
        print_error(
            f"line {summary.first_line_not_acknowledged} was the first not acknowledged: {summary.error}"
        )
        return 1
    print_note(
        f"{summary.records:,} records acknowledged in {summary.duration_s:.1f} s"
        + (
            ""
            if summary.last_offset is None
            else f", the last one at offset {summary.last_offset:,}"
        )
    )
    return 0


async def produce(namespace: argparse.Namespace) -> Summary:
    """Produce the whole input; return how far it got.  Raises what kept it from beginning."""
    loop = asyncio.get_running_loop()
    async with (
        opened(namespace.file) as file,
        connected(namespace, timeout_s=namespace.timeout) as client,
    ):
        producer = await client.open_producer(namespace.topic, delivery_timeout_s=namespace.timeout)
        summary = Summary()
        started = loop.time()

        def so_far() -> str:
            count = producer.acknowledged_count
            return f"{count:,} records acknowledged, {count / (loop.time() - started):,.0f}/s"

        try:
            async with progress(so_far):
                await feed(producer, file, summary)
        finally:
            await producer.abort()
        summary.records = producer.acknowledged_count
        summary.first_offset = producer.first_offset
        summary.last_offset = producer.last_offset
        summary.repeats = producer.duplicate_count
        summary.duration_s = round(loop.time() - started, 3)
        return summary


async def feed(producer: Producer, file: int, summary: Summary) -> None:
    """Give every line to the producer and wait for the last acknowledgement; note in `summary` what ended it early."""
    problem: DistlogError | None = None
    try:
        async with aclosing(read_lines(file)) as read:
            async for lines in read:
                summary.bytes += sum(map(len, lines))
                await producer.produce_many(lines)
    except ProducerStopped:
        # `flush` says why.
        pass
    except DistlogError as error:
        problem = error
    except OSError as error:
        problem = InvalidRequest("the input", error.strerror or str(error))
    try:
        await producer.flush()
    except DistlogError as error:
        problem = error
    if problem is not None:
        summary.first_line_not_acknowledged = producer.acknowledged_count + 1
        summary.error = advice(problem, producer)


def advice(problem: DistlogError, producer: Producer) -> str:
    """Say what stopped it, and how to go on."""
    count, doubtful = producer.acknowledged_count, producer.in_doubt_count
    parts = [f"{problem}."]
    if count:
        parts.append(
            f"The {count:,} lines before it are in the log."
            if count > 1
            else "The line before it is in the log."
        )
    if doubtful:
        which = "It" if doubtful == 1 else f"Lines {count + 1} to {count + doubtful}"
        parts.append(f"{which} may be in the log: read its end to see where to go on")
    else:
        parts.append("It is not in the log: go on with it")
    return " ".join(parts)


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[int]:
    """Open the input.  Raises OSError, which names it."""
    if path == "-":
        if sys.stdin is None:
            raise InvalidRequest("-", "standard input is closed: name a file")
        yield STANDARD_INPUT
        return
    file = os.open(path, os.O_RDONLY)
    try:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        yield file
    finally:
        os.close(file)
