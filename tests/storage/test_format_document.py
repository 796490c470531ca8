"""docs/format.md says what the code does: its example is made anew, its tables name every byte."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.storage.data_directory import DataDirectory
from distlog.storage.invariants import Invariant
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")


def example(name: str) -> bytes:
    """Return the bytes that the document shows after `name`."""
    match = re.search(rf"^{name} +((?:(?:[0-9a-f]{{2}})+\s+)+)", DOCUMENT, re.MULTILINE)
    assert match is not None, name
    return bytes.fromhex(match[1])


def table(heading: str) -> list[tuple[int, int]]:
    """Return the byte ranges of the table below a heading; open ends are left out."""
    section = DOCUMENT.partition(f"### {heading}\n")[2].partition("\n#")[0]
    found = re.findall(r"^\| (\d+)\W(\d+) \|", section, re.MULTILINE)
    return [(int(first), int(last)) for first, last in found]


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    """What the example's log leaves on the disk."""
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SegmentLimits())
    block = Block.from_records([b"hello", b"world!!!"])
    log.append(block, timestamp_ms=1_700_000_000_000, raft_index=7, term=3)
    log.close()
    files = {"block": block.encode()}
    for name, file in (("store", ".log"), ("index", ".idx"), ("batch", ".batch")):
        files[name] = disk.open(f"/log/{0:020d}{file}").read_at(0, 1 << 20)
    # Slot 0 is the second write; the first said that the log is empty.
    files["synced"] = disk.open("/log/synced").read_at(0, 64)
    return files


@pytest.mark.parametrize("name", ["store", "index", "batch", "synced", "block"])
def test_the_example_is_what_is_written(written: dict[str, bytes], name: str) -> None:
    assert written[name] == example(name)


@pytest.mark.parametrize(("heading", "size"), [("Index", 16), ("Batch table", 64), ("synced", 64)])
def test_the_tables_name_every_byte_once(heading: str, size: int) -> None:
    ranges = table(heading)
    assert [first for first, _ in ranges] == [0, *(last + 1 for _, last in ranges[:-1])]
    assert ranges[-1][1] == size - 1


def test_the_data_directory_has_the_parts_that_the_document_names() -> None:
    disk = SimulatedDisk()
    DataDirectory.open(disk, "/data", "n1", Random(1))
    names = disk.list_directory("/data")
    assert names == ["FORMAT", "LOCK", "groups", "node.json"]
    for name in names:
        assert re.search(rf"^  {re.escape(name)}\b", DOCUMENT, re.MULTILINE)


def test_every_invariant_that_verify_names_is_described_once() -> None:
    section = DOCUMENT.partition("## What `distlog verify` checks\n")[2]
    named = re.findall(r"^\| ([a-z-]+) \|", section, re.MULTILINE)
    assert named == ["invariant", *(each.value for each in Invariant)]
