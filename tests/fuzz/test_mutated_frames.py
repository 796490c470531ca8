"""Mutated frames at a running node: the connection is closed with a reason and a counter, and nothing else happens.

A seed is 500 frames, half of them in frames whose size and checksum are right again; `make fuzz` runs 200 seeds.  Whether a frame
is a legal message is decided by decoders of the test's own instance; what a legal message may change is said in `check_change`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections import Counter
from random import Random
from typing import Any

import pytest

from distlog.catch_up.messages import decode as decode_file
from distlog.consensus import messages
from distlog.consensus.messages import (
    AppendEntries,
    AppendReply,
    Message,
    PreVoteReply,
    TermNotice,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from distlog.consensus.rules import ConsensusViolated
from distlog.discovery.gossip_rows import MalformedRows, decode_rows
from distlog.errors import EntryCorrupt, EntryUnknown, PeerRefused
from distlog.peer.connection import Connection, VersionDiffers, Violated
from distlog.peer.frames import Channel, Frame, FrameDecoder
from distlog.peer.handshake import (
    Accepted,
    Greeting,
    Refused,
    decode_message,
    encode_message,
    printable,
)
from distlog.peer.limits import PeerLimits
from tests.fuzz.line_coverage import LineCoverage
from tests.fuzz.mutations import encoded, hostile, raw, reframed
from tests.fuzz.recording import Recording, recorded
from tests.fuzz.victim import HOSTILE, VICTIM, State, Victim, Wire
from tests.simulation.virtual_loop import VirtualLoop

FRAMES_PER_SEED = 500
# A victim is used for so many, and no more once it is in a term that few recorded frames are of.
FRAMES_PER_VICTIM = 125
TERMS_MAX = 8
# What ends a node on purpose, and only an AppendEntries can lead to (docs/decisions/0011).
BY_DESIGN = (ConsensusViolated, EntryCorrupt, EntryUnknown)
RAISES_TERM = (AppendEntries, VoteRequest, TermNotice)
CAMPAIGNS = (PreVoteReply, TimeoutNow, VoteReply)


class Judge:
    """Says what of a stream the node must take for messages, and whether it must hang up."""

    def __init__(self, recording: Recording) -> None:
        self._own = recording.hellos[VICTIM]
        self._peer = recording.hellos[HOSTILE]
        self._connection = Connection(PeerLimits())

    def open(self) -> None:
        """Take the handshake for done."""
        greeting = encode_message(Greeting(1, 1, self._peer))
        self.judge(greeting + encode_message(Accepted()), own_term=0)

    @property
    def waits_for_more(self) -> bool:
        """Tell whether a frame is incomplete: what comes next would only be its rest."""
        return self._connection.buffered_size > 0

    def judge(self, data: bytes, own_term: int) -> tuple[list[Message], bool]:
        """Return the legal messages of a stream before the first offence, and whether there is one."""
        connection, legal = self._connection, []
        connection.receive_data(data)
        while (event := connection.next_event()) is not None:
            if isinstance(event, Greeting):
                if event.hello != self._peer:
                    # Who else is welcome is the node's business: such a stream is only watched.
                    connection.close()
                    return legal, False
                connection.greet(Greeting(1, 1, self._own))
                connection.accept()
            elif isinstance(event, Frame):
                if event.group:
                    return legal, True
                try:
                    if event.channel == Channel.GOSSIP:
                        # Nor does that.
                        decode_rows(event.payload)
                        continue
                    if event.channel == Channel.FILES:
                        # It changes nothing that a `State` has.
                        decode_file(event.payload, HOSTILE)
                        continue
                    message = messages.decode(event.payload, HOSTILE)
                    messages.check_term(message, own_term, HOSTILE)
                except (PeerRefused, MalformedRows):
                    return legal, True
                legal.append(message)
            elif isinstance(event, VersionDiffers):
                connection.close()
                return legal, True
            elif isinstance(event, Refused):
                # This end hangs up, and that is no offence.
                return legal, False
            elif isinstance(event, Violated):
                return legal, True
        return legal, False


def check_change(before: State, after: State, legal: list[Message], leads: bool) -> None:
    """Hold what changed against what the legal messages may change."""
    kinds = tuple({type(message) for message in legal})
    if not any(issubclass(kind, (*RAISES_TERM, *CAMPAIGNS, AppendReply)) for kind in kinds):
        assert after == before, f"{kinds} must not change anything"
        return
    highest = max((m.sender_term for m in legal if isinstance(m, RAISES_TERM)), default=0)
    campaigns = any(issubclass(kind, CAMPAIGNS) for kind in kinds)
    assert before.term <= after.term <= max(before.term, highest) + campaigns
    assert after.sequence >= before.sequence
    if after.term == before.term:
        assert before.vote is None or after.vote == before.vote, "one vote in a term"
    assert after.last_applied >= before.last_applied
    if AppendEntries not in kinds:
        assert after.last_index >= before.last_index
        assert leads or campaigns or after.last_applied == before.last_applied
    for old, new in zip(before.high_watermarks, after.high_watermarks, strict=False):
        assert old[0] != new[0] or old[2] <= new[2], "logs only grow"


class Attack:
    """One victim, and frames at it until it is used up."""

    def __init__(self, recording: Recording, source: Random, *, leads: bool) -> None:
        self.recording = recording
        self.source = source
        self.leads = leads
        self.outcomes: Counter[str] = Counter()
        self._messages = recording.messages()

    async def run(self, loop: VirtualLoop, count: int) -> int:
        """Send up to `count` frames to a new victim; return how many it took."""
        victim = Victim(loop, self.recording, self.source.getrandbits(32))
        # Whether this victim was sent a legal AppendEntries.
        self._appends = False
        await victim.start(leads=self.leads)
        wire, judge = self._greeted(victim)
        try:
            for number in range(count):
                is_framed = self.source.random() < 0.5
                if not is_framed and self.source.random() < 0.1:
                    # Somebody who has not said who it is.
                    stream = raw(self.recording.control, self.source)
                    await self._strike(victim, victim.wire(), Judge(self.recording), stream)
                else:
                    if wire.is_closed:
                        wire, judge = self._greeted(victim)
                    await self._strike(victim, wire, judge, self._stream(victim, is_framed))
                if victim.node.failed.done():
                    error = victim.node.failed.exception()
                    assert isinstance(error, BY_DESIGN), repr(error)
                    self.outcomes[type(error).__name__] += 1
                    return number + 1
                if not victim.takes(HOSTILE):
                    # It led, and what it sent as the configuration has put itself out.
                    self.outcomes["put itself out"] += 1
                    return number + 1
                if victim.state().term > self.recording.term + TERMS_MAX:
                    return number + 1
            return count
        finally:
            victim.abandon()

    def _greeted(self, victim: Victim) -> tuple[Wire, Judge]:
        judge = Judge(self.recording)
        judge.open()
        return victim.connected(HOSTILE), judge

    def _stream(self, victim: Victim, is_framed: bool) -> bytes:
        source, recording = self.source, self.recording
        share = source.random()
        frames = recording.consensus if share < 0.75 else recording.control
        frames = recording.files if share < 0.1 else frames
        if not is_framed:
            return raw(frames, source)
        if source.random() < 0.5:
            return reframed(frames, source)
        return encoded(hostile(self._messages, source, victim))

    async def _strike(self, victim: Victim, wire: Wire, judge: Judge, stream: bytes) -> None:
        before, closures = victim.state(), victim.closures
        legal, offends = judge.judge(stream, before.term)
        place = self.source.randrange(len(stream) + 1)
        self._appends = self._appends or any(isinstance(m, AppendEntries) for m in legal)
        wire.feed(stream[:place])
        wire.feed(stream[place:])
        await victim.settle()
        self.outcomes["frames"] += 1
        if not victim.node.failed.done():
            after = victim.state()
            check_change(before, after, legal, self.leads)
            self.outcomes["appended"] += after.last_index > before.last_index
            self.outcomes["deleted"] += after.last_index < before.last_index
            self.outcomes["applied"] += after.last_applied > before.last_applied
            self.outcomes["new term"] += after.term > before.term
        else:
            # What was appended earlier may be committed only now.
            assert self._appends
        if offends:
            self.outcomes["closed"] += 1
            assert wire.is_closed or victim.node.failed.done()
            assert victim.closures == closures + 1 or victim.node.failed.done()
        for message in legal:
            self.outcomes[type(message).__name__] += 1
        if judge.waits_for_more and not offends:
            self.outcomes["incomplete"] += 1
            wire.lose()


def attack(seed: int, count: int, *, leads: bool) -> Counter[str]:
    """Send `count` frames to victims that lead, or follow; return what became of them."""
    recording, source = recorded(), Random(seed)
    raised: list[Any] = []

    async def main() -> Counter[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.set_exception_handler(lambda _, context: raised.append(context))
        waves, sent = Attack(recording, source, leads=leads), 0
        while sent < count:
            sent += await waves.run(loop, min(FRAMES_PER_VICTIM, count - sent))
        return waves.outcomes

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        outcomes = runner.run(main())
    assert not raised, raised
    return outcomes


@pytest.mark.seeds(20)
@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_mutated_frames_close_the_connection_and_change_nothing(
    seed: int, leads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    outcomes = attack(seed, FRAMES_PER_SEED // 2, leads=leads)
    print(dict(outcomes))
    assert outcomes["closed"] > FRAMES_PER_SEED // 10
    reasons = [record.getMessage() for record in caplog.records]
    assert any(
        reason.startswith("peer broke the protocol: ") and "peer=n2 problem=" in reason
        for reason in reasons
    )
    assert any("peer refused peer=n2 problem=" in reason for reason in reasons)


# --- What the attacks reach, and what they leave behind ----------------------------------------------

DECODERS = (
    FrameDecoder,
    Connection,
    decode_message,
    printable,
    messages.decode,
    messages.check_term,
    messages._check_entries,
    messages._check_configuration,
    decode_rows,
)


def test_the_attacks_reach_every_part_of_the_decoders_and_of_what_follows_them() -> None:
    recorded()
    coverage = LineCoverage(DECODERS)
    outcomes: Counter[str] = Counter()
    for seed in range(6):
        outcomes += coverage.during(lambda seed=seed: attack(seed, 400, leads=bool(seed % 2)))
    print(f"{coverage.ratio:.1%} of {len(coverage.lines)} lines of the decoders; not run:")
    print(*coverage.missing(), sep="\n")
    assert coverage.ratio >= 0.95
    reached = ("closed", "appended", "applied", "new term", "ConsensusViolated", "EntryCorrupt")
    assert [name for name in reached if not outcomes[name]] == []
    kinds = {kind.__name__ for kind in messages.Message.__args__}
    assert kinds - outcomes.keys() <= {"PreVoteReply", "TimeoutNow"}, (
        "most kinds arrive unharmed too"
    )


def test_refused_frames_leave_nothing_behind() -> None:
    recording, source = recorded(), Random(1)

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        victim = Victim(loop, recording, 1)
        await victim.start(leads=False)
        sizes, refused = [], 0
        for _ in range(3):
            refused += await refuse_many(victim, recording, source, 700)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        victim.abandon()
        return refused, sizes[-1] - sizes[0]

    tracemalloc.start()
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            refused, growth = runner.run(main())
    finally:
        tracemalloc.stop()
    print(f"{refused} connections closed, {growth} bytes more in use after the last 1,400 frames")
    assert refused > 1000
    assert growth < 64 << 10


async def refuse_many(victim: Victim, recording: Recording, source: Random, count: int) -> int:
    """Send frames of which none is a legal message; return how many connections were closed for them."""
    before, closures = victim.state(), victim.closures
    wire = victim.connected(HOSTILE)
    for _ in range(count):
        judge = Judge(recording)
        judge.open()
        make = raw if source.random() < 0.5 else reframed
        stream = make(recording.consensus, source)
        legal, _ = judge.judge(stream, before.term)
        if legal:
            continue
        if wire.is_closed:
            wire = victim.connected(HOSTILE)
        wire.feed(stream)
        await victim.settle()
        if judge.waits_for_more:
            wire.lose()
            await victim.settle()
        await victim.loop.pass_time(0.01)
    assert victim.state() == before
    return victim.closures - closures
