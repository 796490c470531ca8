"""The mark that a log keeps itself, held against a checkpoint's: what a crash leaves fits, what is another log's does not."""

from __future__ import annotations

import pytest

from distlog.block import Block
from distlog.storage.invariants import Invariant
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.log_mark import EMPTY_MARK, LogMark, MarkFile
from distlog.storage.segment_files import SUFFIXES, segment_path
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.survey import LogSurvey, survey_log

LIMITS = SegmentLimits(store_size_max=1 << 16, row_count_max=5)
PATH = "/log"
SYNCED = f"{PATH}/synced"


def append(log: Log, count: int) -> None:
    for _ in range(count):
        number = log.next_offset
        block = Block.from_records([b"record %02d" % number])
        log.append(block, timestamp_ms=1000 + number, raft_index=number + 1, term=1)


def a_log(checkpointed: int, synced: int) -> tuple[SimulatedDisk, LogMark]:
    """Return a log of one-record batches in segments of five, synced beyond a checkpoint, and the checkpoint's mark."""
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, checkpointed)
    mark = log.mark()
    append(log, synced - checkpointed)
    log.close()
    return disk, mark


def own_mark(disk: SimulatedDisk) -> LogMark:
    marks = MarkFile.open(disk, PATH)
    assert marks is not None
    assert marks.mark is not None
    return marks.mark


def say(disk: SimulatedDisk, mark: LogMark) -> None:
    """Put a file in the place of the log's own that says `mark`."""
    disk.remove(SYNCED)
    MarkFile.create(disk, PATH).write(mark)


def problems(survey: LogSurvey) -> list[str]:
    assert {fault.invariant for fault in survey.faults} <= {Invariant.MARK_FITS}
    assert {fault.path for fault in survey.faults} <= {SYNCED}
    return [fault.problem for fault in survey.faults]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("content", [b"", bytes(64), bytes(128)])
def test_a_mark_that_says_nothing_is_noted(content: bytes, deep: bool) -> None:
    disk, mark = a_log(7, 7)
    disk.open(SYNCED).truncate(0)
    disk.open(SYNCED).write_at(0, [content])
    survey = survey_log(disk, PATH, mark, deep=deep)
    assert problems(survey) == []
    assert survey.notes == [f"{SYNCED} says nothing: the next start writes it from the checkpoint"]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("checkpointed", [0, 1, 5, 7, 10, 12])
def test_a_mark_ahead_of_the_checkpoint_fits(checkpointed: int, deep: bool) -> None:
    for synced in range(checkpointed, 13):
        disk, mark = a_log(checkpointed, synced)
        survey = survey_log(disk, PATH, mark, deep=deep)
        assert (survey.faults, survey.notes, survey.next_offset) == ([], [], synced)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"next_offset": 6}, "it was synced up to offset 6, and the checkpoint says 7"),
        ({"start_offset": 1}, "it was trimmed up to offset 1, and the checkpoint says 2"),
        ({"segment_base_offset": 0}, "it goes on in segment 0, and the checkpoint says 5"),
        (
            {"last_timestamp_ms": 1005},
            "it has a last batch of time 1005, and the checkpoint says 1006",
        ),
        (
            {"start_offset": 13},
            "it says start offset 13 and segment 10, and ends before, at offset 12",
        ),
        (
            {"segment_base_offset": 13},
            "it says start offset 2 and segment 13, and ends before, at offset 12",
        ),
        ({"next_offset": 13}, "it was synced up to offset 13, and the log is whole up to 12"),
        ({"segment_base_offset": 12}, None),
        (
            {"segment_base_offset": 11, "next_offset": 11},
            "it names segment 11, and there is none",
        ),
        ({"segment_base_offset": 9}, "it names segment 9, and there is none"),
        (
            {"store_position": 5},
            "no batch of segment 10 ends at offset 12 and byte 5",
        ),
        (
            {"segment_base_offset": 5},
            "no batch of segment 5 ends at offset 12 and byte 34",
        ),
        (
            {"last_timestamp_ms": 1012},
            "the batch that ends at offset 12 is not of time 1012",
        ),
    ],
)
def test_a_mark_that_cannot_be_this_logs_is_a_fault(
    change: dict[str, int], problem: str | None, deep: bool
) -> None:
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, 7)
    log.trim(2)
    mark = log.mark()
    append(log, 5)
    log.close()
    say(disk, own_mark(disk)._replace(**change))
    expected = [] if problem is None else [problem]
    assert problems(survey_log(disk, PATH, mark, deep=deep)) == expected


def test_a_trim_beyond_the_checkpoint_fits() -> None:
    """A crash between the sync of the logs and the checkpoint that it is for leaves this."""
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, 7)
    mark = log.mark()
    append(log, 5)
    log.trim(12)
    log.close()
    assert own_mark(disk).start_offset > mark.next_offset
    survey = survey_log(disk, PATH, mark, deep=True)
    assert (survey.faults, survey.notes) == ([], [])


def test_the_segment_of_a_mark_may_be_trimmed_and_gone() -> None:
    """It was sealed where the mark is, and the checkpoint that let it go has the same mark."""
    disk = SimulatedDisk()
    log = Log.create(disk, PATH, LIMITS)
    append(log, 5)
    log.trim(5)
    log.begin_sync()()
    checkpointed = log.mark()
    append(log, 1)
    for suffix in SUFFIXES:
        disk.remove(segment_path(PATH, 0, suffix))
        survey = survey_log(disk.kill(), PATH, checkpointed, deep=True)
        assert survey.faults == []


def test_a_log_that_no_checkpoint_has_may_say_anything() -> None:
    """Its removal takes the segments first."""
    disk, _ = a_log(7, 7)
    for suffix in SUFFIXES:
        disk.remove(segment_path(PATH, 5, suffix))
    assert problems(survey_log(disk, PATH, EMPTY_MARK, is_removed=True)) == []
    assert problems(survey_log(disk, PATH, EMPTY_MARK)) == [
        "it was synced up to offset 7, and the log is whole up to 5"
    ]


def test_a_damaged_mark_is_one_fault_though_the_other_one_is_older() -> None:
    disk, mark = a_log(7, 7)
    marks = MarkFile.open(disk, PATH)
    assert marks is not None
    marks.write(mark._replace(next_offset=6))
    marks.write(mark)
    for position in (0, 64):
        rotten = disk.kill()
        file = rotten.open(SYNCED)
        byte = file.read_at(position + 9, 1)
        file.write_at(position + 9, [bytes([byte[0] ^ 1])])
        (fault,) = survey_log(rotten, PATH, mark).faults
        assert (fault.invariant, fault.position) == (Invariant.MARK_READABLE, position)
