"""How nodes that were started with the same --join find each other: whoever is at an address is asked who it is, and greeted.

    client addresses, again and again -> who are you? -> one that this node may belong together with: dial it where peers reach it

A node that waits to form a cluster meets others like it, or finds out that there is a cluster, which it then asks to join (joining.py).
One that belongs to a cluster meets the other members, which may all be elsewhere by now.  What a node says here only has it dialled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from distlog.addresses import host_and_port
from distlog.discovery.view import Description
from distlog.errors import DistlogError
from distlog.peer.network import PeerNetwork

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 3.0
DELAY_MIN_S = 0.1
DELAY_MAX_S = 3.0
# The log says of a node that does not answer so often, which is after three seconds.
SILENCES_MAX = 6
# Asks the node at a client address who it is, and which run of it that is.
AskNode = Callable[[tuple[str, int]], Awaitable[tuple[Description, int]]]


class Meeting:
    """One node that looks for those that it belongs together with."""

    def __init__(
        self,
        own_id: str,
        addresses: Callable[[], Sequence[tuple[str, int]]],
        ask_node: AskNode,
        peers: PeerNetwork,
        random: Random,
        *,
        judge: Callable[[Description], str | None],
        is_finished: Callable[[], bool],
        looked_around: Callable[[Sequence[Description]], None],
    ) -> None:
        """addresses(): where clients reach nodes, perhaps this one, too.

        judge(): None: a node is one of those that are looked for; otherwise why it is none, in words, or "" if it may be one yet.
        is_finished(): that nobody is missing.  looked_around(): called when everybody was asked, with those of them that are looked for.
        """
        self._own_id = own_id
        self._addresses = addresses
        self._ask_node = ask_node
        self._peers = peers
        self._random = random
        self._judge = judge
        self._is_finished = is_finished
        self._looked_around = looked_around
        # Where clients reach those of them that belong to a cluster.
        self.members: tuple[tuple[str, int], ...] = ()
        # What was wrong with each address when the log said it last, and how often it did not answer, one time after the other.
        self._problems: dict[tuple[str, int], str] = {}
        self._silences: Counter[tuple[str, int]] = Counter()

    async def run(self) -> None:
        """Ask and dial until nobody is missing, or this task is cancelled."""
        delay_s = DELAY_MIN_S
        while not self._is_finished():
            addresses = self._addresses()
            answers = await asyncio.gather(*(self._meet(each) for each in addresses))
            self.members = tuple(
                address
                for address, each in zip(addresses, answers, strict=True)
                if each is not None and each.cluster_id
            )
            if addresses:
                self._looked_around([each for each in answers if each is not None])
            await asyncio.sleep(delay_s * self._random.uniform(0.75, 1.0))
            delay_s = min(2 * delay_s, DELAY_MAX_S)

    async def _meet(self, address: tuple[str, int]) -> Description | None:
        """Ask who is at an address, and dial it, if it is looked for and not connected; return who it is."""
        found = await self._ask(address)
        if found is None or found.node_id in self._peers.connected_ids:
            return found
        place = host_and_port(found.peer_address)
        if place is not None:
            self._peers.locate(found.node_id, place)
            # Perhaps it knows this node by now.
            self._peers.greet_again(found.node_id)
        return found

    async def _ask(self, address: tuple[str, int]) -> Description | None:
        """Return who is at an address, if it is one of those that are looked for."""
        self._silences[address] += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                found, _ = await self._ask_node(address)
        except (DistlogError, OSError) as error:
            problem: str | None = str(error) or type(error).__name__
        except TimeoutError:
            problem = "no answer in time"
        else:
            self._silences[address] = SILENCES_MAX
            if found.node_id == self._own_id:
                return None
            problem = self._judge(found)
            if problem is None:
                self._problems.pop(address, None)
                return found
        is_new = problem and self._problems.get(address) != problem
        # Nodes that are started together do not answer each other at once.
        if is_new and self._silences[address] >= SILENCES_MAX:
            self._problems[address] = str(problem)
            logger.warning(
                "a node that was named is not met: start it, or mend --join address=%s:%d problem=%s",
                *address,
                problem,
            )
        return None
