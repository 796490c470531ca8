"""What the leader proposes to trim, and when; and that it proposes nothing twice, nothing in vain, and nothing when it does
not lead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from distlog.consensus.commands import (
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    TrimTopic,
    encode_entry,
)
from distlog.consensus.journal import JournalEntry
from distlog.consensus.retention import TOPICS_PER_STEP, Trimmer, plan_topics
from distlog.errors import Overloaded, StorageFull
from distlog.storage.retention import Retention
from distlog.storage.segment_files import TABLE, SegmentLimits, segment_path
from tests.consensus.entries import append
from tests.consensus.states import TOPICS, Replica
from tests.consensus.voters import ManualClock

# One record of 3,000 bytes a segment.
SMALL = SegmentLimits(4096, 16)
RECORD = bytes(3000)
INTERVAL_S = 10.0
EVENTS = 2


class HeldWorker:
    """A worker whose jobs run when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: function(*args)))
        return future

    def sync(self, file: Any) -> Any:
        return self.submit(file.sync)

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for future, job in jobs:
            future.set_result(job())

    def close(self) -> None:
        return


class Leader:
    """A node with a state machine and a trimmer; what it proposes waits for the test."""

    def __init__(self, retention: Retention = Retention(size=3000)) -> None:  # noqa: B008 (frozen)
        self.replica = Replica()
        self.replica.apply(CreateTopic("events", SMALL, retention))
        self.clock = ManualClock()
        self.worker = HeldWorker()
        self.is_leader = True
        self.refusal: Exception | None = None
        self.proposed: list[tuple[Command, Future[Any]]] = []
        self.trimmer = Trimmer(
            state_machine=self.replica.machine,
            clock=self.clock,
            worker=self.worker,
            is_leader=lambda: self.is_leader,
            propose=self._propose,
            interval_s=INTERVAL_S,
        )

    def _propose(self, command: Command) -> Future[Any]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[Any] = Future()
        self.proposed.append((command, future))
        return future

    def fill(self, count: int, topic_id: int = EVENTS) -> None:
        """Append records, each of which becomes a segment, a second apart."""
        for _ in range(count):
            self.clock.now += 1
            command = append(RECORD, topic_id=topic_id)
            self.replica.apply(command, timestamp_ms=self.clock.wall_ms())

    def round(self, ticks: int = 3) -> list[Command]:
        """Let an interval pass and a round happen; return all that is proposed and not settled."""
        self.clock.now += INTERVAL_S
        for _ in range(ticks):
            self.trimmer.tick()
            self.worker.run()
        return [command for command, _ in self.proposed]

    def settle(self) -> None:
        """Commit and apply what is proposed."""
        proposed, self.proposed = self.proposed, []
        for command, future in proposed:
            (result,) = self.replica.apply(command)
            future.set_result(result)

    @property
    def start_offset(self) -> int:
        topic = self.replica.machine.topic_by_id(EVENTS)
        assert topic is not None
        return topic.log.start_offset


def test_a_topic_is_trimmed_to_its_size_one_proposal_at_a_time() -> None:
    leader = Leader()
    leader.fill(5)
    assert leader.round() == [TrimTopic(EVENTS, 4)]
    assert leader.round() == [TrimTopic(EVENTS, 4)], "what was not applied is not proposed again"
    leader.settle()
    assert leader.start_offset == 4
    assert leader.round() == []
    leader.fill(1)
    assert leader.round() == [TrimTopic(EVENTS, 5)]


def test_a_topic_is_trimmed_by_the_age_of_its_segments() -> None:
    leader = Leader(Retention(age_ms=60_000))
    leader.fill(5)
    assert leader.round() == []
    leader.clock.now += 60 - INTERVAL_S - 3 - INTERVAL_S
    # The first two are 60.999 s old and more, or less than one second younger than that.
    assert leader.round() == [TrimTopic(EVENTS, 1)]
    leader.settle()
    leader.clock.now += 3600
    assert leader.round() == [TrimTopic(EVENTS, 4)], "the active segment stays, however old"
    leader.settle()
    assert leader.round() == []


def test_what_keeps_everything_is_never_looked_at() -> None:
    leader = Leader(Retention())
    leader.fill(5)
    assert leader.round() == []
    assert leader.worker.jobs == []
    leader.replica.apply(ConfigureTopic(EVENTS, 6000, None))
    assert leader.round() == [TrimTopic(EVENTS, 3)]


def test_nothing_happens_before_an_interval_has_passed() -> None:
    leader = Leader()
    leader.fill(3)
    leader.clock.now += INTERVAL_S - 4
    leader.trimmer.tick()
    assert leader.proposed == []
    leader.clock.now += 1
    leader.trimmer.tick()
    assert len(leader.proposed) == 1


