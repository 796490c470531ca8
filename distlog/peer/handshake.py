"""The handshake: which messages open a connection, and when two nodes do not belong together.

    the node that dialled                       the node that was dialled
    Greeting(who I am, number of my greeting) ->
                              <- Greeting, Accepted    or Refused(why, in words), then the end of the connection
    Accepted ->                                        or Refused
    frames                                  <-> frames

Messages are msgpack maps with a `kind`, on the control channel, group 0.  Unknown keys are ignored, so later versions may
add some; `kind`, `hello.protocol_version` and the whole of Refused are frozen, so that two versions can always tell each
other that they differ.  Names and addresses from a peer are data to compare and to log: none is ever used as a path.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from distlog.peer.frames import CONTROL, encode_frame

PROTOCOL_VERSION = 2

# Names go to logs and metrics: no blanks, no control characters.  Anything else is malformed.
Name = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\s\x00-\x1f\x7f-\x9f]+\Z")]
NameOrNone = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\s\x00-\x1f\x7f-\x9f]*\Z")]
Unsigned = Annotated[int, msgspec.Meta(ge=0)]
VOTER_COUNT_MAX = 256
PROBLEM_LENGTH_MAX = 1000


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who a node is and what it knows, as it tells every peer."""

    node_id: Name
    # Random, made once with the data directory: a wiped node has another one.
    directory_id: Name
    # "" until the cluster has formed, as far as this node knows.
    cluster_id: NameOrNone = ""
    # node id -> directory id of the voters; empty until the cluster has formed.
    voters: Annotated[dict[Name, Name], msgspec.Meta(max_length=VOTER_COUNT_MAX)] = {}
    # HOST:PORT where clients, and where peers, reach this node.
    client_address: NameOrNone = ""
    peer_address: NameOrNone = ""
    protocol_version: Unsigned = PROTOCOL_VERSION
    # node id -> directory id of the members now, voters and learners, as far as this node knows for certain.
    members: Annotated[dict[Name, Name], msgspec.Meta(max_length=VOTER_COUNT_MAX)] = {}
    # The entry that the newest configuration which this node knows comes from; 0 until the cluster has formed.
    configuration_index: Unsigned = 0
    # This node belongs to no cluster and asks to become a member.
    joins: bool = False
    # The last entry that its journal has durably; 0: none.  It never falls below what the node has acknowledged.  None: an older
    # version does not say.
    durable_index: Unsigned | None = None
    # It takes part in gossip: whoever does not may be of a version that knows no such frames.
    gossips: bool = False


class Greeting(msgspec.Struct, frozen=True, tag_field="kind", tag="greeting"):
    """The first message of each end, and its only one of this kind."""

    # Random, made when the process starts: tells whether two greetings come from one process.
    incarnation: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    # Counts the greetings of a process, from 1: orders the connections that it has greeted on (`pairing.py`).
    attempt: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]
    hello: Hello


class Accepted(msgspec.Struct, frozen=True, tag_field="kind", tag="accepted"):
    """The sender has read the other end's greeting and takes it as a peer."""


class Refused(msgspec.Struct, frozen=True, tag_field="kind", tag="refused"):
    """The sender does not take the other end as a peer.  It closes the connection after this message."""

    # What is wrong and what to do, for the operator of the node that is refused.
    problem: Annotated[str, msgspec.Meta(max_length=PROBLEM_LENGTH_MAX)]


class Alive(msgspec.Struct, frozen=True, tag_field="kind", tag="alive"):
    """Sent when there is nothing else to send, so that silence means a dead connection."""


Message = Greeting | Accepted | Refused | Alive


class MalformedMessage(Exception):
    """The far end sent a control message that is none.  Close the connection."""


class UnsupportedVersion(Exception):
    """The far end greets in another version of this protocol.  Refuse it, in words."""

    def __init__(self, protocol_version: int) -> None:
        super().__init__(protocol_version)
        self.protocol_version = protocol_version


class _VersionOfHello(msgspec.Struct):
    protocol_version: Unsigned


class _VersionOfGreeting(msgspec.Struct, tag_field="kind", tag="greeting"):
    """What can be read of a greeting in any version."""

    hello: _VersionOfHello


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)
_version_decoder = msgspec.msgpack.Decoder(_VersionOfGreeting)
# A hostile message can nest deeper than the decoder recurses, and hold text that is not UTF-8.
_DECODING_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError)


def encode_message(message: Message) -> bytes:
    """Return the frame of a control message."""
    return encode_frame(CONTROL, 0, _encoder.encode(message))


def decode_message(payload: bytes) -> Message:
    """Parse the payload of a control frame.

    Raises UnsupportedVersion for a greeting in another version, whatever else it holds, and MalformedMessage.
    """
    try:
        version = _version_decoder.decode(payload).hello.protocol_version
    except _DECODING_ERRORS:
        version = PROTOCOL_VERSION
    if version != PROTOCOL_VERSION:
        raise UnsupportedVersion(version)
    try:
        message: Message = _decoder.decode(payload)
    except _DECODING_ERRORS as error:
        raise MalformedMessage(f"not a control message ({printable(str(error))})") from None
    if isinstance(message, Refused):
        # It goes to the log of this node: no line breaks, no terminal sequences.
        return Refused(printable(message.problem))
    return message


def printable(text: str) -> str:
    """Return `text` fit for one line of a log: what cannot be printed becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)[:PROBLEM_LENGTH_MAX]


def version_problem(protocol_version: int, own: Hello) -> str:
    """Say what to do about a peer that speaks another version."""
    return (
        f"{own.node_id} speaks version {PROTOCOL_VERSION} of the peer protocol, the other node version "
        f"{protocol_version}: run the same version of distlog on both"
    )


def copied_problem(hello: Hello) -> str:
    """Say what is wrong when a process is back that another one has followed."""
    return (
        f"two processes run as {hello.node_id} with data directory {hello.directory_id}, and the other one came later: one of the two "
        "directories is a copy. Stop this process; if it has the right directory, stop the other one, and start this one again"
    )


def identity_problem(hello: Hello, own: Hello, dialled_id: str | None) -> str | None:
    """Say why the sender of `hello` cannot be a peer of `own`, or that nothing speaks against it (None).

    `dialled_id` is the node that was expected at the dialled address, None for a connection that came in.  Whether the
    node is known, and known with this directory, is for the caller of the network to say.  Operators of both nodes read
    the answer, so it names both.
    """
    if hello.node_id == own.node_id:
        return (
            f"two nodes call themselves {own.node_id}, at {hello.peer_address} and {own.peer_address}: "
            "give every node a --node-id of its own, and check that --peers names each address once"
        )
    if dialled_id is not None and hello.node_id != dialled_id:
        return (
            f"{hello.node_id} answered where {own.node_id} had dialled {dialled_id}: "
            "check the addresses of --peers on both nodes"
        )
    if hello.cluster_id and own.cluster_id and hello.cluster_id != own.cluster_id:
        return (
            f"{hello.node_id} belongs to cluster {hello.cluster_id} and {own.node_id} to cluster {own.cluster_id}: "
            "check --peers on both nodes, or start the one that is new here with an empty data directory"
        )
    return None
