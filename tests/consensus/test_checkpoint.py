"""The checkpoint: its bytes, and that a crash leaves the old one whole or the new one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.block import crc32c
from distlog.consensus.checkpoint import (
    CheckpointImage,
    TopicImage,
    decode_checkpoint,
    encode_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from distlog.consensus.commands import CreateTopic, OpenProducer, ProducerStamp
from distlog.consensus.configuration import Addresses, Configuration
from distlog.consensus.journal import JournalEntry
from distlog.consensus.producers import ProducerTable
from distlog.errors import CorruptCheckpoint, DiskFailed, FormatUnsupported, StorageFull
from distlog.security.policy import NO_POLICY, Membership, Permission, Policy
from distlog.storage.log_mark import LogMark
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.configurations import configurations
from tests.consensus.entries import append
from tests.consensus.states import Replica

PATH = "checkpoint"


def producer_rows(count: int) -> list[bytes]:
    table = ProducerTable({1})
    for number in range(count):
        producer_id, epoch = table.open(0, (number + 2) << 16)
        if number % 2:
            table.record(ProducerStamp(producer_id, epoch, 0), 1, number)
    return table.capture()


IMAGE = CheckpointImage(
    previous=JournalEntry(b"\x01", 6, 2),
    last=JournalEntry(b"\x64last", 7, 3),
    configuration=Configuration(
        "00112233aabbccdd",
        {"n1": "aa", "n2": "bb"},
        {"n4": "dd"},
        {"n4": Addresses("h4:8401", "h4:8400")},
        (("n3", "cc"),),
        6,
        target=3,
    ),
    durable_sequence=40,
    now_ms=1000,
    topics=(
        TopicImage(1, "default", SegmentLimits(64 << 20, 1 << 20), LogMark(0, 5, 999, 0, 60)),
        TopicImage(
            7,
            "orders",
            SegmentLimits(4096, 16),
            LogMark(0, 0, 0, 0, 0),
            Retention(1 << 30, 604_800_000),
        ),
    ),
    producer_rows=producer_rows(1),
    policy=Policy((Permission("admins", "*", "*"), Membership("root", "admins"))),
)
PAGE = Path(__file__).parents[2] / "docs" / "format-entry.md"


def encoded(image: CheckpointImage) -> bytes:
    return b"".join(encode_checkpoint(image))


def test_the_bytes_of_a_checkpoint_are_those_of_the_page_about_them() -> None:
    example = PAGE.read_text("utf-8").partition("```checkpoint\n")[2].partition("```")[0]
    assert encoded(IMAGE).hex() == bytes.fromhex(example).hex()


def images() -> st.SearchStrategy[CheckpointImage]:
    u64, names = st.integers(0, (1 << 64) - 1), st.text(max_size=10)
    milliseconds = st.integers(-(1 << 63), (1 << 63) - 1)
    limits = st.builds(SegmentLimits, u64, u64)
    entries = st.builds(JournalEntry, st.binary(max_size=50), u64, u64)
    marks = st.builds(LogMark, u64, u64, milliseconds, u64, u64)
    retentions = st.builds(Retention, u64, u64)
    topics = st.lists(st.builds(TopicImage, u64, names, limits, marks, retentions), max_size=4)
    return st.builds(
        CheckpointImage,
        previous=entries,
        last=entries,
        configuration=configurations(),
        durable_sequence=u64,
        now_ms=milliseconds,
        topics=topics.map(tuple),
        producer_rows=st.integers(0, 5).map(producer_rows),
        policy=st.sampled_from((NO_POLICY, IMAGE.policy)),
        syncs=st.just(()),
    )


@given(images())
def test_a_checkpoint_decodes_to_what_was_encoded(image: CheckpointImage) -> None:
    assert decode_checkpoint(encoded(image), PATH) == image


def test_many_producers_come_back_in_their_order() -> None:
    image = replace(IMAGE, producer_rows=producer_rows(10_000))
    assert decode_checkpoint(encoded(image), PATH) == image


@pytest.mark.parametrize("size", range(len(encoded(IMAGE))))
def test_a_checkpoint_cut_at_any_byte_is_refused(size: int) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode_checkpoint(encoded(IMAGE)[:size], PATH)


@pytest.mark.parametrize("position", range(len(encoded(IMAGE))))
def test_a_checkpoint_with_any_byte_changed_is_refused(position: int) -> None:
    changed = bytearray(encoded(IMAGE))
    changed[position] ^= 0x40
    with pytest.raises(CorruptCheckpoint, match=PATH):
        decode_checkpoint(bytes(changed), PATH)


@given(st.data())
def test_a_body_that_only_its_checksum_likes_is_refused_in_words(data: st.DataObject) -> None:
    whole = encoded(IMAGE)
    body = bytearray(whole[40:])
    position = data.draw(st.integers(0, len(body) - 1))
    body[position : position + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    changed = sealed(whole[:24] + len(body).to_bytes(8, "little"), bytes(body))
    # Anything else that it raises fails the test.
    with suppress(CorruptCheckpoint):
        decode_checkpoint(changed, PATH)


def sealed(header: bytes, body: bytes) -> bytes:
    """Return a file whose checksums are right."""
    header += crc32c(body).to_bytes(4, "little")
    return header + crc32c(header).to_bytes(4, "little") + body


def test_a_body_with_something_after_its_end_is_refused() -> None:
    whole = encoded(IMAGE)
    body = whole[40:] + b"\0"
    with pytest.raises(CorruptCheckpoint, match="after its end"):
        decode_checkpoint(sealed(whole[:24] + len(body).to_bytes(8, "little"), body), PATH)


def test_a_file_with_something_after_its_end_is_refused() -> None:
    whole = encoded(IMAGE)
    with pytest.raises(CorruptCheckpoint, match=f"{len(whole) - 39} bytes where {len(whole) - 40}"):
        decode_checkpoint(whole + b"\0", PATH)


def test_a_newer_version_is_named_and_not_called_corrupt() -> None:
    whole = encoded(IMAGE)
    newer = sealed(whole[:8] + b"\6\0\0\0" + whole[12:32], whole[40:])
    with pytest.raises(FormatUnsupported, match="format 6") as error:
        decode_checkpoint(newer, PATH)
    assert error.value.supported == "5"


FORMED = Configuration("00112233aabbccdd", {"n1": "aa", "n2": "bb"})
VERSION_1 = """
64 69 73 74 6c 6f 67 43  01000000 00000000  2800000000000000  1901000000000000  5e31d0f7 0566efcc
e803000000000000 02000000 02000000 01000000 00000000
0600000000000000 0200000000000000 0100000000000000  01
0700000000000000 0300000000000000 0500000000000000  64 6c617374
1000 30303131323233336161626263636464
0200 6e31 0200 6161  0200 6e32 0200 6262
0100000000000000  0000000400000000 0000100000000000
0000000000000000 0500000000000000 e703000000000000 0000000000000000 3c00000000000000  0700 64656661756c74
0700000000000000  0010000000000000 1000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000  0600 6f7264657273
0000020000000000 0000000000000000 00000000 00000000
"""


def test_a_checkpoint_of_the_first_version_is_read_and_keeps_everything() -> None:
    default, orders = IMAGE.topics
    topics = (default, orders._replace(retention=KEEP_ALL))
    expected = replace(IMAGE, topics=topics, configuration=FORMED, policy=NO_POLICY)
    assert decode_checkpoint(bytes.fromhex(VERSION_1), PATH) == expected


VERSION_2 = """
64 69 73 74 6c 6f 67 43  02000000 00000000  2800000000000000  3901000000000000  fab93740 d7985237
e803000000000000 02000000 02000000 01000000 00000000
0600000000000000 0200000000000000 0100000000000000  01
0700000000000000 0300000000000000 0500000000000000  64 6c617374
1000 30303131323233336161626263636464
0200 6e31 0200 6161  0200 6e32 0200 6262
0100000000000000  0000000400000000 0000100000000000
0000000000000000 0500000000000000 e703000000000000 0000000000000000 3c00000000000000  0700 64656661756c74
0000000000000000 0000000000000000
0700000000000000  0010000000000000 1000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000  0600 6f7264657273
0000004000000000 00840c2400000000
0000020000000000 0000000000000000 00000000 00000000
"""


def test_a_checkpoint_of_the_second_version_is_read_and_has_voters_only() -> None:
    expected = replace(IMAGE, configuration=FORMED, policy=NO_POLICY)
    assert decode_checkpoint(bytes.fromhex(VERSION_2), PATH) == expected


VERSION_3 = """
64 69 73 74 6c 6f 67 43  03000000 00000000  2800000000000000  7601000000000000  bc24e921 24881822
e803000000000000 00000000 02000000 01000000 00000000
0600000000000000 0200000000000000 0100000000000000  01
0700000000000000 0300000000000000 0500000000000000  64 6c617374
0600000000000000
   1000 30303131323233336161626263636464  03000000 01000000
   01 0200 6e31 0200 6161 0000 0000  01 0200 6e32 0200 6262 0000 0000
   02 0200 6e34 0200 6464 0700 68343a38343031 0700 68343a38343030
   0200 6e33 0200 6363
