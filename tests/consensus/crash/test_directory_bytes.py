"""Every byte and every bit of what a node keeps: it refuses in words, or starts with exactly what was committed."""

from __future__ import annotations

import math
from random import Random

import pytest

from distlog.consensus.checkpoint import read_checkpoint, write_checkpoint
from distlog.consensus.commands import CreateTopic, OpenProducer
from distlog.consensus.journal_recovery import read_operations
from distlog.errors import (
    CorruptBatch,
    CorruptCheckpoint,
    CorruptJournal,
    DataDirectoryUnusable,
    FormatUnsupported,
)
from distlog.storage.data_directory import DataDirectory
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus import states
from tests.consensus.crash.node_life import PATH, SMALL, Life, Opened, open_node, state_of
from tests.consensus.entries import append
from tests.consensus.states import Replica
from tests.crash_tally import CrashTally
from tests.storage.crash.damage import READING, content, cut, files_of, flipped, power_cuts, torn

CHECKPOINT = f"{PATH}/groups/0/checkpoint"
REFUSALS = (
    CorruptBatch,
    CorruptCheckpoint,
    CorruptJournal,
    DataDirectoryUnusable,
    FormatUnsupported,
)


class Damaged:
    """What became of a node whose files were damaged."""

    def __init__(self, life: Life, disk: SimulatedDisk, path: str) -> None:
        """Open it.  It refuses in words with every file as it was, or it starts with what was committed, except
        batches that it refuses to read.
        """
        before = files_of(disk, PATH)
        self.refusal = ""
        self.notes: tuple[str, ...] = ()
        # Batches that cannot be read, and committed entries that the journal has no more.
        self.unread = self.lost = 0
        try:
            found = open_node(disk, lambda disk: disk)
        except REFUSALS as error:
            self.refusal = str(error)
            # A log may have been repaired or cut before another one was refused; the damaged file itself is evidence.
            assert content(disk, path) == before[path]
            return
        assert isinstance(found, Opened), "it forgot its cluster"
        assert found.directory.directory_id == life.directory_id
        assert found.directory.cluster_id == "cluster"
        self.notes = found.recovered.notes
        self._compare(life, found)

    def _compare(self, life: Life, found: Opened) -> None:
        machine = found.machine
        assert machine.last_applied_index == life.checkpointed
        end = min(found.journal.last_index, len(life.committed))
        self.lost = len(life.committed) - end
        for entry in life.committed[machine.last_applied_index : end]:
            assert found.journal.entry(entry.raft_index) == entry
            machine.apply_payload(entry.raft_index, entry.term, entry.payload)
        try:
            assert state_of(machine) == life.states[end]
        except CorruptBatch:
            self.unread = 1


@pytest.fixture(scope="module")
def life() -> Life:
    """A node that was killed some entries after its last checkpoint."""
    life = Life()
    stopped: list[SimulatedDisk] = []

    def hook(operation: str, path: str) -> None:
        if len(life.committed) == 15 and life.states[15]:
            stopped.append(life.disk.kill())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        life.live(4, hook)
    life.disk = stopped[0]
    return life


def test_the_node_of_these_tests_has_everything_that_a_node_can_have(life: Life) -> None:
    names = {path.removeprefix(f"{PATH}/") for path in files_of(life.disk, PATH)}
    assert {"FORMAT", "LOCK", "node.json", "reserve", "groups/0/checkpoint"} <= names
    assert any("journal/" in name for name in names)
    assert any(name.endswith("/synced") for name in names)
    assert 0 < life.checkpointed < len(life.committed) - 1
    whole = Damaged(life, life.disk.kill(), CHECKPOINT)
    assert (whole.refusal, whole.unread, whole.lost) == ("", 0, 0)


@pytest.mark.parametrize("name", ["FORMAT", "node.json"])
def test_every_flipped_bit_of_what_says_whose_directory_it_is_is_refused(
    name: str, life: Life, tally: CrashTally
) -> None:
    path = f"{PATH}/{name}"
    for position in range(len(content(life.disk, path))):
        for bit in range(8):
            damaged = Damaged(life, flipped(life.disk, path, position, bit), path)
            assert damaged.refusal, f"{name}: bit {bit} of byte {position}"
            tally.count("data directory", f"every bit of {name} flipped")


@pytest.mark.parametrize("name", ["FORMAT", "node.json"])
def test_what_says_whose_directory_it_is_is_refused_when_it_is_cut(
    name: str, life: Life, tally: CrashTally
) -> None:
    path = f"{PATH}/{name}"
    data = content(life.disk, path)
    for size in range(len(data)):
        for disk in (cut(life.disk, path, size), torn(life.disk, path, size, b"")):
            damaged = Damaged(life, disk, path)
            # Without its last newline the object is still whole.
            assert damaged.refusal or (name == "node.json" and size == len(data) - 1)
            tally.count("data directory", f"{name} cut, and torn, at every byte")


def test_every_flipped_bit_of_a_checkpoint_is_refused(life: Life, tally: CrashTally) -> None:
    small = Replica()
    small.apply(CreateTopic("orders", SMALL), OpenProducer(0))
    small.checkpoint()
    assert isinstance(small.disk, SimulatedDisk)
    path = states.CHECKPOINT
    data = content(small.disk, path)
    for position in range(len(data)):
        for bit in range(8):
            disk = flipped(small.disk, path, position, bit)
            with pytest.raises((CorruptCheckpoint, FormatUnsupported)):
                read_checkpoint(disk, path)
            tally.count("checkpoint", "every bit flipped")
        for disk in (cut(small.disk, path, position), torn(small.disk, path, position, b"")):
            if content(disk, path) != data:
                with pytest.raises(CorruptCheckpoint):
                    read_checkpoint(disk, path)
                tally.count("checkpoint", "cut, and torn, at every byte")
    tally.require("checkpoint", "every bit flipped", 2_000)
    damaged = Damaged(life, flipped(life.disk, CHECKPOINT, 50, 1), CHECKPOINT)
    assert "checkpoint" in damaged.refusal


