"""What a node shows of itself: values that `ReplicatedLog` hands out and the services put on the wire.

They are snapshots, taken in one step of the event loop: nothing in them changes afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from distlog.consensus.durability import Durability
from distlog.consensus.stalls import NO_STALLS, StallReport
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits

# What a caller needs to create a topic and to understand a description.
__all__ = [
    "KEEP_ALL",
    "Consistency",
    "CopyStatus",
    "MemberStatus",
    "NodeStatus",
    "PlannedChange",
    "Retention",
    "ScrubStatus",
    "SegmentLimits",
    "Standing",
    "TimePosition",
    "TopicDescription",
]


class Consistency(Enum):
    """What a read may answer before it says that an offset does not exist."""

    # "Not there" is proven with the leader.
    LINEARIZABLE = auto()
    # What this node has applied; a follower may lag.
    LOCAL = auto()


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a node serves its clients (consensus/standing.py)."""

    # One word, of those in `STATES`.
    state: str
    # It can prove a read, and say where a write goes.
    is_ready: bool
    # Why it is not ready, or what it does not do although it is; "": nothing.
    problem: str

    @property
    def text(self) -> str:
        """Return it as one line for a person."""
        words = f"{'ready' if self.is_ready else 'not ready'}: {self.state}"
        return f"{words}: {self.problem}" if self.problem else words


# The states of a node, the two in which it is ready first.
STATES = (
    "leading",
    "following",
    "starting",
    "forming",
    "recovering",
    "copying",
    "leaderless",
    "removed",
    "stopping",
)


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic and its readable range, [start_offset, high_watermark)."""

    topic_id: int
    name: str
    start_offset: int
    high_watermark: int
    # Of the last record, milliseconds since the Unix epoch; 0 while the topic is empty.
    last_timestamp_ms: int
    # Bytes of store that the topic takes, in whole segments.
    size: int
    # When its segments are full.
    limits: SegmentLimits
    # How much of it is kept.
    retention: Retention


@dataclass(frozen=True, slots=True)
class TimePosition:
    """Where the records from some time on begin."""

    # The high watermark if there are none.
    offset: int
    found: bool


@dataclass(frozen=True, slots=True)
class CopyStatus:
    """How far a node is that copies the state of another one."""

    # The node that is copied from now, and the checkpoint's index; "" and 0 until one was found.
    source: str
    raft_index: int
    # Bytes, in all and of which are here; both grow when a newer checkpoint is chosen.
    size: int
    done_size: int
    # Bytes that came over the network.
    fetched_size: int
    # What it waits for; "" while it goes on.
    problem: str


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """What a node has found by reading its segments again, since it started."""

    # Passes over all segments that came to their end, and bytes that were checked in all.
    pass_count: int = 0
    checked_size: int = 0
    fault_count: int = 0
    repaired_count: int = 0
    # What is damaged and not replaced, in words.
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member of the cluster, as the node that is asked sees it."""

    node_id: str
    # host:port for clients; "" while this node has not heard it yet.
    client_address: str
    is_leader: bool
    # Whether this node has a connection to it; True for itself.
    connected: bool
    # Last raft index that it has acknowledged, and how many entries it is behind: None unless this node is the leader.
    match_index: int | None
    lag: int | None
    # Its disk is full, as it told this node, which leads, or as this node knows of itself.
    is_storage_full: bool = False
    # False: it is sent everything and becomes a voter when it has caught up.
    is_voter: bool = True
    # host:port where the other nodes reach it; "" while this node does not know it.
    peer_address: str = ""


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """Something that a leader would do about the members, or deliberately does not."""

    # "add learner", "promote", "locate", "remove", "hand over", "set target" or "keep".
    change: str
    node_id: str
    why: str
    # What must happen first; "": it is done next.
    waits_for: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node knows, without asking anybody."""

    node_id: str
    # "" until the cluster has formed.
    cluster_id: str
    # "leader", "follower", "candidate", "learner", "removed" or "forming".
    role: str
    term: int
    # "" while none is known.
    leader_id: str
    leader_address: str
    commit_index: int
    applied_index: int
    last_index: int
    # Bytes of journal on disk.
    journal_size: int
    # 0 while the cluster forms, 1 before the first checkpoint.
    checkpoint_index: int
    # In the order of their ids; this node is among them.
    members: tuple[MemberStatus, ...]
    # In the order of their names.
    topics: tuple[TopicDescription, ...]
    # This node takes no writes until there is space on its disk again.
    is_storage_full: bool = False
    # How long its event loop was held up since it started.
    stalls: StallReport = NO_STALLS
    # What an entry must have survived there before it is acknowledged: "fsync" or "os".
    durability: str = Durability.FSYNC.value
    # None while it copies nothing.
    copy: CopyStatus | None = None
    scrub: ScrubStatus = ScrubStatus()
    # How many voters there are meant to be; 0: whoever joins votes.
    target: int = 0
    # What is to be done about the members, in that order; nothing unless this node leads.
    planned: tuple[PlannedChange, ...] = ()
