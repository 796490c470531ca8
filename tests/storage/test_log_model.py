"""A log is a Python list: under any order of append, read, roll, trim, sync, close, kill and power cut."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from distlog.block import Block
from distlog.errors import OffsetOutOfRange
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

LIMITS = SegmentLimits(store_size_max=150, row_count_max=7)
# Sizes around the limits, and one that is larger than a whole segment.
RECORDS = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"", b"x" * 142, b"y" * 143, b"z" * 400])
)


class LogIsAList(RuleBasedStateMachine):
    """The list is the model; `synced` is how much of it a power cut must leave."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.log = Log.create(self.disk, "/log", LIMITS)
        self.records: list[bytes] = []
        self.start = 0
        self.synced = self.log.mark()
        self.raft_index = 0

    @rule(records=st.lists(RECORDS, min_size=1, max_size=9))
    def append(self, records: list[bytes]) -> None:
        self.raft_index += 1
        block = Block.from_records(records)
        base_offset = self.log.append(
            block, timestamp_ms=self.raft_index, raft_index=self.raft_index, term=2
        )
        assert base_offset == len(self.records)
        self.records += records

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

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self.start = data.draw(st.integers(self.start, len(self.records)))
        self.log.trim(self.start)

    @rule()
    def sync(self) -> None:
        mark = self.log.mark()
        self.log.begin_sync()()
        self.synced = mark

    @rule(back=st.booleans())
    def remove_trimmed(self, back: bool) -> None:
        if back:
            self.disk.write_back(Random(self.raft_index))
        self.log.remove_trimmed(self.synced.start_offset)

    @rule()
    def close_and_open(self) -> None:
        self.log.close()
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert all("below the start offset" in note for note in self.log.recovery)
        self.synced = self.log.mark()

    @rule()
    def kill_and_open(self) -> None:
        self.disk = self.disk.kill()
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert self.log.next_offset == len(self.records)
        # A trim is remembered when it is synced.
        self.start = self.log.start_offset
        self.synced = self.log.mark()

    @rule(seed=st.integers(0, 1 << 32))
    def power_cut_and_open(self, seed: int) -> None:
        self.disk = self.disk.crash(Random(seed))
        self.log = Log.open(self.disk, "/log", LIMITS)
        assert self.synced.next_offset <= self.log.next_offset <= len(self.records)
        assert self.log.start_offset == self.synced.start_offset
        del self.records[self.log.next_offset :]
        self.start = self.log.start_offset
        self.synced = self.log.mark()

    @rule(seed=st.integers(0, 1 << 32))
    def power_cut_and_open_at_the_checkpoint(self, seed: int) -> None:
        self.disk = self.disk.crash(Random(seed))
        self.log = Log.open_at(self.disk, "/log", LIMITS, self.synced)
        assert self.log.next_offset == self.synced.next_offset
        self.synced = self.log.mark()
        del self.records[self.log.next_offset :]
        self.start = self.log.start_offset

    @invariant()
    def bounds_agree(self) -> None:
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


TestLogIsAList = LogIsAList.TestCase
TestLogIsAList.settings = settings(max_examples=150, stateful_step_count=40)
