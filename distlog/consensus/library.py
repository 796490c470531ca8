"""pysyncobj, and every hook into it: the only module that imports it.

The library decides who leads, what is replicated and what is committed; it is given no socket, no file, no thread and no timer of
its own.  What it wants is asked of its `Owner`, in its own dict messages, of which `raft.py` makes typed ones; what others send is given
to it as dicts again.  `journal_view.py` has the methods that it calls on a journal.

The hooks:
- `pysyncobj.syncobj.createJournal` and `PIPE_NOTIFIER_ENABLED`: replaced once, so that a journal object is taken as it is and
  no pipe is opened;
- `pysyncobj.syncobj.monotonicTime` and `random`: set to this node's at every entry, the time standing still until
  it returns, so that no time budget inside can end a loop half-way;
- `_SyncObj__doApplyCommand`, `_SyncObj__applyLogEntries`, `_checkCommandsToApply`: overridden; `_applyCommand`, `_isLeader`,
  `_getLeader`, `_poller`, and the transport's `_onMessageReceived`, `_onNodeConnected`, `_onNodeDisconnected`: used;
- `_SyncObj__doChangeCluster` and the transport's `_onReadonlyNodeConnected`, `_onReadonlyNodeDisconnected`: how the set of voters, and of
  learners, is kept in line with the configuration of the journal; its own membership commands are not used, and never parsed;
- `_SyncObj__raftMatchIndex`: set to 0 for a voter whose connection is lost, since what it acknowledged may be lost with its power;
- `conf.appendEntriesUseBatch`: flipped, since the library reads it at every use; `fullDumpFile` with `deserializer`: how it
  is told of the checkpoint.

Private names change without notice, so any other source than the pinned one is refused at start (pinned_library.py), and
tests/consensus/contract holds each hook against it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node as LibraryNode
from pysyncobj.transport import Transport as LibraryTransport

from distlog.consensus.journal_view import MESSAGE_SIZE_MAX, JournalView, RestorePoint
from distlog.consensus.messages import AppendEntries, AppendReply, VoteReply, VoteRequest
from distlog.consensus.pinned_library import check_library
from distlog.consensus.rules import ConsensusViolated
from distlog.runtime import Clock

ROLES = ("follower", "candidate", "leader")

# Beyond the reach of its clock: when to campaign is not left to the library (elections.py).
NEVER_S = 1e9

# What is called when an entry's fate is known: (result of apply, 0), or (None, reason) if it never will be applied.
Done = Callable[[Any, int], None]
ProposedEntry = tuple[bytes, Done]
# The messages that the library knows, in their typed form.
Translated = AppendEntries | AppendReply | VoteRequest | VoteReply


def _source(name: str) -> bytes:
    module = sys.modules[f"pysyncobj.{name}"]
    return bytes(module.__spec__.loader.get_data(module.__file__))  # type: ignore[union-attr]


check_library(library.VERSION, _source)


def _take_journal_as_it_is(journal: JournalView) -> JournalView:
    return journal


library.createJournal = _take_journal_as_it_is
library.PIPE_NOTIFIER_ENABLED = False
# What the library has to say is either checked here, or is about files and sockets that it is not given.
logging.getLogger("pysyncobj").addHandler(logging.NullHandler())
logging.getLogger("pysyncobj").propagate = False


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times in seconds, sizes in bytes."""

    election_timeout_min_s: float = 0.6
    election_timeout_max_s: float = 1.2
    # Between two heartbeats of a leader, and between two ticks of a node that has nothing else to do.
    heartbeat_interval_s: float = 0.15
    entry_size_max: int = 8 << 20
    in_flight_size_max: int = 8 << 20
    # Time between two entries into the library counts up to this: a process that was held up itself, with its whole machine
    # perhaps, must not take its own absence for the leader's.
    step_time_max_s: float = 0.2


class Owner(Protocol):
    """What the library asks of the node it is part of, from within a call of `Library`."""

    def send_from_library(self, voter: str, message: dict[str, Any]) -> bool:
        """Send a message; False if it cannot be sent.  Must not call the library again."""

    def apply_from_library(self, payload: bytes) -> Any:
        """Apply the committed entry after the last applied one.  What it raises stops the node."""

    def take_proposals(self) -> Sequence[ProposedEntry]:
        """Return what waits to be proposed, once."""

    def state_changed(self) -> None:
        """The role changed; nothing was sent in the new one yet."""


