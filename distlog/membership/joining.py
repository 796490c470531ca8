"""How a node that joins finds the cluster: it asks any member, of those that --join or discovery names, where all are, and greets them.

    a client address -> members and their peer addresses -> hello "I join" to each -> the leader adds it -> a hello that has it

It goes on until a member's hello has this node among the members; whatever fails is tried again, later each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random

from distlog.addresses import host_and_port
from distlog.errors import DistlogError
from distlog.peer.network import PeerNetwork

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 3.0
DELAY_MIN_S = 0.25
DELAY_MAX_S = 5.0
# So many rounds may fail before the log warns of it.
PASSING_MAX = 3
# Between two times that the members are greeted: the leader may have been another one.
GREETING_DELAY_S = 1.0
# While discovery has found no member yet.
FINDING_DELAY_S = 0.5
# Node id -> HOST:PORT of the members that the node at a client address knows of.
AskMembers = Callable[[tuple[str, int]], Awaitable[Mapping[str, str]]]


class Joining:
    """One node that wants to become a member."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[tuple[str, int]]],
        ask_members: AskMembers,
        peers: PeerNetwork,
        random: Random,
        is_finished: Callable[[], bool] = lambda: False,
    ) -> None:
        """addresses(): where clients reach members, as far as that is known now.

        is_finished(): that all members are known, to a node that belongs to the cluster already and only looks for the others.
        """
        self._is_finished = is_finished
        self._addresses = addresses
        self._ask_members = ask_members
        self._peers = peers
        self._random = random
        self._found = ""

    async def run(self) -> None:
        """Ask and greet until this task is cancelled, which is when the node has joined, or all members are known."""
        failure_count = 0
        while not self._is_finished():
            addresses = self._addresses()
            if not addresses:
                # Whoever finds none says so itself.
                await asyncio.sleep(FINDING_DELAY_S * self._random.uniform(0.75, 1.0))
                continue
            for host, port in addresses:
                problem = await self._try((host, port))
                if not problem:
                    failure_count = 0
                    # Whoever has not heard this node before it asked is greeted by it again.
                    self._peers.restart_strangers()
                    await asyncio.sleep(GREETING_DELAY_S)
                    break
                delay_s = min(DELAY_MAX_S, DELAY_MIN_S * 2.0 ** min(failure_count, 10))
                delay_s *= self._random.uniform(0.75, 1.0)
                # Nodes that are started together do not answer each other at once.
                logger.log(
                    logging.WARNING if failure_count >= PASSING_MAX else logging.INFO,
                    "cannot join yet, trying again: start that node, or mend --join address=%s:%d problem=%s delay_s=%.1f",
                    host,
                    port,
                    problem,
                    delay_s,
                )
                await asyncio.sleep(delay_s)
            else:
                failure_count += 1

    async def _try(self, address: tuple[str, int]) -> str:
        """Ask one member who the others are; return what went wrong."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                members = await self._ask_members(address)
        except (DistlogError, OSError) as error:
            return str(error) or type(error).__name__
        except TimeoutError:
            return "no answer in time"
        places = {each: host_and_port(text) for each, text in members.items()}
        reachable = {each: place for each, place in places.items() if place is not None}
        if not reachable:
            return (
                "that node knows no member that others could connect to: start the first one with --bootstrap, or this one with the "
                "--expect of the others, and wait until they are ready"
            )
        found = ",".join(f"{each}={members[each]}" for each in sorted(reachable))
        if found != self._found:
            self._found = found
            logger.info("asking the members to join members=%s", found)
        for node_id, place in reachable.items():
            self._peers.locate(node_id, place)
        return ""
