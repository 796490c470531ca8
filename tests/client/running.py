"""Coroutines of tests run in a loop of their own, with a deadline so that none can hang."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

TEST_TIMEOUT_S = 30.0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end.  Raises TimeoutError if it does not get there."""

    async def bounded() -> None:
        async with asyncio.timeout(TEST_TIMEOUT_S):
            await coroutine

    asyncio.run(bounded())
