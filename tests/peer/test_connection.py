"""The state machine of one connection: what is welcome when, and that no bytes can do more than close it."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.peer.connection import Connection, HandshakeFinished, Phase, VersionDiffers, Violated
from distlog.peer.frames import CONTROL, HEADER, HEADER_SIZE, Frame, encode_frame
from distlog.peer.handshake import Accepted, Alive, Greeting, Refused, encode_message
from tests.peer.exchanges import LIMITS, events_of, greeting, opened
from tests.peer.test_frames import cut

GREETING = encode_message(greeting("n2"))
ACCEPTED = encode_message(Accepted())
REFUSED = encode_message(Refused("not you"))
ALIVE = encode_message(Alive())
FRAME = encode_frame(1, 0, b"raft")


def test_two_ends_open_by_greeting_and_accepting_each_other() -> None:
    dialler, dialled = Connection(LIMITS), Connection(LIMITS)
    dialled.receive_data(dialler.greet(greeting("n1")))
    assert dialled.next_event() == greeting("n1")
    dialler.receive_data(dialled.greet(greeting("n2")) + dialled.accept())
    assert dialler.next_event() == greeting("n2")
    dialled.receive_data(dialler.accept())
    assert dialler.next_event() == HandshakeFinished()
    assert dialled.next_event() == HandshakeFinished()
    assert dialler.phase is dialled.phase is Phase.OPEN
    dialled.receive_data(FRAME)
    assert dialled.next_event() == Frame(1, 0, b"raft")
    assert dialled.next_event() is None


@pytest.mark.parametrize(("own", "theirs"), [("", "c"), ("c", ""), ("", "")])
def test_a_node_without_a_cluster_is_an_acquaintance_that_carries_no_frames(
    own: str, theirs: str
) -> None:
    connection = Connection(LIMITS)
    connection.greet(greeting("n1", own))
    stream = encode_message(greeting("n2", theirs)) + ACCEPTED
    assert events_of(connection, [stream])[-1] == HandshakeFinished()
    assert connection.phase is Phase.ACQUAINTED
    assert events_of(connection, [ALIVE]) == []
    assert events_of(connection, [FRAME]) == [Violated("a frame of channel 1 before the handshake")]


def test_an_end_that_dialled_may_be_refused_before_the_other_greets() -> None:
    dialler = Connection(LIMITS)
    dialler.greet(greeting("n1"))
    assert events_of(dialler, [REFUSED + GREETING]) == [Refused("not you")]
    assert dialler.phase is Phase.CLOSED


def test_a_refusal_says_why_and_closes() -> None:
    dialler, dialled = Connection(LIMITS), Connection(LIMITS)
    dialled.receive_data(dialler.greet(greeting("n1")) + FRAME)
    assert isinstance(dialled.next_event(), Greeting)
    dialler.receive_data(dialled.refuse("go\naway"))
    assert dialler.next_event() == Refused("go?away")
    assert dialler.phase is dialled.phase is Phase.CLOSED
    assert dialled.next_event() is None


def test_an_open_connection_can_still_be_refused() -> None:
    assert events_of(opened(), [REFUSED + FRAME]) == [Refused("not you")]
    assert opened().refuse("it floods this node") == encode_message(Refused("it floods this node"))


def test_a_closed_connection_reads_nothing_whatever_is_on_its_way() -> None:
    connection = opened()
    connection.receive_data(FRAME + FRAME)
    assert connection.next_event() == Frame(1, 0, b"raft")
    connection.close()
    assert connection.next_event() is None
    assert events_of(connection, [FRAME]) == []


def test_another_version_is_an_event_that_can_be_refused_in_words() -> None:
    hello = {"protocol_version": 1, "name": ["quite", "different"]}
    payload = msgspec.msgpack.encode({"kind": "greeting", "hello": hello})
    connection = Connection(LIMITS)
    connection.receive_data(encode_frame(CONTROL, 0, payload))
    assert connection.next_event() == VersionDiffers(1)
    assert connection.refuse("version") == encode_message(Refused("version"))


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (ACCEPTED, "Accepted in phase GREETING"),
        (ALIVE, "Alive in phase GREETING"),
        (REFUSED, "Refused in phase GREETING"),
        (FRAME, "a frame of channel 1 before the handshake"),
        (GREETING + GREETING, "Greeting in phase ACCEPTING"),
        (GREETING + ALIVE, "Alive in phase ACCEPTING"),
        (GREETING + FRAME, "a frame of channel 1 before the handshake"),
        (GREETING + ACCEPTED + ACCEPTED, "Accepted in phase OPEN"),
        (GREETING + ACCEPTED + GREETING, "Greeting in phase OPEN"),
        (GREETING + ACCEPTED + encode_frame(CONTROL, 0, b"\xc1"), "not a control message"),
        (b"GET / HTTP/1.1\r\n", "frame of 542393671 bytes"),
        (GREETING[:-1] + b"\x7f", "wrong checksum"),
    ],
)
def test_a_message_out_of_place_closes_the_connection(stream: bytes, problem: str) -> None:
    connection = Connection(LIMITS)
    last = events_of(connection, [stream + FRAME])[-1]
    assert isinstance(last, Violated)
    assert last.problem.startswith(problem)
    assert connection.phase is Phase.CLOSED


def test_what_arrives_before_the_connection_is_open_is_limited_in_all() -> None:
    size_max = LIMITS.handshake_size_max
    for header in (HEADER.pack(size_max, 0, CONTROL, 0), HEADER.pack(size_max, 0, 1, 0)):
        assert isinstance(events_of(Connection(LIMITS), [header])[-1], Violated)
    rest = size_max - len(GREETING)
    fits = HEADER.pack(rest - HEADER_SIZE + 8, 0, CONTROL, 0)
    connection = Connection(LIMITS)
    assert len(events_of(connection, [GREETING + fits])) == 1
    too_large = HEADER.pack(rest - HEADER_SIZE + 9, 0, CONTROL, 0)
    assert isinstance(events_of(Connection(LIMITS), [GREETING + too_large])[-1], Violated)


def test_each_channel_has_its_own_limit() -> None:
    for channel, size_max in LIMITS.payload_size_max().items():
        assert events_of(opened(), [HEADER.pack(8 + size_max, 0, channel, 0)]) == []
        too_large = HEADER.pack(8 + size_max + 1, 0, channel, 0)
        assert isinstance(events_of(opened(), [too_large])[-1], Violated)


pieces = st.lists(
    st.sampled_from([GREETING, ACCEPTED, ALIVE, FRAME, REFUSED, FRAME[:-3], b"\x00", b"\xff"]),
    max_size=6,
)


@given(st.booleans(), pieces, st.lists(st.integers(0, 2000), max_size=12))
def test_the_events_do_not_depend_on_how_the_stream_was_cut(
    well_begun: bool, stream: list[bytes], places: list[int]
) -> None:
    data = b"".join([GREETING, ACCEPTED, *stream] if well_begun else stream)
    whole = events_of(Connection(LIMITS), [data])
    assert events_of(Connection(LIMITS), cut(data, places)) == whole
    assert events_of(Connection(LIMITS), [data[i : i + 1] for i in range(len(data))]) == whole


# --- mutated bytes ----------------------------------------------------------------------------------

MUTATIONS_PER_BATCH = 1000
INTERESTING = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff",
)


def mutated(data: bytes, source: random.Random) -> bytes:
    """Return `data` with one to four places flipped, replaced, cut out, doubled or filled."""
    result = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(result) + 1)
        end = min(len(result), place + source.randint(0, 12))
        kind = source.randrange(5)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            result[place:end] = source.randbytes(end - place)
        elif kind == 2:
            del result[place:end]
        elif kind == 3:
            result[place:place] = result[place:end]
        else:
            result[place:end] = source.choice(INTERESTING)
    return bytes(result)


def check_that_bytes_only_close(
    connection: Connection, stream: bytes, source: random.Random
) -> str:
    """Feed a hostile stream; return the name of its last event.  Anything that is raised fails the test."""
    place = source.randrange(len(stream) + 1)
    events = events_of(connection, [stream[:place], stream[place:]])
    assert all(
        isinstance(
            event, Frame | Greeting | HandshakeFinished | Refused | Violated | VersionDiffers
        )
        for event in events
    )
    before = connection.buffered_size
    assert before <= len(stream)
    if connection.phase is Phase.CLOSED:
        assert events_of(connection, [stream] * 3) == []
        assert connection.buffered_size == before
    return type(events[-1]).__name__ if events else "nothing"


@pytest.mark.parametrize("batch", range(10))
def test_mutated_bytes_never_do_more_than_close_the_connection(batch: int) -> None:
    source = random.Random(batch)
    outcomes = set()
    for _ in range(MUTATIONS_PER_BATCH):
        stream = mutated(GREETING + ACCEPTED + FRAME + ALIVE, source)
        outcomes.add(check_that_bytes_only_close(Connection(LIMITS), stream, source))
    assert {"Violated", "Frame"} <= outcomes


def reframed(payload: bytes, source: random.Random) -> bytes:
    """Return a frame with correct size and checksum around a mutated payload, on any channel and for any group."""
    channel = source.choice([CONTROL, CONTROL, CONTROL, 1, 2, 3, source.getrandbits(32)])
    return encode_frame(channel, source.getrandbits(32), mutated(payload, source))


@pytest.mark.parametrize("batch", range(10))
def test_mutated_messages_with_a_good_checksum_never_do_more_than_close_an_open_connection(
    batch: int,
) -> None:
    source = random.Random(100 + batch)
    payloads = [message[HEADER_SIZE:] for message in (GREETING, ACCEPTED, REFUSED, ALIVE, FRAME)]
    outcomes = set()
    for _ in range(MUTATIONS_PER_BATCH):
        stream = reframed(source.choice(payloads), source) + FRAME
        outcomes.add(check_that_bytes_only_close(opened(), stream, source))
    assert {"Violated", "Frame"} <= outcomes


@pytest.mark.parametrize(
    "make", [lambda: Connection(LIMITS), lambda: opened()], ids=["greeting", "open"]
)
def test_mutated_greetings_with_a_good_checksum_never_do_more_than_close(
    make: Callable[[], Connection],
) -> None:
    source = random.Random(1)
    outcomes = set()
    for _ in range(MUTATIONS_PER_BATCH):
        stream = encode_frame(CONTROL, 0, mutated(GREETING[HEADER_SIZE:], source)) + ACCEPTED
        connection = make()
        connection.receive_data(stream)
        event = connection.next_event()
        outcomes.add(type(event).__name__)
        if connection.phase is Phase.DECIDING:
            connection.refuse("no")
    assert "Violated" in outcomes
