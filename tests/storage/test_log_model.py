"""A log is a Python list: under any order of append, read, roll, trim, sync, close, kill and power cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from distlog.block import Block
from distlog.errors import OffsetOutOfRange
from distlog.storage.log import Log, LogMark, ReadPlan, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import PowerCut

LIMITS = SegmentLimits(store_size_max=150, row_count_max=7)
# Sizes around the limits, and one that is larger than a whole segment.
RECORDS = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"", b"x" * 142, b"y" * 143, b"z" * 400])
)


class Batch(NamedTuple):
    """One append: where it begins and ends, and the time that it was stored with."""

    base_offset: int
    next_offset: int
    timestamp_ms: int


class LogIsAList(RuleBasedStateMachine):
    """The list is the model; `synced` is how much of it a power cut must leave."""

    # Of all examples together.
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        # The invariants are also looked at once before the first step.
        LogIsAList.steps -= 1
        self.disk = SimulatedDisk()
        self.log = Log.create(self.disk, "/log", LIMITS)
        self.records: list[bytes] = []
        self.start = 0
        self.synced = self.log.mark()
        self.raft_index = 0
        self.batches: list[Batch] = []
        # A sync that was begun and not run, and its mark.
        self.sync_under_way: tuple[Callable[[], None], LogMark] | None = None
        # Reads of sealed segments that were planned and not run, with what they must give first.
        self.plans: list[tuple[ReadPlan, int]] = []

    @rule(records=st.lists(RECORDS, min_size=1, max_size=9), later_ms=st.integers(-2, 3))
    def append(self, records: list[bytes], later_ms: int) -> None:
        self.raft_index += 1
        block = Block.from_records(records)
        # A leader's clock may go back; the log's does not.
        timestamp_ms = (self.batches[-1].timestamp_ms if self.batches else 10) + later_ms
        base_offset = self.log.append(
            block, timestamp_ms=timestamp_ms, raft_index=self.raft_index, term=2
        )
        assert base_offset == len(self.records)
        self.records += records
        stored_ms = max(timestamp_ms, self.batches[-1].timestamp_ms if self.batches else 0)
        self.batches.append(Batch(base_offset, len(self.records), stored_ms))

    @rule(size=st.integers(9_000, 70_000))
    def append_one_large(self, size: int) -> None:
        self.append([bytes([size % 251]) * size], 0)

    @rule(count=st.integers(20, 200))
    def append_many_small(self, count: int) -> None:
        self.append([b"%d" % number for number in range(count)], 0)

    @precondition(lambda self: self.start < len(self.records))
    @rule(data=st.data(), size_max=st.integers(0, 2_000))
    def plan_a_read_for_later(self, data: st.DataObject, size_max: int) -> None:
        offset = data.draw(st.integers(self.start, len(self.records) - 1))
        plan = self.log.plan_read(offset, size_max)
        if plan.blocking:
            self.plans.append((plan, offset))
        else:
            self.check_plan(plan, offset)

    @precondition(lambda self: self.plans)
    @rule()
    def run_a_planned_read(self) -> None:
        self.check_plan(*self.plans.pop(0))

    def check_plan(self, plan: ReadPlan, offset: int) -> None:
        batches = plan.run()
        assert batches[0].base_offset <= offset < batches[0].next_offset
        for batch in batches:
            assert list(batch.records()) == self.records[batch.base_offset : batch.next_offset]
            assert Batch(batch.base_offset, batch.next_offset, batch.timestamp_ms) in self.batches

    @rule(timestamp_ms=st.integers(0, 60))
    def find_a_time(self, timestamp_ms: int) -> None:
        kept = [batch for batch in self.batches if batch.next_offset > self.start]
        expected = next(
            (batch.base_offset for batch in kept if batch.timestamp_ms >= timestamp_ms),
            len(self.records),
        )
        assert self.log.plan_time_search(timestamp_ms).run() == max(expected, self.start)

    @precondition(lambda self: self.start < len(self.records))
    @rule(data=st.data(), size_max=st.integers(0, 500))
    def read(self, data: st.DataObject, size_max: int) -> None:
        offset = data.draw(st.integers(self.start, len(self.records) - 1))
        batches = self.log.read(offset, size_max)
        assert batches[0].base_offset <= offset < batches[0].next_offset
        for batch in batches:
            expected = self.records[batch.base_offset : batch.next_offset]
            assert list(batch.records()) == expected
        for before, after in pairwise(batches):
            assert before.next_offset == after.base_offset
        assert len(batches) == 1 or sum(len(batch.frames) for batch in batches) <= size_max
        assert self.log.read_record(offset) == self.records[offset]

    @rule(size=st.integers(1, 500))
    def trim_to_a_size(self, size: int) -> None:
        self.start = self.log.plan_retention(size=size).run()
        self.log.trim(self.start)
        assert self.log.start_offset == self.start

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self.start = data.draw(st.integers(self.start, len(self.records)))
        self.log.trim(self.start)

    @rule()
    def sync(self) -> None:
        self.begin_sync()
        self.finish_sync()

    @rule()
    def begin_sync(self) -> None:
        mark = self.log.mark()
        self.sync_under_way = self.log.begin_sync(), mark

    @precondition(lambda self: self.sync_under_way)
    @rule()
    def finish_sync(self) -> None:
        assert self.sync_under_way is not None
        run, mark = self.sync_under_way
        run()
        self.synced, self.sync_under_way = mark, None

    @precondition(lambda self: self.sync_under_way)
    @rule(operations=st.integers(0, 9), seed=st.integers(0, 1 << 32))
    def power_cut_during_a_sync(self, operations: int, seed: int) -> None:
        assert self.sync_under_way is not None
        end = self.disk.operation_count + operations

        def cut(operation: str, path: str) -> None:
            if self.disk.operation_count >= end:
                raise PowerCut

        self.disk.hook = cut
        with suppress(PowerCut):
            self.sync_under_way[0]()
        self.power_cut_and_open(seed)

    @rule(back=st.booleans())
    def remove_trimmed(self, back: bool) -> None:
        if back:
            self.disk.write_back(Random(self.raft_index))
        self.log.begin_remove_trimmed(self.synced.start_offset)()

    def forget_what_was_under_way(self) -> None:
        self.sync_under_way = None
        self.plans.clear()

    def forget_what_is_gone(self) -> None:
        end = self.log.next_offset
        del self.records[end:]
        self.batches = [batch for batch in self.batches if batch.next_offset <= end]
        self.start = self.log.start_offset

    @rule()
    def close_and_open(self) -> None:
        self.forget_what_was_under_way()
        self.log.close()
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert all("below the start offset" in note for note in self.log.recovery)
        self.synced = self.log.mark()

    @rule()
    def kill_and_open(self) -> None:
        self.forget_what_was_under_way()
        self.disk = self.disk.kill()
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert self.log.next_offset == len(self.records)
        # A trim is remembered when it is synced.
        self.start = self.log.start_offset
        self.synced = self.log.mark()

    @rule(seed=st.integers(0, 1 << 32))
    def power_cut_and_open(self, seed: int) -> None:
        trimmed_to = max(self.start, self.synced.start_offset)
        self.forget_what_was_under_way()
        self.disk = self.disk.crash(Random(seed))
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert self.synced.next_offset <= self.log.next_offset <= len(self.records)
        # A sync that was cut off may have written its mark.
        assert self.synced.start_offset <= self.log.start_offset <= trimmed_to
        self.forget_what_is_gone()
        self.synced = self.log.mark()

    @rule(seed=st.integers(0, 1 << 32))
    def power_cut_and_open_at_the_checkpoint(self, seed: int) -> None:
        self.forget_what_was_under_way()
        self.disk = self.disk.crash(Random(seed))
        self.log = Log.open_at(self.disk, "/log", LIMITS, self.synced)
        assert self.log.next_offset == self.synced.next_offset
        self.synced = self.log.mark()
        self.forget_what_is_gone()

    @invariant()
    def bounds_agree(self) -> None:
        LogIsAList.steps += 1
        assert (self.log.start_offset, self.log.next_offset) == (self.start, len(self.records))
        for offset in (self.start - 1, len(self.records)):
            with pytest.raises(OffsetOutOfRange):
                self.log.read_record(offset)

    def teardown(self) -> None:
        for offset in range(self.start, len(self.records)):
            assert self.log.read_record(offset) == self.records[offset]
        described = self.log.describe()
        for before, after in pairwise(described):
            assert before.next_offset == after.base_offset


def test_a_log_is_a_list_whatever_is_done_to_it(tally: CrashTally) -> None:
    """The same examples each time; `--full-matrix --hypothesis-seed N` tries others."""
    run_state_machine_as_test(
        LogIsAList,
        settings=settings(
            max_examples=2_000 if tally.full else 300,
            stateful_step_count=50,
            derandomize=not tally.full,
            database=None,
        ),
    )
    tally.count("log", "steps of a state machine against a list", LogIsAList.steps)
    tally.require("log", "steps of a state machine against a list", 10_000)
