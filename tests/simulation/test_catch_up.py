"""Nodes that are too far behind for the journals of the others: they copy a checkpoint and segments, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distlog.catch_up.copying import Copied, Progress
from distlog.consensus.checkpoint import read_checkpoint
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.errors import DiskFailed, NoLeader, Overloaded
from distlog.storage.segment_files import SegmentLimits
from tests.simulation.schedule import file_differences, settled, whole_log
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import block, followers, led
from tests.simulation.test_membership import join
from tests.simulation.virtual_loop import VirtualLoop

SETTINGS = ReplicatedLogSettings(journal_size_max=256 << 10, retention_interval_s=0.5)
LIMITS = SegmentLimits(store_size_max=16 << 10, row_count_max=64)
Story = Callable[[SimulatedCluster], Awaitable[None]]


def simulated(story: Story, *, seed: int = 1, **options: Any) -> SimulatedCluster:
    """Run a story on a started cluster whose journals are small, in virtual time, and compare all nodes at the end."""
    clusters: list[SimulatedCluster] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, seed, replicated_log=SETTINGS, **options)
        clusters.append(cluster)
        await cluster.start()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        await story(cluster)
        await compare(cluster)
        assert not cluster.failures, cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    return clusters[0]


async def compare(cluster: SimulatedCluster) -> None:
    """Have all nodes come to the same end, and their files with them."""
    await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
    assert await settled(cluster), cluster.failures
    logs = [await whole_log(machine) for machine in cluster.machines.values()]
    assert all(log == logs[0] for log in logs)
    for machine in cluster.machines.values():
        await machine.stop()
    cluster.failures += file_differences({m.name: m.disk for m in cluster.machines.values()})


async def append_many(log: ReplicatedLog, topic: str, count: int, size: int = 8000) -> None:
    for number in range(count):
        while True:
            try:
                await log.propose_append(topic, block(b"%d " % number + bytes(size)))
                break
            except Overloaded:
                # Such a small journal is full before a slow disk has a checkpoint; clients wait a moment, too.
                await asyncio.sleep(0.05)


async def left_behind(cluster: SimulatedCluster, count: int = 120) -> tuple[ReplicatedLog, Machine]:
    """Have one node miss more than the journals of the others keep; return the leader's log, and the node, which is down."""
    log = await led(cluster)
    await log.create_topic("events", LIMITS)
    await append_many(log, "", 5)
    away = followers(cluster)[0]
    await away.stop()
    await append_many(log, "events", count)
    await append_many(log, "", count // 3)
    return log, away


def copies_of(machine: Machine) -> int:
    assert machine.node is not None
    files = machine.node.files
    assert files is not None
    return files.catch_up.counters["copies_finished"]


def test_a_node_that_lacks_what_no_journal_keeps_copies_a_checkpoint_and_goes_on() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        assert log.status().journal_size < SETTINGS.journal_size_max
        await away.start()
        assert await cluster.wait_until(lambda: copies_of(away) == 1, "a copy is finished")
        await append_many(log, "", 5)

    simulated(story)


async def wait_for_copy(cluster: SimulatedCluster, away: Machine) -> None:
    """Wait until a node has some of what it copies."""

    def has_begun() -> bool:
        progress = progress_of(away)
        return progress is not None and progress.fetched_size > 0

    assert await cluster.wait_until(has_begun, "a copy begins"), cluster.failures


def progress_of(machine: Machine) -> Progress | None:
    files = machine.node.files if machine.node is not None else None
    return files.catch_up.progress if files is not None else None


async def caught_up(cluster: SimulatedCluster, log: ReplicatedLog, away: Machine) -> None:
    end = log.topic("events").high_watermark

    def is_level() -> bool:
        if away.log is None or not away.log.status().topics:
            return False
        marks = {topic.name: topic.high_watermark for topic in away.log.topics()}
        return marks.get("events", 0) >= end

    assert await cluster.wait_until(is_level, "it has caught up"), cluster.failures


def test_writes_go_on_while_a_node_copies() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        await append_many(log, "events", 300)
        await caught_up(cluster, log, away)
        assert copies_of(away) >= 1

    simulated(story, copy_rate_max=2 << 20)


def test_a_copy_goes_on_from_another_peer_when_its_source_crashes() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        _, away = await left_behind(cluster)
        await away.start()
        await wait_for_copy(cluster, away)
        progress = progress_of(away)
        assert progress is not None
        leader = cluster.leader()
        assert leader is not None
        assert progress.source != leader.name, "a leader has enough to do"
        cluster.machines[progress.source].crash()
        # Nobody leads with one node that has everything and one that copies; reads of files need no leader.
        await asyncio.sleep(3.0)
        await cluster.restart_all()
        await caught_up(cluster, await led(cluster), away)

    simulated(story, copy_rate_max=1 << 20)


def test_a_copy_goes_on_under_another_leader() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        await wait_for_copy(cluster, away)
        await log.transfer_leadership()
        log = await led(cluster)
        await append_many(log, "events", 5)
        await caught_up(cluster, log, away)

    simulated(story, copy_rate_max=1 << 20)


def test_what_is_staged_is_not_copied_again_after_a_crash_of_the_node_that_copies() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        fetched = 0
        for _ in range(5):
            await wait_for_copy(cluster, away)
            before = progress_of(away)
            assert before is not None
            target = min(before.done_size + (150 << 10), before.size)

            def is_further(target: int = target) -> bool:
                progress = progress_of(away)
                return progress is None or progress.done_size >= target

            await cluster.wait_until(is_further, "the copy goes on")
            progress = progress_of(away)
            fetched += progress.fetched_size if progress is not None else 0
            away.crash()
            await away.start()
        await caught_up(cluster, log, away)
        size = sum(topic.size for topic in log.topics())
        assert fetched < 2 * size

    simulated(story, copy_rate_max=1 << 20)


def test_a_node_that_copies_answers_reads_of_what_it_has_and_says_how_far_it_is() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        await wait_for_copy(cluster, away)
        assert away.log is not None
        batches = await away.log.read("", 0, size_max=100)
        assert batches[0].base_offset == 0
        copy = away.log.status().copy
        assert copy is not None
        assert 0 < copy.done_size <= copy.size
        await caught_up(cluster, log, away)
        assert away.log.status().copy is None

    simulated(story, copy_rate_max=1 << 20)


def test_topics_that_came_and_went_while_a_node_was_away_are_as_with_the_others() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.create_topic("gone", LIMITS)
        await log.create_topic("trimmed", LIMITS)
        await append_many(log, "gone", 3)
        await append_many(log, "trimmed", 5)
        log, away = await left_behind(cluster)
        await log.delete_topic("gone")
        await append_many(log, "trimmed", 20)
        await log.trim_topic("trimmed", 15)
        await log.create_topic("new", LIMITS)
        await append_many(log, "new", 40)
        await away.start()
        await caught_up(cluster, log, away)
        assert copies_of(away) == 1

    simulated(story)


def test_a_copy_waits_for_space_and_goes_on_when_there_is_some() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        await wait_for_copy(cluster, away)
        away.fill_disk(300 << 10)

        def is_waiting() -> bool:
            progress = progress_of(away)
            return progress is not None and "no room" in progress.problem

        assert await cluster.wait_until(is_waiting, "it says that it waits for space")
        assert away.log is not None
        assert not away.log.status().is_storage_full, "what is promised has its reserve"
        away.free_disk()
        await caught_up(cluster, log, away)

    simulated(story, copy_rate_max=1 << 20)


@pytest.mark.seeds(6)
def test_whatever_crashes_during_copies_all_nodes_are_equal_in_the_end(seed: int) -> None:
    """Both nodes that have what is copied, and the one that copies, crash again and again, most often in a disk operation."""

    async def story(cluster: SimulatedCluster) -> None:
        _, away = await left_behind(cluster)
        random = cluster.random
        await away.start()
        for _ in range(25):
            await asyncio.sleep(random.random() * 0.4)
            victim = away if random.random() < 0.6 else random.choice([*cluster.machines.values()])
            if victim.node is not None:
                random.choice(
                    (
                        victim.crash,
                        victim.kill,
                        lambda victim=victim: victim.crash_within(random.randint(1, 60)),
                        lambda victim=victim: victim.crash_within(random.randint(1, 15)),
                        lambda victim=victim: victim.crash_at_callback(random.randint(1, 200)),
                    )
                )()
            await asyncio.sleep(random.random() * 0.3)
            await cluster.restart_all()
        for machine in cluster.machines.values():
            machine.disk.hook = None
            if machine.process is not None:
                machine.process.let_be()
        await cluster.restart_all()
        await caught_up(cluster, await led(cluster), away)

    simulated(story, seed=seed, copy_rate_max=4 << 20)


def test_a_checkpoint_that_this_node_does_not_need_changes_nothing() -> None:
    """What a journal holds behind such a checkpoint may be acknowledged: it never goes."""

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await append_many(log, "", 5)
        leader, follower = cluster.leader(), followers(cluster)[0]
        assert leader is not None
        assert leader.node is not None
        assert follower.node is not None
        assert follower.process is not None
        assert await cluster.wait_until(
            lambda: log.status().checkpoint_index > 2, "a checkpoint is written"
        )
        image = read_checkpoint(leader.disk, "data/groups/0/checkpoint")
        assert image is not None
        await settled(cluster)
        node, group = follower.node, follower.node.group
        assert group is not None
        assert group.raft.last_applied >= image.raft_index

        async def switch() -> None:
            assert not await node._switch(Copied(image))

        await follower.process.run(switch())
        assert node.group is group, "it goes on as it was"

    simulated(story)


def test_a_node_is_stopped_in_order_while_it_copies_and_while_it_goes_over() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        for _ in range(2):
            await away.start()
            await wait_for_copy(cluster, away)
            await away.stop()
        await away.start()
        assert away.node is not None
        goes_over = asyncio.Event()
        detach = away.node.replicated_log.detach

        def watched_detach(why: str) -> None:
            detach(why)
            goes_over.set()

        away.node.replicated_log.detach = watched_detach  # type: ignore[method-assign]
        await goes_over.wait()
        await away.stop()
        await away.start()
        await caught_up(cluster, log, away)

    simulated(story, copy_rate_max=1 << 20)


def test_what_happens_to_a_state_that_is_left_reaches_nobody() -> None:
    """Its leader may be lost, and entries applied, while it waits for its last syncs."""

    async def story(cluster: SimulatedCluster) -> None:
        log, away = await left_behind(cluster)
        await away.start()
        assert away.node is not None
        left: list[Any] = []
        detach = away.node.replicated_log.detach

        def watched_detach(why: str) -> None:
            group = away.group
            detach(why)
            group.leadership_changed()
            group.applied()
            left.append(group.take_proposals())
            assert away.log is not None
            with pytest.raises(NoLeader, match="goes over to a copied checkpoint"):
                away.log.topic_pages(10)
            assert away.log.status().role == "copying"

        away.node.replicated_log.detach = watched_detach  # type: ignore[method-assign]
        await caught_up(cluster, log, away)
        assert left == [()]

    simulated(story)


def test_a_copy_of_a_single_segment_survives_the_loss_of_its_connection() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await append_many(log, "", 5)
        away = followers(cluster)[0]
        await away.stop()
        await append_many(log, "", 80)
        await away.start()
        for _ in range(3):
            await wait_for_copy(cluster, away)
            progress = progress_of(away)
            assert progress is not None
            cluster.network.break_connections(progress.source, away.name)
            cluster.network.break_connections(away.name, progress.source)
            await asyncio.sleep(1.0)
        assert await cluster.wait_until(lambda: copies_of(away) == 1, "a copy is finished")
        assert away.node is not None
        assert away.node.files is not None
        assert away.node.files.catch_up.counters["copies_begun"] == 1, "it is one and the same"

    simulated(story, copy_rate_max=100 << 10)


def test_a_copy_of_a_single_segment_that_finds_no_space_goes_on_saying_so() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await append_many(log, "", 5)
        away = followers(cluster)[0]
        await away.stop()
        await append_many(log, "", 80)
        away.fill_disk(300 << 10)
        await away.start()
        for _ in range(20):
            assert await cluster.wait_until(
                lambda: "no room" in getattr(progress_of(away), "problem", ""), "it waits", 5.0
            )
            await asyncio.sleep(0.2)
        assert away.node is not None
        assert away.node.files is not None
        assert away.node.files.catch_up.counters["copies_begun"] == 1, "it is one and the same"
        away.free_disk()
        assert await cluster.wait_until(lambda: copies_of(away) == 1, "a copy is finished")

    simulated(story)


def test_a_node_that_joins_after_the_journals_forgot_their_beginning_copies_and_votes() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.create_topic("events", LIMITS)
        await append_many(log, "", 20)
        await append_many(log, "events", 120)
        await append_many(log, "", 40)
        assert log.status().journal_size < SETTINGS.journal_size_max
        joined = await join(cluster, "n4")
        assert copies_of(joined) == 1
        assert joined.node is not None
        assert joined.node.files is not None
        failed = joined.node.files.catch_up.counters["rounds_failed"]
        assert failed <= 1, "who has no checkpoint that is new enough writes one at once"
        await append_many(log, "events", 5)

    simulated(story, spares=("n4",))


def test_a_node_that_could_not_go_over_to_a_copy_lives_on_with_the_members_that_it_knew() -> None:
    """Its journal has them and no checkpoint does: they come into force again when it is opened again."""

    async def story(cluster: SimulatedCluster) -> None:
        joined = await join(cluster, "n4")
        assert joined.log is not None
        assert joined.log.status().checkpoint_index <= 1, "it has not had the time to write one"
        joined.kill()
        await append_many(await led(cluster), "", 120)
        refusals: list[str] = []

        def hook(operation: str, path: str) -> None:
            if operation == "link":
                refusals.append(path)
                raise DiskFailed(path=path, operation=operation, problem="Operation not permitted")

        joined.disk.hook = hook
        await joined.start()
        assert await cluster.wait_until(lambda: len(refusals) > 1, "it tries again and again")
        assert "n4" in joined.group.configuration.members
        joined.disk.hook = None
        assert await cluster.wait_until(lambda: copies_of(joined) == 1, "a copy is finished")

    simulated(story, spares=("n4",), checkpoint_interval_s=3600.0)
