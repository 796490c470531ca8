"""What is followed of entries: it ends, whatever becomes of them, and there is never more of it than a limit."""

from __future__ import annotations

from distlog.consensus.entry_traces import (
    DISCONNECTED,
    ENTRY_COUNT_MAX,
    LET_GO,
    MESSAGE_COUNT_MAX,
    NOT_TAKEN,
    PER_ENTRY_MAX,
    ROLE_CHANGED,
    EntryTraces,
)
from distlog.consensus.messages import TRACE_COUNT_MAX, AppendEntries, AppendReply
from tests.tracing.fake_spans import FakeSpan, FakeTracer

TERM = 3


class Followed:
    """The traces of one node, and a tracer that writes down what they do."""

    def __init__(self) -> None:
        self.tracer = FakeTracer()
        self.traces = EntryTraces(self.tracer)

    def propose(self, first_index: int, *counts: int) -> list[list[FakeSpan]]:
        """Append entries with so many sampled proposals each; return their spans."""
        spans = [[FakeSpan(self.tracer, "propose") for _ in range(count)] for count in counts]
        payloads = [b"%d" % (first_index + place) for place in range(len(counts))]
        for payload, own in zip(payloads, spans, strict=True):
            if own:
                self.traces.proposed(payload, own)
        entries = [(payload, lambda _result, _failure: None) for payload in payloads]
        self.traces.numbered(entries, first_index, TERM)
        return spans

    def apply(self, *indexes: int) -> None:
        for raft_index in indexes:
            with self.traces.applying(raft_index, TERM):
                pass

    def receive(self, number: int, *indexes: int, leader: str = "n1", term: int = TERM) -> None:
        entries = [(b"x", raft_index, term) for raft_index in indexes]
        told = [(raft_index, b"\x01" * 25) for raft_index in indexes]
        first = min(indexes) - 1
        message = AppendEntries(term, number, 1, first, 1, 1, entries, told)
        self.traces.received(leader, message)

    def reply(self, number: int, *, success: bool = True, leader: str = "n1") -> None:
        self.traces.replied(leader, AppendReply(TERM, number, 9, success, False))


def told(followed: Followed, follower: str, *indexes: int) -> list[int]:
    entries = [(b"x", raft_index, TERM) for raft_index in indexes]
    return [raft_index for raft_index, _ in followed.traces.sending(follower, entries)]


def test_an_entry_is_followed_until_it_is_applied_and_everywhere() -> None:
    followed = Followed()
    followed.propose(5, 1)
    assert told(followed, "n2", 4, 5) == told(followed, "n3", 5) == [5]
    followed.traces.synced(5)
    followed.traces.acknowledged("n2", 6)
    followed.apply(5)
    assert followed.traces.is_following
    followed.traces.acknowledged("n3", 5)
    assert followed.tracer.named("replicate") == ["", None]
    followed.traces.acknowledged("n3", 6)
    assert not followed.traces.is_following
    assert {span.name for span in followed.tracer.open} == {"propose"}


def test_what_is_sent_again_is_told_again_as_the_same_and_not_after_it_is_acknowledged() -> None:
    followed = Followed()
    followed.propose(5, 1)
    first = followed.traces.sending("n2", [(b"x", 5, TERM)])
    assert followed.traces.sending("n2", [(b"x", 5, TERM)]) == first
    followed.traces.acknowledged("n2", 6)
    assert told(followed, "n2", 5) == []
    assert len(followed.tracer.named("replicate")) == 1


def test_an_entry_of_another_term_is_not_the_one_that_was_followed() -> None:
    followed = Followed()
    followed.propose(5, 1)
    assert followed.traces.sending("n2", [(b"x", 5, TERM + 1)]) == []
    with followed.traces.applying(5, TERM + 1):
        pass
    assert followed.tracer.named("apply") == []
    follower = Followed()
    follower.receive(1, 5)
    follower.receive(2, 5, term=TERM + 1)
    with follower.traces.applying(5, TERM + 1):
        pass
    (applied,) = [span for span in follower.tracer.spans if span.name == "apply"]
    assert applied.parent is follower.tracer.spans[1]


