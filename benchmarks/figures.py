"""What a benchmark prints: figures, each beside the limit that was measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, several times."""

    name: str
    unit: str
    runs: Sequence[float]
    # What the same run found possible, in the same unit; empty if there is no such thing.
    limit_runs: Sequence[float] = ()
    limit_name: str = ""
    # The median, or its ratio to the limit's where there is one, is to be at least or at most this.
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def limit(self) -> float | None:
        return statistics.median(self.limit_runs) if self.limit_runs else None

    @property
    def judged(self) -> float:
        """What the target speaks of."""
        return self.median if not self.limit else self.median / self.limit

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is met; None if there is none."""
        if self.at_least is None and self.at_most is None:
            return None
        enough = self.at_least is None or self.judged >= self.at_least
        return enough and (self.at_most is None or self.judged <= self.at_most)

    def as_dict(self) -> dict[str, object]:
        """Return the figure as `--json` has it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.runs),
            "max": max(self.runs),
            "limit": self.limit,
            "limit_name": self.limit_name,
            "ratio": self.judged if self.limit else None,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "met": self.is_met,
        }


HEADINGS = ("", "median", "least", "greatest", "limit", "ratio", "target", "")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table, one line each."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    for figure in figures:
        limit, target = "", ""
        if figure.limit:
            limit = f"{_number(figure.limit)} ({figure.limit_name})"
        if figure.at_least is not None:
            target = f">= {_number(figure.at_least)}"
        elif figure.at_most is not None:
            target = f"<= {_number(figure.at_most)}"
        lines.append(
            _line(
                (
                    figure.name,
                    f"{_number(figure.median)} {figure.unit}",
                    _number(min(figure.runs)),
                    _number(max(figure.runs)),
                    limit,
                    f"{figure.judged:.2f}" if figure.limit else "",
                    target,
                    {None: "", True: "met", False: "MISSED"}[figure.is_met],
                )
            )
        )
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
