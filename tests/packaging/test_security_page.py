"""The table of limits in docs/security.md is what the code has, and leaves out no limit of the ports."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from distlog.monitoring.http import HttpLimits
from distlog.peer.limits import ChannelLimits, PeerLimits
from distlog.server.limits import ServerLimits

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROW = re.compile(r"^\| ([^|]+) \| ([\d.,]+(?: (?:KiB|MiB|s))?) \| ([^|]+) \| `([\w.]+)` \|$", re.M)
# How often others are dialled is no limit of what they may do.
NO_LIMITS = {"redial_delay_min_s", "redial_delay_max_s"}


def rows() -> dict[str, str]:
    """Return the limit by where it is."""
    return {where: limit for _, limit, _, where in ROW.findall(PAGE.read_text("utf-8"))}


def value_of(where: str) -> Any:
    """Return what is at a dotted path below distlog; a class stands for what it is made as."""
    names = where.split(".")
    for count in range(len(names) - 1, 0, -1):
        try:
            found: Any = importlib.import_module("distlog." + ".".join(names[:count]))
        except ModuleNotFoundError:
            continue
        for name in names[count:]:
            found = getattr(found, name)
            found = found() if isinstance(found, type) else found
        return found
    raise AssertionError(f"there is no {where}")


def shown(where: str, value: float) -> str:
    """Return a limit as the page writes it, by the unit that its name ends with."""
    name = where.rpartition(".")[2].lower()
    if name.endswith("_s"):
        return f"{value:g} s"
    if "size" in name:
        size = int(value)
        unit, text = (1 << 20, "MiB") if size % (1 << 20) == 0 else (1 << 10, "KiB")
        assert size % unit == 0
        return f"{size // unit} {text}"
    return f"{value:,}"


@pytest.mark.parametrize("where", rows())
def test_a_limit_on_the_page_is_the_one_of_the_code(where: str) -> None:
    assert rows()[where] == shown(where, value_of(where))


def test_every_limit_of_the_ports_is_on_the_page() -> None:
    expected = {
        f"server.limits.ServerLimits.{each.name}" for each in dataclasses.fields(ServerLimits)
    }
    expected |= {
        f"monitoring.http.HttpLimits.{each.name}" for each in dataclasses.fields(HttpLimits)
    }
    for each in dataclasses.fields(PeerLimits):
        value = getattr(PeerLimits(), each.name)
        inner = (
            [f".{field.name}" for field in dataclasses.fields(value)]
            if isinstance(value, ChannelLimits)
            else [""]
        )
        expected |= {f"peer.limits.PeerLimits.{each.name}{name}" for name in inner}
    left_out = {where.rpartition(".")[2] for where in expected - rows().keys()}
    assert left_out == NO_LIMITS


def test_the_table_has_no_row_that_the_test_cannot_read() -> None:
    table = PAGE.read_text("utf-8").partition("## Limits")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| ", table, re.M)) == len(rows()) + 1
