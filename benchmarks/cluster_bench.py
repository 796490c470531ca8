"""A cluster of three nodes with fsync against the targets of docs/performance.md, beside the limits of the same run.

    python -m benchmarks.cluster_bench [--runs 5] [--full | --quick] [--only latency,throughput] [--save FILE] [--write]

`--full` writes a history of 10 GiB, has 10,000 topics and 50 trials of kill -9; without it they are 1 GiB, 100 and 10.  `--write` puts
the table into docs/performance.md; `--from FILE` takes what `--save` kept instead of measuring again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import failover
from benchmarks.cluster import BenchCluster, machine, running_cluster
from benchmarks.cluster_loads import Loads, Sizes
from benchmarks.cluster_targets import page
from benchmarks.limits import Runs, bare_server, measure_limits
from benchmarks.observed import WAYS, observed_cluster, unwatched
from benchmarks.pages import PAGE, write_page
from benchmarks.processes import busy_percent

# Between these it writes its tables.
MARKS = ("<!-- make bench writes from here -->", "<!-- to here -->")
# Runs of writes to nodes that are looked at, for each run of the others.
OBSERVED_FACTOR = 2
SECTIONS = ("latency", "throughput", "tls", "observed", "idle", "history", "failover")
# Journal and logs of three nodes, for each byte of records.
SPACE_FACTOR = 9
SPACE_BESIDE = 8 << 30

SHORT = Sizes()
FULL = Sizes(seconds=5.0, history=10 << 30, topics=10_000, idle_s=10.0)
QUICK = Sizes(seconds=0.1, count=50, read_count=20_000, history=4 << 20, topics=3, idle_s=0.1)

Measured = dict[str, list[float]]


class Notes:
    """What is measured, as it comes; a person sees how far it is."""

    def __init__(self) -> None:
        self.measured: Measured = defaultdict(list)
        self._began_at = time.monotonic()

    def add(self, runs: Runs) -> None:
        for name, value in runs.items():
            self.measured[name].append(value)
        said = ", ".join(f"{name} {value:.4g}" for name, value in runs.items())
        print(f"{time.monotonic() - self._began_at:5.0f} s  {said}", file=sys.stderr, flush=True)


def measure(
    directory: Path, sizes: Sizes, runs: int, trials: int, sections: tuple[str, ...]
) -> Measured:
    """Measure everything; return the runs of each figure."""
    notes = Notes()
    with running_cluster(directory) as cluster, bare_server() as ports:
        loads = Loads(cluster, directory, sizes)
        loads.settle()
        if "throughput" in sections or "tls" in sections:
            loads.fill_for_reading()
        # Each run has everything once, so that all see the same machine.
        for number in range(runs):
            loads.settle()
            notes.add(measure_limits(ports, directory, sizes.seconds / 2))
            if "latency" in sections:
                notes.add(loads.latency())
            if "throughput" in sections:
                notes.add(loads.throughput(number))
            if "idle" in sections:
                loads.settle()
                notes.add(loads.idle())
        if "tls" in sections:
            with running_cluster(directory, with_tls=True) as other:
                measure_tls(loads, Loads(other, directory, sizes), runs, notes)
        if "observed" in sections:
            measure_observed(loads, directory, sizes, runs, notes)
        if "history" in sections:
            with running_cluster(directory) as other:
                beside = Loads(other, directory, sizes)
                measure_history(loads, beside, runs, notes)
        if "failover" in sections:
            notes.measured["failover_s"] = trials_of(cluster, trials)
    return dict(notes.measured)


PLAIN = (
    "plain_many_per_s",
    "plain_large_many_mb_s",
    "plain_own_per_s",
    "plain_read_mb_s",
    "plain_call_p50_ms",
)
TLS = ("tls_many_per_s", "tls_large_many_mb_s", "tls_own_per_s", "tls_read_mb_s", "tls_call_p50_ms")

POLICY = (
    "policy_many_per_s",
    "policy_large_many_mb_s",
    "policy_own_per_s",
    "policy_read_mb_s",
    "policy_call_p50_ms",
)


def measure_tls(loads: Loads, secured: Loads, runs: int, notes: Notes) -> None:
    """Measure the same loads without certificates, with them, and with a policy as well, in turns.

    The first run of each counts for nothing.
    """
    secured.settle()
    secured.fill_for_reading()
    for number in range(runs + 1):
        found = dict(zip(PLAIN, loads.some_of_each(number), strict=True))
        found |= dict(zip(TLS, secured.some_of_each(number), strict=True))
        with secured.policy():
            found |= dict(zip(POLICY, secured.some_of_each(number), strict=True))
        if number:
            notes.add(found)


def measure_observed(loads: Loads, directory: Path, sizes: Sizes, runs: int, notes: Notes) -> None:
    """Measure writes with somebody who looks and without, in turns, one way to look after the other.

    What is looked for is small: there are more runs, the same load follows at the other cluster, and both begin in turn.
    """
    for way in WAYS:
        with observed_cluster(directory, way) as other:
            watched = Loads(other, directory, sizes)
            watched.settle()
            for number in range(OBSERVED_FACTOR * runs + 1):
                topic = f"{way.name}-{number}"
                pair = [
                    loads.observed(topic, unwatched(way.name)),
                    watched.observed(topic, way.name),
                ]
                if number % 2:
                    pair.reverse()
                for first, second in zip(*pair, strict=True):
                    if number:
                        notes.add(first | second)


def measure_history(loads: Loads, beside: Loads, runs: int, notes: Notes) -> None:
    """Write the history and the topics; measure what they change, in turns with a cluster that has neither."""
    notes.add(loads.write_history())
    compare(loads, beside, runs, notes, "history")
    for _ in range(runs):
        notes.add(loads.restart())
    loads.make_topics()
    compare(loads, beside, runs, notes, "topics")


def compare(loads: Loads, beside: Loads, runs: int, notes: Notes, what: str) -> None:
    """Measure what a record costs with and without it.  A first run of each counts for nothing: what follows a pause is slower."""
    for number in range(runs + 1):
        found = {**beside.cost(number, f"no_{what}"), **loads.cost(number, what)}
        if number:
            notes.add(found)


def trials_of(cluster: BenchCluster, trials: int) -> list[float]:
    with contextlib.redirect_stdout(sys.stderr):
        return asyncio.run(failover.measure(cluster, trials))


def heading_of(result: dict[str, Any]) -> str:
    """Return the sentences before the table."""
    before, after = result["busy_percent"]
    return (
        f"{result['machine']}; others took {before:.0f} % of the processors before and {after:.0f} % after the run, on "
        f"{result['at']}. Three nodes on loopback that sync before they promise, one client process at a time, with its default "
        f"settings; all of it on the same processors. Medians of {result['runs']} runs of {result['sizes']['seconds']:g} s, the least "
        f"and the greatest in brackets; {result['trials']} trials of kill -9. The history is "
        f"{result['sizes']['history'] / (1 << 30):.3g} GiB of 1 KiB records, and there are {result['sizes']['topics']:,} "
        "topics beside it."
    )


def require_space(directory: Path, sizes: Sizes) -> None:
    """Stop in words if what is written does not fit."""
    needed = SPACE_FACTOR * sizes.history + (SPACE_BESIDE if sizes is not QUICK else 0)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SystemExit(
            f"{directory} has {free / (1 << 30):.1f} GiB free, and this needs {needed / (1 << 30):.1f} GiB: name another --directory"
        )


def chosen(text: str | None) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else SECTIONS
    if unknown := set(names) - set(SECTIONS):
        raise SystemExit(
            f"no section is called {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}"
        )
    return names


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="10 GiB, 10,000 topics, 50 trials")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--only", help=f"sections, with commas: {', '.join(SECTIONS)}")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes keep their data (default: the system's)"
    )
    parser.add_argument("--json", action="store_true", help="print what was measured, not a table")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep what was measured")
    parser.add_argument("--from", dest="saved", type=Path, metavar="FILE", help="measure nothing")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    if options.saved:
        result = json.loads(options.saved.read_text("utf-8"))
    else:
        result = result_of(options)
    if options.save:
        options.save.write_text(json.dumps(result), "utf-8")
    text = page(result["measured"], heading_of(result))
    print(json.dumps(result) if options.json else text)
    if options.write:
        write_page(PAGE, MARKS, text)


def result_of(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, and return everything that the page needs."""
    sizes = QUICK if options.quick else FULL if options.full else SHORT
    runs = 1 if options.quick else options.runs
    trials = 1 if options.quick else 50 if options.full else 10
    sections = chosen(options.only)
    with tempfile.TemporaryDirectory(prefix="distlog-bench-", dir=options.directory) as path:
        directory = Path(path)
        require_space(directory, sizes)
        busy_before = busy_percent(sizes.idle_s)
        measured = measure(directory, sizes, runs, trials, sections)
        busy_after = busy_percent(sizes.idle_s)
    return {
        "machine": machine(),
        "at": time.strftime("%Y-%m-%d"),
        "busy_percent": [busy_before, busy_after],
        "runs": runs,
        "trials": trials,
        "sizes": {
            "seconds": sizes.seconds,
            "history": sizes.history,
            "topics": sizes.topics,
        },
        "measured": measured,
    }


if __name__ == "__main__":
    main()