0100000000000000  0000000400000000 0000100000000000
0000000000000000 0500000000000000 e703000000000000 0000000000000000 3c00000000000000  0700 64656661756c74
0000000000000000 0000000000000000
0700000000000000  0010000000000000 1000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000  0600 6f7264657273
0000004000000000 00840c2400000000
0000020000000000 0000000000000000 00000000 00000000
"""


def test_a_checkpoint_of_the_third_version_is_read_and_written_where_there_is_no_target() -> None:
    configuration = replace(IMAGE.configuration, target=0)
    expected = replace(IMAGE, configuration=configuration, policy=NO_POLICY)
    assert decode_checkpoint(bytes.fromhex(VERSION_3), PATH) == expected
    assert encoded(expected) == bytes.fromhex(VERSION_3)


VERSION_4 = """
64 69 73 74 6c 6f 67 43  04000000 00000000  2800000000000000  7601000000000000  44592ce9 8847a236
e803000000000000 00000000 02000000 01000000 03000000
0600000000000000 0200000000000000 0100000000000000  01
0700000000000000 0300000000000000 0500000000000000  64 6c617374
0600000000000000
   1000 30303131323233336161626263636464  03000000 01000000
   01 0200 6e31 0200 6161 0000 0000  01 0200 6e32 0200 6262 0000 0000
   02 0200 6e34 0200 6464 0700 68343a38343031 0700 68343a38343030
   0200 6e33 0200 6363
