"""What a PeerNetwork tells its owner, and what it counts."""

from __future__ import annotations

from typing import Protocol

from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello


class PeerEvents(Protocol):
    """Called on the loop; each call returns soon, does not wait and does not raise.

    Per node, `peer_connected` and `peer_disconnected` alternate, and frames come only between them.  What comes between
    one such pair is the beginning of what the peer sent between one such pair of its own: in order, without gaps.
    """

    def hello_received(self, hello: Hello) -> None:
        """Take what an expected peer says of itself.  The cluster may form by it: the peer is answered afterwards."""

    def peer_connected(self, node_id: str) -> None:
        """Both nodes belong to the same cluster and have accepted each other: Raft may speak."""

    def peer_disconnected(self, node_id: str) -> None:
        """Nothing more comes from this peer, and the end of what was sent to it may be lost."""

    def frame_received(self, node_id: str, channel: Channel, group: int, payload: bytes) -> None:
        """Take one message."""


# What `PeerNetwork.counters` has, since the start.
COUNTERS = (
    "dials_failed",
    "connections_opened",
    "connections_superseded",
    "connections_silent",
    "handshakes_expired",
    "strangers_evicted",
    "peers_refused",
    "refused_by_peer",
    "protocol_violations",
    "frames_sent",
    "frames_received",
    "frames_turned_away",
    "bytes_sent",
    "bytes_received",
)
