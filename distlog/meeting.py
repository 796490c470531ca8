"""How nodes that were started with the same --join find each other: whoever is at an address is asked who it is, and greeted.

    client addresses, again and again -> who are you? -> one that this node may belong together with: dial it where peers reach it

A node that waits to form a cluster meets others like it, or finds out that there is a cluster, which it then asks to join (joining.py).
One that belongs to a cluster meets the other members, which may all be elsewhere by now.  What a node says here only has it dialled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random

from distlog.discovery.view import Description
from distlog.errors import DistlogError
from distlog.joining import parse_address
from distlog.peer.network import PeerNetwork

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 3.0
DELAY_MIN_S = 0.1
DELAY_MAX_S = 3.0
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
    ) -> None:
        """addresses(): where clients reach nodes, perhaps this one, too.

        judge(): None: a node is one of those that are looked for; otherwise why it is none, in words, or "" if it may be one yet.
        is_finished(): that nobody is missing.
        """
        self._own_id = own_id
        self._addresses = addresses
        self._ask_node = ask_node
        self._peers = peers
        self._random = random
        self._judge = judge
        self._is_finished = is_finished
        # Where clients reach those of them that belong to a cluster.
        self.members: tuple[tuple[str, int], ...] = ()
        # What was wrong with each address when the log said it last.
        self._problems: dict[tuple[str, int], str] = {}

    async def run(self) -> None:
        """Ask and dial until nobody is missing, or this task is cancelled."""
        delay_s = DELAY_MIN_S
        while not self._is_finished():
            addresses = self._addresses()
            answers = await asyncio.gather(*(self._ask(each) for each in addresses))
            found = {
                address: answer
                for address, answer in zip(addresses, answers, strict=True)
                if answer is not None
            }
            self.members = tuple(address for address, each in found.items() if each.cluster_id)
            if self._dial(found.values()):
                delay_s = DELAY_MIN_S
            await asyncio.sleep(delay_s * self._random.uniform(0.75, 1.0))
            delay_s = min(2 * delay_s, DELAY_MAX_S)

    def _dial(self, found: Iterable[Description]) -> bool:
        """Dial those that are not connected; tell whether there were any."""
        connected = set(self._peers.connected_ids)
        missing = False
        for each in found:
            place = parse_address(each.peer_address)
            if place is not None and each.node_id not in connected:
                self._peers.locate(each.node_id, place)
                missing = True
        if missing:
            # Whoever has not heard this node before it asked is greeted by it again.
            self._peers.restart_strangers()
        return missing

    async def _ask(self, address: tuple[str, int]) -> Description | None:
        """Return who is at an address, if it is one of those that are looked for."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                found, _ = await self._ask_node(address)
        except (DistlogError, OSError) as error:
            problem: str | None = str(error) or type(error).__name__
        except TimeoutError:
            problem = "no answer in time"
        else:
            if found.node_id == self._own_id:
                return None
            problem = self._judge(found)
            if problem is None:
                self._problems.pop(address, None)
                return found
        if problem and self._problems.get(address) != problem:
            self._problems[address] = problem
            logger.warning(
                "looking for the other nodes address=%s:%d problem=%s", *address, problem
            )
        return None
