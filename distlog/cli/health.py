"""How well the nodes of a cluster are, as `distlog cluster status` shows it: ready or not and why, since when, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distlog.cli.units import size_text, time_text

UNKNOWN = "-"
COLUMNS = ("NODE", "READY", "STATE", "UPTIME", "VERSION", "DISK FREE", "WHY")
PROBLEM_COLUMNS = ("LAST PROBLEMS", "NODE", "LEVEL", "WHAT")
# Of all nodes together.
PROBLEM_COUNT_MAX = 5
READY_WORDS = {True: "yes", False: "no", None: UNKNOWN}


def cells(node: dict[str, Any]) -> list[str]:
    """Return the cells of one node."""
    free, uptime_s = node["disk_free"], node["uptime_s"]
    return [
        node["node_id"],
        READY_WORDS[node["ready"]],
        node["state"] or UNKNOWN,
        UNKNOWN if uptime_s is None else uptime_text(int(uptime_s)),
        node["version"] or UNKNOWN,
        UNKNOWN if free is None else size_text(free),
        printable(node["problem"]),
    ]


def uptime_text(seconds: int) -> str:
    """Return how long a node has run, in its two largest units."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"


def printable(text: str) -> str:
    """Return a text as one line that does nothing to a terminal: a log may quote what strangers have sent."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def problem_rows(nodes: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the last warnings and errors of all nodes, the newest last."""
    lines = [(line, node["node_id"]) for node in nodes for line in node["last_problems"]]
    lines.sort(key=lambda each: int(each[0]["time_ms"]))
    return [
        [time_text(line["time_ms"]), node_id, line["level"], printable(line["text"])]
        for line, node_id in lines[-PROBLEM_COUNT_MAX:]
    ]
