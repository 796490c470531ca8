"""Sizes, ages and moments: what a person may write, and what is shown."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from distlog.cli.units import (
    age_text,
    count_text,
    is_offset,
    kept_age_ms,
    kept_size,
    moment_ms,
    retention_text,
    size,
    size_text,
    time_text,
)

DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (size, "1", 1),
        (size, "64MiB", 64 << 20),
        (size, "64 MiB", 64 << 20),
        (kept_size, "all", 0),
        (kept_size, "1GiB", 1 << 30),
        (kept_age_ms, "7d", 7 * DAY_MS),
        (kept_age_ms, "36h", DAY_MS * 3 // 2),
        (kept_age_ms, "30m", 1_800_000),
        (kept_age_ms, "90s", 90_000),
        (kept_age_ms, "500ms", 500),
        (kept_age_ms, "forever", 0),
    ],
)
def test_what_is_written_is_what_is_meant(
    parse: Callable[[str], Any], text: str, value: int
) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((size, text) for text in ("", "0", "-1", "all", "64M", "1.5GiB", "9" * 30)),
        *((kept_size, text) for text in ("0", "ALL", "forever")),
        *(
            (kept_age_ms, text)
            for text in ("", "0d", "7", "-7d", "7 d", "1.5h", "all", "9" * 30 + "d")
        ),
    ],
)
def test_what_is_unclear_is_refused_in_words(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01 00:00:00.001Z", 1),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31T23:59:59.9999Z", 0),
        ("1969-12-31T23:59:58.999Z", -1001),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T22:13Z", 1_699_999_980_000),
    ],
)
def test_a_moment_is_the_first_whole_millisecond_not_before_it(text: str, value: int) -> None:
    assert moment_ms(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "12",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-02-30T00:00:00Z",
        "2023-W46-2T00:00Z",
    ],
)
def test_what_is_no_moment_with_a_zone_is_none(text: str) -> None:
    assert moment_ms(text) is None


@pytest.mark.parametrize(
    ("text", "is_one"), [("0", True), ("12", True), ("", False), ("-1", False)]
)
def test_an_offset_is_a_number(text: str, is_one: bool) -> None:
    assert is_offset(text) is is_one
    assert not is_offset(str(1 << 63))
    assert is_offset(str((1 << 63) - 1))


def test_values_are_shown_as_a_person_reads_them() -> None:
    sizes = (0, 1023, 1024, 1536, 64 << 20, (1 << 40) - 1, 1 << 60)
    assert [size_text(value) for value in sizes] == [
        *("0 B", "1023 B", "1.0 KiB", "1.5 KiB", "64.0 MiB", "1024.0 GiB", "1024.0 PiB"),
    ]
    ages = (1, 1500, 90_000, 7_200_000, 7 * DAY_MS)
    assert [age_text(value) for value in ages] == ["1ms", "1500ms", "90s", "2h", "7d"]
    assert retention_text(0, 0) == "everything"
    assert retention_text(1 << 30, 7 * DAY_MS) == "1.0 GiB, 7d"
    assert time_text(1_700_000_000_001) == "2023-11-14T22:13:20.001Z"
    assert time_text(1 << 62) == f"{1 << 62} ms"
    counts = [
        count_text(0, "byte"),
        count_text(1, "batch", "batches"),
        count_text(2, "batch", "batches"),
    ]
    assert counts == ["0 bytes", "1 batch", "2 batches"]
