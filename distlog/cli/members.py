"""Show who is a member, who is seen, and whether the two fit.

ROLE is what the configuration says (- for who is no member), SEEN what discovery sees, from the first node of --server that answers.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from distlog.cli.arguments import add_server_argument, server_addresses
from distlog.cli.connecting import connected
from distlog.cli.table import table
from distlog.errors import DistlogError, Unreachable

if TYPE_CHECKING:
    from distlog.client import Member, Membership, SeenNode

TIMEOUT_S = 5.0
UNKNOWN = "-"
COLUMNS = ("NODE", "ROLE", "SEEN", "FOR", "CLIENTS", "PEERS", "VERSION")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_server_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(namespace: argparse.Namespace) -> int:
    found = asyncio.run(look(namespace))
    if namespace.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        print(table(COLUMNS, rows(found)))
    return 0


async def look(namespace: argparse.Namespace) -> Membership:
    """Return what the first node of --server says that answers.  Raises Unreachable."""
    addresses = server_addresses(namespace)
    async with connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client:
        problem: DistlogError = Unreachable(addresses=", ".join(addresses), problem="no answer")
        for address in addresses:
            try:
                return await client.membership(address)
            except DistlogError as error:
                problem = error
        raise problem


def pairs(found: Membership) -> list[tuple[str, Member | None, SeenNode | None]]:
    """Return who is a member or seen, by node id."""
    members = {each.node_id: each for each in found.members}
    seen = {each.node_id: each for each in found.seen}
    names = sorted(members.keys() | seen.keys())
    return [(name, members.get(name), seen.get(name)) for name in names]


def rows(found: Membership) -> list[list[str]]:
    return [
        [
            node_id,
            role_of(member) or UNKNOWN,
            seen.status if seen else UNKNOWN,
            f"{seen.for_s:.0f} s" if seen else UNKNOWN,
            (member.address if member else "") or (seen.address if seen else "") or UNKNOWN,
            (member.peer_address if member else "") or (seen.peer_address if seen else "") or "-",
            (seen.version if seen else "") or UNKNOWN,
        ]
        for node_id, member, seen in pairs(found)
    ]


def role_of(member: Member | None) -> str:
    if member is None:
        return ""
    return "leader" if member.is_leader else "voter" if member.is_voter else "learner"


def as_json(found: Membership) -> dict[str, Any]:
    return {
        "cluster_id": found.cluster_id,
        "leader": found.leader_id or None,
        "seen_age_s": found.seen_age_s,
        "nodes": [
            {
                "node_id": node_id,
                "role": role_of(member) or None,
                "address": member.address if member else None,
                "peer_address": member.peer_address if member else None,
                "seen": dataclasses.asdict(seen) if seen else None,
            }
            for node_id, member, seen in pairs(found)
        ],
    }
