"""Show the nodes of a cluster, wait until they have a leader, add or remove one, or have another one lead."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distlog.cli import health, leave, members, rejoin, wait, watching
from distlog.cli.arguments import (
    add_server_argument,
    add_timeout_argument,
    count,
    server_addresses,
)
from distlog.cli.connecting import connected
from distlog.cli.table import table
from distlog.errors import DistlogError, MemberNotAdded

if TYPE_CHECKING:
    from distlog.client import Client, NodeStatus, Server

TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 60.0
PAUSE_S = 0.2
UNKNOWN = "-"
MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser(
        "status",
        help="show every node, its role, and how far it is",
        description="Show every node, its role, and how far it is. Fails if there is no leader.",
    )
    add_server_argument(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    watching.add_arguments(status)
    shown = actions.add_parser(
        "members",
        help="show who is a member and who is seen by discovery",
        description=members.__doc__,
    )
    members.add_arguments(shown)
    waiting = actions.add_parser(
        "wait",
        help="return when the nodes agree on a leader",
        description="Return when the nodes agree on a leader, and say what to type next.",
    )
    add_server_argument(waiting)
    wait.add_arguments(waiting)
    _add_changes(actions)
    rejoining = actions.add_parser(
        "rejoin",
        help="make the directory of a stopped node that of a new member",
        description=rejoin.__doc__,
    )
    rejoin.add_arguments(rejoining)


def _add_changes(actions: Any) -> None:
    """Add what changes who is a member, and who leads."""
    adding = actions.add_parser(
        "add",
        help="have a node that waits to join become a member",
        description="Have the leader greet a node that waits to join (distlog serve --join), and return when it votes. A node that reaches "
        "a member by its --join needs no command.",
    )
    add_server_argument(adding)
    adding.add_argument("node_id", metavar="NODE_ID", help="the node's id")
    adding.add_argument(
        "--peer", metavar="HOST:PORT", required=True, help="where the node listens for the others"
    )
    add_timeout_argument(adding, CHANGE_TIMEOUT_S)
    removing = actions.add_parser(
        "remove",
        help="remove a node, up or down",
        description="Remove a node from the cluster, whether it is up or down. Its data directory never comes back; the node may, with "
        "an empty one. If it leads, it hands over first.",
    )
    add_server_argument(removing)
    removing.add_argument("node_id", metavar="NODE_ID", help="the node's id")
    removing.add_argument(
        "--force",
        action="store_true",
        help="also if the voters that are up would be no majority of those that are left: no write succeeds then",
    )
    add_timeout_argument(removing, CHANGE_TIMEOUT_S)
    leaving = actions.add_parser(
        "leave",
        help="have a node leave for good, and stop",
        description=leave.__doc__,
    )
    leave.add_arguments(leaving)
    target = actions.add_parser(
        "target",
        help="say how many voters there are meant to be",
        description="Say how many voters there are meant to be. Further members learn, and one of them takes the place of a voter that has "
        "failed for --dead-after-s. 0: whoever joins votes. Nobody is removed by it.",
    )
    add_server_argument(target)
    target.add_argument("voter_count", type=count, metavar="N", help="0 to 32")
    transfer = actions.add_parser(
        "transfer-leadership",
        help="have another node lead",
        description="Have another node lead. No write fails meanwhile; it takes a moment.",
    )
    add_server_argument(transfer)
    transfer.add_argument(
        "--to",
        metavar="NODE_ID",
        default="",
        help="the node that shall lead (default: the one that is closest behind the leader)",
    )


def run(namespace: argparse.Namespace) -> int:
    if namespace.action == "rejoin":
        return rejoin.run(namespace)
    if namespace.action == "wait":
        return wait.run(namespace)
    if namespace.action == "members":
        return members.run(namespace)
    if namespace.action == "leave":
        return leave.run(namespace)
    if namespace.action == "target":
        asyncio.run(set_target(namespace))
        print(
            f"the cluster is meant to have {namespace.voter_count} voters"
            if namespace.voter_count
            else "whoever joins votes"
        )
        return 0
    if namespace.action == "transfer-leadership":
        print(f"{asyncio.run(transfer_leadership(namespace))} leads now")
        return 0
    if namespace.action == "add":
        asyncio.run(add_member(namespace))
        print(f"{namespace.node_id} is a voter now")
        return 0
    if namespace.action == "remove":
        asyncio.run(remove_member(namespace))
        print(
            f"{namespace.node_id} is no member any more. Next: stop it, and remove its data directory"
        )
        return 0
    if namespace.watch is not None:
        return watching.run(namespace, lambda: view(namespace))
    nodes = asyncio.run(look(namespace))
    leader = next((node["node_id"] for node in nodes if node["role"] == "leader"), None)
    if namespace.json:
        print(json.dumps({"leader": leader, "nodes": nodes}, indent=2))
    else:
        print(asyncio.run(shown(namespace, nodes)))
    return 0 if leader else 1


async def view(namespace: argparse.Namespace) -> str:
    """Return what a person is shown of the cluster as it is now.  Raises Unreachable if no node answers."""
    return await shown(namespace, await look(namespace))


async def shown(namespace: argparse.Namespace, nodes: list[dict[str, Any]]) -> str:
    """Return what a person is shown of these nodes; if there are none, what those at `--server` wait for."""
    if nodes:
        return as_text(nodes)
    return "\n".join(["there is no cluster yet:", *await why_none(namespace)])


def as_text(nodes: list[dict[str, Any]]) -> str:
    """Return what a person is shown of the nodes."""
    leading = next((node for node in nodes if node["role"] == "leader"), None)
    tables = [
        table(node_columns(nodes), [node_cells(node, nodes) for node in nodes]),
        table(health.COLUMNS, [health.cells(node) for node in nodes]),
    ]
    if leading and leading["planned"]:
        tables.append(table(PLAN_COLUMNS, plan_rows(leading["planned"])))
    if problems := health.problem_rows(nodes):
        tables.append(table(health.PROBLEM_COLUMNS, problems))
    # Last: there may be many.
    tables.append(table(topic_columns(nodes), topic_rows(nodes)))
    return "\n\n".join(tables)


async def transfer_leadership(namespace: argparse.Namespace) -> str:
    """Return who leads now.  Raises LeadershipNotTransferred, and NoLeader or Unreachable if there is nobody to ask."""
    async with connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client:
        return await client.transfer_leadership(namespace.to)


async def add_member(namespace: argparse.Namespace) -> None:
    """Return when the node votes.  Raises MemberExists, and MembershipChangeRefused at the deadline."""
    async with (
        connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client,
    ):
        await client.add_member(namespace.node_id, namespace.peer)
        deadline = asyncio.get_running_loop().time() + namespace.timeout
        while True:
            members = await client.members()
            known = next((each for each in members if each.node_id == namespace.node_id), None)
            if known is not None and known.is_voter:
                return
            if asyncio.get_running_loop().time() >= deadline:
                said = (
                    "it has not caught up yet: look at its LAG in `distlog cluster status`"
                    if known is not None
                    else f"the leader has not heard it at {namespace.peer}: see that it runs with --join and waits there"
                )
                raise MemberNotAdded(node_id=namespace.node_id, problem=said)
            await asyncio.sleep(PAUSE_S)


async def remove_member(namespace: argparse.Namespace) -> None:
    """Return when the node is no member.  Raises MemberNotFound, MembershipChangeRefused, LeadershipNotTransferred."""
    async with connected(
        namespace, timeout_s=namespace.timeout, first_contact_timeout_s=0
    ) as client:
        await client.remove_member(namespace.node_id, force=namespace.force)


async def set_target(namespace: argparse.Namespace) -> None:
    """Say how many voters there are meant to be.  Raises InvalidRequest, NoLeader, Unreachable."""
    async with connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client:
        await client.set_target(namespace.voter_count)


async def look(namespace: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what `--json` prints of each node, by node id.  Raises Unreachable if no node answers."""
    async with connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client:
        servers = await client.servers()
        statuses = await asyncio.gather(*(status_of(client, server) for server in servers))
    # Only the leader knows how far the others are.
    leading = next((status for status in statuses if status and status.role == "leader"), None)
    members = {member.node_id: member for member in leading.members} if leading else {}
    nodes = []
    for server, status in zip(servers, statuses, strict=True):
        member = members.get(server.node_id)
        nodes.append(
            {
                "node_id": server.node_id,
                "address": server.address,
                "role": status.role if status else "unreachable",
                "votes": member.is_voter if member else None,
                "peer_address": member.peer_address if member else None,
                "connected": member.is_connected if member else server.is_connected,
                "term": status.term if status else None,
                "applied_index": status.applied_index if status else None,
                "lag": member.lag if member else None,
                "storage_full": status.is_storage_full if status else None,
                "stall_max_ms": round(status.stall_max_ms, 1) if status else None,
                "stall_count": status.stall_count if status else None,
                "durability": status.durability if status else None,
                "copy": copy_of(status),
                "damaged": list(status.damaged) if status else None,
                "version": status.version if status else None,
                "topics": topics_of(status),
                "ready": status.is_ready if status and status.state else None,
                "state": (status.state or None) if status else None,
                "problem": status.problem if status else "it does not answer",
                "uptime_s": round(status.uptime_s, 1) if status and status.state else None,
                "disk_free": status.disk_free if status else None,
                "last_problems": [dataclasses.asdict(each) for each in status.last_problems]
                if status
                else [],
                "target": status.target if status else None,
                "planned": [dataclasses.asdict(each) for each in status.planned] if status else [],
            }
        )
    return nodes


