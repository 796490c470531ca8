"""What entries cost before they are applied: never less than they take, and bounded by the reserve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from distlog.block import Block
from distlog.consensus.commands import (
    NO_OP,
    Append,
    Command,
    CreateTopic,
    TrimTopic,
    encode_entry,
)
from distlog.consensus.journal_format import operation_size
from distlog.consensus.proposals import Proposals
from distlog.consensus.space import ENTRY_TOPIC_COUNT_MAX, Space, commands_cost, entry_cost
from distlog.consensus.state_machine import StateMachine
from distlog.errors import DistlogError, StorageFull
from distlog.runtime import SystemClock
from distlog.storage.reserve import BLOCK_SIZE
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

SMALL = SegmentLimits(store_size_max=4 << 10, row_count_max=16)


@dataclass
class Held:
    """A reserve of `size` bytes of which `held` are left."""

    size: int
    held: int
    path: str = "/reserve"

    @property
    def is_whole(self) -> bool:
        return self.held >= self.size

    def refusal(self) -> DistlogError:
        return StorageFull(path=self.path)


def space_of(size: int, held: int | None = None, *, topic_count: int = 1) -> tuple[Space, Held]:
    reserve = Held(size, size if held is None else held)
    return Space(reserve, lambda: topic_count), reserve


def disk_use(disk: SimulatedDisk, path: str = "") -> int:
    """Return the bytes of all files below a path, in whole blocks."""
    total = 0
    for name in disk.list_directory(path or "/"):
        child = f"{path}/{name}"
        if disk.is_directory(child):
            total += BLOCK_SIZE + disk_use(disk, child)
        else:
            total += -(-disk.open(child, writable=False).size() // BLOCK_SIZE) * BLOCK_SIZE
    return total


def appends(topic_id: int, records: list[bytes], count: int = 1) -> list[Command]:
    return [Append(topic_id, Block.from_records(records)) for _ in range(count)]


@pytest.mark.parametrize(
    "commands",
    [
        appends(1, [b""]),
        appends(1, [b""] * 5000),
        appends(1, [b"x"] * 300, 20),
        appends(1, [bytes(100_000)], 10),
        appends(1, [bytes(20_000)] * 4, 40),
        [CreateTopic(f"t{number}", SMALL) for number in range(16)],
        [*appends(1, [b"x" * 100], 1), *appends(2, [b"y" * 5000] * 3, 30)],
    ],
    ids=["empty", "many empty", "small", "large", "several batches", "topics", "rolls"],
)
def test_an_entry_never_takes_more_than_it_was_said_to_cost(commands: list[Command]) -> None:
    """On a full disk, where each file takes what it needs and no comfortable step."""
    disk = SimulatedDisk()
    machine = StateMachine.open(disk, "/topics", None, journal_first_index=0)
    machine.apply_payload(2, 1, encode_entry([CreateTopic("small", SMALL)], 1000))
    payload = encode_entry(commands, 1000)
    before = disk_use(disk)
    cost = entry_cost(payload, len(machine.topics()))
    disk.capacity = disk.used + cost - operation_size(len(payload))
    machine.apply_payload(3, 1, payload)
    for topic in machine.topics():
        topic.log.begin_sync()()
    machine.close()
    assert disk_use(disk) - before + operation_size(len(payload)) <= cost


@pytest.mark.parametrize(
    "between",
    [
        lambda number: Append(2, Block.from_records([b""] * 16, number % 2)),
        lambda number: TrimTopic(2, 0) if number % 2 else appends(2, [b""] * 16)[0],
        lambda number: Append(number % 3 + 2, Block.from_records([b""] * 16, number // 3 % 2)),
    ],
    ids=["attributes", "other commands", "three topics"],
)
def test_what_a_leader_packs_costs_no_more_although_each_command_becomes_a_segment(
    between: Callable[[int], Command],
) -> None:
    """Of three topics with the smallest segments: a batch for each command, because it cannot be joined with the one before."""
    disk = SimulatedDisk()
    machine = StateMachine.open(disk, "/topics", None, journal_first_index=0)
    for index in (2, 3, 4):
        machine.apply_payload(index, 1, encode_entry([CreateTopic(f"t{index}", SMALL)], 1000))
    topic_count = len(machine.topics())
    entries = asyncio.run(packed(machine, [between(number) for number in range(150)]))
    assert len(entries) > 1
    for index, payload in enumerate(entries, 5):
        before, cost = disk_use(disk), entry_cost(payload, topic_count)
        disk.capacity = disk.used + cost - operation_size(len(payload))
        machine.apply_payload(index, 1, payload)
        for topic in machine.topics():
            topic.log.begin_sync()()
        assert disk_use(disk) - before + operation_size(len(payload)) <= cost
    machine.close()


async def packed(machine: StateMachine, commands: list[Command]) -> list[bytes]:
    """Return the entries that a leader with much space makes of commands that wait together."""
    space, _ = space_of(1 << 40)
    proposals = Proposals(machine, SystemClock(), space, 1 << 30, lambda: None)
    for command in commands:
        proposals.submit(command)
    return [payload for payload, _ in proposals.take_entries()]


def test_the_largest_entry_costs_less_than_the_smallest_reserve_that_can_be_configured() -> None:
    assert commands_cost(8 << 20, 1 << 16, 10_000) < 48 << 20


def test_a_header_that_promises_more_commands_than_it_has_bytes_costs_what_it_can_hold() -> None:
    payload = bytearray(encode_entry(appends(1, [b"x"]), 0))
    payload[5:9] = b"\xff\xff\xff\xff"
    assert entry_cost(bytes(payload), 1) < 1 << 20
    assert entry_cost(NO_OP, 10_000) < 16 << 10


def test_only_so_many_entries_are_admitted_as_the_reserve_pays_for() -> None:
    payload = encode_entry(appends(1, [bytes(1000)]), 0)
    cost = entry_cost(payload, 1)
    space, _ = space_of(3 * cost)
    assert space.admissible([payload] * 5) == 3
    space.taken(10, payload)
    space.taken(11, payload)
    assert (space.promised, space.room) == (2 * cost, cost)
    assert space.admissible([payload] * 5) == 1
    assert space.is_crowded
    space.truncated(11)
    assert space.admissible([payload] * 5) == 2
    space.applied(10)
    assert (space.promised, space.is_crowded) == (0, False)


def test_an_entry_that_alone_costs_more_than_the_reserve_is_taken_when_nothing_else_is_promised() -> (
    None
):
    payload = encode_entry(appends(1, [bytes(100_000)]), 0)
    space, _ = space_of(1000)
    assert space.admissible([payload, payload]) == 1
    space.taken(1, payload)
    assert space.admissible([payload]) == 0


def test_entries_of_older_terms_are_taken_whatever_they_cost_while_the_reserve_is_whole() -> None:
    payload = encode_entry(appends(1, [bytes(1000)]), 0)
    space, reserve = space_of(2 * entry_cost(payload, 1))
    space.taken(1, payload)
    assert space.admissible([payload] * 5) == 1
    assert space.admissible([payload] * 5, older_count=3) == 3
    assert space.admissible([payload, payload, NO_OP], older_count=2) == 3
    reserve.held -= 1
    assert space.admissible([payload] * 5, older_count=3) == 0


def test_a_full_node_takes_what_was_proposed_before_while_half_of_the_reserve_is_left() -> None:
    payload = encode_entry(appends(1, [b"x"]), 0)
    space, reserve = space_of(1 << 20)
    reserve.held -= 1
    assert space.is_full, "nothing may be proposed"
    assert space.admissible([payload]) == 1, "what others have proposed is taken"
    assert not space.is_refusing
    reserve.held = reserve.size // 2
    assert (space.admissible([payload]), space.room) == (0, 0)
    assert space.admissible([NO_OP, NO_OP, payload]) == 2, "a leader can begin its term"
    assert space.is_refusing
    reserve.held = reserve.size - 1
    assert space.is_refusing, "or the leader would send again what does not fit, as fast as it can"
    reserve.held = reserve.size
    assert not space.is_refusing
    assert space.admissible([payload]) == 1


def test_what_is_left_of_the_reserve_pays_for_the_entries_that_may_be_applied() -> None:
    payload = encode_entry(appends(1, [b"x"]), 0)
    cost = entry_cost(payload, 1)
    space, reserve = space_of(10 * cost)
    for raft_index in range(5):
        space.taken(raft_index, payload)
    assert space.applicable(3) == 3
    reserve.held = 2 * cost
    assert [space.applicable(count) for count in (1, 2, 3, 5)] == [1, 2, 2, 2]
    reserve.held = 0
    assert space.applicable(5) == 0
    assert Space(Held(0, 0), lambda: 1).applicable(5) == 5, "there is nothing to wait for"
    reserve.held = 10 * cost
    assert space.applicable(5) == 5


def test_a_cost_does_not_grow_without_end_with_the_topics() -> None:
    many = commands_cost(1 << 20, 1 << 16, 10_000)
    assert many == commands_cost(1 << 20, 1 << 16, ENTRY_TOPIC_COUNT_MAX)
