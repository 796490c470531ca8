"""What nodes tell each other about all of them: rows, as bytes and back, and what becomes of two rows about one node.

    row = (node id, run, heartbeat, status, age, description)

Every node makes its own row anew once in a while, with the next heartbeat, and passes on the newest that it has of each other.  The
greatest (run, heartbeat) counts, so messages may be lost, repeated and come in any order.  A run is the number of a node's process: a
later one has a greater number.  The age says how long ago, at least, the heartbeat was made: nobody compares clocks.

This module is pure: no clock, no randomness, no connection.  docs/format-peer.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from distlog.discovery.view import Description, MemberStatus
from distlog.errors import InvalidRequest

# Rows of one message, and nodes that one node keeps in mind: with the sizes below a message stays under 64 KiB.
ROW_COUNT_MAX = 64
ID_SIZE_MAX = 64
ADDRESS_SIZE_MAX = 255
# Runs are milliseconds of a clock, and have to be outdone: they stay far from the end of what fits.
NUMBER_MAX = (1 << 53) - 1

# One byte a character, none of them blank: they go to logs.
Text = Annotated[str, msgspec.Meta(pattern=r"^[!-~]*\Z", max_length=ID_SIZE_MAX)]
NodeId = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+\Z", max_length=ID_SIZE_MAX)]
AddressText = Annotated[str, msgspec.Meta(pattern=r"^[!-~]*\Z", max_length=ADDRESS_SIZE_MAX)]
Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
# The status that a node has of itself, or that somebody has given it for good; who failed is not told but seen.
Status = Literal[0, 1]
ALIVE: Status = 0
LEFT: Status = 1
STATUSES: dict[Status, MemberStatus] = {ALIVE: MemberStatus.ALIVE, LEFT: MemberStatus.LEFT}


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one node.  Fields may be added at the end."""

    node_id: NodeId
    run: Number
    heartbeat: Number
    status: Status
    # Milliseconds since the heartbeat was made, at least.
    age_ms: Number
    directory_id: Text
    peer_address: AddressText
    client_address: AddressText
    cluster_id: Text
    expect: Number
    version: Text

    @property
    def order(self) -> tuple[int, ...]:
        return (self.run, self.heartbeat, self.status)

    def supersedes(self, other: Row) -> bool:
        """Tell whether this row counts and the other does not.  Of two that differ one does, and the same one everywhere."""
        if self.order != other.order:
            return self.order > other.order
        return self.description_key > other.description_key

    @property
    def description_key(self) -> tuple[str | int, ...]:
        return (
            self.directory_id,
            self.peer_address,
            self.client_address,
            self.cluster_id,
            self.expect,
            self.version,
        )

    def description(self) -> Description:
        return Description(
            node_id=self.node_id,
            directory_id=self.directory_id,
            peer_address=self.peer_address,
            client_address=self.client_address,
            cluster_id=self.cluster_id,
            expect=self.expect,
            version=self.version,
        )


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """One message."""

    # Whether the receiver shall answer with what it knows better.
    wants_answer: bool
    rows: Annotated[list[Row], msgspec.Meta(max_length=ROW_COUNT_MAX)]


class MalformedRows(Exception):
    """A peer sent what is no message of this channel.  Close the connection."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Rows)
_row_decoder = msgspec.msgpack.Decoder(Row)
# A hostile message can nest deeper than the decoder recurses, and hold text that is not UTF-8.
_DECODING_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError)


def encode_rows(rows: Iterable[Row], *, wants_answer: bool) -> bytes:
    """Return a message of at most ROW_COUNT_MAX rows."""
    return _encoder.encode(Rows(wants_answer, list(rows)))


def decode_rows(payload: bytes) -> Rows:
    """Parse a message.  Raises MalformedRows."""
    try:
        message = _decoder.decode(payload)
    except _DECODING_ERRORS as error:
        raise MalformedRows(f"not rows of gossip ({error})") from None
    if len({row.node_id for row in message.rows}) != len(message.rows):
        raise MalformedRows("two rows about one node")
    return message


def own_row(description: Description, run: int, heartbeat: int, status: Status) -> Row:
    """Return what a node says of itself.  Raises InvalidRequest if the others could not read that."""
    row = Row(
        node_id=description.node_id,
        run=run,
        heartbeat=heartbeat,
        status=status,
        age_ms=0,
        directory_id=description.directory_id,
        peer_address=description.peer_address,
        client_address=description.client_address,
        cluster_id=description.cluster_id,
        expect=description.expect,
        version=description.version,
    )
    try:
        _row_decoder.decode(_encoder.encode(row))
    except _DECODING_ERRORS as error:
        problem = f"cannot be told to the other nodes: {error}"
        raise InvalidRequest(
            field=f"description of {description.node_id}", problem=problem
        ) from None
    return row


def check_readable(description: Description, run: int) -> None:
    """Raise InvalidRequest for a description that no node would tell in rows: too long, or with blanks, which would spoil a log."""
    own_row(description, run, 0, ALIVE)
