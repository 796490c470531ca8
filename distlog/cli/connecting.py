"""From `--server` to a client that has reached the cluster."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

from distlog.cli.arguments import server_addresses
from distlog.cli.terminal import print_note, print_waiting
from distlog.errors import DistlogError, NoLeader, Unreachable

if TYPE_CHECKING:
    from grpc import ChannelCredentials

    from distlog.client import Client

# How long a cluster that is just being started may take to answer at all.
FIRST_CONTACT_TIMEOUT_S = 5.0
FIRST_CONTACT_PAUSE_S = 0.2
# After so long without success a command says what it waits for: an election is over by then.
SILENCE_MAX_S = 3.0
# Between two failures of one series at most: longer than an attempt and a pause.
SERIES_GAP_S = 8.0


@asynccontextmanager
async def connected(
    namespace: argparse.Namespace,
    *,
    timeout_s: float,
    first_contact_timeout_s: float = FIRST_CONTACT_TIMEOUT_S,
) -> AsyncIterator[Client]:
    """Open a client for the cluster at `--server`; close it at the end.

    timeout_s: the deadline of each of its calls.  Raises Unreachable if no node answers within it, or within
    `first_contact_timeout_s`.
    """
    addresses = server_addresses(namespace)
    credentials = tls_credentials_of(namespace)
    # Only now: a mistake in the flags is answered without loading gRPC.
    from distlog.client import Client

    waiting = Waiting(asyncio.get_running_loop().time)
    async with Client(
        addresses,
        timeout_s=timeout_s,
        random=Random(),
        credentials=credentials,
        on_retry=waiting.failed,
    ) as client:
        await reach(client, min(timeout_s, first_contact_timeout_s))
        yield client


class Waiting:
    """Says once what a command waits for that only seems to hang."""

    def __init__(self, now: Callable[[], float]) -> None:
        """now(): seconds on a clock that never goes back."""
        self._now = now
        # When the present series of failures began, and when the last one was.
        self._began_at = self._failed_at = float("-inf")
        self._is_said = False

    def failed(self, error: DistlogError) -> None:
        """Take note of a failure after which there may be another attempt."""
        now = self._now()
        if now - self._failed_at > SERIES_GAP_S:
            self._began_at = now
        self._failed_at = now
        if now - self._began_at >= SILENCE_MAX_S and not self._is_said:
            self._is_said = True
            print_waiting(
                f"for a leader: {error.problem}"
                if isinstance(error, NoLeader)
                else f"since {error}"
            )


def tls_credentials_of(namespace: argparse.Namespace) -> ChannelCredentials | None:
    """Return what `--tls-ca`, `--tls-cert` and `--tls-key` name; None: nothing is encrypted.  Raises ConfigurationInvalid."""
    ca, cert, key = namespace.tls_ca, namespace.tls_cert, namespace.tls_key
    if not (ca or cert or key):
        return None
    # Only now: whoever needs no certificates does not load what reads them.
    from distlog.client.tls import tls_credentials

    return tls_credentials(ca or "", cert or "", key or "")


async def reach(client: Client, timeout_s: float) -> None:
    """Return when some node answers; whether there is a leader is another question."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    is_noted = False
    while True:
        try:
            await client.servers()
        except Unreachable as error:
            if loop.time() >= deadline:
                raise
            if not is_noted:
                print_note(f"waiting for the cluster: {error}")
                is_noted = True
        else:
            return
        await asyncio.sleep(FIRST_CONTACT_PAUSE_S)
