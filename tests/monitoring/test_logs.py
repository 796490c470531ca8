"""The log of a node: lines, levels, and what is counted and kept of it."""

from __future__ import annotations

import ast
import importlib
import io
import json
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from grpc._cython import cygrpc

from distlog.logs import (
    CONVERSION,
    FIELD,
    KEPT_MAX,
    LEVELS,
    OTHER,
    PACKAGES,
    SEVERE_LEVELS,
    TEXT_SIZE_MAX,
    JsonLines,
    LogMemory,
    TextLines,
    configure_logging,
    package_of,
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
        assert (found["event"], found["path"]) == ("a disk is slow", "data\nn1")
    else:
        assert "WARNING distlog.node a disk is slow" in line
    assert memory.counts["node", "warning"] == 1


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


@pytest.mark.usefixtures("logging_restored")
def test_a_warning_is_counted_and_kept_also_where_it_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    memory = configure_logging("error", {"distlog.peer": "critical"}, "text")
    logging.getLogger("distlog.node").warning("one")
    logging.getLogger("distlog.peer").error("two")
    logging.getLogger("asyncio").info("three")
    assert output.getvalue() == ""
    assert [line.text for line in memory.last] == ["one", "two"]
    counts = {key: count for key, count in memory.counts.items() if count}
    assert counts == {("node", "warning"): 1, ("peer", "error"): 1}


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("error", [cygrpc.ExecuteBatchError, ValueError])
def test_grpc_says_nothing_of_a_client_that_is_gone_and_all_else(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    memory = configure_logging("debug", {}, "text")
    try:
        raise error("it failed")
    except error:
        logging.getLogger(cygrpc.__name__).exception("raised by a servicer method")
    assert ("Traceback" in stream.getvalue()) is (error is ValueError)
    assert len(memory.last) == (error is ValueError)


def test_a_first_warning_is_one_more_than_none_in_every_package() -> None:
    memory = LogMemory()
    assert set(memory.counts) == {(each, level) for each in PACKAGES for level in SEVERE_LEVELS}
    assert set(memory.counts.values()) == {0}
    assert package_of("distlog.consensus.group") == "consensus"
    assert package_of("distlog") == package_of("distlog.new.thing") == package_of("grpc") == OTHER


@pytest.mark.parametrize("form", [TextLines(), JsonLines()])
def test_an_event_is_one_line_whatever_is_in_it(form: logging.Formatter) -> None:
    record = logging.LogRecord("distlog.x", logging.INFO, "p", 1, "a\nb\r\nc", (), None)
    assert len(form.format(record).splitlines()) == 1


def as_json(name: str, template: str, *values: object) -> dict[str, Any]:
    record = logging.LogRecord(name, logging.WARNING, "p", 1, template, values, None)
    found: dict[str, Any] = json.loads(JsonLines().format(record))
    return {name: found[name] for name in found if name not in ("time", "level", "logger")}


def test_in_json_an_event_is_a_constant_text_and_its_fields_have_their_names() -> None:
    name = "distlog.node"
    assert as_json(name, "full: free %s path=%s size=%d", "some", "a b=c", 7) == {
        "event": "full: free some",
        "path": "a b=c",
        "size": 7,
    }
    assert as_json(name, "slow duration_ms=%.0f days=%.1f of=%s", 12.34, float("inf"), None) == {
        "event": "slow",
        "duration_ms": 12.0,
        "days": "inf",
        "of": "None",
    }
    assert as_json(name, "not met address=%s:%d problem=%s at all", "h", 1, OSError("gone")) == {
        "event": "not met",
        "address": "h:1",
        "problem": "gone at all",
    }
    # Nothing is put into a text without values, nor taken out of what others log.
    assert as_json(name, "durability=os: 50 % slower path=x") == {
        "event": "durability=os: 50 % slower path=x"
    }
    assert as_json("asyncio", "slow task=%s", "t") == {"event": "slow task=t"}


def test_every_text_with_values_has_them_apart_in_json_and_no_field_hides_what_each_line_has() -> (
    None
):
    ours = {"time", "level", "logger", "event", "exception", "trace_id", "span_id"}
    for place, level, call in logged():
        first = 2 if level == "log" else 1
        text, values = text_of(place, call, level), call.args[first:]
        names = FIELD.findall(text)
        assert len(names) == len(set(names) - ours), place
        is_passed_on = ast.unparse(call.func).endswith("_complain")
        if (
            values
            and not is_passed_on
            and not any(isinstance(each, ast.Starred) for each in values)
        ):
            assert len(CONVERSION.findall(text)) == len(values), place


def test_every_line_is_counted_and_the_last_warnings_are_kept_not_more_and_not_longer() -> None:
    memory = LogMemory()
    for number in range(KEPT_MAX + 5):
        for level in (logging.INFO, logging.WARNING):
            text = f"{number} " + "x" * 2 * TEXT_SIZE_MAX
            memory.emit(logging.LogRecord("distlog.x", level, "p", 1, text, (), None))
    counts = {key: count for key, count in memory.counts.items() if count}
    assert counts == {(OTHER, "info"): KEPT_MAX + 5, (OTHER, "warning"): KEPT_MAX + 5}
    assert len(memory.last) == KEPT_MAX
    assert memory.last[-1].text.startswith(f"{KEPT_MAX + 4} x")
    assert all(len(line.text) == TEXT_SIZE_MAX for line in memory.last)


@cache
def logged() -> list[tuple[str, str, ast.Call]]:
    """Return each call that logs, with where it is, and its level."""
    found = []
    for path in sorted(ROOT.glob("distlog/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            on, method = node.func.value, node.func.attr
            if isinstance(on, ast.Name) and on.id == "logger" and method in (*LEVELS, *OTHERS):
                level = "error" if method == "exception" else method
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", level, node))
            elif method == "_complain" and "switchboard" in path.name:
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", "log", node))
    return found


# Ways to log that are no levels.
OTHERS = ("exception", "log")
# Their second field says what to do: the reason of a refusal always does.
REASON_SAYS = ("this node was refused by a peer", "peer refused", "%s not secured")
# Are given what to do, or the whole event.
PASSED_ON = (
    "%s peer=%s problem=%s",
    "a segment is damaged, %s problem=%s",
    "%s; until then the file counts here",
)


def text_of(place: str, call: ast.Call, level: str) -> str:
    """Return the text that a call logs; constants are looked up in their module."""
    argument = call.args[1 if level == "log" else 0]
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    module = importlib.import_module(place.partition(".py")[0].replace("/", "."))
    return str(eval(ast.unparse(argument), {"self": None, **vars(module)}))


def test_no_module_logs_a_text_that_is_made_up_at_run_time() -> None:
    """The text of an event is constant, so that it can be searched for; what changes are its fields."""
    texts = [call.args[1 if level == "log" else 0] for _, level, call in logged()]
    assert not [each for each in texts if isinstance(each, ast.JoinedStr)]
    assert len(texts) > 80


def test_every_part_that_logs_is_counted_by_its_name() -> None:
    assert [place for place, _, _ in logged() if package_of(module_of(place)) == OTHER] == []


def module_of(place: str) -> str:
    return place.partition(".py")[0].replace("/", ".")


def test_every_warning_and_every_error_says_what_to_do() -> None:
    found = []
    for place, level, call in logged():
        may_warn = "INFO" not in ast.unparse(call.args[0]) or "WARNING" in ast.unparse(call.args[0])
        if level not in (*SEVERE_LEVELS, "log") or (level == "log" and not may_warn):
            continue
        text = text_of(place, call, level)
        # Before the fields.
        words = re.split(r" \w+=%|: %", text)[0]
        if text in PASSED_ON or words in REASON_SAYS:
            continue
        if not re.search(r": \w+ \w+", words):
            found.append(f"{place}: {text}")
    assert found == []


def test_a_line_whose_arguments_do_not_fit_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is a mistake of who logs, which may be any library, and what it does goes on."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    memory = LogMemory()
    wrong = logging.LogRecord("grpc", logging.ERROR, "", 0, "%d of %d", ("one",), None)
    memory.handle(wrong)
    assert memory.counts[OTHER, "error"] == 1
    assert memory.last == ()
