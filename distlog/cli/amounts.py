"""Numbers as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def size_text(size: int) -> str:
    """Return a number of bytes as a person reads it."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{size} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """Return how many of something, in words."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def time_text(timestamp_ms: int) -> str:
    """Return milliseconds since the Unix epoch as RFC 3339, in UTC; the bare number where no calendar reaches."""
    try:
        moment = EPOCH + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
