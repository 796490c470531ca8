"""How much a peer may cost, before and after it has said who it is."""

from __future__ import annotations

from dataclasses import dataclass

from distlog.peer.frames import CONTROL, Channel

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """Limits of one channel, in bytes."""

    # Payload of one frame, in both directions.
    frame_size_max: int
    # What may wait for one peer, all channels together, before a frame of this channel is turned away.  A channel with a
    # lower limit therefore gives way to the ones with a higher.  An empty queue takes one frame of any legal size.
    queue_size_max: int


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """Limits of a PeerNetwork: sizes in bytes, times in seconds."""

    raft: ChannelLimits = ChannelLimits(frame_size_max=32 * MIB, queue_size_max=32 * MIB)
    gossip: ChannelLimits = ChannelLimits(frame_size_max=64 * KIB, queue_size_max=4 * MIB)
    files: ChannelLimits = ChannelLimits(frame_size_max=4 * MIB, queue_size_max=8 * MIB)
    # Everything that a connection receives until both ends have accepted each other; afterwards, each control frame.
    handshake_size_max: int = 64 * KIB
    # From the first byte that could travel to the last Accepted; opening the connection has as much again.
    handshake_deadline_s: float = 2.0
    # Inbound connections that have not said who they are.  One more pushes out the oldest.
    unidentified_count_max: int = 64
    # Jittered delays between two dials of one peer.
    redial_delay_min_s: float = 0.05
    redial_delay_max_s: float = 1.0
    # A connection that received nothing for this long is given up.  Both ends send something at least every quarter of it.
    silence_max_s: float = 6.0
    # Connections still open this long after `stop` are cut off; the whole stop takes at most twice as long.
    stop_deadline_s: float = 0.5

    def of_channel(self, channel: int) -> ChannelLimits:
        """Return the limits of one channel."""
        return {Channel.RAFT: self.raft, Channel.GOSSIP: self.gossip, Channel.FILES: self.files}[
            Channel(channel)
        ]

    def payload_size_max(self) -> dict[int, int]:
        """Return the largest payload of each channel that a decoder accepts."""
        sizes: dict[int, int] = {int(c): self.of_channel(c).frame_size_max for c in Channel}
        sizes[CONTROL] = self.handshake_size_max
        return sizes
