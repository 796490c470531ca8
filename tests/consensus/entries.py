"""Commands and entries for tests: short ways to write them, strategies that make them up, and how to compare them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from distlog.block import Block
from distlog.consensus.commands import (
    Append,
    ChangePolicy,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.security.policy import Membership, Permission, Rule
from distlog.storage.retention import Retention
from distlog.storage.segment_files import SegmentLimits

U32 = st.integers(0, (1 << 32) - 1)
U64 = st.integers(0, (1 << 64) - 1)
TIMESTAMPS = st.integers(-(1 << 63), (1 << 63) - 1)


def append(
    *records: bytes, topic_id: int = 1, attributes: int = 0, stamp: ProducerStamp | None = None
) -> Append:
    """Return an append of these records."""
    return Append(topic_id, Block.from_records(records, attributes), stamp)


def comparable(value: Any) -> Any:
    """Return something that is equal for equal commands: blocks compare by identity, and so do errors."""
    if isinstance(value, Append):
        return (value.topic_id, value.block.encode(), value.producer)
    if isinstance(value, Exception):
        return (type(value), str(value))
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return value


def records() -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def blocks() -> st.SearchStrategy[Block]:
    return st.builds(Block.from_records, records(), st.integers(0, 1))


def commands() -> st.SearchStrategy[Command]:
    """Anything that an entry can hold, whether it makes sense or not."""
    return st.one_of(
        st.builds(Append, U64, blocks(), st.none() | st.builds(ProducerStamp, U64, U32, U64)),
        st.builds(
            CreateTopic,
            st.text(max_size=20),
            st.builds(SegmentLimits, U64, U64),
            st.builds(Retention, U64, U64),
        ),
        st.builds(ConfigureTopic, U64, st.none() | U64, st.none() | U64),
        st.builds(TrimTopic, U64, U64),
        st.builds(DeleteTopic, U64),
        st.builds(OpenProducer, U64),
        st.builds(ChangePolicy, rules(), rules(), st.booleans()),
    )


def rules() -> st.SearchStrategy[tuple[Rule, ...]]:
    """Anything that an entry can hold as rules."""
    text = st.text(max_size=20)
    each = st.builds(Permission, text, text, text) | st.builds(Membership, text, text)
    return st.lists(each, max_size=4).map(tuple)
