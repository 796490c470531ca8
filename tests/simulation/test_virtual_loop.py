"""The loop that the simulations run on: time jumps, order is kept, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation.virtual_loop import (
    SimulationStalled,
    TimeLimitExceeded,
    VirtualClock,
    VirtualLoop,
)


def run(main: Coroutine[Any, Any, Any], loop: VirtualLoop | None = None) -> Any:
    with asyncio.Runner(loop_factory=lambda: loop or VirtualLoop()) as runner:
        return runner.run(main)


def test_hours_pass_in_no_time_and_exactly() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(3.6)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(3600.0)


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[str]:
        fired: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, fired.append, "late")
        loop.call_later(1.0, fired.append, "early")
        loop.call_later(1.5, fired.append, "cancelled").cancel()
        loop.call_soon(fired.append, "now")
        await asyncio.sleep(3.0)
        return fired

    assert run(main()) == ["now", "early", "late"]


def test_work_that_takes_time_makes_timers_late() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        fired: list[float] = []
        loop.call_later(1.0, lambda: fired.append(loop.time()))
        loop.call_later(0.5, loop.advance, 2.0)
        await asyncio.sleep(3.0)
        return fired[0]

    assert run(main()) == pytest.approx(2.5)


def test_timeouts_work_as_ever() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(5.0)


def test_waiting_for_what_can_never_happen_is_an_error_and_not_a_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationStalled):
        run(main())


def test_going_round_in_circles_ends_at_the_time_limit() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_later(1.0, again)

        again()
        await asyncio.Event().wait()

    with pytest.raises(TimeLimitExceeded):
        run(main(), VirtualLoop(time_limit_s=100.0))


def test_threads_are_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(AssertionError, match="no threads"):
        run(main())


def test_the_wall_clock_may_jump_and_the_monotonic_one_does_not() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        clock = VirtualClock(loop, wall_start_ms=1000)
        await loop.pass_time(2.0)
        assert clock.wall_ms() == 3000
        clock.wall_start_ms -= 10_000
        assert clock.wall_ms() == -7000
        assert clock.monotonic() == pytest.approx(2.0)
        await loop.until(lambda: clock.monotonic() > 2.5)
        with pytest.raises(AssertionError, match="virtual time"):
            await loop.until(lambda: False, limit_s=1.0)

    run(main())
