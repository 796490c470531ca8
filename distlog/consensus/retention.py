"""What the leader does so that topics keep no more than they are configured to: it looks now and then, and proposes trims.

The leader's clock and its own files decide what to cut; what is cut is a TrimTopic like any other, so every node cuts the
same, and a later leader with another clock takes nothing back.  A topic is trimmed only where a whole segment goes.  The
files go on each node after a checkpoint, when nobody reads them.

    tick -> a round is due: topics that do not keep everything -> a few of them: plans -> [worker] starts -> TrimTopic

Topics are looked at a few at a time, because the first look at a segment opens it.  A topic whose trim is on its way is
passed over until the outcome is known: what cannot be committed now does not pile up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distlog.consensus.commands import Command, TrimTopic
from distlog.consensus.results import TopicTrimmed
from distlog.consensus.state_machine import StateMachine
from distlog.consensus.topics import Topic
from distlog.errors import DistlogError
from distlog.runtime import Clock, Worker
from distlog.storage.log import RetentionPlan

logger = logging.getLogger(__name__)

# Topics looked at in one step of the loop, and by one job of the worker.
TOPICS_PER_STEP = 32


class Planned(NamedTuple):
    """The question where a topic should begin."""

    topic_id: int
    plan: RetentionPlan


class Answered(NamedTuple):
    """Where a topic should begin, or why that could not be found out."""

    topic_id: int
    start_offset: int | DistlogError


def plan_topics(topics: Sequence[Topic], now_ms: int) -> list[Planned]:
    """Return the questions for those of `topics` of which something may go, by what each is to keep at `now_ms`."""
    planned = []
    for topic in topics:
        retention = topic.retention
        if not retention or topic.log.start_offset == topic.log.next_offset:
            continue
        before_ms = now_ms - retention.age_ms if retention.age_ms else None
        plan = topic.log.plan_retention(size=retention.size, before_ms=before_ms)
        planned.append(Planned(topic.topic_id, plan))
    return planned


def answer_plans(planned: Sequence[Planned]) -> list[Answered]:
    """Answer the questions.  Blocks; one that cannot be answered does not keep the others from it."""
    answered = []
    for topic_id, plan in planned:
        try:
            answered.append(Answered(topic_id, plan.run()))
        except DistlogError as error:
            answered.append(Answered(topic_id, error))
    return answered


class Trimmer:
    """Proposes the trims of one group, on the event loop of the node that leads it."""

    def __init__(
        self,
        *,
        state_machine: StateMachine,
        clock: Clock,
        worker: Worker,
        is_leader: Callable[[], bool],
        propose: Callable[[Command], Any],
        interval_s: float,
    ) -> None:
        """is_leader(): whether this node may propose now.  propose(command): a future of the result; refuses at once too.

        interval_s: between the beginnings of two rounds.
        """
        self._state_machine = state_machine
        self._clock = clock
        self._worker = worker
        self._is_leader = is_leader
        self._propose = propose
        self._interval_s = interval_s
        self._due_at = clock.monotonic() + interval_s
        # Ids of the topics that this round has not come to.
        self._round: deque[int] = deque()
        # Whether the worker has questions of ours.
        self._is_asking = False
        # Ids of the topics whose trim is proposed, and was neither applied nor given up.
        self._in_flight: set[int] = set()

    def tick(self) -> None:
        """Take a step if one is due.  Call it often: it costs nothing otherwise."""
        if not self._is_leader():
            self._round.clear()
            return
        now = self._clock.monotonic()
        if not self._round and now >= self._due_at:
            self._due_at = now + self._interval_s
            topics = self._state_machine.topics()
            self._round.extend([topic.topic_id for topic in topics if topic.retention])
        if self._round and not self._is_asking:
            self._ask()

    def _ask(self) -> None:
        count = min(TOPICS_PER_STEP, len(self._round))
        found = [self._state_machine.topic_by_id(self._round.popleft()) for _ in range(count)]
        topics = [
            topic for topic in found if topic is not None and topic.topic_id not in self._in_flight
        ]
        planned = plan_topics(topics, self._clock.wall_ms())
        if any(plan.blocking for _, plan in planned):
            self._is_asking = True
            self._worker.submit(answer_plans, planned).add_done_callback(self._answered)
        else:
            self._trim(answer_plans(planned))

    def _answered(self, done: Any) -> None:
        self._is_asking = False
        if not done.cancelled():
            self._trim(done.result())

    def _trim(self, answered: Sequence[Answered]) -> None:
        for topic_id, start_offset in answered:
            # Meanwhile the topic may be gone, or leadership.
            topic = self._state_machine.topic_by_id(topic_id)
            if topic is None or not self._is_leader():
                continue
            if isinstance(start_offset, DistlogError):
                logger.warning(
                    "a topic keeps more than its retention says: mend what the problem names, it is tried again topic=%s problem=%s",
                    topic.name,
                    start_offset,
                )
            elif start_offset > topic.log.start_offset:
                self._trim_topic(topic, start_offset)

    def _trim_topic(self, topic: Topic, start_offset: int) -> None:
        try:
            proposed = self._propose(TrimTopic(topic.topic_id, start_offset))
        except DistlogError as error:
            # The next round tries again.
            logger.info("trim not proposed topic=%s problem=%s", topic.name, error)
            return
        self._in_flight.add(topic.topic_id)
        proposed.add_done_callback(lambda done: self._settled(topic, done))

    def _settled(self, topic: Topic, done: Any) -> None:
        self._in_flight.discard(topic.topic_id)
        if done.cancelled():
            return
        error, result = done.exception(), None if done.exception() else done.result()
        if isinstance(result, TopicTrimmed):
            logger.info("trimmed topic=%s start_offset=%d", topic.name, result.start_offset)
        else:
            logger.info("trim not confirmed topic=%s problem=%s", topic.name, error)
