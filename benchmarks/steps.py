"""Benchmarks of single steps of one process: microseconds of its processor's time, several times in turns."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.cluster import machine
from benchmarks.figures import Figure, table

# Name, microseconds, and what they are to be at most, if there is a target.
Step = tuple[str, float, float | None]


def us_each(calls: int, function: Callable[[], object]) -> float:
    """Return microseconds of processor time for each of so many calls."""
    begin = time.process_time_ns()
    for _ in range(calls):
        function()
    return (time.process_time_ns() - begin) / 1000 / calls


def print_figures(
    description: str | None,
    measure: Callable[[], Iterator[Step]],
    arguments: Sequence[str] | None,
) -> None:
    """Measure all steps as often as the command line wants, and print them as it wants."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    namespace = parser.parse_args(arguments)
    found = figures(measure, namespace.runs)
    if namespace.json:
        fields = {"machine": machine(), "figures": [figure.as_dict() for figure in found]}
        print(json.dumps(fields, indent=2))
    else:
        print(table(found))


def figures(measure: Callable[[], Iterator[Step]], run_count: int) -> list[Figure]:
    runs: dict[str, list[float]] = {}
    limits: dict[str, float | None] = {}
    for _ in range(run_count):
        for name, value, at_most in measure():
            runs.setdefault(name, []).append(value)
            limits[name] = at_most
    return [Figure(name, "us", values, at_most=limits[name]) for name, values in runs.items()]
