"""Requests to one peer or another that wait for their answers, each with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from distlog.catch_up import messages
from distlog.catch_up.messages import Answer, Reason, Refusal, Request

Expected = TypeVar("Expected", bound=Answer)

# At the slowest pace an answer has many others before it.
ANSWER_TIMEOUT_S = 15.0


class NotCopied(Exception):
    """A peer did not give what it was asked for: ask another one, or again."""

    def __init__(self, peer: str, reason: Reason | None, problem: str) -> None:
        super().__init__(f"{peer}: {problem}")
        self.peer = peer
        # None: it is not known, the answer did not come.
        self.reason = reason


class Requests:
    """What this node has asked for and not got yet."""

    def __init__(self, send: Callable[[str, bytes], bool]) -> None:
        self._send = send
        self._count = 0
        # By number: whom it was sent to, and what its answer fulfils.
        self._waiting: dict[int, tuple[str, asyncio.Future[Answer]]] = {}

    def next_number(self) -> int:
        self._count += 1
        return self._count

    async def ask(self, peer: str, request: Request, expected: type[Expected]) -> Expected:
        """Send a request and return its answer.  Raises NotCopied."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = (peer, future)
        try:
            if not self._send(peer, messages.encode(request)):
                raise NotCopied(peer, None, "it is not connected, or too much waits for it")
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await future
        except TimeoutError as error:
            raise NotCopied(peer, None, f"no answer within {ANSWER_TIMEOUT_S:g} s") from error
        finally:
            del self._waiting[request.number]
        if isinstance(answer, Refusal):
            raise NotCopied(peer, answer.reason, answer.problem)
        if not isinstance(answer, expected):
            raise NotCopied(peer, None, f"it answered with {type(answer).__name__}")
        return answer

    def receive(self, peer: str, answer: Answer) -> None:
        """Take an answer; one that nobody waits for any more is passed over."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and waiting[0] == peer and not waiting[1].done():
            waiting[1].set_result(answer)

    def drop(self, peer: str) -> None:
        """Fail what waits for a peer whose connection is gone."""
        for name, future in list(self._waiting.values()):
            if name == peer and not future.done():
                future.set_exception(NotCopied(peer, None, "its connection is gone"))
