"""What a load of `distlog bench` measured: samples, and what is reported of them.

A sample is one thing that was waited for: a record, a batch, or so many records that were read.  Those count that end after the
warm-up and before the time is over: what was under way at the one moment stands for what is at the other.
"""

from __future__ import annotations

import math
import sys
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# Each takes 32 bytes; a run that has so many is over.
SAMPLE_COUNT_MAX = 10_000_000
# What no node has said.
UNKNOWN = "unknown"
SHARES = (("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("p99_9_ms", 0.999), ("max_ms", 1.0))
# How long an interval of the course over time may be: the shortest that gives at most so many of them.
INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
INTERVAL_COUNT_MAX = 100


class Samples:
    """The samples of one run, in the order in which they ended, and how much more of it there may be."""

    def __init__(
        self,
        *,
        warm_up_s: float,
        duration_s: float,
        count: int | None,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        """warm_up_s, duration_s: of the part before that counts for nothing, and of what is measured.

        count: records after the warm-up at most; None: as many as there is time for.
        """
        # When the nodes that were measured acknowledge an entry, as they say.
        self.durability = UNKNOWN
        self._warm_up_s = warm_up_s
        self._duration_s = duration_s
        # Records that may be measured, and of those that may be given to the cluster after the warm-up.
        self._count_max = sys.maxsize if count is None else count
        self._remaining = self._count_max
        self._clock = clock
        self._cpu_clock = cpu_clock
        # When the load began.  When the warm-up was over, infinity before it is, and the processor's time of this process then.
        self._started_at: float | None = None
        self._began_at = math.inf
        self._began_cpu_s = 0.0
        self._ended_cpu_s = 0.0
        # Whether all the time was used that there was.
        self._is_time_over = False
        # Of each sample: when it ended, how long it took, the records in it and their bytes.
        self._ended_at = array("d")
        self._latency_s = array("d")
        self._record_counts = array("q")
        self._sizes = array("q")
        self.record_count = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._ended_at)

    def take(self, wanted: int) -> int:
        """Return how many of `wanted` records may be given to the cluster, or read, now; 0: the run is over."""
        now = self._clock()
        if self._started_at is None:
            self._started_at = now
        if now < self._started_at + self._warm_up_s:
            return wanted
        if self._began_at == math.inf:
            self._began_at = now
            self._began_cpu_s = self._ended_cpu_s = self._cpu_clock()
        if now >= self._began_at + self._duration_s:
            self._end_time()
            return 0
        granted = min(wanted, self._remaining) if len(self) < SAMPLE_COUNT_MAX else 0
        self._remaining -= granted
        return granted

    def now(self) -> float:
        """Return the time that samples are told in."""
        return self._clock()

    def add(self, began_at: float, record_count: int, size: int) -> None:
        """Take a sample that ends now.  size: bytes of its records."""
        now = self._clock()
        if now < self._began_at or self.record_count >= self._count_max:
            return
        if now > self._began_at + self._duration_s:
            self._end_time()
            return
        if self.record_count + record_count > self._count_max:
            # Some of them were given to the cluster in the warm-up, instead of others that are still under way.
            size = size * (self._count_max - self.record_count) // record_count
            record_count = self._count_max - self.record_count
        self._ended_cpu_s = self._cpu_clock()
        self._ended_at.append(now)
        self._latency_s.append(now - began_at)
        self._record_counts.append(record_count)
        self._sizes.append(size)
        self.record_count += record_count
        self.size += size

    def _end_time(self) -> None:
        if not self._is_time_over:
            self._is_time_over = True
            self._ended_cpu_s = self._cpu_clock()

    # --- What is reported ---

    @property
    def elapsed_s(self) -> float:
        """Seconds that were measured: all there were, or until the last sample."""
        if self._is_time_over:
            return self._duration_s
        return self._ended_at[-1] - self._began_at if self._ended_at else 0.0

    def so_far(self) -> str:
        """Return what a person sees meanwhile."""
        if not self._ended_at:
            return "warming up"
        per_s = self.record_count / self.elapsed_s
        return f"{self.record_count:,} records in {self.elapsed_s:.1f} s, {per_s:,.0f}/s"

    def figures(self) -> dict[str, Any]:
        """Return the figures of the whole run.  There must be a sample."""
        elapsed_s = self.elapsed_s
        cpu_s = self._ended_cpu_s - self._began_cpu_s
        return {
            "duration_s": round(elapsed_s, 3),
            "records": self.record_count,
            "bytes": self.size,
            "records_per_s": round(self.record_count / elapsed_s, 1),
            "megabytes_per_s": round(self.size / elapsed_s / 1e6, 3),
            "client_cpu_us_per_record": round(1e6 * cpu_s / self.record_count, 3),
            "samples": len(self),
            "latency": percentiles(self._latency_s),
        }

    def intervals(self) -> list[Interval]:
        """Return the course over time, in intervals of one length, but for the last one."""
        elapsed_s = self.elapsed_s
        length_s = next(
            (each for each in INTERVALS_S if elapsed_s <= each * INTERVAL_COUNT_MAX),
            INTERVALS_S[-1],
        )
        # A rest is no interval of its own: a rate over a millisecond says nothing.
        count = max(1, round(elapsed_s / length_s))
        intervals = []
        first = 0
        for number in range(count):
            begin_s = number * length_s
            end_s, end = begin_s + length_s, len(self)
            if number < count - 1:
                end = bisect_right(self._ended_at, self._began_at + end_s, first)
            else:
                end_s = elapsed_s
            intervals.append(self._interval(begin_s, end_s - begin_s, slice(first, end)))
            first = end
        return intervals

    def _interval(self, begin_s: float, lasted_s: float, samples: slice) -> Interval:
        latencies_s = self._latency_s[samples]
        return Interval(
            begin_s=begin_s,
            end_s=begin_s + lasted_s,
            records_per_s=sum(self._record_counts[samples]) / lasted_s,
            megabytes_per_s=sum(self._sizes[samples]) / lasted_s / 1e6,
            latency=percentiles(latencies_s) if latencies_s else None,
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """A part of the run."""

    # Since the end of the warm-up.
    begin_s: float
    end_s: float
    records_per_s: float
    megabytes_per_s: float
    # None if nothing ended in it.
    latency: dict[str, float] | None

    def fields(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "begin_s": round(self.begin_s, 1),
            "end_s": round(self.end_s, 3),
            "records_per_s": round(self.records_per_s, 1),
            "megabytes_per_s": round(self.megabytes_per_s, 3),
            "latency": self.latency,
        }


def percentiles(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of one latency or more, in milliseconds: the least one that so many are not above."""
    ordered = sorted(latencies_s)
    count = len(ordered)
    return {name: round(1000 * ordered[math.ceil(share * count) - 1], 4) for name, share in SHARES}
