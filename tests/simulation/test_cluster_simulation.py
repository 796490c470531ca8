"""Whole-cluster crash schedules: whatever happens, nothing acknowledged is lost, doubled, reordered or different anywhere."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.rules import complete_rules
from distlog.errors import DistlogError, OffsetOutOfRange, OutcomeUnknown
from distlog.storage.log import StoredBatch
from tests.simulation.history import History
from tests.simulation.simulated_cluster import Machine, PowerCut, SimulatedCluster
from tests.simulation.virtual_loop import VirtualLoop

FAULTS_S = 12.0
HEAL_S = 60.0
ATTEMPT_S = 2.0


class Producer:
    """An idempotent client: several appends in flight, all repeated in order with the same sequences after a failure."""

    def __init__(self, cluster: SimulatedCluster, history: History, number: int) -> None:
        self._cluster = cluster
        self._history = history
        self._number = number
        self._random = Random(cluster.random.getrandbits(64))
        self._sent = history.sent.setdefault(number, [])
        self.stopping = False

    async def run(self) -> None:
        producer_id, epoch = await self._open()
        sequence = 0
        while not self.stopping:
            count = self._random.randint(1, 6)
            records = []
            for position in range(count):
                padding = b"." * int(self._random.random() ** 4 * 3000)
                records.append(b"p%d-%d-" % (self._number, sequence + position) + padding)
            self._sent += records
            await self._append_all(records, ProducerStamp(producer_id, epoch, sequence))
            sequence += count
            await asyncio.sleep(0.05 * self._random.random())

    async def _open(self) -> tuple[int, int]:
        while True:
            machine = self._any_machine()
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    if machine is not None and machine.log is not None:
                        opened = await machine.log.open_producer()
                        return opened.producer_id, opened.epoch
            except (DistlogError, TimeoutError):
                pass
            await asyncio.sleep(0.05)

    async def _append_all(self, records: list[bytes], first: ProducerStamp) -> None:
        done = 0
        while done < len(records):
            machine = self._any_machine()
            if machine is not None and machine.log is not None:
                done += await self._attempt(machine, records[done:], first.sequence + done, first)
            if done < len(records):
                await asyncio.sleep(0.02 + 0.05 * self._random.random())

    async def _attempt(
        self, machine: Machine, records: list[bytes], sequence: int, first: ProducerStamp
    ) -> int:
        """Append all in a pipeline; return how many from the front are acknowledged."""
        log = machine.log
        assert log is not None
        futures = []
        try:
            for position, record in enumerate(records):
                stamp = ProducerStamp(first.producer_id, first.epoch, sequence + position)
                futures.append(log.propose_append("", Block.from_records([record]), stamp))
        except DistlogError:
            pass
        for position, future in enumerate(futures):
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    result = await future
            except (DistlogError, TimeoutError):
                for other in futures[position:]:
                    if not other.cancel() and not other.cancelled():
                        other.exception()
                return position
            self._history.acknowledge(records[position], result.base_offset)
            self._cluster.counts["acknowledged"] += 1
            self._cluster.counts["duplicates answered"] += result.duplicate
        return len(futures)

    def _any_machine(self) -> Machine | None:
        if self._random.random() < 0.8:
            return self._cluster.leader()
        return self._random.choice(list(self._cluster.machines.values()))


async def append_once(cluster: SimulatedCluster, history: History, stop: asyncio.Event) -> None:
    """A client without a producer id: it never repeats, and a refusal must mean absence."""
    number = 0
    random = Random(cluster.random.getrandbits(64))
    while not stop.is_set():
        await asyncio.sleep(0.1 * random.random())
        machine = random.choice(list(cluster.machines.values()))
        if machine.log is None:
            continue
        number += 1
        record = b"once-%d" % number
        try:
            async with asyncio.timeout(ATTEMPT_S):
                result = await machine.log.propose_append("", Block.from_records([record]))
            history.acknowledge(record, result.base_offset)
        except (OutcomeUnknown, TimeoutError):
            cluster.counts["unknown"] += 1
        except DistlogError:
            history.refused.add(record)
            cluster.counts["refused"] += 1


async def read_acknowledged(
    cluster: SimulatedCluster, history: History, stop: asyncio.Event
) -> None:
    """A reader: what was acknowledged before the read is there, on any node, or the node says that it cannot tell."""
    random = Random(cluster.random.getrandbits(64))
    while not stop.is_set():
        await asyncio.sleep(0.05 * random.random())
        machine = random.choice(list(cluster.machines.values()))
        if machine.log is None or not history.acknowledged:
            continue
        record = random.choice(list(history.acknowledged)[-20:])
        offset = history.acknowledged[record]
        try:
            async with asyncio.timeout(ATTEMPT_S):
                batches = await machine.log.read("", offset, size_max=1)
        except OffsetOutOfRange as error:
            history.failures.append(
                f"{machine.name} says that acknowledged {record!r} is not there: {error}"
            )
        except (DistlogError, TimeoutError, PowerCut):
            cluster.counts["reads refused"] += 1
        else:
            found = list(batches[0].records())[offset - batches[0].base_offset]
            if found != record:
                history.failures.append(f"{machine.name} reads {found!r} where {record!r} is")
            cluster.counts["reads"] += 1


async def inject_faults(cluster: SimulatedCluster, until: float) -> None:
    """Crash, cut and slow down at random."""
    random = cluster.random
    hand_overs: list[asyncio.Future[None]] = []
    while cluster.loop.time() < until:
        await asyncio.sleep(random.expovariate(1.2))
        machine = random.choice(list(cluster.machines.values()))
        # No run without a crash.
        match random.randrange(9) if cluster.counts["crashes"] else 0:
            case 0:
                machine.crash()
            case 1 | 2:
                machine.crash_within(random.randint(1, 40))
            case 3:
                for each in cluster.machines.values():
                    each.crash()
                cluster.counts["power cuts of all"] += 1
            case 4:
                cluster.network.break_connections(machine.name, random.choice(cluster.names))
                cluster.counts["connections broken"] += 1
            case 5:
                partition(cluster, machine.name)
            case 6:
                machine.slow_disk = not machine.slow_disk
            case 7:
                await machine.stop()
            case 8:
                hand_overs.append(asyncio.ensure_future(hand_over(cluster)))
        for each in cluster.machines.values():
            if each.node is None and random.random() < 0.6:
                each.disk.hook = None
                await each.start()
    await asyncio.gather(*hand_overs)


async def hand_over(cluster: SimulatedCluster) -> None:
    """Have another node lead; whatever happens meanwhile, the wait ends."""
    leader = cluster.leader()
    if leader is None or leader.log is None:
        return
    try:
        async with asyncio.timeout(ATTEMPT_S):
            await leader.log.transfer_leadership()
        cluster.counts["hand-overs"] += 1
    except DistlogError:
        cluster.counts["hand-overs that failed"] += 1
    except TimeoutError:
        cluster.failures.append("a hand-over never ended")


def partition(cluster: SimulatedCluster, name: str) -> None:
    """Cut one machine off for a while, in both directions or in one."""
    random = cluster.random
    cluster.counts["partitions"] += 1
    both = random.random() < 0.6
    others = [other for other in cluster.names if other != name]
    for other in others:
        cluster.network.block(name, other)
        if both:
            cluster.network.block(other, name)
    cluster.loop.call_later(0.2 + 3 * random.random() ** 2, heal, cluster)


def heal(cluster: SimulatedCluster) -> None:
    for one in cluster.names:
        for other in cluster.names:
            if one != other:
                cluster.network.unblock(one, other)


async def whole_log(machine: Machine) -> list[StoredBatch]:
    log = machine.log
    assert log is not None
    batches: list[StoredBatch] = []
    end = log.topic("").high_watermark
    while not batches or batches[-1].next_offset < end:
        offset = batches[-1].next_offset if batches else 0
        if offset >= end:
            break
        batches += await log.read("", offset, size_max=1 << 20)
    return batches


def simulate(seed: int, rules: Any = complete_rules) -> SimulatedCluster:
    """Run one schedule in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run_schedule(seed, rules))


