"""inspect: what it shows, and that it leaves everything as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.block import Block
from distlog.cli.main import main
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log
from tests.cli.directories import (
    LIMITS,
    SEED,
    Capture,
    imported,
    json_of,
    topic_path,
    tree,
    two_segments,
)


@pytest.fixture
def node(tmp_path: Path, capsys: Capture) -> Path:
    path = imported(tmp_path)
    capsys.readouterr()
    return path


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return two_segments(tmp_path)


def test_inspect_shows_a_data_directory(node: Path, capsys: Capture) -> None:
    before = tree(node)
    assert main(["inspect", str(node)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("node n1, directory ")
    assert lines[1].endswith(", voters n1")
    assert lines[2].startswith("checkpoint: entry 2 of term 1, 2")
    assert lines[3].startswith("journal: entries 1 to 2, ")
    assert lines[5:] == [
        "topic default: offsets 0 to 7 in 1 segment, 210 B",
        f"  {0:020d}  8 records, 1 batch, 210 B, entry 1, term 0, {lines[2].split()[-1]}",
    ]
    assert tree(node) == before


def test_inspect_shows_a_data_directory_as_json(node: Path, capsys: Capture) -> None:
    code, shown = json_of(capsys, "inspect", str(node))
    assert code == 0
    assert shown["node"]["node_id"] == "n1"
    assert shown["node"]["voters"] == {"n1": shown["node"]["directory_id"]}
    assert (shown["checkpoint"]["raft_index"], shown["journal"]["last_index"]) == (2, 2)
    (topic,) = shown["topics"]
    assert (topic["name"], topic["topic_id"], topic["format"]) == ("default", 1, "distlog")
    assert (topic["start_offset"], topic["next_offset"], topic["synced_offset"]) == (0, 8, 8)
    (segment,) = topic["segments"]
    assert (segment["base_offset"], segment["batch_count"], segment["store_size"]) == (0, 1, 210)
    assert (shown["faults"], shown["notes"]) == ([], [])


def test_inspect_shows_one_log_and_a_seed(log_path: Path, capsys: Capture) -> None:
    before = tree(log_path)
    assert main(["inspect", str(log_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a log: offsets 0 to 19 in 2 segments, 330 B",
        f"  {0:020d}  16 records, 16 batches, 262 B, entries 0 to 15, term 1, "
        "1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.015Z",
        f"  {16:020d}  4 records, 4 batches, 68 B, entries 16 to 19, term 1, "
        "1970-01-01T00:00:00.016Z to 1970-01-01T00:00:00.019Z",
    ]
    assert tree(log_path) == before
    code, shown = json_of(capsys, "inspect", str(SEED))
    assert (code, shown["node"], shown["topics"][0]["format"]) == (0, None, "seed")
    assert shown["topics"][0]["next_offset"] == 8


def test_inspect_shows_what_a_killed_node_wrote_after_its_checkpoint(
    node: Path, capsys: Capture
) -> None:
    # Applied and never checkpointed: the file is reserved space beyond.
    log = Log.open(RealDisk(), str(topic_path(node)), LIMITS)
    log.append(Block.from_records([b"later"]), timestamp_ms=1 << 50, raft_index=3, term=1)
    code, shown = json_of(capsys, "inspect", str(node))
    topic = shown["topics"][0]
    assert (code, topic["synced_offset"], topic["next_offset"]) == (0, 8, 9)
    assert (shown["faults"], shown["notes"]) == ([], [])
