"""Measure a cluster from here: how fast it takes records, how fast it gives them, how long one takes.

It runs against any cluster, and writes to the topic that it is told: what it writes stays there. Every run begins with a warm-up that
counts for nothing, and is bounded in time and in records; Ctrl-C ends it and prints what was measured so far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from distlog.cli import bench_arguments, bench_loads
from distlog.cli.bench_arguments import AUTO, load_of
from distlog.cli.bench_loads import Load
from distlog.cli.bench_plot import draw, require_matplotlib
from distlog.cli.bench_samples import SHARES, UNKNOWN, Samples
from distlog.cli.cluster import status_of
from distlog.cli.connecting import connected
from distlog.cli.terminal import print_error, progress
from distlog.errors import DistlogError, TopicExists

if TYPE_CHECKING:
    from distlog.client import Client

EXIT_INTERRUPTED = 130
MIXED = "mixed"
DURABILITIES = {
    "fsync": "fsync: acknowledged when a majority has synced it",
    "os": "os: acknowledged when a majority has written it; synced within a second",
    MIXED: "mixed: some nodes acknowledge what they have written and not synced",
    UNKNOWN: "unknown: no node said it",
}

add_arguments = bench_arguments.add_arguments

# --- The run ----------------------------------------------------------------------------------------

LOADS: dict[str, Callable[[Client, Load, Samples], Awaitable[None]]] = {
    "produce": bench_loads.produce,
    "consume": bench_loads.consume,
    "latency": bench_loads.latency,
}


def run(namespace: argparse.Namespace) -> int:
    load = load_of(namespace)
    if namespace.plot:
        require_matplotlib()
    samples = Samples(
        warm_up_s=namespace.warm_up, duration_s=namespace.duration, count=namespace.count
    )
    error: DistlogError | None = None
    is_interrupted = False
    try:
        asyncio.run(measure(namespace, load, samples))
    except KeyboardInterrupt:
        is_interrupted = True
    except DistlogError as failure:
        error = failure
    if len(samples):
        report = report_of(namespace, load, samples, is_interrupted, error)
        print(json.dumps(report) if namespace.json else text_of(report), flush=True)
        if namespace.plot:
            draw(namespace.plot, title_of(report), samples.intervals())
    elif is_interrupted:
        print_error("interrupted before anything was measured")
    elif error is None:
        print_error("there was nothing to measure: give it more --duration, or less --warm-up")
        return 1
    if error is not None:
        print_error(str(error))
        return 1
    return EXIT_INTERRUPTED if is_interrupted else 0


async def measure(namespace: argparse.Namespace, load: Load, samples: Samples) -> None:
    """Put the load on the cluster."""
    async with connected(namespace, timeout_s=namespace.timeout) as client:
        if namespace.action != "consume" and namespace.create_topic:
            with contextlib.suppress(TopicExists):
                await client.create_topic(namespace.topic)
        samples.durability = await durability_of(client)
        async with progress(samples.so_far):
            await LOADS[namespace.action](client, load, samples)


async def durability_of(client: Client) -> str:
    """Return when the nodes that answer acknowledge an entry: "fsync", "os", "mixed"; "unknown" if none answers."""
    try:
        servers = await client.servers()
    except DistlogError:
        # The load says what is wrong, if it is not over by then.
        return UNKNOWN
    statuses = await asyncio.gather(*(status_of(client, server) for server in servers))
    found = {status.durability for status in statuses if status}
    return found.pop() if len(found) == 1 else MIXED if found else UNKNOWN


# --- What is said -----------------------------------------------------------------------------------


def report_of(
    namespace: argparse.Namespace,
    load: Load,
    samples: Samples,
    is_interrupted: bool,
    error: DistlogError | None,
) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "bench": namespace.action,
        "topic": load.topic or "default",
        "settings": settings_of(namespace.action, load),
        "durability": samples.durability,
        "warm_up_s": namespace.warm_up,
        **samples.figures(),
        "latency_of": latency_of(namespace.action, load),
        "interrupted": is_interrupted,
        "error": None if error is None else str(error),
        "intervals": [interval.fields() for interval in samples.intervals()],
    }


def settings_of(action: str, load: Load) -> dict[str, Any]:
    """Return what was asked for, of what matters for the figures."""
    if action == "consume":
        return {"by": load.by}
    settings: dict[str, Any] = {"record_size": load.record_size}
    if action == "latency":
        settings["of"] = load.of
        settings.update({"rate": load.rate} if load.of == "tail" else {"callers": load.callers})
    elif load.batch:
        settings.update({"batch": load.batch, "in_flight": load.in_flight})
    else:
        settings.update({"batch": AUTO, "linger_ms": load.linger_s * 1000})
    return settings


def latency_of(action: str, load: Load) -> str:
    """Say from when to when a latency goes."""
    if action == "consume":
        if load.by == "records":
            return f"reading up to {bench_loads.READ_RECORDS_PER_SAMPLE} records"
        return "reading a batch"
    if action == "produce":
        what = "a batch" if load.batch else "a record"
        return f"{what}, from the producer taking it to its acknowledgement"
    return {
        "call": "a call, from its begin to its answer",
        "stream": "a record, from the producer taking it to its acknowledgement",
        "tail": "a record, from the producer taking it to a consumer having it",
    }[load.of]


def title_of(report: dict[str, Any]) -> str:
    """Return what was done, in one line."""
    settings = ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in report["settings"].items()
    )
    return f"bench {report['bench']}, topic {report['topic']}: {settings}"


def text_of(report: dict[str, Any]) -> str:
    """Return what a person reads."""
    ended = ", interrupted" if report["interrupted"] else ""
    if report["error"] is not None:
        ended = ", until it failed"
    rows = [
        (
            "measured",
            f"{report['duration_s']:.1f} s{ended}, after a warm-up of {report['warm_up_s']:g} s",
        ),
        ("durability", DURABILITIES[report["durability"]]),
        ("records", f"{report['records']:,}"),
        ("records/s", f"{report['records_per_s']:,.0f}"),
        ("MB/s", f"{report['megabytes_per_s']:,.1f}"),
        ("client CPU", f"{report['client_cpu_us_per_record']:,.2f} us a record"),
        ("latency of", f"{report['latency_of']} ({report['samples']:,} samples)"),
    ]
    lines = [title_of(report), *(f"  {name:<11} {text}" for name, text in rows)]
    names = {"p99_9_ms": "p99.9", "max_ms": "greatest"}
    for name, _ in SHARES:
        shown = names.get(name, name.removesuffix("_ms"))
        lines.append(f"  {shown:<11} {report['latency'][name]:,.2f} ms")
    return "\n".join(lines)
