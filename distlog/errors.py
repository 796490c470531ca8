"""Every error that distlog raises on purpose, named by what the caller can do.

Each class carries its numbers as fields and a `reason` that is unique and never changes; `str()` is one sentence that
says what is wrong and what to do next.  `api/status.py` alone maps them to gRPC, and the client raises the same
class again from the metadata.  Programming mistakes are assertions, not these.
"""

from __future__ import annotations

from dataclasses import dataclass

from distlog.error_class import DistlogError as DistlogError

# --- The caller fixes the call ------------------------------------------------------------------


@dataclass(eq=False)
class InvalidRequest(DistlogError):
    """A field of the request is not acceptable."""

    reason = "INVALID_REQUEST"
    text = "{field}: {problem}"
    field: str
    problem: str


@dataclass(eq=False)
class RecordTooLarge(DistlogError):
    """The record is larger than the cluster accepts (bytes)."""

    reason = "RECORD_TOO_LARGE"
    text = "the record has {size} bytes and the limit is {size_max}: split it, or raise --record-size-max on every node"
    size: int
    size_max: int


@dataclass(eq=False)
class NotAuthorized(DistlogError):
    """The policy does not let this subject do that.  Ask who looks after the policy; nothing was read or written."""

    reason = "NOT_AUTHORIZED"
    text = (
        "{subject!r} may not {action} {resource!r}: whoever administers the cluster can allow it with `distlog acl add` "
        "(request {request_id} in the audit log)"
    )
    # "anonymous" for a caller without a certificate.
    subject: str
    action: str
    # A topic, * for all of them and the cluster itself.
    resource: str
    request_id: str


# --- The caller chooses another offset, or reads and decides ------------------------------------


@dataclass(eq=False)
class OffsetOutOfRange(DistlogError):
    """The offset was trimmed, or does not exist yet.  Choose one in [start_offset, high_watermark)."""

    reason = "OFFSET_OUT_OF_RANGE"
    text = "offset {offset} is not in [{start_offset}, {high_watermark}): read from one that is"
    offset: int
    start_offset: int
    high_watermark: int


@dataclass(eq=False)
class OffsetMismatch(DistlogError):
    """The log does not end where the caller expected.  Read, decide, try again.  Not raised in this version."""

    reason = "OFFSET_MISMATCH"
    text = "the next offset is {actual}, not {expected}: read what is new, then decide"
    expected: int
    actual: int


# --- The caller goes elsewhere, waits, or slows down; nothing was written -----------------------


@dataclass(eq=False)
class NotLeader(DistlogError):
    """This node does not take writes; the leader does.  Nothing was written."""

    reason = "NOT_LEADER"
    text = "this node is not the leader: send the request to {leader_id} at {leader_address}"
    leader_id: str
    leader_address: str


@dataclass(eq=False)
class NoLeader(DistlogError):
    """The cluster has no leader now.  Nothing was written; try again after the delay (seconds)."""

    reason = "NO_LEADER"
    text = "the cluster has no leader now ({problem}): try again in {retry_delay_s} s"
    problem: str
    retry_delay_s: float


@dataclass(eq=False)
class LeadershipNotTransferred(DistlogError):
    """Leadership was not handed over; the node leads on, or an election decides.  Look at the cluster, and try again."""

    reason = "LEADERSHIP_NOT_TRANSFERRED"
    text = "leadership was not handed over ({problem}): see `distlog cluster status`, and try again"
    problem: str


@dataclass(eq=False)
class ShuttingDown(DistlogError):
    """This node is stopping.  Nothing was written; another node answers."""

    reason = "SHUTTING_DOWN"
    text = "this node is stopping: try another one, or again in {retry_delay_s} s"
    retry_delay_s: float


@dataclass(eq=False)
class Overloaded(DistlogError):
    """A queue is full.  Nothing was written; slow down and try again."""

    reason = "OVERLOADED"
    text = "{queue} is at its limit of {limit}: slow down and try again"
    queue: str
    limit: int


@dataclass(eq=False)
class StorageFull(DistlogError):
    """The disk has no space.  Nothing was written; free space and try again."""

    reason = "STORAGE_FULL"
    text = "no space left for {path}: free space on that file system; the node goes on by itself"
    path: str


@dataclass(eq=False)
class DescriptorsExhausted(DistlogError):
    """The process may open no more files.  Nothing was written; raise the limit, or close connections, and try again."""

    reason = "DESCRIPTORS_EXHAUSTED"
    text = (
        "no file descriptor is left to open {path}: raise the limit of open files of this node (prlimit --nofile while it "
        "runs; ulimit -n or LimitNOFILE for good), or close connections to it; the node goes on by itself"
    )
    path: str


# --- The record may exist -----------------------------------------------------------------------


