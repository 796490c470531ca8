"""Have a node leave its cluster for good: the leader removes it, it hands over before if it leads, and then it stops.

Its data directory never comes back; the node may, with an empty one.
"""

from __future__ import annotations

import argparse
import asyncio

from distlog.cli.arguments import add_timeout_argument, add_tls_arguments, server_addresses
from distlog.cli.connecting import connected
from distlog.errors import ConfigurationInvalid

TIMEOUT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        required=True,
        help="client address of the node that shall leave",
    )
    add_tls_arguments(parser)
    add_timeout_argument(
        parser, TIMEOUT_S, "give up after this long; it is a member then as before"
    )


def run(namespace: argparse.Namespace) -> int:
    node_id = asyncio.run(leave(namespace))
    print(
        f"{node_id} is no member any more, and stops. Its data directory never comes back. Next: remove that"
    )
    return 0


async def leave(namespace: argparse.Namespace) -> str:
    """Return who has left.  Raises ConfigurationInvalid, and what Client.leave does."""
    address, *others = server_addresses(namespace)
    if others:
        raise ConfigurationInvalid("--server", "must be one address: that of the node that leaves")
    async with connected(
        namespace, timeout_s=namespace.timeout, first_contact_timeout_s=0
    ) as client:
        return await client.leave(address)
