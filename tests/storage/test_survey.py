"""Looking at a log changes nothing, and finds every damage to what was promised."""

from __future__ import annotations

import pytest

from distlog.block import Block
from distlog.errors import DataDirectoryUnusable
from distlog.storage.comparison import compare_logs
from distlog.storage.log import Log, LogMark, SegmentLimits
from distlog.storage.segment_files import segment_path
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.survey import LogSurvey, survey_log

LIMITS = SegmentLimits(store_size_max=120, row_count_max=5)
PATH = "/log"
EXTENSIONS = (".log", ".idx", ".batch")


def append(log: Log, *records: bytes) -> None:
    number = log.next_offset
    log.append(Block.from_records(records), timestamp_ms=number, raft_index=number, term=1)


def a_log(
    count: int = 12, *, close: bool = True, path: str = PATH
) -> tuple[SimulatedDisk, LogMark]:
    """A log of one-record batches in segments of five, and its last mark."""
    disk = SimulatedDisk()
    mark = fill(disk, path, count, close=close)
    return disk, mark


def fill(disk: SimulatedDisk, path: str, count: int, *, close: bool = True) -> LogMark:
    log = Log.create(disk, path, LIMITS)
    for number in range(count):
        append(log, b"record %d" % number)
    log.begin_sync()()
    mark = log.mark()
    if close:
        log.close()
    return mark


def contents(disk: SimulatedDisk, path: str = PATH) -> dict[str, bytes]:
    return {
        name: disk.open(f"{path}/{name}", writable=False).read_at(0, 1 << 20)
        for name in disk.list_directory(path)
    }


def ranges(survey: LogSurvey) -> list[tuple[int, int]]:
    return [(segment.base_offset, segment.next_offset) for segment in survey.segments]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_a_whole_log_is_described_and_left_alone(deep: bool, close: bool) -> None:
    disk, mark = a_log(close=close)
    before = contents(disk)
    for known in (None, mark):
        survey = survey_log(disk, PATH, known, deep=deep)
        assert (survey.start_offset, survey.next_offset, survey.promised_offset) == (0, 12, 12)
        assert ranges(survey) == [(0, 5), (5, 10), (10, 12)]
        assert [segment.batch_count for segment in survey.segments] == [5, 5, 2]
        assert [segment.first_timestamp_ms for segment in survey.segments] == [0, 5, 10]
        assert [segment.last_timestamp_ms for segment in survey.segments] == [4, 9, 11]
        assert survey.store_size == sum(8 + len(b"record %d" % number) for number in range(12))
        assert (survey.faults, survey.notes) == ([], [])
    assert contents(disk) == before


@pytest.mark.parametrize("suffix", EXTENSIONS)
@pytest.mark.parametrize("base_offset", [0, 5, 10])
def test_every_flipped_bit_of_what_was_promised_is_found_where_it_is(
    base_offset: int, suffix: str
) -> None:
    disk, _ = a_log()
    path = segment_path(PATH, base_offset, suffix)
    data = contents(disk)[path.rpartition("/")[2]]
    for position in range(len(data)):
        rotten = disk.kill()
        rotten.open(path).write_at(position, [bytes([data[position] ^ 1 << position % 8])])
        faults = survey_log(rotten, PATH, deep=True).faults
        assert [fault.path for fault in faults] == [path]
        # The fault is named by the row or the batch that it is in.
        assert 0 <= position - faults[0].position < 64
        assert base_offset <= faults[0].offset < base_offset + 5


@pytest.mark.parametrize("suffix", EXTENSIONS)
@pytest.mark.parametrize("base_offset", [0, 5, 10])
@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_is_gone_or_too_short_is_a_fault(
    base_offset: int, suffix: str, deep: bool
) -> None:
    disk, _ = a_log()
    path = segment_path(PATH, base_offset, suffix)
    gone, short = disk.kill(), disk.kill()
    gone.remove(path)
    short.open(path).truncate(short.open(path).size() - 1)
    found = survey_log(gone, PATH, deep=deep).faults
    assert [(fault.path, fault.problem) for fault in found] == [(path, "the file is missing")]
    if deep or suffix != ".idx":
        found = survey_log(short, PATH, deep=deep).faults
        assert len(found) == 1
        assert found[0].path.startswith(f"{PATH}/{base_offset:020d}")


@pytest.mark.parametrize("base_offset", [0, 5, 10])
def test_a_segment_that_is_gone_is_a_fault(base_offset: int) -> None:
    disk, _ = a_log()
    for suffix in EXTENSIONS:
        disk.remove(segment_path(PATH, base_offset, suffix))
    survey = survey_log(disk, PATH)
    assert [fault.offset for fault in survey.faults] == [base_offset]
    assert survey.next_offset == 12


