"""Frames: their bytes, and what becomes of bytes that are no frame."""

from __future__ import annotations

import tracemalloc
from itertools import cycle, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.peer.frames import (
    HEADER,
    HEADER_SIZE,
    PARTIAL_SIZE_MIN,
    PIECE_SIZE_MIN,
    Frame,
    FrameDecoder,
    MalformedFrame,
    encode_frame,
    encode_header,
)
from distlog.peer.handshake import Accepted, encode_message

SIZES = {0: 100, 1: 1000, 3: 50}
# Size 8 + 5; CRC-32C of everything behind it, computed bit by bit; channel 1; group 7; "hello".
GOLDEN = bytes.fromhex("0d000000 e29eea94 01000000 07000000 68656c6c6f")


def frames_of(*chunks: bytes) -> list[Frame | str]:
    """Decode a stream that arrives in these pieces; a malformed frame ends the list with its problem."""
    decoder = FrameDecoder(SIZES)
    frames: list[Frame | str] = []
    try:
        for chunk in chunks:
            decoder.receive_data(chunk)
            while (frame := decoder.next_frame()) is not None:
                frames.append(frame)
    except MalformedFrame as error:
        frames.append(str(error))
    return frames


def test_the_bytes_of_a_frame_are_the_documented_ones() -> None:
    assert encode_frame(1, 7, b"hello") == GOLDEN
    assert encode_header(1, 7, b"hello") + b"hello" == GOLDEN
    assert frames_of(GOLDEN) == [Frame(1, 7, b"hello")]


def test_an_empty_payload_is_a_frame() -> None:
    assert frames_of(encode_frame(3, 0, b"")) == [Frame(3, 0, b"")]


@pytest.mark.parametrize("size", range(len(GOLDEN)))
def test_a_frame_is_returned_only_when_its_last_byte_is_there(size: int) -> None:
    assert frames_of(GOLDEN[:size]) == []
    assert frames_of(GOLDEN[:size], GOLDEN[size:]) == [Frame(1, 7, b"hello")]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"GET / HTTP/1.1\r\n", "frame of 542393671 bytes where 1000 is the limit"),
        (b"\x16\x03\x01\x02", "frame of 33620758 bytes where 1000 is the limit"),
        (b"\x00" * 4, "frame size 0 is smaller than a header"),
        (b"\x07\x00\x00\x00", "frame size 7 is smaller than a header"),
        (b"\xff" * 4, "frame of 4294967295 bytes where 1000 is the limit"),
        (encode_header(2, 0, b""), "unknown channel 0x2"),
        (HEADER.pack(8, 0, 0x0100_0001, 0), "unknown channel 0x1000001"),
        (HEADER.pack(8 + 51, 0, 3, 0), "frame of 59 bytes is over the limit of channel 3"),
        (HEADER.pack(8, 0, 1, 0), "wrong checksum"),
    ],
)
def test_bytes_that_are_no_frame_are_told_apart_as_soon_as_possible(
    data: bytes, problem: str
) -> None:
    assert frames_of(data) == [problem]
    assert frames_of(*(data[i : i + 1] for i in range(len(data)))) == [problem]


@pytest.mark.parametrize("position", range(len(GOLDEN)))
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_never_changes_a_frame_unnoticed(position: int, bit: int) -> None:
    flipped = bytearray(GOLDEN)
    flipped[position] ^= 1 << bit
    # A larger size waits for bytes that may never come; everything else is seen at once.
    assert frames_of(bytes(flipped)) in ([], frames_of(bytes(flipped), b"\x00" * 2000))
    assert not any(isinstance(frame, Frame) for frame in frames_of(bytes(flipped), b"\x00" * 2000))


def test_nothing_is_taken_for_a_frame_behind_a_malformed_one() -> None:
    decoder = FrameDecoder(SIZES)
    decoder.receive_data(b"\x00" * 4 + GOLDEN)
    for _ in range(3):
        with pytest.raises(MalformedFrame):
            decoder.next_frame()


