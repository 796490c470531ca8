"""The messages of the handshake: their bytes, what they refuse, and who belongs together."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.peer.frames import HEADER_SIZE
from distlog.peer.handshake import (
    PROBLEM_LENGTH_MAX,
    VOTER_COUNT_MAX,
    Accepted,
    Alive,
    Greeting,
    Hello,
    MalformedMessage,
    Message,
    Refused,
    UnsupportedVersion,
    decode_message,
    encode_message,
    identity_problem,
    version_problem,
)
from tests.peer.exchanges import greeting, hello

HELLO = Hello(
    node_id="n1",
    directory_id="d1",
    cluster_id="c",
    voters={"n1": "d1"},
    client_address="h:1",
    peer_address="h:2",
    members={"n1": "d1"},
    configuration_index=7,
    durable_index=9,
)
GOLDEN = [
    (
        Greeting(1, 2, HELLO),
        b"\xe3\x00\x00\x00\x75\xe5\x2c\x05\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x84\xa4kind\xa8greeting\xabincarnation\x01\xa7attempt\x02\xa5hello\x8c\xa7node_id\xa2n1"
        b"\xacdirectory_id\xa2d1\xaacluster_id\xa1c\xa6voters\x81\xa2n1\xa2d1"
        b"\xaeclient_address\xa3h:1\xacpeer_address\xa3h:2\xb0protocol_version\x02"
        b"\xa7members\x81\xa2n1\xa2d1\xb3configuration_index\x07\xa5joins\xc2\xaddurable_index\x09"
        b"\xa7gossips\xc2",
    ),
    (
        Accepted(),
        b"\x17\x00\x00\x00\xcf\xae\x01\x71\x00\x00\x00\x00\x00\x00\x00\x00\x81\xa4kind\xa8accepted",
    ),
    (
        Refused("why"),
        b"\x22\x00\x00\x00\xf2\x25\x45\x76\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x82\xa4kind\xa7refused\xa7problem\xa3why",
    ),
    (
        Alive(),
        b"\x14\x00\x00\x00\x4f\x5a\xb3\x18\x00\x00\x00\x00\x00\x00\x00\x00\x81\xa4kind\xa5alive",
    ),
]


@pytest.mark.parametrize(("message", "data"), GOLDEN, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_message_are_the_documented_ones(message: Message, data: bytes) -> None:
    assert encode_message(message) == data
    assert decode_message(data[HEADER_SIZE:]) == message


def encoded(**changes: object) -> bytes:
    """Return the payload of a greeting with other values in its hello; None leaves a key out."""
    values = {**msgspec.structs.asdict(HELLO), **changes}
    fields = {key: value for key, value in values.items() if value is not None}
    return msgspec.msgpack.encode(
        {"kind": "greeting", "incarnation": 1, "attempt": 2, "hello": fields}
    )


def test_unknown_keys_are_for_later_versions_and_are_ignored() -> None:
    assert decode_message(encoded(colour="green")) == Greeting(1, 2, HELLO)


@pytest.mark.parametrize("payload", [encoded(protocol_version=1), encoded(protocol_version=0)])
def test_another_version_is_told_apart(payload: bytes) -> None:
    with pytest.raises(UnsupportedVersion):
        decode_message(payload)


def test_another_version_is_told_apart_even_if_nothing_else_of_its_greeting_is_known() -> None:
    with pytest.raises(UnsupportedVersion) as raised:
        decode_message(
            msgspec.msgpack.encode({"kind": "greeting", "hello": {"protocol_version": 9}})
        )
    assert raised.value.protocol_version == 9
    problem = version_problem(9, HELLO)
    assert "version 2" in problem
    assert "version 9" in problem
    assert "run the same version" in problem


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80",
        b"\xc1",
        b"\x81\xa4kind\xa4what",
        b"\x91" * 60_000,
        b"\x82\xa4kind\xa5alive\xa1x" + b"\x91" * 60_000,
        b"\x82\xa4kind\xa7refused\xa7problem\xa2\xff\xfe",
        b"\x81\xa4kind\xa7refused",
        GOLDEN[1][1][HEADER_SIZE:] + b"\x00",
        encoded(node_id=None),
        encoded(node_id=""),
        encoded(node_id=7),
        encoded(node_id="n 1"),
        encoded(node_id="n1\n"),
        encoded(node_id="\x1b[31mn1"),
        encoded(node_id="n" * 256),
        encoded(directory_id=""),
        encoded(voters={"": "d"}),
        encoded(voters={f"n{i}": "d" for i in range(VOTER_COUNT_MAX + 1)}),
        encoded(protocol_version=-1),
        msgspec.msgpack.encode({"kind": "refused", "problem": "x" * (PROBLEM_LENGTH_MAX + 1)}),
        msgspec.msgpack.encode({"kind": "greeting", "incarnation": 1, "attempt": 0}),
    ],
)
def test_what_is_no_message_is_refused_whatever_it_is(payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(payload: bytes) -> None:
    try:
        decode_message(payload)
    except (MalformedMessage, UnsupportedVersion):
        return


def test_the_words_of_a_peer_come_to_the_log_in_one_line_without_control_characters() -> None:
    payload = msgspec.msgpack.encode({"kind": "refused", "problem": "one\ntwo\x1b[31m\u202e"})
    assert decode_message(payload) == Refused("one?two?[31m?")


OTHER = hello("n2")


@pytest.mark.parametrize(
    ("theirs", "dialled_id", "words"),
    [
        (hello("n1"), None, "two nodes call themselves n1"),
        (hello("n1"), "n2", "two nodes call themselves n1"),
        (hello("n3"), "n2", "n3 answered where n1 had dialled n2"),
        (hello("n2", "other"), None, "n2 belongs to cluster other and n1 to cluster c"),
        (hello("n2", "other"), "n2", "n2 belongs to cluster other and n1 to cluster c"),
    ],
)
def test_who_cannot_be_a_peer_is_told_why_and_what_to_do(
    theirs: Hello, dialled_id: str | None, words: str
) -> None:
    problem = identity_problem(theirs, hello("n1"), dialled_id)
    assert problem is not None
    assert words in problem
    assert "check" in problem


@pytest.mark.parametrize("own_cluster", ["", "c"])
@pytest.mark.parametrize("their_cluster", ["", "c"])
@pytest.mark.parametrize("dialled_id", ["n2", None])
def test_nodes_of_one_cluster_or_of_none_yet_can_be_peers(
    own_cluster: str, their_cluster: str, dialled_id: str | None
) -> None:
    own, theirs = hello("n1", own_cluster), hello("n2", their_cluster)
    assert identity_problem(theirs, own, dialled_id) is None


def test_the_largest_greeting_fits_into_the_handshake() -> None:
    voters = {f"{i:0255}": "d" * 40 for i in range(150)}
    message = greeting("n1")
    full = msgspec.structs.replace(message, hello=msgspec.structs.replace(OTHER, voters=voters))
    assert len(encode_message(full)) < 64 << 10
