"""Every behaviour of the systems before this one has a test that can be found by its number."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAME = re.compile(r"test_parity_b(\d\d)_\w+")

# What must hold, in a few words; the tests say it in full.
BEHAVIOURS = {
    1: "a store returns each appended record at its position; a new store on the same file reads them too",
    2: "closing flushes: the file holds everything",
    3: "an index: read of an empty one and past the end are errors, pairs read back, also after reopening",
    4: "a segment begins at its base offset, is full by index or by store, reopens, is removed",
    5: "a log begins at offset 0, and values come back across segments",
    6: "reading an empty log is out of range, and the error carries the offset",
    7: "after three appends, close and reopen: 0 is the lowest offset, 2 the highest, 3 the next",
    8: "the raw bytes of a store are exactly the frames",
    9: "what was trimmed cannot be read",
    10: "unary and streaming calls round-trip with their offsets",
    11: "consuming past the end gives no record, but the out-of-range status with its details",
    12: "an authenticated subject with no permission is denied both produce and consume",
    13: "health says SERVING, also to that subject",
    14: "who joins is seen to, nobody is seen to leave who did not, and whoever left stays seen as left",
    15: "three nodes replicate each append to all, and list each other with one leader; who left is not listed, and gets nothing",
    16: "three nodes with certificates: what is produced is consumed from leader and follower, once, and the next offset is out of range",
    17: "the client knows the addresses with their roles, and learns when they change",
}


@functools.cache
def parity_tests() -> dict[int, list[str]]:
    """Return the names of the tests of each behaviour, where pytest finds them."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if match := NAME.fullmatch(node.name):
                found.setdefault(int(match[1]), []).append(f"{path.name}::{node.name}")
    return found


@pytest.mark.parametrize("number", BEHAVIOURS, ids=lambda number: f"b{number:02d}")
def test_each_behaviour_has_a_test(number: int) -> None:
    assert parity_tests().get(number), f"no test_parity_b{number:02d}_...: {BEHAVIOURS[number]}"


def test_no_test_names_a_behaviour_that_is_not_in_the_list() -> None:
    assert sorted(set(parity_tests()) - set(BEHAVIOURS)) == []
