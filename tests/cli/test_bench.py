"""`distlog bench` on a cluster that is a fake: what it sends and reads, what it prints, and where it stops."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from distlog.cli import bench
from distlog.cli.bench_arguments import load_of
from distlog.cli.bench_loads import STAMP
from distlog.cli.bench_samples import Samples
from distlog.cli.main import main
from distlog.errors import ConfigurationInvalid, InvalidRequest, RecordTooLarge, TopicNotFound
from tests.cli.commands import distlog, finish, parsed, start
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run

FIGURES = {
    "bench", "topic", "settings", "warm_up_s", "duration_s", "records", "bytes", "records_per_s", "megabytes_per_s",
    "client_cpu_us_per_record", "samples", "latency", "latency_of", "durability", "interrupted", "error", "intervals",
}  # fmt: skip


async def measured(
    cluster: FakeCluster, *arguments: str
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Run to the end, without a warm-up; return the report."""
    namespace = parsed(bench, cluster, *arguments, "--warm-up", "0")
    load = load_of(namespace)
    samples = Samples(warm_up_s=0, duration_s=namespace.duration, count=namespace.count)
    await bench.measure(namespace, load, samples)
    return namespace, bench.report_of(namespace, load, samples, False, None)


@pytest.mark.parametrize(
    ("arguments", "settings", "requests"),
    [
        (("--batch", "10"), {"record_size": 100, "batch": 10, "in_flight": 16}, 25),
        (
            ("--batch", "100", "--in-flight", "1", "--record-size", "7"),
            {"record_size": 7, "batch": 100, "in_flight": 1},
            3,
        ),
        ((), {"record_size": 100, "batch": "auto", "linger_ms": 0.0}, None),
        (("--linger", "5"), {"record_size": 100, "batch": "auto", "linger_ms": 5.0}, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_produce_writes_exactly_what_it_reports(
    arguments: tuple[str, ...], settings: dict[str, Any], requests: int | None
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            _, report = await measured(cluster, "produce", "--count", "250", *arguments)
            size = settings["record_size"]
            assert report["settings"] == settings
            assert (report["records"], report["bytes"]) == (250, 250 * size)
            assert [len(value) for value in cluster.log] == [size] * 250
            if requests:
                assert report["samples"] == requests
            assert set(report) == FIGURES
            assert report["latency"]["p50_ms"] > 0

    run(scenario())


def test_produce_ends_with_the_time() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            _, report = await measured(
                cluster, "produce", "--batch", "1", "--duration", "0.5", "--in-flight", "2"
            )
            assert report["duration_s"] == pytest.approx(0.5, abs=0.01)
            # Those that were acknowledged a little later were written too.
            assert 1 <= report["records"] <= len(cluster.log)

    run(scenario())


@pytest.mark.parametrize("by", ["records", "lists", "batches"])
def test_consume_reads_again_from_the_start_until_it_has_as_many_as_were_asked_for(by: str) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"x" * 10] * 40)
            cluster.topics["default"].start_offset = 10
            _, report = await measured(cluster, "consume", "--by", by, "--count", "100")
            assert report["settings"] == {"by": by}
            assert (report["records"], report["bytes"]) == (100, 1000)
            calls = [call for node in cluster.nodes for call in node.calls]
            assert calls.count("ConsumeBatch") == 4

    run(scenario())


def test_consume_begins_where_it_is_told_and_writes_nothing() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"long value", b"x", b"y"])
            _, report = await measured(cluster, "consume", "--from", "1", "--count", "2")
            assert (report["records"], report["bytes"]) == (2, 2)
            assert len(cluster.log) == 3
            assert list(cluster.topics) == ["default"]

    run(scenario())


def test_a_topic_without_records_cannot_be_read_and_it_says_what_writes_some() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(InvalidRequest, match="distlog bench produce writes some"):
                await measured(cluster, "consume")

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (("--of", "stream"), "ProduceBatch"),
        (("--of", "stream", "--callers", "5"), "ProduceBatch"),
        (("--of", "call"), "Produce"),
        (("--of", "call", "--callers", "5"), "Produce"),
    ],
    ids=" ".join,
)
def test_latency_is_that_of_one_record_at_a_time(arguments: tuple[str, ...], method: str) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            _, report = await measured(cluster, "latency", "--count", "30", *arguments)
            assert (report["records"], report["samples"], len(cluster.log)) == (30, 30, 30)
            assert method in cluster.nodes[0].calls

    run(scenario())


