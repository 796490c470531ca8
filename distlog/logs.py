"""The log of a node: one line an event on the standard output, readable on a terminal, JSON in a pipe; and what is counted of it.

An event is a constant text and fields behind it, `the disk is full: free some reserve=%s size=%d`: text shows them in one, JSON apart.

A line that is logged while a call is served that is traced has the ids of its span, so that one leads to the other.

Levels are set for the node and for single packages of it: `info,distlog.peer=debug`.  `LogMemory` counts every line by its package and
level, warnings also where the level keeps them from being written, so that none passes unseen, and keeps the last that were warnings or
worse for who asks for the status.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from distlog.tracing.spans import SERVED

LEVELS = ("debug", "info", "warning", "error", "critical")
# Those of which a first one must be seen as one more: they are counted from 0 for every package.
SEVERE_LEVELS = LEVELS[2:]
# The parts of distlog that log, and everything else.
OTHER = "other"
PACKAGES = (
    *("catch_up", "client", "consensus", "discovery", "membership", "monitoring", "node", "peer"),
    *("security", "serve", "server", "tracing"),
    OTHER,
)
# Warnings and errors that are kept, and characters of each.
KEPT_MAX = 20
TEXT_SIZE_MAX = 500
OURS = "distlog."
# By what a field begins in the text of an event, and what a value is put in the place of.
FIELD = re.compile(r" ([a-z_]+)=")
CONVERSION = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-z]")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that was a warning, or worse."""

    # Milliseconds since the Unix epoch.
    time_ms: int
    level: str
    logger: str
    text: str


class LogMemory(logging.Handler):
    """Counts lines by package and level, and keeps the last warnings.  Any thread may log."""

    def __init__(self) -> None:
        super().__init__()
        zeros = {(package, level): 0 for package in PACKAGES for level in SEVERE_LEVELS}
        self.counts: Counter[tuple[str, str]] = Counter(zeros)
        self._kept: deque[LogLine] = deque(maxlen=KEPT_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self.counts[package_of(record.name), level if level in LEVELS else "info"] += 1
        if record.levelno >= logging.WARNING:
            try:
                text = record.getMessage()[:TEXT_SIZE_MAX]
            except Exception:
                # A line whose arguments do not fit is a mistake of who logs, and never the end of what it does.
                self.handleError(record)
                return
            self._kept.append(LogLine(int(record.created * 1000), level, record.name, text))

    @property
    def last(self) -> tuple[LogLine, ...]:
        """Return the last warnings and errors, the oldest first."""
        return tuple(self._kept)


def package_of(logger: str) -> str:
    """Return the part of distlog that a logger is of."""
    parts = logger.split(".", 2)
    is_ours = parts[0] == "distlog" and len(parts) > 1
    return parts[1] if is_ours and parts[1] in PACKAGES else OTHER


def problem_with(loggers: Iterable[str]) -> str:
    """Return what is wrong with names that levels are set for; "": each is distlog, or a part of it that there is."""
    unknown = [each for each in loggers if each != "distlog" and package_of(each) == OTHER]
    there_are = ", ".join(f"{OURS}{part}" for part in PACKAGES if part != OTHER)
    return f"no part of distlog is called {unknown[0]}: there are {there_are}" if unknown else ""


class _Threshold(logging.Filter):
    """Lets through what is severe enough for the package that it is of."""

    def __init__(self, level: str, levels: Mapping[str, str]) -> None:
        super().__init__()
        self._levels = {"": level, **levels}

    def filter(self, record: logging.LogRecord) -> bool:
        name = record.name
        while name not in self._levels:
            name = name.rpartition(".")[0]
        return record.levelno >= _number(self._levels[name])


def _number(level: str) -> int:
    return int(logging.getLevelNamesMapping()[level.upper()])


def _counted(level: str) -> int:
    """Return the least severity that a logger passes on: warnings are counted whether they are written or not."""
    return min(_number(level), logging.WARNING)


def configure_logging(level: str, levels: Mapping[str, str], log_format: str) -> LogMemory:
    """Send the process's log to the standard output, one line an event; return what is counted of it.

    levels: of single packages.  log_format: text, json, or auto: text if a person reads it.
    """
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(JsonLines() if is_json(log_format) else TextLines())
    output.addFilter(_Threshold(level, levels))
    memory = LogMemory()
    logging.basicConfig(level=_counted(level), handlers=[output, memory], force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)
    # It tells of each model that it is given, and of each question.
    logging.getLogger("casbin").setLevel(logging.WARNING)
    for name, its_level in levels.items():
        logging.getLogger(name).setLevel(_counted(its_level))
    return memory


def is_json(log_format: str) -> bool:
    """Tell whether each line of the standard output is to be JSON."""
    return log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Leave out the traceback of gRPC for an answer that was for nobody any more: clients can have as many of them as they like."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO distlog.node text key=value`."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        # A field may quote what has lines of its own; a traceback comes below.
        line = " ".join(super().formatMessage(record).splitlines())
        ids = " ".join(f"{name}={value}" for name, value in trace_ids().items())
        return f"{line} {ids}" if ids else line


class JsonLines(logging.Formatter):
    """One JSON object a line: what every line has, the fields of its event, and the ids of a span."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        event, fields = event_of(record)
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            **fields,
            **trace_ids(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def event_of(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return the text of an event of ours, and its fields by their names; what others log is all text."""
    template, values = str(record.msg), record.args
    is_plain = not isinstance(values, tuple) or len(values) != len(CONVERSION.findall(template))
    if is_plain or not record.name.startswith(OURS):
        return record.getMessage(), {}
    left = iter(values or ())
    event, *fields = FIELD.split(template)
    named = zip(fields[::2], fields[1::2], strict=True)
    return str(_filled(event, left)), {name: _filled(text, left) for name, text in named}


def _filled(template: str, left: Iterator[object]) -> str | int | float:
    """Return a template with the next values in their places; a number that stands alone stays one."""
    values = tuple(islice(left, len(CONVERSION.findall(template))))
    text = template % values
    if CONVERSION.fullmatch(template):
        (value,) = values
        if isinstance(value, int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return float(text)
    return text


def trace_ids() -> dict[str, str]:
    """Return the ids of the span that is served now, as OpenTelemetry names them in logs; nothing if there is none."""
    span = SERVED.get()
    return {} if span is None else dict(zip(("trace_id", "span_id"), span.ids, strict=True))
