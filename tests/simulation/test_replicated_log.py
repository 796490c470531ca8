"""The replicated log as its callers see it, on simulated machines: what is refused, what waits, and what survives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.views import Consistency
from distlog.errors import (
    DistlogError,
    NoLeader,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    OutOfSequence,
    Overloaded,
    ProducerUnknown,
    ShuttingDown,
    TopicNotFound,
)
from distlog.storage.segment_files import SegmentLimits
from tests.simulation.simulated_cluster import SimulatedCluster
from tests.simulation.stories import (
    THREE,
    block,
    followers,
    led,
    log_of,
    records_of,
    settled,
    simulated,
)
from tests.simulation.virtual_loop import VirtualLoop

LIMITS = SegmentLimits(store_size_max=4096, row_count_max=64)


# --- Writes --------------------------------------------------------------------------------------


def test_appends_of_one_step_share_an_entry_and_keep_their_order() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        before = log.status().last_index
        futures = [log.propose_append("", block(b"r%d" % number)) for number in range(50)]
        offsets = [(await future).base_offset for future in futures]
        assert offsets == list(range(50))
        assert log.status().last_index - before == 1
        assert await records_of(log) == [b"r%d" % number for number in range(50)]

    simulated(story)


def test_a_record_is_readable_on_every_node_soon_after_it_is_acknowledged() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"x"))
        async with asyncio.timeout(0.5):
            for machine in followers(cluster):
                await log_of(machine).wait_for("", 0)

    simulated(story)


def test_a_follower_names_the_leader_and_where_it_is() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        leader = cluster.leader()
        assert leader is not None
        follower = followers(cluster)[0]
        await cluster.wait_until(
            lambda: log_of(follower).has_leader, "the follower knows the leader"
        )
        with pytest.raises(NotLeader) as refusal:
            log_of(follower).propose_append("", block(b"x"))
        assert refusal.value.leader_id == leader.name
        assert refusal.value.leader_address == f"{leader.name}:8400"

    simulated(story)


def test_until_every_node_was_there_once_a_node_says_for_whom_it_waits() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, 1)
        await cluster.machines["n1"].start()
        await cluster.machines["n2"].start()
        await asyncio.sleep(5)
        for name in ("n1", "n2"):
            with pytest.raises(NoLeader, match="waiting for n3"):
                log_of(cluster.machines[name]).propose_append("", block(b"x"))
            assert log_of(cluster.machines[name]).status().role == "forming"
        await cluster.machines["n3"].start()
        log = await led(cluster)
        assert (await log.propose_append("", block(b"x"))).base_offset == 0

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_without_a_majority_nothing_is_acknowledged_and_the_leader_steps_down() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        leader = cluster.leader()
        assert leader is not None
        for machine in followers(cluster):
            machine.crash()
        future = log.propose_append("", block(b"alone"))
        with pytest.raises(OutcomeUnknown):
            await future
        with pytest.raises(NoLeader):
            log.propose_append("", block(b"later"))
        await cluster.restart_all()
        await led(cluster)

    simulated(story)


def test_more_proposals_than_the_limit_are_refused_at_once() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        futures: list[asyncio.Future[Any]] = []

        def propose_many() -> None:
            for _ in range(1000):
                futures.append(log.propose_append("", block(b"x" * 1000)))

        with pytest.raises(Overloaded, match="proposals"):
            propose_many()
        assert 90 < len(futures) <= 100
        for future in futures:
            await future
        await log.propose_append("", block(b"there is room again"))

    simulated(story, replicated_log=ReplicatedLogSettings(proposals_size_max=100 << 10))


async def append_in_the_end(log: ReplicatedLog, appended: Block) -> None:
    """Append, as often as the log says to slow down: a checkpoint may have met a disk that takes a fifth of a second."""
    for _ in range(20):
        try:
            await log.propose_append("", appended)
        except Overloaded:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("a second has made no room")


def test_the_journal_stays_within_its_limit_and_the_others_go_on_while_a_voter_is_away() -> None:
    limit = 2 << 20

    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"first"))
        missing = followers(cluster)[0]
        await missing.stop()
        largest = 0
        for _ in range(1000):
            await append_in_the_end(log, block(b"x" * 10_000))
            largest = max(largest, log.status().journal_size)
        assert limit // 2 < largest < limit + 20_000
        end = log.topic("").high_watermark
        await missing.start()
        await settled(cluster, end)
        assert await records_of(log_of(missing)) == await records_of(log)

    simulated(
        story,
        replicated_log=ReplicatedLogSettings(journal_size_max=limit),
        checkpoint_interval_s=1.0,
    )


def test_a_journal_that_no_checkpoint_lets_forget_refuses_writes_and_says_so() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        leader = cluster.leader()
        assert leader is not None
        assert leader.node is not None
        group = leader.node.group
        assert group is not None
        # As if the worker that writes it never came to an end.
        group.checkpoints._task = asyncio.get_running_loop().create_future()  # type: ignore[assignment]

        async def append_many() -> None:
            for _ in range(1000):
                await log.propose_append("", block(b"x" * 10_000))

        with pytest.raises(Overloaded, match="the journal, which only a checkpoint lets forget,"):
            await append_many()
        group.checkpoints._task = None
        await asyncio.sleep(1)
        await log.propose_append("", block(b"there is room again"))

    simulated(story, replicated_log=ReplicatedLogSettings(journal_size_max=1 << 20))


def test_an_entry_that_is_larger_than_the_journal_may_be_is_followed_by_others() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        missing = followers(cluster)[0]
        await missing.stop()
        await log.propose_append("", block(b"x" * (300 << 10)))
        for _ in range(3):
            # Until a checkpoint has it.
            await asyncio.sleep(1)
            await log.propose_append("", block(b"x" * (300 << 10)))
        await missing.start()
        await settled(cluster, 4)

    simulated(story, replicated_log=ReplicatedLogSettings(journal_size_max=200 << 10))


# --- Exactly once --------------------------------------------------------------------------------


def test_a_repeat_gets_the_first_answer_in_flight_applied_and_after_a_power_cut() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        opened = await log.open_producer()
        stamps = [ProducerStamp(opened.producer_id, opened.epoch, n) for n in range(3)]
        first = log.propose_append("", block(b"a"), stamps[0])
        again = log.propose_append("", block(b"a"), stamps[0])
        assert (await first).base_offset == (await again).base_offset == 0
        applied = await log.propose_append("", block(b"a"), stamps[0])
        assert (applied.base_offset, applied.duplicate) == (0, True)
        assert (await log.propose_append("", block(b"b"), stamps[1])).base_offset == 1
        for machine in cluster.machines.values():
            machine.crash()
        await cluster.restart_all()
        log = await led(cluster)
        after = await log.propose_append("", block(b"b"), stamps[1])
        assert (after.base_offset, after.duplicate) == (1, True)
        assert (await log.propose_append("", block(b"c"), stamps[2])).base_offset == 2
        assert await records_of(log) == [b"a", b"b", b"c"]

    simulated(story)


def test_a_gap_and_an_unknown_producer_are_refused() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        opened = await log.open_producer()
        with pytest.raises(OutOfSequence) as gap:
            log.propose_append("", block(b"x"), ProducerStamp(opened.producer_id, opened.epoch, 1))
        assert (gap.value.expected, gap.value.actual) == (0, 1)
        with pytest.raises(ProducerUnknown):
            log.propose_append("", block(b"x"), ProducerStamp(12345, 0, 0))
        assert log.topic("").high_watermark == 0

    simulated(story)


def test_a_leader_that_is_cut_off_denies_nothing_that_its_successor_has_accepted() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await (await led(cluster)).create_topic("old", LIMITS)
        deposed = cluster.leader()
        assert deposed is not None
        others = [machine.name for machine in followers(cluster)]
        cluster.network.partition([deposed.name], others)
        assert await cluster.wait_until(
            lambda: any(log_of(cluster.machines[name]).is_leader for name in others), "a successor"
        )
        successor = next(
            log_of(cluster.machines[n]) for n in others if log_of(cluster.machines[n]).is_leader
        )
        opened = await successor.open_producer()
        await successor.create_topic("new", LIMITS)
        await successor.delete_topic("old")
        log = log_of(deposed)
        assert log.is_leader, "it does not know yet that it is none"
        stamp = ProducerStamp(opened.producer_id, opened.epoch, 0)
        attempts = [
            told(log, "", stamp),
            told(log, "new", None),
            log.create_topic("old", LIMITS),
            log.trim_topic("new", 0),
        ]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert all(isinstance(outcome, NoLeader | NotLeader) for outcome in outcomes), outcomes
        cluster.network.heal()

    simulated(story)


def test_a_leader_that_still_leads_proves_what_it_refuses() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        with pytest.raises(ProducerUnknown):
            await told(log, "", ProducerStamp(12345, 0, 0))
        with pytest.raises(TopicNotFound):
            await told(log, "nowhere", None)
        with pytest.raises(TopicNotFound):
            await log.delete_topic("nowhere")

    simulated(story)


async def told(log: ReplicatedLog, topic: str, stamp: ProducerStamp | None) -> Any:
    """Append as a service does: what is refused at once is proven before the client is told."""
    try:
        proposed = log.propose_append(topic, block(b"x"), stamp)
    except DistlogError as error:
        raise await log.proven(error) from None
    return await proposed


# --- Reads ---------------------------------------------------------------------------------------


def test_the_end_of_the_log_is_proven_before_an_offset_is_called_out_of_range() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"x"))
        for machine in cluster.machines.values():
            with pytest.raises(OffsetOutOfRange) as refusal:
                await log_of(machine).read("", 1, size_max=1)
            assert (refusal.value.offset, refusal.value.high_watermark) == (1, 1)

    simulated(story)


def test_a_restarted_follower_never_answers_not_there_for_an_acknowledged_record() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        for number in range(20):
            await log.propose_append("", block(b"r%d" % number))
        follower = followers(cluster)[0]
        follower.crash()
        await follower.start()
        restarted = log_of(follower)
        refusals = 0
        while True:
            try:
                batches = await restarted.read("", 19, size_max=1)
            except NoLeader:
                refusals += 1
                await asyncio.sleep(0.001)
                continue
            assert list(batches[-1].records()) == [b"r19"]
            break
        assert refusals > 0, "it was asked before it could know"

    simulated(story, checkpoint_interval_s=1000.0)


def test_a_node_that_is_cut_off_says_that_it_cannot_tell_unless_local_is_enough() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.propose_append("", block(b"x"))
        await settled(cluster, 1)
        follower = followers(cluster)[0]
        cluster.network.partition([follower.name], [n for n in THREE if n != follower.name])
        cut_off = log_of(follower)
        assert list((await cut_off.read("", 0, size_max=1))[0].records()) == [b"x"]
        with pytest.raises((NoLeader, TimeoutError)):
            async with asyncio.timeout(10):
                await cut_off.read("", 1, size_max=1)
        with pytest.raises(OffsetOutOfRange):
            await cut_off.read("", 1, size_max=1, consistency=Consistency.LOCAL)
        cluster.network.heal()

    simulated(story)


def test_a_thousand_idle_readers_at_the_end_cost_nothing_and_all_wake() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        readers = [asyncio.ensure_future(log.wait_for("", 0)) for _ in range(1000)]
        await asyncio.sleep(1)
        assert not any(reader.done() for reader in readers)
        await log.propose_append("", block(b"x"))
        await asyncio.gather(*readers)

    simulated(story)


def test_readers_at_the_end_are_told_when_the_node_stops() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        reader = asyncio.ensure_future(log.wait_for("", 0))
        await asyncio.sleep(0.1)
        log.refuse_new()
        with pytest.raises(ShuttingDown):
            await reader
        with pytest.raises(ShuttingDown):
            log.propose_append("", block(b"x"))

    simulated(story)


# --- Topics --------------------------------------------------------------------------------------


def test_topics_are_created_trimmed_deleted_and_made_again_on_every_node() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        first = await log.create_topic("events", LIMITS)
        for number in range(200):
            await log.propose_append("events", block(b"e%d" % number))
        await log.trim_topic("events", 150)
        with pytest.raises(OffsetOutOfRange):
            await log.read("events", 0, size_max=1)
        await log.delete_topic("events")
        with pytest.raises(TopicNotFound):
            log.topic("events")
        second = await log.create_topic("events", LIMITS)
        assert second.topic_id != first.topic_id
        await log.propose_append("events", block(b"new"))
        for machine in cluster.machines.values():
            await log_of(machine).confirmed_topic("events")
            assert await records_of(log_of(machine), "events") == [b"new"]
        for machine in cluster.machines.values():
            machine.crash()
        await cluster.restart_all()
        log = await led(cluster)
        assert await records_of(log, "events") == [b"new"]

    simulated(story, checkpoint_interval_s=0.5)


# --- One node, and identity ----------------------------------------------------------------------


def test_a_cluster_of_one_keeps_what_it_acknowledged_through_power_cuts() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        for number in range(5):
            log = await led(cluster)
            assert (await log.propose_append("", block(b"r%d" % number))).base_offset == number
            cluster.machines["n1"].crash()
            await cluster.restart_all()
        assert await records_of(await led(cluster)) == [b"r%d" % number for number in range(5)]

    simulated(story, names=("n1",))


def test_a_wiped_node_and_a_late_one_elect_nobody_until_the_one_with_the_data_is_back() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        n1, n2, n3 = (cluster.machines[name] for name in THREE)
        await n3.stop()
        log = await led(cluster)
        for number in range(10):
            await log.propose_append("", block(b"r%d" % number))
        await n1.stop()
        await n2.stop()
        n2.wipe()
        await n2.start()
        await n3.start()
        await asyncio.sleep(30)
        assert cluster.leader() is None
        await n1.start()
        log = await led(cluster)
        assert cluster.leader() in (n1, n3)
        await log.confirmed_topic("")
        assert await records_of(log) == [b"r%d" % number for number in range(10)]
        assert log_of(n2).status().role == "forming", "the wiped node is no voter"

    simulated(story)
