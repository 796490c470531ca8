"""The port through which a node runs another program: the processes, and the files and ports that it hands to them.

Nothing else in distlog starts a process.  `SystemPrograms` is the real one; tests have a twin that runs nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

# A program that does not end when it is told to is killed after this.
GRACE_S = 1.0
# What a program has said is moved aside when it is longer than this, so at most twice as much is kept.
OUTPUT_SIZE_MAX = 1 << 20
# Runs in the new process before the program: it makes the kernel tell the program to end when this process ends in whatever way, and
# looks whether that has happened already.  An exec, and not a function between fork and exec: those can hang in a process with threads.
BEGIN = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGTERM,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


class RunningProgram(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """The number of the process."""

    async def wait(self) -> int:
        """Return its exit status when it has ended; minus the signal's number if one ended it.  Any number of callers may wait."""

    async def stop(self) -> None:
        """Have it end: at first it is asked to, and after GRACE_S it is killed."""

    def kill(self) -> None:
        """Kill it, if it runs.  `wait` still tells when it has ended."""


class Programs(Protocol):
    """What it takes to run other programs.  A path is text; every method but `start` may block for a moment."""

    def find(self, program: str) -> str | None:
        """Return the path of a program: of a name along PATH, of a path itself; None if there is none that can be run."""

    async def start(self, arguments: Sequence[str], output_path: str) -> RunningProgram:
        """Start the program at the path arguments[0].

        What it says goes to the end of the file at `output_path`, and never waits for a reader.  It ends with this process, and a
        terminal's Ctrl-C does not reach it.  Call this on the main thread.  Raises OSError.
        """

    def write_secret(self, path: str, content: bytes) -> None:
        """Make or replace a file that only this user may read, and its directory where there is none.  Raises OSError."""

    def read(self, path: str, size_max: int) -> bytes:
        """Return the first bytes of a file; none if it cannot be read."""

    def limit_output(self, path: str) -> None:
        """Move what a program has said aside, to `path`.1, if it is longer than OUTPUT_SIZE_MAX; it goes on at the start of `path`."""

    def last_words(self, path: str) -> str:
        """Return the last line of what a program has said, "" if there is none."""

    def free_port(self, host: str) -> int:
        """Return a TCP port of an address of this machine that nobody uses.  Raises OSError if it is not of this machine."""


class SystemPrograms:
    """The machine's own processes.  Linux only: no other kernel ends a process with its parent."""

    def find(self, program: str) -> str | None:
        directories = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(":")
        for directory in directories:
            path = os.path.join(directory, program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.abspath(path)
        return None

    async def start(self, arguments: Sequence[str], output_path: str) -> RunningProgram:
        # Appending: what is moved aside while the program runs leaves no hole.
        output = os.open(output_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-ISc",
                BEGIN,
                str(os.getpid()),
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)
        return SystemProgram(process)

    def write_secret(self, path: str, content: bytes) -> None:
        partial = path + ".new"
        Path(partial).unlink(missing_ok=True)
        Path(path).parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as writer:
            writer.write(content)
        os.replace(partial, path)

    def read(self, path: str, size_max: int) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read(size_max)
        except OSError:
            return b""

    def limit_output(self, path: str) -> None:
        try:
            if os.stat(path).st_size <= OUTPUT_SIZE_MAX:
                return
            with open(path, "r+b") as file:
                file.seek(-OUTPUT_SIZE_MAX, os.SEEK_END)
                self.write_secret(path + ".1", file.read(OUTPUT_SIZE_MAX))
                file.truncate(0)
        except FileNotFoundError:
            return

    def last_words(self, path: str) -> str:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.stat(path).st_size - 4096))
                lines = file.read(4096).decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def free_port(self, host: str) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
            return port


class SystemProgram:
    """A process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(GRACE_S):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
