"""What a client hands out: plain values, decided by the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# What an empty topic name means; it always exists.
DEFAULT_TOPIC = "default"
# Name and value; names may repeat, their order is kept.
Headers = tuple[tuple[str, bytes], ...]


class NewRecord(NamedTuple):
    """A record to be written that is more than a value."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()


class Record(NamedTuple):
    """A record that was read.  (A tuple, because there may be a million of them in a second.)"""

    offset: int
    value: bytes
    # None: it has none, which is not the same as an empty one.
    key: bytes | None
    headers: Headers
    # When the leader took it, milliseconds since the Unix epoch; never decreases in a topic.
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Server:
    """A node of the cluster, as the node that was asked sees it."""

    node_id: str
    # host:port for clients; "" while the node that was asked has not heard it.
    address: str
    is_leader: bool
    # Whether the node that was asked has a connection to it.
    is_connected: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What a subject may do: `action` to each topic that fits `topic`; or, where there is a role, what that may."""

    # A name as certificates have it, a role, or * for everybody.
    subject: str
    topic: str = ""
    action: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """How many rules there are now, and how many were not there before, or are not there any more."""

    rule_count: int
    added_count: int
    removed_count: int


@dataclass(frozen=True, slots=True)
class TopicRange:
    """A topic, its readable offsets, [start_offset, high_watermark), and how much of it is kept."""

    name: str
    topic_id: int
    start_offset: int
    high_watermark: int
    # Of its last record; 0 while it is empty.
    last_timestamp_ms: int
    # Bytes of store that it takes, in whole segments.
    size: int = 0
    # When a segment is full: bytes of store, and records.
    segment_size_max: int = 0
    segment_record_count_max: int = 0
    # What is kept at least: so many bytes, and what is so young; 0: everything.
    retention_size: int = 0
    retention_age_ms: int = 0


@dataclass(frozen=True, slots=True)
class TimePosition:
    """Where the records from some time on begin."""

    # The high watermark if there are none.
    offset: int
    found: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the cluster, as one node sees it."""

    node_id: str
    address: str
    is_leader: bool
    is_connected: bool
    # Entries that it is behind; None unless the node that was asked is the leader.
    lag: int | None
    # Its disk is full, as it told the leader, or knows of itself.
    is_storage_full: bool = False
    # False: a learner, which has no vote before it has caught up.
    is_voter: bool = True
    # host:port for the other nodes; "" while the node that was asked does not know it.
    peer_address: str = ""


@dataclass(frozen=True, slots=True)
class SeenNode:
    """A node as discovery sees it from the node that was asked."""

    node_id: str
    directory_id: str
    # host:port for clients and for the other nodes.
    address: str
    peer_address: str
    # "" while it belongs to none.
    cluster_id: str
    # Of how many nodes it would form a cluster; 0: it would not.
    expect: int
    version: str
    # "alive", "failed" (not heard for a while) or "left" (for good), and for how many seconds.
    status: str
    for_s: float


@dataclass(frozen=True, slots=True)
class Membership:
    """Who the members of a cluster are, and who is seen, as one node knows it."""

    # "" until the cluster has formed, and while no leader is known.
    cluster_id: str
    leader_id: str
    members: tuple[Member, ...]
    seen: tuple[SeenNode, ...]
    # Seconds since `seen` was certainly true; None: nothing was seen yet.
    seen_age_s: float | None


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """Something that the leader would do about the members, or deliberately does not."""

    change: str
    node_id: str
    why: str
    # What must happen first; "": it is done next.
    waits_for: str


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far a node is that copies the state of another one."""

    # "" until one was found.
    source: str
    # Bytes, in all and of which are there.
    size: int
    done_size: int
    # What it waits for; "" while it goes on.
    problem: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A warning or an error of a node's log."""

    # Milliseconds since the Unix epoch.
    time_ms: int
    level: str
    logger: str
    text: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node knows, without asking the others."""

    node_id: str
    cluster_id: str
    # "leader", "follower", "candidate", "learner", "removed" or "forming".
    role: str
    term: int
    # "" while none is known.
    leader_id: str
    commit_index: int
    applied_index: int
    last_index: int
    checkpoint_index: int
    # Bytes.
    journal_size: int
    members: tuple[Member, ...]
    topics: tuple[TopicRange, ...]
    version: str
    # Its disk is full: it takes no writes until there is space again.
    is_storage_full: bool = False
    # How long its event loop was held up at most since it started, and how often for 20 ms or longer.
    stall_max_ms: float = 0.0
    stall_count: int = 0
    # When it acknowledges an entry: "fsync", or "os": when it is written, and synced within a second.
    durability: str = "fsync"
    # None unless it copies the state of another node, for being too far behind.
    copy: CopyProgress | None = None
    # Segments that the disk has changed and that were not replaced yet, in words.
    damaged: tuple[str, ...] = ()
    # How many voters there are meant to be; 0: whoever joins votes.
    target: int = 0
    # What is to be done about the members, in that order; nothing unless the node leads.
    planned: tuple[PlannedChange, ...] = ()
    # Whether it serves its clients; its state in one word, "" of an older version; and why not, or what it does not do.
    is_ready: bool = False
    state: str = ""
    problem: str = ""
    uptime_s: float = 0.0
    # Bytes that it may still write to its disk; None: not known.
    disk_free: int | None = None
    # What its log said last that was a warning or worse, the oldest first.
    last_problems: tuple[LogLine, ...] = ()
