"""What discovery knows of the nodes, and the one protocol that every backend speaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from distlog.runtime import Clock

logger = logging.getLogger("distlog.discovery")

# An error that stays is said again so often.
REPEAT_S = 60.0


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
    # Random, made once with the data directory; "" where a backend cannot know it.
    directory_id: str
    # HOST:PORT where peers, and where clients, reach it; "" where it is not known.
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


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a backend has found out about a node: a Member without the observer's time."""

    description: Description
    status: MemberStatus
    run: int


@dataclass(frozen=True, slots=True)
class Sight:
    """The nodes as one node sees them at one moment."""

    # By node id, this one included.
    members: Mapping[str, Member]
    # Seconds since the view was certainly true.
    age_s: float
    # Clock.monotonic() of the observer, which `Member.since` is compared with.
    now: float


NOTHING_SEEN = Sight({}, float("inf"), 0.0)


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

    def conflicts(self) -> Mapping[str, str]:
        """Return the node ids under which more than one node is up, and what an operator should know of each."""

    def announce(self, description: Description) -> None:
        """Tell the others what this node says of itself now."""

    def forget(self, node_id: str) -> None:
        """A node that is not alive will not come back: have it counted as left."""

    async def leave(self) -> None:
        """Say good-bye for good: the others see this node as left.  Then close."""

    async def close(self) -> None:
        """Stop.  The others see this node as failed after a while: it may be a restart."""


class View:
    """The view of one backend: keeps what it found, dates it, and tells when it is another one."""

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        """changed(): called after each change, when all of it is in place."""
        self._clock = clock
        self._changed = changed
        self._members: dict[str, Member] = {}
        self._conflicts: dict[str, str] = {}
        # When each was last said.
        self._said_at: dict[str, float] = {}
        # When the source of it last answered.
        self._confirmed_at = clock.monotonic()

    @property
    def members(self) -> Mapping[str, Member]:
        """Return what is shown now; what is shown later is another one."""
        return self._members

    @property
    def conflicts(self) -> Mapping[str, str]:
        return self._conflicts

    def age_s(self) -> float:
        return self._clock.monotonic() - self._confirmed_at

    def confirm(self) -> None:
        """The source has answered: what is shown is true now."""
        self._confirmed_at = self._clock.monotonic()

    def show(self, found: Mapping[str, Sighting]) -> None:
        """Show these nodes from now on, and no others."""
        now, before = self._clock.monotonic(), self._members
        self._members = {
            node_id: _member(each, before.get(node_id), now) for node_id, each in found.items()
        }
        if self._members != before:
            self._changed()

    def show_conflicts(self, found: Mapping[str, str]) -> None:
        """Show these node ids as taken twice, and no others; each is an error that the log has too, once a minute."""
        now = self._clock.monotonic()
        for node_id, problem in found.items():
            if now - self._said_at.get(node_id, -REPEAT_S) >= REPEAT_S:
                self._said_at[node_id] = now
                logger.error(
                    "two nodes have one id: stop the one that was not meant node_id=%s problem=%s",
                    node_id,
                    problem,
                )
        is_new = self._conflicts.keys() != found.keys()
        self._conflicts = dict(found)
        self._said_at = {each: at for each, at in self._said_at.items() if each in found}
        if is_new:
            self._changed()


class Viewing:
    """What all backends have of the protocol: a view, and who reads it."""

    def __init__(self, clock: Clock) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._clock = clock
        self._view = View(clock, lambda: self.changed())

    def members(self) -> Mapping[str, Member]:
        return self._view.members

    def age_s(self) -> float:
        return self._view.age_s()

    def conflicts(self) -> Mapping[str, str]:
        return self._view.conflicts


def _member(found: Sighting, before: Member | None, now: float) -> Member:
    is_same = before is not None and before.status is found.status
    since = before.since if before is not None and is_same else now
    return Member(found.description, found.status, found.run, since)


def two_nodes(node_id: str, one: Description, other: Description) -> str:
    """Say what is wrong when two nodes that are up have one id."""
    return (
        f"two nodes call themselves {node_id}: one at {one.peer_address} with data directory {one.directory_id}, one at "
        f"{other.peer_address} with data directory {other.directory_id}. Stop the one that was started last, and give it a --node-id of "
        "its own and an empty data directory"
    )