def test_latency_of_a_tail_sees_each_of_its_own_records_arrive() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            # What others wrote, before and meanwhile, is none of it.
            cluster.fill([b"old", STAMP.pack(1, 0)])

            async def others() -> None:
                await cluster.nodes[0].called("ProduceBatch")
                await cluster.append_value(b"short")
                await cluster.append_value(STAMP.pack(1, 0) + b"of another run")

            writing = asyncio.create_task(others())
            arguments = ("--of", "tail", "--rate", "1000", "--count", "20", "--record-size", "50")
            _, report = await measured(cluster, "latency", *arguments)
            await writing
            assert (report["records"], report["bytes"]) == (20, 20 * 50)
            # One behind the last one ends the tail.
            assert len(cluster.log) == 2 + 2 + 20 + 1
            assert report["latency"]["p50_ms"] > 0

    run(scenario())


# --- The topic ---


def test_nothing_is_created_that_was_not_asked_for() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            for action in ("produce", "consume", "latency"):
                with pytest.raises(TopicNotFound):
                    await measured(cluster, action, "--topic", "load", "--count", "1")
            assert list(cluster.topics) == ["default"]

    run(scenario())


def test_the_topic_is_created_where_it_is_asked_for_and_used_where_it_is_there() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            arguments = ("--topic", "load", "--create-topic", "--count", "5")
            for _ in range(2):
                _, report = await measured(cluster, "produce", *arguments)
                assert report["topic"] == "load"
            assert len(cluster.topics["load"].values) == 10
            assert cluster.log == []

    run(scenario())


# --- What is refused ---


@pytest.mark.parametrize(
    ("arguments", "key", "problem"),
    [
        ("produce --duration 3601", "--duration", "must be a number from 0.001 to 3600"),
        ("produce --duration nan", "--duration", "must be a number from 0.001 to 3600"),
        ("produce --count 0", "--count", "must be a number from 1 to 1000000000"),
        ("latency --count 10000001", "--count", "must be a number from 1 to 10000000"),
        ("consume --warm-up 61", "--warm-up", "must be a number from 0 to 60"),
        ("produce --record-size 33MiB", "--record-size", "must be from 1 to 32MiB"),
        ("produce --record-size 0", "--record-size", "must be from 1 to"),
        ("produce --batch 10001", "--batch", "must be a number from 1 to 10000, or auto"),
        ("produce --batch 10 --in-flight 17", "--in-flight", "must be a number from 1 to 16"),
        ("produce --linger 10001", "--linger", "must be a number from 0 to 10000"),
        ("produce --memory 1KiB", "--memory", "must be from 1MiB to 1GiB"),
        ("latency --callers 1001", "--callers", "must be a number from 1 to 1000"),
        ("latency --of tail --rate 0", "--rate", "must be a number from 1 to 10000"),
        ("produce --topic a/b", "--topic", "must be 1 to 249 of"),
        ("produce --plot figure.pdf", "--plot", "must end in .png"),
        ("produce --plot nowhere/figure.png", "--plot", "is in no directory that exists"),
        ("produce --create-topic", "--create-topic", "name the topic, with --topic"),
        ("produce --batch 10 --linger 1", "--linger", "is of use with --batch auto only"),
        ("produce --in-flight 4", "--in-flight", "is of use with --batch N only"),
        (
            "produce --batch 5 --record-size 1MiB",
            "--batch",
            "a batch has up to 4 MiB: at most 3 records of",
        ),
        ("latency --rate 5", "--rate", "is of use with --of tail only"),
        ("latency --of tail --callers 2", "--callers", "there is one with --of tail"),
        ("latency --of tail --record-size 15", "--record-size", "must be at least 16"),
    ],
)
def test_what_is_above_a_limit_or_of_no_use_is_refused_before_anybody_is_called(
    arguments: str, key: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"distlog: error: {key}: {problem}")


def test_one_record_may_be_larger_than_a_batch() -> None:
    load = load_of(parsed(bench, None, "produce", "--batch", "1", "--record-size", "8MiB"))
    assert (load.batch, load.record_size) == (1, 8 << 20)


# --- What is said, and when it ends early ---


@pytest.mark.parametrize(
    ("of_nodes", "reported"),
    [
        (("fsync", "fsync", "fsync"), "fsync"),
        (("os", "os", "os"), "os"),
        (("os", "fsync", "os"), "mixed"),
        # A node of an older version says nothing, and syncs.
        (("", "", ""), "fsync"),
        (("os", "", "os"), "mixed"),
    ],
)
def test_the_durability_that_was_measured_is_that_of_the_nodes(
    of_nodes: tuple[str, ...], reported: str
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"a record"])
            for node, durability in zip(cluster.nodes, of_nodes, strict=True):
                node.durability = durability
            for action in ("produce", "consume", "latency"):
                _, report = await measured(cluster, action, "--count", "1")
                assert report["durability"] == reported
                assert f"{reported}: " in bench.text_of(report).splitlines()[2]

    run(scenario())


