"""What a leader does next about the members: a pure function of what it knows, for who carries it out and for who asks why.

    configuration, who answers, who asks to join, view of discovery -> intentions, each with its reason and what it waits for
                                                                    -> the first that waits for nothing: one action

A view proposes and the leader's own knowledge decides: a node becomes a member that asked for it itself, a voter that keeps up by its own
acknowledgements, and goes only if it is silent here, too.  Whoever only seems dead stays: a cluster that shrinks with every restart loses
its majority to the next one.  It is removed when another voter stands in its place, and never so that the rest is no majority, or fewer
voters are left than the cluster is meant to have (docs/decisions/0023-what-discovery-may-change.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

from distlog.consensus.configuration import (
    MEMBER_COUNT_MAX,
    NOWHERE,
    Addresses,
    Configuration,
)
from distlog.discovery.view import NOTHING_SEEN, Member, MemberStatus, Sight


class Change(StrEnum):
    """What can be done to the configuration, or before it."""

    SET_TARGET = "set target"
    HAND_OVER = "hand over"
    REMOVE = "remove"
    LOCATE = "locate"
    PROMOTE = "promote"
    ADD_LEARNER = "add learner"
    # Nothing: it is only said what is seen.
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Policy:
    """An operator's numbers, in seconds."""

    # So long a voter must have failed before another one takes its place.
    dead_after_s: float = 600.0
    # An older view is no reason to remove anybody.
    view_age_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the leader knows of another member by its own connections."""

    # It has answered within the time after which the leader takes it for silent.
    answers: bool
    # Entries that it lacks.
    lag: int
    # A learner that has kept up for long enough to vote (rules/caught_up.py).
    has_caught_up: bool = False
    # Where it is reached, as it said itself under its own identity; None: it was not heard.
    heard_at: Addresses | None = None


@dataclass(frozen=True, slots=True)
class Asking:
    """A node that has asked to join, as it said itself."""

    directory_id: str
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Situation:
    """What the leader knows in this step."""

    node_id: str
    configuration: Configuration
    # Why no change may be proposed now; "": one may.
    held_up: str
    # Voters that count as up, this node included.
    up: Set[str]
    # Of the other members.
    standings: Mapping[str, Standing]
    asking: Mapping[str, Asking] = field(default_factory=dict)
    # What discovery sees.
    view: Sight = NOTHING_SEEN
    # How many voters there were when each of the voters that have failed was first seen to.
    voters_at_failure: Mapping[str, int] = field(default_factory=dict)
    # Of how many voters this node was told that the cluster would be formed; 0: it was not.
    expect: int = 0


@dataclass(frozen=True, slots=True)
class Intention:
    """Something that is to be done, or deliberately is not."""

    change: Change
    node_id: str
    why: str
    # What must happen first; "": nothing.
    waits_for: str = ""
    # With SET_TARGET the number, with LOCATE the place, with ADD_LEARNER who it is.
    target: int = 0
    addresses: Addresses = NOWHERE
    directory_id: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is seen, in the order in which it would be done, and what is done now."""

    intentions: tuple[Intention, ...]
    action: Intention | None


def plan(situation: Situation, policy: Policy) -> Plan:
    """Return what is to be done; at most one thing now, since members change one at a time."""
    found = tuple(_intentions(situation, policy))
    ready = [each for each in found if not each.waits_for and each.change is not Change.KEEP]
    return Plan(found, ready[0] if ready and not situation.held_up else None)


def leaves_majority(configuration: Configuration, up: Set[str], node_id: str) -> bool:
    """Tell whether the voters that are up would be a majority without this member."""
    left = configuration.voters.keys() - {node_id}
    return 2 * len(left & up) > len(left)


def seen_as(
    view: Mapping[str, Member], configuration: Configuration, node_id: str
) -> Member | None:
    """Return what discovery says of a member; None: nothing.  A namesake's good-bye is not its own."""
    seen = view.get(node_id)
    known = configuration.directory_of(node_id)
    return seen if seen is not None and seen.description.directory_id == known else None


