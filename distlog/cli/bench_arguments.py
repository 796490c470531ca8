"""What `distlog bench` can be told, and the limits of it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from typing import Any

from distlog.cli.arguments import add_server_argument, add_timeout_argument
from distlog.cli.bench_loads import STAMP, Load
from distlog.cli.bench_plot import INSTALL, SUFFIX
from distlog.cli.topic import topic_name
from distlog.cli.units import size
from distlog.errors import ConfigurationInvalid

DURATION_S, DURATION_MAX_S = 10.0, 3600.0
WARM_UP_S, WARM_UP_MAX_S = 1.0, 60.0
COUNT_MAX = 1_000_000_000
# Every sample of these is kept, and each is one record.
LATENCY_COUNT_MAX = 10_000_000
RECORD_SIZE_MAX = 32 << 20
BATCH_MAX = 10_000
IN_FLIGHT_MAX = 16
LINGER_MAX_MS = 10_000.0
MEMORY_SIZE_RANGE = (1 << 20, 1 << 30)
CALLERS_MAX = 1_000
RATE_MAX = 10_000.0
TIMEOUT_S = 30.0
AUTO = "auto"
# Of the frames of a batch, with 8 bytes for each record.
BATCH_SIZE_MAX = 4 << 20
FRAME_COST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    produce = _add_action(actions, "produce", "append records as fast as the cluster takes them")
    _add_record_size(produce)
    produce.add_argument(
        "--batch",
        type=batch,
        default=0,
        metavar=f"N|{AUTO}",
        help=f"records in a batch, 1 to {BATCH_MAX}, in up to 4 MiB; {AUTO}: single records that the client groups by "
        f"itself (default {AUTO})",
    )
    produce.add_argument(
        "--in-flight",
        type=whole(1, IN_FLIGHT_MAX),
        metavar="N",
        help=f"with --batch N: batches that are not acknowledged, 1 to {IN_FLIGHT_MAX} (default {IN_FLIGHT_MAX})",
    )
    produce.add_argument(
        "--linger",
        type=real(0, LINGER_MAX_MS),
        metavar="MS",
        help=f"with --batch {AUTO}: how long a record waits for others to share its batch, up to {LINGER_MAX_MS:g} ms "
        "(default 0)",
    )
    produce.add_argument(
        "--memory",
        type=memory_size,
        default=32 << 20,
        metavar="BYTES",
        help="of records that are not acknowledged, 1MiB to 1GiB (default 32MiB)",
    )
    consume = _add_action(
        actions, "consume", "read a topic as fast as one client can, again and again"
    )
    consume.add_argument(
        "--by",
        choices=("records", "lists", "batches"),
        default="records",
        help="read single records, lists of those of a batch, or batches that are not taken apart (default records)",
    )
    consume.add_argument(
        "--from",
        dest="start",
        type=whole(0, (1 << 63) - 1),
        metavar="OFFSET",
        help="where to begin (default: the first record that is kept)",
    )
    latency = _add_action(actions, "latency", "append one record at a time and wait for it")
    _add_record_size(latency)
    latency.add_argument(
        "--of",
        choices=("stream", "call", "tail"),
        default="stream",
        help="wait for the answer on a producer's stream, for that to a call of its own, or until a consumer that waits at the "
        "end has the record (default stream)",
    )
    latency.add_argument(
        "--callers",
        type=whole(1, CALLERS_MAX),
        default=1,
        metavar="N",
        help=f"that do so side by side, 1 to {CALLERS_MAX} (default 1)",
    )
    latency.add_argument(
        "--rate",
        type=real(1, RATE_MAX),
        metavar="N",
        help=f"with --of tail: records a second, 1 to {RATE_MAX:g} (default 200)",
    )


def _add_action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    add_server_argument(parser)
    parser.add_argument("--topic", type=topic_name, help="the topic to use (default: default)")
    if name != "consume":
        parser.add_argument(
            "--create-topic", action="store_true", help="create it first, if it is not there"
        )
    count_max = LATENCY_COUNT_MAX if name == "latency" else COUNT_MAX
    parser.add_argument(
        "--duration",
        type=real(0.001, DURATION_MAX_S),
        default=DURATION_S,
        metavar="SECONDS",
        help=f"that are measured at most, up to {DURATION_MAX_S:g} (default %(default)g)",
    )
    parser.add_argument(
        "--count",
        type=whole(1, count_max),
        metavar="N",
        help=f"records that are measured at most, up to {count_max} (default: as many as there is time for)",
    )
    parser.add_argument(
        "--warm-up",
        type=real(0, WARM_UP_MAX_S),
        default=WARM_UP_S,
        metavar="SECONDS",
        help=f"before that count for nothing, up to {WARM_UP_MAX_S:g} (default %(default)g)",
    )
    add_timeout_argument(parser, TIMEOUT_S, "give up after this long without an answer")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot",
        type=picture,
        metavar="FILE.png",
        help=f"draw throughput and latency over time; needs matplotlib: {INSTALL}",
    )
    return parser


def _add_record_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--record-size",
        type=record_size,
        default=100,
        metavar="BYTES",
        help="of each record, 1 to 32MiB; a cluster takes 1MiB unless told otherwise (default 100)",
    )


# --- Amounts and their limits -----------------------------------------------------------------------


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what parses a whole number in a range."""

    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}, not {text!r}")

    return parse