async def why_none(namespace: argparse.Namespace) -> list[str]:
    """Return what the nodes at `--server` wait for, a line each."""
    lines = []
    async with connected(namespace, timeout_s=TIMEOUT_S, first_contact_timeout_s=0) as client:
        for address in server_addresses(namespace):
            try:
                status = await client.node_status(address)
                lines.append(f"  {address} {status.node_id}: {status.problem or status.state}")
            except DistlogError as error:
                lines.append(f"  {address}: {error}")
    return lines


async def status_of(client: Client, server: Server) -> NodeStatus | None:
    """Return what a node says of itself, None if it does not answer or nobody knows where it is."""
    if not server.address:
        return None
    try:
        return await client.node_status(server.address)
    except DistlogError:
        return None


def topics_of(status: NodeStatus | None) -> dict[str, dict[str, int]]:
    return {
        topic.name: {"start_offset": topic.start_offset, "high_watermark": topic.high_watermark}
        for topic in (status.topics if status else ())
    }


def copy_of(status: NodeStatus | None) -> dict[str, Any] | None:
    """Return how far a node is that copies the state of another one; None if it does not."""
    copy = status.copy if status else None
    return dataclasses.asdict(copy) if copy is not None else None


# --- The table for people ---

NODE_COLUMNS = ("NODE", "ROLE", "ADDRESS", "TERM", "APPLIED", "LAG", "CONNECTED", "DISK", "COPY")
DISK_WORDS = {True: "full", False: "ok", None: UNKNOWN}


