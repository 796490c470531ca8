"""Write docs/metrics.md: `make metrics`."""

from __future__ import annotations

from pathlib import Path

from distlog.monitoring.metrics import document

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def written() -> str:
    """Return what the page should say."""
    return "\n".join(document()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