@pytest.mark.parametrize("deep", [False, True])
def test_what_was_never_synced_may_be_torn_and_is_only_noted(deep: bool) -> None:
    disk, mark = a_log(count=8, close=False)
    log = Log.open(disk, PATH, LIMITS)
    for number in range(8, 14):
        append(log, b"record %d" % number)
    whole = survey_log(disk.kill(), PATH, mark, deep=deep)
    assert (whole.promised_offset, whole.next_offset, whole.notes) == (8, 14, [])
    torn = disk.kill()
    torn.open(segment_path(PATH, 5, ".log")).write_at(17 * 4, [b"\xff"])
    survey = survey_log(torn, PATH, mark, deep=deep)
    assert (survey.faults, survey.next_offset) == ([], 9)
    assert len(survey.notes) == 2
    assert "never synced" in survey.notes[0]
    assert f"{10:020d}.log follows what is not whole" in survey.notes[1]


def test_what_a_trim_left_behind_is_only_noted() -> None:
    disk, _ = a_log(close=False)
    log = Log.open(disk, PATH, LIMITS)
    log.trim(7)
    log.begin_sync()()
    disk.remove(segment_path(PATH, 0, ".idx"))
    survey = survey_log(disk, PATH, deep=True)
    assert (survey.start_offset, survey.faults) == (7, [])
    assert survey.notes == [
        f"{segment_path(PATH, 0, '.log')} was trimmed: the next start removes it"
    ]


def test_a_lost_mark_is_noted() -> None:
    disk, _ = a_log()
    disk.remove(f"{PATH}/synced")
    survey = survey_log(disk, PATH, deep=True)
    assert (survey.promised_offset, survey.next_offset, survey.faults) == (None, 12, [])
    assert "nothing says what was synced" in survey.notes[0]


def test_there_is_nothing_to_see_where_no_log_is() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/empty")
    with pytest.raises(DataDirectoryUnusable, match="no log"):
        survey_log(disk, "/empty")


def test_progress_counts_every_byte_of_frames_once() -> None:
    disk, _ = a_log()
    seen: list[int] = []
    survey = survey_log(disk, PATH, deep=True, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == survey.store_size


# --- Comparing two logs ---------------------------------------------------------------------------


def two_logs(count: int, other_count: int) -> SimulatedDisk:
    disk = SimulatedDisk()
    fill(disk, "/a", count)
    fill(disk, "/b", other_count)
    return disk


def differences(disk: SimulatedDisk) -> list[tuple[str, int, int]]:
    faults = compare_logs(disk, survey_log(disk, "/a"), survey_log(disk, "/b"))
    return [(fault.path, fault.position, fault.offset) for fault in faults]


@pytest.mark.parametrize("other_count", [0, 3, 5, 9, 10, 12])
def test_a_log_equals_one_that_is_not_as_far(other_count: int) -> None:
    disk = two_logs(12, other_count)
    assert differences(disk) == []


def test_a_trimmed_log_equals_one_that_is_not() -> None:
    disk = two_logs(12, 12)
    log = Log.open(disk, "/b", LIMITS)
    log.trim(6)
    log.begin_sync()()
    log.begin_remove_trimmed(6)()
    log.close()
    assert differences(disk) == []


def test_reserved_space_is_no_difference() -> None:
    disk = SimulatedDisk()
    fill(disk, "/a", 12, close=True)
    fill(disk, "/b", 12, close=False)
    assert differences(disk) == []


@pytest.mark.parametrize("suffix", EXTENSIONS)
def test_a_changed_byte_is_a_difference_where_it_is(suffix: str) -> None:
    disk = two_logs(12, 12)
    path = segment_path("/b", 5, suffix)
    file = disk.open(path)
    row = {".log": 16, ".idx": 16, ".batch": 64}[suffix]
    for position in range(file.size()):
        byte = file.read_at(position, 1)
        file.write_at(position, [bytes([byte[0] ^ 0x20])])
        one, other = survey_log(disk, "/a"), survey_log(disk.kill(), "/a")
        other.path = "/b"
        found = compare_logs(disk, one, other)
        assert [(fault.path, fault.position, fault.offset) for fault in found] == [
            (segment_path("/a", 5, suffix), position, 5 + position // row)
        ]
        file.write_at(position, [byte])


def test_a_doubled_or_missing_record_is_a_difference() -> None:
    disk = SimulatedDisk()
    fill(disk, "/a", 12)
    log = Log.create(disk, "/b", LIMITS)
    for number in (0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10):
        append(log, b"record %d" % number)
    log.close()
    assert [found[2] for found in differences(disk)] == [3, 5, 10]


def test_segments_that_roll_elsewhere_are_a_difference() -> None:
    disk = SimulatedDisk()
    fill(disk, "/a", 12)
    log = Log.create(disk, "/b", SegmentLimits(store_size_max=120, row_count_max=4))
    for number in range(12):
        append(log, b"record %d" % number)
    log.close()
    assert [(path[-24:], offset) for path, _, offset in differences(disk)] == [
        (f"{0:020d}.log", 5),
        (f"{4:020d}.log", 4),
        (f"{5:020d}.log", 5),
        (f"{8:020d}.log", 8),
        (f"{10:020d}.log", 10),
    ]
