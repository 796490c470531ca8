"""Topics as a node shows them, all at once or in parts: ten thousand take longer than the event loop should be held up."""

from __future__ import annotations

from collections.abc import Iterator

from distlog.consensus.state_machine import StateMachine
from distlog.consensus.topics import Topic
from distlog.consensus.views import TopicDescription


def describe(topic: Topic) -> TopicDescription:
    """Return the public view of a topic."""
    log = topic.log
    return TopicDescription(
        topic_id=topic.topic_id,
        name=topic.name,
        start_offset=log.start_offset,
        high_watermark=log.next_offset,
        last_timestamp_ms=log.last_timestamp_ms,
        size=log.size,
        limits=topic.limits,
        retention=topic.retention,
    )


def described_pages(state: StateMachine, count: int) -> Iterator[tuple[TopicDescription, ...]]:
    """Yield all topics sorted by name, `count` at a time, each as it is when its page is asked for.

    A topic that is deleted meanwhile is left out, and one that is created, too.
    """
    topics = sorted(state.topics(), key=lambda topic: topic.name)
    for first in range(0, len(topics), count):
        page = topics[first : first + count]
        yield tuple(describe(topic) for topic in page if state.topic_by_id(topic.topic_id) is topic)
