"""An asyncio event loop on virtual time: when nothing is ready, time jumps to the next timer.

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())

A day of timeouts passes in milliseconds, and a run is the same every time: no threads, no sockets, no clock of the machine.
When nothing is ready and no timer is set, nothing can ever happen again; that is an error and not a hang.

What can still differ between two runs is the order of things that Python orders by address: sets of tasks (a TaskGroup
cancels its children in that order).  Code that is to be simulated keeps dicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn


class SimulationStalled(Exception):
    """Nothing is ready and nothing is due: what is awaited can never happen."""


class TimeLimitExceeded(Exception):
    """The simulation ran past its limit of virtual time: something goes round in circles."""


class _TimeSelector:
    """Stands where the loop expects a selector: waiting for I/O is what makes time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise SimulationStalled("nothing is ready and no timer is set")
        if timeout > 0:
            self._loop.jump_to_next_timer()
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop.  Time starts at 0.0 and is measured in seconds."""

    def __init__(self, time_limit_s: float = 86_400.0) -> None:
        super().__init__()
        self._now = 0.0
        self._time_limit_s = time_limit_s
        self._selector = _TimeSelector(self)
        # Timers as close as this are due together.  Above the precision of a float for some months of virtual time.
        self._clock_resolution = 1e-9
        # The timers, soonest first: kept by BaseEventLoop, which has no other way to ask for the next one.
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass.  Inside a callback this is work that keeps the loop busy: timers come late, as in life."""
        self._now += seconds

    def jump_to_next_timer(self) -> None:
        """Let time pass until something is due: to the very number, so that no sum of floats adds up to a difference."""
        self._now = max(self._now, self._scheduled[0].when())
        if self._now > self._time_limit_s:
            raise TimeLimitExceeded(f"{self._time_limit_s} s of virtual time have passed")

    async def pass_time(self, seconds: float) -> None:
        """Let the others run until that much time has passed."""
        await asyncio.sleep(seconds)

    async def until(
        self, condition: Callable[[], bool], limit_s: float = 30.0, step_s: float = 0.001
    ) -> None:
        """Let time pass until `condition` holds, which is looked at every `step_s`; AssertionError after `limit_s`."""
        deadline = self.time() + limit_s
        while not condition():
            assert self.time() < deadline, f"not within {limit_s} s of virtual time"
            await asyncio.sleep(step_s)

    def close(self) -> None:
        super().close()
        self._selector.close()

    # --- what BaseEventLoop leaves to its subclasses --------------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Nothing sleeps here that another thread could have to wake."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> NoReturn:
        raise AssertionError("no threads in a simulation: pass a worker that runs on the loop")


class VirtualClock:
    """A `runtime.Clock` on a virtual loop, with a wall clock that may be wrong."""

    def __init__(self, loop: VirtualLoop, wall_start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        # What the wall clock showed at loop time 0; assign another to make it jump.
        self.wall_start_ms = wall_start_ms

    def monotonic(self) -> float:
        return self._loop.time()

    def wall_ms(self) -> int:
        return self.wall_start_ms + int(self._loop.time() * 1000)
