"""`distlog consume`: the log comes back byte for byte, and ends where it ended."""

from __future__ import annotations

import io
import json
import os
import signal

import pytest

from distlog.cli import consume
from distlog.cli.lines import wait_until_readable
from distlog.errors import ConfigurationInvalid, OffsetOutOfRange, TopicNotFound
from tests.cli.commands import distlog, finish, parsed, start
from tests.client.fake_cluster import TIMESTAMP_MS, FakeCluster
from tests.client.running import run


async def consumed(cluster: FakeCluster, *arguments: str) -> bytes:
    output = io.BytesIO()
    await consume.consume(parsed(consume, cluster, *arguments), output)
    return output.getvalue()


def test_the_whole_log_is_printed_by_default() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"one", b"", b"\xff\0\r", b"four"])
            assert await consumed(cluster) == b"one\n\n\xff\0\r\nfour\n"

    run(scenario())


def test_an_empty_log_prints_nothing() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            assert await consumed(cluster) == b""
            assert await consumed(cluster, "--from", "end") == b""
            assert await consumed(cluster, "--from", "0") == b""

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("--from", "start"), b"2\n3\n4\n"),
        (("--from", "3"), b"3\n4\n"),
        (("--from", "5"), b""),
        (("--from", "end"), b""),
        (("--from", "2", "--count", "1"), b"2\n"),
        (("--count", "0"), b""),
        (("--count", "99"), b"2\n3\n4\n"),
        (("--follow", "--count", "2"), b"2\n3\n"),
        (("--follow", "--from", "4", "--count", "1"), b"4\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_it_begins_and_ends_where_it_is_told(arguments: tuple[str, ...], output: bytes) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"0", b"1", b"2", b"3", b"4"])
            cluster.topics["default"].start_offset = 2
            assert await consumed(cluster, *arguments) == output

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("--from", "2023-11-14T22:13:20Z"), b"2\n3\n4\n"),
        (("--from", "2023-11-14T22:13:50Z"), b"3\n4\n"),
        (("--from", "2023-11-14T23:13:49.999+01:00"), b"3\n4\n"),
        (("--from", "2023-11-14T22:13:50.001Z", "--follow", "--count", "1"), b"4\n"),
        (("--from", "2023-11-14T22:14:01Z"), b""),
        (("--from", "1969-12-31T00:00:00Z"), b"2\n3\n4\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_time_is_the_first_record_of_that_time_or_later(
    arguments: tuple[str, ...], output: bytes
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"0", b"1", b"2", b"3", b"4"])
            cluster.interval_ms = 10_000
            cluster.topics["default"].start_offset = 2
            assert await consumed(cluster, *arguments) == output

    run(scenario())


@pytest.mark.parametrize(
    "start", ["yesterday", "-1", "2023-11-14", "2023-11-14T22:13:50", "9" * 30, "2023-13-14T00:00Z"]
)
def test_a_start_that_is_none_is_refused_before_anybody_is_called(start: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="must be an offset, start, end or a time"):
        consume.run(parsed(consume, None, f"--from={start}"))


@pytest.mark.parametrize(
    "arguments", [("--from", "6"), ("--from", "1"), ("--follow", "--from", "1")]
)
def test_an_offset_outside_the_log_is_an_error_with_the_range(arguments: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"0", b"1", b"2", b"3", b"4"])
            cluster.topics["default"].start_offset = 2
            with pytest.raises(OffsetOutOfRange) as caught:
                await consumed(cluster, *arguments)
            assert (caught.value.start_offset, caught.value.high_watermark) == (2, 5)

    run(scenario())


def test_an_unknown_topic_is_an_error() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(TopicNotFound):
                await consumed(cluster, "--topic", "nowhere")

    run(scenario())


def test_json_has_one_object_a_line_and_loses_no_byte() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill(["ä\n".encode(), b"\xff"])
            record = cluster.topics["default"].records[1]
            record.key = b"k"
            record.headers.add(name="h", value=b"\xfe")
            lines = (await consumed(cluster, "--format", "json")).splitlines()
            assert [json.loads(line) for line in lines] == [
                {"offset": 0, "timestamp_ms": TIMESTAMP_MS, "value": "ä\n"},
                {
                    "offset": 1,
                    "timestamp_ms": TIMESTAMP_MS,
                    "value_base64": "/w==",
                    "key": "k",
                    "headers": [{"name": "h", "value_base64": "/g=="}],
                },
            ]

    run(scenario())


def test_it_reads_from_the_first_server_that_is_named() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"a"])
            output = io.BytesIO()
            arguments = parsed(consume, None, "--server", cluster.addresses[2])
            await consume.consume(arguments, output)
            assert output.getvalue() == b"a\n"
            assert [node.calls.count("ConsumeBatch") for node in cluster.nodes] == [0, 0, 1]

    run(scenario())


# --- As a process ---


def test_what_comes_later_is_printed_at_once_and_an_interrupt_ends_it_quietly() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"one"])
            process = await start("consume", "--server", ",".join(cluster.addresses), "--follow")
            assert process.stdout is not None
            assert await process.stdout.readline() == b"one\n"
            await cluster.append_value(b"two")
            assert await process.stdout.readline() == b"two\n"
            process.send_signal(signal.SIGINT)
            finished = await finish(process)
            assert (finished.code, finished.output, finished.error) == (130, b"", "")

    run(scenario())


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            # More than a pipe holds.
            cluster.fill([b"x" * 1000] * 500)
            reading, writing = os.pipe()
            process = await start("consume", "--server", cluster.addresses[0], stdout=writing)
            os.close(writing)
            await wait_until_readable(reading)
            os.close(reading)
            finished = await finish(process)
            assert (finished.code, finished.error) == (0, "")

    run(scenario())


def test_an_error_leaves_nothing_on_the_output() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            finished = await distlog("consume", "--server", cluster.addresses[0], "--from", "7")
            assert (finished.code, finished.output) == (1, b"")
            assert (
                finished.error
                == "distlog: error: offset 7 is not in [0, 0): read from one that is\n"
            )

    run(scenario())
