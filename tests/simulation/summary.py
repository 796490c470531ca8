"""What many simulated schedules came to together, and how much of everything they have to have seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

# What is counted, and how much of it a hundred schedules have at least.
FLOORS = {
    "crashes": 300,
    "elections": 280,
    "truncations": 12,
    "partitions": 80,
    "pauses": 60,
    "lost pages": 20_000,
    "full disks": 70,
    "transfers": 20,
    "joins begun": 10,
    "removals": 2,
    "replacements": 2,
    "acknowledged": 38_000,
    "virtual seconds": 550,
}
# Counted, without a floor.
OTHERS = (
    "runs",
    "starts",
    "stops",
    "power cuts of all",
    "connections broken",
    "clock jumps",
    "slow disks",
    "duplicates answered",
    "unknown",
    "refused",
    "reads",
    "reads refused",
    "topic calls",
    "changes refused",
)
# Fewer schedules than this prove nothing about the mixture.
FLOORS_FROM = 50


class Counts(Protocol):
    """What is summed of a run."""

    @property
    def counts(self) -> Counter[str]: ...

    @property
    def failures(self) -> Sequence[str]: ...


class Summary:
    """The sum of many runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Schedules in which something was violated.
        self.failed_count = 0

    def add(self, run: Counts) -> None:
        self.counts.update(run.counts)
        self.failed_count += bool(run.failures)

    def table(self) -> Iterator[str]:
        """Yield lines for a terminal and for docs/simulation.md."""
        runs = max(1, self.counts["runs"])
        yield "| | in all | in a schedule |"
        yield "|---|---|---|"
        for name in ("runs", *FLOORS, *OTHERS[1:]):
            count = self.counts[name]
            yield f"| {name} | {count:,} | {count / runs:.1f} |"
        yield f"| schedules with a violation | {self.failed_count} | |"

    def below_floors(self) -> list[str]:
        """Return what there was too little of."""
        runs = self.counts["runs"]
        if runs < FLOORS_FROM:
            return []
        return [
            f"only {self.counts[name]} {name} in {runs} schedules, expected {floor * runs // 100}"
            for name, floor in FLOORS.items()
            if self.counts[name] < floor * runs // 100
        ]
