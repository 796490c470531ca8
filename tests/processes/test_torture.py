"""kill -9 while records are on their way, again and again: nothing acknowledged is lost, doubled or reordered.

`make torture ROUNDS=60` runs more rounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import cycle

import pytest

from tests.processes.conftest import MakeCluster
from tests.processes.load import Load
from tests.processes.process_cluster import NODE_IDS, ProcessCluster
from tests.processes.settled import check_files, check_over_grpc

PRODUCER_COUNT = 4
TAIL_COUNT = 2
ACKNOWLEDGED_COUNT_MIN = 20_000
ROUND_RECORD_COUNT_MIN = 400
# So that a node is also killed while it writes one, and starts from one with a journal behind it.
MANY_CHECKPOINTS = ("--checkpoint-interval-s", "0.5")
PAUSE_RECORD_COUNT = 3_000
# No test may hang; each round waits at most for an election and the start of three processes.
ROUND_TIMEOUT_S = 30


class Torture:
    """One run: the cluster under load, and who is killed in each round."""

    def __init__(self, cluster: ProcessCluster, load: Load, round_record_count: int) -> None:
        self.cluster = cluster
        self.load = load
        self.round_record_count = round_record_count
        self.victims: list[str] = []

    async def run(self, rounds: int) -> None:
        for number, kill in zip(
            range(rounds), cycle((self.leader, self.follower, self.all)), strict=False
        ):
            leader = await self.cluster.leader()
            sent_before = number * self.round_record_count
            await self.load.allow(self.round_record_count)
            await self.load.acknowledged(sent_before + self.round_record_count // 3)
            # No await in between: the rest of the round's records is on its way now.
            assert self.load.in_flight_count > 0
            await kill(leader, sent_before + self.round_record_count * 2 // 3)

    async def leader(self, leader: str, acknowledged_count: int) -> None:
        await self._one(leader, acknowledged_count)

    async def follower(self, leader: str, acknowledged_count: int) -> None:
        followers = [node.node_id for node in self.cluster if node.node_id != leader]
        await self._one(followers[len(self.victims) // 3 % 2], acknowledged_count)

    async def all(self, leader: str, acknowledged_count: int) -> None:
        self.cluster.kill()
        self.victims.append("all")
        self.cluster.start()

    async def _one(self, node_id: str, acknowledged_count: int) -> None:
        """Kill a node, and start it again when the other two have gone on without it."""
        self.cluster.kill(node_id)
        self.victims.append(node_id)
        await self.load.acknowledged(acknowledged_count)
        self.cluster.start(node_id)


@pytest.mark.timeout(0)
def test_nothing_acknowledged_is_lost_doubled_or_reordered_by_kill_9(
    make_cluster: MakeCluster, rounds: int, figure: Callable[[str], None]
) -> None:
    cluster = make_cluster(NODE_IDS, *MANY_CHECKPOINTS)

    async def scenario() -> None:
        round_record_count = max(ROUND_RECORD_COUNT_MIN, -(-ACKNOWLEDGED_COUNT_MIN // rounds))
        cluster.start()
        async with (
            asyncio.timeout(60 + rounds * ROUND_TIMEOUT_S),
            Load(
                cluster, producer_count=PRODUCER_COUNT, tail_count=TAIL_COUNT, seed=rounds
            ) as load,
        ):
            torture = Torture(cluster, load, round_record_count)
            await torture.run(rounds)
            await load.finish()
            history = load.history
        assert history.acknowledged_count == history.sent_count >= ACKNOWLEDGED_COUNT_MIN
        assert len(torture.victims) == rounds
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)
        figure(
            f"torture: {history.acknowledged_count} records, killed {', '.join(torture.victims)}"
        )

    asyncio.run(scenario())


def test_a_leader_that_stood_still_while_another_was_elected_changes_nothing(
    cluster: ProcessCluster,
) -> None:
    async def scenario() -> None:
        cluster.start()
        async with Load(cluster, producer_count=2, tail_count=2, seed=0) as load:
            leader = await cluster.leader()
            others = [node.node_id for node in cluster if node.node_id != leader]
            await load.allow(PAUSE_RECORD_COUNT)
            await load.acknowledged(PAUSE_RECORD_COUNT // 3)
            cluster[leader].pause()
            assert load.in_flight_count > 0
            await cluster.leader(*others)
            await load.acknowledged(PAUSE_RECORD_COUNT * 2 // 3)
            # It still believes that it leads, and has the producers' old calls before it.
            cluster[leader].resume()
            await cluster.leader()
            await load.finish()
            history = load.history
        assert history.acknowledged_count == history.sent_count >= PAUSE_RECORD_COUNT
        await check_over_grpc(cluster, history, history.sent_count)
        await check_files(cluster, history)

    asyncio.run(scenario())
