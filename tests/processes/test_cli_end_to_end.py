"""The command line on a real file and real nodes: what goes in comes out, on every node, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from distlog import __version__
from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.client.client import Client
from tests.processes.commands import Finished, run, running
from tests.processes.process_cluster import (
    DISTLOG,
    NODE_IDS,
    TIMEOUT_S,
    ProcessCluster,
    environment,
    until,
)
from tests.processes.settled import check_files
from tests.processes.word_list import word_list

LINE_COUNT = 10_000
# What a long run takes instead: `make torture`.
LONG_LINE_COUNT = 100_000
LONG_ROUND_COUNT = 60
SHORT_LINE_COUNT = 5_000
# The machine may be busy; on a quiet one 1,000 lines are produced in a second, and 3,000 consumed.
LONG_TIMEOUT_S = 900
TAIL_COUNT = 1_000
# gRPC's streams for each connection.
TAILS_PER_CONNECTION = 100
STOP_WITHIN_S = 5.0
# The aim is 3 s; a loaded machine may be slow, and the figure is shown.
LEADER_WITHIN_S = 10.0


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    return list(enumerate(content.split(b"\n")))


async def produce(cluster: ProcessCluster, path: Path) -> Finished:
    finished = await run(
        "produce", "--server", cluster.addresses, str(path), timeout_s=LONG_TIMEOUT_S
    )
    assert finished.status == 0, finished.errors
    return finished


async def consumed(cluster: ProcessCluster, node_id: str) -> bytes:
    """Return what `distlog consume --from start` prints of this node."""
    arguments = ("consume", "--from", "start", "--server", cluster[node_id].address)
    finished = await run(*arguments, timeout_s=LONG_TIMEOUT_S)
    assert (finished.status, finished.errors) == (0, "")
    return finished.output


@pytest.mark.timeout(LONG_TIMEOUT_S)
def test_a_file_comes_back_from_every_node_and_again_after_all_were_killed(
    cluster: ProcessCluster, tmp_path: Path, rounds: int, figure: Callable[[str], None]
) -> None:
    line_count = LINE_COUNT if rounds < LONG_ROUND_COUNT else LONG_LINE_COUNT
    content = word_list(line_count, seed=2)
    path = tmp_path / "words"
    path.write_bytes(content)

    async def scenario() -> None:
        cluster.start()
        await cluster.all_answer()
        figure(
            f"from the last node's readiness to one leader: {await time_to_leader(cluster):.2f} s"
        )
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await produce(cluster, path)
        figure(f"produce: {line_count / (loop.time() - begin):.0f} lines a second")
        for node_id in NODE_IDS:
            assert await consumed(cluster, node_id) == content + b"\n"

        cluster.kill()
        cluster.start()
        await cluster.leader()
        await cluster.reach(line_count)
        assert await consumed(cluster, "n1") == content + b"\n"
        assert await check_files(cluster) == lines_of(content)

    asyncio.run(scenario())


async def time_to_leader(cluster: ProcessCluster) -> float:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await cluster.leader(timeout_s=LEADER_WITHIN_S)
    return loop.time() - begin


@pytest.mark.timeout(LONG_TIMEOUT_S)
def test_produce_carries_on_when_the_leader_is_killed_and_the_log_is_exactly_the_file(
    cluster: ProcessCluster, tmp_path: Path
) -> None:
    content = word_list(SHORT_LINE_COUNT, seed=3)
    path = tmp_path / "words"
    path.write_bytes(content)

    async def scenario() -> None:
        cluster.start()
        leader = await cluster.leader()
        async with running("produce", "--server", cluster.addresses, str(path)) as command:
            await cluster.reach(SHORT_LINE_COUNT // 4, leader)
            cluster.kill(leader)
            finished = await command.finish(timeout_s=LONG_TIMEOUT_S)
        assert finished.status == 0, finished.errors

        survivors = [node.node_id for node in cluster.running]
        await cluster.reach(SHORT_LINE_COUNT)
        assert await consumed(cluster, survivors[0]) == content + b"\n"

        cluster.start(leader)
        await cluster.reach(SHORT_LINE_COUNT, leader)
        assert await consumed(cluster, leader) == content + b"\n"
        assert await check_files(cluster) == lines_of(content)

    asyncio.run(scenario())


def test_sigterm_ends_a_node_with_a_thousand_tails_within_five_seconds(
    cluster: ProcessCluster, figure: Callable[[str], None]
) -> None:
    async def scenario() -> None:
        cluster.start()
        leader = await cluster.leader()
        async with Client(cluster.addresses) as client:
            await client.produce(b"the first record")
        async with AsyncExitStack() as channels:
            tails = await open_tails(cluster, leader, channels)
            loop = asyncio.get_running_loop()
            begin = loop.time()
            assert await cluster[leader].terminate() == 0
            took_s = loop.time() - begin
            statuses = await asyncio.gather(*map(end_of, tails))
        figure(f"from SIGTERM to the end of a leader with {TAIL_COUNT} tails: {took_s:.2f} s")
        assert took_s < STOP_WITHIN_S
        assert set(statuses) == {grpc.StatusCode.UNAVAILABLE}
        assert await cluster.leader() != leader

    asyncio.run(scenario())


async def open_tails(
    cluster: ProcessCluster, node_id: str, channels: AsyncExitStack
) -> list[grpc.aio.UnaryStreamCall]:
    """Open the tails, and return when each has read the first record and waits for the next."""
    tails = []
    for _ in range(TAIL_COUNT // TAILS_PER_CONNECTION):
        channel = await channels.enter_async_context(cluster.channel(node_id))
        stub = log_pb2_grpc.LogStub(channel)
        tails += [stub.ConsumeStream(log_pb2.ConsumeRequest()) for _ in range(TAILS_PER_CONNECTION)]
    async with asyncio.timeout(TIMEOUT_S):
        first = await asyncio.gather(*(tail.read() for tail in tails))
    assert {answer.offset for answer in first} == {0}
    return tails


async def end_of(tail: grpc.aio.UnaryStreamCall) -> grpc.StatusCode:
    """Return how a tail ended, which got nothing more."""
    try:
        answer = await tail.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError(f"a tail got {answer}")


def test_follow_keeps_tailing(running_cluster: ProcessCluster) -> None:
    async def scenario() -> None:
        cluster = running_cluster
        begin = await cluster.high_watermark(await cluster.leader())
        assert begin is not None
        await cluster.reach(begin)
        arguments = ("consume", "--follow", "--from", str(begin), "--server", cluster["n2"].address)
        async with running(*arguments) as command:
            for text in (b"one\ntwo\n", b"three\n", b"four\nfive\nsix\n"):
                produced = await run("produce", "--server", cluster.addresses, "-", given=text)
                assert (produced.status, produced.errors) == (0, "")
                assert await command.read(len(text)) == text
            command.interrupt()
            finished = await command.finish()
        assert (finished.output, finished.errors) == (b"", "")

    asyncio.run(scenario())


def test_produce_that_gives_up_names_the_first_line_not_acknowledged(
    cluster: ProcessCluster,
) -> None:
    lines = [b"line %d" % number for number in range(1, 1001)]
    before, after = lines[:500], lines[500:]

    async def scenario() -> None:
        cluster.start()
        leader = await cluster.leader()
        arguments = ("produce", "--server", cluster.addresses, "--timeout", "2", "--json", "-")
        async with running(*arguments) as command:
            await command.write(b"\n".join(before) + b"\n")
            await cluster.reach(len(before), leader)
            cluster.kill(*(await cluster.followers()))
            finished = await command.finish(b"\n".join(after) + b"\n")
        assert finished.status == 1
        assert "line 501 was the first not acknowledged" in finished.complaint
        summary = json.loads(finished.output)
        assert summary["records"] == len(before)
        assert summary["first_line_not_acknowledged"] == len(before) + 1

        cluster.start_missing()
        await cluster.leader()
        async with Client(cluster.addresses) as client:
            end = (await client.describe_topic()).high_watermark
        # Those that were on their way, in whole blocks, may be there; nothing else, and no hole.
        assert len(before) <= end <= len(lines)
        assert await cluster.read_log(leader, end) == list(enumerate(lines[:end]))

    asyncio.run(scenario())


def test_cluster_status_shows_nodes_roles_terms_high_watermarks_and_lag(
    running_cluster: ProcessCluster,
) -> None:
    cluster = running_cluster

    async def scenario() -> None:
        leader = await cluster.leader()
        given = b"one\ntwo\n"
        assert (await run("produce", "--server", cluster.addresses, given=given)).status == 0
        end = await cluster.high_watermark(leader)
        assert end is not None
        await cluster.reach(end)
        status = await cluster.status(leader)
        assert status is not None
        # From a follower: it knows the others, too.
        server = cluster[(await cluster.followers())[0]].address
        as_text = await run("cluster", "status", "--server", server)
        as_json = await run("cluster", "status", "--server", server, "--json")
        assert (as_text.status, as_text.errors) == (as_json.status, as_json.errors) == (0, "")

        shown = json.loads(as_json.output)
        assert shown["leader"] == leader
        assert [node["node_id"] for node in shown["nodes"]] == list(NODE_IDS)
        for node in shown["nodes"]:
            assert node["role"] == ("leader" if node["node_id"] == leader else "follower")
            assert node["address"] == cluster[node["node_id"]].address
            assert (node["term"], node["lag"], node["connected"]) == (status.term, 0, True)
            assert node["topics"] == {"default": {"start_offset": 0, "high_watermark": end}}

        nodes, health, *_, topics = as_text.output.decode().split("\n\n")
        rows = [re.split(r"  +", line) for line in nodes.splitlines()]
        assert rows[0] == [
            "NODE",
            "ROLE",
            "ADDRESS",
            "TERM",
            "APPLIED",
            "LAG",
            "CONNECTED",
            "DISK",
            "COPY",
        ]
        assert [row[0] for row in rows[1:]] == list(NODE_IDS)
        assert [row[0] for row in rows if row[1] == "leader"] == [leader]
        for line in health.splitlines()[1:]:
            node_id, is_ready, state, *_ = re.split(r"  +", line)
            assert is_ready == "yes"
            assert state == ("leading" if node_id == leader else "following")
        for node in shown["nodes"]:
            assert node["ready"]
            assert node["uptime_s"] >= 0
            assert node["disk_free"] > 0
            assert node["version"] == __version__
            assert node["problem"] == ""
        assert re.split(r"  +", topics.splitlines()[1]) == ["default", "0", *[str(end)] * 3]

    asyncio.run(scenario())


def test_cluster_status_tells_which_node_is_away(cluster: ProcessCluster) -> None:
    async def scenario() -> None:
        cluster.start()
        away = (await cluster.followers())[0]
        cluster.kill(away)
        leader = await cluster.leader()

        async def shown() -> dict[str, Any] | None:
            status = await run("cluster", "status", "--server", cluster[leader].address, "--json")
            assert (status.status, status.errors) == (0, "")
            nodes = {node["node_id"]: node for node in json.loads(status.output)["nodes"]}
            return None if nodes[away]["connected"] else nodes

        nodes = await until(shown, "the node that was killed is shown as not connected")
        assert nodes[away]["role"] == "unreachable"
        assert [name for name, node in nodes.items() if node["connected"]] == [
            name for name in NODE_IDS if name != away
        ]

    asyncio.run(scenario())


def test_a_view_of_the_cluster_is_shown_again_and_again_until_ctrl_c(
    running_cluster: ProcessCluster,
) -> None:
    async def scenario() -> None:
        await running_cluster.leader()
        ours, theirs = pty.openpty()
        arguments = ("cluster", "status", "--watch", "0.5", "--server", running_cluster.addresses)
        process = await asyncio.create_subprocess_exec(
            *DISTLOG,
            *arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
        )
        os.close(theirs)
        try:
            shown = b""
            async with asyncio.timeout(TIMEOUT_S):
                while shown.count(b"Ctrl-C ends it") < 3:
                    shown += await asyncio.to_thread(os.read, ours, 65536)
                process.send_signal(signal.SIGINT)
                assert await process.wait() == 0
            assert b"leading" in shown
            assert b"Traceback" not in shown
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            os.close(ours)

    asyncio.run(scenario())
