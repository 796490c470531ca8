"""Configurations for tests, drawn by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from distlog.consensus.configuration import Addresses, Configuration


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Draw one as the journal and the checkpoint may hold it."""
    texts = st.text(max_size=10)
    ids = draw(st.lists(texts, min_size=1, max_size=8, unique=True))
    voter_count = draw(st.integers(1, len(ids)))
    directories = {each: draw(texts) for each in ids}
    voters = dict(sorted((each, directories[each]) for each in ids[:voter_count]))
    learners = dict(sorted((each, directories[each]) for each in ids[voter_count:]))
    located = st.builds(Addresses, texts, texts).filter(any)
    addresses = {each: draw(located) for each in sorted(ids) if draw(st.booleans())}
    removed = tuple(draw(st.lists(st.tuples(texts, texts), max_size=3)))
    raft_index = draw(st.integers(1, (1 << 64) - 1))
    target = draw(st.integers(0, 32))
    return Configuration(draw(texts), voters, learners, addresses, removed, raft_index, target)
