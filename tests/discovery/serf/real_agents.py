"""Agents of the real program, where it is installed; without it the tests that need it are skipped, and say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distlog.discovery.serf.client import AgentAddress, SerfClient
from distlog.discovery.serf.errors import AgentUnreachable
from distlog.runtime import TcpNetwork
from tests.processes.process_cluster import random_host

PROGRAM = "serf"
needs_serf = pytest.mark.skipif(
    shutil.which(PROGRAM) is None,
    reason="there is no Serf agent here: install the package serf to have this tested",
)
# Of this process alone: what finds a free port here, and gives it to an agent a moment later, meets nobody else who does.
HOST = random_host()
POLL_INTERVAL_S = 0.02


def free_port(host: str = HOST) -> int:
    """Return a port that nobody uses, for gossip: free on UDP and on TCP."""
    for _ in range(100):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port = int(tcp.getsockname()[1])
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, timeout_s: float = 30.0
) -> None:
    """Return when `condition` holds; fail in words if it does not in time.  Other processes tell nobody, so it is looked at often."""
    never = asyncio.Event()
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert loop.time() < end, f"not within {timeout_s:g} s: {what}"
        try:
            async with asyncio.timeout(POLL_INTERVAL_S):
                await never.wait()
        except TimeoutError:
            continue


class RealAgent:
    """A process that no node has started."""

    def __init__(
        self, directory: Path, name: str, rpc_host: str = HOST, **configuration: object
    ) -> None:
        self.name = name
        self.gossip = f"{HOST}:{free_port()}"
        self.address = AgentAddress(rpc_host, free_port(rpc_host), secrets.token_hex(8))
        self.directory = directory / name
        self.directory.mkdir()
        self._configuration = configuration
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        content = {
            "node_name": self.name,
            "bind": self.gossip,
            "rpc_addr": str(self.address),
            "rpc_auth": self.address.auth_key,
            "retry_interval": "1s",
            **self._configuration,
        }
        path = self.directory / "agent.json"
        path.write_text(json.dumps(content), "utf-8")
        with (self.directory / "output.log").open("ab") as output:
            arguments = [PROGRAM, "agent", f"-config-file={path}"]
            self.process = subprocess.Popen(arguments, stdout=output, stderr=output)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def client(self) -> SerfClient:
        """Return a connection, as soon as the agent answers."""
        found: list[SerfClient] = []

        async def answers() -> bool:
            with contextlib.suppress(AgentUnreachable):
                found.append(await SerfClient.open(TcpNetwork(), self.address))
            return bool(found)

        await until(answers, f"{self.name} answers")
        return found[0]


@contextmanager
def real_agent(directory: Path, name: str, **configuration: object) -> Iterator[RealAgent]:
    """Run an agent."""
    agent = RealAgent(directory, name, **configuration)
    agent.start()
    try:
        yield agent
    finally:
        agent.kill()
