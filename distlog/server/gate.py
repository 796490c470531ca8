"""Whether a call may go on: asked before its handler runs, for each request of a stream, and again when the policy changes.

    call -> Gate.enter -> Access -> check(topic) -> Authorizer           NotAuthorized -> audit
                            ^
    policy changed -> Gate asks every open stream again, and ends those that may not go on: within a second

Where there is no policy a call that answers once passes without anything being asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from distlog.errors import DistlogError, NotAuthorized
from distlog.security.audit import DENIED
from distlog.security.authorizer import Authorizer
from distlog.security.policy import ANY, Action
from distlog.security.subject import certificate_of, subject_of
from distlog.server.permissions import Need, On

# "" stands for it in every request.
DEFAULT_TOPIC = "default"
REQUEST_ID_SIZE = 8
# Questions that are asked again in one step of the event loop: each costs 0.1 ms, and 1 ms if a hundred rules concern the subject.
QUESTIONS_PER_STEP = 10
# Topics of a stream that are asked about again when the policy changes; each of its requests is asked about anyway.
STREAM_TOPIC_COUNT_MAX = 1000
DONE, CANCELLED = "DONE", "CANCELLED"
# What is answered with something that was read, and not with what became of a write.
READING = (Action.CONSUME, Action.DESCRIBE)
# As a metric names them.
ALLOWED, DENIED_OUTCOME = "allowed", "denied"


class Audit(Protocol):
    """Takes note of calls that are denied or administrative."""

    def note(
        self, *, subject: str, peer: str, method: str, topic: str, outcome: str, request_id: str
    ) -> None: ...


class NoAudit:
    """Takes note of nothing."""

    def note(
        self, *, subject: str, peer: str, method: str, topic: str, outcome: str, request_id: str
    ) -> None:
        return


class Gate:
    """What all calls of one node pass."""

    def __init__(
        self,
        authorizer: Authorizer,
        audit: Audit,
        random_bytes: Callable[[int], bytes],
        is_node: Callable[[bytes, str], bool] = lambda certificate, node_id: False,
    ) -> None:
        """is_node(certificate, node_id): whether this certificate, in PEM, makes who shows it that node."""
        self.is_node = is_node
        self.authorizer = authorizer
        self.audit = audit
        self.random_bytes = random_bytes
        # How many requests were allowed and denied, by action.
        self.decision_counts = {
            (str(action), outcome): 0 for action in Action for outcome in (ALLOWED, DENIED_OUTCOME)
        }
        self._watched: dict[Access, asyncio.Timeout] = {}
        self._asking: asyncio.Task[None] | None = None
        self._is_outdated = False
        # How often the policy changed.
        self.change_count = 0
        authorizer.changed.append(self._policy_changed)

    def enter(self, method: str, need: Need, context: Any, *, is_stream: bool) -> Access | None:
        """Return what a call has to pass, None if nothing."""
        if need.action is None:
            return None
        if self.authorizer.is_open and not (is_stream or need.is_administrative):
            return None
        shown = context.auth_context()
        access = Access(self, method, need, subject_of(shown), context.peer(), is_stream=is_stream)
        if need.on is On.MEMBER:
            access.certificate = certificate_of(shown)
        return access

    @asynccontextmanager
    async def watch(self, access: Access) -> AsyncIterator[None]:
        """Interrupt the body with NotAuthorized as soon as the policy does not allow any more what it was entered with."""
        # A timeout that is due only then, as in `OpenStreams`.
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._watched[access] = scope
                # What it was entered with, which is one topic, or none yet.
                for topic in access.topics:
                    access.check_again(topic)
                yield
        except TimeoutError:
            if scope.expired() and access.refusal is not None:
                raise access.refusal from None
            raise
        finally:
            self._watched.pop(access, None)

    def _policy_changed(self) -> None:
        self.change_count += 1
        self._is_outdated = True
        if self._watched and self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_again())

    async def _ask_again(self) -> None:
        try:
            await self._ask_watched()
        finally:
            self._asking = None

    async def _ask_watched(self) -> None:
        while self._is_outdated:
            self._is_outdated = False
            watched = list(self._watched)
            questions = ((access, topic) for access in watched for topic in access.topics)
            for count, (access, topic) in enumerate(questions, 1):
                scope = self._watched.get(access)
                if scope is not None and access.refusal is None:
                    try:
                        access.check_again(topic)
                    except DistlogError:
                        scope.reschedule(asyncio.get_running_loop().time())
                if count % QUESTIONS_PER_STEP == 0:
                    await asyncio.sleep(0)


class Access:
    """One call: who makes it, and what it was allowed."""

    __slots__ = (
        "_changes_seen",
        "_gate",
        "_topics",
        "certificate",
        "is_stream",
        "method",
        "need",
        "peer",
        "refusal",
        "request_id",
        "subject",
        "topic",
    )

    def __init__(
        self, gate: Gate, method: str, need: Need, subject: str, peer: str, *, is_stream: bool
    ) -> None:
        self._gate = gate
        self._changes_seen = gate.change_count
        self.need = need
        self.is_stream = is_stream
        self._topics: set[str] = set()
        self.method = method
        self.subject = subject
        self.peer = peer
        # In PEM, where it matters; otherwise b"".
        self.certificate = b""
        # The one that was asked about last.
        self.topic = ANY
        self.request_id = ""
        # Why the call was refused.
        self.refusal: DistlogError | None = None

    def check(self, topic: str = ANY) -> None:
        """Return if the call may do what it needs to `topic`.  Raises NotAuthorized, and NoLeader while nobody knows."""
        action, topic = self.need.action, topic or DEFAULT_TOPIC
        assert action is not None
        if not self._gate.authorizer.is_allowed(self.subject, action, topic):
            raise self._denied(topic)
        self._gate.decision_counts[action, ALLOWED] += 1
        self.topic = topic
        if len(self._topics) < STREAM_TOPIC_COUNT_MAX:
            self._topics.add(topic)

    def is_node(self, node_id: str) -> bool:
        """Tell whether the caller is this node."""
        return self.certificate != b"" and self._gate.is_node(self.certificate, node_id)

    async def check_some(self) -> None:
        """Return if the call may do what it needs to at least one topic.  Raises NotAuthorized, and NoLeader."""
        authorizer, action = self._gate.authorizer, self.need.action
        assert action is not None
        for topic in (ANY, *authorizer.topics(self.subject, action)):
            if authorizer.is_allowed(self.subject, action, topic):
                self._gate.decision_counts[action, ALLOWED] += 1
                return
            # Of a model of the operator's there may be a thousand.
            await asyncio.sleep(0)
        raise self._denied(ANY)

    @property
    def topics(self) -> tuple[str, ...]:
        """What was allowed before, so much of it as is remembered."""
        return tuple(self._topics)

    def check_again(self, topic: str) -> None:
        """As `check`, for one of `topics`; what it raises is kept, too."""
        try:
            self.check(topic)
        except DistlogError as error:
            self.refusal = error
            raise

    def check_answer(self) -> None:
        """As `check`, once more, if the policy has changed since: a call that reads may have waited for what it is to be told."""
        if self._changes_seen != self._gate.change_count and self.need.action in READING:
            for topic in self.topics:
                self.check(topic)

    def watched(self) -> Any:
        """Return the context in which a stream spends its life: `Gate.watch`."""
        return self._gate.watch(self)

    def ended(self, outcome: str) -> None:
        """Take note of how the call ended, if it is administrative.  A denied one was noted when it was."""
        if self.need.is_administrative and outcome != NotAuthorized.reason:
            self._note(self.topic, outcome)

    def _denied(self, topic: str) -> NotAuthorized:
        self._gate.decision_counts[str(self.need.action), DENIED_OUTCOME] += 1
        self._note(topic, DENIED)
        return NotAuthorized(
            subject=self.subject or "anonymous",
            action=str(self.need.action),
            resource=topic,
            request_id=self.request_id,
        )

    def _note(self, topic: str, outcome: str) -> None:
        self.request_id = self.request_id or self._gate.random_bytes(REQUEST_ID_SIZE).hex()
        self._gate.audit.note(
            subject=self.subject,
            peer=self.peer,
            method=self.method,
            topic=topic,
            outcome=outcome,
            request_id=self.request_id,
        )
