"""`distlog produce`: a file becomes exactly that log, or it says from which line on it does not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distlog.cli import produce
from distlog.cli.lines import LINE_SIZE_MAX
from distlog.cli.produce import Summary
from distlog.errors import RecordTooLarge, TopicNotFound, Unreachable
from tests.cli.commands import distlog, finish, parsed, start
from tests.client.fake_cluster import RECORD_SIZE_MAX, FakeCluster
from tests.client.faults import Fault
from tests.client.running import run


async def produced(cluster: FakeCluster, path: Path, *arguments: str) -> Summary:
    return await produce.produce(parsed(produce, cluster, str(path), *arguments))


def file_of(directory: Path, content: bytes) -> Path:
    path = directory / "lines"
    path.write_bytes(content)
    return path


def test_a_file_becomes_the_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            summary = await produced(cluster, file_of(tmp_path, b"one\n\n three \r\nfour"))
            assert cluster.log == [b"one", b"", b" three \r", b"four"]
            assert (summary.records, summary.bytes) == (4, 15)
            assert (summary.first_offset, summary.last_offset) == (0, 3)
            assert (summary.first_line_not_acknowledged, summary.error) == (None, None)

    run(scenario())


def test_an_empty_file_is_no_record_and_no_mistake(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            summary = await produced(cluster, file_of(tmp_path, b""))
            assert (summary.records, summary.first_offset, summary.last_offset) == (0, None, None)
            assert summary.error is None

    run(scenario())


def test_more_lines_than_one_block_holds_arrive(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            lines = [b"%d" % number for number in range(25_000)]
            assert (await produced(cluster, file_of(tmp_path, b"\n".join(lines)))).records == 25_000
            assert cluster.log == lines

    run(scenario())


# Those that end an attempt by themselves: the others take as long as the command's patience.
ENDING = [fault for fault in Fault if fault not in (Fault.MUTE, Fault.NOT_CAUGHT_UP)]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(ENDING), max_size=4))
def test_failures_on_the_way_change_nothing(faults: list[Fault], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster(faults=faults) as cluster:
            lines = [b"%d" % number for number in range(50)]
            await produced(cluster, file_of(tmp_path, b"\n".join(lines)))
            assert cluster.log == lines

    run(scenario())


# --- Giving up ---


def test_a_line_that_is_refused_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            content = b"one\ntwo\n" + bytes(RECORD_SIZE_MAX + 1) + b"\nfour\n"
            summary = await produced(cluster, file_of(tmp_path, content))
            assert cluster.log == [b"one", b"two"]
            assert (summary.records, summary.first_line_not_acknowledged) == (2, 3)
            assert summary.error is not None
            assert "the limit is 1048576" in summary.error
            assert (
                "The 2 lines before it are in the log. It is not in the log: go on with it"
                in summary.error
            )

    run(scenario())


def test_an_input_that_ends_badly_is_said_after_the_lines_before_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            path = file_of(tmp_path, b"one\ntwo\n" + bytes(LINE_SIZE_MAX + 1))
            summary = await produced(cluster, path)
            assert cluster.log == [b"one", b"two"]
            assert (summary.records, summary.first_line_not_acknowledged) == (2, 3)
            assert str(RecordTooLarge(path.stat().st_size - 8, LINE_SIZE_MAX)) in str(summary.error)

    run(scenario())


def test_what_may_be_written_is_said_when_it_gives_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        faulty = FakeCluster(faults=[Fault.NONE, Fault.NONE, Fault.MUTE])
        async with faulty as cluster:
            # So long that each is a block by itself.
            lines = [bytes([letter]) * (64 << 10) for letter in b"abcd"]
            path = file_of(tmp_path, b"\n".join(lines))
            summary = await produced(cluster, path, "--timeout", "0.2")
            assert cluster.log[:2] == lines[:2]
            assert summary.first_line_not_acknowledged == 3
            assert summary.error is not None
            assert (
                "The 2 lines before it are in the log. Lines 3 to 4 may be in the log"
                in summary.error
            )

    run(scenario())


def test_a_cluster_that_does_not_answer_is_an_error_with_its_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            for node in cluster.nodes:
                await node.stop()
            with pytest.raises(Unreachable, match=cluster.addresses[0]):
                await produced(cluster, file_of(tmp_path, b"one\n"), "--timeout", "0.1")

    run(scenario())


def test_an_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(FileNotFoundError, match="absent"):
                await produced(cluster, tmp_path / "absent")
            with pytest.raises(IsADirectoryError, match=str(tmp_path)):
                await produced(cluster, tmp_path)

    run(scenario())


def test_an_unknown_topic_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            summary = await produced(cluster, file_of(tmp_path, b"a\n"), "--topic", "nowhere")
            assert summary.first_line_not_acknowledged == 1
            assert str(TopicNotFound("nowhere")) in str(summary.error)

    run(scenario())


# --- As a process ---


def test_a_pipe_is_produced_without_a_word(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = ",".join(cluster.addresses)
            finished = await distlog("produce", "--server", server, stdin=b"one\ntwo")
            assert (finished.code, finished.output, finished.error) == (0, b"", "")
            assert cluster.log == [b"one", b"two"]
            path = file_of(tmp_path, b"three\n")
            finished = await distlog("produce", "--server", server, "--json", str(path))
            summary = json.loads(finished.output)
            assert (finished.code, summary["records"], summary["first_offset"]) == (0, 1, 2)
            path = file_of(tmp_path, b"four\n" + bytes(RECORD_SIZE_MAX + 1))
            finished = await distlog("produce", "--server", server, str(path))
            assert (finished.code, finished.output) == (1, b"")
            assert finished.error.startswith(
                "distlog: error: line 2 was the first not acknowledged: "
            )
            assert finished.error.count("\n") == 1

    run(scenario())


def test_an_interrupt_ends_it_quietly() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = ",".join(cluster.addresses)
            process = await start("produce", "--server", server, stdin=asyncio.subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(b"one\n")
            # Acknowledged: it is up, and waits for more.
            await cluster.wait_for(cluster.topics["default"], 0)
            process.send_signal(signal.SIGINT)
            finished = await finish(process)
            assert (finished.code, finished.output, finished.error) == (130, b"", "")

    run(scenario())


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            terminal, process_side = os.openpty()
            path = file_of(tmp_path, b"one\ntwo\n")
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "distlog",
                    "produce",
                    "--server",
                    cluster.addresses[0],
                    str(path),
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=process_side,
            )
            os.close(process_side)
            assert await process.wait() == 0
            shown = os.read(terminal, 4096).decode()
            os.close(terminal)
            assert "2 records acknowledged in" in shown

    run(scenario())
