"""The configured set: the nodes that --peers names, all of them taken for alive.

Nobody is asked and nothing is sent.  A node that is down shows in its connections; here it is never failed, never left, and there is
none that the settings do not name.  Of the others only the ids and the addresses for peers are known.
"""

from __future__ import annotations

from collections.abc import Mapping

from distlog.discovery.view import Description, MemberStatus, Sighting, Viewing
from distlog.runtime import Clock

# Nobody tells which run of the others this is.
RUN = 0


class StaticDiscovery(Viewing):
    """A view that only this node's own description changes."""

    def __init__(
        self, own: Description, peers: Mapping[str, str], *, clock: Clock, run: int
    ) -> None:
        """peers: HOST:PORT for peers of each node, by node id.  run: of this node."""
        super().__init__(clock)
        self._run = run
        self._own = own
        self._others = {
            node_id: Sighting(
                Description(node_id, directory_id="", peer_address=address, client_address=""),
                MemberStatus.ALIVE,
                RUN,
            )
            for node_id, address in sorted(peers.items())
            if node_id != own.node_id
        }

    async def start(self) -> None:
        """Show the set."""
        self._show()

    def age_s(self) -> float:
        """Return 0: what the settings say stays true."""
        return 0.0

    def announce(self, description: Description) -> None:
        """Show it here; the others have their own settings."""
        self._own = description
        self._show()

    def forget(self, node_id: str) -> None:
        """Do nothing: who is in the set is for the settings to say."""

    async def leave(self) -> None:
        """Do nothing, for the same reason."""

    async def close(self) -> None:
        """Do nothing: there is nothing to stop."""

    def _show(self) -> None:
        own = Sighting(self._own, MemberStatus.ALIVE, self._run)
        self._view.show({self._own.node_id: own, **self._others})
