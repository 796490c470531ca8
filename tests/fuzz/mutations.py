"""What becomes of recorded frames on the way to a node that somebody means harm.

raw       the bytes of whole frames, changed anywhere: sizes, checksums, channels
payload   the bytes of one message, changed, in a frame whose size and checksum are right again
fields    a message whose fields are other legal numbers: well-formed, and hostile
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Protocol

import msgspec

from distlog.consensus import messages
from distlog.consensus.messages import AppendEntries, Message
from distlog.discovery.gossip_rows import ALIVE, encode_rows, own_row
from distlog.discovery.view import Description
from distlog.peer.frames import CONTROL, HEADER, HEADER_SIZE, Channel, encode_frame

INTERESTING = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff",
)
# A message of gossip about two nodes.
ROWS = encode_rows(
    [
        own_row(Description(node_id, f"d-{node_id}", "h:8401", "h:8400", "c1"), 5, 6, ALIVE)
        for node_id in ("n2", "n4")
    ],
    wants_answer=True,
)
EDGES = (0, 1, 2, (1 << 31) - 1, 1 << 32, (1 << 63) - 1)


def mutated(data: bytes, source: Random) -> bytes:
    """Return `data` with one to four places flipped, replaced, cut out, doubled or filled."""
    result = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(result) + 1)
        end = min(len(result), place + source.randint(0, 12))
        kind = source.randrange(6)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            result[place:end] = source.randbytes(end - place)
        elif kind == 2:
            del result[place:end]
        elif kind == 3:
            result[place:place] = result[place:end]
        elif kind == 4:
            del result[place:]
        else:
            result[place:end] = source.choice(INTERESTING)
    return bytes(result)


def raw(frames: Sequence[bytes], source: Random) -> bytes:
    """Return a stream of a few frames that something has happened to."""
    chosen = [source.choice(frames) for _ in range(source.randint(1, 3))]
    kind = source.randrange(6)
    if kind == 0:
        return mutated(b"".join(chosen), source)
    if kind == 1:
        one, other = chosen[0], source.choice(frames)
        return one[: source.randrange(len(one))] + other[source.randrange(len(other)) :]
    if kind == 2:
        size = source.choice([0, 7, (32 << 20) + 9, (1 << 31), (1 << 32) - 1])
        return HEADER.pack(size, source.getrandbits(32), 1, 0) + chosen[0][HEADER_SIZE:]
    if kind == 3:
        source.shuffle(chosen)
        return b"".join(chosen * 2)
    if kind == 4:
        return source.randbytes(source.randint(1, 64))
    place = source.randrange(len(chosen))
    chosen[place] = mutated(chosen[place], source)
    return b"".join(chosen)


def reframed(frames: Sequence[bytes], source: Random) -> bytes:
    """Return a frame with the right size and checksum around a changed payload."""
    channel = Channel.RAFT if source.random() < 0.8 else source.choice([CONTROL, 2, 2, 3, 4, 255])
    is_gossip = channel == Channel.GOSSIP and source.random() < 0.8
    payload = mutated(ROWS if is_gossip else source.choice(frames)[HEADER_SIZE:], source)
    group = 0 if source.random() < 0.95 else source.getrandbits(32)
    return encode_frame(channel, group, payload)


class Target(Protocol):
    """What a hostile peer knows of the victim: everything."""

    @property
    def term(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    def term_at(self, raft_index: int) -> int | None: ...


def hostile(recorded: Sequence[Message], source: Random, target: Target) -> Message:
    """Return a message whose fields are changed within their types, most of them near what the victim takes for true."""
    if source.random() < 0.5:
        recorded = [each for each in recorded if isinstance(each, AppendEntries) and each.entries]
    message = source.choice(recorded)
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    if source.random() < 0.8:
        fields["sender_term"] = max(0, target.term + source.choice([-1, 0, 0, 0, 0, 1]))
    if isinstance(message, AppendEntries) and source.random() < 0.8:
        rebase(fields, source, target)
    for _ in range(source.choice([0, 0, 1, 2])):
        name = source.choice(list(fields))
        if isinstance(fields[name], bool):
            fields[name] = source.random() < 0.5
        elif isinstance(fields[name], int):
            near = (target.term, target.last_index, fields[name])
            number = source.choice(EDGES + near) + source.choice([-1, 0, 0, 1])
            fields[name] = min(max(number, 0), (1 << 63) - 1)
    return type(message)(**fields)


def rebase(fields: dict[str, Any], source: Random, target: Target) -> None:
    """Let entries follow the end of the victim's log, or something close to it."""
    previous = max(1, target.last_index + source.choice([-2, -1, 0, 0, 0, 0, 1]))
    term = fields["sender_term"]
    fields["previous_index"] = previous
    fields["previous_term"] = target.term_at(previous) or term
    if source.random() < 0.1:
        fields["previous_term"] = max(0, term + source.choice([-1, 0, 1]))
    fields["commit_index"] = source.choice([0, 0, previous, previous + 1, target.last_index])
    fields["entries"] = [
        (entry[0], previous + place, term) for place, entry in enumerate(fields["entries"], 1)
    ]
    if fields["entries"] and source.random() < 0.3:
        # At most one is of an entry that is not there.
        indexes = [each[1] for each in fields["entries"]] * 8 + [source.choice(EDGES)]
        count = source.choice([1, 2, messages.TRACE_COUNT_MAX, messages.TRACE_COUNT_MAX + 1])
        fields["traces"] = [
            (source.choice(indexes), source.choice([bytes(25), source.randbytes(25)]))
            for _ in range(count)
        ]
    if fields["entries"] and source.random() < 0.2:
        payload, raft_index, entry_term = fields["entries"][0]
        fields["entries"][0] = (mutated(payload, source) or b"?", raft_index, entry_term)


def encoded(message: msgspec.Struct) -> bytes:
    """Return the frame of a message."""
    return encode_frame(Channel.RAFT, 0, messages.encode(message))  # type: ignore[arg-type]