class Library:
    """One voter of pysyncobj, entered only through these methods."""

    def __init__(
        self,
        *,
        owner: Owner,
        node_id: str,
        other_voters: Sequence[str],
        view: JournalView,
        restore_point: RestorePoint | None,
        clock: Clock,
        random: Random,
        settings: RaftSettings,
    ) -> None:
        """Begin at `restore_point`.  Raises ConsensusViolated if the journal does not fit it."""
        self._clock = clock
        self._random = random
        self._nodes = {voter: _Node(voter) for voter in sorted(other_voters)}
        self._transport = _Transport(owner)
        self._step_time_max_s = settings.step_time_max_s
        # The time that the library sees, and the clock's when it was set.
        self.now = self._entered_at = clock.monotonic()
        self.enter()
        conf = _configuration(settings, view, restore_point, self._nodes, owner.state_changed)
        self._syncobj = _SyncObj(
            owner, view, _Node(node_id), list(self._nodes.values()), conf, self._transport
        )
        self._syncobj._poller = _NoPoller()
        if restore_point is not None:
            # The first tick loads the checkpoint, while the view begins just where that wants it.
            self._syncobj.doTick(0)
            if self.last_applied != restore_point.last.raft_index:
                raise ConsensusViolated("the journal does not hold the checkpoint's entries")
        view.reveal()

    @property
    def term(self) -> int:
        return int(self._syncobj.raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        return int(self._syncobj.raftCommitIndex)

    @property
    def last_applied(self) -> int:
        return int(self._syncobj.raftLastApplied)

    @property
    def is_leader(self) -> bool:
        return bool(self._syncobj._isLeader())

    @property
    def leader_id(self) -> str | None:
        leader = self._syncobj._getLeader()
        return None if leader is None else str(leader.id)

    @property
    def role(self) -> str:
        return ROLES[self._syncobj.getStatus()["state"]]

    def enter(self) -> None:
        """Make the library see this node's time, standing still, and this node's random numbers."""
        before, self._entered_at = self._entered_at, self._clock.monotonic()
        self.now += min(self._entered_at - before, self._step_time_max_s)
        library.monotonicTime = self._time
        library.random = self._random

    def _time(self) -> float:
        return self.now

    def tick(self) -> None:
        """Commit, apply, propose, send what is due, and campaign if `campaign` was called."""
        self.enter()
        self._syncobj.doTick(0)

    def deliver(self, sender: str, message: Translated) -> None:
        """Hand over a message that went through the rules, after `enter`."""
        self._deliver(sender, _translated(message))

    def _deliver(self, sender: str, message: dict[str, Any]) -> None:
        self._transport._onMessageReceived(self._node(sender), message)

    def _node(self, node_id: str) -> _Node:
        # Also of nodes that are no members: a leader may be one that this node has not heard of yet.
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node(node_id)
        return node

    def campaign(self) -> None:
        """Begin an election at the tick that must follow at once, as if the leader had asked for it, after `enter`."""
        # Whom the library takes for the leader, None included: it checks no more than that.
        leader = self._syncobj._getLeader()
        message = {"type": "timeout_now", "term": self.term}
        self._transport._onMessageReceived(leader, message)

    def adopt_term(self, sender: str, term: int) -> None:
        """Take over a newer term of another voter, and follow whoever leads it, after `enter`."""
        # A request that cannot get the vote.
        log_end = {"last_log_index": -1, "last_log_term": -1}
        self._deliver(sender, {"type": "request_vote", "term": term, **log_end})

    def set_next_index(self, voter: str, raft_index: int) -> None:
        """Go on sending to a voter from an entry on."""
        message = {"type": "next_node_idx", "success": False, "reset": True}
        self._deliver(voter, {**message, "next_node_idx": raft_index})

    def connected(self, voter: str) -> None:
        self._transport._onNodeConnected(self._node(voter))

    def disconnected(self, voter: str) -> None:
        self._transport._onNodeDisconnected(self._node(voter))

    def forget_match(self, voter: str) -> None:
        """Count a voter for nothing that it acknowledged before and that is not committed: it has to acknowledge it again."""
        # What is committed stays: the library looks only at what follows it.
        matched = self._syncobj._SyncObj__raftMatchIndex
        if self._node(voter) in matched:
            matched[self._node(voter)] = 0

    def add_voter(self, voter: str) -> None:
        """Count a node from now on.  As a learner it must have been disconnected before."""
        self._syncobj._SyncObj__doChangeCluster(["add", voter])

    def remove_voter(self, voter: str) -> None:
        """Count a node no more, which is taken for disconnected."""
        self._syncobj._SyncObj__doChangeCluster(["rem", voter])

    def learner_connected(self, learner: str) -> None:
        """Send everything to a node, from the end of the log on, that is counted for nothing."""
        self._transport._onReadonlyNodeConnected(self._node(learner))

    def learner_disconnected(self, learner: str) -> None:
        self._transport._onReadonlyNodeDisconnected(self._node(learner))


def _translated(message: Translated) -> dict[str, Any]:
    """Return a message in the library's own form."""
    match message:
        case AppendEntries():
            return {
                "type": "append_entries",
                "term": message.sender_term,
                "commit_index": message.commit_index,
                "prevLogIdx": message.previous_index,
                "prevLogTerm": message.previous_term,
                "entries": message.entries,
            }
        case AppendReply():
            return {
                "type": "next_node_idx",
                "next_node_idx": message.next_index,
                "success": message.success,
                "reset": message.reset,
            }
        case VoteRequest():
            return {
                "type": "request_vote",
                "term": message.sender_term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            }
        case VoteReply():
            return {"type": "response_vote", "term": message.sender_term}


def _configuration(
    settings: RaftSettings,
    view: JournalView,
    restore_point: RestorePoint | None,
    nodes: Mapping[str, LibraryNode],
    state_changed: Callable[[], None],
) -> SyncObjConf:
    restore: dict[str, Any] = {}
    if restore_point is not None:
        entries = (tuple(restore_point.last), tuple(restore_point.previous), list(nodes.values()))
        # The library only asks whether this file exists, and hands its name to the deserializer, which has the
        # entries already: the checkpoint is ours, and the library never writes or reads a file.
        restore = {
            "fullDumpFile": library.__file__,
            "deserializer": lambda _path: entries,
            "serializer": _refuse_to_serialize,
        }
    return SyncObjConf(
        autoTick=False,
        # With False the library tells every commit at once, which costs as much again as the commit itself.
        appendEntriesUseBatch=True,
        commandsWaitLeader=False,
        commandsQueueSize=0,
        # A little less than what lies between two ticks: a timer that comes early must not leave a heartbeat out.
        appendEntriesPeriod=0.8 * settings.heartbeat_interval_s,
        # Larger than any entry: the library's own splitting of entries corrupts them.
        appendEntriesBatchSizeBytes=settings.entry_size_max + MESSAGE_SIZE_MAX + 1,
        raftMinTimeout=NEVER_S,
        raftMaxTimeout=2 * NEVER_S,
        leaderFallbackTimeout=2 * settings.election_timeout_max_s,
        connectionTimeout=2 * NEVER_S,
        journalFile=view,
        useFork=False,
        logCompactionMinEntries=1 << 60,
        logCompactionMinTime=1 << 60,
        dynamicMembershipChange=False,
        onStateChanged=lambda _old, _new: state_changed(),
        **restore,
    )


def _refuse_to_serialize(_path: str, _data: Any) -> None:
    raise ConsensusViolated("the library writes a snapshot")


class _SyncObj(SyncObj):  # type: ignore[misc]
    """pysyncobj with opaque commands, all of one tick sent at once."""

    def __init__(
        self,
        owner: Owner,
        view: JournalView,
        node: LibraryNode,
        others: list[LibraryNode],
        conf: SyncObjConf,
        transport: LibraryTransport,
    ) -> None:
        self._owner = owner
        self._view = view
        SyncObj.__init__(self, node, others, conf, nodeClass=_Node, transport=transport)

    def _checkCommandsToApply(self) -> None:
        """Append all commands but the last without sending, the last with: one AppendEntries serves the tick."""
        commands = self._owner.take_proposals()
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

    def _SyncObj__applyLogEntries(self) -> Any:
        # The only use of entries that is bounded by what can be applied now.
        self._view.is_applying = True
        try:
            return SyncObj._SyncObj__applyLogEntries(self)
        finally:
            self._view.is_applying = False

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:
        # The payload is opaque to the library, which would unpickle it.
        return self._owner.apply_from_library(command)


class _Transport(LibraryTransport):  # type: ignore[misc]
    """The library's seam to other nodes."""

    def __init__(self, owner: Owner) -> None:
        LibraryTransport.__init__(self, None, None, [])
        self._owner = owner

    def send(self, node: LibraryNode, message: dict[str, Any]) -> bool:
        return self._owner.send_from_library(node.id, message)


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
