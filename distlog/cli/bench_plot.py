"""The picture of a run of `distlog bench`: throughput and latency over time.  Needs matplotlib, which distlog does without otherwise."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from distlog.cli.bench_samples import Interval
from distlog.errors import ConfigurationInvalid

SUFFIX = ".png"
INSTALL = "pip install 'distlog[plot]'"
PERCENTILES = (("p50_ms", "p50"), ("p99_ms", "p99"), ("max_ms", "greatest"))


def require_matplotlib() -> None:
    """Raise ConfigurationInvalid, which says what to type, where a picture cannot be drawn."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        problem = f"draws with matplotlib, which is not installed here: {INSTALL}"
        raise ConfigurationInvalid("--plot", problem) from None


def draw(path: str, title: str, intervals: Sequence[Interval]) -> None:
    """Write the picture to `path`.  Raises OSError."""
    # Only now: it takes a second to load.  Without pyplot, which would look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title)
    edges = [*(interval.begin_s for interval in intervals), intervals[-1].end_s]
    above.stairs([interval.records_per_s for interval in intervals], edges)
    above.set_ylabel("records/s")
    above.set_ylim(bottom=0)
    megabytes = above.twinx()
    megabytes.set_ylabel("MB/s")
    megabytes.set_ylim(bottom=0, top=_megabytes_at_top(above.get_ylim()[1], intervals))
    timed = [interval for interval in intervals if interval.latency]
    for name, label in PERCENTILES:
        values = [interval.latency[name] for interval in timed if interval.latency]
        middles = [(interval.begin_s + interval.end_s) / 2 for interval in timed]
        below.plot(middles, values, marker=".", label=label)
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_formatter("{x:g}")
    below.set_ylabel("latency, ms")
    below.set_xlabel("seconds since the warm-up")
    below.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def _megabytes_at_top(records_at_top: Any, intervals: Sequence[Interval]) -> float:
    """Return how many MB/s the highest number of records a second is, as records of this run are."""
    records = sum(interval.records_per_s for interval in intervals)
    megabytes = sum(interval.megabytes_per_s for interval in intervals)
    return float(records_at_top) * megabytes / records
