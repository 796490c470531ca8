"""Real nodes with --durability os: kill -9 of all of them loses nothing, and everybody who is asked says what they promise."""

from __future__ import annotations

import asyncio
import json

from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.process_cluster import NODE_IDS
from tests.processes.settled import check_files, check_over_grpc

ROUNDS = 3
ROUND_RECORD_COUNT = 9_000
# A checkpoint under way now and then, when all are killed.
SETTINGS = ("--durability", "os", "--checkpoint-interval-s", "0.3")


def test_kill_9_of_all_nodes_at_once_loses_nothing_that_they_had_only_written(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(NODE_IDS, *SETTINGS)

    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=3, tail_count=1, seed=1) as load:
            for number in range(ROUNDS):
                await cluster.leader()
                await load.allow(ROUND_RECORD_COUNT)
                await load.acknowledged(number * ROUND_RECORD_COUNT + ROUND_RECORD_COUNT // 3)
                # No await in between: the rest of the round's records is on its way now.
                assert load.in_flight_count > 0
                cluster.kill()
                cluster.start()
            await load.finish()
            history = load.history
        assert history.acknowledged_count == history.sent_count >= ROUNDS * ROUND_RECORD_COUNT
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)

    asyncio.run(scenario())


def test_nodes_say_what_they_promise(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(NODE_IDS)
    cluster["n2"].arguments += ["--durability", "os"]

    async def scenario() -> None:
        cluster.start()
        await cluster.leader()
        statuses = await cluster.statuses(NODE_IDS)
        found = [status.durability if status else None for status in statuses.values()]
        assert found == ["fsync", "os", "fsync"]
        warned = [
            "durability=os: this node acknowledges what it has written" in node.says()
            for node in cluster
        ]
        assert warned == [False, True, False]
        shown = await run("cluster", "status", "--server", cluster.addresses)
        assert b"DURABILITY" in shown.output
        measured = await run(
            *("bench", "produce", "--server", cluster.addresses, "--json"),
            *("--count", "100", "--warm-up", "0"),
        )
        assert json.loads(measured.output)["durability"] == "mixed"
        await cluster.terminate()

    asyncio.run(scenario())
