"""Topics that do not keep everything, on whole clusters: every node cuts the same, and nobody is told a wrong thing meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.views import Consistency, TimePosition
from distlog.errors import (
    DistlogError,
    NoLeader,
    NotLeader,
    OffsetOutOfRange,
    StorageFull,
    TopicNotFound,
)
from distlog.storage.retention import Retention
from distlog.storage.segment_files import SUFFIXES, SegmentLimits
from tests.simulation.clients import UNANSWERED
from tests.simulation.faults import Faults
from tests.simulation.schedule import settled
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.virtual_loop import VirtualLoop

LIMITS = SegmentLimits(store_size_max=4096, row_count_max=64)
KEPT_SIZE = 10_000
SETTINGS = ReplicatedLogSettings(retention_interval_s=0.5)
FAULTS_S = 12.0
ATTEMPT_S = 2.0


def simulated(story: Callable[[SimulatedCluster], Awaitable[None]], **options: Any) -> None:
    """Run a story on a started cluster in virtual time."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, 1, replicated_log=SETTINGS, **options)
        await cluster.start()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        await story(cluster)
        assert not cluster.failures, cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def leader_of(cluster: SimulatedCluster) -> ReplicatedLog:
    machine = cluster.leader()
    assert machine is not None
    return log_of(machine)


def log_of(machine: Machine) -> ReplicatedLog:
    assert machine.log is not None
    return machine.log


def logs_of(cluster: SimulatedCluster) -> list[ReplicatedLog]:
    return [log_of(machine) for machine in cluster.machines.values()]


async def append_many(log: ReplicatedLog, topic: str, count: int, size: int = 1000) -> None:
    for number in range(count):
        await log.propose_append(topic, Block.from_records([b"%d " % number + bytes(size)]))


def files_of(machine: Machine, topic_id: int) -> dict[str, bytes]:
    """Return the bytes of a topic's segments on a machine that was stopped in order."""
    path = f"data/groups/0/topics/{topic_id:020d}"
    found = {}
    for name in machine.disk.list_directory(path):
        if name.endswith(SUFFIXES):
            file = machine.disk.open(f"{path}/{name}", writable=False)
            found[name] = file.read_at(0, file.size())
            file.close()
    return found


def test_a_topic_is_kept_to_its_size_and_all_nodes_have_the_same_files() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        created = await log.create_topic("events", LIMITS, Retention(size=KEPT_SIZE))
        await append_many(log, "events", 100)
        # Four records a segment: three segments are 12 records, and the active one is not full.
        assert await cluster.wait_until(
            lambda: all(each.topic("events").start_offset == 88 for each in logs_of(cluster)),
            "all nodes trim",
        )
        assert KEPT_SIZE <= log.topic("events").size < KEPT_SIZE + LIMITS.store_size_max
        entries = log.status().last_index
        await asyncio.sleep(10)
        assert log.status().last_index == entries, "nothing more is proposed"
        for machine in cluster.machines.values():
            await machine.stop()
        files = [files_of(machine, created.topic_id) for machine in cluster.machines.values()]
        assert files[0] == files[1] == files[2]
        bases = sorted({int(name.partition(".")[0]) for name in files[0]})
        assert bases == [88, 92, 96]
        await cluster.restart_all()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        for each in logs_of(cluster):
            await each.confirmed_topic("events")
            assert each.topic("events").start_offset == 88
            assert each.topic("events").retention == Retention(size=KEPT_SIZE)

    simulated(story)


def test_a_topic_is_kept_to_an_age_and_then_to_another_one() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        await log.create_topic("events", LIMITS, Retention(age_ms=10_000))
        for _ in range(5):
            await append_many(log, "events", 4)
            await asyncio.sleep(2)
        assert log.topic("events").start_offset == 0
        await cluster.wait_until(lambda: log.topic("events").start_offset == 4, "the first go", 3)
        configured = await log.configure_topic("events", retention_size=None, retention_age_ms=0)
        assert configured.retention == Retention()
        await asyncio.sleep(60)
        assert log.topic("events").start_offset == 4
        await log.configure_topic("events", retention_size=None, retention_age_ms=1)
        await cluster.wait_until(lambda: log.topic("events").start_offset == 16, "the rest go", 3)

    simulated(story)


def test_the_default_topic_is_configured_like_any_other() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        await log.configure_topic("", retention_size=1 << 20, retention_age_ms=None)
        for each in logs_of(cluster):
            described = await each.confirmed_topic("default")
            assert described.retention == Retention(size=1 << 20)

    simulated(story)


