"""The bytes of the journal: operations, one after the other, in files that are only ever appended
to.

An operation is a header of 48 bytes and a payload, and begins on an 8-byte boundary:

    size u32               bytes of header and payload; up to 7 zeros follow, which nothing checks
    crc32c u32             of the bytes [8, size)
    previous_crc32c u32    the crc32c of the operation before; 0 in the first one of all
    kind u32               see OperationKind (one byte in use; the other three are zero)
    sequence u64           from 1, one more for each operation, also from file to file
    durable_sequence u64   operations up to here were known to be durable when this one was written
    raft_index u64         entry: its index; truncate_from: the first index that goes; term_vote: 0
    term u64               entry: its term; truncate_from: 0; term_vote: the current term
    payload                entry: its bytes; truncate_from: none; term_vote: size u16 and the vote

The file `%020d.journal` is named by the sequence of its first operation, which is a term_vote:
dropping the files before it loses neither.  docs/format-journal.md has the tables and says what
recovery makes of them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import google_crc32c

HEADER = struct.Struct("<IIIIQQQQ")
SIZE_AND_CRC = struct.Struct("<II")
# What the checksum covers of the header.
REST = struct.Struct("<IIQQQQ")
ALIGNMENT = 8
PADDING = tuple(bytes(count) for count in range(ALIGNMENT))
PAYLOAD_SIZE_MAX = 64 << 20

VOTE_SIZE = struct.Struct("<H")
NO_VOTE = 0xFFFF

FILE_SUFFIX = ".journal"
FILE_DIGITS = 20


class OperationKind(IntEnum):
    """What an operation does to the list of entries, the term and the vote."""

    # Appends an entry: its index is one more than the last, or any if there is none.
    ENTRY = 1
    # Removes every entry from `raft_index` on; 0 removes all.
    TRUNCATE_FROM = 2
    # Sets the term and the vote.
    TERM_VOTE = 3


KIND_MAX = max(OperationKind)


class Operation(NamedTuple):
    """One operation and where it was found."""

    kind: int
    sequence: int
    durable_sequence: int
    raft_index: int
    term: int
    payload: bytes
    previous_crc32c: int
    crc32c: int
    # The file, by the sequence of its first operation, and the byte of it where the header starts.
    file_sequence: int
    position: int


def operation_size(payload_size: int) -> int:
    """Return the bytes from the start of an operation to the start of the next."""
    return (HEADER.size + payload_size + ALIGNMENT - 1) & -ALIGNMENT


def encode_header(
    kind: int,
    sequence: int,
    durable_sequence: int,
    raft_index: int,
    term: int,
    payload: bytes,
    previous_crc32c: int,
) -> tuple[bytes, int]:
    """Return an operation's header and its crc32c; the payload and the padding follow it."""
    rest = REST.pack(previous_crc32c, kind, sequence, durable_sequence, raft_index, term)
    crc32c = int(google_crc32c.extend(google_crc32c.value(rest), payload))
    return SIZE_AND_CRC.pack(HEADER.size + len(payload), crc32c) + rest, crc32c


def padding(payload_size: int) -> bytes:
    """Return the zeros between a payload and the next operation."""
    return PADDING[-payload_size % ALIGNMENT]


def decode_operation(data: bytes, start: int, file_sequence: int, position: int) -> Operation | str:
    """Return the operation whose header starts at `data[start]`, or what is wrong with it.

    `data` must reach to the end of the operation, or the end of the file.
    """
    if start + HEADER.size > len(data):
        return "the file ends inside a header"
    size, crc32c, previous, kind, sequence, durable, raft_index, term = HEADER.unpack_from(
        data, start
    )
    if not HEADER.size <= size <= HEADER.size + PAYLOAD_SIZE_MAX:
        return f"no operation has {size} bytes"
    end = start + size
    if end > len(data):
        return "the file ends inside a payload"
    if google_crc32c.value(data[start + SIZE_AND_CRC.size : end]) != crc32c:
        return "its checksum is wrong"
    payload = data[start + HEADER.size : end]
    return Operation(
        kind,
        sequence,
        durable,
        raft_index,
        term,
        payload,
        previous,
        crc32c,
        file_sequence,
        position,
    )


def encode_vote(vote: str | None) -> bytes:
    """Return the payload of a term_vote operation."""
    if vote is None:
        return VOTE_SIZE.pack(NO_VOTE)
    data = vote.encode()
    assert len(data) < NO_VOTE, "a vote is the id of a node"
    return VOTE_SIZE.pack(len(data)) + data


def decode_vote(payload: bytes) -> str | None:
    """Return the vote in a term_vote operation's payload.  Raises ValueError if it is not one."""
    if len(payload) < VOTE_SIZE.size:
        raise ValueError("a vote without a size")
    (size,) = VOTE_SIZE.unpack_from(payload)
    data = payload[VOTE_SIZE.size :]
    if size == NO_VOTE and not data:
        return None
    if size != len(data):
        raise ValueError("a vote of another size than it says")
    return data.decode()


def file_path(directory: str, file_sequence: int) -> str:
    """Return the path of the file whose first operation has this sequence."""
    return f"{directory}/{file_sequence:0{FILE_DIGITS}d}{FILE_SUFFIX}"


def sequence_of_name(name: str) -> int | None:
    """Return the sequence in a journal file's name; None for any other name."""
    digits = name.removesuffix(FILE_SUFFIX)
    if digits == name or len(digits) != FILE_DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)
