"""What is traced of entries on their way through this node: nothing of it is in an entry, and nothing depends on it.

    leader    proposed -> numbered: append ... -> sending: replicate ... -> synced | acknowledged -> applying: apply
    follower              received: append ...                           -> replied               -> applying: apply

An entry holds proposals of many traces.  The first few get spans of their own; the others point to the first one's, and the work that they
share is seen there.  So an entry costs no more than so many spans, however many proposals it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from distlog.consensus.library import ProposedEntry
from distlog.consensus.messages import (
    TRACE_COUNT_MAX,
    AppendEntries,
    AppendReply,
    EntryTrace,
    EntryTuple,
)
from distlog.tracing.spans import NO_TRACER, Attributes, Kind, Span, Tracer

# Traces of one entry that are seen to its end.
PER_ENTRY_MAX = 4
# Entries that are followed at a time, and messages whose answers are awaited: beyond them the oldest are let go.
ENTRY_COUNT_MAX = 256
MESSAGE_COUNT_MAX = 256
# Why a span ended early.
LET_GO, NOT_TAKEN, DISCONNECTED, ROLE_CHANGED = (
    "LET_GO",
    "NOT_TAKEN",
    "DISCONNECTED",
    "ROLE_CHANGED",
)


@dataclass(slots=True)
class _Entry:
    """One entry that is followed."""

    term: int
    # What is applied is a part of these: proposals on the leader, appends on a follower.
    parents: Sequence[Span]
    # Of the leader: until they are in its journal, and by follower until it acknowledges.
    appending: list[Span] = field(default_factory=list)
    replicating: dict[str, list[Span]] = field(default_factory=dict)
    # Those followers, and the ones that have acknowledged.
    sent_to: set[str] = field(default_factory=set)
    is_applied: bool = False

    @property
    def is_over(self) -> bool:
        return self.is_applied and not self.appending and not self.replicating

    def let_go(self, problem: str) -> None:
        """End what is open of it."""
        for spans in (self.appending, *self.replicating.values()):
            _end(spans, problem)
        self.appending = []
        self.replicating.clear()


class EntryTraces:
    """The traces of one node's entries.  Call its methods only while `is_on`, and all but those that begin only while `is_following`."""

    def __init__(self, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self.is_on = tracer.is_on
        # Whether an entry or an answer is awaited: all that costs anything asks this first.
        self.is_following = False
        # Packed in this step, without a raft index yet.
        self._proposed: list[tuple[bytes, Sequence[Span]]] = []
        # By raft index; and by (leader, number) the appends of an AppendEntries that is not answered yet.
        self._entries: dict[int, _Entry] = {}
        self._answers: dict[tuple[str, int], list[Span]] = {}

    # --- The leader -----------------------------------------------------------------------------

    def proposed(self, payload: bytes, spans: Sequence[Span]) -> None:
        """An entry was packed, in which there are proposals with these spans: at least one."""
        for span in spans[PER_ENTRY_MAX:]:
            span.link(spans[0])
        self._proposed.append((payload, spans[:PER_ENTRY_MAX]))
        self.is_following = True

    def numbered(self, entries: Sequence[ProposedEntry], first_index: int, term: int) -> None:
        """These are about to be appended by this leader, from `first_index` on."""
        proposed, self._proposed = self._proposed, []
        for position, (payload, _) in enumerate(entries):
            for known, spans in proposed:
                if known is payload:
                    entry = _Entry(term, spans)
                    about = {"distlog.raft.index": first_index + position}
                    entry.appending = [span.child("append", attributes=about) for span in spans]
                    self._follow(first_index + position, entry)
        self._look()

    def sending(self, follower: str, entries: Sequence[EntryTuple]) -> list[EntryTrace]:
        """Return what a follower is told of the traces of these entries."""
        told: list[EntryTrace] = []
        for _, raft_index, term in entries:
            entry = self._entries.get(raft_index)
            if entry is None or entry.term != term:
                continue
            if follower not in entry.sent_to and len(told) + len(entry.parents) <= TRACE_COUNT_MAX:
                entry.sent_to.add(follower)
                about: Attributes = {"distlog.raft.index": raft_index, "distlog.peer.id": follower}
                entry.replicating[follower] = [
                    span.child("replicate", Kind.CLIENT, about) for span in entry.parents
                ]
            # What is sent again is another part of the same.
            told += [(raft_index, span.context) for span in entry.replicating.get(follower, ())]
        return told[:TRACE_COUNT_MAX]

    def acknowledged(self, follower: str, next_index: int) -> None:
        """A follower has every entry below `next_index`."""
        for raft_index, entry in list(self._entries.items()):
            if raft_index < next_index and follower in entry.replicating:
                _end(entry.replicating.pop(follower))
                self._forget_if_over(raft_index, entry)
        self._look()

    # --- A follower -----------------------------------------------------------------------------

    def received(self, leader: str, message: AppendEntries) -> None:
        """A leader has sent entries with traces."""
        terms = {raft_index: term for _, raft_index, term in message.entries}
        spans: dict[int, list[Span]] = {}
        for raft_index, context in message.traces:
            about: Attributes = {"distlog.raft.index": raft_index, "distlog.peer.id": leader}
            span = self._tracer.go_on(context, "append", Kind.SERVER, about)
            if span is not None:
                spans.setdefault(raft_index, []).append(span)
        for raft_index, own in spans.items():
            known = self._entries.get(raft_index)
            if known is None or known.term != terms[raft_index]:
                self._follow(raft_index, _Entry(terms[raft_index], own))
        if spans:
            self._await(leader, message.number, [each for own in spans.values() for each in own])

    def replied(self, leader: str, reply: AppendReply) -> None:
        """The answer to an AppendEntries leaves, and with it what it promises."""
        spans = self._answers.pop((leader, reply.number), None)
        if spans is not None:
            _end(spans, "" if reply.success else NOT_TAKEN)
            self._look()

    def _await(self, leader: str, number: int, spans: list[Span]) -> None:
        # A leader counts its messages, and none comes twice.
        _end(self._answers.pop((leader, number), ()), LET_GO)
        while len(self._answers) >= MESSAGE_COUNT_MAX:
            _end(self._answers.pop(next(iter(self._answers))), LET_GO)
        self._answers[leader, number] = spans
        self.is_following = True

    # --- Every node -----------------------------------------------------------------------------

    def synced(self, promisable_index: int) -> None:
        """The journal has everything up to an index as durable as it is to be."""
        for raft_index, entry in list(self._entries.items()):
            if entry.appending and raft_index <= promisable_index:
                _end(entry.appending)
                entry.appending = []
                self._forget_if_over(raft_index, entry)
        self._look()

    @contextmanager
    def applying(self, raft_index: int, term: int) -> Iterator[None]:
        """The body applies an entry."""
        entry = self._entries.get(raft_index)
        if entry is None or entry.term != term:
            yield
            return
        about = {"distlog.raft.index": raft_index}
        spans = [span.child("apply", attributes=about) for span in entry.parents]
        yield
        _end(spans)
        entry.is_applied = True
        self._forget_if_over(raft_index, entry)
        self._look()

    def disconnected(self, peer: str) -> None:
        """The connection to a peer is gone: nothing is heard of it any more that was awaited."""
        for raft_index, entry in list(self._entries.items()):
            entry.sent_to.discard(peer)
            _end(entry.replicating.pop(peer, ()), DISCONNECTED)
            self._forget_if_over(raft_index, entry)
        for leader, number in list(self._answers):
            if leader == peer:
                _end(self._answers.pop((leader, number)), DISCONNECTED)
        self._look()

    def role_changed(self) -> None:
        """What this node was about to do for others is not awaited any more."""
        for entry in self._entries.values():
            entry.let_go(ROLE_CHANGED)
        self._entries.clear()
        self._proposed.clear()
        for spans in self._answers.values():
            _end(spans, ROLE_CHANGED)
        self._answers.clear()
        self._look()

    def _follow(self, raft_index: int, entry: _Entry) -> None:
        while len(self._entries) >= ENTRY_COUNT_MAX:
            self._entries.pop(next(iter(self._entries))).let_go(LET_GO)
        self._entries[raft_index] = entry
        self.is_following = True

    def _forget_if_over(self, raft_index: int, entry: _Entry) -> None:
        if entry.is_over and self._entries.get(raft_index) is entry:
            del self._entries[raft_index]

    def _look(self) -> None:
        self.is_following = bool(self._entries or self._answers or self._proposed)


def _end(spans: Sequence[Span], problem: str = "") -> None:
    for span in spans:
        span.end(problem)
