"""The parsers of what lies on a disk.  A damaged file is found, named and refused or repaired; it never ends in a traceback."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import google_crc32c

from distlog.catch_up.switch import decode_switch
from distlog.consensus.checkpoint import CheckpointImage, decode_checkpoint
from distlog.consensus.journal import Journal
from distlog.consensus.journal_format import (
    HEADER,
    decode_operation,
    decode_vote,
    encode_header,
    operation_size,
    padding,
)
from distlog.consensus.journal_recovery import read_operations
from distlog.consensus.producers import ProducerTable
from distlog.errors import (
    CorruptBatch,
    CorruptCheckpoint,
    CorruptIndex,
    CorruptJournal,
    DataDirectoryUnusable,
    FormatUnsupported,
    OffsetOutOfRange,
    RecordTooLarge,
)
from distlog.storage.batch_table import ROW_SIZE, decode_row
from distlog.storage.data_directory import DataDirectory
from distlog.storage.log import Log
from distlog.storage.seed_import import open_seed
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.survey import survey_log
from tests.fuzz.parsers.parser import Parser, changed_bytes, json_field, sealed

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
SEED = Path(__file__).parents[2] / "data" / "seed"
LIMITS = SegmentLimits(store_size_max=64 << 10, row_count_max=16)
LOG_FILES = (*(f"{0:020d}{suffix}" for suffix in (".log", ".idx", ".batch")), "synced")
JOURNAL_FILE = f"{1:020d}.journal"
U32 = struct.Struct("<I")


def crc(data: bytes) -> bytes:
    return U32.pack(google_crc32c.value(data))


def disk_with(files: dict[str, bytes]) -> SimulatedDisk:
    """Return a disk that holds these files, durably."""
    disk = SimulatedDisk()
    for path, data in files.items():
        disk.make_directory(path.rpartition("/")[0])
        file = disk.open(path, create=True)
        file.write_at(0, [data])
        file.close()
    return disk


# --- Seals ---------------------------------------------------------------------------------------


def sealed_checkpoint(data: bytes) -> bytes:
    """Put the sizes and checksums of a checkpoint right around its body."""
    head, body = data[:24], data[40:]
    head += struct.pack("<Q", len(body)) + crc(body)
    return head + crc(head) + body


def sealed_rows(size: int) -> Callable[[bytes], bytes]:
    """Return what puts the checksum right that each `size` bytes end with."""

    def seal(data: bytes) -> bytes:
        rows = [data[start : start + size] for start in range(0, len(data), size)]
        return b"".join(
            row[:-4] + crc(row[:-4]) if len(row) == size and any(row) else row for row in rows
        )

    return seal


def sealed_operation(data: bytes) -> bytes:
    rest = data[8:]
    return U32.pack(len(data)) + crc(rest) + rest


def journal_field(data: bytes, source: Random) -> bytes:
    """Change one operation of a journal, and have every later one follow it with right checksums."""
    operations, position = [], 0
    while position < len(data):
        found = decode_operation(data, position, 1, position)
        if isinstance(found, str):
            break
        operations.append(found)
        position += operation_size(len(found.payload))
    chosen = source.randrange(len(operations))
    previous, parts = 0, []
    for place, each in enumerate(operations):
        fields = [each.kind, each.sequence, each.durable_sequence, each.raft_index, each.term]
        payload = each.payload
        if place == chosen:
            which = source.randrange(6)
            if which == 5:
                payload = changed_bytes(payload, source)
            else:
                limit = 32 if which == 0 else 64
                number = source.choice((0, 1, fields[which] + 1, 7, (1 << 32) - 1, (1 << 64) - 1))
                fields[which] = number & ((1 << limit) - 1)
        header, previous = encode_header(*fields, payload, previous)  # type: ignore[call-arg]
        parts += [header, payload, padding(len(payload))]
    return b"".join(parts) + data[position:]


# --- What reads them -----------------------------------------------------------------------------


def read_log(name: str) -> Callable[[bytes], object]:
    """Return what looks at a log, opens it and reads all of it, with one of its files replaced."""
    golden = {f"/log/{each}": (GOLDEN / each).read_bytes() for each in LOG_FILES}

    def read(data: bytes) -> object:
        survey_log(disk_with({**golden, f"/log/{name}": data}), "/log", deep=True)
        log = Log.open(disk_with({**golden, f"/log/{name}": data}), "/log", LIMITS)
        try:
            return log.read(log.start_offset, 1 << 20) if log.next_offset else None
        finally:
            log.close()

    return read


def read_journal(data: bytes) -> object:
    files = {f"/journal/{JOURNAL_FILE}": data}
    list(read_operations(disk_with(files), "/journal"))
    journal = Journal.open(disk_with(files), "/journal")
    try:
        return [
            journal.entry(each)
            for each in range(journal.first_index, journal.last_index + 1)
            if each
        ]
    finally:
        journal.close()


def read_checkpoint_and_producers(data: bytes) -> CheckpointImage:
    image = decode_checkpoint(data, "checkpoint")
    ids = [topic.topic_id for topic in image.topics]
    ProducerTable.restore(ids, image.producer_rows, image.now_ms)
    return image


def read_directory(name: str) -> Callable[[bytes], object]:
    golden = {f"/data/{each}": (GOLDEN / each).read_bytes() for each in ("FORMAT", "node.json")}

    def read(data: bytes) -> object:
        disk = disk_with({**golden, f"/data/{name}": data})
        return DataDirectory.open(disk, "/data", "n1", Random(1)).voters

    return read


def read_seed(suffix: str) -> Callable[[bytes], object]:
    golden = {f"/seed/{each.name}": each.read_bytes() for each in SEED.iterdir()}

    def read(data: bytes) -> object:
        return open_seed(disk_with({**golden, f"/seed/{0:020d}{suffix}": data}), "/seed", 1 << 20)

    return read


def file_parsers() -> list[Parser[bytes]]:
    return [*group_parsers(), *log_parsers(), *directory_parsers()]


def group_parsers() -> list[Parser[bytes]]:
    golden = {each.name: each.read_bytes() for each in GOLDEN.iterdir()}
    operation = golden[JOURNAL_FILE]
    first = decode_operation(operation, 0, 1, 0)
    assert not isinstance(first, str)
    operation = operation[: HEADER.size + len(first.payload)]
    return [
        Parser(
            "checkpoint",
            [golden["checkpoint"]],
            read_checkpoint_and_producers,
            (CorruptCheckpoint, FormatUnsupported),
            sealed(sealed_checkpoint, 40),
        ),
        Parser(
            "checkpoint header",
            [golden["checkpoint"]],
            read_checkpoint_and_producers,
            (CorruptCheckpoint, FormatUnsupported),
            lambda data, source: (
                (head := changed_bytes(data[:36], source)[:36]) + crc(head) + data[40:]
            ),
        ),
        Parser(
            "journal operation",
            [operation],
            lambda data: decode_operation(data, 0, 1, 0),
            (),
            sealed(sealed_operation),
        ),
        Parser("vote", [b"\x02\x00n1", b"\xff\xff"], decode_vote, (ValueError,), changed_bytes),
        Parser(
            "journal", [golden[JOURNAL_FILE]], read_journal, (CorruptJournal,), journal_field, 15
        ),
        Parser(
            "switch", [golden["switch"]], decode_switch, (), sealed(lambda d: d[:-4] + crc(d[:-4]))
        ),
    ]


def log_parsers() -> list[Parser[bytes]]:
    golden = {each: (GOLDEN / each).read_bytes() for each in LOG_FILES}
    rows = sealed_rows(ROW_SIZE)
    seals = dict.fromkeys((LOG_FILES[2], "synced"), rows)
    # A mark with a right checksum is believed: a log that begins behind its end has nothing to read.
    damage = (CorruptBatch, CorruptIndex, DataDirectoryUnusable, OffsetOutOfRange)
    return [
        Parser(
            "row of a batch table", [golden[LOG_FILES[2]][:ROW_SIZE]], decode_row, (), sealed(rows)
        ),
        *(
            Parser(
                f"log, {name}",
                [golden[name]],
                read_log(name),
                # An index is only a cache.
                () if name.endswith(".idx") else damage,
                sealed(seals[name]) if name in seals else changed_bytes,
                15,
            )
            for name in LOG_FILES
        ),
    ]


def directory_parsers() -> list[Parser[bytes]]:
    golden = {each: (GOLDEN / each).read_bytes() for each in ("node.json", "FORMAT")}
    unusable = (DataDirectoryUnusable, FormatUnsupported)
    return [
        Parser(
            "node.json", [golden["node.json"]], read_directory("node.json"), unusable, node_field, 5
        ),
        Parser("FORMAT", [golden["FORMAT"]], read_directory("FORMAT"), unusable, changed_bytes, 5),
        *(
            Parser(
                f"seed, {suffix}",
                [(SEED / f"{0:020d}{suffix}").read_bytes()],
                read_seed(suffix),
                (CorruptBatch, CorruptIndex, DataDirectoryUnusable, RecordTooLarge),
                changed_bytes,
                5,
            )
            for suffix in (".log", ".idx")
        ),
    ]


def node_field(data: bytes, source: Random) -> bytes:
    """Change one key of node.json, which a file without a checksum may have been by hand."""
    lines = [line for line in data.splitlines() if b"crc32c" not in line]
    text = b"".join(lines)
    return json_field(text.replace(b",}", b"}"), source)
