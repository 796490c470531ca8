"""A power cut is no fault: whatever it leaves of a node's directory, verify finds nothing wrong with what was promised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from distlog.block import Block
from distlog.cli.stopped_node import Look, look_at
from distlog.consensus.commands import (
    Append,
    Command,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.recovery import recover
from distlog.consensus.results import ProducerOpened
from distlog.errors import DataDirectoryUnusable
from distlog.storage.data_directory import DataDirectory
from distlog.storage.log_mark import MarkFile
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


def survivors_of(
    disk: SimulatedDisk, act: Callable[[], object], random: Random
) -> list[SimulatedDisk]:
    """Return what a power cut, and a kill, before each operation of `act` leave of a disk."""
    survivors: list[SimulatedDisk] = []
    disk.hook = lambda operation, path: survivors.extend((disk.crash(random), disk.kill()))
    act()
    disk.hook = None
    return survivors


def start(disk: SimulatedDisk) -> None:
    """Do what a start does to the files."""
    directory = DataDirectory.open(disk, PATH, "n1", Random(1))
    recovered = recover(
        disk,
        journal_path=directory.journal_path,
        checkpoint_path=directory.checkpoint_path,
        topics_path=directory.topics_path,
        journal_file_size_max=1024,
    )
    recovered.state_machine.close()
    recovered.journal.close()
    directory.close()


def is_synced_ahead(disk: SimulatedDisk, look: Look) -> bool:
    """Tell whether a log was synced after the checkpoint that has it."""
    marks = [(MarkFile.open(disk, each.log.path), each.image) for each in look.topics if each.image]
    return any(own is not None and own.mark != image.mark for own, image in marks)


def test_a_power_cut_at_any_operation_leaves_no_fault() -> None:
    disk = SimulatedDisk()
    outcomes = {"nobody's": 0, "whole": 0, "synced ahead": 0}
    for survivor in survivors_of(disk, lambda: live(disk, Random(1)), Random(7)):
        try:
            look_at(survivor, PATH, deep=False)
        except DataDirectoryUnusable:
            outcomes["nobody's"] += 1
            continue
        look = look_at(survivor, PATH, deep=True)
        assert look.all_faults() == []
        outcomes["whole"] += 1
        outcomes["synced ahead"] += is_synced_ahead(survivor, look)
    assert outcomes["whole"] > 400, outcomes
    assert outcomes["nobody's"] < 50, outcomes
    assert outcomes["synced ahead"] > 20, outcomes


def test_a_power_cut_while_a_start_cuts_leaves_no_fault() -> None:
    disk = SimulatedDisk()
    random = Random(8)
    lived = survivors_of(disk, lambda: live(disk, Random(1)), random)
    cut = 0
    for before in random.sample(lived[len(lived) // 4 :], 5):
        ahead = is_synced_ahead(before, look_at(before, PATH, deep=False))
        for survivor in survivors_of(before, partial(start, before), random):
            look = look_at(survivor, PATH, deep=True)
            assert look.all_faults() == []
            cut += ahead and not is_synced_ahead(survivor, look)
    assert cut, "no start had anything to cut"
