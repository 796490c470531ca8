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
import heapq
import zlib
from collections.abc import Callable
from struct import Struct
from typing import Any, NoReturn

from tests.simulation.simulated_process import CURRENT, Process

STEP = Struct("<dI")
# Cancelled timers are swept out when there are more of them than this, and than others.
CANCELLED_COUNT_MAX = 256


class SimulationStalled(Exception):
    """Nothing is ready and nothing is due: what is awaited can never happen."""


class TimeLimitExceeded(Exception):
    """The simulation ran past its limit of virtual time: something goes round in circles."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop.  Time starts at 0.0 and is measured in seconds."""

    def __init__(self, time_limit_s: float = 86_400.0) -> None:
        super().__init__()
        self._now = 0.0
        self._time_limit_s = time_limit_s
        # Grows out of every step and of what `note` is given: equal for two runs that did the same.
        self.trace = 0
        # Timers as close as this are due together.  Above the precision of a float for some months of virtual time.
        self._clock_resolution = 1e-9
        # Kept by BaseEventLoop: the timers, soonest first, and what runs next.
        self._scheduled: list[asyncio.TimerHandle]
        self._processes: list[Process] = []

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass.  Inside a callback this is work that keeps the loop busy: timers come late, as in life."""
        self._now += seconds

    def note(self, data: bytes) -> None:
        """Make something a part of the trace."""
        self.trace = zlib.crc32(data, self.trace)

    def start_process(self) -> Process:
        process = Process()
        self._processes.append(process)
        return process

    def resume(self, process: Process) -> None:
        """End the pause of a process; what waited runs in the order in which it became due."""
        self._ready.extend(process.resume())

    def run_until_complete(self, future: Any) -> Any:
        try:
            return super().run_until_complete(future)
        finally:
            self._end_processes()

    def _end_processes(self) -> None:
        """The simulation is over: let what is left of all processes run, so that it can be cancelled and end."""
        for process in self._processes:
            self._ready.extend(process.bury())
        self._processes.clear()

    def _run_once(self) -> None:
        """Run what is ready; when nothing is, let time pass until something is due.

        In the place of BaseEventLoop's: that one waits for I/O, and knows no processes.
        """
        self._sweep_cancelled()
        scheduled, ready = self._scheduled, self._ready
        if not ready and not self._stopping:
            if not scheduled:
                raise SimulationStalled("nothing is ready and no timer is set")
            self._jump_to_next_timer()
        end = self._now + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        count = len(ready)
        self.trace = zlib.crc32(STEP.pack(self._now, count), self.trace)
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is None or process.admits(handle):
                handle._run()

    def _sweep_cancelled(self) -> None:
        scheduled = self._scheduled
        if CANCELLED_COUNT_MAX < self._timer_cancelled_count > len(scheduled) // 2:
            kept = [timer for timer in scheduled if not timer._cancelled]
            for timer in scheduled:
                timer._scheduled = not timer._cancelled
            heapq.heapify(kept)
            self._scheduled = scheduled = kept
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False

    def _jump_to_next_timer(self) -> None:
        # To the very number, so that no sum of floats adds up to a difference.
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

    # --- what BaseEventLoop leaves to its subclasses --------------------------------------------

    def _write_to_self(self) -> None:
        """Nothing sleeps here that another thread could have to wake."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> NoReturn:
        raise AssertionError("no threads in a simulation: pass a worker that runs on the loop")


class VirtualClock:
    """A `runtime.Clock` on a virtual loop: a wall clock that may be wrong and may jump, and a monotonic one that may be slow or fast."""

    def __init__(self, loop: VirtualLoop, wall_start_ms: int = 1_700_000_000_000) -> None:
        self._loop = loop
        # What the wall clock showed at loop time 0; assign another to make it jump.
        self.wall_start_ms = wall_start_ms
        # Seconds that the monotonic clock counts in a second, since when, and what it showed then.
        self._rate = 1.0
        self._since = self._shown = loop.time()

    def set_rate(self, rate: float) -> None:
        """Let the monotonic clock run at another speed from now on; it never jumps."""
        self._shown, self._since, self._rate = self.monotonic(), self._loop.time(), rate

    def monotonic(self) -> float:
        return self._shown + (self._loop.time() - self._since) * self._rate

    def wall_ms(self) -> int:
        return self.wall_start_ms + int(self._loop.time() * 1000)