def _intentions(situation: Situation, policy: Policy) -> Iterator[Intention]:
    yield from _first_target(situation)
    yield from _leaving(situation, policy)
    yield from _moved(situation)
    yield from _promotions(situation, policy)
    yield from _failed(situation, policy)
    yield from _newcomers(situation)


def _first_target(situation: Situation) -> Iterator[Intention]:
    """What the cluster was formed for is written down before anything else changes."""
    configuration, expect = situation.configuration, situation.expect
    is_as_formed = configuration.raft_index == 1 and len(configuration.voters) == expect
    if is_as_formed and expect > 1 and configuration.target != expect:
        why = f"the cluster was formed for {expect} voters"
        yield Intention(Change.SET_TARGET, situation.node_id, why, target=expect)


# --- Who goes -----------------------------------------------------------------------------------


def _seen(situation: Situation, node_id: str, status: MemberStatus) -> Member | None:
    """Return what discovery says of a member, if that is its status."""
    seen = seen_as(situation.view.members, situation.configuration, node_id)
    return seen if seen is not None and seen.status is status else None


def _leaving(situation: Situation, policy: Policy) -> Iterator[Intention]:
    configuration = situation.configuration
    for node_id in configuration.members:
        if _seen(situation, node_id, MemberStatus.LEFT) is None:
            continue
        if node_id == situation.node_id:
            heirs = situation.up - {node_id}
            waits_for = "" if heirs else "another voter that is up and can lead"
            why = "it leaves, and whoever leads then removes it"
            yield Intention(Change.HAND_OVER, node_id, why, waits_for)
            continue
        waits_for = _old_view(situation, policy)
        if not waits_for and situation.standings[node_id].answers:
            waits_for = "it to stop: it still answers"
        if not waits_for and node_id in configuration.voters:
            waits_for = _no_majority_without(situation, node_id)
        yield Intention(Change.REMOVE, node_id, "it said good-bye for good", waits_for)


def _failed(situation: Situation, policy: Policy) -> Iterator[Intention]:
    configuration = situation.configuration
    for node_id in configuration.members:
        seen = _seen(situation, node_id, MemberStatus.FAILED)
        if seen is None or node_id == situation.node_id:
            continue
        failed_s = situation.view.now - seen.since
        why = f"it is not heard of for {_duration(failed_s)}"
        if node_id in configuration.learners:
            yield Intention(Change.KEEP, node_id, why, "it to come back: it has no vote")
            continue
        waits_for = _not_dead_yet(situation, policy, node_id, failed_s)
        if not waits_for and len(configuration.voters) - 1 < _wanted(situation, node_id):
            waits_for = f"a node in its place: fewer than {_wanted(situation, node_id)} voters would be left"
        if not waits_for:
            waits_for = _no_majority_without(situation, node_id)
            why += ", and another voter is in its place"
        yield Intention(Change.REMOVE, node_id, why, waits_for)


def _not_dead_yet(situation: Situation, policy: Policy, node_id: str, failed_s: float) -> str:
    """Return why a voter that has failed may not be given up; "": it may."""
    if waits_for := _old_view(situation, policy):
        return waits_for
    if situation.standings[node_id].answers:
        return "discovery to see what this node sees: it answers"
    if failed_s < policy.dead_after_s:
        return f"it to come back, or {_duration(policy.dead_after_s - failed_s)} more"
    return ""


def _wanted(situation: Situation, node_id: str) -> int:
    """Return how many voters must be left when a failed one goes."""
    configuration = situation.configuration
    at_failure = situation.voters_at_failure.get(node_id, len(configuration.voters))
    return configuration.target or at_failure


def _old_view(situation: Situation, policy: Policy) -> str:
    if situation.view.age_s <= policy.view_age_max_s:
        return ""
    return f"discovery, of which nothing is known for {_duration(situation.view.age_s)}"


def _no_majority_without(situation: Situation, node_id: str) -> str:
    if leaves_majority(situation.configuration, situation.up, node_id):
        return ""
    left = situation.configuration.voters.keys() - {node_id}
    return f"more voters to be up: without it {len(left & situation.up)} of {len(left)} are"


