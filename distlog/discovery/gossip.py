"""Gossip: the nodes of a cluster tell each other about all of them, over the connections that they have anyway.

    each second   all rows to up to three peers, which answer with what they know better: both with what travels between the two anyway
    at once       all rows to a peer that was just connected, and to all peers when this node has something new to say of itself

There is no other program, port or key.  A node sees the nodes that it is connected with, and those that these know: so it sees nobody
before it belongs to a cluster.  Nothing waits for a row and none has to arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random

from distlog.discovery.gossip_rows import ROW_COUNT_MAX
from distlog.discovery.gossip_table import DEFAULT_SETTINGS, GossipSettings, GossipTable
from distlog.discovery.view import Description, Viewing
from distlog.runtime import Clock

logger = logging.getLogger("distlog.discovery")

# Sends a message to a connected peer; with False it may wait a second or two, for something to travel with.
Send = Callable[[str, bytes, bool], object]


class GossipDiscovery(Viewing):
    """One node's part in it."""

    def __init__(
        self,
        own: Description,
        *,
        connected: Callable[[], Sequence[str]],
        send: Send,
        clock: Clock,
        random: Random,
        run: int,
        settings: GossipSettings = DEFAULT_SETTINGS,
    ) -> None:
        """connected(): the peers that can be sent to now.  run: greater than that of an earlier process, as far as a clock can tell.

        Raises InvalidRequest if the description is longer than what the others read.
        """
        super().__init__(clock)
        self._connected, self._send = connected, send
        self._random = random
        self._settings = settings
        self._table = GossipTable(own, run=run, now=clock.monotonic(), settings=settings)
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._left_out_count = 0

    # --- Life --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin."""
        self._show()
        self._tell_all()
        self._schedule()

    async def leave(self) -> None:
        """Tell those that are connected, which pass it on, and close."""
        self._table.leave()
        self._show()
        self._tell_all()
        await self.close()

    async def close(self) -> None:
        """Say nothing more; the others find that out by themselves."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        delay_s = self._settings.interval_s * self._random.uniform(0.9, 1.1)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._beat)

    def _beat(self) -> None:
        self._schedule()
        self._table.beat(self._clock.monotonic())
        self._show()
        peers = sorted(self._connected())
        count = min(len(peers), self._settings.peer_count_max)
        message = self._message(wants_answer=True)
        for node_id in self._random.sample(peers, count):
            self._send(node_id, message, False)

    # --- The view ----------------------------------------------------------------------------------

    def age_s(self) -> float:
        return self._table.age_s(self._clock.monotonic())

    def announce(self, description: Description) -> None:
        """Tell everybody that is connected at once.  Raises InvalidRequest if they could not read it."""
        self._table.announce(description)
        self._show()
        self._tell_all()

    def forget(self, node_id: str) -> None:
        if self._table.forget(node_id, self._clock.monotonic()):
            self._show()
            self._tell_all()

    def _show(self) -> None:
        self._view.show(self._table.sightings(self._clock.monotonic()))
        self._view.show_conflicts(self._table.conflicts)

    # --- Peers -------------------------------------------------------------------------------------

    def peer_connected(self, node_id: str) -> None:
        """Tell a peer that can be reached from now on; it does the same."""
        if not self._is_closed:
            self._send(node_id, self._message(), True)

    def frame_received(self, node_id: str, payload: bytes) -> None:
        """Take a message.  Raises MalformedRows: hang up on that peer."""
        if self._is_closed:
            return
        answer = self._table.receive(payload, self._clock.monotonic())
        self._show()
        if answer is not None:
            self._send(node_id, answer, False)
        if self._table.left_out_count > self._left_out_count == 0:
            logger.error(
                "nodes are left out of the view: clean up those that are gone count_max=%d",
                ROW_COUNT_MAX,
            )
        self._left_out_count = self._table.left_out_count

    def _tell_all(self) -> None:
        """Tell every connected peer at once."""
        message = self._message()
        for node_id in self._connected():
            self._send(node_id, message, True)

    def _message(self, *, wants_answer: bool = False) -> bytes:
        return self._table.message(self._clock.monotonic(), wants_answer=wants_answer)
