"""A name that stands for all nodes, as that of a headless service does: resolve it, and ask each address who is there.

    NAME -> addresses -> at each, at PORT for clients: who are you? -> a view

The name says where nodes are, and never that one has left: who is not found any more, or does not answer, is failed.  While the name
cannot be resolved, or not one address answers, nothing changes but the age of the view.  A certificate must name NAME: addresses
come and go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from distlog.discovery.gossip_rows import check_readable
from distlog.discovery.view import Description, MemberStatus, Sighting, Viewing, two_nodes
from distlog.errors import DistlogError
from distlog.runtime import Clock

logger = logging.getLogger("distlog.discovery")


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Times in seconds."""

    # Between two looks; each is up to a tenth shorter or longer.
    interval_s: float = 10.0
    # After one that found nothing new to go by.
    retry_s: float = 1.0
    resolve_timeout_s: float = 5.0
    ask_timeout_s: float = 2.0
    # Addresses of the name that are asked; others are left out, and the log says so.
    address_count_max: int = 64
    asked_at_once_max: int = 16
    # A node that has not answered for so long is forgotten.
    forget_after_s: float = 86_400.0


DEFAULT_SETTINGS = DnsSettings()
Address = tuple[str, int]
# The addresses that a name stands for.  Raises OSError.
Resolve = Callable[[str], Awaitable[Sequence[str]]]


class AskNode(Protocol):
    """How a node is asked who it is."""

    async def __call__(self, address: Address, known_as: str = "") -> tuple[Description, int]:
        """Return what the node at an address for clients says of itself, and which run it is.  Raises OSError, DistlogError.

        known_as: the host that its certificate must name, if nodes have one; "": that of the address.
        """


class DnsDiscovery(Viewing):
    """The view that a name gives."""

    def __init__(
        self,
        own: Description,
        name: str,
        port: int,
        *,
        resolve: Resolve,
        ask: AskNode,
        clock: Clock,
        random: Random,
        run: int,
        settings: DnsSettings = DEFAULT_SETTINGS,
    ) -> None:
        """port: at which each node answers clients.  run: of this node."""
        super().__init__(clock)
        self._own = own
        self._run = run
        self._name, self._port = name, port
        self._resolve, self._ask = resolve, ask
        self._random = random
        self._settings = settings
        # The others that were ever found, and when each answered last.
        self._found: dict[str, Sighting] = {}
        self._answered_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        # The last complaint: the same one is not logged again.
        self._problem = ""

    # --- Life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Show this node, and look for the others from now on."""
        self._show()
        self._task = asyncio.create_task(self._run_for_ever())

    async def leave(self) -> None:
        """Close: nobody can be told by a name."""
        await self.close()

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run_for_ever(self) -> None:
        while True:
            is_found = await self.look()
            delay_s = self._settings.interval_s if is_found else self._settings.retry_s
            await asyncio.sleep(delay_s * self._random.uniform(0.9, 1.1))

    # --- The view --------------------------------------------------------------------------------

    def announce(self, description: Description) -> None:
        """Show it here; the others read it when they ask next."""
        self._own = description
        self._show()

    def forget(self, node_id: str) -> None:
        """Have a failed node counted as left here, until it answers again; others have to be told by themselves."""
        known = self._found.get(node_id)
        if known is not None and known.status is MemberStatus.FAILED:
            self._found[node_id] = Sighting(known.description, MemberStatus.LEFT, known.run)
            self._show()

    def _show(self) -> None:
        own = Sighting(self._own, MemberStatus.ALIVE, self._run)
        self._view.show({self._own.node_id: own, **self._found})

    # --- One look --------------------------------------------------------------------------------

    async def look(self) -> bool:
        """Resolve, ask, and show what was found; False if that says nothing."""
        try:
            async with asyncio.timeout(self._settings.resolve_timeout_s):
                hosts = await self._resolve(self._name)
        except TimeoutError:
            return self._complain("the name was not resolved in time")
        except OSError as error:
            return self._complain(f"the name cannot be resolved: {error.strerror or error}")
        hosts = sorted(set(hosts))
        if not hosts:
            return self._complain("the name stands for no address")
        count_max = self._settings.address_count_max
        self._complain(
            f"it stands for {len(hosts)} addresses: the first {count_max} are asked"
            if len(hosts) > count_max
            else ""
        )
        answers = await self._ask_all([(host, self._port) for host in hosts[:count_max]])
        if not answers:
            return self._complain(f"none of its {len(hosts)} addresses answers at {self._port}")
        self._take(answers)
        self._view.confirm()
        return True

    async def _ask_all(self, addresses: Sequence[Address]) -> list[Sighting]:
        slots = asyncio.Semaphore(self._settings.asked_at_once_max)
        answers = await asyncio.gather(*(self._ask_one(each, slots) for each in addresses))
        return [each for each in answers if each is not None]

    async def _ask_one(self, address: Address, slots: asyncio.Semaphore) -> Sighting | None:
        async with slots:
            try:
                async with asyncio.timeout(self._settings.ask_timeout_s):
                    description, run = await self._ask(address, self._name)
                check_readable(description, run)
            except (DistlogError, OSError, TimeoutError):
                return None
        return Sighting(description, MemberStatus.ALIVE, run)

    def _take(self, answers: Sequence[Sighting]) -> None:
        """Let those that answered be alive, and all others failed."""
        now = self._clock.monotonic()
        alive = {self._own.node_id: Sighting(self._own, MemberStatus.ALIVE, self._run)}
        conflicts = {}
        for each in answers:
            node_id = each.description.node_id
            other = alive.setdefault(node_id, each)
            # One node may be reached at two addresses; it is one directory and one run.
            if (other.description.directory_id, other.run) != (
                each.description.directory_id,
                each.run,
            ):
                conflicts[node_id] = two_nodes(node_id, other.description, each.description)
                if node_id != self._own.node_id and each.run > other.run:
                    alive[node_id] = each
        del alive[self._own.node_id]
        for node_id, known in list(self._found.items()):
            if node_id not in alive and known.status is MemberStatus.ALIVE:
                self._found[node_id] = Sighting(known.description, MemberStatus.FAILED, known.run)
            elif now - self._answered_at[node_id] > self._settings.forget_after_s:
                del self._found[node_id], self._answered_at[node_id]
        self._found.update(alive)
        self._answered_at.update(dict.fromkeys(alive, now))
        self._show()
        self._view.show_conflicts(conflicts)

    def _complain(self, problem: str) -> bool:
        """Log what is wrong, once; "": nothing is.  Returns False."""
        if problem and problem != self._problem:
            logger.warning(
                "no node is found by its name: see that the name of --discovery is right and resolves here name=%s problem=%s",
                self._name,
                problem,
            )
        self._problem = problem
        return False