def test_a_node_that_is_away_says_nothing_of_the_durability() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.nodes[0].durability = cluster.nodes[1].durability = "os"
            await cluster.nodes[2].stop()
            cluster.nodes[2].is_down = True
            _, report = await measured(cluster, "produce", "--count", "1")
            assert report["durability"] == "os"

    run(scenario())


def test_a_failure_on_the_way_is_reported_with_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_client: Any, _load: Any, samples: Samples) -> None:
        samples.take(1)
        samples.add(samples.now(), 1, 100)
        raise TopicNotFound("load")

    assert outcome_of(fail, monkeypatch) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["records"] == 1
    assert json.loads(captured.out)["durability"] == "unknown", "nobody was asked"
    assert json.loads(captured.out)["error"] == str(TopicNotFound("load"))
    assert captured.err == f"distlog: error: {TopicNotFound('load')}\n"


def test_where_nothing_was_measured_it_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def finish_at_once(_client: Any, _load: Any, _samples: Samples) -> None:
        return

    assert outcome_of(finish_at_once, monkeypatch) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there was nothing to measure: give it more --duration" in captured.err


def test_an_interrupt_before_anything_was_measured_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(_client: Any, _load: Any, _samples: Samples) -> None:
        raise KeyboardInterrupt

    assert outcome_of(interrupt, monkeypatch) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (
        "",
        "distlog: error: interrupted before anything was measured\n",
    )


def outcome_of(load: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of a run whose load is `load`, on a cluster that is not needed."""

    async def measure(namespace: argparse.Namespace, asked: Any, samples: Samples) -> None:
        await load(None, asked, samples)

    monkeypatch.setattr(bench, "measure", measure)
    return bench.run(parsed(bench, None, "produce", "--json", "--warm-up", "0", *arguments))


def test_a_refused_record_is_the_error_of_the_cluster() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            for batch in ("1", "auto"):
                with pytest.raises(RecordTooLarge):
                    await measured(
                        cluster,
                        "produce",
                        "--batch",
                        batch,
                        "--record-size",
                        "2MiB",
                        "--count",
                        "3",
                    )
            with pytest.raises(RecordTooLarge):
                await measured(
                    cluster, "latency", "--callers", "3", "--record-size", "2MiB", "--count", "9"
                )
            assert cluster.log == []

    run(scenario())


def test_a_person_reads_a_table() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            _, report = await measured(cluster, "latency", "--count", "3", "--of", "call")
            lines = bench.text_of(report).splitlines()
            assert lines[0] == "bench latency, topic default: record size 100, of call, callers 1"
            assert [line.split()[0] for line in lines[1:]] == [
                "measured", "durability", "records", "records/s", "MB/s", "client", "latency", "p50", "p90", "p99", "p99.9", "greatest",
            ]  # fmt: skip
            assert "fsync: acknowledged when a majority has synced it" in lines[2]
            report["interrupted"] = True
            assert ", interrupted," in bench.text_of(report).splitlines()[1]

    run(scenario())


# --- The picture ---


def test_a_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(_client: Any, _load: Any, samples: Samples) -> None:
        samples.take(5)
        for _ in range(5):
            samples.add(samples.now(), 1, 100)

    path = tmp_path / "figure.png"
    assert outcome_of(measure, monkeypatch, "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_it_says_what_to_install_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an import of it then meets is what it meets where it is missing.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran: list[int] = []

    async def measure(_client: Any, _load: Any, _samples: Samples) -> None:
        ran.append(1)

    with pytest.raises(ConfigurationInvalid) as caught:
        outcome_of(measure, monkeypatch, "--plot", str(tmp_path / "figure.png"))
    assert str(caught.value) == (
        "--plot: draws with matplotlib, which is not installed here: pip install 'distlog[plot]'"
    )
    assert ran == []


# --- As a process ---


def test_as_a_process_it_prints_json_and_nothing_else() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = ",".join(cluster.addresses)
            finished = await distlog(
                "bench", "produce", "--server", server, "--count", "300", "--warm-up", "0", "--json"
            )
            assert (finished.code, finished.error) == (0, "")
            report = json.loads(finished.output)
            assert (report["records"], len(cluster.log)) == (300, 300)
            assert report["interrupted"] is False

    run(scenario())


def test_an_interrupt_prints_what_was_measured_so_far() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            arguments = ("--warm-up", "0", "--batch", "1", "--in-flight", "1", "--json")
            process = await start(
                "bench", "produce", "--server", ",".join(cluster.addresses), *arguments
            )
            await cluster.wait_for(cluster.topics["default"], 20)
            process.send_signal(signal.SIGINT)
            finished = await finish(process)
            assert (finished.code, finished.error) == (130, "")
            report = json.loads(finished.output)
            assert report["interrupted"] is True
            assert 10 <= report["records"] <= len(cluster.log)

    run(scenario())
