"""Well-formed messages of an accepted peer that means harm: what it can do has bounds, and the node says what it did.

What only a leader can do, and what stops a node on purpose, is in docs/decisions/0011-what-an-accepted-peer-can-do.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest

from distlog.consensus import inbox, reads
from distlog.consensus.journal import Journal
from distlog.consensus.messages import (
    TERM_JUMP_MAX,
    AppendEntries,
    AppendReply,
    LeadershipQuery,
    Message,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    TermNotice,
    VoteReply,
    VoteRequest,
)
from distlog.consensus.raft import HELD_MAX
from distlog.consensus.rules import ConsensusViolated
from distlog.peer.frames import CONTROL, Channel, FrameDecoder, encode_frame
from distlog.peer.handshake import Accepted, Refused, decode_message, encode_message
from distlog.peer.limits import PeerLimits
from tests.fuzz.mutations import encoded
from tests.fuzz.recording import newer_greeting, recorded
from tests.fuzz.victim import HOSTILE, State, Victim, Wire
from tests.simulation.virtual_loop import VirtualLoop

LARGEST = (1 << 63) - 1


def besieged(main: Callable[[Victim], Any], *, leads: bool = False) -> None:
    """Run `main` on a victim; whatever a callback raises fails the test."""
    recording, raised = recorded(), list[Any]()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_exception_handler(lambda _, context: raised.append(context))
        victim = Victim(loop, recording, 1)
        await victim.start(leads=leads)
        await main(victim)
        victim.abandon()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())
    assert not raised, raised


def append(victim: Victim, **changes: Any) -> AppendEntries:
    """Return a heartbeat that fits the victim's log, with changes."""
    last = victim.last_index
    message = AppendEntries(
        sender_term=victim.term,
        number=1,
        commit_index=last,
        previous_index=last,
        previous_term=victim.term_at(last) or 0,
        retain_from=1,
    )
    return msgspec.structs.replace(message, **changes)


