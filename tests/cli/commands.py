"""Running commands: in this process where that is enough, as a process of its own where pipes and exit codes matter."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass
from types import ModuleType

from distlog.cli.arguments import CommandParser
from tests.client.fake_cluster import FakeCluster

PROCESS_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What a process left behind."""

    code: int
    # Empty if it had no pipe for it.
    output: bytes
    error: str


def parsed(module: ModuleType, cluster: FakeCluster | None, *arguments: str) -> argparse.Namespace:
    """Return the arguments as `main` hands them to the command, with the cluster's addresses."""
    parser = CommandParser(prog=f"distlog {module.__name__.rpartition('.')[2]}")
    module.add_arguments(parser)
    server = ["--server", ",".join(cluster.addresses)] if cluster else []
    return parser.parse([*arguments, *server])


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without what would configure distlog."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DISTLOG_")}
    return {**kept, **variables}


async def start(
    *arguments: str,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.PIPE,
    flags: tuple[str, ...] = (),
) -> asyncio.subprocess.Process:
    """Start `distlog` as a process with pipes.  flags: for Python itself."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *flags,
        "-m",
        "distlog",
        *arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )


async def finish(process: asyncio.subprocess.Process, stdin: bytes | None = None) -> Finished:
    """Feed a process and wait for its end; kill it if it does not come."""
    try:
        async with asyncio.timeout(PROCESS_TIMEOUT_S):
            output, error = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Finished(process.returncode, output or b"", error.decode())


async def distlog(
    *arguments: str, stdin: bytes | None = None, flags: tuple[str, ...] = ()
) -> Finished:
    """Run `distlog` as a process to its end."""
    pipe = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
    return await finish(await start(*arguments, stdin=pipe, flags=flags), stdin)
