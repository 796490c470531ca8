"""Who belongs to the cluster: its voters and learners, each bound to one data directory, and where they are reached.

A member is its node id and its directory's random id.  A wiped node comes back with another directory id and is no member any more:
it must not vote away what the old directory had acknowledged.  For the same reason an identity that was removed never comes back.

A configuration is replaced as a whole, by an entry of the log that holds all of it (docs/format-entry.md).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from distlog.consensus.commands import ENTRY_HEADER, ENTRY_TYPE_OPAQUE, ENTRY_VERSION
from distlog.errors import EntryCorrupt, EntryUnknown

CLUSTER_ID_LENGTH = 16
MEMBER_COUNT_MAX = 32
# Of the removed identities the oldest are forgotten beyond this: a directory that once belonged to the cluster cannot join again anyway.
REMOVED_COUNT_MAX = 1024
STRING_SIZE_MAX = 255

ENTRY_KIND_CONFIGURATION = 2
PREFIX = bytes((ENTRY_TYPE_OPAQUE, ENTRY_VERSION, ENTRY_KIND_CONFIGURATION))
COUNTS = struct.Struct("<II")
STRING_SIZE = struct.Struct("<H")
ROLE = struct.Struct("<B")
VOTER, LEARNER = 1, 2
Value = TypeVar("Value")


class Addresses(NamedTuple):
    """HOST:PORT where the other members, and where clients, reach a member; "" if it has not told."""

    peer: str = ""
    client: str = ""


NOWHERE = Addresses()


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a cluster: node id -> directory id, in the order of the node ids."""

    cluster_id: str
    voters: Mapping[str, str]
    # Sent everything, counted for nothing.
    learners: Mapping[str, str] = field(default_factory=dict)
    # Of those members that have told; a fixed set has none, since everybody was given them at start.
    addresses: Mapping[str, Addresses] = field(default_factory=dict)
    # (node id, directory id) of former members, oldest first.
    removed: tuple[tuple[str, str], ...] = ()
    # The entry that it comes from; 1: it is what the cluster was formed with.
    raft_index: int = 1
    # How many voters there are meant to be: further members learn, and take the place of one that has failed.  0: whoever joins votes.
    target: int = 0

    @classmethod
    def form(cls, voters: Mapping[str, str]) -> Configuration:
        """Return the first configuration of the cluster of these nodes.

        The cluster's id follows from the voters (the first 16 hex digits of SHA-256 over the sorted lines "id=directory_id"), so
        nodes that saw the same directories form the same cluster without having to agree on anything else, and nodes
        that did not are never mistaken for members of one.  Ids hold no white space.
        """
        ordered = dict(sorted(voters.items()))
        lines = "\n".join(f"{node_id}={directory}" for node_id, directory in ordered.items())
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return cls(digest[:CLUSTER_ID_LENGTH], ordered)

    @property
    def members(self) -> dict[str, str]:
        """Return the directory id of every voter and learner, by node id."""
        return dict(sorted({**self.voters, **self.learners}.items()))

    def directory_of(self, node_id: str) -> str | None:
        """Return the directory id of a member; None if it is none."""
        return self.voters.get(node_id) or self.learners.get(node_id)

    def addresses_of(self, node_id: str) -> Addresses:
        return self.addresses.get(node_id, NOWHERE)

    # --- Changes, of which each is one entry ---------------------------------------------------

    def with_learner(
        self, node_id: str, directory_id: str, addresses: Mapping[str, Addresses]
    ) -> Configuration:
        """Return it with one more member, and with the addresses of those that have none in it."""
        assert self.directory_of(node_id) is None, "a node id has one identity at a time"
        assert (node_id, directory_id) not in self.removed, "an identity is never used again"
        learners = dict(sorted({**self.learners, node_id: directory_id}.items()))
        known = {**addresses, **self.addresses, node_id: addresses[node_id]}
        members = {*self.voters, *learners}
        located = {each: known[each] for each in sorted(known) if each in members}
        return replace(self, learners=learners, addresses=located)

    def with_voter(self, node_id: str) -> Configuration:
        """Return it with a learner that has become a voter."""
        learners = dict(self.learners)
        voters = dict(sorted({**self.voters, node_id: learners.pop(node_id)}.items()))
        return replace(self, voters=voters, learners=learners)

    def without(self, node_id: str) -> Configuration:
        """Return it without a member, whose identity never comes back."""
        directory_id = self.directory_of(node_id)
        assert directory_id is not None
        removed = (*self.removed, (node_id, directory_id))[-REMOVED_COUNT_MAX:]
        return replace(
            self,
            voters=_without(self.voters, node_id),
            learners=_without(self.learners, node_id),
            addresses=_without(self.addresses, node_id),
            removed=removed,
        )

    def at(self, node_id: str, addresses: Addresses) -> Configuration:
        """Return it with a member that is reached elsewhere."""
        assert self.directory_of(node_id) is not None
        located = dict(sorted({**self.addresses, node_id: addresses}.items()))
        return replace(self, addresses=located)

    def located(self, addresses: Mapping[str, Addresses]) -> Configuration:
        """Return it with the addresses of members that have none in it."""
        known = {**addresses, **self.addresses}
        return replace(self, addresses={each: known[each] for each in sorted(known)})

    def meant_for(self, target: int) -> Configuration:
        """Return it with another number of voters that it is meant to have."""
        assert 0 <= target <= MEMBER_COUNT_MAX
        return replace(self, target=target)


