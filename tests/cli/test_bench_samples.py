"""What a run measures: what counts, when it is over, and the figures of it."""

from __future__ import annotations

import math

import pytest

from distlog.cli import bench_samples
from distlog.cli.bench_samples import Samples, percentiles


class Time:
    """A clock that a test sets; the processor's time is a tenth of it."""

    def __init__(self) -> None:
        self.now = 100.0

    def cpu(self) -> float:
        return self.now / 10


def samples_of(
    time: Time, *, warm_up_s: float = 0.0, duration_s: float = 10.0, count: int | None = None
) -> Samples:
    return Samples(
        warm_up_s=warm_up_s,
        duration_s=duration_s,
        count=count,
        clock=lambda: time.now,
        cpu_clock=time.cpu,
    )


def test_what_ends_in_the_warm_up_counts_for_nothing() -> None:
    time = Time()
    samples = samples_of(time, warm_up_s=1.0)
    assert samples.take(5) == 5
    time.now += 0.5
    samples.add(100.0, 5, 500)
    assert (len(samples), samples.so_far()) == (0, "warming up")
    time.now += 0.5
    assert samples.take(5) == 5
    time.now += 0.25
    samples.add(100.5, 5, 500)
    figures = samples.figures()
    assert (figures["records"], figures["bytes"], figures["duration_s"]) == (5, 500, 0.25)
    assert figures["latency"]["max_ms"] == 750.0


def test_the_figures_are_of_the_measured_time() -> None:
    time = Time()
    samples = samples_of(time)
    samples.take(10)
    for _ in range(4):
        began_at = time.now
        time.now += 0.5
        samples.add(began_at, 1000, 1_000_000)
    assert samples.figures() == {
        "duration_s": 2.0,
        "records": 4000,
        "bytes": 4_000_000,
        "records_per_s": 2000.0,
        "megabytes_per_s": 2.0,
        "client_cpu_us_per_record": 50.0,
        "samples": 4,
        "latency": dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"), 500.0),
    }
    assert samples.so_far() == "4,000 records in 2.0 s, 2,000/s"


def test_the_time_is_over_when_it_is_and_what_comes_later_is_left_out() -> None:
    time = Time()
    samples = samples_of(time, duration_s=2.0)
    samples.take(1)
    time.now += 0.5
    samples.add(100.0, 10, 10)
    time.now += 1.75
    assert samples.take(1) == 0
    samples.add(100.0, 10, 10)
    # A cluster that stood still for the rest of the time was not faster for it.
    figures = samples.figures()
    assert (figures["records"], figures["duration_s"], figures["records_per_s"]) == (10, 2.0, 5.0)


def test_what_is_acknowledged_too_late_ends_the_time_too() -> None:
    time = Time()
    samples = samples_of(time, duration_s=2.0)
    samples.take(1)
    time.now += 1.0
    samples.add(100.0, 10, 10)
    time.now += 5.0
    samples.add(100.0, 10, 10)
    assert samples.elapsed_s == 2.0


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_so_many_records_are_measured_as_were_asked_for(batch: int) -> None:
    time = Time()
    samples = samples_of(time, count=10)
    given = 0
    while granted := samples.take(batch):
        given += granted
        began_at = time.now
        time.now += 0.1
        samples.add(began_at, granted, 7 * granted)
    assert (given, samples.record_count, samples.size) == (10, 10, 70)


def test_records_of_the_warm_up_that_are_acknowledged_later_do_not_make_more() -> None:
    time = Time()
    samples = samples_of(time, warm_up_s=1.0, count=10)
    assert samples.take(8) == 8
    time.now += 1.0
    assert samples.take(8) == 8
    assert samples.take(8) == 2
    time.now += 0.5
    for count in (8, 8, 2):
        samples.add(100.0, count, 10 * count)
    assert (samples.record_count, samples.size) == (10, 100)


def test_a_run_ends_when_it_has_as_many_samples_as_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_samples, "SAMPLE_COUNT_MAX", 2)
    time = Time()
    samples = samples_of(time)
    while samples.take(1):
        time.now += 0.1
        samples.add(100.0, 1, 1)
    assert len(samples) == 2


@pytest.mark.parametrize("lasted_s", [0.04, 0.1, 0.16, 1.0, 9.99, 25.0, 700.0])
def test_the_intervals_are_few_and_hold_everything(lasted_s: float) -> None:
    time = Time()
    samples = samples_of(time, duration_s=math.inf)
    samples.take(1)
    count = 1000
    for number in range(1, count + 1):
        began_at, time.now = time.now, 100.0 + lasted_s * number / count
        samples.add(began_at, 2, 50)
    intervals = samples.intervals()
    assert 1 <= len(intervals) <= bench_samples.INTERVAL_COUNT_MAX
    assert intervals[0].begin_s == 0
    assert intervals[-1].end_s == pytest.approx(lasted_s)
    lasted = [interval.end_s - interval.begin_s for interval in intervals]
    records = sum(
        interval.records_per_s * each for interval, each in zip(intervals, lasted, strict=True)
    )
    megabytes = sum(
        interval.megabytes_per_s * each for interval, each in zip(intervals, lasted, strict=True)
    )
    assert (records, megabytes) == (pytest.approx(2 * count), pytest.approx(50 * count / 1e6))
    # The last one is no sliver.
    assert lasted[-1] >= lasted[0] / 2


def test_an_interval_in_which_nothing_ended_has_no_latency() -> None:
    time = Time()
    samples = samples_of(time)
    samples.take(1)
    for moment in (100.05, 100.25):
        time.now = moment
        samples.add(100.0, 1, 1)
    assert [interval.latency is None for interval in samples.intervals()] == [False, False]
    time.now = 100.95
    samples.add(100.0, 1, 1)
    intervals = samples.intervals()
    assert [interval.fields()["latency"] for interval in intervals[3:8]] == [None] * 5


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 1, 1, 1, 1)),
        (2, (1, 2, 2, 2, 2)),
        (10, (5, 9, 10, 10, 10)),
        (100, (50, 90, 99, 100, 100)),
        (1000, (500, 900, 990, 999, 1000)),
    ],
)
def test_a_percentile_is_the_least_latency_that_so_many_are_not_above(
    count: int, expected: tuple[int, ...]
) -> None:
    latencies_s = [number / 1000 for number in range(count, 0, -1)]
    assert tuple(percentiles(latencies_s).values()) == expected
