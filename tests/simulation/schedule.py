"""One schedule, from a seed: a cluster is formed and loaded while faults happen, is healed, and is compared with everything known.

run = simulate(seed)        run.failures says what went wrong, run.trace is equal for two runs that did the same
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from distlog.consensus import journal_view
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.rules import complete_rules
from distlog.errors import DistlogError
from distlog.storage.comparison import compare_logs
from distlog.storage.log import StoredBatch
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.survey import survey_log
from tests.simulation.clients import Clients
from tests.simulation.faults import Faults
from tests.simulation.history import History
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.topic_clients import TopicClient
from tests.simulation.virtual_loop import VirtualLoop

FAULTS_S = 3.5
LONG_FAULTS_S = 15.0
HEAL_S = 60.0
SMALL_JOURNAL_SIZE = 48 << 10
THREE = ("n1", "n2", "n3")
SPARES = ("n4", "n5", "n6")
FIVE = ("n1", "n2", "n3", "n4", "n5")
TOPICS_PATH = "data/groups/0/topics"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a seed decides before anything happens."""

    names: tuple[str, ...]
    faults_s: float
    # Messages of a few entries and a small window, so that a backlog travels in many pieces.
    is_small: bool
    # Journals so small that who is away for a moment must copy a checkpoint.
    forgets: bool
    # The first one bootstraps, and members come and go meanwhile.
    is_changing: bool
    spares: tuple[str, ...] = ()

    @classmethod
    def of(cls, seed: int) -> Shape:
        is_changing = seed % 5 == 4
        names = FIVE if seed % 3 == 2 and not is_changing else THREE
        return cls(
            names=names,
            faults_s=LONG_FAULTS_S if seed % 20 == 7 else FAULTS_S,
            is_small=seed % 4 == 1,
            # Every other one whose members change, too: who joins then must copy a checkpoint.
            forgets=seed % 5 == 3 or seed % 10 == 9,
            is_changing=is_changing,
            spares=SPARES if is_changing else (),
        )


@dataclass(slots=True)
class Run:
    """What became of one schedule."""

    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    # What went wrong, in sentences that begin with what does not hold.
    failures: list[str] = field(default_factory=list)
    trace: int = 0


def simulate(seed: int, rules: Any = complete_rules, **options: Any) -> Run:
    """Run one schedule in virtual time.

    rules: the composition around pysyncobj; a test may leave one out.  options: of the cluster, as `SimulatedCluster` takes them.
    """
    run = Run(seed)
    shape = Shape.of(seed)
    # What nodes say of all that happens to them is for whoever looks at one seed.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    # What it would free has an end that runs then, and its moment is no part of the seed.
    gc.disable()
    try:
        entry_count_max = 3 if shape.is_small else journal_view.ENTRY_COUNT_MAX
        with _messages(entry_count_max), asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_run_schedule(run, shape, rules=rules, **options))
    except Exception as error:
        run.failures.append(f"the schedule failed: {error!r}")
    finally:
        gc.enable()
        gc.collect()
        logging.disable(before)
    run.counts["runs"] = 1
    return run


@contextmanager
def _messages(entry_count_max: int) -> Iterator[None]:
    """Let an AppendEntries have at most so many entries."""
    before = journal_view.ENTRY_COUNT_MAX
    journal_view.ENTRY_COUNT_MAX = entry_count_max
    try:
        yield
    finally:
        journal_view.ENTRY_COUNT_MAX = before


async def _run_schedule(run: Run, shape: Shape, **options: Any) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.set_exception_handler(lambda _loop, _context: None)
    cluster = SimulatedCluster(
        loop,
        run.seed,
        names=shape.names,
        in_flight_size_max=(8 if shape.is_small else 256) << 10,
        replicated_log=ReplicatedLogSettings(
            journal_size_max=SMALL_JOURNAL_SIZE if shape.forgets else 256 << 20
        ),
        **options,
        spares=shape.spares,
        is_fixed=not shape.is_changing,
    )
    run.counts, run.failures = cluster.counts, cluster.failures
    history = History()
    await cluster.start()
    if await cluster.wait_until(lambda: cluster.leader() is not None, "liveness: a leader", 10.0):
        await _load_and_heal(cluster, history, shape)
    run.counts["virtual seconds"] = round(loop.time())
    run.trace = loop.trace
    run.failures += history.failures