def real(least: float, most: float) -> Callable[[str], float]:
    """Return what parses a number in a range."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(
            f"must be a number from {least:g} to {most:g}, not {text!r}"
        )

    return parse


def batch(text: str) -> int:
    """Parse how many records a batch has; 0 where the client groups them."""
    if text == AUTO:
        return 0
    if text.isdecimal() and 1 <= int(text) <= BATCH_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be a number from 1 to {BATCH_MAX}, or {AUTO}, not {text!r}"
    )


def record_size(text: str) -> int:
    value = size(text)
    if value > RECORD_SIZE_MAX:
        raise argparse.ArgumentTypeError(f"must be from 1 to 32MiB, not {text!r}")
    return value


def memory_size(text: str) -> int:
    value = size(text)
    if not MEMORY_SIZE_RANGE[0] <= value <= MEMORY_SIZE_RANGE[1]:
        raise argparse.ArgumentTypeError(f"must be from 1MiB to 1GiB, not {text!r}")
    return value


def picture(text: str) -> str:
    """Parse where a picture is written."""
    if not text.endswith(SUFFIX):
        raise argparse.ArgumentTypeError(f"must end in {SUFFIX}, not {text!r}")
    if not os.path.isdir(os.path.dirname(text) or "."):
        raise argparse.ArgumentTypeError(f"is in no directory that exists: {text!r}")
    return text


def load_of(namespace: argparse.Namespace) -> Load:
    """Return what is to be done.  Raises ConfigurationInvalid for flags that do not go together."""
    common: dict[str, Any] = {"topic": namespace.topic or "", "timeout_s": namespace.timeout}
    if namespace.action == "consume":
        return Load(by=namespace.by, start=namespace.start, **common)
    if namespace.create_topic and not namespace.topic:
        problem = "name the topic, with --topic; default is always there"
        raise ConfigurationInvalid("--create-topic", problem)
    common["record_size"] = namespace.record_size
    of_action = _latency_load if namespace.action == "latency" else _produce_load
    return of_action(namespace, common)


def _latency_load(namespace: argparse.Namespace, common: dict[str, Any]) -> Load:
    if namespace.of == "tail":
        if namespace.record_size < STAMP.size:
            problem = f"must be at least {STAMP.size} with --of tail: a record carries its run and its number"
            raise ConfigurationInvalid("--record-size", problem)
        if namespace.callers > 1:
            raise ConfigurationInvalid("--callers", "there is one with --of tail: say --rate")
    elif namespace.rate is not None:
        problem = "is of use with --of tail only: otherwise the next record waits for the last"
        raise ConfigurationInvalid("--rate", problem)
    rate = 200.0 if namespace.rate is None else namespace.rate
    return Load(of=namespace.of, callers=namespace.callers, rate=rate, **common)


def _produce_load(namespace: argparse.Namespace, common: dict[str, Any]) -> Load:
    if namespace.batch and namespace.linger is not None:
        problem = f"is of use with --batch {AUTO} only: what is a batch already is sent at once"
        raise ConfigurationInvalid("--linger", problem)
    if not namespace.batch and namespace.in_flight is not None:
        problem = f"is of use with --batch N only: with {AUTO}, --memory says how much may be unacknowledged"
        raise ConfigurationInvalid("--in-flight", problem)
    frames_size = namespace.batch * (namespace.record_size + FRAME_COST)
    if namespace.batch > 1 and frames_size > BATCH_SIZE_MAX:
        fitting = max(1, BATCH_SIZE_MAX // (namespace.record_size + FRAME_COST))
        problem = (
            f"a batch has up to 4 MiB: at most {fitting} records of {namespace.record_size} bytes"
        )
        raise ConfigurationInvalid("--batch", problem)
    return Load(
        batch=namespace.batch,
        in_flight=namespace.in_flight or IN_FLIGHT_MAX,
        linger_s=(namespace.linger or 0) / 1000,
        memory_size=namespace.memory,
        **common,
    )
