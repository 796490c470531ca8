"""What the voters of a group tell each other, as typed messages, and their encoding on the peer channel.

Every message carries `sender_term`: the sender's current term when it was sent.  pysyncobj's own messages lack it, and
several rules need it (rules/acknowledgements.py).  The encoding is msgpack by msgspec, checked against the types on
arrival; nothing on this path can execute what it reads, and malformed bytes are refused as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from distlog.consensus.configuration import decode_configuration_entry, is_configuration
from distlog.errors import EntryCorrupt, EntryUnknown, PeerRefused
from distlog.tracing.spans import CONTEXT_SIZE

# How far ahead of this node's own a peer's term may be.  No cluster holds so many elections while a node is away; terms that are used up
# could not be given back, and with the last one no leader could follow.
TERM_JUMP_MAX = 1 << 32

Unsigned = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
# One entry: payload, raft_index, term.
EntryTuple = tuple[bytes, Unsigned, Unsigned]
# Traces in one message, and what is told of one: raft_index, and the context of a span that the entry's way through the receiver is
# a part of.
TRACE_COUNT_MAX = 16
EntryTrace = tuple[
    Unsigned,
    Annotated[bytes, msgspec.Meta(min_length=CONTEXT_SIZE, max_length=CONTEXT_SIZE)],
]


class AppendEntries(msgspec.Struct, array_like=True, tag=1, gc=False):
    """The leader's entries after (previous_index, previous_term); without entries a heartbeat."""

    sender_term: Unsigned
    # Counts the AppendEntries of this leader to anybody; the reply repeats it.
    number: Unsigned
    commit_index: Unsigned
    previous_index: Unsigned
    previous_term: Unsigned
    # Every voter has every entry below this one in its fsynced journal: the receiver may forget them.
    retain_from: Unsigned
    entries: list[EntryTuple] = []
    # Of entries in it, where somebody records them: for who looks at traces, and for nothing else.
    traces: Annotated[list[EntryTrace], msgspec.Meta(max_length=TRACE_COUNT_MAX)] = []