# --- Who comes, and where -----------------------------------------------------------------------


def _moved(situation: Situation) -> Iterator[Intention]:
    configuration = situation.configuration
    # A fixed set has none: everybody was given them at start.
    for node_id in configuration.members if configuration.addresses else ():
        known = configuration.addresses_of(node_id)
        standing = situation.standings.get(node_id)
        heard_at = standing.heard_at if standing is not None else None
        if heard_at is not None and all(heard_at) and heard_at != known:
            why = f"it is reached at {heard_at.peer}, by clients at {heard_at.client}"
            yield Intention(Change.LOCATE, node_id, why, addresses=heard_at)
            continue
        seen = _seen(situation, node_id, MemberStatus.ALIVE)
        if seen is not None and standing is not None and not standing.answers:
            place = seen.description.peer_address
            if place and place not in (known.peer, heard_at.peer if heard_at else ""):
                yield Intention(
                    Change.LOCATE, node_id, f"discovery sees it at {place}", "it to answer there"
                )


def _promotions(situation: Situation, policy: Policy) -> Iterator[Intention]:
    configuration, target = situation.configuration, situation.configuration.target
    count = len(configuration.voters)
    dead = [
        each
        for each in sorted(configuration.voters)
        if (seen := _seen(situation, each, MemberStatus.FAILED)) is not None
        and each != situation.node_id
        and not _not_dead_yet(situation, policy, each, situation.view.now - seen.since)
    ]
    for node_id in configuration.learners:
        if node_id == situation.node_id:
            continue
        standing = situation.standings[node_id]
        why, waits_for = "it has what the voters have", ""
        if not standing.has_caught_up:
            # The rule alone decides: it also knows who is silent.
            lacks = f"it to catch up: it lacks {standing.lag} entries"
            waits_for = lacks if standing.answers else "it to answer"
        elif target and count >= target:
            if dead and count == target:
                why = f"it takes the place of {dead[0]}"
            else:
                waits_for = f"a place: {count} of {target} voters are there"
        yield Intention(Change.PROMOTE, node_id, why, waits_for)


def _newcomers(situation: Situation) -> Iterator[Intention]:
    configuration = situation.configuration
    for node_id, asking in situation.asking.items():
        if configuration.directory_of(node_id) is not None:
            continue
        if (node_id, asking.directory_id) in configuration.removed:
            continue
        waits_for = ""
        if len(configuration.members) >= MEMBER_COUNT_MAX:
            waits_for = f"a place: there are {MEMBER_COUNT_MAX} members"
        elif owner := _owner(situation, asking.addresses.peer):
            waits_for = f"another address: {owner} answers at {asking.addresses.peer}"
        yield Intention(
            Change.ADD_LEARNER,
            node_id,
            "it asks to join",
            waits_for,
            addresses=asking.addresses,
            directory_id=asking.directory_id,
        )
    for node_id, seen in sorted(situation.view.members.items()):
        description = seen.description
        if seen.status is not MemberStatus.ALIVE or node_id in situation.asking:
            continue
        known = configuration.directory_of(node_id)
        # What is only configured has not told its directory.
        if description.directory_id in ("", known) or node_id == situation.node_id:
            continue
        if (node_id, description.directory_id) in configuration.removed:
            continue
        if known is not None:
            waits_for = "an operator: the member of that name has another data directory"
        elif description.cluster_id not in ("", configuration.cluster_id):
            waits_for = f"an operator: it belongs to cluster {description.cluster_id}"
        else:
            waits_for = "it to ask by itself"
        yield Intention(Change.ADD_LEARNER, node_id, "discovery sees it", waits_for)


def _owner(situation: Situation, peer_address: str) -> str:
    """Return the member that answers at an address; "" if none does."""
    for node_id, addresses in situation.configuration.addresses.items():
        standing = situation.standings.get(node_id)
        answers = node_id == situation.node_id or (standing is not None and standing.answers)
        if peer_address and addresses.peer == peer_address and answers:
            return node_id
    return ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s"
