"""Which lines of some functions were run: a small `coverage`, for a figure that a test prints and asserts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any


class LineCoverage:
    """Watches the functions, and the methods of the classes, that it is given."""

    def __init__(self, watched: Iterable[Any]) -> None:
        self._codes = {code for each in watched for code in codes_of(each)}
        # (function, line) of everything that can run, and of what has.
        self.lines = {(code.co_qualname, line) for code in self._codes for line in lines_of(code)}
        self.run_lines: set[tuple[str, int]] = set()

    def during(self, action: Callable[[], Any]) -> Any:
        """Run `action` and note what it runs of the watched functions."""
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            return action()
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._ran if frame.f_code in self._codes else None

    def _ran(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.run_lines.add((frame.f_code.co_qualname, frame.f_lineno))
        return self._ran

    @property
    def ratio(self) -> float:
        return len(self.run_lines & self.lines) / len(self.lines)

    def missing(self) -> list[str]:
        """Return the lines that were not run, as `function:line`."""
        return [f"{name}:{line}" for name, line in sorted(self.lines - self.run_lines)]


def codes_of(watched: Any) -> Iterator[CodeType]:
    """Yield the code of a function, or of each method and property of a class."""
    if isinstance(watched, FunctionType):
        yield watched.__code__
    elif isinstance(watched, property):
        yield from codes_of(watched.fget)
    elif isinstance(watched, type):
        for each in vars(watched).values():
            yield from codes_of(each)


def lines_of(code: CodeType) -> set[int]:
    """Return the lines of a function that can run, its first one, which only says its name, excepted."""
    return {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
