"""Directories to look at, and how to look: shared by the tests of inspect, verify and import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distlog.block import Block
from distlog.cli.main import main
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits

SEED = Path(__file__).parents[1] / "data" / "seed"
LIMITS = SegmentLimits(store_size_max=64 << 10, row_count_max=16)
RECORDS = [
    b"Hello, gRPC!",
    b"This is record 2",
    b"Testing the distributed log",
    b"Fourth record here",
] * 2

Capture = pytest.CaptureFixture[str]


def tree(root: Path) -> dict[str, bytes]:
    """Return every name below a directory, with the bytes of files."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in sorted(root.rglob("*"))
    }


def imported(tmp_path: Path) -> Path:
    """Return the data directory of a node that never ran, with the seed's records."""
    path = tmp_path / "n1"
    assert main(["import", str(SEED), "--data-dir", str(path)]) == 0
    return path


def two_segments(tmp_path: Path) -> Path:
    """Return the directory of one log: 20 records in two segments."""
    log = Log.create(RealDisk(), f"{tmp_path}/log", LIMITS)
    for number in range(20):
        block = Block.from_records([b"record %d" % number])
        log.append(block, timestamp_ms=number, raft_index=number, term=1)
    log.close()
    return tmp_path / "log"


def topic_path(node: Path) -> Path:
    return node / "groups" / "0" / "topics" / f"{1:020d}"


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)


def json_of(capsys: Capture, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)