def shows_durability(nodes: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a node acknowledges what it has not synced: otherwise nothing has to be said."""
    return any(node["durability"] not in ("fsync", None) for node in nodes)


def node_columns(nodes: Sequence[dict[str, Any]]) -> list[str]:
    return [*NODE_COLUMNS, *(["DURABILITY"] if shows_durability(nodes) else [])]


def node_cells(node: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> list[str]:
    """Return the cells of one of `nodes`."""
    cells = [
        node["node_id"],
        node["role"],
        node["address"] or UNKNOWN,
        cell(node["term"]),
        cell(node["applied_index"]),
        cell(node["lag"]),
        "yes" if node["connected"] else "no",
        "damaged" if node["damaged"] else DISK_WORDS[node["storage_full"]],
        copy_cell(node["copy"]),
    ]
    return [*cells, node["durability"] or UNKNOWN] if shows_durability(nodes) else cells


def copy_cell(copy: dict[str, Any] | None) -> str:
    """Return how far a copy is: what is there of how much, from where, and whether it goes on."""
    if copy is None:
        return UNKNOWN
    share = f"{copy['done_size'] / MIB:.1f} of {copy['size'] / MIB:.1f} MiB"
    source = f" from {copy['source']}" if copy["source"] else ""
    return f"{share}{source}{', waits' if copy['problem'] else ''}"


PLAN_COLUMNS = ("MEMBER", "PLANNED", "BECAUSE", "WAITS FOR")


def plan_rows(planned: Sequence[dict[str, str]]) -> list[list[str]]:
    """Return what the leader would do about the members, and what it waits for."""
    return [
        [each["node_id"], each["change"], each["why"], each["waits_for"] or "nothing: it is next"]
        for each in planned
    ]


def topic_columns(nodes: Sequence[dict[str, Any]]) -> list[str]:
    return ["TOPIC", "START OFFSET", *(f"HIGH WATERMARK {node['node_id']}" for node in nodes)]


def topic_rows(nodes: Sequence[dict[str, Any]]) -> list[list[str]]:
    names = sorted({name for node in nodes for name in node["topics"]})
    rows = []
    for name in names:
        ranges = [node["topics"].get(name) for node in nodes]
        start = max(known["start_offset"] for known in ranges if known)
        marks = [cell(known["high_watermark"] if known else None) for known in ranges]
        rows.append([name, cell(start), *marks])
    return rows


def cell(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)
