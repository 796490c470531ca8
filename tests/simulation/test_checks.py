"""The checks of the simulation see what they are there for: each with a fault that was planted."""

from __future__ import annotations

from collections import Counter
from random import Random
from types import SimpleNamespace

import pytest

from distlog.block import Block
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import Journal
from distlog.storage.log import Log, StoredBatch
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.simulation.history import History
from tests.simulation.schedule import TOPICS_PATH, Run, file_differences
from tests.simulation.summary import FLOORS, FLOORS_FROM, Summary
from tests.simulation.watch import Watch


class Named:
    """As much of a machine as a watch looks at."""

    def __init__(self, name: str) -> None:
        self.name = name


class Part:
    """As much of a group as a watch looks at: a journal, and a state machine that applies everything."""

    def __init__(self, name: str) -> None:
        self.journal = Journal.open(SimulatedDisk(), "journal")
        self.journal.append(b"", 1, 0)
        self.state_machine = self
        # What it knows of the members: three, of which it is one.
        directory_id = f"directory-of-{name}"
        self.configuration = Configuration(
            "cluster", {each: f"directory-of-{each}" for each in "abc"}
        )
        replicas = SimpleNamespace(node_id=name, directory_id=directory_id)
        self.raft = SimpleNamespace(replicas=replicas, is_leader=False)

    def apply_payload(self, _raft_index: int, _term: int, _payload: bytes) -> None: ...

    def sync(self) -> None:
        ticket = self.journal.begin_sync()
        assert ticket is not None
        ticket.run()
        self.journal.finish_sync(ticket)


class Watched:
    """Three groups that do what a test says."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.watch = Watch(Counter(), self.failures)
        self.parts = {name: Part(name) for name in "abc"}
        for name, part in self.parts.items():
            self.watch.add(name)
            self.watch.begin(Named(name), part)  # type: ignore[arg-type]

    def append(self, name: str, payload: bytes, raft_index: int, term: int) -> None:
        self.parts[name].journal.append(payload, raft_index, term)

    def apply(self, name: str, payload: bytes, raft_index: int, term: int) -> None:
        self.parts[name].apply_payload(raft_index, term, payload)


def test_two_leaders_of_a_term_are_seen() -> None:
    watched = Watched()
    watched.watch.leads("a", 3)
    watched.watch.leads("b", 4)
    watched.watch.leads("a", 3)
    assert watched.failures == []
    watched.watch.leads("b", 3)
    assert watched.failures == ["one leader per term: term 3 has a and b"]


def test_journals_that_do_not_match_are_seen() -> None:
    watched = Watched()
    watched.append("a", b"x", 2, 1)
    watched.append("a", b"y", 3, 2)
    watched.append("b", b"x", 2, 1)
    assert watched.failures == []
    watched.append("c", b"z", 2, 1)
    assert "log matching: entry 2" in watched.failures[0]
    # The entry itself is the same, and the one before it is not.
    watched.append("c", b"y", 3, 2)
    other = Watched()
    other.append("a", b"x", 2, 1)
    other.append("a", b"y", 3, 2)
    other.append("b", b"w", 2, 2)
    other.append("b", b"y", 3, 2)
    assert ["log matching: entry 3" in failure for failure in other.failures] == [True]


def test_what_is_applied_before_a_majority_has_it_is_seen() -> None:
    watched = Watched()
    for name in "ab":
        watched.append(name, b"x", 2, 1)
    watched.parts["a"].sync()
    watched.apply("a", b"x", 2, 1)
    assert "which 1 of 3 disks have" in watched.failures[0]
    other = Watched()
    for name in "ab":
        other.append(name, b"x", 2, 1)
        other.parts[name].sync()
    other.apply("a", b"x", 2, 1)
    assert other.failures == []
    other.apply("b", b"y", 2, 1)
    assert "state machine safety" in other.failures[0]


def test_what_a_disk_had_that_is_gone_was_acknowledged_and_what_it_had_not_was_not() -> None:
    for count, is_synced in ((0, True), (1, False)):
        watched = Watched()
        for name in "ab":
            watched.append(name, b"x", 2, 1)
        watched.parts["a"].sync()
        if is_synced:
            watched.parts["b"].sync()
        # Its acknowledgement is on its way to the leader.
        watched.watch.add("b")
        watched.apply("a", b"x", 2, 1)
        assert len(watched.failures) == count, watched.failures


def test_an_applied_entry_that_is_cut_is_seen() -> None:
    watched = Watched()
    for name in "ab":
        watched.append(name, b"x", 2, 1)
        watched.parts[name].sync()
    watched.apply("a", b"x", 2, 1)
    watched.parts["b"].journal.truncate_from(2)
    assert "leader completeness: b cuts entry 2" in watched.failures[0]


def log_with(disk: SimulatedDisk, path: str, records: list[bytes]) -> list[StoredBatch]:
    """Make a log of these records, one a batch, and return what is in it."""
    for length in range(1, len(path.split("/"))):
        disk.make_directory("/".join(path.split("/")[:length]))
    log = Log.create(disk, path, SegmentLimits())
    for number, record in enumerate(records):
        log.append(Block.from_records([record]), timestamp_ms=1, raft_index=number + 2, term=1)
    log.begin_sync()()
    batches = log.read(0, 1 << 20)
    log.close()
    return batches


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([b"a", b"b", b"c"], None),
        ([b"a", b"b"], "is not there"),
        ([b"a", b"b", b"c", b"a"], "doubled"),
        ([b"b", b"a", b"c"], "reordered"),
        ([b"a", b"b", b"c", b"no"], "was refused and is there"),
    ],
)
def test_a_log_that_is_not_what_the_clients_were_told_is_seen(
    records: list[bytes], problem: str | None
) -> None:
    history = History()
    history.sent[0] = [b"a", b"b", b"c"]
    history.refused.add(b"no")
    history.acknowledge(b"c", 2)
    history.check(log_with(SimulatedDisk(), "log", records), "n1")
    assert (
        any(problem in failure for failure in history.failures) if problem else not history.failures
    )


def test_an_offset_that_changes_is_seen() -> None:
    history = History()
    history.acknowledge(b"a", 1)
    history.acknowledge(b"a", 1)
    assert history.failures == []
    history.acknowledge(b"a", 2)
    assert history.failures != []


@pytest.mark.parametrize("suffix", ["log", "idx", "batch"])
def test_files_that_differ_in_a_byte_are_seen(suffix: str) -> None:
    disks = {name: SimulatedDisk() for name in ("n1", "n2")}
    path = f"{TOPICS_PATH}/{1:020d}"
    for disk in disks.values():
        log_with(disk, path, [b"one", b"two"])
    assert file_differences(disks) == []
    file = disks["n2"].open(f"{path}/{0:020d}.{suffix}")
    position = Random(1).randrange(16)
    (octet,) = file.read_at(position, 1)
    file.write_at(position, [bytes([octet ^ 1])])
    assert file_differences(disks) != []


def test_a_campaign_that_saw_too_little_says_so() -> None:
    summary = Summary()
    for seed in range(FLOORS_FROM):
        summary.add(Run(seed, Counter({"runs": 1, **FLOORS})))
    assert summary.below_floors() == []
    summary.counts["truncations"] = 0
    assert [line.split()[2] for line in summary.below_floors()] == ["truncations"]
