"""What a node says of its process beside what it knows of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class LoggedLine(Protocol):
    """A warning or an error of the log."""

    @property
    def time_ms(self) -> int: ...
    @property
    def level(self) -> str: ...
    @property
    def logger(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class About:
    """Sizes in bytes."""

    uptime_s: float = 0.0
    # None: the disk does not say.
    disk_free: int | None = None
    reserve: int = 0
    reserve_max: int = 0
    # The oldest first.
    last_problems: Sequence[LoggedLine] = ()


NOTHING_KNOWN = About()
