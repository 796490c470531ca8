"""Two ends of one connection, without anything between them."""

from __future__ import annotations

from collections.abc import Iterable

from distlog.peer.connection import Connection, Event
from distlog.peer.handshake import Accepted, Greeting, Hello, encode_message
from distlog.peer.limits import PeerLimits

LIMITS = PeerLimits()


def hello(node_id: str = "n1", cluster_id: str = "c") -> Hello:
    """Return what a node says of itself."""
    return Hello(
        node_id=node_id,
        directory_id=f"directory-of-{node_id}",
        cluster_id=cluster_id,
        voters={"n1": "directory-of-n1", "n2": "directory-of-n2"} if cluster_id else {},
        client_address=f"{node_id}:8400",
        peer_address=f"{node_id}:8401",
    )


def greeting(node_id: str = "n1", cluster_id: str = "c", attempt: int = 1) -> Greeting:
    """Return a first message."""
    return Greeting(incarnation=7, attempt=attempt, hello=hello(node_id, cluster_id))


def events_of(connection: Connection, chunks: Iterable[bytes]) -> list[Event]:
    """Feed a stream in pieces and return what happened; every greeting is accepted."""
    events = []
    for chunk in chunks:
        connection.receive_data(chunk)
        while (event := connection.next_event()) is not None:
            events.append(event)
            if isinstance(event, Greeting):
                if connection.own is None:
                    connection.greet(greeting("n1"))
                connection.accept()
    return events


def opened(limits: PeerLimits = LIMITS) -> Connection:
    """Return a connection that came in from n2 and is open, without what led to it."""
    connection = Connection(limits)
    stream = encode_message(greeting("n2")) + encode_message(Accepted())
    assert len(events_of(connection, [stream])) == 2
    return connection
