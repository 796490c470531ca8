"""What Linux tells of a process: the processor's time that it took, and its memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Of /proc/PID/stat, counted behind the name, which may hold anything.
USER_TICKS, SYSTEM_TICKS = 11, 12
# Of the first line of /proc/stat, behind its name: the columns in which no process has a processor, and the first that counts twice.
IDLE, WAITING_FOR_DISK, GUEST = 3, 4, 8


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Return the memory of a process that is no mapped file, in 10^6 bytes."""
    found = {
        name: int(text.split()[0])
        for name, _, text in (
            line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        if name in ("RssAnon", "RssShmem")
    }
    if len(found) < 2:
        raise SystemExit("/proc does not tell RssAnon: this needs Linux")
    return sum(found.values()) * 1024 / 1e6


def busy_percent(seconds: float) -> float:
    """Return the share of all processors that was taken, by this machine or by its host, in the next so many seconds."""
    before = _ticks()
    time.sleep(seconds)
    spent = [after - each for after, each in zip(_ticks(), before, strict=True)]
    return 100 * (1 - (spent[IDLE] + spent[WAITING_FOR_DISK]) / max(1, sum(spent)))


def _ticks() -> list[int]:
    line = Path("/proc/stat").read_text().partition("\n")[0]
    return [int(each) for each in line.split()[1 : 1 + GUEST]]
