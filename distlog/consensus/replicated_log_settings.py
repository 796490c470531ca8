"""What a replicated log is made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicatedLogSettings:
    """Sizes in bytes, times in seconds."""

    proposals_size_max: int = 64 << 20
    waiting_reads_max: int = 20_000
    # Beyond this proposals are refused: it forgets in time, unless no checkpoint can be written.
    journal_size_max: int = 256 << 20
    # Between two looks at what the topics need not keep any more.
    retention_interval_s: float = 10.0
