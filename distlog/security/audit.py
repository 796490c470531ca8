"""The audit log: who was denied what, and who changed what; one JSON object a line, in files of their own.

    {"time": "2026-01-31T12:00:00.123Z", "subject": "alice", "peer": "ipv4:10.0.0.7:51034", "method": "log.v1.Log.Produce",
     "topic": "orders", "outcome": "DENIED", "request_id": "8c1f..."}

subject "": nobody known.  topic "*": the cluster itself.  outcome: DENIED, DONE, CANCELLED (the caller had gone), or the reason of the
error.  Nothing of what a request holds is in it beyond the topic's name.

    note -> a bound for each kind -> lines that wait, up to a limit -> worker -> file
                 |
                 +-> {"time": ..., "left_out": 4711, "denied": true}    in the place of what was more than that

A disk that takes no lines stops nothing: that is said once in the node's log, what is lost is counted, and it is tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from distlog.runtime import Clock, Worker

logger = logging.getLogger(__name__)

# Lines in a second of denied calls, and of administrative ones, for longer than a moment; and of that moment.
RATE_MAX, BURST_MAX = 100, 500
# Bytes of lines that wait for a slow disk.
WAITING_SIZE_MAX = 1 << 20
# Of a subject or a topic there is never more; of an address neither.
TEXT_LENGTH_MAX = 300
DENIED = "DENIED"


class Lines(Protocol):
    """Where lines go: `RotatedFile`."""

    def append(self, data: bytes) -> None:
        """Write lines.  Blocks.  Raises OSError."""


class AuditLog:
    """One node's.  All calls on the event loop."""

    def __init__(
        self, lines: Lines, worker: Worker, clock: Clock, time_text: Callable[[int], str]
    ) -> None:
        """time_text(ms): a moment since the Unix epoch as text."""
        self._lines = lines
        self._worker = worker
        self._clock = clock
        self._time_text = time_text
        self._bounds = {True: _Bound(clock), False: _Bound(clock)}
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._writing: asyncio.Task[None] | None = None
        self._has_failed = False
        self.written_count = 0
        # Lines that were never written: too many at once, or a disk that took none.
        self.left_out_count = 0
        self.lost_count = 0

    def note(
        self, *, subject: str, peer: str, method: str, topic: str, outcome: str, request_id: str
    ) -> None:
        """Take note of a call."""
        is_denied = outcome == DENIED
        bound = self._bounds[is_denied]
        if not bound.admits():
            bound.left_out += 1
            self.left_out_count += 1
            return
        self._say_what_was_left_out(is_denied)
        self._put(
            subject=subject[:TEXT_LENGTH_MAX],
            peer=peer[:TEXT_LENGTH_MAX],
            method=method,
            topic=topic[:TEXT_LENGTH_MAX],
            outcome=outcome,
            request_id=request_id,
        )

    async def close(self, timeout_s: float) -> bool:
        """Write what waits, within a time; tell whether nothing is being written any more.  A disk may never answer."""
        for is_denied in self._bounds:
            self._say_what_was_left_out(is_denied)
        if self._writing is None:
            return True
        ended, _ = await asyncio.wait([self._writing], timeout=timeout_s)
        return bool(ended)

    def _say_what_was_left_out(self, is_denied: bool) -> None:
        bound = self._bounds[is_denied]
        if bound.left_out:
            self._put(left_out=bound.left_out, denied=is_denied)
            bound.left_out = 0

    def _put(self, **fields: Any) -> None:
        line = {"time": self._time_text(self._clock.wall_ms()), **fields}
        data = json.dumps(line).encode() + b"\n"
        if self._waiting_size + len(data) > WAITING_SIZE_MAX:
            self.lost_count += 1
            return
        self._waiting.append(data)
        self._waiting_size += len(data)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting, self._waiting_size = self._waiting, [], 0
                try:
                    await self._worker.submit(self._lines.append, b"".join(waiting))
                except OSError as error:
                    self._failed(len(waiting), error)
                else:
                    self._succeeded(len(waiting))
        finally:
            self._writing = None

    def _failed(self, count: int, error: OSError) -> None:
        self.lost_count += count
        if not self._has_failed:
            self._has_failed = True
            logger.error(
                "the audit log cannot be written, and the node goes on without it: free space or mend its directory problem=%s",
                error.strerror or error,
            )

    def _succeeded(self, count: int) -> None:
        self.written_count += count
        if self._has_failed:
            self._has_failed = False
            logger.warning(
                "the audit log is written again: lines are missing in it, and the disk needs a look lost_lines=%d",
                self.lost_count,
            )


class _Bound:
    """How many may pass: BURST_MAX at once, and RATE_MAX in a second for ever."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._room = float(BURST_MAX)
        self._at = clock.monotonic()
        self.left_out = 0

    def admits(self) -> bool:
        now = self._clock.monotonic()
        self._room = min(BURST_MAX, self._room + RATE_MAX * (now - self._at))
        self._at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True
