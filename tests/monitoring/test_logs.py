"""The log of a node: lines, levels, and what is counted and kept of it."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from distlog.logs import (
    KEPT_MAX,
    LEVELS,
    TEXT_SIZE_MAX,
    JsonLines,
    LogMemory,
    TextLines,
    configure_logging,
)

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name in ("distlog.peer", "distlog.consensus"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize(
    ("stream", "log_format", "is_json"),
    [
        (io.StringIO, "auto", True),
        (Terminal, "auto", False),
        (io.StringIO, "text", False),
        (Terminal, "json", True),
    ],
)
def test_a_line_is_text_on_a_terminal_and_json_in_a_pipe_unless_it_is_said(
    stream: type[io.StringIO], log_format: str, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = stream()
    monkeypatch.setattr("sys.stdout", output)
    memory = configure_logging("info", {}, log_format)
    logging.getLogger("distlog.node").warning("a disk is slow path=%s", "data\nn1")
    (line,) = output.getvalue().splitlines()
    if is_json:
        found = json.loads(line)
        assert (found["level"], found["logger"]) == ("warning", "distlog.node")
        assert found["event"] == "a disk is slow path=data\nn1"
    else:
        assert "WARNING distlog.node a disk is slow" in line
    assert memory.counts["warning"] == 1


@pytest.mark.usefixtures("logging_restored")
def test_a_package_has_a_level_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    levels = {"distlog.peer": "debug", "distlog.consensus": "error"}
    configure_logging("info", levels, "text")
    logging.getLogger("distlog.peer.network").debug("one")
    logging.getLogger("distlog.consensus.group").warning("two")
    logging.getLogger("distlog.node").debug("three")
    logging.getLogger("distlog.node").info("four")
    words = [line.rpartition(" ")[2] for line in output.getvalue().splitlines()]
    assert words == ["one", "four"]


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_an_event_is_one_line_whatever_is_in_it(form: logging.Formatter) -> None:
    record = logging.LogRecord("distlog.x", logging.INFO, "p", 1, "a\nb\r\nc", (), None)
    assert len(form.format(record).splitlines()) == 1


def test_every_line_is_counted_and_the_last_warnings_are_kept_not_more_and_not_longer() -> None:
    memory = LogMemory()
    for number in range(KEPT_MAX + 5):
        for level in (logging.INFO, logging.WARNING):
            text = f"{number} " + "x" * 2 * TEXT_SIZE_MAX
            memory.emit(logging.LogRecord("distlog.x", level, "p", 1, text, (), None))
    assert memory.counts["info"] == memory.counts["warning"] == KEPT_MAX + 5
    assert list(memory.counts) == list(LEVELS)
    assert len(memory.last) == KEPT_MAX
    assert memory.last[-1].text.startswith(f"{KEPT_MAX + 4} x")
    assert all(len(line.text) == TEXT_SIZE_MAX for line in memory.last)


def test_no_module_logs_a_text_that_is_made_up_at_run_time() -> None:
    """The text of an event is constant, so that it can be searched for; what changes are its fields."""
    found = []
    for path in sorted(ROOT.glob("distlog/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_logged = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
                and node.func.attr in ("debug", "info", "warning", "error", "critical")
            )
            if is_logged and isinstance(node.args[0], ast.JoinedStr):  # type: ignore[attr-defined]
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert found == []