@dataclass(eq=False)
class OutcomeUnknown(DistlogError):
    """The record may or may not exist.  An idempotent producer retries with the same sequence; others must read."""

    reason = "OUTCOME_UNKNOWN"
    text = "the outcome is unknown ({cause}): retry (a producer with the same sequence), or read what there is now"
    cause: str


# --- Exactly-once -------------------------------------------------------------------------------


@dataclass(eq=False)
class OutOfSequence(DistlogError):
    """The producer skipped a sequence, or repeated one that is too old to remember.  Nothing was written."""

    reason = "OUT_OF_SEQUENCE"
    text = "producer {producer_id} sent sequence {actual} where {expected} comes next: send the missing ones first"
    producer_id: int
    expected: int
    actual: int


@dataclass(eq=False)
class ProducerUnknown(DistlogError):
    """The producer never was, or its state has expired.  Nothing was written; start a new producer and read to see
    what the old one wrote."""

    reason = "PRODUCER_UNKNOWN"
    text = "producer {producer_id} is not known (never opened, or expired): read what it wrote, then open a new one"
    producer_id: int


@dataclass(eq=False)
class ProducerFenced(DistlogError):
    """A newer epoch of the same producer exists: this instance must stop.  Nothing was written."""

    reason = "PRODUCER_FENCED"
    text = "producer {producer_id} is at epoch {epoch}: an instance with an older epoch must stop"
    producer_id: int
    epoch: int


# --- Things with names --------------------------------------------------------------------------


@dataclass(eq=False)
class TopicNotFound(DistlogError):
    reason = "TOPIC_NOT_FOUND"
    text = "there is no topic {topic!r}: create it, or check the name"
    topic: str


@dataclass(eq=False)
class TopicExists(DistlogError):
    reason = "TOPIC_EXISTS"
    text = "topic {topic!r} exists already"
    topic: str


# --- Pages a human ------------------------------------------------------------------------------


@dataclass(eq=False)
class MemberNotFound(DistlogError):
    """No member has this node id.  See who there is: `distlog cluster status`."""

    reason = "MEMBER_NOT_FOUND"
    text = "no member is called {node_id}: see `distlog cluster status`"
    node_id: str


@dataclass(eq=False)
class MemberExists(DistlogError):
    """A member has this node id already.  Remove that one first, or choose another id."""

    reason = "MEMBER_EXISTS"
    text = "{node_id} is a member already, with data directory {directory_id}: remove it first, or choose another node id"
    node_id: str
    directory_id: str


@dataclass(eq=False)
class MemberNotAdded(DistlogError):
    """The node is no voter within the time; only a client raises it.  What was begun goes on."""

    reason = "MEMBER_NOT_ADDED"
    text = "{node_id} is no voter yet: {problem}"
    node_id: str
    problem: str


@dataclass(eq=False)
class MembershipChangeUnderWay(DistlogError):
    """Members change one at a time, and another change is not committed yet.  Nothing was changed; try again."""

    reason = "MEMBERSHIP_CHANGE_UNDER_WAY"
    text = "another change of the members is under way, and there is one at a time: try again in {retry_delay_s} s"
    retry_delay_s: float


@dataclass(eq=False)
class MembershipChangeRefused(DistlogError):
    """The change would harm the cluster.  Nothing was changed; do what the problem says."""

    reason = "MEMBERSHIP_CHANGE_REFUSED"
    text = "{node_id} was not removed: {problem}"
    node_id: str
    problem: str


@dataclass(eq=False)
class CorruptBatch(DistlogError):
    """Stored bytes are not what was written.  The file is kept; another node or a backup has the data."""

    reason = "CORRUPT_BATCH"
    text = "{path}: corrupt at byte {position} ({problem}): another node has it, and a running member fetches it; else run `distlog verify`"
    path: str
    position: int
    problem: str


@dataclass(eq=False)
class CorruptIndex(DistlogError):
    """An index row names another offset than its place says.  Rebuild the index from the store."""

    reason = "CORRUPT_INDEX"
    text = "{path}: the row of offset {offset} names {found}: rebuild the index from the store"
    path: str
    offset: int
    found: int


@dataclass(eq=False)
class CorruptJournal(DistlogError):
    """The journal lost an operation that it had promised.  The node must not act as the member it was."""

    reason = "CORRUPT_JOURNAL"
    text = (
        "{path}: corrupt at byte {position} ({problem}). This node may have promised what it lost, so it does not start; "
        "its files are kept. Run `distlog cluster rejoin` on its data directory: the node comes back as a new member and copies "
        "what it lacks"
    )
    path: str
    position: int
    problem: str


@dataclass(eq=False)
class CorruptCheckpoint(DistlogError):
    """The checkpoint cannot be read, or does not fit the journal or the logs beside it."""

    reason = "CORRUPT_CHECKPOINT"
    text = (
        "{path}: {problem}. This node cannot tell what it had applied, so it does not start; its files are kept. "
        "Run `distlog cluster rejoin` on its data directory: the node comes back as a new member and copies what it lacks"
    )
    path: str
    problem: str