# --- Who is not a peer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_id": "another"}, "n2 belongs to cluster another"),
        ({"directory_id": "stolen"}, "not the one that the cluster knows"),
        ({"node_id": "n1"}, "two nodes call themselves n1"),
        ({"node_id": "n9"}, "not one of the nodes named in --peers"),
        ({"protocol_version": 9}, "run the same version of distlog on both"),
    ],
    ids=[
        "another cluster",
        "stolen node id",
        "own node id",
        "unknown node",
        "another version",
    ],
)
def test_who_is_no_peer_is_told_why_counted_logged_and_changes_nothing(
    changes: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(victim: Victim) -> None:
        before = victim.state()
        for count in range(1, 4):
            wire = victim.wire()
            forged = victim.greeting(HOSTILE, **changes) + encode_message(Accepted())
            wire.feed(forged + encoded(VoteRequest(99, LARGEST, 99)))
            await victim.settle()
            assert wire.is_closed
            assert victim.counters["peers_refused"] == count
            assert words in refusal(wire)
        assert victim.state() == before

    besieged(main)
    told = [each.getMessage() for each in caplog.records if "peer refused" in each.getMessage()]
    # Who is unknown may be known a moment later: that is logged when it lasts.
    assert len(told) == ("node_id" not in changes or changes["node_id"] == "n1")
    assert all(words in line for line in told)


def refusal(wire: Wire) -> str:
    """Return the words with which the victim hung up."""
    decoder = FrameDecoder(PeerLimits().payload_size_max())
    decoder.receive_data(bytes(wire.written))
    said = []
    while (frame := decoder.next_frame()) is not None:
        if frame.channel == CONTROL:
            said.append(decode_message(frame.payload))
    assert isinstance(said[-1], Refused)
    return said[-1].problem


def test_a_greeting_of_a_later_version_is_told_so() -> None:
    async def main(victim: Victim) -> None:
        wire = victim.wire()
        wire.feed(newer_greeting(victim.recording.hellos[HOSTILE]))
        await victim.settle()
        assert "run the same version of distlog on both" in refusal(wire)
        assert victim.counters["peers_refused"] == 1

    besieged(main)


# --- What an accepted peer may not say ----------------------------------------------------------------


def too_far(term: int) -> list[Message]:
    return [
        VoteRequest(term, LARGEST, term),
        TermNotice(term),
        AppendEntries(term, 1, 1, 1, 0, 1),
        PreVoteRequest(term, 1, LARGEST, term),
        VoteReply(term),
        LeadershipQuery(term, 1),
    ]


@pytest.mark.parametrize("kind", range(6))
@pytest.mark.parametrize("jump", [TERM_JUMP_MAX + 1, LARGEST])
def test_terms_cannot_be_used_up(kind: int, jump: int) -> None:
    async def main(victim: Victim) -> None:
        before, wire = victim.state(), victim.connected(HOSTILE)
        message = too_far(min(LARGEST, victim.term + jump))[kind]
        wire.feed(encoded(message))
        await victim.settle()
        assert wire.is_closed
        assert victim.counters["peers_refused"] == 1
        assert "is too far beyond this node's" in refusal(wire)
        assert victim.state() == before

    besieged(main)


def test_a_term_within_reach_is_taken_over_and_no_election_is_lost_by_it() -> None:
    async def main(victim: Victim) -> None:
        wire = victim.connected(HOSTILE)
        term = victim.term + 1000
        wire.feed(encoded(TermNotice(term)))
        await victim.settle()
        assert (victim.term, victim.node.replicated_log.is_leader) == (term, False)
        for _ in range(500):
            await victim.loop.pass_time(0.01)
            victim.answer()
        assert victim.node.replicated_log.is_leader, "with the votes of the others"
        assert victim.term == term + 1

    besieged(main, leads=True)


def test_a_vote_of_a_term_that_nobody_asked_in_counts_for_nothing_and_hides_no_other() -> None:
    async def main(victim: Victim) -> None:
        wire = victim.connected(HOSTILE)
        wire.feed(encoded(VoteReply(victim.term + 1000)))
        wire.feed(encoded(TermNotice(victim.term + 10)))
        await victim.settle()
        for _ in range(500):
            await victim.loop.pass_time(0.01)
            victim.answer()
        assert victim.node.replicated_log.is_leader

    besieged(main, leads=True)


def test_numbers_beyond_the_journal_are_answered_and_change_nothing() -> None:
    async def main(victim: Victim) -> None:
        wire = victim.connected(HOSTILE)
        wire.feed(encoded(append(victim)))
        await victim.settle()
        before = victim.state()
        beyond: list[dict[str, Any]] = [
            {"previous_index": LARGEST, "previous_term": victim.term},
            {"previous_index": victim.last_index + 1},
            {"commit_index": LARGEST},
            {"number": LARGEST},
            {"retain_from": LARGEST},
        ]
        for changes in beyond:
            wire.feed(encoded(append(victim, **changes)))
            await victim.settle()
        assert not wire.is_closed
        assert victim.state() == before
        assert victim.group.raft.retain_from <= victim.group.raft.commit_index

    besieged(main)


def test_answers_about_entries_that_there_are_not_change_nothing() -> None:
    async def main(victim: Victim) -> None:
        wire, term = victim.connected(HOSTILE), victim.term
        await victim.settle()
        before, matched = victim.state(), dict(victim.group.raft.matched)
        for next_index in (0, victim.last_index + 2, LARGEST):
            for success, reset in ((True, False), (False, True), (True, True)):
                reply = AppendReply(term, LARGEST, next_index, success, reset, is_full=True)
                wire.feed(encoded(reply))
        await victim.settle()
        assert victim.state() == before
        assert {**matched, **victim.group.raft.matched} == matched

    besieged(main, leads=True)


def test_a_refusal_that_asks_for_what_nobody_keeps_concerns_only_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The journal of this short recording is whole: let it begin late, as a compacted one does.
    monkeypatch.setattr(Journal, "first_index", property(lambda self: self.last_index - 3))

    async def main(victim: Victim) -> None:
        wire, term = victim.connected(HOSTILE), victim.term
        for number in range(5):
            sent = victim.group.raft.outgoing.sent_count + number
            wire.feed(encoded(AppendReply(term, sent + 100, 1, success=False, reset=True)))
            await victim.settle()
            await victim.loop.pass_time(0.06)
        assert victim.node.replicated_log.is_leader
        assert victim.group.raft.stranded == {HOSTILE}
        wire.lose()
        await victim.settle()
        assert victim.group.raft.stranded == set()

    besieged(main, leads=True)


# --- Floods ------------------------------------------------------------------------------------------


def test_who_sends_more_than_the_inbox_holds_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "COUNT_MAX", 1000)

    async def main(victim: Victim) -> None:
        wire = victim.connected(HOSTILE)
        wire.feed(encoded(LeadershipQuery(1, 1)) * 1001)
        assert len(victim.group.inbox) == 1000
        await victim.settle()
        assert wire.is_closed
        assert "it floods this node" in refusal(wire)
        assert len(victim.group.inbox) == 0

    besieged(main)


