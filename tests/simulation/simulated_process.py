"""A process on the shared event loop: whatever it started is known by its context, and can be paused or killed as a whole.

    process = Process()
    task = process.create_task(node.start())
    process.pause()        # its callbacks wait, also those of timers; the connections stay up and fill
    process.resume()
    process.die()          # none of its callbacks ever runs again

Tasks, timers and callbacks inherit the context in which they were made, so everything that a node does belongs to its process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)


class Process:
    """What belongs together on the loop, and may stop together."""

    def __init__(self) -> None:
        self.context = Context()
        self.context.run(CURRENT.set, self)
        self.is_paused = False
        self.is_dead = False
        # Done when it is dead.
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Callbacks that wait for the end of a pause, or for ever.
        self._held: list[asyncio.Handle] = []
        # Tasks that can never go on, kept so that the garbage collector does not end them at a moment of its own.
        self._stranded: set[asyncio.Task[Any]] = set()
        # After so many more callbacks `_interruption` is called instead of the next one; None: never.
        self._callbacks_left: int | None = None
        self._interruption: Callable[[], None] = lambda: None

    def create_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.get_running_loop().create_task(work, context=self.context)

    async def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the process do `work`, and return when it is done or the process is dead."""
        task = self.create_task(work)
        await asyncio.wait([task, self.died], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()

    def interrupt_after(self, callback_count: int, interruption: Callable[[], None]) -> None:
        """Call `interruption` in the place of a callback of this process, after so many others."""
        self._callbacks_left = callback_count
        self._interruption = interruption

    def let_be(self) -> None:
        """Take back `interrupt_after`."""
        self._callbacks_left = None

    def admits(self, handle: asyncio.Handle) -> bool:
        """Tell the loop whether a callback of this process may run now; if not, it is kept here."""
        if self._callbacks_left is not None and not self.is_paused:
            self._callbacks_left -= 1
            if self._callbacks_left < 0:
                self._callbacks_left = None
                self._interruption()
        if self.is_paused or self.is_dead:
            self._held.append(handle)
            return False
        return True

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> list[asyncio.Handle]:
        """Go on; return the callbacks that waited, for the loop."""
        self.is_paused = False
        held: list[asyncio.Handle] = []
        if not self.is_dead:
            held, self._held = self._held, held
        return held

    def die(self) -> None:
        self.is_dead = True
        self.is_paused = False
        self._stranded = asyncio.all_tasks()
        if not self.died.done():
            self.died.set_result(None)

    def bury(self) -> list[asyncio.Handle]:
        """The simulation is over: let what is left of the process run, so that its tasks can be cancelled and end."""
        self.is_dead = self.is_paused = False
        self._callbacks_left = None
        held, self._held = self._held, []
        return held
