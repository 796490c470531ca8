"""Consensus messages: what is sent arrives equal, and nothing else is taken."""

from __future__ import annotations

import pickle
import typing
from pathlib import Path
from random import Random

import msgspec
import pytest

from distlog.consensus import messages
from distlog.consensus.messages import (
    TRACE_COUNT_MAX,
    AppendEntries,
    AppendReply,
    CheckpointNeeded,
    LeadershipQuery,
    LeadershipReply,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    TermNotice,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from distlog.errors import PeerRefused

DOCUMENT = Path(__file__).parents[2] / "docs" / "format-peer.md"
ALL = [
    AppendEntries(3, 7, 5, 4, 2, 1, [(b"\x01", 5, 3), (b"d" * 40, 6, 3)]),
    AppendEntries(3, 8, 5, 6, 3, 1),
    AppendEntries(3, 9, 5, 4, 2, 1, [(b"\x01", 5, 3)], [(5, b"t" * 24 + b"\x01")] * 2),
    AppendReply(3, 7, 7, True, False),
    VoteRequest(4, 6, 3),
    VoteReply(4),
    LeadershipQuery(3, 1),
    LeadershipReply(3, 1),
    ReadIndexRequest(3, 2),
    ReadIndexReply(3, 2, 9),
    ReadIndexReply(3, 2, None),
    PreVoteRequest(3, 1, 6, 3),
    PreVoteReply(3, 1),
    TermNotice(9),
    TimeoutNow(3),
    CheckpointNeeded(3, 100),
]


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message), "n2") == message


LARGE = bytes(range(256)) * (messages.PART_SIZE_MIN // 256)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(b"small", 5, 3)],
        [(LARGE, 5, 3)],
        [(b"small", 5, 3), (LARGE, 6, 1 << 40), (LARGE[:-1], 7, 1 << 40), (LARGE, 8, 1 << 40)],
        [(b"x", index, 3) for index in range(5, 25)] + [(LARGE, 25, 3)],
    ],
    ids=["none", "small", "large", "both", "many"],
)
def test_large_entries_travel_as_they_are(entries: list[messages.EntryTuple]) -> None:
    traces = [(raft_index, bytes(25)) for _, raft_index, _ in entries[:TRACE_COUNT_MAX]]
    message = AppendEntries(1 << 50, 7, 5, 4, 2, 1, entries, traces)
    parts = messages.encode_in_parts(message)
    assert messages.decode(b"".join(parts), "n2") == message
    for payload in (entry[0] for entry in entries if len(entry[0]) >= messages.PART_SIZE_MIN):
        assert any(part is payload for part in parts)


def test_a_message_without_large_entries_is_one_part() -> None:
    for message in ALL:
        assert messages.encode_in_parts(message) == (messages.encode(message),)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"garbage", pickle.dumps({"type": "append_entries"}), b"\x92\x63\x01"],
    ids=["empty", "zero", "words", "pickle", "unknown tag"],
)
def test_anything_else_is_refused_with_the_sender_named(payload: bytes) -> None:
    with pytest.raises(PeerRefused, match="n2"):
        messages.decode(payload, "n2")


@pytest.mark.parametrize(
    "entries",
    [[(b"x", 6, 3)], [(b"x", 5, 3), (b"x", 7, 3)], [(b"x", 5, 1)], [(b"", 5, 3)], [(b"x", 5, 4)]],
    ids=["gap before", "gap inside", "falling term", "empty", "newer than the sender's term"],
)
def test_entries_that_do_not_follow_each_other_are_refused(
    entries: list[messages.EntryTuple],
) -> None:
    payload = messages.encode(AppendEntries(3, 7, 5, 4, 2, 1, entries))
    with pytest.raises(PeerRefused):
        messages.decode(payload, "n2")


@pytest.mark.parametrize(
    "traces",
    [
        [(5, bytes(24))],
        [(5, bytes(26))],
        [(5, "t" * 25)],
        [(4, bytes(25))],
        [(7, bytes(25))],
        [(5, bytes(25))] * (TRACE_COUNT_MAX + 1),
        [(5, bytes(25), 1)],
        [5],
        None,
    ],
    ids=[
        *(
            "short",
            "long",
            "text",
            "before",
            "behind",
            "too many",
            "three fields",
            "no array",
            "nil",
        ),
    ],
)
def test_traces_that_are_none_or_of_entries_that_are_not_there_are_refused(traces: object) -> None:
    entries = [(b"x", 5, 3), (b"x", 6, 3)]
    payload = msgspec.msgpack.encode([1, 3, 7, 5, 4, 2, 1, entries, traces])
    with pytest.raises(PeerRefused):
        messages.decode(payload, "n2")


def test_a_build_that_knows_no_traces_is_understood_and_understands_what_it_is_sent() -> None:
    class Older(msgspec.Struct, array_like=True, tag=1):
        sender_term: int
        number: int
        commit_index: int
        previous_index: int
        previous_term: int
        retain_from: int
        entries: list[messages.EntryTuple] = []

    entries: list[messages.EntryTuple] = [(b"x", 5, 3), (b"y", 6, 3)]
    older = Older(3, 7, 5, 4, 2, 1, entries)
    newer = AppendEntries(3, 7, 5, 4, 2, 1, entries)
    assert messages.decode(msgspec.msgpack.encode(older), "n2") == newer
    newer.traces = [(5, bytes(25)), (6, bytes(25))]
    assert msgspec.msgpack.decode(messages.encode(newer), type=Older) == older


def test_mutated_messages_are_refused_or_are_messages() -> None:
    random = Random(1)
    originals = [messages.encode(message) for message in ALL]
    refused = 0
    for _ in range(20_000):
        payload = bytearray(random.choice(originals))
        for _ in range(random.randint(1, 3)):
            payload[random.randrange(len(payload))] = random.randrange(256)
        try:
            messages.decode(bytes(payload), "n2")
        except PeerRefused:
            refused += 1
    assert 1000 < refused < 20_000


@pytest.mark.parametrize("kind", typing.get_args(messages.Message), ids=lambda kind: kind.__name__)
def test_a_message_is_documented_with_its_tag_and_its_fields(kind: type[msgspec.Struct]) -> None:
    text = DOCUMENT.read_text("utf-8")
    rows = [line for line in text.splitlines() if f"| {kind.__name__} |" in line]
    assert [row.split(" | ")[0] for row in rows] == [f"| {kind.__struct_config__.tag}"]
    for field in set(kind.__struct_fields__) - {"entries", "raft_index"}:
        assert f"`{field}`" in rows[0]