def test_of_many_proposals_in_an_entry_a_few_are_followed_and_the_others_point_to_the_first() -> (
    None
):
    followed = Followed()
    (spans,) = followed.propose(5, 100)
    for name, count in (("append", PER_ENTRY_MAX), ("replicate", PER_ENTRY_MAX)):
        assert len(told(followed, "n2", 5)) == PER_ENTRY_MAX
        assert len(followed.tracer.named(name)) == count
    assert [span.links for span in spans] == [[]] * PER_ENTRY_MAX + [[spans[0]]] * (
        100 - PER_ENTRY_MAX
    )


def test_a_message_tells_of_no_more_traces_than_its_receiver_takes() -> None:
    followed = Followed()
    followed.propose(5, *[PER_ENTRY_MAX] * 10)
    entries = range(5, 15)
    assert len(told(followed, "n2", *entries)) == TRACE_COUNT_MAX
    # Those that were told, once more; the others are not followed there.
    assert set(told(followed, "n2", *entries)) == set(
        range(5, 5 + TRACE_COUNT_MAX // PER_ENTRY_MAX)
    )
    assert len(followed.tracer.named("replicate")) == TRACE_COUNT_MAX


def test_the_oldest_entries_are_let_go_where_a_follower_never_acknowledges() -> None:
    followed = Followed()
    for raft_index in range(5, 5 + 2 * ENTRY_COUNT_MAX):
        followed.propose(raft_index, 1)
        told(followed, "n2", raft_index)
        followed.traces.synced(raft_index)
        followed.apply(raft_index)
    assert (
        followed.tracer.named("replicate") == [LET_GO] * ENTRY_COUNT_MAX + [None] * ENTRY_COUNT_MAX
    )
    followed.traces.disconnected("n2")
    assert followed.tracer.named("replicate")[-1] == DISCONNECTED
    assert not followed.traces.is_following


def test_another_role_ends_everything() -> None:
    followed = Followed()
    followed.propose(5, 2, 0, 1)
    told(followed, "n2", 5, 6, 7)
    followed.traces.role_changed()
    assert {span.name for span in followed.tracer.open} == {"propose"}
    assert set(followed.tracer.named("append")) == {ROLE_CHANGED}
    assert not followed.traces.is_following
    followed.receive(1, 9)
    followed.traces.role_changed()
    assert followed.tracer.named("append")[-1] == ROLE_CHANGED
    assert not followed.traces.is_following


def test_what_was_packed_and_could_not_be_appended_is_forgotten() -> None:
    followed = Followed()
    followed.traces.proposed(b"x", [FakeSpan(followed.tracer, "propose")])
    assert followed.traces.is_following
    followed.traces.role_changed()
    assert not followed.traces.is_following


def test_a_follower_s_part_is_append_until_its_answer_leaves_and_then_apply() -> None:
    followed = Followed()
    followed.receive(1, 5, 6)
    followed.traces.synced(6)
    assert followed.tracer.named("append") == [None, None]
    followed.reply(2)
    followed.reply(1, leader="n3")
    assert followed.tracer.named("append") == [None, None]
    followed.reply(1)
    assert followed.tracer.named("append") == ["", ""]
    followed.apply(5, 6)
    assert followed.tracer.named("apply") == ["", ""]
    assert not followed.traces.is_following


def test_entries_that_are_not_taken_say_so() -> None:
    followed = Followed()
    followed.receive(1, 5)
    followed.reply(1, success=False)
    assert followed.tracer.named("append") == [NOT_TAKEN]


def test_a_leader_that_is_gone_is_answered_no_more() -> None:
    followed = Followed()
    followed.receive(1, 5)
    followed.traces.disconnected("n3")
    assert followed.tracer.named("append") == [None]
    followed.traces.disconnected("n1")
    assert followed.tracer.named("append") == [DISCONNECTED]


def test_messages_that_are_never_answered_are_let_go() -> None:
    followed = Followed()
    for number in range(2 * MESSAGE_COUNT_MAX):
        followed.receive(number, number + 5)
    assert followed.tracer.named("append").count(None) == MESSAGE_COUNT_MAX
    assert followed.tracer.named("append").count(LET_GO) == MESSAGE_COUNT_MAX
