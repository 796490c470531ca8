"""The targets T1 to T13, what was measured for each, and the page of it.

Every figure is the median of the runs; where there is a limit, the ratio is that of the medians, and both were measured in the same
minutes.  A target that is missed stays in the table, with the reason and with what would close it (`WHY`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure

# What a page of documentation is set in, and code is not.
TIMES, TO = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"

Measured = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that a target asks of one figure."""

    # What is said before the figure; "" if the target's own words are enough.
    words: str
    key: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    # Another figure of the same runs, which this one is a ratio to.
    limit_key: str = ""
    limit_words: str = ""
    # Which of the runs counts: "median", or "p99" or "max" where each run is one trial.
    share: str = "median"

    def figure(self, measured: Measured) -> Figure | None:
        """Return the figure; None if it was not measured."""
        if not measured.get(self.key) or (self.limit_key and not measured.get(self.limit_key)):
            return None
        runs = measured[self.key]
        if self.share == "p99":
            runs = [sorted(runs)[min(len(runs) - 1, int(0.99 * len(runs)))]]
        return Figure(
            self.words,
            self.unit,
            runs,
            measured[self.limit_key] if self.limit_key else (),
            self.limit_words,
            at_least=self.at_least,
            at_most=self.at_most,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """One row."""

    name: str
    what: str
    target: str
    criteria: tuple[Criterion, ...] = ()


TARGETS = (
    Target(
        "T1",
        "unary Produce, one at a time",
        f"p50 ≤ 2.0 {TIMES} an empty unary call; p99 ≤ 4 {TIMES} its own p50",
        (
            Criterion("p50", "call_p50_ms", "ms", at_most=2.0, limit_key="empty_p50_ms", limit_words="the empty call"),
            Criterion("p99", "call_p99_ms", "ms", at_most=4.0, limit_key="call_p50_ms", limit_words="its p50"),
        ),
    ),
    Target(
        "T2",
        "one record at a time on a producer's stream",
        "p50 ≤ 0.88 ms, p99 ≤ 2 ms",
        (
            Criterion("p50", "stream_p50_ms", "ms", at_most=0.88),
            Criterion("p99", "stream_p99_ms", "ms", at_most=2.0),
        ),
    ),
    Target(
        "T3",
        "16 concurrent unary producers",
        f"≥ 0.8 {TIMES} the rate of empty calls by as many",
        (Criterion("", "call_16_per_s", "/s", at_least=0.8, limit_key="empty_16_per_s", limit_words="empty calls"),),
    ),
    Target(
        "T4",
        "produce, 100 B records: batches of 10,000; single records that the client groups",
        "≥ 500,000 records/s in batches",
        (
            Criterion("batches", "produce_many_per_s", "records/s", at_least=500_000),
            Criterion("single", "produce_per_s", "records/s"),
        ),
    ),
    Target(
        "T5",
        "produce, 1 KiB records: batches of 1,000; single records that the client groups",
        "≥ 110 MB/s in batches",
        (
            Criterion("batches", "produce_large_many_mb_s", "MB/s", at_least=110),
            Criterion("single", "produce_large_mb_s", "MB/s"),
        ),
    ),
    Target(
        "T6",
        "one client reads 100 B records of one node: single records; lists of those of a batch; batches that are not taken apart",
        "≥ 1,000,000 records/s; ≥ 500 MB/s",
        (
            Criterion("single", "read_records_per_s", "records/s", at_least=1_000_000),
            Criterion("lists", "read_lists_per_s", "records/s"),
            Criterion("batches", "read_batches_mb_s", "MB/s", at_least=500),
        ),
    ),
    Target(
        "T7",
        "produce to a tailing consumer at the leader, 200 records/s; at a follower",
        "p50 ≤ 1.5 ms, p99 ≤ 4 ms at the leader",
        (
            Criterion("p50", "tail_p50_ms", "ms", at_most=1.5),
            Criterion("p99", "tail_p99_ms", "ms", at_most=4.0),
            Criterion("at a follower p50", "tail_elsewhere_p50_ms", "ms"),
            Criterion("p99", "tail_elsewhere_p99_ms", "ms"),
        ),
    ),
    Target(
        "T8",
        "kill -9 of the leader to the next acknowledgement",
        "p50 ≤ 0.5 s, p99 ≤ 1.5 s",
        (
            Criterion("p50", "failover_s", "s", at_most=0.5),
            Criterion("p99", "failover_s", "s", at_most=1.5, share="p99"),
        ),
    ),
    Target(
        "T9",
        "memory of the largest node beyond mapped files, after the history was written",
        "≤ 150 MB, and flat",
        (
            Criterion("", "memory_all_mb", "MB", at_most=150),
            Criterion("", "memory_all_mb", "MB", at_most=1.1, limit_key="memory_half_mb", limit_words="after half of it"),
        ),
    ),
    Target(
        "T10",
        "kill -9 of a node with the history on its disk, start to readiness",
        "≤ 3 s",
        (Criterion("", "restart_s", "s", at_most=3.0),),
    ),
    Target(
        "T11",
        "idle cluster, the busiest node",
        "≤ 1 % of a core",
        (Criterion("", "idle_percent", "%", at_most=1.0),),
    ),
    Target(
        "T12",
        "cost of a record on the busiest node: with the history; with many topics beside it",
        "within 10 % of that without, in turns with a cluster that has neither",
        (
            Criterion("history", "history_node_us", "us", at_most=1.1, limit_key="no_history_node_us", limit_words="without"),
            Criterion("topics", "topics_node_us", "us", at_most=1.1, limit_key="no_topics_node_us", limit_words="without"),
        ),
    ),
    Target(
        "T13a",
        "mutual TLS: batches of 100 B and of 1 KiB records, single records, reading batches; the same with a policy of 100 rules",
        f"≥ 0.7 {TIMES} without",
        (
            Criterion("batches", "tls_many_per_s", "records/s", at_least=0.7, limit_key="plain_many_per_s", limit_words="without"),
            Criterion("large", "tls_large_many_mb_s", "MB/s", at_least=0.7, limit_key="plain_large_many_mb_s", limit_words="without"),
            Criterion("single", "tls_own_per_s", "records/s", at_least=0.7, limit_key="plain_own_per_s", limit_words="without"),
            Criterion("reading", "tls_read_mb_s", "MB/s", at_least=0.7, limit_key="plain_read_mb_s", limit_words="without"),
            Criterion("policy", "policy_many_per_s", "records/s", at_least=0.7, limit_key="plain_many_per_s", limit_words="without"),
            Criterion("large", "policy_large_many_mb_s", "MB/s", at_least=0.7, limit_key="plain_large_many_mb_s", limit_words="without"),
            Criterion("single", "policy_own_per_s", "records/s", at_least=0.7, limit_key="plain_own_per_s", limit_words="without"),
            Criterion("reading", "policy_read_mb_s", "MB/s", at_least=0.7, limit_key="plain_read_mb_s", limit_words="without"),
        ),
    ),
    Target(
        "T13b",
        "nodes that are looked at, metrics asked for every second, and 1 % traced: batches, single records, unary calls by 16 callers",
        f"≥ 0.95 {TIMES} without",
        (
            Criterion("metrics: batches", "scraped_many_per_s", "records/s", at_least=0.95,
                      limit_key="beside_scraped_many_per_s", limit_words="without"),
            Criterion("single", "scraped_own_per_s", "records/s", at_least=0.95,
                      limit_key="beside_scraped_own_per_s", limit_words="without"),
            Criterion("calls", "scraped_calls_per_s", "/s", at_least=0.95,
                      limit_key="beside_scraped_calls_per_s", limit_words="without"),
            Criterion("1 % traced: batches", "traced_1_many_per_s", "records/s", at_least=0.95,
                      limit_key="beside_traced_1_many_per_s", limit_words="without"),
            Criterion("single", "traced_1_own_per_s", "records/s", at_least=0.95,
                      limit_key="beside_traced_1_own_per_s", limit_words="without"),
            Criterion("calls", "traced_1_calls_per_s", "/s", at_least=0.95,
                      limit_key="beside_traced_1_calls_per_s", limit_words="without"),
        ),
    ),
)  # fmt: skip

# By target: the reason why it is missed, and what would close it.  Look at it again whenever the verdict of a row changes.
ROUND = (
    "A Raft round without gRPC takes 1.1 to 1.5 ms on an idle machine (`benchmarks.raft_round`): two fsyncs of one file system in a row, "
    "and Python on three nodes that share two processors; `benchmarks.where_time_goes` follows it station by station."
)
WHY: dict[str, str] = {
    "T1": f"{ROUND} The call itself takes another 0.8 ms. Closes it: a processor and a disk for each node; "
    "a consensus core that is not Python.",
    "T2": f"{ROUND} Closes it: the same as T1.",
    "T3": "The processors are full: gRPC in Python accepts one call in each turn of the event loop, and a call costs "
    "the leader 0.36 ms of processor's time, 0.2 of them gRPC's, each follower 0.08 and "
    "the client 0.16. Closes it: batches (T4), or a gRPC server that is not Python.",
    "T4": "Three nodes and the client share two processors: a record costs about 1.9 us in all. Closes it: a processor for each node.",
    "T5": "Each byte is written six times on this one disk, in three journals and three logs, and sent twice; more than half of the "
    "processor's time of a node is the system's. Closes it: a disk and a processor for each node; less copying between journal and log.",
    "T6": "Single records cost one step of an asynchronous iterator each; lists of a batch's records do without and are nearly twice as "
    "fast. Closes it: iterating over lists.",
    "T7": f"{ROUND} Then the record is sent to the consumer, about 0.5 ms of gRPC; a follower learns of a commit after up to 1 ms more. "
    "Closes it: the same as T1.",
    "T11": "A heartbeat every 150 ms, a tick for each and two answers: 25 to 30 wake-ups a second, each of which finds "
    "nothing in the processor's caches: 0.8 to 6 % with the same program, as the host's other guests leave them. "
    "Closes it: fewer heartbeats, at the price of a longer election time-out.",
    "T12": "Runs of 2 s vary by a fifth by themselves. Closes it: longer runs (`--full`). Logs alone are flat, see the table of storage.",
    "T13a": "Every byte is encrypted or decrypted at the client, thrice at the leader and once at each follower, on the same processors. "
    "Closes it: a processor for each node.",
    "T13b": "A ratio of this table is uncertain by 0.03 to 0.04 (the error of the mean of ten pairs). Closes it: more runs, on a machine "
    "of one's own.",
}

COSTS = (
    Criterion("processor's time of a record on the busiest node, blocks of 10,000", "many_node_us", "us", at_most=0.3),
    Criterion(
        "the same bytes in a block of 10,000 records and of 10, busiest node", "many_block_node_ms", "ms", at_most=2.0,
        limit_key="few_block_node_ms", limit_words="in a block of 10",
    ),
    Criterion("processor's time of the client for a record: produce, batches of 10,000", "produce_many_cpu_us", "us"),
    Criterion("produce, single records", "produce_cpu_us", "us"),
    Criterion("read, single records", "read_records_cpu_us", "us"),
    Criterion("read, lists", "read_lists_cpu_us", "us"),
    Criterion("read, batches", "read_batches_cpu_us", "us"),
    Criterion("a unary Produce with mutual TLS, p50", "tls_call_p50_ms", "ms", limit_key="plain_call_p50_ms", limit_words="without"),
    Criterion("and with a policy", "policy_call_p50_ms", "ms", limit_key="plain_call_p50_ms", limit_words="without"),
    *(
        Criterion(f"{words}: {what}", f"{way}_{key}", unit, limit_key=f"beside_{way}_{key}", limit_words="without")
        for way, words in (
            ("scraped", "metrics asked for every second"), ("traced_1", "1 % traced"), ("traced_100", "everything traced"),
        )
        for what, key, unit in (
            ("batches of 10,000 records of 100 B", "many_per_s", "records/s"),
            ("single records that the client groups", "own_per_s", "records/s"),
            ("unary Produce by 16 callers", "calls_per_s", "/s"),
            ("a unary Produce, p50", "call_p50_ms", "ms"),
            ("a unary Produce, p99", "call_p99_ms", "ms"),
        )
        if way == "traced_100" or unit == "ms"
    ),
)  # fmt: skip

LIMITS = (
    Criterion("empty unary call, p50", "empty_p50_ms", "ms"),
    Criterion("empty unary call, p99", "empty_p99_ms", "ms"),
    Criterion("empty unary calls by 16 callers", "empty_16_per_s", "/s"),
    Criterion("gRPC stream up, 1 MiB messages", "upload_mb_s", "MB/s"),
    Criterion("gRPC stream down, 1 MiB messages", "download_mb_s", "MB/s"),
    Criterion("round trip of 100 B on a bare connection (uvloop), p50", "socket_p50_ms", "ms"),
    Criterion("the same, p99", "socket_p99_ms", "ms"),
    Criterion("fdatasync of 4 KiB, p50", "fdatasync_p50_ms", "ms"),
    Criterion("the same, p99", "fdatasync_p99_ms", "ms"),
    Criterion("copy into a fresh map, 1 MiB blocks", "copy_fresh_gb_s", "GB/s"),
    Criterion("copy into a warm map", "copy_warm_gb_s", "GB/s"),
    Criterion("CRC-32C", "crc32c_gb_s", "GB/s"),
)


def page(measured: Measured, heading: str) -> str:
    """Return what was measured as Markdown: targets, costs and limits."""
    lines = [heading, ""]
    lines += _table(("", "what", "target", "measured", "", "why, and what would close it"))
    lines += [_line(target_cells(target, measured)) for target in TARGETS]
    lines += ["", *_table(("cost", "measured", "target"))]
    lines += [_line(_cost_cells(cost, measured)) for cost in COSTS]
    lines += ["", *_table(("limit of the same run", "measured"))]
    lines += [_line((limit.words, _text(limit, measured))) for limit in LIMITS]
    return "\n".join(lines)


def target_cells(target: Target, measured: Measured) -> tuple[str, ...]:
    """Return the row of a target."""
    verdict = verdict_of(target, measured)
    found = "; ".join(f"{each.words} {_text(each, measured)}".strip() for each in target.criteria)
    why = "" if verdict == "met" else WHY.get(target.name, "")
    return (target.name, target.what, target.target, found or "-", verdict, why)


def verdict_of(target: Target, measured: Measured) -> str:
    """Return "met", "missed", or that it was not measured."""
    figures = [each.figure(measured) for each in target.criteria]
    if not figures or any(figure is None for figure in figures):
        return "not measured"
    is_missed = any(figure is not None and figure.is_met is False for figure in figures)
    return "missed" if is_missed else "met"


def _cost_cells(cost: Criterion, measured: Measured) -> tuple[str, ...]:
    figure = cost.figure(measured)
    if figure is None or figure.is_met is None:
        return (cost.words, _text(cost, measured), "")
    bound = f"≤ {cost.at_most:g}" + (f" {TIMES}" if cost.limit_key else "")
    return (cost.words, _text(cost, measured), f"{bound}: {'met' if figure.is_met else 'missed'}")


def _text(criterion: Criterion, measured: Measured) -> str:
    """Return the median, the spread, and the ratio."""
    figure = criterion.figure(measured)
    if figure is None:
        return "-"
    text = f"{number(figure.median)} {figure.unit}"
    if len(figure.runs) > 1:
        text += f" ({number(min(figure.runs))}{TO}{number(max(figure.runs))})"
    if figure.limit:
        text += f", {number(figure.judged)} {TIMES} {figure.limit_name}"
    return text


def number(value: float) -> str:
    """Return a number with about three figures."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def medians(measured: Measured) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(runs) for name, runs in measured.items() if runs}


def _table(headings: Sequence[str]) -> list[str]:
    return [_line(headings), _line(["---"] * len(headings))]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
