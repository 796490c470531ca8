"""What discovery knows of the nodes, and the one protocol that every backend speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class MemberStatus(StrEnum):
    """Whether a node takes part, as far as discovery can tell."""

    ALIVE = "alive"
    # Not heard for a while; it may come back.
    FAILED = "failed"
    # It said good-bye for good, or an operator said that for it.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Description:
    """What a node says of itself."""

    node_id: str
    # Random, made once with the data directory.
    directory_id: str
    # HOST:PORT where peers, and where clients, reach it.
    peer_address: str
    client_address: str
    # "" until it belongs to a cluster.
    cluster_id: str = ""
    # Of how many nodes it would form a cluster; 0: it would not.
    expect: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A node as one node sees it."""

    description: Description
    status: MemberStatus
    # Which run of the node this is: a later run has a greater number.
    run: int
    # Clock.monotonic() of the observer when the status last changed.
    since: float


class Discovery(Protocol):
    """One node's view of the nodes.  Everything happens on the event loop of `start`."""

    # Called when members() has changed in anything but time.  May be called too often, never too seldom.
    changed: Callable[[], None]

    async def start(self) -> None:
        """Begin.  Raises DistlogError if it cannot."""

    def members(self) -> Mapping[str, Member]:
        """Return the nodes by node id, this one included.  Never blocks."""

    def age_s(self) -> float:
        """Return the seconds since the view was last known to be true: it grows while the source of it is away."""

    def announce(self, description: Description) -> None:
        """Tell the others what this node says of itself now."""

    def forget(self, node_id: str) -> None:
        """A node that is not alive will not come back: have it counted as left."""

    async def leave(self) -> None:
        """Say good-bye for good: the others see this node as left.  Then close."""

    async def close(self) -> None:
        """Stop.  The others see this node as failed after a while: it may be a restart."""
