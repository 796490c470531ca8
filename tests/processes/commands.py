"""Commands of the command line, run as a user runs them: processes with arguments, input, output and an exit status."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.processes.process_cluster import DISTLOG, TIMEOUT_S, environment


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended."""

    status: int
    output: bytes
    # Without what it waited for, which a busy machine has it say.
    errors: str

    @property
    def complaint(self) -> str:
        """The one line on the error stream.  Fails if there is another number of lines, or a traceback."""
        lines = self.errors.splitlines()
        assert len(lines) == 1, self.errors
        return lines[0]


def without_waiting(errors: str) -> str:
    """Return what a command wrote to its error stream without the line that says what it waits for."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("distlog: waiting "))


class Command:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self, size: int, timeout_s: float = TIMEOUT_S) -> bytes:
        """Return the next `size` bytes of its output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.stdout.readexactly(size)

    async def write(self, given: bytes) -> None:
        """Give it some input, and leave the input open."""
        assert self._process.stdin is not None
        self._process.stdin.write(given)
        await self._process.stdin.drain()

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    async def finish(
        self, given: bytes | None = None, timeout_s: float = 2 * TIMEOUT_S
    ) -> Finished:
        """Give it its input, if any, wait for its end, and return what it said."""
        async with asyncio.timeout(timeout_s):
            output, errors = await self._process.communicate(given)
        assert self._process.returncode is not None
        text = errors.decode("utf-8", "replace")
        assert "Traceback" not in text, text
        return Finished(self._process.returncode, output, without_waiting(text))


@asynccontextmanager
async def running(
    *arguments: str, variables: dict[str, str] | None = None
) -> AsyncIterator[Command]:
    """Run `distlog ARGUMENTS`; it is killed at the end of the block if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *DISTLOG,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), **(variables or {})},
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(
    *arguments: str,
    given: bytes | None = None,
    variables: dict[str, str] | None = None,
    timeout_s: float = 2 * TIMEOUT_S,
) -> Finished:
    """Run `distlog ARGUMENTS` to its end."""
    async with running(*arguments, variables=variables) as command:
        return await command.finish(given, timeout_s)
