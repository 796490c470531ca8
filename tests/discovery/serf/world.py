"""Nodes with agents of their own, on real time: the world of this backend for the suite that all backends pass."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from distlog.discovery.serf.agent import AgentSettings, ManagedAgent
from distlog.discovery.serf.discovery import DEFAULT_SETTINGS, SerfDiscovery, SerfSettings
from distlog.discovery.view import Description, Discovery
from distlog.programs import SystemPrograms
from distlog.runtime import SystemClock, TcpNetwork
from tests.discovery.serf.real_agents import HOST, PROGRAM, free_port, until
from tests.discovery.worlds import Powers, World, description_of


class CutNetwork(TcpNetwork):
    """TCP that can be taken away."""

    def __init__(self) -> None:
        self.is_cut = False
        self._transports: list[asyncio.BaseTransport] = []

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        if self.is_cut:
            raise ConnectionRefusedError("there is no network")
        transport, _ = await asyncio.get_running_loop().create_connection(
            protocol_factory, host, port
        )
        self._transports.append(transport)

    def cut(self) -> None:
        self.is_cut = True
        for transport in self._transports:
            transport.close()
        self._transports.clear()


class SerfNode:
    """A node's view and its agent."""

    def __init__(
        self,
        directory: Path,
        own: Description,
        port: int,
        join: list[str],
        *,
        encrypt_key: str = "",
        run: int | None = None,
        settings: SerfSettings = DEFAULT_SETTINGS,
    ) -> None:
        clock = SystemClock()
        self.run = run or clock.wall_ms()
        self.network = CutNetwork()
        self.programs = SystemPrograms()
        self.agent = ManagedAgent(
            AgentSettings(
                program=PROGRAM,
                name=f"{own.node_id}.{self.run}",
                host=HOST,
                port=port,
                join=join,
                directory=str(directory),
                encrypt_key=encrypt_key,
            ),
            programs=self.programs,
            network=self.network,
            clock=clock,
            random=Random(),
            random_bytes=secrets.token_bytes,
        )
        self.discovery = SerfDiscovery(
            own,
            self.agent,
            join=join,
            network=self.network,
            clock=clock,
            run=self.run,
            settings=settings,
        )

    async def start(self) -> None:
        await self.discovery.start()

    @property
    def pid(self) -> int:
        """The process id of the agent."""
        running = self.agent.running
        assert running is not None
        return running.pid


class SerfWorld:
    """Nodes that know where all the agents are."""

    # The view stays as it is while its agent is away.
    powers = Powers(fails_alone=False)

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # By place: the node id, but for a twin.
        self.up: dict[str, SerfNode] = {}
        self._ports: dict[str, int] = {}

    async def start(self, node_id: str) -> Discovery:
        return await self._start(node_id, node_id)

    async def start_twin(self, node_id: str) -> Discovery:
        return await self._start(node_id, f"{node_id}-twin")

    async def _start(self, node_id: str, place: str) -> Discovery:
        port = self._ports.setdefault(place, free_port())
        join = [f"{HOST}:{each}" for each in self._ports.values()]
        own = description_of(node_id, place)
        self.up[place] = made = SerfNode(self._directory / place, own, port, join)
        await made.start()
        return made.discovery

    async def kill(self, node_id: str) -> None:
        node = self.up.pop(node_id)
        if node.agent.running is not None:
            node.agent.running.kill()
        await node.discovery.close()

    def cut_off(self, node_id: str) -> None:
        self.up[node_id].network.cut()

    def reconnect(self, node_id: str) -> None:
        self.up[node_id].network.is_cut = False

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(condition, what)

    async def elapse(self, seconds: float) -> None:
        raise AssertionError("real time does not pass by itself")

    async def close(self) -> None:
        for node in self.up.values():
            await node.discovery.close()


def on_real_time(directory: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """Run a story in a new world."""

    async def run() -> None:
        world = SerfWorld(directory)
        try:
            async with asyncio.timeout(100):
                await story(world)
        finally:
            await world.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"a closed backend has left tasks behind: {left}"

    asyncio.run(run())