class AppendReply(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The answer to AppendEntries `number`.

    success: the sender's log equals the leader's below `next_index`, durably.
    reset: the leader must go back to `next_index` and send from there; with success, since only a part was taken.
    is_full: the sender's disk is full, so it takes no entries for now.
    lacks_space: its reserve is not whole, so it could propose nothing if it led; it may still take entries.
    """

    sender_term: Unsigned
    number: Unsigned
    next_index: Unsigned
    success: bool
    reset: bool
    is_full: bool = False
    lacks_space: bool = False


class VoteRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """A candidate asks for a vote in `sender_term`; its log ends with (last_index, last_term)."""

    sender_term: Unsigned
    last_index: Unsigned
    last_term: Unsigned


class VoteReply(msgspec.Struct, array_like=True, tag=4, gc=False):
    """A vote for the receiver in `sender_term`.  A refusal is silence."""

    sender_term: Unsigned


class LeadershipQuery(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The leader of `sender_term` asks whether it still is one (read index, rules in reads.py)."""

    sender_term: Unsigned
    number: Unsigned


class LeadershipReply(msgspec.Struct, array_like=True, tag=6, gc=False):
    """The sender's term is `sender_term`: if that is the leader's own, no other leader existed when this was sent."""

    sender_term: Unsigned
    number: Unsigned


class ReadIndexRequest(msgspec.Struct, array_like=True, tag=7, gc=False):
    """A follower asks the leader up to where it must have applied before it may say "not there"."""

    sender_term: Unsigned
    number: Unsigned


class ReadIndexReply(msgspec.Struct, array_like=True, tag=8, gc=False):
    """The raft index to wait for; None: the receiver is not a leader that can tell."""

    sender_term: Unsigned
    number: Unsigned
    raft_index: Unsigned | None


class PreVoteRequest(msgspec.Struct, array_like=True, tag=9, gc=False):
    """The sender asks whether it could win an election: its log ends with (last_index, last_term).  Nothing is promised."""

    sender_term: Unsigned
    number: Unsigned
    last_index: Unsigned
    last_term: Unsigned


class PreVoteReply(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The sender would vote for the receiver, and hears no leader.  A refusal is silence, or a TermNotice."""

    sender_term: Unsigned
    number: Unsigned


class TermNotice(msgspec.Struct, array_like=True, tag=11, gc=False):
    """The sender got a message of an older term, and ignored it: the receiver must take the newer one over."""

    sender_term: Unsigned


class TimeoutNow(msgspec.Struct, array_like=True, tag=12, gc=False):
    """The leader of `sender_term` hands over: the receiver has its whole log and begins an election at once."""

    sender_term: Unsigned


class CheckpointNeeded(msgspec.Struct, array_like=True, tag=13, gc=False):
    """The leader of `sender_term` has no entry any more that the receiver needs next, and goes on keeping those from `first_index` on.

    The receiver copies a checkpoint at that index or a later one, from anybody who has it.
    """

    sender_term: Unsigned
    first_index: Unsigned


Message = (
    AppendEntries
    | AppendReply
    | VoteRequest
    | VoteReply
    | LeadershipQuery
    | LeadershipReply
    | ReadIndexRequest
    | ReadIndexReply
    | PreVoteRequest
    | PreVoteReply
    | TermNotice
    | TimeoutNow
    | CheckpointNeeded
)
# What raft.py takes; reads.py takes the others.
RAFT_MESSAGES = (
    AppendEntries,
    AppendReply,
    VoteRequest,
    VoteReply,
    PreVoteRequest,
    PreVoteReply,
    TermNotice,
    TimeoutNow,
    CheckpointNeeded,
)

# An entry of this size is not worth a copy for each voter.
PART_SIZE_MIN = 64 << 10
# Of msgpack: an empty array, an array of three, the heads of an array and of bytes with four bytes of size.
NO_ENTRIES, ENTRY_OF_THREE = b"\x90", b"\x93"
ARRAY32, BIN32 = struct.Struct(">BI"), struct.Struct(">BI")

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
# A hostile message can nest deeper than the decoder recurses, in a field that this version does not know and skips.
_DECODING_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError)


def encode(message: Message) -> bytes:
    """Return the bytes of one message."""
    return _encoder.encode(message)


def encode_in_parts(message: Message) -> Sequence[bytes]:
    """Return the bytes of one message, in which large entries are parts of their own and not copied."""
    if not isinstance(message, AppendEntries) or not any(
        len(entry[0]) >= PART_SIZE_MIN for entry in message.entries
    ):
        return (_encoder.encode(message),)
    # Only the traces are behind the entries: an array of entries, each an array of three, in msgpack.
    head = _encoder.encode(msgspec.structs.replace(message, entries=[]))
    tail = _encoder.encode(message.traces)
    assert head.endswith(NO_ENTRIES + tail), "the traces follow the entries"
    parts: list[bytes] = []
    between = head[: -len(NO_ENTRIES + tail)] + ARRAY32.pack(0xDD, len(message.entries))
    for payload, raft_index, term in message.entries:
        parts += (between + ENTRY_OF_THREE + BIN32.pack(0xC6, len(payload)), payload)
        between = _encoder.encode(raft_index) + _encoder.encode(term)
    parts.append(between + tail)
    return parts


def decode(payload: bytes, sender: str) -> Message:
    """Parse one message.  Raises PeerRefused if it is not one: the connection to `sender` must be closed."""
    try:
        message = _decoder.decode(payload)
    except _DECODING_ERRORS as error:
        raise PeerRefused(peer=sender, problem=f"malformed consensus message ({error})") from error
    if isinstance(message, AppendEntries):
        _check_entries(message, sender)
    return message


def check_term(message: Message, own_term: int, sender: str) -> None:
    """Raise PeerRefused if a message is of a term that no election can have led to."""
    if message.sender_term > own_term + TERM_JUMP_MAX:
        problem = f"term {message.sender_term} is too far beyond this node's {own_term}"
        raise PeerRefused(peer=sender, problem=problem)


def _check_entries(message: AppendEntries, sender: str) -> None:
    """Refuse entries that do not follow each other: the journal asserts that they do."""
    index, term = message.previous_index, message.previous_term
    for payload, raft_index, entry_term in message.entries:
        index += 1
        if raft_index != index or entry_term < term or not payload:
            raise PeerRefused(
                peer=sender, problem=f"entry {raft_index} does not follow {index - 1}"
            )
        term = entry_term
        if is_configuration(payload):
            _check_configuration(payload, raft_index, sender)
    if any(not message.previous_index < traced <= index for traced, _ in message.traces):
        raise PeerRefused(peer=sender, problem="a trace of an entry that it did not send")
    if term > message.sender_term or message.number < 0 or message.previous_index < 1:
        raise PeerRefused(peer=sender, problem="an AppendEntries with impossible numbers")


def _check_configuration(payload: bytes, raft_index: int, sender: str) -> None:
    """Refuse a configuration that cannot be read: it comes into force before it is applied.

    One of a newer version is for the journal, with which the node stops.
    """
    try:
        decode_configuration_entry(payload, raft_index)
    except EntryUnknown:
        return
    except EntryCorrupt as error:
        problem = f"entry {raft_index} is no configuration ({error.problem})"
        raise PeerRefused(peer=sender, problem=problem) from error