def test_questions_for_the_read_index_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "WAITING_MAX", 100)

    async def main(victim: Victim) -> None:
        victim._honest = None  # No majority answers any more.
        wire = victim.connected(HOSTILE)
        wire.written.clear()
        for number in range(500):
            wire.feed(encoded(ReadIndexRequest(victim.term, number)))
        await victim.loop.pass_time(0.2)
        assert len(victim.group.reads._next) == 100
        refused = encoded(ReadIndexReply(victim.term, 499, None))
        assert bytes(wire.written).count(refused[-8:]) >= 1

    besieged(main, leads=True)


def test_answers_that_wait_for_a_slow_disk_are_limited() -> None:
    async def main(victim: Victim) -> None:
        held: list[Callable[[], None]] = []

        class SlowWorker:
            def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
                future = asyncio.get_running_loop().create_future()

                def finish() -> None:
                    future.set_result(function(*args))

                held.append(finish)
                return future

            def sync(self, file: Any) -> asyncio.Future[Any]:
                return self.submit(file.sync)

        group = victim.group
        give_worker(group, SlowWorker())
        wire = victim.connected(HOSTILE)
        # A new term is written down before anything is answered, and the disk is slow.
        wire.feed(encoded(append(victim, sender_term=victim.term + 1)))
        await victim.settle()
        heartbeat = encoded(append(victim, sender_term=victim.term))
        for _ in range(250):
            wire.feed(heartbeat * 64)
            await victim.settle()
        gate = group.raft._rules.persistence_gate
        assert HELD_MAX <= gate.held_count < HELD_MAX + 64
        assert len(group.inbox) > 0
        wire.written.clear()
        while held or len(group.inbox):
            for finish in held:
                finish()
            held.clear()
            await victim.loop.pass_time(0.001)
        assert gate.held_count == 0, "and then everything is answered"
        assert not wire.is_closed

    besieged(main)


def give_worker(group: Any, worker: Any) -> None:
    """Give a group another journal worker."""
    group.journal_sync._worker = worker


# --- What stops a node on purpose -----------------------------------------------------------------


def test_a_leader_that_disagrees_about_what_is_applied_stops_the_node_with_its_files_as_they_are() -> (
    None
):
    async def main(victim: Victim) -> None:
        before: State = victim.state()
        wire = victim.connected(HOSTILE)
        wire.feed(
            encoded(append(victim, previous_term=before.term + 1, sender_term=before.term + 1))
        )
        await victim.settle()
        error = victim.node.failed.exception()
        assert isinstance(error, ConsensusViolated)
        assert "disagrees about applied entry" in str(error)
        assert victim.state().high_watermarks == before.high_watermarks

    besieged(main)


def test_two_leaders_of_one_term_stop_the_one_that_sees_it() -> None:
    async def main(victim: Victim) -> None:
        wire = victim.connected(HOSTILE)
        wire.feed(encoded(append(victim)))
        await victim.settle()
        error = victim.node.failed.exception()
        assert isinstance(error, ConsensusViolated)
        assert f"n2 leads term {victim.term}, and so does this node" in str(error)

    besieged(main, leads=True)


# --- A peer that breaks the protocol again and again -------------------------------------------------


def test_a_peer_that_comes_back_at_any_rate_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main(victim: Victim) -> None:
        source = Random(1)
        for _ in range(1000):
            wire = victim.connected(HOSTILE)
            wire.feed(encode_frame(Channel.RAFT, 0, source.randbytes(20)))
            await victim.settle()
            assert wire.is_closed
            await victim.loop.pass_time(0.005)
        assert victim.counters["peers_refused"] == 1000

    besieged(main)
    told = [each for each in caplog.records if "peer refused" in each.getMessage()]
    assert 5 <= len(told) <= 7, "five seconds, one line a second"
