"""Sizes, ages, moments and counts, as a person writes and reads them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

from distlog.config import parse_bytes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_MS = 1000
# The longest first: that is how an age is shown.
AGE_UNITS = {
    "d": 24 * 3600 * SECOND_MS,
    "h": 3600 * SECOND_MS,
    "m": 60 * SECOND_MS,
    "s": SECOND_MS,
    "ms": 1,
}
SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
# What means that nothing goes for its size, or for its age.
ALL, FOREVER = "all", "forever"
KEPT_MAX = 1 << 62
OFFSET_MAX = (1 << 63) - 1
MOMENT_WORDS = "a time with its zone like 2026-01-31T12:00:00Z"


def size(text: str) -> int:
    """Parse a number of bytes, above 0: 1048576, 64MiB."""
    try:
        value = parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None
    if not 0 < value <= KEPT_MAX:
        raise argparse.ArgumentTypeError(f"must be from 1 to 2^62 bytes, not {text!r}")
    return value


def kept_size(text: str) -> int:
    """Parse how many bytes are kept; `all` is 0."""
    return 0 if text == ALL else size(text)


def kept_age_ms(text: str) -> int:
    """Parse an age in milliseconds, above 0: 7d, 12h, 30m, 90s, 500ms; `forever` is 0."""
    if text == FOREVER:
        return 0
    match = re.fullmatch(r"(\d{1,30})(d|h|m|s|ms)", text, re.ASCII)
    if match is None:
        units = "a number with d, h, m, s or ms, for example 7d"
        raise argparse.ArgumentTypeError(f"must be {units}, or {FOREVER}, not {text!r}")
    value = int(match[1]) * AGE_UNITS[match[2]]
    if not 0 < value <= KEPT_MAX:
        raise argparse.ArgumentTypeError(f"must be above 0, or {FOREVER}, not {text!r}")
    return value


def is_offset(text: str) -> bool:
    """Tell whether `text` is a number that an offset can be."""
    return text.isdecimal() and len(text) < 20 and int(text) <= OFFSET_MAX


def moment_ms(text: str) -> int | None:
    """Parse a moment of RFC 3339 into milliseconds since the Unix epoch, the next whole one; None if it is none.

    2026-01-31T12:00:00Z, 2026-01-31 12:00:00.5+01:00; it must say its time zone.
    """
    if not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}", text, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return -(-(moment - EPOCH) // timedelta(milliseconds=1))


def size_text(value: int) -> str:
    """Return a number of bytes with its unit, to a tenth."""
    scaled, unit = float(value), 0
    while scaled >= 1024 and unit < len(SIZE_UNITS) - 1:
        scaled, unit = scaled / 1024, unit + 1
    return f"{value} B" if unit == 0 else f"{scaled:.1f} {SIZE_UNITS[unit]}"


def age_text(value_ms: int) -> str:
    """Return an age in the largest unit that divides it."""
    unit = next(unit for unit, factor in AGE_UNITS.items() if value_ms % factor == 0)
    return f"{value_ms // AGE_UNITS[unit]}{unit}"


def retention_text(retention_size: int, retention_age_ms: int) -> str:
    """Return in words what a topic keeps at least."""
    kept = []
    if retention_size:
        kept.append(size_text(retention_size))
    if retention_age_ms:
        kept.append(age_text(retention_age_ms))
    return ", ".join(kept) or "everything"


def time_text(timestamp_ms: int) -> str:
    """Return milliseconds since the Unix epoch as RFC 3339, in UTC; the bare number where no calendar reaches."""
    try:
        moment = EPOCH + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return f"{timestamp_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count_text(count: int, singular: str, plural: str = "") -> str:
    """Return how many of something, in words."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
