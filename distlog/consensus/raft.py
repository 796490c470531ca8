"""pysyncobj behind typed messages: the only module that knows its names.

pysyncobj decides who leads, what is replicated and what is committed; it is given no socket, no file, no thread and no timer of its
own.  `Raft` feeds it messages that went through the rules, ticks it, and turns what it wants to send into typed messages.

The hooks, all of them here:
- `pysyncobj.syncobj.createJournal` and `PIPE_NOTIFIER_ENABLED`: replaced once, so that a journal object is taken as it is and
  no pipe is opened;
- `pysyncobj.syncobj.monotonicTime` and `random`: set to this node's at every entry, the time standing still until
  it returns, so that no time budget inside can end a loop half-way;
- `_SyncObj__doApplyCommand`, `_checkCommandsToApply`: overridden; `_applyCommand`, `_isLeader`, `_getLeader`, `_poller`: used.

Private names change without notice, so another version of the library is refused at start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.config import FAIL_REASON
from pysyncobj.journal import Journal as LibraryJournal
from pysyncobj.node import Node as LibraryNode
from pysyncobj.transport import Transport as LibraryTransport

from distlog.consensus.journal import Journal, JournalEntry
from distlog.consensus.messages import (
    AppendEntries,
    AppendReply,
    EntryTuple,
    Message,
    VoteReply,
    VoteRequest,
)
from distlog.consensus.rules import ConsensusViolated, Rules
from distlog.runtime import Clock

logger = logging.getLogger(__name__)

LIBRARY_VERSION = "0.3.17"
# The first byte of an entry's payload is the library's command type.
COMMAND_NO_OP = 1
COMMAND_OPAQUE = 100
# What one step may take: larger backlogs are sent and applied in several steps.
MESSAGE_SIZE = 1 << 20
APPLY_SIZE = 4 << 20
APPLY_COUNT = 1000

if library.VERSION != LIBRARY_VERSION:
    raise ImportError(
        f"pysyncobj {LIBRARY_VERSION} is required and {library.VERSION} is installed: the rules around it are "
        "proven for that version only. Install the pinned one: pip install pysyncobj=="
        + LIBRARY_VERSION
    )


def _take_journal_as_it_is(journal: LibraryJournal) -> LibraryJournal:
    return journal


library.createJournal = _take_journal_as_it_is
library.PIPE_NOTIFIER_ENABLED = False
# What the library has to say is either checked here, or is about files and sockets that it is not given.
logging.getLogger("pysyncobj").addHandler(logging.NullHandler())
logging.getLogger("pysyncobj").propagate = False


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times in seconds, sizes in bytes."""

    election_timeout_min_s: float = 0.4
    election_timeout_max_s: float = 0.8
    heartbeat_interval_s: float = 0.05
    entry_size_max: int = 8 << 20
    in_flight_size_max: int = 8 << 20


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """The checkpoint's two raw entries: everything up to `last` is applied already."""

    previous: JournalEntry
    last: JournalEntry


