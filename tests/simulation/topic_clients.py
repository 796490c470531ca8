"""Who creates, fills, configures, trims and deletes topics while everything goes wrong, and what must be left of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

from distlog.block import Block
from distlog.errors import DistlogError, TopicExists, TopicNotFound
from distlog.storage.segment_files import SegmentLimits
from tests.simulation.clients import ATTEMPT_S, UNANSWERED
from tests.simulation.simulated_cluster import Machine, SimulatedCluster

# A few records fill a segment.
LIMITS = SegmentLimits(store_size_max=4096, row_count_max=16)
NAMES = ("red", "green", "blue")


@dataclass(slots=True)
class KnownTopic:
    """One topic by its id, which no other ever has."""

    name: str
    # offset -> record, of what was acknowledged.
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    # The highest start that an acknowledged trim set, and that any trim asked for.
    start_offset_min: int = 0
    start_offset_max: int = 0
    # A delete was acknowledged; one was asked for.
    is_deleted: bool = False
    may_be_deleted: bool = False


class TopicClient:
    """One client that asks whoever leads, and remembers what it was told."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._random = Random(cluster.random.getrandbits(64))
        self.topics: dict[int, KnownTopic] = {}
        # Names and the topic's id as far as this client knows.
        self._ids: dict[str, int] = {}
        self._number = 0
        self.failures: list[str] = []

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await asyncio.sleep(0.12 * self._random.random())
            machine = self._cluster.leader()
            if machine is None:
                continue
            name = self._random.choice(NAMES)
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    await self._act(machine, name)
            except UNANSWERED:
                self._cluster.counts["topic calls refused"] += 1
            else:
                self._cluster.counts["topic calls"] += 1

    async def _act(self, machine: Machine, name: str) -> None:
        topic_id = self._ids.get(name)
        if topic_id is None:
            await self._create(machine, name)
            return
        known = self.topics[topic_id]
        match self._random.randrange(12):
            case 0:
                known.may_be_deleted = True
                await machine.ask(lambda log: log.delete_topic(name, topic_id))
                known.is_deleted = True
                del self._ids[name]
            case 1:
                await machine.ask(
                    lambda log: log.configure_topic(
                        name, retention_size=1 << 20, retention_age_ms=None
                    )
                )
            case 2 if known.acknowledged:
                start = self._random.choice(list(known.acknowledged))
                known.start_offset_max = max(known.start_offset_max, start)
                await machine.ask(lambda log: log.trim_topic(name, start))
                known.start_offset_min = max(known.start_offset_min, start)
            case _:
                await self._append(machine, name, known)

    async def _create(self, machine: Machine, name: str) -> None:
        try:
            created = await machine.ask(lambda log: log.create_topic(name, LIMITS))
            topic_id = created.topic_id
        except TopicExists:
            # Of an earlier attempt whose outcome was not known.
            described = await machine.ask(lambda log: log.confirmed_topic(name))
            topic_id = described.topic_id
        self._ids[name] = topic_id
        self.topics.setdefault(topic_id, KnownTopic(name))

    async def _append(self, machine: Machine, name: str, known: KnownTopic) -> None:
        self._number += 1
        record = b"%s-%d-" % (name.encode(), self._number) + b"." * self._random.randrange(900)
        try:
            result = await machine.ask(
                lambda log: log.propose_append(name, Block.from_records([record]))
            )
        except TopicNotFound:
            # A delete whose outcome was not known has happened.
            if not known.may_be_deleted:
                self.failures.append(f"topics: {name} is gone, and nobody deleted it")
            self._ids.pop(name, None)
            raise
        if known.acknowledged.setdefault(result.base_offset, record) != record:
            self.failures.append(f"topics: {name} acknowledged two records at {result.base_offset}")

    # --- What must be left ----------------------------------------------------------------------

    async def check(self, machine: Machine) -> list[str]:
        """Compare one node with what this client was told."""
        problems = list(self.failures)
        log = machine.log
        assert log is not None
        present = {topic.topic_id: topic for topic in log.topics()}
        for topic_id, known in self.topics.items():
            topic = present.get(topic_id)
            if topic is None:
                if not known.may_be_deleted:
                    problems.append(f"topics: {machine.name} has lost {known.name}")
                continue
            if known.is_deleted:
                problems.append(f"topics: {machine.name} still has {known.name}, which was deleted")
            if not known.start_offset_min <= topic.start_offset <= known.start_offset_max:
                problems.append(
                    f"topics: {known.name} begins at {topic.start_offset} on {machine.name}"
                )
            for offset, record in known.acknowledged.items():
                if offset < topic.start_offset:
                    continue
                try:
                    batches = await machine.ask(
                        lambda log: log.read(known.name, offset, size_max=1)  # noqa: B023
                    )
                    found = list(batches[0].records())[offset - batches[0].base_offset]
                except DistlogError as error:
                    found = repr(error).encode()
                if found != record:
                    problems.append(
                        f"topics: {machine.name} has {found!r} at {offset} of {known.name}"
                    )
        return problems