def test_a_node_that_does_not_lead_proposes_nothing_not_even_what_it_found_out_as_a_leader() -> (
    None
):
    leader = Leader(Retention(age_ms=1))
    leader.fill(3)
    leader.is_leader = False
    assert leader.round() == []
    leader.is_leader = True
    leader.clock.now += INTERVAL_S
    leader.trimmer.tick()
    assert len(leader.worker.jobs) == 1
    leader.is_leader = False
    leader.worker.run()
    assert leader.proposed == []
    leader.is_leader = True
    assert leader.round() == [TrimTopic(EVENTS, 2)]


def test_a_trim_that_is_refused_or_whose_outcome_is_unknown_is_tried_again_in_the_next_round() -> (
    None
):
    leader = Leader()
    leader.fill(3)
    leader.refusal = Overloaded("journal", 1)
    assert leader.round() == []
    leader.refusal = None
    assert leader.round() == [TrimTopic(EVENTS, 2)]
    for _, future in leader.proposed:
        future.set_exception(StorageFull("reserve"))
    leader.proposed.clear()
    assert leader.round() == [TrimTopic(EVENTS, 2)]
    for _, future in leader.proposed:
        future.cancel()
    leader.proposed.clear()
    assert leader.round() == [TrimTopic(EVENTS, 2)]


def test_a_topic_that_is_deleted_while_it_is_looked_at_is_not_trimmed() -> None:
    leader = Leader(Retention(age_ms=1))
    leader.fill(3)
    leader.clock.now += INTERVAL_S
    leader.trimmer.tick()
    leader.replica.apply(DeleteTopic(EVENTS))
    leader.worker.run()
    assert leader.proposed == []
    leader.replica.checkpoint()
    assert leader.replica.disk.list_directory(TOPICS) == [f"{1:020d}"], "nothing holds its files"


def test_many_topics_are_looked_at_a_few_at_a_time() -> None:
    leader = Leader(Retention(age_ms=1))
    count = 2 * TOPICS_PER_STEP + 5
    for number in range(count - 1):
        leader.replica.apply(CreateTopic(f"t{number}", SMALL, Retention(age_ms=1)))
    ids = [topic.topic_id for topic in leader.replica.machine.topics() if topic.topic_id > 1]
    for topic_id in ids:
        leader.fill(2, topic_id)
    leader.clock.now += INTERVAL_S
    sizes = []
    for _ in range(4):
        before = len(leader.proposed)
        leader.trimmer.tick()
        leader.trimmer.tick()
        assert len(leader.worker.jobs) <= 1
        leader.worker.run()
        sizes.append(len(leader.proposed) - before)
    assert sizes == [TOPICS_PER_STEP, TOPICS_PER_STEP, 5, 0]
    assert {command for command, _ in leader.proposed} == {TrimTopic(each, 1) for each in ids}


def test_a_segment_that_cannot_be_read_stays_until_a_younger_one_is_too_old() -> None:
    leader = Leader(Retention(age_ms=60_000))
    leader.fill(4)
    disk = leader.replica.disk
    file = disk.open(segment_path(f"{TOPICS}/{EVENTS:020d}", 0, TABLE))
    file.truncate(0)
    file.close()
    assert leader.round() == []
    leader.clock.now += 3600
    assert leader.round() == [TrimTopic(EVENTS, 3)]


@pytest.mark.parametrize("retention", [Retention(size=1), Retention(age_ms=1)])
def test_an_empty_topic_is_not_asked_about(retention: Retention) -> None:
    leader = Leader(retention)
    topics = list(leader.replica.machine.topics())
    assert plan_topics(topics, 1 << 60) == []
    leader.fill(1)
    assert [planned.topic_id for planned in plan_topics(topics, 1 << 60)] == [EVENTS]
    leader.replica.apply(TrimTopic(EVENTS, 1))
    assert plan_topics(topics, 1 << 60) == []


def test_a_trim_of_the_leader_is_applied_to_the_same_bytes_on_a_node_with_another_clock() -> None:
    leader = Leader()
    leader.fill(6)
    leader.round()
    (command, _) = leader.proposed[0]
    leader.settle()
    other = Replica(journal=leader.replica.journal)
    entry = JournalEntry(encode_entry([command], 0), len(other.journal) + 1, 1)
    # A second leader that proposes the same again changes nothing.
    before = other.state()
    other.machine.apply_payload(entry.raft_index, entry.term, entry.payload)
    assert before == leader.replica.state()
    topic = other.machine.topic_by_id(EVENTS)
    assert topic is not None
    assert topic.log.start_offset == leader.start_offset == 5