def test_a_header_alone_reserves_no_memory() -> None:
    decoder = FrameDecoder({1: 32 << 20})
    decoder.receive_data(HEADER.pack(8 + (32 << 20), 0, 1, 0))
    assert decoder.next_frame() is None
    assert decoder.buffered_size == HEADER_SIZE


def test_a_payload_in_parts_is_one_frame() -> None:
    parts = (b"", b"he", b"llo")
    assert encode_header(1, 7, *parts) + b"".join(parts) == GOLDEN


LARGE = {1: 4 * PARTIAL_SIZE_MIN}


@given(
    payload_size=st.integers(PARTIAL_SIZE_MIN - 50, PARTIAL_SIZE_MIN + 50_000),
    pieces=st.lists(st.integers(1, 3 * PIECE_SIZE_MIN), min_size=1, max_size=20),
)
def test_a_large_frame_is_put_together_from_whatever_pieces_it_comes_in(
    payload_size: int, pieces: list[int]
) -> None:
    payload = bytes(number % 251 for number in range(payload_size))
    sent = [Frame(1, 5, b"before"), Frame(1, 6, payload), Frame(1, 7, payload), Frame(1, 8, b"x")]
    stream = b"".join(encode_frame(each.channel, each.group, each.payload) for each in sent)
    decoder = FrameDecoder(LARGE)
    found = []
    position = returned_size = 0
    for size in cycle(pieces):
        decoder.receive_data(stream[position : position + size])
        position = min(position + size, len(stream))
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
            returned_size += HEADER_SIZE + len(frame.payload)
        assert decoder.buffered_size == position - returned_size
        if position == len(stream):
            break
    assert found == sent


def test_a_large_frame_that_changed_is_malformed_and_stays_so() -> None:
    stream = bytearray(encode_frame(1, 0, bytes(2 * PARTIAL_SIZE_MIN)))
    stream[-1] ^= 1
    decoder = FrameDecoder(LARGE)
    for start in range(0, len(stream), PARTIAL_SIZE_MIN):
        decoder.receive_data(bytes(stream[start : start + PARTIAL_SIZE_MIN]))
        if decoder.buffered_size < len(stream):
            assert decoder.next_frame() is None
    decoder.receive_data(GOLDEN)
    for _ in range(3):
        with pytest.raises(MalformedFrame, match="checksum"):
            decoder.next_frame()


def test_small_pieces_of_a_large_frame_take_no_more_than_their_bytes() -> None:
    decoder = FrameDecoder(LARGE)
    decoder.receive_data(encode_frame(1, 0, bytes(PARTIAL_SIZE_MIN))[:HEADER_SIZE])
    assert decoder.next_frame() is None
    count = 10_000
    tracemalloc.start()
    try:
        for number in range(count):
            decoder.receive_data(b"%c" % (number % 256))
            assert decoder.next_frame() is None
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.buffered_size == HEADER_SIZE + count
    assert size < 4 * count


frames = st.lists(
    st.tuples(st.sampled_from([0, 1, 3]), st.integers(0, 2**32 - 1), st.binary(max_size=50)),
    max_size=8,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at the given places, in whatever order they come."""
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[i:j] for i, j in pairwise(borders)]


@given(frames, st.binary(max_size=40), st.lists(st.integers(0, 2000), max_size=12))
def test_frames_do_not_depend_on_how_the_stream_was_cut(
    sent: list[tuple[int, int, bytes]], garbage: bytes, places: list[int]
) -> None:
    stream = b"".join(encode_frame(*frame) for frame in sent) + garbage
    whole = frames_of(stream)
    assert whole[: len(sent)] == [Frame(*frame) for frame in sent]
    assert frames_of(*cut(stream, places)) == whole


def test_the_example_of_the_format_page_is_what_the_code_writes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format-peer.md").read_text("utf-8")
    example = bytes.fromhex("".join(page.split("```")[1].split()))
    assert example == GOLDEN + encode_message(Accepted())
