"""The checker finds every fault that it is there to find, and nothing in a run that was right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distlog.block import Block
from distlog.storage.batch_table import BatchRow
from tests.processes.checker import (
    PROBLEMS_SHOWN_MAX,
    History,
    NodeLog,
    ProducerHistory,
    TailHistory,
    problems_of_run,
)
from tests.processes.stored_log import INDEX_ROW, PREFIX, differences, read_stored_log

# Two producers, interleaved.
VALUES = [b"a0", b"b0", b"a1", b"a2", b"b1", b"a3", b"b2"]
NODES = ("n1", "n2", "n3")


class Run:
    """A run that was right, to plant a fault in."""

    def __init__(self) -> None:
        first = ProducerHistory("a", [b"a0", b"a1", b"a2", b"a3"], {0: 0, 1: 2, 2: 3, 3: 5})
        # b2 is in the log although nobody said so, and b3 is not: both are allowed.
        second = ProducerHistory("b", [b"b0", b"b1", b"b2", b"b3"], {0: 1, 1: 4})
        self.tail = TailHistory("tail", 1, list(enumerate(VALUES))[1:5])
        self.history = History([first, second], [self.tail])
        self.logs = [NodeLog(name, list(enumerate(VALUES))) for name in NODES]

    def replace(self, values: list[bytes]) -> None:
        """Give all nodes this log."""
        for log in self.logs:
            log.records = list(enumerate(values))

    def problems(self) -> list[str]:
        return problems_of_run(self.history, self.logs)


def lose_the_last(run: Run) -> None:
    run.replace(VALUES[:5])


def lose_one_in_the_middle(run: Run) -> None:
    run.replace(VALUES[:3] + VALUES[4:])


def lose_one_nobody_was_told_of(run: Run) -> None:
    run.history.producers[1].acknowledged.clear()
    run.tail.seen.clear()
    run.history.producers[0].acknowledged = {0: 0}
    run.replace([value for value in VALUES if value != b"b1"])


def double_one(run: Run) -> None:
    run.replace([*VALUES, b"b1"])


def double_one_nobody_was_told_of(run: Run) -> None:
    run.replace([*VALUES, b"b2"])


def swap_two_of_one_producer(run: Run) -> None:
    run.history.producers[0].acknowledged.clear()
    run.tail.seen.clear()
    run.replace([b"a0", b"b0", b"a2", b"a1", *VALUES[4:]])


def swap_two_that_were_acknowledged(run: Run) -> None:
    run.tail.seen.clear()
    run.replace([b"b0", b"a0", *VALUES[2:]])


def add_what_nobody_sent(run: Run) -> None:
    run.replace([*VALUES, b"c0"])


def change_a_value(run: Run) -> None:
    run.replace([*VALUES[:-1], b"b2 and more"])


def acknowledge_another_offset(run: Run) -> None:
    run.history.producers[1].acknowledged[1] = 5


def acknowledge_an_offset_that_is_not_there(run: Run) -> None:
    run.history.producers[1].acknowledged[3] = 7


def skip_an_offset(run: Run) -> None:
    for log in run.logs:
        log.records[-1] = (7, VALUES[-1])


def begin_at_one(run: Run) -> None:
    run.history.producers[0].acknowledged.clear()
    run.history.producers[1].acknowledged.clear()
    run.tail.seen.clear()
    for log in run.logs:
        log.records = [(offset + 1, value) for offset, value in log.records]


def shorten_one_node(run: Run) -> None:
    del run.logs[2].records[-1]


def change_one_node(run: Run) -> None:
    run.logs[1].records[-1] = (6, b"b3")


def let_a_tail_skip(run: Run) -> None:
    del run.tail.seen[1]


def let_a_tail_see_one_twice(run: Run) -> None:
    run.tail.seen.insert(1, run.tail.seen[1])


def let_a_tail_see_another_order(run: Run) -> None:
    run.tail.seen[1:3] = reversed(run.tail.seen[1:3])


def let_a_tail_see_what_is_not_there(run: Run) -> None:
    run.tail.seen = [*list(enumerate(VALUES))[1:], (7, b"b3")]


def let_a_tail_begin_elsewhere(run: Run) -> None:
    run.tail.first_offset = 0


PLANTED: list[tuple[Callable[[Run], None], str]] = [
    (lose_the_last, "a was told that b'a3' is at offset 5, which holds nothing"),
    (lose_one_in_the_middle, "a was told that b'a2' is at offset 3, which holds b'b1'"),
    (lose_one_nobody_was_told_of, "b'b1' of b is missing, later ones are there"),
    (double_one, "b'b1' is at offset 4 and again at 7"),
    (double_one_nobody_was_told_of, "b'b2' is at offset 6 and again at 7"),
    (swap_two_of_one_producer, "b'a2' of a stands before b'a1'"),
    (swap_two_that_were_acknowledged, "a was told that b'a0' is at offset 0, which holds b'b0'"),
    (add_what_nobody_sent, "nobody sent b'c0'"),
    (change_a_value, "nobody sent b'b2 and more'"),
    (acknowledge_another_offset, "b was told that b'b1' is at offset 5, which holds b'a3'"),
    (acknowledge_an_offset_that_is_not_there, "b'b3' is at offset 7, which holds nothing"),
    (skip_an_offset, "offset 7 stands where 6 comes next"),
    (begin_at_one, "offset 1 stands where 0 comes next"),
    (shorten_one_node, "n1 has 7 records and n3 6"),
    (change_one_node, "n1 has b'b2' at offset 6 where n2 has b'b3' at offset 6"),
    (let_a_tail_skip, "tail got b'a2' at offset 3 as its record 1"),
    (let_a_tail_see_one_twice, "tail got b'a1' at offset 2 as its record 2"),
    (let_a_tail_see_another_order, "tail got b'a2' at offset 3 as its record 1"),
    (let_a_tail_see_what_is_not_there, "tail got 7 records, and n1 has only 6 for it"),
    (let_a_tail_begin_elsewhere, "tail got b'b0' at offset 1 as its record 0"),
]


def test_a_run_that_was_right_has_no_problem() -> None:
    assert Run().problems() == []


@pytest.mark.parametrize(
    ("plant", "sentence"), PLANTED, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_fault_is_found(plant: Callable[[Run], None], sentence: str) -> None:
    run = Run()
    plant(run)
    assert any(sentence in problem for problem in run.problems()), run.problems()


def test_a_fault_of_one_node_is_found_whichever_it_is() -> None:
    for number, name in enumerate(NODES):
        run = Run()
        del run.logs[number].records[3:]
        assert any(problem.startswith(f"{name}: ") for problem in run.problems())


def test_many_problems_are_counted_and_not_all_shown() -> None:
    run = Run()
    run.history.producers[0].sent = [b"a%d" % place for place in range(100)]
    run.history.producers[0].acknowledged = {place: place for place in range(100)}
    problems = [
        problem for problem in run.problems() if problem.startswith(("n1: a was told", "..."))
    ]
    assert len(problems[: PROBLEMS_SHOWN_MAX + 1]) == PROBLEMS_SHOWN_MAX + 1
    assert problems[PROBLEMS_SHOWN_MAX] == f"... and {99 - PROBLEMS_SHOWN_MAX} more like these"


def test_values_that_cannot_be_told_apart_are_refused() -> None:
    run = Run()
    run.history.producers[1].sent[0] = b"a0"
    with pytest.raises(AssertionError):
        run.problems()


# --- Files ------------------------------------------------------------------------------------------

# Two segments of batches; what is in the second begins at offset 4.
BATCHES = [[[b"a0", b"b0", b"a1"], [b""]], [[b"b1", b"a3"], [b"b2"]]]
RESERVED = {".log": bytes(100), ".idx": bytes(64), ".batch": bytes(256)}


def write_log(directory: Path) -> None:
    """Write the files as a node does that was killed: with reserved space behind the data."""
    directory.mkdir()
    offset = 0
    for segment in BATCHES:
        path = directory / f"{offset:020d}"
        store = index = table = b""
        for records in segment:
            block = Block.from_records(records)
            table += BatchRow(
                offset,
                len(store),
                len(records),
                block.size,
                1_700_000_000_000 + offset,
                offset + 2,
                1,
                0,
                block.data_crc32c,
            ).encode()
            for record in records:
                index += INDEX_ROW.pack(offset, len(store))
                store += PREFIX.pack(len(record)) + record
                offset += 1
        for suffix, data in ((".log", store), (".idx", index), (".batch", table)):
            path.with_suffix(suffix).write_bytes(data + RESERVED[suffix])


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    """The same log, on three nodes."""
    paths = [tmp_path / name for name in NODES]
    for path in paths:
        write_log(path)
    return paths


def problems_of_files(directories: list[Path]) -> list[str]:
    logs = [read_stored_log(path.name, path) for path in directories]
    return [problem for log in logs for problem in log.problems] + differences(logs)


def change(path: Path, position: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[position : position + len(data)] = data
    path.write_bytes(content)


def test_files_that_are_right_and_equal_have_no_problem(directories: list[Path]) -> None:
    assert problems_of_files(directories) == []


def test_files_say_what_is_in_the_log(directories: list[Path]) -> None:
    values = [value for segment in BATCHES for batch in segment for value in batch]
    log = read_stored_log("n1", directories[0])
    assert log.as_node_log().records == list(enumerate(values))


def test_reserved_space_may_differ(directories: list[Path]) -> None:
    for suffix, data in RESERVED.items():
        path = (directories[1] / f"{4:020d}").with_suffix(suffix)
        path.write_bytes(path.read_bytes()[: -len(data)])
    assert problems_of_files(directories) == []


@pytest.mark.parametrize(
    ("name", "position", "data", "sentence"),
    [
        ("0.log", 9, b"x", "the checksum of the batch at offset 0 is wrong"),
        ("0.log", 9, b"x", "0.log of n1 (38 bytes) and n2 (38) differ at byte 9"),
        ("0.idx", 16, b"\7", "the index has (7, 10) for offset 1"),
        ("0.idx", 24, b"\7", "the index has (1, 7) for offset 1"),
        ("4.batch", 24, b"\7", "the table's row at byte 0 is not whole"),
        ("4.batch", 64, bytes(64), "4.batch of n1 (128 bytes) and n2 (64) differ at byte 64"),
    ],
)
def test_a_changed_byte_is_found(
    directories: list[Path], name: str, position: int, data: bytes, sentence: str
) -> None:
    change(directories[1] / f"{name:0>{20 + len(Path(name).suffix)}}", position, data)
    problems = problems_of_files(directories)
    assert any(sentence in problem for problem in problems), problems


def test_a_row_with_another_time_is_a_difference_although_it_is_whole(
    directories: list[Path],
) -> None:
    path = directories[2] / f"{0:020d}.batch"
    block = Block.from_records(BATCHES[0][0])
    change(path, 0, BatchRow(0, 0, 3, block.size, 1, 2, 1, 0, block.data_crc32c).encode())
    assert problems_of_files(directories) == [
        f"{0:020d}.batch of n1 (128 bytes) and n3 (128) differ at byte 24"
    ]


def test_a_row_that_does_not_follow_is_found(directories: list[Path]) -> None:
    path = directories[0] / f"{4:020d}.batch"
    content = path.read_bytes()
    path.write_bytes(content[64:128] + content[128:])
    assert any(
        "follows offset 4 and byte 0" in problem for problem in problems_of_files(directories)
    )


def test_a_missing_segment_is_found(directories: list[Path]) -> None:
    for suffix in RESERVED:
        (directories[1] / f"{0:020d}{suffix}").unlink()
    problems = problems_of_files(directories)
    assert f"n2: {4:020d}.log follows offset 0" in problems
    assert "n1 has segments [0, 4] and n2 [4]" in problems


def test_a_store_that_ends_too_early_is_found(directories: list[Path]) -> None:
    path = directories[1] / f"{4:020d}.log"
    path.write_bytes(path.read_bytes()[:20])
    assert any(
        ".log has 20 bytes and needs 30" in problem for problem in problems_of_files(directories)
    )


def test_an_empty_directory_is_no_log(tmp_path: Path) -> None:
    assert read_stored_log("n1", tmp_path).problems == [f"n1: {tmp_path} has no segment"]
