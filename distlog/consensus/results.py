"""What applying a command gives: one value for each, in order; a refusal is the error itself."""

from __future__ import annotations

from dataclasses import dataclass

from distlog.errors import DistlogError
from distlog.storage.retention import Retention


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The records have the offsets [base_offset, base_offset + record_count)."""

    base_offset: int
    record_count: int
    # This was a repeat: the offsets are those of the first time, and nothing was written now.
    duplicate: bool


@dataclass(frozen=True, slots=True)
class TopicCreated:
    """The topic is there, and empty."""

    topic_id: int


@dataclass(frozen=True, slots=True)
class TopicTrimmed:
    """Records below `start_offset` are gone; it may be higher than what was asked for."""

    start_offset: int


@dataclass(frozen=True, slots=True)
class TopicConfigured:
    """This much of the topic is kept from now on."""

    retention: Retention


@dataclass(frozen=True, slots=True)
class TopicDeleted:
    """The topic is gone; one of the same name would be another."""

    topic_id: int


@dataclass(frozen=True, slots=True)
class ProducerOpened:
    """The producer's id and the epoch to stamp appends with; sequences begin at 0."""

    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """How many rules the policy has now, and how many of the change made a difference."""

    rule_count: int
    added_count: int
    removed_count: int


Result = (
    AppendResult
    | TopicCreated
    | TopicTrimmed
    | TopicConfigured
    | TopicDeleted
    | ProducerOpened
    | PolicyChanged
    | DistlogError
)
