"""A power cut is no fault: whatever it leaves of a node's directory, verify finds nothing wrong with what was promised."""

from __future__ import annotations

from random import Random

from distlog.block import Block
from distlog.cli.stopped_node import look_at
from distlog.consensus.commands import (
    Append,
    Command,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.results import ProducerOpened
from distlog.errors import DataDirectoryUnusable
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.releases.node_files import NodeFiles

LIMITS = SegmentLimits(store_size_max=4096, row_count_max=16)
PATH = "/n1"


def live(disk: SimulatedDisk, random: Random) -> None:
    """Do everything that a node does to its files, in a short life."""
    now_ms = 1_700_000_000_000
    node = NodeFiles(disk, PATH, random=random, file_size_max=1024)
    opened = node.commit(CreateTopic("orders", LIMITS), OpenProducer(0), timestamp_ms=now_ms)[1]
    assert isinstance(opened, ProducerOpened)
    orders = next(topic.topic_id for topic in node.machine.topics() if topic.name == "orders")
    for step in range(21):
        now_ms += 10
        block = Block.from_records([b"%d" % step * random.randrange(20) for _ in range(5)])
        stamp = ProducerStamp(opened.producer_id, opened.epoch, step)
        commands: list[Command] = [Append(orders, block, stamp)]
        if step % 3 == 0:
            commands.append(Append(1, block))
        node.commit(*commands, timestamp_ms=now_ms)
        node.sync()
        if step % 5 == 4:
            node.commit(TrimTopic(orders, 5 * step), timestamp_ms=now_ms)
        if step == 13:
            node.propose(Append(1, block), timestamp_ms=now_ms)
            node.sync()
            node.take_back()
            node.elect(2)
        if step % 6 == 5:
            node.checkpoint()
    node.commit(DeleteTopic(orders), timestamp_ms=now_ms)
    node.checkpoint()
    node.commit(CreateTopic("orders", LIMITS), timestamp_ms=now_ms)
    node.close()


def test_a_power_cut_at_any_operation_leaves_no_fault() -> None:
    disk = SimulatedDisk()
    random = Random(7)
    survivors: list[SimulatedDisk] = []

    def cut(operation: str, path: str) -> None:
        survivors.extend((disk.crash(random), disk.kill()))

    disk.hook = cut
    live(disk, Random(1))
    disk.hook = None
    outcomes = {"nobody's": 0, "whole": 0}
    for survivor in survivors:
        try:
            look_at(survivor, PATH, deep=False)
        except DataDirectoryUnusable:
            outcomes["nobody's"] += 1
            continue
        look = look_at(survivor, PATH, deep=True)
        assert look.all_faults() == []
        outcomes["whole"] += 1
    assert outcomes["whole"] > 400, outcomes
    assert outcomes["nobody's"] < 50, outcomes
