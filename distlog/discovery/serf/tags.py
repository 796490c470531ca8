"""A node's description as tags of its agent, and back.

    distlog.id=n1  distlog.run=1769860800123  distlog.dir=5f..  distlog.cluster=9a..  distlog.peer=10.0.0.1:8401  distlog.client=...
    distlog.expect=3  distlog.version=1.2  distlog.state=stopped|left

What is empty has no tag.  All names begin with "distlog.", since an agent may have tags of others, and be a member of a gossip with
members that are no nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from distlog.discovery.view import Description
from distlog.errors import InvalidRequest

PREFIX = "distlog."
# The agent's limit for all of its tags, as it writes them: a byte, then a msgpack map.
TAGS_SIZE_MAX = 512
# A cluster id that this node does not have yet: hexadecimal digits.
CLUSTER_ID_LENGTH = 16
NUMBER_LENGTH_MAX = 18


class NodeState(StrEnum):
    """What a node says of itself where its agent lives on without it."""

    UP = ""
    STOPPED = "stopped"
    LEFT = "left"


NAMES = ("id", "run", "dir", "cluster", "peer", "client", "expect", "version", "state")
ALL_TAGS = tuple(PREFIX + name for name in NAMES)


@dataclass(frozen=True, slots=True)
class TaggedNode:
    """What the tags of a member say."""

    description: Description
    run: int
    state: NodeState = NodeState.UP


def gossip_name(node_id: str, run: int) -> str:
    """Return the name of an agent that is a node's own.  It is of one run: agents do not let a failed name come back elsewhere."""
    return f"{node_id}.{run}"


def tags_of(node: TaggedNode) -> dict[str, str]:
    """Return the tags of a node.  Raises InvalidRequest if an agent would not take them."""
    own = node.description
    values = (
        own.node_id,
        str(node.run),
        own.directory_id,
        own.cluster_id,
        own.peer_address,
        own.client_address,
        str(own.expect) if own.expect else "",
        own.version,
        node.state.value,
    )
    tags = {name: value for name, value in zip(ALL_TAGS, values, strict=True) if value}
    # The state says less than it takes away: it may always be said.
    size = tags_size({**tags, PREFIX + "state": NodeState.STOPPED.value})
    if size > TAGS_SIZE_MAX:
        raise InvalidRequest(
            "the description of this node for its Serf agent",
            f"has {size} bytes, and {TAGS_SIZE_MAX} are the limit: shorten --node-id ({len(own.node_id)}), the address for peers "
            f"({len(own.peer_address)}) or the address for clients ({len(own.client_address)})",
        )
    return tags


def check_room(node: TaggedNode) -> None:
    """Raise InvalidRequest if the tags will not fit when the node belongs to a cluster."""
    own = node.description
    cluster_id = own.cluster_id or "0" * CLUSTER_ID_LENGTH
    tags_of(replace(node, description=replace(own, cluster_id=cluster_id)))


def node_of(tags: Mapping[str, str]) -> TaggedNode | None:
    """Return what the tags say; None if they are not those of a node."""
    values = {name: tags.get(PREFIX + name, "") for name in NAMES}
    run, expect = _number(values["run"]), _number(values["expect"] or "0")
    state = values["state"]
    if not values["id"] or not values["dir"] or run is None or expect is None:
        return None
    # They go into logs and answers.
    if not all(value.isprintable() for value in values.values()):
        return None
    if state not in (NodeState.UP, NodeState.STOPPED, NodeState.LEFT):
        return None
    description = Description(
        node_id=values["id"],
        directory_id=values["dir"],
        peer_address=values["peer"],
        client_address=values["client"],
        cluster_id=values["cluster"],
        expect=expect,
        version=values["version"],
    )
    return TaggedNode(description, run, NodeState(state))


def _number(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= NUMBER_LENGTH_MAX
    return int(text) if is_number else None


def tags_size(tags: Mapping[str, str]) -> int:
    """Return the bytes of the tags as the agent writes them."""
    return (
        1
        + _map_header_size(len(tags))
        + sum(_text_size(name) + _text_size(value) for name, value in tags.items())
    )


def _map_header_size(count: int) -> int:
    return 1 if count < 16 else 3


def _text_size(text: str) -> int:
    # The agent writes the older msgpack, which has no lengths of one byte but those below 32.
    size = len(text.encode("utf-8", "surrogateescape"))
    return size + (1 if size < 32 else 3)
