"""The bytes of an entry: they are replicated and kept, so they never change."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.block import Block
from distlog.consensus.commands import (
    COMMAND_COUNT_MAX,
    ENTRY_HEADER,
    Append,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
    command_size,
    decode_entry,
    encode_entry,
)
from distlog.errors import EntryCorrupt, EntryUnknown
from distlog.storage.retention import Retention
from distlog.storage.segment_files import SegmentLimits
from tests.consensus.entries import TIMESTAMPS, append, commands, comparable

HEADER = "64 01 01 0000 01000000 e803000000000000"
BLOCK = "02000000 0000 0000 8e96a630 19000000  05000000 04000000"
FRAMES = "0500000000000000 68656c6c6f  0400000000000000 776f726c"

GOLDEN: dict[str, tuple[Command, str]] = {
    "append": (
        append(b"hello", b"worl", topic_id=7),
        f"01 00 0000 39000000  0700000000000000  {BLOCK} {FRAMES}",
    ),
    "append of a producer": (
        append(b"hello", b"worl", topic_id=7, stamp=ProducerStamp(0x20000, 3, 9)),
        "01 01 0000 51000000  0700000000000000 0000020000000000 0900000000000000 03000000 00000000"
        f"{BLOCK} {FRAMES}",
    ),
    "create topic": (
        CreateTopic("orders", SegmentLimits(64 << 20, 1 << 20)),
        "02 00 0000 16000000  0000000400000000 0000100000000000 6f7264657273",
    ),
    "create topic with retention": (
        CreateTopic("orders", SegmentLimits(64 << 20, 1 << 20), Retention(1 << 30, 604_800_000)),
        "02 01 0000 26000000  0000000400000000 0000100000000000"
        "0000004000000000 00840c2400000000  6f7264657273",
    ),
    "trim topic": (TrimTopic(7, 1000), "03 00 0000 10000000  0700000000000000 e803000000000000"),
    "delete topic": (DeleteTopic(7), "04 00 0000 08000000  0700000000000000"),
    "open producer": (OpenProducer(0x20000), "05 00 0000 08000000  0000020000000000"),
    "configure topic": (
        ConfigureTopic(7, 1 << 30, 604_800_000),
        "06 03 0000 18000000  0700000000000000 0000004000000000 00840c2400000000",
    ),
    "configure topic, the age alone": (
        ConfigureTopic(7, None, 0),
        "06 02 0000 18000000  0700000000000000 0000000000000000 0000000000000000",
    ),
}


@pytest.mark.parametrize(("command", "golden"), GOLDEN.values(), ids=GOLDEN)
def test_the_bytes_of_each_command_are_what_they_always_were(command: Command, golden: str) -> None:
    payload = encode_entry([command], timestamp_ms=1000)
    assert payload.hex() == bytes.fromhex(HEADER + golden).hex()
    assert comparable(decode_entry(payload).commands) == comparable([command])


def test_the_bytes_of_an_entry_are_those_of_the_page_about_them() -> None:
    page = Path(__file__).parents[2] / "docs" / "format-entry.md"
    example = page.read_text("utf-8").partition("```entry\n")[2].partition("```")[0]
    some = [GOLDEN["append of a producer"][0], OpenProducer(0)]
    assert encode_entry(some, timestamp_ms=1000).hex() == bytes.fromhex(example).hex()


def test_a_block_in_an_entry_is_the_block_as_it_travels() -> None:
    command = append(b"hello", b"worl")
    assert encode_entry([command], 0).endswith(command.block.encode())


@given(st.lists(commands(), min_size=1, max_size=8), TIMESTAMPS)
def test_an_entry_decodes_to_what_was_encoded(some: list[Command], timestamp_ms: int) -> None:
    entry = decode_entry(encode_entry(some, timestamp_ms))
    assert entry.timestamp_ms == timestamp_ms
    assert comparable(entry.commands) == comparable(some)


@given(st.lists(commands(), min_size=1, max_size=8))
def test_the_size_of_an_entry_is_known_before_it_is_encoded(some: list[Command]) -> None:
    size = ENTRY_HEADER.size + sum(map(command_size, some))
    assert len(encode_entry(some, 0)) == size


ENTRY = encode_entry([command for command, _ in GOLDEN.values()], timestamp_ms=1000)


def refused(payload: bytes) -> bool:
    """Tell whether a payload is refused; anything but the two errors of decode_entry passes through and fails the test."""
    try:
        decode_entry(payload)
    except (EntryCorrupt, EntryUnknown):
        return True
    return False


@pytest.mark.parametrize("size", range(len(ENTRY)))
def test_an_entry_cut_at_any_byte_is_refused(size: int) -> None:
    assert refused(ENTRY[:size])


def test_an_entry_with_bytes_after_its_end_is_refused() -> None:
    assert refused(ENTRY + b"\0")


@given(st.data())
def test_a_changed_entry_raises_nothing_but_its_own_errors(data: st.DataObject) -> None:
    changed = bytearray(ENTRY)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(ENTRY) - 1))] = data.draw(st.integers(0, 255))
    refused(bytes(changed))


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_the_errors_of_an_entry(payload: bytes) -> None:
    refused(payload)
    refused(ENTRY[: ENTRY_HEADER.size] + payload)


def test_a_changed_bit_in_a_record_is_refused() -> None:
    payload = encode_entry([append(b"hello")], 0)
    for bit in range(8 * 5):
        changed = bytearray(payload)
        changed[-5 + bit // 8] ^= 1 << bit % 8
        with pytest.raises(EntryCorrupt, match="checksum"):
            decode_entry(bytes(changed))


@pytest.mark.parametrize(
    ("position", "value", "found"),
    [
        pytest.param(0, 2, "type 2", id="a configuration entry"),
        pytest.param(1, 2, "version 2", id="the next version"),
        pytest.param(2, 9, "kind 9", id="an unknown kind of entry"),
        pytest.param(3, 1, "reserved 1", id="a reserved field of the entry"),
        pytest.param(17, 0, "command kind 0", id="command kind 0"),
        pytest.param(17, 8, "command kind 8", id="the next command kind"),
        pytest.param(18, 2, "flags 0x2", id="an unknown flag"),
        pytest.param(19, 1, "reserved 1", id="a reserved field of the command"),
        pytest.param(37, 2, "attributes 0x2", id="an unknown attribute of a block"),
        pytest.param(39, 1, "reserved 1", id="a reserved field of a block"),
    ],
)
def test_what_a_newer_version_wrote_stops_the_node_in_words(
    position: int, value: int, found: str
) -> None:
    payload = bytearray(encode_entry([append(b"x")], 0))
    payload[position] = value
    with pytest.raises(EntryUnknown, match=found) as error:
        decode_entry(bytes(payload))
    assert "newer version" in str(error.value)


def test_a_stamp_with_a_reserved_field_is_of_a_newer_version() -> None:
    payload = bytearray(encode_entry([append(b"x", stamp=ProducerStamp(1, 0, 0))], 0))
    payload[17 + 8 + 28] = 1
    with pytest.raises(EntryUnknown, match="reserved"):
        decode_entry(bytes(payload))


def test_a_flag_of_another_command_is_of_a_newer_version() -> None:
    payload = bytearray(encode_entry([DeleteTopic(1)], 0))
    payload[18] = 1
    with pytest.raises(EntryUnknown, match="flags"):
        decode_entry(bytes(payload))


@pytest.mark.parametrize("count", [0, COMMAND_COUNT_MAX + 1, (1 << 32) - 1])
def test_a_count_of_commands_that_no_leader_writes_is_corrupt(count: int) -> None:
    payload = bytearray(encode_entry([OpenProducer(0)], 0))
    struct.pack_into("<I", payload, 5, count)
    with pytest.raises(EntryCorrupt, match=f"{count} commands"):
        decode_entry(bytes(payload))


def test_an_entry_holds_as_many_commands_as_producer_ids_can_tell_apart() -> None:
    payload = encode_entry([OpenProducer(0)] * COMMAND_COUNT_MAX, 0)
    assert len(decode_entry(payload).commands) == COMMAND_COUNT_MAX


@pytest.mark.parametrize("followed", [b"", bytes(100)])
@pytest.mark.parametrize(
    ("kind", "flags", "size"),
    [
        *[(1, 0, 0), (1, 0, 23), (1, 1, 47)],
        *[(2, 0, 0), (2, 0, 15), (2, 1, 31)],
        *[(3, 0, 15), (3, 0, 17)],
        *[(4, 0, 7), (4, 0, 9)],
        *[(5, 0, 0), (5, 0, 9)],
        *[(6, 0, 23), (6, 3, 25)],
    ],
)
def test_a_body_of_the_wrong_size_is_corrupt_whatever_follows_it(
    kind: int, flags: int, size: int, followed: bytes
) -> None:
    header = ENTRY_HEADER.pack(100, 1, 1, 0, 1, 0)
    command = struct.pack("<BBHI", kind, flags, 0, size) + bytes(size)
    with pytest.raises(EntryCorrupt, match=r"shorter than its header|a body of"):
        decode_entry(header + command + followed)


@pytest.mark.parametrize(
    ("golden", "flags_without"),
    [("create topic with retention", None), ("configure topic", 1), ("configure topic", 2)],
)
def test_a_retention_has_one_form_only(golden: str, flags_without: int | None) -> None:
    payload = bytearray(encode_entry([GOLDEN[golden][0]], 0))
    if flags_without is None:
        payload[17 + 8 + 16 : 17 + 8 + 32] = bytes(16)
    else:
        payload[18] &= ~flags_without
    with pytest.raises(EntryCorrupt, match="a retention"):
        decode_entry(bytes(payload))


def test_a_topic_name_that_is_no_text_is_corrupt() -> None:
    payload = encode_entry([CreateTopic("orders", SegmentLimits())], 0)
    with pytest.raises(EntryCorrupt, match="UTF-8"):
        decode_entry(payload[:-1] + b"\xff")


def test_empty_records_are_kept() -> None:
    entry = decode_entry(encode_entry([append(b"", b"")], 0))
    (command,) = entry.commands
    assert isinstance(command, Append)
    assert list(command.block.records()) == [b"", b""]


def test_a_large_block_comes_back_whole() -> None:
    block = Block.from_records([bytes([number % 256]) * 1000 for number in range(4000)])
    (command,) = decode_entry(encode_entry([Append(1, block)], 0)).commands
    assert isinstance(command, Append)
    assert command.block.frames == block.frames
