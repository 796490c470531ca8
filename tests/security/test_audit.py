"""The audit log: its lines, its files, and what becomes of a flood and of a disk that takes nothing."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distlog.errors import ConfigurationInvalid
from distlog.security.audit import BURST_MAX, RATE_MAX, WAITING_SIZE_MAX, AuditLog
from distlog.security.rotated_file import RotatedFile


class HandClock:
    """Goes only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


class PromptWorker:
    """Runs at once what it is given."""

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(*args))
        except OSError as error:
            future.set_exception(error)
        return future

    def sync(self, file: Any) -> asyncio.Future[None]:
        return self.submit(file.sync)

    def close(self) -> None:
        return


class Stuck(PromptWorker):
    """Waits for a disk until the test says that it has answered."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] | None = None

    def submit(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self.future = self.future or asyncio.get_running_loop().create_future()
        return self.future


class Disk:
    """Lines in memory, on a disk that may be full."""

    def __init__(self) -> None:
        self.data = b""
        self.is_full = False

    def append(self, data: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.data += data

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.data.splitlines()]


def note(audit: AuditLog, outcome: str = "DENIED", topic: str = "orders") -> None:
    audit.note(
        subject="alice",
        peer="ipv4:10.0.0.7:51034",
        method="log.v1.Log.Produce",
        topic=topic,
        outcome=outcome,
        request_id="0011",
    )


def audited(disk: Disk, body: Callable[[AuditLog, HandClock], None]) -> AuditLog:
    """Run `body`, which may not wait, and close the log."""

    async def run() -> AuditLog:
        clock = HandClock()
        audit = AuditLog(disk, PromptWorker(), clock, lambda ms: f"at {ms}")
        body(audit, clock)
        assert await audit.close(5.0)
        return audit

    return asyncio.run(run())


def test_a_line_says_who_was_refused_what_and_nothing_else() -> None:
    disk = Disk()
    audited(disk, lambda audit, clock: note(audit))
    assert disk.lines == [
        {
            "time": "at 1000000",
            "subject": "alice",
            "peer": "ipv4:10.0.0.7:51034",
            "method": "log.v1.Log.Produce",
            "topic": "orders",
            "outcome": "DENIED",
            "request_id": "0011",
        }
    ]


def test_a_name_cannot_begin_a_line_of_its_own() -> None:
    disk = Disk()
    audited(disk, lambda audit, clock: note(audit, topic='x\n{"subject": "root"}'))
    assert [line["topic"] for line in disk.lines] == ['x\n{"subject": "root"}']


def test_a_flood_of_denials_is_bounded_and_counted_and_administrative_calls_are_not_lost_in_it() -> (
    None
):
    disk = Disk()

    def flood(audit: AuditLog, clock: HandClock) -> None:
        for _ in range(BURST_MAX + 5000):
            note(audit)
        note(audit, outcome="DONE")
        clock.now_s += 1
        for _ in range(1000):
            note(audit)

    audit = audited(disk, flood)
    denied = [line for line in disk.lines if line.get("outcome") == "DENIED"]
    assert len(denied) == BURST_MAX + RATE_MAX
    left_out = [line["left_out"] for line in disk.lines if "left_out" in line]
    assert left_out == [5000, 1000 - RATE_MAX]
    assert audit.left_out_count == sum(left_out)
    assert sum(line.get("outcome") == "DONE" for line in disk.lines) == 1


def test_a_full_disk_stops_nothing_is_said_once_and_is_written_to_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk()

    async def run() -> None:
        audit = AuditLog(disk, PromptWorker(), HandClock(), str)
        for is_full in (False, True, True, True, False):
            disk.is_full = is_full
            note(audit)
            assert await audit.close(5.0)
        assert (audit.written_count, audit.lost_count) == (2, 3)

    asyncio.run(run())
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["ERROR", "WARNING"]
    assert "No space left" in said[0][1]
    assert "lost_lines=3" in said[1][1]


def test_what_waits_for_a_slow_disk_has_a_limit() -> None:
    async def run() -> None:
        clock, worker = HandClock(), Stuck()
        audit = AuditLog(Disk(), worker, clock, str)
        for _ in range(30_000):
            clock.now_s += 1
            note(audit)
            if worker.future is None:
                await asyncio.sleep(0)
        assert audit.lost_count > 0
        assert audit._waiting_size <= WAITING_SIZE_MAX
        assert worker.future is not None
        # Nor does a node that stops wait for it for ever.
        assert not await audit.close(0.01)
        worker.future.set_result(None)
        assert await audit.close(5.0)

    asyncio.run(run())


def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        worker = Stuck()
        audit = AuditLog(Disk(), worker, HandClock(), str)
        note(audit)
        async with asyncio.timeout(10):
            assert not await audit.close(timeout_s=0.01)
        assert worker.future is not None
        worker.future.set_result(None)
        assert await audit.close()

    asyncio.run(run())
    assert "its disk does not answer" in caplog.text


# --- The files --------------------------------------------------------------------------------------


def test_files_are_for_their_owner_alone_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.touch(0o644)
    file = RotatedFile(str(path), size_max=100, count_max=3)
    for number in range(40):
        file.append(b"line %2d, of twenty-five.\n" % number)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2"]
    contents = [(tmp_path / name).read_bytes() for name in reversed(names)]
    assert b"".join(contents) == b"".join(b"line %2d, of twenty-five.\n" % n for n in range(28, 40))
    assert all(len(content) <= 100 for content in contents)
    for each in tmp_path.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600


def test_many_lines_at_once_make_no_file_larger_than_it_may_be(tmp_path: Path) -> None:
    """A disk that was slow gets all at once that came meanwhile."""
    path = tmp_path / "audit.log"
    file = RotatedFile(str(path), size_max=100, count_max=4)
    file.append(b"first\n")
    lines = [b"line %03d\n" % number for number in range(40)]
    file.append(b"".join(lines))
    newest_last = [Path(f"{path}.{number}") for number in (3, 2, 1)] + [path]
    assert b"".join(each.read_bytes() for each in newest_last) == b"first\n" + b"".join(lines)
    assert max(each.stat().st_size for each in newest_last) <= 100


def test_one_file_alone_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = RotatedFile(str(path), size_max=30, count_max=1)
    for number in range(5):
        file.append(b"line %d, of twenty-five..\n" % number)
    assert path.read_bytes() == b"line 4, of twenty-five..\n"


def test_a_file_that_is_moved_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = RotatedFile(str(path), size_max=1000, count_max=2)
    file.append(b"first\n")
    path.rename(tmp_path / "elsewhere")
    file.append(b"second\n")
    assert path.read_bytes() == b"second\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "audit.log", tmp_path / "other"
    other.write_bytes(b"precious")
    path.symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        RotatedFile(str(path), size_max=1000, count_max=2).append(b"x\n")
    assert other.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["missing/audit.log", "directory"])
def test_a_place_where_no_file_can_be_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(ConfigurationInvalid, match=name):
        RotatedFile(str(tmp_path / name), size_max=1000, count_max=2).check_place()


def test_a_place_where_a_file_can_be_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    RotatedFile(str(path), size_max=1000, count_max=2).check_place()
    assert path.read_bytes() == b""