class Raft:
    """One voter of one group.  Single-threaded; nothing here blocks except reads of old journal entries."""

    def __init__(
        self,
        *,
        node_id: str,
        other_voters: Sequence[str],
        journal: Journal,
        restore_point: RestorePoint | None,
        clock: Clock,
        random: Random,
        settings: RaftSettings,
        rules: Rules,
        apply: Callable[[int, int, bytes], Any],
        role_changed: Callable[[], None],
    ) -> None:
        """`apply(raft_index, term, payload)` is called for every committed entry once, in order; `role_changed()` whenever
        this node becomes leader, candidate or follower, before anything is sent in the new role.

        Raises ConsensusViolated if the journal does not fit the restore point.
        """
        self.node_id = node_id
        self.journal = journal
        self._clock = clock
        self._now = clock.monotonic()
        self._random = random
        self._settings = settings
        self._rules = rules
        self._apply = apply
        self._role_changed = role_changed
        self._nodes = {voter: _Node(voter) for voter in sorted(other_voters)}
        self._connected: set[str] = set()
        # Connected voters that the library believes disconnected, because their window is full.
        self._paused: set[str] = set()
        # Connected voters that lack entries which no journal keeps any more: they must be replaced.
        self.stranded: set[str] = set()
        # Highest raft index that each other voter has durably, as it told this leader in this term.
        self.matched: dict[str, int] = {}
        # Every voter has every entry below this one durably.  Never falls.
        self.retain_from = 1
        # AppendEntries sent by this process to anybody.
        self._sent_count = 0
        # The commit index that each connected voter was told last, by this leader in this term.
        self._told: dict[str, int] = {}
        self._next_paused_heartbeat = 0.0
        # A message has arrived that a tick could make something of.
        self._stirred = False
        # The AppendEntries being answered, and what its acknowledgement may say.
        self._answering = 0
        self._proven_next_index: int | None = None
        self._commands: list[tuple[bytes, Callable[[Any, int], None]]] = []
        self._view = _JournalView(journal, restore_point, lambda: self.last_applied)
        self._transport = _Transport(self)
        self._restore_point = restore_point
        self._enter()
        self._library = _Library(self, _Node(node_id), list(self._nodes.values()), self._conf())
        self._library._poller = _NoPoller()
        self._finish_restore()

    def _conf(self) -> SyncObjConf:
        settings = self._settings
        restore: dict[str, Any] = {}
        if self._restore_point is not None:
            # The library only asks whether this file exists, and hands its name to the deserializer, which has the
            # entries already: the checkpoint is ours, and the library never writes or reads a file.
            restore = {
                "fullDumpFile": library.__file__,
                "deserializer": self._restored_entries,
                "serializer": _refuse_to_serialize,
            }
        return SyncObjConf(
            autoTick=False,
            # With False the library tells every commit at once, which costs as much again as the commit itself
            # (`announce_commit`).
            appendEntriesUseBatch=True,
            commandsWaitLeader=False,
            commandsQueueSize=0,
            appendEntriesPeriod=settings.heartbeat_interval_s,
            # Larger than any entry: the library's own splitting of entries corrupts them.
            appendEntriesBatchSizeBytes=settings.entry_size_max + MESSAGE_SIZE + 1,
            raftMinTimeout=settings.election_timeout_min_s,
            raftMaxTimeout=settings.election_timeout_max_s,
            leaderFallbackTimeout=2 * settings.election_timeout_max_s,
            connectionTimeout=1e9,
            journalFile=self._view,
            useFork=False,
            logCompactionMinEntries=1 << 60,
            logCompactionMinTime=1 << 60,
            dynamicMembershipChange=False,
            onStateChanged=self._state_changed,
            **restore,
        )

    def _restored_entries(
        self, _path: str
    ) -> tuple[tuple[Any, ...], tuple[Any, ...], list[LibraryNode]]:
        assert self._restore_point is not None
        point = self._restore_point
        return tuple(point.last), tuple(point.previous), list(self._nodes.values())

    def _finish_restore(self) -> None:
        """Let the library load the checkpoint, in its first tick, while its journal begins just where that wants."""
        if self._restore_point is not None:
            self._library.doTick(0)
            if self.last_applied != self._restore_point.last.raft_index:
                raise ConsensusViolated("the journal does not hold the checkpoint's entries")
        self._view.reveal()

    # --- What is known -------------------------------------------------------------------------

    @property
    def term(self) -> int:
        return int(self._library.raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        return int(self._library.raftCommitIndex)

    @property
    def last_applied(self) -> int:
        return int(self._library.raftLastApplied)

    @property
    def is_leader(self) -> bool:
        return bool(self._library._isLeader())

    @property
    def is_ready_leader(self) -> bool:
        """Tell whether this node leads and has applied an entry of its own term: it then knows all that is committed."""
        return self.is_leader and self.journal.term_at(self.last_applied) == self.term

    @property
    def leader_id(self) -> str | None:
        leader = self._library._getLeader()
        return None if leader is None else str(leader.id)

    @property
    def role(self) -> str:
        """One of "leader", "candidate", "follower"."""
        return ("follower", "candidate", "leader")[self._library.getStatus()["state"]]

    @property
    def voters(self) -> frozenset[str]:
        """The other voters' ids."""
        return frozenset(self._nodes)

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(self._connected)

    @property
    def has_work(self) -> bool:
        """Tell whether a tick now would commit, apply, propose or answer something, and not only watch the time."""
        if self._must_sync_first:
            return False
        return self._stirred or bool(self._commands) or self.commit_index > self.last_applied

    @property
    def _must_sync_first(self) -> bool:
        # A voter that is alone has no follower's acknowledgement to hold back, so the commit gate cannot help it.
        return not self._nodes and self.journal.durable_sequence < self.journal.sequence

    # --- What happens --------------------------------------------------------------------------

    def tick(self) -> None:
        """Commit, apply, propose, send, and campaign if it is time."""
        if self._must_sync_first:
            return
        self._stirred = False
        self._enter()
        self._library.doTick(0)
        if self._paused:
            self._tend_paused()

    def propose(self, payload: bytes, done: Callable[[Any, int], None]) -> None:
        """Put an entry into the journal at the next tick, if this node leads then.

        done(result of apply, 0) when it is applied here; done(None, reason) when it certainly never will be; never
        called, if the outcome is unknown.
        """
        assert len(payload) <= self._settings.entry_size_max, "the entry is larger than its limit"
        self._commands.append((payload, done))

    def receive(self, sender: str, message: Message) -> None:
        """Take a message of another voter."""
        if sender not in self._nodes:
            return
        self._enter()
        if isinstance(message, AppendReply):
            self._receive_reply(sender, message)
            return
        self._stirred = True
        match message:
            case AppendEntries():
                self._receive_append(sender, message)
            case VoteRequest():
                self._deliver(
                    sender,
                    {
                        "type": "request_vote",
                        "term": message.sender_term,
                        "last_log_index": message.last_index,
                        "last_log_term": message.last_term,
                    },
                )
            case VoteReply():
                if self._rules.vote_filter.admits(sender, message, self._nodes.keys()):
                    self._deliver(sender, {"type": "response_vote", "term": message.sender_term})
            case _:
                raise AssertionError("reads are answered elsewhere")

    @property
    def has_news(self) -> bool:
        """Tell whether this leader has committed something that a connected voter was not told."""
        return self.is_leader and any(
            self._told.get(voter, 0) < self.commit_index for voter in self._connected
        )

    def announce_commit(self) -> None:
        """Tell the voters what is committed, unless an AppendEntries with entries has told them meanwhile."""
        if not self.is_leader:
            return
        for voter in sorted(self._connected):
            matched = self.matched.get(voter, 0)
            term = self.journal.term_at(matched)
            if self._told.get(voter, 0) < self.commit_index and term is not None:
                self._send(voter, self._append(voter, matched, term, []))

    def synced(self) -> None:
        """The journal's sync has finished: let go what waited for it."""
        self._enter()
        # A voter that is alone was not ticked while its operations were not durable.
        self._stirred = self._stirred or not self._nodes
        self._rules.persistence_gate.release(self.journal.durable_sequence)
        for voter, reply in self._rules.commit_gate.release(self.journal.durable_index):
            if self.is_leader and reply.sender_term == self.term:
                self._deliver_reply(voter, reply)

    def peer_connected(self, voter: str) -> None:
        if voter in self._nodes:
            self._enter()
            self._connected.add(voter)
            self._transport._onNodeConnected(self._nodes[voter])

    def peer_disconnected(self, voter: str) -> None:
        if voter in self._nodes:
            self._enter()
            self._connected.discard(voter)
            self._paused.discard(voter)
            self.stranded.discard(voter)
            self._told.pop(voter, None)
            self._rules.drop(voter)
            self._transport._onNodeDisconnected(self._nodes[voter])

    # --- Incoming ------------------------------------------------------------------------------

    def _receive_append(self, sender: str, message: AppendEntries) -> None:
        if message.sender_term < self.term:
            return
        if self.is_leader and message.sender_term == self.term:
            raise ConsensusViolated(f"{sender} leads term {self.term}, and so does this node")
        filtered = self._rules.append_filter.admit(
            message,
            first_index=self.journal.first_index,
            last_index=self.journal.last_index,
            last_applied=self.last_applied,
            term_at=self.journal.term_at,
        )
        self.retain_from = max(self.retain_from, message.retain_from)
        self._answering = message.number
        self._proven_next_index = filtered.proven_next_index
        admitted = filtered.message
        self._deliver(
            sender,
            {
                "type": "append_entries",
                "term": admitted.sender_term,
                "commit_index": admitted.commit_index,
                "prevLogIdx": admitted.previous_index,
                "prevLogTerm": admitted.previous_term,
                "entries": admitted.entries,
            },
        )
        self._proven_next_index = None

    def _receive_reply(self, sender: str, message: AppendReply) -> None:
        if not self.is_leader or not 0 < message.next_index <= self.journal.last_index + 1:
            return
        reply = self._rules.acknowledgements.admit(
            sender, message, term=self.term, voters=self._nodes.keys(), sent=self._sent_count
        )
        if reply is None:
            return
        if reply.success:
            self._rules.send_window.acknowledged(sender, reply.next_index)
            self._matched_at(sender, reply.next_index - 1)
        elif reply.reset:
            self._rules.send_window.rewound(sender, reply.next_index)
        self._deliver_reply(
            sender, self._rules.commit_gate.admit(sender, reply, self.journal.durable_index)
        )

    def _deliver_reply(self, voter: str, reply: AppendReply) -> None:
        # Most acknowledgements are of what is committed already.
        self._stirred = self._stirred or (
            reply.success and reply.next_index > self.commit_index + 1
        )
        self._deliver(
            voter,
            {
                "type": "next_node_idx",
                "next_node_idx": reply.next_index,
                "success": reply.success,
                "reset": reply.reset,
            },
        )
        if reply.success:
            # The library has just gone back to the acknowledged index and would send again what is on its way.
            sent_end = self._rules.send_window.next_to_send(voter, reply.next_index)
            if sent_end is not None:
                self._set_next_index(voter, sent_end)

    def _matched_at(self, voter: str, raft_index: int) -> None:
        self.matched[voter] = max(self.matched.get(voter, 0), raft_index)
        if len(self.matched) == len(self._nodes):
            # This node is a voter too: a crash takes what its own disk does not have yet, and then it needs it from others.
            everywhere = min(self.journal.durable_index, *self.matched.values())
            self.retain_from = max(self.retain_from, min(everywhere, self.commit_index))

    def _set_next_index(self, voter: str, raft_index: int) -> None:
        self._deliver(
            voter,
            {"type": "next_node_idx", "next_node_idx": raft_index, "success": False, "reset": True},
        )

    def _deliver(self, sender: str, message: dict[str, Any]) -> None:
        self._transport._onMessageReceived(self._nodes[sender], message)

    # --- Outgoing ------------------------------------------------------------------------------

    def send_from_library(self, voter: str, message: dict[str, Any]) -> bool:
        """Translate what the library wants to send; True if it is on its way or held."""
        if voter not in self._connected:
            return False
        kind = message["type"]
        if kind == "append_entries":
            return self._send_append(voter, message)
        if kind == "next_node_idx":
            self._send(voter, self._reply(message))
        elif kind == "request_vote":
            self._send(
                voter,
                VoteRequest(message["term"], message["last_log_index"], message["last_log_term"]),
            )
        elif kind == "response_vote":
            self._send(voter, VoteReply(message["term"]))
        else:
            raise ConsensusViolated(
                f"the library wants to send {kind!r}: commands are never forwarded"
            )
        return True

    def _send(self, voter: str, message: Message) -> None:
        journal = self.journal
        self._rules.persistence_gate.send(
            voter,
            message,
            sequence=journal.sequence,
            vote_sequence=journal.vote_sequence,
            durable=journal.durable_sequence,
        )

    def _send_append(self, voter: str, message: dict[str, Any]) -> bool:
        if "transmission" in message:
            raise ConsensusViolated("the library splits an entry")
        if "serialized" in message:
            # Nobody keeps what this voter lacks: only an old copy of a data directory can be so far behind.
            if voter not in self.stranded:
                logger.error(
                    "a voter lacks entries that no node keeps: its data directory is an old copy, so replace that node "
                    "voter=%s first_kept_index=%d",
                    voter,
                    self.journal.first_index,
                )
            self.stranded.add(voter)
            self._transport._onNodeDisconnected(self._nodes[voter])
            return False
        append = self._append(
            voter, message["prevLogIdx"], message["prevLogTerm"], list(message["entries"])
        )
        if not self._rules.send_window.admit(voter, append):
            self._paused.add(voter)
            self._transport._onNodeDisconnected(self._nodes[voter])
            return False
        self._send(voter, append)
        return True

    def _append(
        self, voter: str, previous_index: int, previous_term: int, entries: list[EntryTuple]
    ) -> AppendEntries:
        self._sent_count += 1
        self._told[voter] = self.commit_index
        return AppendEntries(
            sender_term=self.term,
            number=self._sent_count,
            commit_index=self.commit_index,
            previous_index=previous_index,
            previous_term=previous_term,
            retain_from=self.retain_from,
            entries=entries,
        )

    def _reply(self, message: dict[str, Any]) -> AppendReply:
        next_index, success = message["next_node_idx"], message["success"]
        if success and self._proven_next_index is not None:
            next_index = self._proven_next_index
        elif not success and message["reset"] and next_index <= self.journal.last_index:
            next_index = self._start_of_conflict(next_index)
        return AppendReply(
            sender_term=self.term,
            number=self._answering,
            next_index=next_index,
            success=success,
            reset=message["reset"],
        )

    def _start_of_conflict(self, raft_index: int) -> int:
        """Return the first entry of the conflicting term: the leader skips it whole and not one entry per round trip."""
        # Below `retain_from` all voters agree, and the leader may have forgotten it.
        lowest = max(self.last_applied, self.journal.first_index, self.retain_from) + 1
        term = self.journal.term_at(raft_index)
        while raft_index > lowest and self.journal.term_at(raft_index - 1) == term:
            raft_index -= 1
        return raft_index

    def _tend_paused(self) -> None:
        """Resume the voters that have room again, and keep the others from campaigning."""
        for voter in sorted(self._paused):
            resume_at = self._rules.send_window.resume(voter)
            if resume_at is not None:
                self._paused.discard(voter)
                self._transport._onNodeConnected(self._nodes[voter])
                self._set_next_index(voter, resume_at)
        if not self.is_leader or self._now < self._next_paused_heartbeat:
            return
        self._next_paused_heartbeat = self._now + self._settings.heartbeat_interval_s
        for voter in sorted(self._paused):
            matched = self.matched.get(voter, 0)
            term = self.journal.term_at(matched)
            if term is not None:
                self._send(voter, self._append(voter, matched, term, []))

    # --- The library's callbacks ---------------------------------------------------------------

    def take_commands(self) -> list[tuple[bytes, Callable[[Any, int], None]]]:
        """Return what waits to be proposed, once."""
        commands, self._commands = self._commands, []
        return commands

    def apply_from_library(self, payload: bytes) -> Any:
        """Apply the next committed entry."""
        raft_index = self.last_applied + 1
        term = self.journal.term_at(raft_index)
        assert term is not None, "an entry is applied while the journal has it"
        return self._apply(raft_index, term, payload)

    def _state_changed(self, _old: int, _new: int) -> None:
        self._rules.clear()
        self.matched.clear()
        self._told.clear()
        for voter in self._paused:
            self._transport._onNodeConnected(self._nodes[voter])
        self._paused.clear()
        self._role_changed()

    def _enter(self) -> None:
        """Make the library see this node's time, standing still, and this node's random numbers."""
        self._now = self._clock.monotonic()
        library.monotonicTime = self._time
        library.random = self._random

    def _time(self) -> float:
        return self._now


class _Library(SyncObj):  # type: ignore[misc]
    """pysyncobj with opaque commands, all of one tick sent at once."""

    def __init__(
        self, raft: Raft, node: LibraryNode, others: list[LibraryNode], conf: SyncObjConf
    ) -> None:
        self._raft = raft
        SyncObj.__init__(self, node, others, conf, nodeClass=_Node, transport=raft._transport)

    def _checkCommandsToApply(self) -> None:
        """Append all commands but the last without sending, the last with: one AppendEntries serves the tick."""
        commands = self._raft.take_commands()
        if not commands:
            return
        if not self._isLeader():
            for _, done in commands:
                done(None, FAIL_REASON.NOT_LEADER)
            return
        for payload, done in commands[:-1]:
            self._applyCommand(payload, done, None)
        SyncObj._checkCommandsToApply(self)
        # The library reads the flag from the configuration at every use.
        self.conf.appendEntriesUseBatch = False
        self._applyCommand(*commands[-1], None)
        SyncObj._checkCommandsToApply(self)
        self.conf.appendEntriesUseBatch = True

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:
        # The payload is opaque to the library, which would unpickle it.
        return self._raft.apply_from_library(command)


class _Transport(LibraryTransport):  # type: ignore[misc]
    """The library's seam to other nodes."""

    def __init__(self, raft: Raft) -> None:
        LibraryTransport.__init__(self, None, None, [])
        self._raft = raft

    def send(self, node: LibraryNode, message: dict[str, Any]) -> bool:
        return self._raft.send_from_library(node.id, message)


class _Node(LibraryNode):  # type: ignore[misc]
    """A voter by its id, with a hash that does not change from run to run: sets of them keep their order."""

    def __init__(self, id: str, **_unused: Any) -> None:
        LibraryNode.__init__(self, id)
        self._hash = int.from_bytes(id.encode(), "little") % ((1 << 61) - 1)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Node) and self._id == other._id


