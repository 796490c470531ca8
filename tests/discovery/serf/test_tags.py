"""A node's description as tags: there and back, within what an agent takes, and nothing of what a stranger may write there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.discovery.serf.client import SerfClient
from distlog.discovery.serf.errors import AgentRefused
from distlog.discovery.serf.tags import (
    TAGS_SIZE_MAX,
    NodeState,
    TaggedNode,
    check_room,
    node_of,
    tags_of,
    tags_size,
)
from distlog.discovery.view import Description
from distlog.errors import InvalidRequest
from tests.discovery.serf.real_agents import needs_serf, real_agent

OWN = Description(
    node_id="n1",
    directory_id="d" * 32,
    peer_address="10.0.0.1:8401",
    client_address="10.0.0.1:8400",
    cluster_id="c" * 16,
    expect=3,
    version="1.2.3",
)
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@given(
    st.builds(
        Description, node_id=WORDS.filter(bool), directory_id=WORDS.filter(bool), peer_address=WORDS,
        client_address=WORDS, cluster_id=WORDS, expect=st.integers(0, 99), version=WORDS,
    ),
    st.integers(0, 10**14),
    st.sampled_from(NodeState),
)  # fmt: skip
def test_a_description_survives_the_way(own: Description, run: int, state: NodeState) -> None:
    node = TaggedNode(own, run, state)
    assert node_of(tags_of(node)) == node


def test_tags_of_others_are_no_matter() -> None:
    assert node_of({**tags_of(TaggedNode(OWN, 7)), "role": "web", "id": "x"}) == TaggedNode(OWN, 7)


@pytest.mark.parametrize(
    "changed",
    [
        {"distlog.id": ""},
        {"distlog.dir": ""},
        {"distlog.run": ""},
        {"distlog.run": "-1"},
        {"distlog.run": "9" * 4000},
        {"distlog.run": "\u0661"},
        {"distlog.expect": "many"},
        {"distlog.state": "tired"},
        {"distlog.peer": "\udcff"},
        {"distlog.client": "a\nb"},
    ],
)
def test_who_has_tags_that_make_no_sense_is_no_node(changed: dict[str, str]) -> None:
    assert node_of({**tags_of(TaggedNode(OWN, 7)), **changed}) is None
    assert node_of({}) is None


def test_a_description_that_no_agent_takes_is_refused_before_the_node_has_a_cluster() -> None:
    long = replace(OWN, cluster_id="", peer_address="h" * 150 + ":1", client_address="h" * 150)
    shorter = replace(long, client_address="h" * 20)
    check_room(TaggedNode(shorter, 1769860800123))
    with pytest.raises(InvalidRequest, match="shorten --node-id"):
        check_room(TaggedNode(long, 1769860800123))


def test_a_usual_description_has_room_to_spare() -> None:
    longest = replace(
        OWN, node_id="n" * 63, peer_address="h" * 53 + ":65535", client_address="h" * 53 + ":65535"
    )
    assert tags_size(tags_of(TaggedNode(longest, 1769860800123))) <= TAGS_SIZE_MAX


@needs_serf
@pytest.mark.parametrize("fixed", [{}, {f"k{n}": "v" * 40 for n in range(8)}, {f"k{n}": "v" for n in range(17)}])  # fmt: skip
def test_the_size_is_what_the_agent_counts(tmp_path: Path, fixed: dict[str, str]) -> None:
    async def try_sizes(client: SerfClient) -> None:
        length = 0
        while tags_size({**fixed, "z": "x" * length}) < TAGS_SIZE_MAX:
            length += 1
        await client.set_tags({**fixed, "z": "x" * length})
        with pytest.raises(AgentRefused, match="512"):
            await client.set_tags({"z": "x" * (length + 1)})

    async def run() -> None:
        with real_agent(tmp_path, "one") as agent:
            client = await agent.client()
            await try_sizes(client)
            client.close()

    asyncio.run(run())
