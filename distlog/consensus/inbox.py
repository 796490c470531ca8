"""Messages of peers that wait for the next step, in the order of their arrival, and how many may wait.

A peer that keeps the protocol never comes near the limits: a leader sends entries within its window, and everything else is small and
answers something.  So who fills the inbox is hung up on, and what it sent is forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from distlog.consensus.messages import Message
from distlog.errors import PeerRefused

COUNT_MAX = 100_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    sender: str
    size: int
    message: Message


class Inbox:
    """What has arrived and was not looked at yet."""

    def __init__(self, size_max: int) -> None:
        """size_max: bytes of messages that may wait, all peers together."""
        self.size_max = size_max
        self._waiting: deque[_Waiting] = deque()
        # Bytes of all that waits.
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sender: str, message: Message, size: int) -> None:
        """Take a message that had `size` bytes.  Raises PeerRefused if too much waits: hang up on the sender."""
        if len(self._waiting) >= COUNT_MAX or (self.size and self.size + size > self.size_max):
            raise PeerRefused(peer=sender, problem="it floods this node")
        self._waiting.append(_Waiting(sender, size, message))
        self.size += size

    def take(self) -> tuple[str, Message]:
        """Return the oldest message and its sender."""
        waiting = self._waiting.popleft()
        self.size -= waiting.size
        return waiting.sender, waiting.message

    def drop(self, sender: str) -> None:
        """Forget what a peer sent whose connection is gone."""
        self._waiting = deque(each for each in self._waiting if each.sender != sender)
        self.size = sum(each.size for each in self._waiting)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self.size = 0