def test_a_checkpoint_is_the_old_one_or_the_new_one_at_every_operation(tally: CrashTally) -> None:
    kind = "power cut at every operation, any part kept"
    for seed in range(40 if tally.full else 10):
        tally.count("checkpoint", kind, replace_checkpoint(Random(seed)))
    tally.require("checkpoint", kind, 100)


def replace_checkpoint(random: Random) -> int:
    """Replace a checkpoint, with a power cut at every operation; return how many cases that were."""
    cases = 0
    replica = Replica()
    old = replica.checkpoint()
    replica.apply(append(b"x" * 9_000))
    disk = replica.disk
    assert isinstance(disk, SimulatedDisk)
    new = replica.capture()
    new.sync_logs()

    def look(operation: str, path: str) -> None:
        nonlocal cases
        if operation in READING:
            return
        for survivor in power_cuts(disk, random, count=3, full=True):
            assert read_checkpoint(survivor, states.CHECKPOINT) in (old, new)
            cases += 1

    disk.hook = look
    write_checkpoint(disk, states.CHECKPOINT, new)
    for survivor in power_cuts(disk, random, count=3, full=True):
        assert read_checkpoint(survivor, states.CHECKPOINT) == new
    return cases


def test_flipped_bits_anywhere_in_a_data_directory(life: Life, tally: CrashTally) -> None:
    step = 1 if tally.full else 23
    number = 0
    for path, data in files_of(life.disk, PATH).items():
        used = len(data.rstrip(b"\0"))
        for position in range(0, len(data), step):
            # Reserved space is looked at less often: it is most of the bytes.
            if position >= used and (position // step) % 40:
                continue
            number += 1
            damaged = Damaged(life, flipped(life.disk, path, position, number % 8), path)
            tally.count("data directory", kind_of(life, path, position, damaged))
    tally.require("data directory", "bit flipped: start refused", 150)
    tally.require("data directory", "bit flipped: batch refused, the rest is read", 20)


def kind_of(life: Life, path: str, position: int, damaged: Damaged) -> str:
    """Return what a flipped bit led to; fail if it was not found out and is not known to mean nothing."""
    where = f"{path} at {position}"
    if damaged.refusal:
        return "bit flipped: start refused"
    if damaged.unread:
        assert path.endswith((".log", ".batch")), where
        return "bit flipped: batch refused, the rest is read"
    if path.endswith(".journal") and "whole operation" in " ".join(damaged.notes):
        # docs/format-journal.md, "Two limits": nothing here can tell it from a torn write.
        return "bit flipped: the journal's unproven end, said; others have it"
    assert not damaged.lost, where
    if path.endswith("/synced"):
        assert damaged.notes, where
        return "bit flipped: said, and the checkpoint decides"
    assert means_nothing(life, path, position), where
    return "bit flipped: means nothing (or is there twice)"


def means_nothing(life: Life, path: str, position: int) -> bool:
    """Tell whether nothing is lost with this byte."""
    if path.endswith(("/reserve", ".idx")):
        return True
    if path.endswith(".journal"):
        file_sequence = int(path.rpartition("/")[2].partition(".")[0])
        operations = read_operations(life.disk.kill(), path.rpartition("/")[0])
        return not any(
            operation.file_sequence == file_sequence
            and 0 <= position - operation.position < 48 + len(operation.payload)
            for operation in operations
        )
    if not path.endswith((".log", ".batch")):
        return False
    image = read_checkpoint(life.disk.kill(), CHECKPOINT)
    assert image is not None
    topic_id, base_offset = int(path.split("/")[-2]), int(path.split("/")[-1].partition(".")[0])
    topic = next((topic for topic in image.topics if topic.topic_id == topic_id), None)
    # Of a topic that the checkpoint does not have, or a segment that it does not have yet.
    if topic is None or base_offset > topic.mark.segment_base_offset:
        return True
    batches = [
        batch
        for state in life.states[image.raft_index]
        if state.topic_id == topic_id
        for batch in life.appended(topic_id)
        if base_offset <= batch.base_offset and batch.next_offset <= topic.mark.next_offset
    ]
    for batch in batches:
        position -= 64 if path.endswith(".batch") else sum(8 + len(r) for r in batch.records)
        if position < 0:
            return batch.next_offset <= kept_from(life, topic_id)
    return True


def kept_from(life: Life, topic_id: int) -> float:
    """Return where a topic starts after all that is committed: nowhere, if it was deleted."""
    state = life.states[len(life.committed)]
    return next((topic.start_offset for topic in state if topic.topic_id == topic_id), math.inf)


def test_a_missing_file_is_refused_or_not_needed(life: Life, tally: CrashTally) -> None:
    needless = []
    for path in files_of(life.disk, PATH):
        disk = life.disk.kill()
        disk.remove(path)
        try:
            found = open_node(disk, lambda disk: disk)
        except REFUSALS:
            pass
        else:
            assert not isinstance(found, DataDirectory)
            needless.append(path.rpartition("/")[2])
        tally.count("data directory", "each file missing")
    # Everything else is refused.
    known = {"LOCK", "reserve", "synced"}
    assert {name for name in needless if not name.endswith(".idx")} <= known | {
        name for name in needless if name.endswith((".log", ".batch", ".journal"))
    }
