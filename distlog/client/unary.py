"""Single records, each exactly once: what `Client.produce` does.

Concurrent calls do not share a sequence, since one that fails would hold up the others.  Each takes a producer identity of its own
from a small pool and sends its record with that identity's next sequence, again and again until the outcome is known.  Then
the identity goes back; if the outcome stays unknown it is never used again, because what comes next in it is unknown, too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import Deadline
from distlog.client.routing import ATTEMPT_TIMEOUT_S, Node, Routing
from distlog.client.traced import attempt, begin_send, sent
from distlog.client.values import DEFAULT_TOPIC
from distlog.errors import (
    DistlogError,
    OutcomeUnknown,
    OutOfSequence,
    ProducerFenced,
    ProducerUnknown,
)
from distlog.tracing.spans import NO_TRACER, Span, Tracer

IDENTITY_COUNT_MAX = 16
# The cluster remembers sequences of at most 1,000 topics of a producer.
TOPIC_COUNT_MAX = 1000
# After these the cluster and the identity disagree, or may do so, about what comes next.
SPOILS_IDENTITY = (OutcomeUnknown, OutOfSequence, ProducerUnknown, ProducerFenced)


@dataclass(slots=True)
class Identity:
    """A producer that has nothing in flight."""

    producer_id: int
    epoch: int
    # By topic: how many records it wrote, which is the next sequence.
    sequences: Counter[str] = field(default_factory=Counter)


class UnaryProducer:
    """A pool of identities; at most IDENTITY_COUNT_MAX calls run at the same time, the others wait for their turn."""

    def __init__(self, routing: Routing, tracer: Tracer = NO_TRACER) -> None:
        self._routing = routing
        self._tracer = tracer
        self._idle: list[Identity] = []
        self._turns = asyncio.Semaphore(IDENTITY_COUNT_MAX)

    async def produce(self, request: log_pb2.ProduceRequest, deadline: Deadline) -> int:
        """Write one record; return its offset.  `request` gets its identity and sequence here.

        Raises OutcomeUnknown if the record may be in the log at the deadline; after anything else it is not.
        """
        if self._tracer.is_on:
            span = begin_send(self._tracer, request.topic, self._tracer.parent_here())
            if span is not None:
                return await sent(span, self._produce(request, deadline, span))
        return await self._produce(request, deadline, None)

    async def _produce(
        self, request: log_pb2.ProduceRequest, deadline: Deadline, span: Span | None
    ) -> int:
        async with self._turns:
            if self._idle:
                try:
                    return await self._deliver(self._idle.pop(), request, deadline, span)
                except ProducerUnknown:
                    # It expired while it was not used.  Nothing of this call was written: an identity rests only when
                    # the outcome of everything before is known.
                    self._idle.clear()
            identity = await open_identity(self._routing, 0, deadline, span)
            return await self._deliver(identity, request, deadline, span)

    async def _deliver(
        self,
        identity: Identity,
        request: log_pb2.ProduceRequest,
        deadline: Deadline,
        span: Span | None,
    ) -> int:
        request.producer_id = identity.producer_id
        request.producer_epoch = identity.epoch
        # Both names mean the same topic, which has one sequence.
        topic = request.topic or DEFAULT_TOPIC
        request.sequence = identity.sequences[topic]

        async def call(node: Node) -> log_pb2.ProduceResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.ProduceResponse = await attempt(
                span, node, "Produce", request, timeout_s
            )
            return answer

        try:
            answer = await self._routing.write(call, deadline)
        except DistlogError as error:
            if not isinstance(error, SPOILS_IDENTITY):
                self._idle.append(identity)
            raise
        identity.sequences[topic] += 1
        if len(identity.sequences) < TOPIC_COUNT_MAX:
            self._idle.append(identity)
        return answer.offset


async def open_identity(
    routing: Routing, producer_id: int, deadline: Deadline, span: Span | None = None
) -> Identity:
    """Get a producer id from the cluster, or the next epoch of `producer_id` if that is not 0.

    span: what it is a part of, if that is traced.

    Repeating it is safe: at worst an id or an epoch is never used.  Raises Unreachable and NoLeader at the deadline.
    """

    async def call(node: Node) -> log_pb2.OpenProducerResponse:
        timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
        request = log_pb2.OpenProducerRequest(producer_id=producer_id)
        answer: log_pb2.OpenProducerResponse = await attempt(
            span, node, "OpenProducer", request, timeout_s
        )
        return answer

    answer = await routing.write(call, deadline)
    return Identity(answer.producer_id, answer.epoch)
