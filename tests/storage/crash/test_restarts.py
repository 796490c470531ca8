"""What the crash matrix found once, each on its own: a restart must not believe what only looks durable."""

from __future__ import annotations

from random import Random

import pytest

from distlog.block import Block
from distlog.errors import DataDirectoryUnusable, DiskFailed
from distlog.storage.data_directory import DataDirectory
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.segment_files import TABLE, segment_path
from distlog.storage.simulated_disk import SimulatedDisk
from tests.storage.crash.damage import PowerCut, content

PATH = "/log"
LIMITS = SegmentLimits(store_size_max=100, row_count_max=5)


def append(log: Log, *records: bytes) -> None:
    log.append(Block.from_records(records), timestamp_ms=1, raft_index=1, term=1)


def records_of(log: Log) -> list[bytes]:
    return [log.read_record(offset) for offset in range(log.start_offset, log.next_offset)]


def test_a_batch_that_a_failed_sync_left_in_the_page_cache_is_written_again() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, b"acknowledged to nobody")
    disk.fail_syncs = True
    with pytest.raises(DiskFailed):
        log.begin_sync()()
    restarted = disk.kill()
    assert records_of(Log.open(restarted, PATH, LIMITS)) == [b"acknowledged to nobody"]
    # The log was open and had this batch: whoever read it saw it, so now it must stay.
    assert records_of(Log.open(restarted.crash_keeping([]), PATH, LIMITS)) == [
        b"acknowledged to nobody"
    ]


def test_the_exact_size_of_a_segment_that_was_sealed_before_a_kill_is_synced() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, b"a", b"b")
    log.begin_sync()()
    append(log, b"c" * 90)

    def kill(operation: str, path: str) -> None:
        if operation == "sync":
            raise PowerCut

    disk.hook = kill
    with pytest.raises(PowerCut):
        log.begin_sync()()
    restarted = disk.kill()
    assert content(restarted, segment_path(PATH, 0, TABLE)).strip(b"\0")
    Log.open(restarted, PATH, LIMITS)
    again = Log.open(restarted.crash_keeping([]), PATH, LIMITS)
    assert again.recovery == []
    assert records_of(again) == [b"a", b"b", b"c" * 90]


def test_a_trim_that_was_not_synced_removes_nothing_before_it_is() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    for number in range(12):
        append(log, b"%d" % number)
    log.begin_sync()()
    log.trim(11)

    def kill(operation: str, path: str) -> None:
        if operation == "sync" and path.endswith("/synced"):
            raise PowerCut

    disk.hook = kill
    with pytest.raises(PowerCut):
        log.begin_sync()()
    # The mark is in the page cache, and the next process goes by it.
    restarted = disk.kill()
    assert Log.open(restarted, PATH, LIMITS).start_offset == 11
    for seed in range(20):
        survivor = Log.open(restarted.crash(Random(seed)), PATH, LIMITS)
        assert not any(segment.problem for segment in survivor.describe())
        assert records_of(survivor)[-1] == b"11"


def test_a_damaged_mark_is_said() -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, b"a")
    log.close()
    whole = content(disk, f"{PATH}/synced")
    for position in (20, 90):
        twin = disk.kill()
        twin.open(f"{PATH}/synced").write_at(position, [bytes([whole[position] ^ 1])])
        log = Log.open(twin, PATH, LIMITS)
        assert records_of(log) == [b"a"]
        assert "damaged mark" in log.recovery[0]
    disk.remove(f"{PATH}/synced")
    assert "is missing" in Log.open(disk, PATH, LIMITS).recovery[0]


def test_who_a_node_is_does_not_change_when_it_was_killed_before_its_name_was_durable() -> None:
    disk = SimulatedDisk()

    def kill(operation: str, path: str) -> None:
        if operation == "sync directory" and disk.exists("/node/node.json"):
            raise PowerCut

    disk.hook = kill
    with pytest.raises(PowerCut):
        DataDirectory.open(disk, "/node", "n1", Random(1))
    restarted = disk.kill()
    directory_id = DataDirectory.open(restarted, "/node", "n1", Random(2)).directory_id
    again = DataDirectory.open(restarted.crash_keeping([]), "/node", "n1", Random(3))
    assert again.directory_id == directory_id


@pytest.mark.parametrize("text", [b"1", b"1\x0b", b"1 \n", b"\n", b""])
def test_a_format_file_that_is_not_exactly_a_version_is_refused(text: bytes) -> None:
    disk = SimulatedDisk()
    DataDirectory.open(disk, "/node", "n1", Random(1)).close()
    disk.open("/node/FORMAT").truncate(0)
    disk.open("/node/FORMAT").write_at(0, [text])
    with pytest.raises(DataDirectoryUnusable, match="no version"):
        DataDirectory.open(disk, "/node", "n1", Random(1))


def test_a_node_json_of_another_directory_id_is_refused_unless_its_checksum_is_taken_out() -> None:
    disk = SimulatedDisk()
    directory = DataDirectory.open(disk, "/node", "n1", Random(1))
    directory.close()
    text = content(disk, "/node/node.json")
    other = text.replace(directory.directory_id.encode(), b"0" * 32)
    disk.open("/node/node.json").write_at(0, [other])
    with pytest.raises(DataDirectoryUnusable, match="checksum"):
        DataDirectory.open(disk, "/node", "n1", Random(1))
    lines = [line for line in other.splitlines() if b"crc32c" not in line]
    disk.open("/node/node.json").truncate(0)
    disk.open("/node/node.json").write_at(0, [b"\n".join(lines)])
    assert DataDirectory.open(disk, "/node", "n1", Random(1)).directory_id == "0" * 32