class _NoPoller:
    """The library has no sockets: nothing to wait for."""

    def poll(self, _timeout: float) -> None:
        return None


class _JournalView(LibraryJournal):  # type: ignore[misc]
    """The journal as the library sees it: a list of (payload, raft_index, term) from the first kept entry on."""

    def __init__(
        self,
        journal: Journal,
        restore_point: RestorePoint | None,
        last_applied: Callable[[], int],
    ) -> None:
        self._journal = journal
        self._last_applied = last_applied
        self._restored_index = restore_point.last.raft_index if restore_point is not None else 1
        # While the checkpoint is loaded the view must begin with its two entries, or the library empties the journal.
        self._first_index = restore_point.previous.raft_index if restore_point is not None else None

    def reveal(self) -> None:
        """Show the entries before the checkpoint too: a lagging voter may need them."""
        self._first_index = None

    @property
    def first_index(self) -> int:
        return self._journal.first_index if self._first_index is None else self._first_index

    def __len__(self) -> int:
        return max(0, self._journal.last_index - self.first_index + 1) if len(self._journal) else 0

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return self._slice(key)
        if self._first_index is not None and key >= 0:
            return self._journal.entry(self.first_index + key)
        # Asked for very often, and only for index and term.
        assert key in (0, -1), "the library asks for the first and the last entry only"
        index = self._journal.last_index if key == -1 else self._journal.first_index
        return (b"", index, self._journal.term_at(index))

    def _slice(self, key: slice) -> Any:
        start = self.first_index + key.start
        if key.stop is None:
            return _Tail(self._journal, start)
        stop = min(self.first_index + key.stop, self._journal.last_index + 1)
        if stop - start <= 1:
            return [self._journal.entry(index) for index in range(start, stop)]
        # Only the apply loop asks for several: it goes on from where this ends in the next tick.
        return list(_up_to(self._journal, start, stop, APPLY_SIZE, APPLY_COUNT))

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.append(command, idx, term)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        raft_index = self.first_index + entryFrom
        if raft_index <= self._last_applied():
            raise ConsensusViolated(f"the library deletes applied entry {raft_index}")
        self._journal.truncate_from(raft_index)

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise ConsensusViolated("the library compacts the journal")

    def clear(self) -> None:
        raise ConsensusViolated("the library empties the journal")

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._journal.set_term_vote(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:
        return self._journal.vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        # Not kept: after a restart everything behind the checkpoint is confirmed again by a leader.
        return

    def getRaftCommitIndex(self) -> int:
        return self._restored_index

    def _destroy(self) -> None:
        return


class _Tail:
    """The journal from an entry on, without copying it: the library takes a first part, sized to one message."""

    def __init__(self, journal: Journal, start: int) -> None:
        self._journal = journal
        self._start = start
        self._taken: list[JournalEntry] = []

    def __len__(self) -> int:
        return max(0, self._journal.last_index - self._start + 1)

    def __iter__(self) -> Iterator[JournalEntry]:
        for entry in _up_to(
            self._journal, self._start, self._journal.last_index + 1, MESSAGE_SIZE, APPLY_COUNT
        ):
            self._taken.append(entry)
            yield entry

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            assert key.start is None, "the library takes a first part"
            return self._taken[: key.stop]
        return self._journal.entry(self._start + key)


def _up_to(
    journal: Journal, start: int, stop: int, size_max: int, count_max: int
) -> Iterator[JournalEntry]:
    """Yield entries [start, stop) until their sizes pass `size_max` or their count `count_max`; at least one."""
    size = 0
    for index in range(start, min(stop, start + count_max)):
        entry = journal.entry(index)
        size += len(entry.payload)
        if size > size_max and index > start:
            return
        yield entry


def _refuse_to_serialize(_path: str, _data: Any) -> None:
    raise ConsensusViolated("the library writes a snapshot")