def _without(known: Mapping[str, Value], node_id: str) -> dict[str, Value]:
    return {each: value for each, value in known.items() if each != node_id}


# --- Bytes --------------------------------------------------------------------------------------


def is_configuration(payload: bytes) -> bool:
    """Tell whether an entry's payload is a configuration."""
    return payload[:3] == PREFIX


def encode_configuration_entry(configuration: Configuration, timestamp_ms: int) -> bytes:
    """Return the payload of the entry by which `configuration` comes into force."""
    header = ENTRY_HEADER.pack(*PREFIX, 0, configuration.target, timestamp_ms)
    return header + encode_configuration(configuration)


def decode_configuration_entry(payload: bytes, raft_index: int) -> tuple[Configuration, int]:
    """Return the configuration of an entry, and the entry's time.

    Raises EntryUnknown for what a newer version wrote and EntryCorrupt for what no version writes.
    """
    if len(payload) < ENTRY_HEADER.size:
        raise EntryCorrupt(position=len(payload), problem="shorter than its header")
    _, _, _, zero, target, timestamp_ms = ENTRY_HEADER.unpack_from(payload)
    if zero or target > MEMBER_COUNT_MAX:
        raise EntryUnknown(found=f"a configuration with reserved {zero}, {target}")
    try:
        configuration, end = decode_configuration(payload, ENTRY_HEADER.size, raft_index)
    except (struct.error, ValueError) as error:
        raise EntryCorrupt(position=ENTRY_HEADER.size, problem=f"configuration: {error}") from error
    if end != len(payload):
        raise EntryCorrupt(position=end, problem="bytes after the last member")
    return replace(configuration, target=target), timestamp_ms


def encode_configuration(configuration: Configuration) -> bytes:
    """Return the bytes of a configuration, as an entry and the checkpoint have them: all but its raft index and target."""
    members, removed = configuration.members, configuration.removed
    parts = [_string(configuration.cluster_id), COUNTS.pack(len(members), len(removed))]
    for node_id, directory_id in members.items():
        role = VOTER if node_id in configuration.voters else LEARNER
        addresses = configuration.addresses_of(node_id)
        parts += (ROLE.pack(role), _string(node_id), _string(directory_id))
        parts += (_string(addresses.peer), _string(addresses.client))
    for node_id, directory_id in removed:
        parts += (_string(node_id), _string(directory_id))
    return b"".join(parts)


def decode_configuration(data: bytes, position: int, raft_index: int) -> tuple[Configuration, int]:
    """Return the configuration that begins at `position`, and where it ends.  Raises struct.error or ValueError."""
    cluster_id, position = _read_string(data, position)
    member_count, removed_count = COUNTS.unpack_from(data, position)
    position += COUNTS.size
    if not 0 < member_count <= MEMBER_COUNT_MAX or removed_count > REMOVED_COUNT_MAX:
        raise ValueError(f"{member_count} members, {removed_count} removed ones")
    by_role: dict[int, dict[str, str]] = {VOTER: {}, LEARNER: {}}
    addresses: dict[str, Addresses] = {}
    for _ in range(member_count):
        (role,) = ROLE.unpack_from(data, position)
        texts, position = _read_strings(data, position + ROLE.size, 4)
        if role not in by_role:
            raise ValueError(f"a member of role {role}")
        node_id, directory_id, *where = texts
        by_role[role][node_id] = directory_id
        if any(where):
            addresses[node_id] = Addresses(*where)
    removed = []
    for _ in range(removed_count):
        (node_id, directory_id), position = _read_strings(data, position, 2)
        removed.append((node_id, directory_id))
    voters, learners = by_role[VOTER], by_role[LEARNER]
    if not voters or len(voters.keys() | learners.keys()) != member_count:
        raise ValueError("no voter, or a member twice")
    configuration = Configuration(
        cluster_id, voters, learners, addresses, tuple(removed), raft_index
    )
    return configuration, position


def _string(text: str) -> bytes:
    data = text.encode()
    return STRING_SIZE.pack(len(data)) + data


def _read_string(data: bytes, position: int) -> tuple[str, int]:
    (size,) = STRING_SIZE.unpack_from(data, position)
    start, end = position + STRING_SIZE.size, position + STRING_SIZE.size + size
    if end > len(data) or size > STRING_SIZE_MAX * 4:
        raise ValueError("it ends within a text, or that is too long")
    return data[start:end].decode(), end


def _read_strings(data: bytes, position: int, count: int) -> tuple[list[str], int]:
    texts = []
    for _ in range(count):
        text, position = _read_string(data, position)
        texts.append(text)
    return texts, position
