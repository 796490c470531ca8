"""`distlog cluster wait`: return when enough nodes agree on who leads, and say what to type next.

For scripts that start a cluster, and the last process of the Procfile.  It only asks: every node tells what it knows
itself, so a node that has not heard of the leader yet is waited for.  `cluster.py` registers it as a subcommand.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distlog.cli.arguments import (
    TLS_FILES,
    add_timeout_argument,
    count,
    server_addresses,
    tls_variable,
)
from distlog.cli.connecting import tls_credentials_of
from distlog.errors import DistlogError, NoLeader

if TYPE_CHECKING:
    from grpc import ChannelCredentials

    from distlog.client import Client, NodeStatus

PAUSE_S = 0.1
TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags beside `--server`."""
    parser.add_argument(
        "--expect",
        type=count,
        metavar="N",
        help="how many nodes must agree on the leader (default: all that vote or are about to)",
    )
    add_timeout_argument(parser, TIMEOUT_S)


def run(namespace: argparse.Namespace) -> int:
    """Wait and print one line; return 0.  Raises NoLeader at the deadline, with what each node said last."""
    addresses = server_addresses(namespace)
    credentials = tls_credentials_of(namespace)
    leader, node_count = asyncio.run(
        wait_for_leader(addresses, namespace.expect, namespace.timeout, credentials)
    )
    nodes = "1 node" if node_count == 1 else f"{node_count} nodes"
    print(
        f"{leader} leads {nodes}.  Next, in another shell: {own_command()} produce {tls_flags(namespace)}FILE",
        flush=True,
    )
    return 0


async def wait_for_leader(
    addresses: Sequence[str],
    expected: int | None,
    timeout_s: float,
    credentials: ChannelCredentials | None = None,
) -> tuple[str, int]:
    """Return the leader's id and how many nodes agree on it, as soon as `expected` do; None: all that vote or are about to."""
    # Only now: a mistake in the flags is answered without loading gRPC.
    from distlog.client import Client

    deadline = time.monotonic() + timeout_s
    # The nodes at the given addresses name the others.
    known = dict.fromkeys(addresses)
    settled: NodeStatus | None = None
    async with Client(addresses, credentials=credentials) as client:
        while True:
            answers = await ask(client, list(known))
            statuses = [
                answer for answer in answers.values() if not isinstance(answer, DistlogError)
            ]
            known.update(
                (member.address, None)
                for status in statuses
                for member in status.members
                if member.address
            )
            agreeing = voting(agreement(statuses))
            if agreeing and len(agreeing) >= (expected or voter_count(agreeing[0])):
                leader = agreeing[0]
                # Twice the same: by then the nodes have said what they say when they are ready, and this is the last word.
                if settled and (settled.leader_id, settled.term) == (leader.leader_id, leader.term):
                    return leader.leader_id, len(agreeing)
                settled = leader
            elif time.monotonic() >= deadline:
                said = "; ".join(
                    f"{address}: {opinion(answer)}" for address, answer in answers.items()
                )
                raise NoLeader(problem=said, retry_delay_s=1.0)
            await asyncio.sleep(PAUSE_S)


async def ask(client: Client, addresses: Sequence[str]) -> dict[str, NodeStatus | DistlogError]:
    """Return what the node at each address knows, or why it does not say."""

    async def one(address: str) -> NodeStatus | DistlogError:
        try:
            return await client.node_status(address)
        except DistlogError as error:
            return error

    answers = await asyncio.gather(*map(one, addresses))
    return dict(zip(addresses, answers, strict=True))


def agreement(statuses: Sequence[NodeStatus]) -> list[NodeStatus]:
    """Return the statuses, one for each node, that name the leader of the newest term; none until it says so itself."""
    named = [status for status in statuses if status.leader_id]
    newest = max(named, key=lambda status: status.term, default=None)
    if newest is None:
        return []
    wanted = (newest.cluster_id, newest.term, newest.leader_id)
    # By node: one that is asked under two addresses counts once.
    agreeing = {
        status.node_id: status
        for status in named
        if (status.cluster_id, status.term, status.leader_id) == wanted
    }
    # Followers may name a leader that has just died.
    return list(agreeing.values()) if newest.leader_id in agreeing else []


def voting(agreeing: list[NodeStatus]) -> list[NodeStatus]:
    """Return the statuses of those that vote, the one that leads first: a node that has joined may still be catching up."""
    if not agreeing:
        return []
    leader = next(status for status in agreeing if status.node_id == status.leader_id)
    voters = {member.node_id for member in leader.members if member.is_voter}
    return [leader, *(each for each in agreeing if each is not leader and each.node_id in voters)]


def voter_count(leader: NodeStatus) -> int:
    """Return how many nodes vote or are about to, as the leader has it: beyond the target a member stays a learner."""
    voters = sum(member.is_voter for member in leader.members)
    member_count = len(leader.members)
    return max(voters, min(member_count, leader.target)) if leader.target else member_count


def opinion(answer: NodeStatus | DistlogError) -> str:
    """Say in a few words what a node answered."""
    if isinstance(answer, DistlogError):
        return str(getattr(answer, "problem", answer))
    return f"{answer.role} in term {answer.term}, leader {answer.leader_id or 'unknown'}"


def own_command() -> str:
    """Return how this program is called from here: its path where it is inside the working directory."""
    try:
        return str(Path(sys.argv[0]).absolute().relative_to(Path.cwd()))
    except ValueError:
        return Path(sys.argv[0]).name


def tls_flags(namespace: argparse.Namespace) -> str:
    """Return the files of TLS as this command was given them, with a blank behind each; "" if the environment names them."""
    given = {name: getattr(namespace, f"tls_{name}") for name in TLS_FILES}
    return "".join(
        f"--tls-{name} {path} "
        for name, path in given.items()
        if path and path != os.environ.get(tls_variable(name))
    )
