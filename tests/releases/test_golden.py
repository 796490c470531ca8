"""Each format is kept as a small file: the code writes exactly these bytes, and reads them."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from distlog.api.log.v1 import log_pb2
from distlog.block import Block
from distlog.catch_up.switch import decode_switch
from distlog.consensus.checkpoint import CheckpointImage, decode_checkpoint
from distlog.consensus.commands import decode_entry, encode_entry
from distlog.consensus.journal import Journal
from distlog.security.policy import Policy
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log
from distlog.storage.survey import survey_log
from tests.releases.golden import (
    COMMANDS,
    CONFIGURATION,
    FORMATS,
    GOLDEN,
    LIMITS,
    PLAIN,
    POLICY_COMMANDS,
    RULES,
    STRUCTURED,
    TIME_MS,
    image,
)

DOCUMENTS = Path(__file__).parents[2] / "docs"


def kept(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def copied(names: str, directory: Path) -> str:
    """Copy the golden files whose names match into a directory of their own."""
    directory.mkdir(parents=True)
    for path in GOLDEN.iterdir():
        if re.fullmatch(names, path.name):
            (directory / path.name).write_bytes(path.read_bytes())
    return str(directory)


# --- What is written ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_the_code_writes_exactly_these_bytes(name: str) -> None:
    assert FORMATS[name]() == kept(name), "a format changes only with a new version of it"


def test_there_is_a_golden_file_of_every_file_of_a_data_directory() -> None:
    """LOCK and reserve hold nothing."""
    page = (DOCUMENTS / "format.md").read_text("utf-8")
    tree = page.partition("DATA_DIR/\n")[2].partition("```")[0]
    names = set(re.findall(r"^ +([\w.]+/?)", tree, re.MULTILINE)) - {"LOCK", "reserve"}
    files = {name for name in names if not name.endswith("/")}
    assert files == {"FORMAT", "node.json", "checkpoint", "switch"}
    assert {path.name for path in GOLDEN.iterdir()} == set(FORMATS)


# --- What is read ---------------------------------------------------------------------------------


def test_the_log_is_read(tmp_path: Path) -> None:
    path = copied(r"\d{20}\.(log|idx|batch)|synced", tmp_path / "log")
    assert survey_log(RealDisk(), path, deep=True).faults == []
    log = Log.open(RealDisk(), path, LIMITS)
    assert log.recovery == []
    assert [log.read_record(offset) for offset in (0, 1)] == [b"hello", b"world!!!"]
    record = log_pb2.Record.FromString(log.read_record(2))
    assert (record.key, record.value, record.headers[0].name) == (b"k", b"x", "h")
    first, second = log.batch_of(0), log.batch_of(2)
    assert (first.record_count, first.timestamp_ms, first.raft_index, first.term) == (
        2,
        TIME_MS,
        7,
        3,
    )
    assert (second.attributes, second.timestamp_ms, second.raft_index) == (1, TIME_MS + 1, 9)
    assert (log.start_offset, log.next_offset, log.last_timestamp_ms) == (0, 3, TIME_MS + 1)
    log.close()


@pytest.mark.parametrize("name", [f"{0:020d}.log", f"{0:020d}.idx"])
def test_store_and_index_are_those_of_the_seed(name: str, tmp_path: Path) -> None:
    path = copied(r"\d{20}\.(log|idx)", tmp_path / "seed")
    log = Log.open(RealDisk(), path, LIMITS)
    assert log.is_read_only
    assert [log.read_record(offset) for offset in (0, 1)] == [b"hello", b"world!!!"]
    log.close()
    assert (Path(path) / name).read_bytes() == kept(name)


def test_the_journal_is_read(tmp_path: Path) -> None:
    journal = Journal.open(RealDisk(), copied(r"\d{20}\.journal", tmp_path / "journal"))
    assert (journal.first_index, journal.last_index) == (1, 1)
    assert (journal.term, journal.vote, journal.sequence) == (4, None, 6)
    assert journal.entry(1) == (b"\x01", 1, 0)
    assert journal.recovery == []
    journal.close()


def test_the_checkpoint_is_read() -> None:
    read, written = decode_checkpoint(kept("checkpoint"), "checkpoint"), image()
    for name in CheckpointImage.__dataclass_fields__:
        if name not in ("configuration", "syncs"):
            assert getattr(read, name) == getattr(written, name), name
    assert read.configuration.cluster_id == CONFIGURATION.cluster_id
    assert dict(read.configuration.voters) == dict(CONFIGURATION.voters)


def test_the_note_of_a_switch_is_read() -> None:
    assert decode_switch(kept("switch")) == (7, 4, 0x01020304)
    assert decode_switch(kept("switch")[:-1]) is None
    assert decode_switch(bytes(len(kept("switch")))) is None


def test_the_entry_is_read() -> None:
    entry = decode_entry(kept("entry"))
    assert (entry.timestamp_ms, len(entry.commands)) == (TIME_MS, len(COMMANDS))
    # Blocks are compared by their bytes, everything else by what it says.
    assert entry.commands[2:] == COMMANDS[2:]
    assert encode_entry(entry.commands, entry.timestamp_ms) == kept("entry")


def test_the_policy_in_an_entry_and_in_a_checkpoint_is_read() -> None:
    entry = decode_entry(kept("entry-policy"))
    assert (entry.timestamp_ms, entry.commands) == (TIME_MS, POLICY_COMMANDS)
    assert decode_checkpoint(kept("checkpoint-policy"), "checkpoint").policy == Policy(RULES)


def test_the_block_is_read() -> None:
    block = Block.decode(kept("block"))
    assert (block.attributes, block.record_count, block.frames) == (1, 1, STRUCTURED.frames)
    assert block.data_crc32c == STRUCTURED.data_crc32c != PLAIN.data_crc32c


def test_the_data_directory_is_read(tmp_path: Path) -> None:
    path = copied(r"FORMAT|node\.json", tmp_path / "data")
    for open_directory in (
        lambda: DataDirectory.open_offline(RealDisk(), path),
        lambda: DataDirectory.open(RealDisk(), path, "n1", Random(2)),
    ):
        directory = open_directory()
        assert (directory.node_id, directory.directory_id) == ("n1", Random(1).randbytes(16).hex())
        assert directory.cluster_id == CONFIGURATION.cluster_id
        assert directory.voters == dict(CONFIGURATION.voters)
        directory.close()
