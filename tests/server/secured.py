"""A listener that asks for certificates, over a fake log with a policy, and a channel for each subject."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio

from distlog.block import Block
from distlog.security.authorizer import Authorizer
from distlog.security.certificates import names_in_pem
from distlog.security.issue import NODE_SUBJECT, Authority
from distlog.security.policy import Policy, Rule
from distlog.server.gate import Gate
from distlog.server.listen import Listener
from distlog.server.policy_calls import follow_policy
from tests.server.fake_replicated_log import FakeReplicatedLog
from tests.server.serving import CHANNEL_OPTIONS, INCIDENT_BYTES, calls_are_over

NOW = datetime.now(UTC)
END = NOW + timedelta(days=1)
AUTHORITY = Authority.new("an authority of the tests", NOW, END)


@dataclass
class RecordedAudit:
    """Keeps what it is told."""

    notes: list[dict[str, str]] = field(default_factory=list)
    # Set when there is one.
    noted: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, **fields: str) -> None:
        self.notes.append(fields)
        self.noted.set()


@dataclass
class Secured:
    fake: FakeReplicatedLog
    gate: Gate
    audit: RecordedAudit
    listener: Listener
    port: int
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, subject: str) -> grpc.aio.Channel:
        """Return the connection of a client with this subject, always the same one."""
        if subject not in self.channels:
            is_node = subject.startswith(NODE_SUBJECT)
            own = (
                AUTHORITY.node(subject.removeprefix(NODE_SUBJECT), [], NOW, END)
                if is_node
                else AUTHORITY.client(subject, NOW, END)
            )
            credentials = grpc.ssl_channel_credentials(
                AUTHORITY.issued.certificate, own.key, own.certificate
            )
            self.channels[subject] = grpc.aio.secure_channel(
                f"localhost:{self.port}", credentials, CHANNEL_OPTIONS
            )
        return self.channels[subject]

    def put(self, rules: Iterable[Rule]) -> None:
        """Put a policy into force."""
        self.fake.policy.put(Policy(rules))

    def fill(self, topic: str) -> None:
        """Make a topic with one record."""
        describe = self.fake.topics["default"]
        self.fake.topics[topic] = type(describe)(len(self.fake.topics) + 1, topic)
        self.fake.propose_append(topic, Block.from_records([b"x"]))


@asynccontextmanager
async def secured(
    rules: Iterable[Rule] = (), administrators: Iterable[str] = ()
) -> AsyncIterator[Secured]:
    fake, audit = FakeReplicatedLog(), RecordedAudit()
    fake.policy.put(Policy(rules))
    authorizer = Authorizer(administrators=administrators)
    await follow_policy(fake.policy, authorizer, is_strict=True)
    gate = Gate(
        authorizer,
        audit,
        lambda size: INCIDENT_BYTES[:size],
        lambda certificate, node_id: f"URI:{NODE_SUBJECT}{node_id}" in names_in_pem(certificate),
    )
    node = AUTHORITY.node("n1", ["localhost", "127.0.0.1"], NOW, END)
    listener = Listener(
        fake,
        host="127.0.0.1",
        port=0,
        insecure=False,
        random_bytes=lambda size: INCIDENT_BYTES[:size],
        now=asyncio.get_running_loop().time,
        gate=gate,
        credentials=grpc.ssl_server_credentials(
            [(node.key, node.certificate)], AUTHORITY.issued.certificate, require_client_auth=True
        ),
    )
    port = await listener.start()
    server = Secured(fake, gate, audit, listener, port)
    try:
        yield server
    finally:
        for channel in server.channels.values():
            await channel.close()
        await listener.stop(timeout_s=0)
        await calls_are_over()