async def _load_and_heal(cluster: SimulatedCluster, history: History, shape: Shape) -> None:
    clients, topics = Clients(cluster, history), TopicClient(cluster)
    stopping = asyncio.Event()
    topic_task = asyncio.ensure_future(topics.run(stopping))
    faults = Faults(cluster)
    await faults.run(cluster.loop.time() + shape.faults_s)
    await faults.heal()
    clients.stop()
    stopping.set()
    # Liveness: every client finishes what it began.
    done, pending = await asyncio.wait([*clients.tasks, topic_task], timeout=HEAL_S)
    for _ in pending:
        cluster.watch.fail("liveness: a client has no answer after everything was healed")
    for task in done:
        if task.exception() is not None:
            cluster.watch.fail(f"a client failed: {task.exception()!r}")
    if not pending and await settled(cluster):
        await _compare(cluster, history, topics)


async def settled(cluster: SimulatedCluster) -> bool:
    """Wait until every member has applied the same, and no learner is left; tell whether they have."""

    def equal() -> bool:
        if cluster.leader() is None:
            # Nodes that have just come back are equal in what they have applied again: who leads next brings the rest.
            return False
        configuration = cluster.configuration()
        if configuration is None or configuration.learners:
            return False
        ends = {m.log.status().applied_index if m.log else -1 for m in cluster.members()}
        return len(ends) == 1 and -1 not in ends

    return await cluster.wait_until(equal, "liveness: all nodes apply the same", 30.0)


async def _compare(cluster: SimulatedCluster, history: History, topics: TopicClient) -> None:
    machines = cluster.members()
    logs = []
    for machine in machines:
        logs.append(await whole_log(machine))
        history.check(logs[-1], machine.name)
        history.failures += await topics.check(machine)
        if logs[-1] != logs[0]:
            history.failures.append(
                f"equal: the logs of {machine.name} and {machines[0].name} differ"
            )
    for machine in machines:
        await machine.stop()
    cluster.counts["voters at the end"] += len(machines)
    history.failures += file_differences({m.name: m.disk for m in machines})


async def whole_log(machine: Machine) -> list[StoredBatch]:
    """Return every batch of the default topic of a node."""
    log = machine.log
    assert log is not None
    batches: list[StoredBatch] = []
    end = log.topic("").high_watermark
    while end and (not batches or batches[-1].next_offset < end):
        offset = batches[-1].next_offset if batches else 0
        batches += await log.read("", offset, size_max=1 << 20)
    return batches


def file_differences(disks: dict[str, SimulatedDisk]) -> list[str]:
    """Compare the files of all topics of stopped nodes, byte for byte where they keep the same offsets."""
    mounted = SimulatedDisk()
    for name, disk in disks.items():
        # One tree with the disk of each machine under its name: what is compared must be on one disk.
        mounted._root.names[name] = disk._root
    first, *others = disks
    differences = []
    topic_ids = mounted.list_directory(f"{first}/{TOPICS_PATH}")
    for other in others:
        if mounted.list_directory(f"{other}/{TOPICS_PATH}") != topic_ids:
            differences.append(f"equal: {other} has other topics than {first}")
            continue
        for topic_id in topic_ids:
            paths = [f"{name}/{TOPICS_PATH}/{topic_id}" for name in (first, other)]
            try:
                surveys = [survey_log(mounted, path, deep=True) for path in paths]
            except DistlogError as error:
                differences.append(f"equal: {paths}: {error}")
                continue
            for fault in [*surveys[0].faults, *surveys[1].faults, *compare_logs(mounted, *surveys)]:
                differences.append(f"equal: {fault}")
    return differences
