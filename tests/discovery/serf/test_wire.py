"""The decoder of the agent's RPC: any way of cutting the bytes, and bytes that no agent sends."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.discovery.serf.values import (
    AgentMember,
    AgentStatus,
    MemberEvent,
    QueryReceived,
    UserEvent,
    coordinate_of,
    key_answer_of,
    members_of,
    record_of,
    stats_of,
)
from distlog.discovery.serf.wire import (
    ANSWER_SIZE_MAX,
    ELEMENT_COUNT_MAX,
    REQUEST_SIZE_MAX,
    Answer,
    AnswerDecoder,
    AnswerMalformed,
    encode_request,
)
from tests.discovery.serf.fake_agent import MEMBER, header, packed

MIB = 1 << 20


def decoder() -> AnswerDecoder:
    """Return one for which answers with an even Seq have a body."""
    return AnswerDecoder(lambda seq, error: seq % 2 == 0)


def decoded(raw: object) -> object:
    """Return a body as the decoder hands it on."""
    (answer,) = decoder().receive(header(2) + packed(raw))
    return answer.body


@given(st.lists(st.integers(1, 60), max_size=40))
def test_answers_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    data = header(1) + header(2) + packed({"Members": [MEMBER]}) + header(3, "no") + header(4, "x")
    data += packed({})
    reading, answers = decoder(), []
    for size in cuts:
        part, data = data[:size], data[size:]
        answers += reading.receive(part)
    answers += reading.receive(data)
    assert [(each.seq, each.error) for each in answers] == [(1, ""), (2, ""), (3, "no"), (4, "x")]
    assert answers[0].body is None
    assert members_of(answers[1].body)[0].name == "n1.1"
    assert answers[3].body == {}


def test_half_an_answer_is_no_answer_yet() -> None:
    reading = decoder()
    assert list(reading.receive(header(2))) == []
    assert list(reading.receive(packed({"a": 1})[:-1])) == []
    assert list(reading.receive(packed({"a": 1})[-1:])) == [Answer(2, "", {b"a": 1})]


NESTED = b"\x91" * 100_000
HOSTILE = {
    "a number": packed(7),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a byte that is none": b"\xc1",
    "a list": packed([1]),
    "a map without Seq": packed({"Error": ""}),
    "a Seq that is text": packed({"Seq": "1", "Error": ""}),
    "a Seq that is true": packed({"Seq": True, "Error": ""}),
    "an Error that is none": packed({"Seq": 1, "Error": None}),
    "a key that is a number": packed({1: 2}),
    "a key that is a map": b"\x81\x80\x01",
    "an extension": b"\xc7\x05\x01hello",
    "a time that there is not": b"\xd7\xff" + b"\xff" * 8,
    "a list of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "a text of four gigabytes": b"\xdb\xff\xff\xff\xff" + b"a" * (3 * MIB),
    "bytes of four gigabytes": b"\xc6\xff\xff\xff\xff" + b"a" * (3 * MIB),
    "a list that is just too long": packed({"Seq": [0] * (ELEMENT_COUNT_MAX + 1)}),
    "lists in lists": NESTED,
    "maps in maps": b"\x81\xa1a" * 100_000,
    "texts without end": b"\xdc\x27\x10" + (b"\xdb\x00\x08\x00\x00" + b"a" * (MIB // 2)) * 6,
    "maps without end": (b"\xdc\x27\x10" + b"\x80" * 9_999) * 300,
}


def receive_all(reading: AnswerDecoder, data: bytes, step: int) -> None:
    for start in range(0, len(data), step):
        list(reading.receive(data[start : start + step]))


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("step", [1 << 18, 4096])
def test_what_no_agent_sends_is_refused_and_costs_little(data: bytes, step: int) -> None:
    reading = decoder()
    tracemalloc.start()
    try:
        with pytest.raises(AnswerMalformed):
            receive_all(reading, data, step)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A list of empty maps, the worst there is: 64 bytes for one.
    assert peak < 80 * (ANSWER_SIZE_MAX + step)


def test_a_list_may_have_as_many_elements_as_the_limit_says_and_no_more() -> None:
    assert decoded({"Members": [0] * ELEMENT_COUNT_MAX}) == {b"Members": [0] * ELEMENT_COUNT_MAX}
    with pytest.raises(AnswerMalformed):
        decoded({"Members": [0] * (ELEMENT_COUNT_MAX + 1)})


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    reading = decoder()
    try:
        for answer in reading.receive(data):
            record_of(answer.body)
    except AnswerMalformed:
        pass


ANY_BODY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                b"Members Event Type Log Name Addr Port Tags Status Payload LTime ID Ok Coord".split()
            ),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@given(ANY_BODY)
def test_a_body_that_is_not_what_it_should_be_is_refused(body: object) -> None:
    for read in (members_of, record_of, key_answer_of, stats_of, coordinate_of):
        try:
            read(body)
        except AnswerMalformed:
            continue


def member(**changed: object) -> AgentMember:
    return members_of(decoded({"Members": [{**MEMBER, **changed}]}))[0]


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (b"\x7f\x00\x00\x01", "127.0.0.1"),
        (b"\x00" * 10 + b"\xff\xff\x0a\x00\x00\x02", "10.0.0.2"),
        (b"\x00" * 15 + b"\x01", "::1"),
        (None, ""),
    ],
)
def test_an_address_is_read_in_all_its_forms(raw: bytes | None, host: str) -> None:
    assert member(Addr=raw).host == host


def test_tags_that_are_not_utf_8_survive() -> None:
    tags = member(Tags={"k": b"\xff\xfe"}).tags
    assert tags["k"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    request = encode_request("tags", 1, {"Tags": tags})
    assert b"\xff\xfe" in request


@pytest.mark.parametrize(
    "changed",
    [{"Status": "dead"}, {"Addr": b"abc"}, {"Port": -1}, {"Port": "1"}, {"Tags": [1]}, {"Name": 1}],
)
def test_a_member_that_makes_no_sense_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(AnswerMalformed):
        member(**changed)


def test_no_members_and_no_tags_come_as_nil() -> None:
    assert members_of(decoded({"Members": None})) == []
    assert member(Tags=None).tags == {}


def test_records_are_told_apart() -> None:
    event = record_of(decoded({"Event": "member-join", "Members": [MEMBER]}))
    expected = AgentMember("n1.1", "127.0.0.1", 7946, {"distlog.id": "n1"}, AgentStatus.ALIVE)
    assert event == MemberEvent("member-join", (expected,))
    user = {"Event": "user", "Name": "x", "Payload": None, "LTime": 3, "Coalesce": True}
    assert record_of(decoded(user)) == UserEvent("x", b"", 3, True)
    query = {"Event": "query", "ID": 9, "Name": "q", "Payload": b"\x00", "LTime": 4}
    assert record_of(decoded(query)) == QueryReceived(9, "q", b"\x00", 4)
    assert record_of(decoded({"Type": "done", "From": "", "Payload": None})) is None


def test_a_request_has_no_type_that_older_agents_do_not_read() -> None:
    data = encode_request("event", 5, {"Name": "x" * 40, "Payload": b"y" * 40})
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(data)
    assert next(iter(unpacker)) == {b"Command": b"event", b"Seq": 5}
    for newer in (b"\xc4\x28y", b"\xd9\x28x"):
        assert newer not in data


def test_a_request_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="limit"):
        encode_request("event", 1, {"Payload": b"x" * REQUEST_SIZE_MAX})


def test_the_answer_about_keys_does_not_show_them() -> None:
    raw = {"NumNodes": 2, "NumResp": 2, "NumErr": 0, "Messages": None, "Keys": {"c2VjcmV0": 2}}
    answer = key_answer_of(decoded(raw))
    assert answer.counts == {"c2VjcmV0": 2}
    assert "c2VjcmV0" not in repr(answer) + str(answer)