0100000000000000  0000000400000000 0000100000000000
0000000000000000 0500000000000000 e703000000000000 0000000000000000 3c00000000000000  0700 64656661756c74
0000000000000000 0000000000000000
0700000000000000  0010000000000000 1000000000000000
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000  0600 6f7264657273
0000004000000000 00840c2400000000
0000020000000000 0000000000000000 00000000 00000000
"""


def test_a_checkpoint_of_the_fourth_version_is_read_and_written_where_there_is_no_policy() -> None:
    expected = replace(IMAGE, policy=NO_POLICY)
    assert decode_checkpoint(bytes.fromhex(VERSION_4), PATH) == expected
    assert encoded(expected) == bytes.fromhex(VERSION_4)


@pytest.mark.parametrize("version", [0, 255])
def test_a_version_that_never_was_is_refused(version: int) -> None:
    whole = encoded(IMAGE)
    other = sealed(whole[:8] + bytes([version, 0, 0, 0]) + whole[12:32], whole[40:])
    with pytest.raises(FormatUnsupported):
        decode_checkpoint(other, PATH)


def test_a_file_of_something_else_is_no_checkpoint() -> None:
    with pytest.raises(CorruptCheckpoint, match="no checkpoint"):
        decode_checkpoint(b"something else" * 100, PATH)


# --- The file -------------------------------------------------------------------------------------


def test_without_a_file_there_was_no_checkpoint() -> None:
    assert read_checkpoint(SimulatedDisk(), PATH) is None


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    disk = SimulatedDisk()
    write_checkpoint(disk, PATH, IMAGE)
    newer = replace(IMAGE, durable_sequence=41)
    write_checkpoint(disk, PATH, newer)
    assert read_checkpoint(disk, PATH) == newer
    assert disk.list_directory("") == [PATH]


def test_a_full_disk_leaves_the_old_checkpoint_and_no_scrap() -> None:
    disk = SimulatedDisk(capacity=3000)
    write_checkpoint(disk, PATH, IMAGE)
    with pytest.raises(StorageFull):
        write_checkpoint(disk, PATH, replace(IMAGE, producer_rows=producer_rows(1000)))
    assert read_checkpoint(disk, PATH) == IMAGE
    assert disk.list_directory("") == [PATH]
    write_checkpoint(disk, PATH, replace(IMAGE, durable_sequence=41))


class PowerCut(Exception):
    """Thrown out of a disk operation, at which the machine stops."""


def operations(disk: SimulatedDisk, action: Callable[[], object]) -> int:
    """Return how many disk operations `action` takes."""
    before = disk.operation_count
    action()
    return disk.operation_count - before


def cut_before(disk: SimulatedDisk, number: int) -> None:
    """Have the machine stop before its next operation but `number`."""
    left = number

    def hook(_operation: str, _path: str) -> None:
        nonlocal left
        if left == 0:
            raise PowerCut
        left -= 1

    disk.hook = hook


def write_old_then_new(disk: SimulatedDisk) -> CheckpointImage:
    write_checkpoint(disk, PATH, IMAGE)
    return replace(IMAGE, durable_sequence=41, producer_rows=producer_rows(100))


def write_steps() -> int:
    disk = SimulatedDisk()
    new = write_old_then_new(disk)
    return operations(disk, lambda: write_checkpoint(disk, PATH, new))


STEPS = write_steps()


@pytest.mark.seeds(20)
def test_a_power_cut_at_any_step_leaves_the_old_checkpoint_or_the_new_one(seed: int) -> None:
    for step in range(STEPS + 1):
        disk = SimulatedDisk()
        new = write_old_then_new(disk)
        cut_before(disk, step)
        try:
            write_checkpoint(disk, PATH, new)
            written = True
        except PowerCut:
            written = False
        disk.hook = None
        found = read_checkpoint(disk.crash(Random(seed)), PATH)
        assert found == new if written else found in (IMAGE, new)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_disk_that_refuses_any_step_leaves_the_old_checkpoint_or_the_new_one(step: int) -> None:
    disk = SimulatedDisk()
    new = write_old_then_new(disk)
    disk.fail_at = disk.operation_count + step
    try:
        write_checkpoint(disk, PATH, new)
    except DiskFailed:
        disk.fail_at = None
        assert read_checkpoint(disk, PATH) in (IMAGE, new)
    write_checkpoint(disk, PATH, new)
    assert read_checkpoint(disk, PATH) == new


# --- With the logs --------------------------------------------------------------------------------


def busy_replica() -> Replica:
    """Return a node with a checkpoint, and entries of every kind after it."""
    replica = Replica()
    replica.apply(append(b"first"), CreateTopic("orders", SegmentLimits(4096, 16)), OpenProducer(0))
    replica.checkpoint()
    orders = replica.machine.topic_by_name("orders")
    assert orders is not None
    producer = ProducerStamp(2 << 16 | 2, 0, 0)
    for number in range(6):
        replica.apply(
            append(b"%d" % number),
            append(b"a" * 2000, b"b", topic_id=orders.topic_id),
            append(b"p%d" % number, stamp=replace(producer, sequence=number)),
            timestamp_ms=number,
        )
    return replica


def checkpoint_steps() -> int:
    replica = busy_replica()
    disk = replica.disk
    assert isinstance(disk, SimulatedDisk)
    return operations(disk, replica.checkpoint)


@pytest.mark.seeds(4)
def test_a_power_cut_at_any_step_of_a_checkpoint_loses_nothing(seed: int) -> None:
    for step in range(checkpoint_steps() + 1):
        replica = busy_replica()
        disk = replica.disk
        assert isinstance(disk, SimulatedDisk)
        state = replica.state()
        records = (replica.records(), replica.records("orders"))
        cut_before(disk, step)
        try:
            replica.checkpoint()
        except PowerCut:
            assert step < checkpoint_steps()
        disk.hook = None
        restarted = replica.after_crash(Random(seed))
        assert restarted.state() == state
        assert (restarted.records(), restarted.records("orders")) == records
