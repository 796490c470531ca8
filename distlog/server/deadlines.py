"""How long a call waits for other nodes, and what its caller is told when that was in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from distlog.errors import NoLeader, OutcomeUnknown
from distlog.server.refusals import RETRY_DELAY_S

Acknowledged = TypeVar("Acknowledged")


@asynccontextmanager
async def read_deadline(timeout_s: float) -> AsyncIterator[None]:
    """Bound the time that the body waits for proof.  Raises NoLeader."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        problem = f"what the read needs was not confirmed within {timeout_s:g} s"
        raise NoLeader(problem=problem, retry_delay_s=RETRY_DELAY_S) from None


@asynccontextmanager
async def write_deadline(timeout_s: float) -> AsyncIterator[None]:
    """Bound the time that the body waits for a majority.  Raises OutcomeUnknown."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise not_confirmed(timeout_s) from None


async def acknowledged(future: asyncio.Future[Acknowledged], timeout_s: float) -> Acknowledged:
    """Wait for one append, as in `write_deadline` but with a bare timer: this is on the way of every single record.

    Raises OutcomeUnknown, and what the future does.  A caller that gives up cancels the future, which is nobody else's.
    """
    timer = future.get_loop().call_later(timeout_s, _give_up, future, timeout_s)
    try:
        return await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[Any], timeout_s: float) -> None:
    if not future.done():
        future.set_exception(not_confirmed(timeout_s))


def not_confirmed(timeout_s: float) -> OutcomeUnknown:
    """Return the error of a write that no majority confirmed in time."""
    return OutcomeUnknown(cause=f"no majority confirmed it within {timeout_s:g} s")
