"""Counts the cases of the crash matrix, and prints them at the end of a run.

A case is one damaged or interrupted disk that was opened and held against what was written.  Each test asserts a floor for
its own counts, so that a change cannot make the matrix small without being seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

KIND_WIDTH = 58


class CrashTally:
    """Cases by target (log, journal, checkpoint, data directory) and kind."""

    def __init__(self, *, full: bool) -> None:
        # The complete product instead of what fits into `make test`.
        self.full = full
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, target: str, kind: str, cases: int = 1) -> None:
        """Add cases that were opened and checked."""
        self._counts[target, kind] += cases

    def cases(self, target: str, kind: str) -> int:
        return self._counts[target, kind]

    def require(self, target: str, kind: str, floor: int) -> None:
        """Fail if there are fewer cases of a kind than there have to be."""
        found = self.cases(target, kind)
        assert found >= floor, f"{target}: only {found} cases of {kind!r}, not {floor}"

    def content(self) -> list[tuple[str, str, int]]:
        """Return all counts, for `add` in another process."""
        return [(target, kind, cases) for (target, kind), cases in self._counts.items()]

    def add(self, content: Iterable[tuple[str, str, int]]) -> None:
        """Add the counts of another process."""
        for target, kind, cases in content:
            self.count(target, kind, cases)

    def table(self) -> Iterator[str]:
        """Yield the lines of a table; none if nothing was counted."""
        if not self._counts:
            return
        for (target, kind), cases in self._counts.items():
            yield f"{target:<16}{kind:<{KIND_WIDTH}}{cases:>9,}"
        total = sum(self._counts.values())
        yield f"{'all':<16}{'':<{KIND_WIDTH}}{total:>9,}"