async def run_schedule(seed: int, rules: Any) -> SimulatedCluster:
    """Form a cluster, load it while faults happen, heal it, and compare everything with everything."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    cluster = SimulatedCluster(loop, seed, rules=rules)
    history = History()
    await cluster.start()
    await cluster.wait_until(lambda: cluster.leader() is not None, "a first leader", 10.0)
    stop = asyncio.Event()
    producers = [Producer(cluster, history, number) for number in range(3)]
    tasks = [asyncio.ensure_future(producer.run()) for producer in producers]
    tasks.append(asyncio.ensure_future(append_once(cluster, history, stop)))
    tasks.append(asyncio.ensure_future(read_acknowledged(cluster, history, stop)))
    await inject_faults(cluster, loop.time() + FAULTS_S)
    heal(cluster)
    for machine in cluster.machines.values():
        machine.slow_disk = False
        machine.disk.hook = None
    await cluster.restart_all()
    stop.set()
    for producer in producers:
        producer.stopping = True
    # Liveness: every client finishes what it began.
    done, pending = await asyncio.wait(tasks, timeout=HEAL_S)
    for task in pending:
        task.cancel()
        cluster.failures.append(
            "a client never got its acknowledgement after everything was healed"
        )
    for task in done:
        task.result()
    await settle(cluster)
    logs = {name: await whole_log(machine) for name, machine in cluster.machines.items()}
    for name, batches in logs.items():
        history.check(batches, name)
        if batches != logs[cluster.names[0]]:
            cluster.failures.append(f"the logs of {name} and {cluster.names[0]} differ")
    for machine in cluster.machines.values():
        await machine.stop()
    cluster.failures += history.failures
    return cluster


async def settle(cluster: SimulatedCluster) -> None:
    def equal() -> bool:
        ends = {m.log.status().applied_index if m.log else -1 for m in cluster.machines.values()}
        return len(ends) == 1 and -1 not in ends

    await cluster.wait_until(equal, "all nodes apply the same", 30.0)


@pytest.mark.seeds(20)
def test_a_cluster_keeps_every_promise_under_any_crash_schedule(seed: int) -> None:
    cluster = simulate(seed)
    print(f"seed {seed}: {dict(cluster.counts)}")
    assert not cluster.failures, "\n".join(cluster.failures)
    assert cluster.counts["acknowledged"] > 50
    assert cluster.counts["crashes"] > 0
