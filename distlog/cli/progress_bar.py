"""A bar for work whose size is known before: one line on a terminal, nothing where there is none."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from distlog.cli.terminal import CLEAR_LINE, PROGRESS_INTERVAL_S, is_terminal
from distlog.cli.units import size_text

BAR_WIDTH = 24


class ProgressBar:
    """Shows how many bytes of stores were handled, of all that a directory has."""

    def __init__(self, done: str) -> None:
        """done: what happened to the bytes."""
        self._done = done
        self._shown = is_terminal(sys.stderr)
        self._next = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def of(self, path: str, suffix: str) -> Callable[[int], None]:
        """Return what is to be called with the bytes handled so far, of the files below `path` with this suffix."""
        if not self._shown:
            return lambda size: None
        name = os.path.basename(path.rstrip("/")) or path
        total = sum(
            os.path.getsize(os.path.join(directory, file))
            for directory, _, files in os.walk(path)
            for file in files
            if file.endswith(suffix)
        )

        def show(size: int) -> None:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + PROGRESS_INTERVAL_S
                sys.stderr.write(f"{CLEAR_LINE}{line(name, size, total)} {self._done}")
                sys.stderr.flush()

        return show


def line(name: str, size: int, total: int) -> str:
    """Return the bar, the share and the sizes, in words."""
    share = min(1.0, size / total) if total else 1.0
    full = int(share * BAR_WIDTH)
    bar = "#" * full + "." * (BAR_WIDTH - full)
    return f"{name}: [{bar}] {share:4.0%} {size_text(min(size, total))} of {size_text(total)}"