def test_a_reader_and_a_tail_that_are_overtaken_are_told_where_the_topic_begins() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        await log.create_topic("events", LIMITS, Retention(size=1))
        await append_many(log, "events", 10)
        (first,) = await log.read("events", 0, size_max=1)
        assert first.base_offset == 0
        await cluster.wait_until(lambda: log.topic("events").start_offset == 8, "a trim")
        for consistency in Consistency:
            with pytest.raises(OffsetOutOfRange) as refusal:
                await log.read("events", first.next_offset, size_max=1, consistency=consistency)
            assert (refusal.value.start_offset, refusal.value.high_watermark) == (8, 10)

    simulated(story)


def test_a_topic_of_another_ones_name_is_not_deleted_by_a_repeat() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        first = await log.create_topic("events", LIMITS)
        await log.delete_topic("events", first.topic_id)
        await log.create_topic("events", LIMITS)
        with pytest.raises(TopicNotFound):
            await log.delete_topic("events", first.topic_id)
        await log.confirm()
        assert [topic.name for topic in log.topics()] == ["default", "events"]

    simulated(story)


# --- Times ---------------------------------------------------------------------------------------


def test_a_time_is_found_on_any_node_and_none_is_said_only_with_proof() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        await log.create_topic("events", LIMITS)
        times = []
        for number in range(20):
            await append_many(log, "events", 1)
            times.append(log.topic("events").last_timestamp_ms)
            await asyncio.sleep(0.1)
            assert times[number] > times[number - 1] or not number
        for each in logs_of(cluster):
            for number, time_ms in enumerate(times):
                assert await each.offset_for_time("events", time_ms) == TimePosition(number, True)
            after = await each.offset_for_time("events", times[-1] + 1)
            assert after == TimePosition(20, False)
        machine = next(each for each in cluster.machines.values() if log_of(each) is not log)
        others = [name for name in cluster.names if name != machine.name]
        cluster.network.partition([machine.name], others)
        await append_many(log, "events", 1)
        cut_off = log_of(machine)
        # What it has is final; that there is no more it cannot tell.
        assert await cut_off.offset_for_time("events", times[7]) == TimePosition(7, True)
        with pytest.raises((NoLeader, TimeoutError)):
            async with asyncio.timeout(5):
                await cut_off.offset_for_time("events", times[-1] + 1)
        local = await cut_off.offset_for_time(
            "events", times[-1] + 1, consistency=Consistency.LOCAL
        )
        assert local == TimePosition(20, False)
        cluster.network.heal()

    simulated(story)


# --- On full disks -------------------------------------------------------------------------------


async def fill_with_events(cluster: SimulatedCluster) -> int:
    """Append until the disks that have a capacity are full; return how many were acknowledged."""
    for count in range(5000):
        try:
            async with asyncio.timeout(30):
                await append_many(leader_of(cluster), "events", 1)
        except StorageFull:
            return count
    raise AssertionError("they never fill up")


def limit_disks(cluster: SimulatedCluster, left: int) -> None:
    """Leave so much space for the topics themselves to fill."""
    for machine in cluster.machines.values():
        machine.disk.capacity = machine.disk.used + left


