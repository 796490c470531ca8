"""What a caller is told of a write that was refused at once."""

from __future__ import annotations

import asyncio

from distlog.errors import DistlogError, NoLeader
from distlog.server.limits import ServerLimits
from distlog.server.served_log import ServedLog

RETRY_DELAY_S = 0.2


async def proven(log: ServedLog, refusal: DistlogError, limits: ServerLimits) -> DistlogError:
    """Return the refusal if this node turns out to lead still, and otherwise where to go, or NoLeader.

    A leader that was cut off knows nothing of its successor's topics and producers.
    """
    try:
        async with asyncio.timeout(limits.read_timeout_s):
            return await log.proven(refusal)
    except TimeoutError:
        problem = f"nobody confirmed within {limits.read_timeout_s:g} s who leads"
        return NoLeader(problem=problem, retry_delay_s=RETRY_DELAY_S)
