"""What a person sees beside the output of a command: one line for an error, one that changes for progress."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import TextIO

PROGRESS_INTERVAL_S = 0.25
# Back to the beginning of the line, and clear it.
CLEAR_LINE = "\r\x1b[K"


def print_error(text: str) -> None:
    """Print one line to standard error."""
    write_line(sys.stderr, "distlog: error: " + " ".join(text.split()))


def print_note(text: str) -> None:
    """Print one line to standard error, if a person reads it."""
    if is_terminal(sys.stderr):
        write_line(sys.stderr, text)


def print_waiting(text: str) -> None:
    """Print one line to standard error that says what is waited for, also where no person reads it."""
    # A line that shows progress may be there.
    beginning = CLEAR_LINE if is_terminal(sys.stderr) else ""
    write_line(sys.stderr, f"{beginning}distlog: waiting {' '.join(text.split())}")


def write_line(stream: TextIO | None, text: str) -> None:
    # Where nobody listens there is nobody to tell that.
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(text + "\n")
            stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def progress(text: Callable[[], str]) -> AsyncIterator[None]:
    """Show `text()` on the terminal, again and again, while the body runs; show nothing where there is no terminal."""
    if not is_terminal(sys.stderr):
        yield
        return

    async def show() -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            sys.stderr.write(CLEAR_LINE + text())
            sys.stderr.flush()

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        sys.stderr.write(CLEAR_LINE)
        sys.stderr.flush()


def abandon_stdout() -> None:
    """Send what is still buffered for a standard output that nobody reads to nowhere, also at the end of the process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
