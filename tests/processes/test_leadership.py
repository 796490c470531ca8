"""The leader of three real processes is stopped, or told to hand over, while clients write: no call fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.process_cluster import ProcessCluster

WRITER_COUNT = 4
# Between two changes of the leader so many records are acknowledged.
RECORDS_BETWEEN = 100


class Writers:
    """Clients that write one record after the other; the first call that fails ends the test."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._client = Client(cluster.addresses, random=Random(1))
        self._stopping = False
        self._count = asyncio.Condition()
        # By record, its offset.
        self.acknowledged: dict[bytes, int] = {}
        # Seconds between two acknowledgements, the longest since `gap_s` was set to 0.
        self.gap_s = 0.0
        self._last = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Writers:
        self._last = asyncio.get_running_loop().time()
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(WRITER_COUNT)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _write(self, writer: int) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while not self._stopping:
            record = b"%d-%d" % (writer, number)
            self.acknowledged[record] = await self._client.produce(record)
            number += 1
            self.gap_s = max(self.gap_s, loop.time() - self._last)
            self._last = loop.time()
            async with self._count:
                self._count.notify_all()

    async def more(self, count: int = RECORDS_BETWEEN) -> None:
        """Return when so many further records are acknowledged.  Raises what a call raised."""
        wanted = len(self.acknowledged) + count

        async def reached() -> None:
            async with self._count:
                await self._count.wait_for(lambda: len(self.acknowledged) >= wanted)

        waiting = asyncio.create_task(reached())
        await asyncio.wait([waiting, *self._tasks], timeout=60, return_when="FIRST_COMPLETED")
        for task in self._tasks:
            if task.done():
                task.result()
        assert waiting.done(), f"{len(self.acknowledged)} of {wanted} records after a minute"

    async def finish(self) -> None:
        """Let every writer end its last call."""
        self._stopping = True
        await asyncio.gather(*self._tasks)


async def check_log(cluster: ProcessCluster, writers: Writers) -> None:
    """Every acknowledged record is where it was said to be, once, on every node."""
    count = len(writers.acknowledged)
    await cluster.reach(count)
    for node in cluster.running:
        log = dict(await cluster.read_log(node.node_id, count))
        assert {value: offset for offset, value in log.items()} == writers.acknowledged


def test_every_node_is_restarted_in_turn_under_load_and_no_call_fails(
    cluster: ProcessCluster, figure: Callable[[str], None]
) -> None:
    async def story() -> None:
        cluster.start()
        await cluster.leader()
        gaps = []
        left = {node.node_id for node in cluster.running}
        async with Writers(cluster) as writers:
            await writers.more()
            while left:
                leader = await cluster.leader()
                # The leader first, and again whoever leads then.
                node_id = leader if leader in left else min(left)
                left.remove(node_id)
                writers.gap_s = 0.0
                assert await cluster[node_id].terminate(timeout_s=5.0) == 0
                await writers.more()
                gaps.append(writers.gap_s)
                assert ("leadership handed over" in cluster[node_id].says()) == (node_id == leader)
                cluster.start(node_id)
                await cluster.all_answer()
            await writers.finish()
            await check_log(cluster, writers)
        listed = ", ".join(f"{1000 * gap:.0f}" for gap in gaps)
        figure(f"stop of each node in turn under load: {listed} ms without an acknowledgement")

    asyncio.run(story())


def test_leadership_is_handed_over_by_command_under_load_and_no_call_fails(
    cluster: ProcessCluster, figure: Callable[[str], None]
) -> None:
    async def story() -> None:
        cluster.start()
        await cluster.leader()
        async with Writers(cluster) as writers:
            await writers.more()
            writers.gap_s = 0.0
            for _ in range(3):
                target = (await cluster.followers())[0]
                arguments = ("--server", cluster.addresses, "--to", target)
                result = await run("cluster", "transfer-leadership", *arguments)
                assert result.output == f"{target} leads now\n".encode()
                assert await cluster.leader() == target
                await writers.more()
            await writers.finish()
            await check_log(cluster, writers)
        figure(f"hand-over by command: {1000 * writers.gap_s:.0f} ms without an acknowledgement")

    asyncio.run(story())
