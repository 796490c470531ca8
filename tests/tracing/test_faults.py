"""Traces while nodes fail: every span ends once and says how, and nothing is followed for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus.entry_traces import DISCONNECTED
from distlog.consensus.results import AppendResult
from distlog.errors import OutcomeUnknown
from distlog.tracing.spans import SERVED
from tests.consensus.nodes import NodeCluster, on_virtual_time
from tests.tracing.fake_spans import FakeSpan, FakeTracer

Story = Callable[[NodeCluster, FakeTracer], Awaitable[None]]


def told(story: Story) -> None:
    async def main() -> None:
        tracer = FakeTracer()
        cluster = NodeCluster(tracer=tracer)
        await cluster.start()
        await story(cluster, tracer)
        await cluster.stop()
        assert [span for span in tracer.open if span.name != "a call"] == []

    on_virtual_time(main)


def produce(cluster: NodeCluster, tracer: FakeTracer) -> asyncio.Future[AppendResult]:
    """Propose a record within a call that is traced."""
    token = SERVED.set(FakeSpan(tracer, "a call"))
    try:
        return cluster.leader.log.propose_append("", Block.from_records([b"x"]))
    finally:
        SERVED.reset(token)


def is_quiet(cluster: NodeCluster) -> bool:
    """Tell whether no node follows anything."""
    groups = [place.group for place in cluster.places.values()]
    return not any(group.traces.is_following for group in groups)


def test_an_entry_is_followed_to_its_end_on_all_nodes_and_no_further() -> None:
    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        await produce(cluster, tracer)
        await cluster.loop.until(lambda: is_quiet(cluster))
        names = [span.name for span in tracer.spans]
        counts = {name: names.count(name) for name in ("propose", "append", "replicate", "apply")}
        assert counts == {"propose": 1, "append": 3, "replicate": 2, "apply": 3}
        assert {span.problem for span in tracer.spans if span.name in counts} == {""}
        end_calls(tracer)

    told(story)


def test_a_follower_that_is_cut_off_is_waited_for_until_its_connection_is_lost() -> None:
    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        lost, stays = cluster.followers
        await produce(cluster, tracer)
        await cluster.loop.until(lambda: is_quiet(cluster))
        before = len(tracer.spans)
        cluster.network.partition([lost.name], [cluster.leader.name, stays.name])
        await produce(cluster, tracer)
        await cluster.loop.until(lambda: is_quiet(cluster))
        ended = [span.problem for span in tracer.spans[before:] if span.name == "replicate"]
        assert sorted(ended, key=str) == ["", DISCONNECTED]
        cluster.network.heal()
        await cluster.loop.until(lambda: lost.log.topic("").high_watermark == 2)
        assert is_quiet(cluster)
        end_calls(tracer)

    told(story)


def test_what_a_leader_that_is_cut_off_was_asked_ends_as_unknown() -> None:
    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        leader = cluster.leader
        cluster.network.partition([leader.name], [each.name for each in cluster.followers])
        future = produce(cluster, tracer)
        with pytest.raises(OutcomeUnknown):
            await future
        assert tracer.named("propose") == [OutcomeUnknown.reason]
        cluster.network.heal()
        await cluster.loop.until(lambda: is_quiet(cluster))
        end_calls(tracer)

    told(story)


def test_after_a_hand_over_the_next_leader_s_entries_are_followed() -> None:
    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        for _ in range(3):
            await produce(cluster, tracer)
            await cluster.leader.log.transfer_leadership()
            await cluster.loop.until(lambda: any(p.log.is_leader for p in cluster.places.values()))
        await cluster.loop.until(lambda: is_quiet(cluster))
        assert tracer.named("propose") == ["", "", ""]
        assert len(tracer.named("append")) == 9
        end_calls(tracer)

    told(story)


def test_what_nobody_samples_is_followed_nowhere() -> None:
    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        await cluster.append(10, 20)
        assert is_quiet(cluster)
        assert tracer.spans == []

    told(story)


def test_nodes_that_record_nothing_follow_nothing_whatever_they_are_told() -> None:
    async def main() -> None:
        tracer = FakeTracer()
        cluster = NodeCluster()
        await cluster.start()
        await produce(cluster, tracer)
        assert is_quiet(cluster)
        assert [span.name for span in tracer.spans] == ["a call"]
        await cluster.stop()

    on_virtual_time(main)


def test_a_step_that_a_call_kicks_is_no_part_of_that_call() -> None:
    """It serves all: what it logs, or begins, belongs to nobody in particular."""

    async def story(cluster: NodeCluster, tracer: FakeTracer) -> None:
        seen: list[object] = []
        group = cluster.leader.group
        take_proposals = group.take_proposals

        def watched() -> Any:
            seen.append(SERVED.get())
            return take_proposals()

        group.take_proposals = watched
        await produce(cluster, tracer)
        await cluster.loop.until(lambda: is_quiet(cluster))
        assert set(seen) == {None}
        end_calls(tracer)

    told(story)


def end_calls(tracer: FakeTracer) -> None:
    """End the last parts of the calls, as the server does with them."""
    for span in tracer.open:
        if span.name == "acknowledge":
            span.end()