@dataclass(eq=False)
class EntryUnknown(DistlogError):
    """An entry holds something of a newer version.  The node stops before it applies it: skipping it would make this
    node differ from the others for ever."""

    reason = "ENTRY_UNKNOWN"
    text = (
        "the journal holds an entry with {found}, which this version does not know: this node stops and nothing was "
        "skipped. Start the newer version of distlog that the leader runs; it goes on from here"
    )
    found: str


@dataclass(eq=False)
class EntryCorrupt(DistlogError):
    """A committed entry is not what a leader encodes.  The node stops before it applies it."""

    reason = "ENTRY_CORRUPT"
    text = (
        "the journal holds an entry that is corrupt at byte {position} ({problem}): this node stops and nothing of it was "
        "applied; its files are kept. Move the data directory away and let the node come back as a new member; if the "
        "other nodes stop at the same entry, keep all files and report it"
    )
    position: int
    problem: str


@dataclass(eq=False)
class DiskFailed(DistlogError):
    """The operating system refused a file operation (not for lack of space)."""

    reason = "DISK_FAILED"
    text = "{operation} {path}: {problem}"
    path: str
    operation: str
    problem: str


@dataclass(eq=False)
class InternalError(DistlogError):
    """A mistake of ours.  Report it with the incident id, which the node's log has beside the details."""

    reason = "INTERNAL"
    text = "internal error, incident {incident_id}: the node's log has the details under that id; please report it"
    incident_id: str


@dataclass(eq=False)
class UnrecognizedError(DistlogError):
    """A newer node refused for a reason that this version has no class for; only a client raises it."""

    reason = "UNRECOGNIZED"
    text = "{message} (reason {unknown_reason}, which this version does not know: upgrade it)"
    unknown_reason: str
    message: str


# --- Only the client raises these: it found out by itself ----------------------------------------


@dataclass(eq=False)
class Unreachable(DistlogError):
    """No answer came, and nothing was written by the call that raises this."""

    reason = "UNREACHABLE"
    text = "no answer from {addresses} ({problem}): check that the node runs and that the address is its client address"
    addresses: str
    problem: str


@dataclass(eq=False)
class AnswerInvalid(DistlogError):
    """A node answered what no healthy cluster answers.  What was acknowledged before may not be what is there now."""

    reason = "ANSWER_INVALID"
    text = "{address} {problem}: check that it is a node of the right cluster, and what its log holds, before writing on"
    address: str
    problem: str


@dataclass(eq=False)
class ProducerStopped(DistlogError):
    """This record was not written, because the producer had stopped at an earlier one, or was closed."""

    reason = "PRODUCER_STOPPED"
    text = "nothing was written: the producer had stopped ({cause}); open a new one and go on with what is not in the log"
    cause: str


# --- The node does not start --------------------------------------------------------------------


@dataclass(eq=False)
class ConfigurationInvalid(DistlogError):
    """A flag, an environment variable or a key of the configuration file is not acceptable."""

    reason = "CONFIGURATION_INVALID"
    text = "{key}: {problem}"
    key: str
    problem: str


@dataclass(eq=False)
class LibraryUnsuitable(DistlogError):
    """A library that the promises rest on is not the one that they were proven with."""

    reason = "LIBRARY_UNSUITABLE"
    text = "{library} is needed exactly as it was published, but {problem}: run {install}"
    library: str
    problem: str
    install: str


@dataclass(eq=False)
class DataDirectoryInUse(DistlogError):
    reason = "DATA_DIRECTORY_IN_USE"
    text = "{path} is in use by another process: stop that one, or choose another --data-dir"
    path: str


@dataclass(eq=False)
class DataDirectoryUnusable(DistlogError):
    reason = "DATA_DIRECTORY_UNUSABLE"
    text = "{path} cannot be used as a data directory: {problem}"
    path: str
    problem: str


@dataclass(eq=False)
class FormatUnsupported(DistlogError):
    reason = "FORMAT_UNSUPPORTED"
    text = "{path} has format {found} and this version reads up to {supported}: start a newer distlog, nothing was changed"
    path: str
    found: str
    supported: str


@dataclass(eq=False)
class AddressUnavailable(DistlogError):
    reason = "ADDRESS_UNAVAILABLE"
    text = "cannot listen on {address}: {problem}; stop what uses it, or choose another {flag}"
    address: str
    problem: str
    flag: str


# --- A peer that does not belong here -----------------------------------------------------------


@dataclass(eq=False)
class PeerRefused(DistlogError):
    """The handshake with a peer failed; no state was touched."""

    reason = "PEER_REFUSED"
    text = "peer {peer} was refused: {problem}"
    peer: str
    problem: str


def all_errors() -> list[type[DistlogError]]:
    """Return every error class, in the order of this file."""
    return [
        value
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, DistlogError) and value is not DistlogError
    ]
