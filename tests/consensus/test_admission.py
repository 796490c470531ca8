"""What a leader may propose while other proposals are in flight."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distlog.consensus.admission import Admission
from distlog.consensus.commands import (
    Append,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.producers import WINDOW_SEQUENCE_COUNT
from distlog.consensus.results import AppendResult, ProducerOpened, Result, TopicCreated
from distlog.errors import (
    DistlogError,
    InvalidRequest,
    OffsetOutOfRange,
    OutOfSequence,
    Overloaded,
    ProducerFenced,
    ProducerUnknown,
    TopicExists,
    TopicNotFound,
)
from distlog.storage.segment_files import SegmentLimits
from tests.consensus.entries import append
from tests.consensus.states import Replica, topic_id


@dataclass(eq=False)
class Proposal:
    """A command in flight, and its outcome once it has one."""

    command: Command
    outcomes: list[Result] = field(default_factory=list)


class Leader:
    """A replica that proposes, and decides when what it proposed is applied."""

    def __init__(self) -> None:
        self.replica = Replica()
        self.admission: Admission[Proposal] = Admission(self.replica.machine)
        self.in_flight: list[Proposal] = []

    def propose(self, command: Command) -> Proposal | AppendResult | DistlogError:
        proposal = Proposal(command)
        admitted = self.admission.admit(command, proposal)
        if admitted is proposal:
            self.in_flight.append(proposal)
        return admitted

    def apply(self) -> list[Result]:
        """Apply everything in flight as one entry."""
        proposals, self.in_flight = self.in_flight, []
        results = self.replica.apply(*[proposal.command for proposal in proposals])
        for proposal, result in zip(proposals, results, strict=True):
            self.admission.settle(proposal.command)
            proposal.outcomes.append(result)
        return results

    def open(self, producer_id: int = 0) -> ProducerOpened:
        self.propose(OpenProducer(producer_id))
        result = self.apply()[-1]
        assert isinstance(result, ProducerOpened)
        return result


@pytest.fixture
def leader() -> Leader:
    return Leader()


def stamped(
    opened: ProducerOpened, sequence: int, record: bytes = b"x", topic_id: int = 1
) -> Append:
    stamp = ProducerStamp(opened.producer_id, opened.epoch, sequence)
    return append(record, topic_id=topic_id, stamp=stamp)


# --- Without a producer ---------------------------------------------------------------------------


def test_an_append_without_a_producer_is_admitted_every_time(leader: Leader) -> None:
    command = append(b"x")
    assert [type(leader.propose(command)) for _ in range(3)] == [Proposal] * 3
    assert [result.base_offset for result in leader.apply()] == [0, 1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        pytest.param(append(b"x", topic_id=99), TopicNotFound, id="append to no topic"),
        pytest.param(CreateTopic("default", SegmentLimits()), TopicExists, id="create twice"),
        pytest.param(TrimTopic(1, 1), OffsetOutOfRange, id="trim beyond the end"),
        pytest.param(DeleteTopic(1), InvalidRequest, id="delete default"),
        pytest.param(ConfigureTopic(1, None, None), InvalidRequest, id="configure nothing"),
        pytest.param(ConfigureTopic(99, 1, None), TopicNotFound, id="configure no topic"),
        pytest.param(OpenProducer(7), ProducerUnknown, id="open an unknown producer"),
    ],
)
def test_what_apply_would_refuse_is_not_proposed(
    leader: Leader, command: Command, error: type[DistlogError]
) -> None:
    assert isinstance(leader.propose(command), error)
    assert leader.in_flight == []


# --- Sequences in flight --------------------------------------------------------------------------


def test_sequences_may_follow_each_other_before_the_first_is_applied(leader: Leader) -> None:
    producer = leader.open()
    for sequence in range(3):
        assert isinstance(leader.propose(stamped(producer, sequence)), Proposal)
    assert [result.base_offset for result in leader.apply()] == [0, 1, 2]  # type: ignore[union-attr]


def test_a_repeat_of_a_sequence_in_flight_waits_for_the_same_outcome(leader: Leader) -> None:
    producer = leader.open()
    first = leader.propose(stamped(producer, 0))
    leader.propose(stamped(producer, 1))
    assert leader.propose(stamped(producer, 0)) is first
    assert len(leader.in_flight) == 2


def test_a_repeat_of_an_applied_sequence_gets_the_first_answer_at_once(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(append(b"a", b"b"))
    leader.propose(stamped(producer, 0))
    leader.apply()
    assert leader.propose(stamped(producer, 0)) == AppendResult(2, 1, duplicate=True)
    # Also while a later one is in flight.
    leader.propose(stamped(producer, 1))
    assert leader.propose(stamped(producer, 0)) == AppendResult(2, 1, duplicate=True)


def test_a_gap_after_what_is_in_flight_is_refused(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(stamped(producer, 0))
    refused = leader.propose(stamped(producer, 2))
    assert isinstance(refused, OutOfSequence)
    assert (refused.expected, refused.actual) == (1, 2)


def test_producers_and_topics_do_not_disturb_each_other(leader: Leader) -> None:
    leader.propose(CreateTopic("orders", SegmentLimits()))
    leader.apply()
    orders = topic_id(leader.replica, "orders")
    some, other = leader.open(), leader.open()
    for producer in (some, other):
        for topic in (1, orders):
            assert isinstance(leader.propose(stamped(producer, 0, topic_id=topic)), Proposal)
    assert leader.admission.in_flight_count == 4


def test_no_more_are_in_flight_than_the_table_remembers(leader: Leader) -> None:
    producer = leader.open()
    for sequence in range(WINDOW_SEQUENCE_COUNT):
        assert isinstance(leader.propose(stamped(producer, sequence)), Proposal)
    assert isinstance(leader.propose(stamped(producer, WINDOW_SEQUENCE_COUNT)), Overloaded)
    leader.apply()
    assert isinstance(leader.propose(stamped(producer, WINDOW_SEQUENCE_COUNT)), Proposal)


def test_a_sequence_that_was_never_proposed_may_be_sent_again_before_those_after_it(
    leader: Leader,
) -> None:
    producer = leader.open()
    leader.propose(stamped(producer, 0))
    leader.propose(stamped(producer, 1))
    dropped = leader.in_flight.pop(0)
    leader.admission.settle(dropped.command)
    assert isinstance(leader.propose(stamped(producer, 0, b"again")), Proposal)
    refused, appended = leader.apply()
    assert isinstance(refused, OutOfSequence)
    assert appended == AppendResult(0, 1, duplicate=False)
    assert isinstance(leader.propose(stamped(producer, 1)), Proposal)


def test_after_a_sequence_is_sent_again_the_next_one_may_follow_it(leader: Leader) -> None:
    producer = leader.open()
    for sequence in range(3):
        leader.propose(stamped(producer, sequence))
    dropped, doomed, also_doomed = leader.in_flight
    leader.admission.settle(dropped.command)
    leader.propose(stamped(producer, 0, b"again"))
    again = leader.in_flight[-1]
    # What followed the hole is refused before the sequence that fills it is applied.
    leader.in_flight = [doomed]
    leader.apply()
    assert isinstance(leader.propose(stamped(producer, 1, b"again")), Proposal)
    leader.in_flight = [also_doomed, again, *leader.in_flight]
    assert [type(result) for result in leader.apply()] == [
        OutOfSequence,
        AppendResult,
        AppendResult,
    ]


def test_nothing_is_kept_of_what_was_settled(leader: Leader) -> None:
    producer = leader.open()
    for sequence in range(40):
        leader.propose(stamped(producer, sequence))
        leader.apply()
    assert leader.admission.in_flight_count == 0


# --- What changes while it is in flight -----------------------------------------------------------


def test_an_epoch_opened_in_flight_fences_what_follows_it(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(stamped(producer, 0))
    leader.propose(OpenProducer(producer.producer_id))
    leader.propose(stamped(producer, 1))
    results = leader.apply()
    assert results[:2] == [AppendResult(0, 1, False), ProducerOpened(producer.producer_id, 1)]
    assert isinstance(results[2], ProducerFenced)
    assert isinstance(leader.propose(stamped(producer, 1)), ProducerFenced)
    assert isinstance(leader.propose(stamped(ProducerOpened(producer.producer_id, 1), 0)), Proposal)


def test_the_new_epoch_may_write_while_the_old_one_is_still_settling(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(OpenProducer(producer.producer_id))
    leader.propose(stamped(producer, 0))
    opening, append_of_old = leader.in_flight
    leader.replica.apply(opening.command)
    leader.admission.settle(opening.command)
    leader.in_flight = [append_of_old]
    renewed = ProducerOpened(producer.producer_id, 1)
    assert isinstance(leader.propose(stamped(renewed, 0)), Proposal)
    fenced, appended = leader.apply()
    assert isinstance(fenced, ProducerFenced)
    assert appended == AppendResult(0, 1, False)


def test_two_openings_of_one_producer_leave_only_the_second_one_usable(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(OpenProducer(producer.producer_id))
    leader.propose(OpenProducer(producer.producer_id))
    epochs = [result.epoch for result in leader.apply()]  # type: ignore[union-attr]
    assert epochs == [1, 2]
    assert isinstance(
        leader.propose(stamped(ProducerOpened(producer.producer_id, 1), 0)), ProducerFenced
    )


def test_an_append_to_a_topic_whose_deletion_is_in_flight_is_refused_when_applied(
    leader: Leader,
) -> None:
    leader.propose(CreateTopic("orders", SegmentLimits()))
    leader.apply()
    orders = topic_id(leader.replica, "orders")
    leader.propose(DeleteTopic(orders))
    assert isinstance(leader.propose(append(b"x", topic_id=orders)), Proposal)
    assert isinstance(leader.apply()[1], TopicNotFound)
    assert isinstance(leader.propose(append(b"x", topic_id=orders)), TopicNotFound)


def test_the_second_of_two_equal_creations_in_flight_is_refused_when_applied(
    leader: Leader,
) -> None:
    for _ in range(2):
        assert isinstance(leader.propose(CreateTopic("orders", SegmentLimits())), Proposal)
    created, refused = leader.apply()
    assert isinstance(created, TopicCreated)
    assert isinstance(refused, TopicExists)


def test_what_was_in_flight_is_forgotten_when_leadership_is_lost(leader: Leader) -> None:
    producer = leader.open()
    leader.propose(stamped(producer, 0))
    leader.propose(stamped(producer, 1))
    leader.admission.clear()
    # The next leader committed the first of the two only, and this node leads again.
    leader.replica.apply(leader.in_flight[0].command)
    leader.in_flight = []
    assert leader.propose(stamped(producer, 0)) == AppendResult(0, 1, duplicate=True)
    assert isinstance(leader.propose(stamped(producer, 1)), Proposal)


# --- Any order of everything ----------------------------------------------------------------------


class Retries(RuleBasedStateMachine):
    """Two producers that pipeline and repeat, a leader that applies, drops and forgets: nothing is there twice."""

    @initialize()
    def start(self) -> None:
        self.leader = Leader()
        self.producers = [self.leader.open(), self.leader.open()]
        self.sent = [0, 0]
        # (producer, sequence) -> every offset that was ever answered.
        self.answers: dict[tuple[int, int], set[int]] = {}

    @rule(who=st.integers(0, 1), back=st.integers(0, 18))
    def send(self, who: int, back: int) -> None:
        sequence = max(0, self.sent[who] - back)
        record = b"%d:%d" % (who, sequence)
        outcome = self.leader.propose(stamped(self.producers[who], sequence, record))
        if isinstance(outcome, Proposal) and sequence == self.sent[who]:
            self.sent[who] += 1
        if isinstance(outcome, AppendResult):
            self.answered(outcome, record)
        if isinstance(outcome, OutOfSequence):
            # Only what is too old to remember, or what follows a hole that a lost proposal has left.
            assert sequence != outcome.expected

    @precondition(lambda self: self.leader.in_flight)
    @rule(count=st.integers(1, 20))
    def apply(self, count: int) -> None:
        later = self.leader.in_flight[count:]
        applied = self.leader.in_flight = self.leader.in_flight[:count]
        for proposal, result in zip(applied, self.leader.apply(), strict=True):
            assert isinstance(proposal.command, Append)
            if isinstance(result, AppendResult):
                self.answered(result, next(proposal.command.block.records()))
        self.leader.in_flight = later

    @precondition(lambda self: self.leader.in_flight)
    @rule(place=st.integers(0, 3))
    def drop(self, place: int) -> None:
        dropped = self.leader.in_flight.pop(place % len(self.leader.in_flight))
        self.leader.admission.settle(dropped.command)

    @rule(committed=st.booleans())
    def lose_leadership(self, committed: bool) -> None:
        lost, self.leader.in_flight = self.leader.in_flight, []
        self.leader.admission.clear()
        if committed and lost:
            self.leader.replica.apply(*[proposal.command for proposal in lost])

    def answered(self, result: AppendResult, record: bytes) -> None:
        assert self.leader.replica.records()[result.base_offset] == record
        self.answers.setdefault(tuple(map(int, record.split(b":"))), set()).add(result.base_offset)  # type: ignore[arg-type]

    @invariant()
    def every_record_is_there_once_and_in_order(self) -> None:
        records = self.leader.replica.records()
        for who in range(2):
            own = [record for record in records if record.startswith(b"%d:" % who)]
            assert own == [b"%d:%d" % (who, sequence) for sequence in range(len(own))]

    @invariant()
    def every_answer_for_a_record_is_the_same(self) -> None:
        assert all(len(offsets) == 1 for offsets in self.answers.values())

    @invariant()
    def the_admission_holds_what_is_in_flight_and_nothing_else(self) -> None:
        assert self.leader.admission.in_flight_count == len(self.leader.in_flight)


Retries.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestRetries = Retries.TestCase
