"""What a configuration says, as a person reads it and as JSON."""

from __future__ import annotations

from typing import Any

from distlog.consensus.configuration import Configuration


def member_lines(configuration: Configuration) -> list[str]:
    """Return a line for each member, and for each identity that was removed."""
    lines = []
    for node_id, directory_id in configuration.members.items():
        role = "voter" if node_id in configuration.voters else "learner"
        addresses = configuration.addresses_of(node_id)
        where = f", peers at {addresses.peer}" if addresses.peer else ""
        where += f", clients at {addresses.client}" if addresses.client else ""
        lines.append(f"{role} {node_id}, directory {directory_id}{where}")
    lines += [f"removed {node_id}, directory {each}" for node_id, each in configuration.removed]
    return lines


def configuration_json(configuration: Configuration) -> dict[str, Any]:
    """Return everything that a configuration says."""
    members = []
    for node_id, directory_id in configuration.members.items():
        addresses = configuration.addresses_of(node_id)
        members.append(
            {
                "node_id": node_id,
                "directory_id": directory_id,
                "role": "voter" if node_id in configuration.voters else "learner",
                "peer_address": addresses.peer,
                "client_address": addresses.client,
            }
        )
    removed = [
        {"node_id": node_id, "directory_id": each} for node_id, each in configuration.removed
    ]
    return {"raft_index": configuration.raft_index, "members": members, "removed": removed}
