"""One connection between two nodes as a state machine: bytes in, events out; no clock, no socket, no event loop.

The owner feeds what arrives to `receive_data` and then takes `next_event` until it returns None; what is to be sent is
returned by `greet`, `accept` and `refuse`.  Events are made one at a time, because the answer to one (accept or refuse a
greeting) decides whether the bytes behind it are welcome: so the events depend on the bytes, never on how they were cut.

    GREETING -- their Greeting --> DECIDING -- accept() --> ACCEPTING -- their Accepted --> OPEN or ACQUAINTED
    any of them -- a message out of place, Refused, refuse(), close() --> CLOSED, for ever

OPEN: both ends belong to the same cluster, and frames travel.  ACQUAINTED: at least one end belongs to none yet; the two
know of each other and wait, and a frame is a violation.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from distlog.peer.frames import CONTROL, HEADER_SIZE, Frame, FrameDecoder, MalformedFrame
from distlog.peer.handshake import (
    Accepted,
    Alive,
    Greeting,
    MalformedMessage,
    Message,
    Refused,
    UnsupportedVersion,
    decode_message,
    encode_message,
    printable,
)
from distlog.peer.limits import PeerLimits


class Phase(Enum):
    """How far a connection has come."""

    GREETING = auto()
    DECIDING = auto()
    ACCEPTING = auto()
    OPEN = auto()
    ACQUAINTED = auto()
    CLOSED = auto()


# Once per message: looking up a member of an enumeration costs as much as calling a function.
DECIDING, OPEN, CLOSED = Phase.DECIDING, Phase.OPEN, Phase.CLOSED

# What the far end may say on the control channel, by phase.
WELCOME: dict[Phase, tuple[type[Message], ...]] = {
    Phase.GREETING: (Greeting, Refused),
    Phase.ACCEPTING: (Accepted, Refused),
    Phase.OPEN: (Alive, Refused),
    Phase.ACQUAINTED: (Alive,),
}


class VersionDiffers(msgspec.Struct, frozen=True):
    """The far end greets in another version of the protocol.  Answer with `refuse`."""

    protocol_version: int


class HandshakeFinished(msgspec.Struct, frozen=True):
    """Both ends have accepted each other; `phase` says whether frames may travel."""


class Violated(msgspec.Struct, frozen=True):
    """The far end broke the protocol.  The connection is closed and reads nothing more."""

    problem: str


# Greeting: answer with `accept` (after `greet`, if not done yet), `refuse` or `close`.  Refused: the far end does not want
# this node, and the connection is closed.
Event = Greeting | VersionDiffers | HandshakeFinished | Refused | Frame | Violated


class Connection:
    """The state of one connection, the same for the end that dialled and the end that was dialled."""

    def __init__(self, limits: PeerLimits) -> None:
        self._decoder = FrameDecoder(limits.payload_size_max())
        self._handshake_size_max = limits.handshake_size_max
        self._decoder.payload_size_limit = limits.handshake_size_max - HEADER_SIZE
        self._frame_size_max = max(limits.payload_size_max().values())
        self.phase = Phase.GREETING
        # What this end said, and what the far end said.  Each is set once, when it was sent or read.
        self.own: Greeting | None = None
        self.peer: Greeting | None = None

    def greet(self, greeting: Greeting) -> bytes:
        """Return this end's greeting: first thing when this end dialled, else when the far end's has been approved."""
        assert self.own is None, "an end greets once"
        self.own = greeting
        return encode_message(greeting)

    def accept(self) -> bytes:
        """Take the far end, whose greeting was the last event, as a peer."""
        assert self.phase is Phase.DECIDING
        assert self.own is not None
        self.phase = Phase.ACCEPTING
        return encode_message(Accepted())

    def refuse(self, problem: str) -> bytes:
        """Close, and return the message that tells the far end why: it is not welcome, whoever it says it is, or not any more.

        Before the far end has greeted, this is only for the end that was dialled: the other one has nothing to say yet.
        """
        assert self.phase in (Phase.GREETING, Phase.DECIDING, Phase.OPEN)
        self.phase = Phase.CLOSED
        return encode_message(Refused(printable(problem)))

    def close(self) -> None:
        """Read nothing more, whatever is still on its way."""
        self.phase = Phase.CLOSED

    @property
    def buffered_size(self) -> int:
        """Bytes received that wait for the rest of their frame."""
        return self._decoder.buffered_size

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the network."""
        if self.phase is not CLOSED:
            self._decoder.receive_data(data)

    def next_event(self) -> Event | None:
        """Return what happened next, or None until more bytes are there."""
        assert self.phase is not DECIDING, "the greeting wants an answer first"
        try:
            while self.phase is not CLOSED:
                frame = self._decoder.next_frame()
                if frame is None:
                    return None
                if frame.channel == CONTROL:
                    event = self._control(frame)
                    if event is not None:
                        return event
                elif self.phase is OPEN:
                    return frame
                else:
                    problem = f"a frame of channel {frame.channel} before the handshake"
                    return self._violated(problem)
        except MalformedFrame as error:
            return self._violated(str(error))
        return None

    def _control(self, frame: Frame) -> Event | None:
        """Handle one control frame; an Alive is no event."""
        if self.phase in (Phase.GREETING, Phase.ACCEPTING):
            self._decoder.payload_size_limit -= HEADER_SIZE + len(frame.payload)
        try:
            message = decode_message(frame.payload)
        except UnsupportedVersion as error:
            if self.phase is not Phase.GREETING:
                return self._violated("a second greeting")
            self.phase = Phase.DECIDING
            return VersionDiffers(error.protocol_version)
        except MalformedMessage as error:
            return self._violated(str(error))
        # Only who dialled has said something that the far end can refuse before it greets.
        unprovoked = isinstance(message, Refused) and self.own is None
        if not isinstance(message, WELCOME[self.phase]) or unprovoked:
            return self._violated(f"{type(message).__name__} in phase {self.phase.name}")
        if isinstance(message, Greeting):
            self.phase = Phase.DECIDING
            self.peer = message
            return message
        if isinstance(message, Refused):
            self.phase = Phase.CLOSED
            return message
        return self._finished() if isinstance(message, Accepted) else None

    def _finished(self) -> HandshakeFinished:
        assert self.own is not None
        assert self.peer is not None
        clusters = {self.own.hello.cluster_id, self.peer.hello.cluster_id}
        if "" in clusters:
            self.phase = Phase.ACQUAINTED
            self._decoder.payload_size_limit = self._handshake_size_max
        else:
            assert len(clusters) == 1, "a greeting from another cluster must be refused"
            self.phase = Phase.OPEN
            self._decoder.payload_size_limit = self._frame_size_max
        return HandshakeFinished()

    def _violated(self, problem: str) -> Violated:
        self.phase = Phase.CLOSED
        return Violated(problem)
