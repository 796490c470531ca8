"""Which backends of discovery there are."""

from __future__ import annotations

from enum import StrEnum


class Backend(StrEnum):
    """What finds the other nodes."""

    GOSSIP = "gossip"
    STATIC = "static"
    DNS = "dns"
    SERF = "serf"

    @property
    def finds_strangers(self) -> bool:
        """Tell whether it shows nodes to one that belongs to no cluster yet."""
        return self in (Backend.DNS, Backend.SERF)
