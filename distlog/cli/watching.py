"""A view that is shown again and again, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable

from distlog.cli.terminal import is_terminal
from distlog.errors import ConfigurationInvalid, DistlogError

INTERVAL_S, INTERVAL_MIN_S, INTERVAL_MAX_S = 2.0, 0.5, 3600.0
# To the upper left corner; clear the rest of a line; clear what is below.
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def interval(text: str) -> float:
    """Parse how many seconds lie between two looks."""
    with contextlib.suppress(ValueError):
        value = float(text)
        if INTERVAL_MIN_S <= value <= INTERVAL_MAX_S:
            return value
    raise argparse.ArgumentTypeError(
        f"must be a number of seconds from {INTERVAL_MIN_S:g} to {INTERVAL_MAX_S:g}, not {text!r}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--watch",
        nargs="?",
        type=interval,
        const=INTERVAL_S,
        metavar="SECONDS",
        help="show it again and again, on a terminal, until Ctrl-C (every %(const)g seconds)",
    )


def run(namespace: argparse.Namespace, view: Callable[[], Awaitable[str]]) -> int:
    """Show what `view()` returns until Ctrl-C, which is its proper end.  Raises ConfigurationInvalid where there is no terminal."""
    if namespace.json or not is_terminal(sys.stdout):
        problem = "is for a person at a terminal: leave it out, and ask again with --json"
        raise ConfigurationInvalid(key="--watch", problem=problem)
    try:
        asyncio.run(_watch(namespace.watch, view))
    except KeyboardInterrupt:
        print()
    return 0


def fitting(text: str, width: int, height: int) -> list[str]:
    """Return the lines of a text as far as a terminal has room for them, and how many more there are."""
    lines = [line[:width] for line in text.splitlines()]
    if len(lines) <= height:
        return lines
    kept = lines[: max(0, height - 1)]
    return [*kept, f"... {len(lines) - len(kept)} more lines, without --watch"]


async def _watch(interval_s: float, view: Callable[[], Awaitable[str]]) -> None:
    while True:
        try:
            text = await view()
        except DistlogError as error:
            # What is watched may be gone for a while: that is when somebody watches.
            text = str(error)
        size = shutil.get_terminal_size()
        lines = [
            *fitting(text, size.columns, size.lines - 3),
            "",
            f"every {interval_s:g} s; Ctrl-C ends it",
        ]
        # Line over line: a screen that is cleared before flickers.
        print(HOME + f"{CLEAR_LINE}\n".join(lines) + CLEAR_BELOW, end="", flush=True)
        await asyncio.sleep(interval_s)