async def goes_on(cluster: SimulatedCluster, topic: str) -> None:
    """Append as soon as there is space again."""
    async with asyncio.timeout(60):
        while True:
            leader = cluster.leader()
            try:
                if leader is not None:
                    await append_many(log_of(leader), topic, 1)
                    return
            except (StorageFull, NoLeader, NotLeader):
                pass
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("names", [("n1",), ("n1", "n2", "n3")], ids=["one node", "three nodes"])
@pytest.mark.parametrize("action", ["trim", "delete", "configure before"])
def test_disks_that_their_own_topics_filled_are_freed_by_what_lets_records_go(
    names: tuple[str, ...], action: str
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = leader_of(cluster)
        # Much later, when everything is full.
        age_ms = 100_000 if action == "configure before" else 0
        await log.create_topic("events", LIMITS, Retention(age_ms=age_ms))
        await log.create_topic("other", LIMITS)
        limit_disks(cluster, left=3 << 20)
        count = await fill_with_events(cluster)
        assert count > 100
        assert any(each.status().is_storage_full for each in logs_of(cluster))
        log = leader_of(cluster)
        with pytest.raises((StorageFull, NotLeader, NoLeader)):
            await append_many(log, "other", 1)
        if action == "trim":
            await log.trim_topic("events", log.topic("events").high_watermark)
        elif action == "delete":
            await log.delete_topic("events")
        else:
            await asyncio.sleep(100)
        await goes_on(cluster, "other")
        if action != "delete":
            assert leader_of(cluster).topic("events").start_offset > 0

    simulated(story, names=names)


# --- While nodes crash ---------------------------------------------------------------------------


class Load:
    """Producers and readers of one topic that is trimmed all the time, and what they must never see."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.random = Random(cluster.random.getrandbits(64))
        # offset -> record, of what was acknowledged.
        self.acknowledged: dict[int, bytes] = {}
        self.stopping = False

    async def produce(self, name: str) -> None:
        number = 0
        while not self.stopping:
            await asyncio.sleep(0.02 * self.random.random())
            machine = self.cluster.leader()
            if machine is None:
                continue
            number += 1
            record = b"%s-%d-" % (name.encode(), number) + bytes(self.random.randrange(1500))
            block = Block.from_records([record])
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    result = await machine.ask(
                        lambda log: log.propose_append("events", block)  # noqa: B023
                    )
            except UNANSWERED:
                continue
            self.acknowledged[result.base_offset] = record
            self.cluster.counts["acknowledged"] += 1

    async def follow(self) -> None:
        """Read everything in order; jump to the start when overtaken."""
        offset = 0
        while not self.stopping:
            await asyncio.sleep(0.02 * self.random.random())
            machine = self.random.choice(list(self.cluster.machines.values()))
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    batches = await machine.ask(
                        lambda log: log.read("events", offset, size_max=4096)  # noqa: B023
                    )
            except OffsetOutOfRange as error:
                if error.start_offset > offset:
                    offset = error.start_offset
                    self.cluster.counts["overtaken"] += 1
            except UNANSWERED:
                self.cluster.counts["reads refused"] += 1
            else:
                for batch in batches:
                    self.check(batch.base_offset, list(batch.records()), machine.name)
                offset = max(offset, batches[-1].next_offset)
                self.cluster.counts["reads"] += 1

    def check(self, base_offset: int, records: list[bytes], name: str) -> None:
        for offset, record in enumerate(records, base_offset):
            if self.acknowledged.get(offset, record) != record:
                self.cluster.failures.append(f"{name} has another record at offset {offset}")


async def create_topic(cluster: SimulatedCluster) -> int:
    while True:
        machine = cluster.leader()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if machine is not None and machine.log is not None:
                    created = await machine.log.create_topic(
                        "events", LIMITS, Retention(size=KEPT_SIZE)
                    )
                    return created.topic_id
        except (DistlogError, TimeoutError):
            pass
        await asyncio.sleep(0.05)


async def run_schedule(seed: int) -> SimulatedCluster:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    cluster = SimulatedCluster(loop, seed, replicated_log=SETTINGS, checkpoint_interval_s=1.0)
    await cluster.start()
    await cluster.wait_until(lambda: cluster.leader() is not None, "a first leader", 10.0)
    topic_id = await create_topic(cluster)
    load = Load(cluster)
    tasks = [asyncio.ensure_future(load.produce(name)) for name in ("a", "b", "c")]
    tasks += [asyncio.ensure_future(load.follow()) for _ in range(2)]
    faults = Faults(cluster)
    await faults.run(loop.time() + FAULTS_S)
    await faults.heal()
    load.stopping = True
    await asyncio.gather(*tasks)
    await cluster.wait_until(lambda: cluster.leader() is not None, "a leader at the end")
    # Long enough for a last round; the producers have ended.
    await asyncio.sleep(3)
    await settled(cluster)
    described = [log.topic("events") for log in logs_of(cluster)]
    if len(set(described)) != 1:
        cluster.failures.append(f"the nodes describe the topic differently: {described}")
    topic = described[0]
    cluster.counts["trimmed"] = topic.start_offset
    if topic.start_offset and not KEPT_SIZE <= topic.size < KEPT_SIZE + 2 * LIMITS.store_size_max:
        cluster.failures.append(f"{topic.size} bytes are kept")
    for machine in cluster.machines.values():
        await check_log(load, machine, topic.start_offset, topic.high_watermark)
    for machine in cluster.machines.values():
        await machine.stop()
    files = [files_of(machine, topic_id) for machine in cluster.machines.values()]
    if not files[0] == files[1] == files[2]:
        names = [sorted(each) for each in files]
        cluster.failures.append(f"the files differ: {names}")
    return cluster


async def check_log(load: Load, machine: Machine, start: int, end: int) -> None:
    """Read the whole topic from one machine; everything acknowledged that is kept is there."""
    found: list[bytes] = []
    while start + len(found) < end:
        for batch in await log_of(machine).read("events", start + len(found), size_max=1 << 20):
            found += list(batch.records())[start + len(found) - batch.base_offset :]
    load.check(start, found, machine.name)
    if max(load.acknowledged) >= end:
        load.cluster.failures.append(f"{machine.name} ends at {end}")


@pytest.mark.seeds(4)
def test_retention_loses_nothing_that_is_to_be_kept_under_any_crash_schedule(seed: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        cluster = runner.run(run_schedule(seed))
    print(f"seed {seed}: {dict(cluster.counts)}")
    assert not cluster.failures, "\n".join(cluster.failures)
    assert cluster.counts["acknowledged"] > 50
    assert cluster.counts["trimmed"] > 0
