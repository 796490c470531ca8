"""What keeps the event loop busy is counted once, by whom it was, and logged seldom."""

from __future__ import annotations

import asyncio
import logging

import pytest

from distlog.consensus.stalls import BUCKETS_S, NO_STALLS, Stalls
from distlog.storage.segment_files import SegmentLimits
from tests.consensus.nodes import NodeCluster, on_virtual_time


def test_steps_are_counted_by_their_length() -> None:
    stalls = Stalls()
    assert stalls.report() == NO_STALLS
    for duration_s in (0.0, 0.001, 0.0011, 0.019, 0.5, 7.0):
        stalls.stepped(0.0, duration_s)
    report = stalls.report()
    counted = dict(zip([*BUCKETS_S, "longer"], stalls.steps.counts, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {
        0.001: 2, 0.002: 1, 0.02: 1, 0.5: 1, "longer": 1,
    }  # fmt: skip
    assert report.count == 2
    assert report.longest_s == pytest.approx(7.0)
    assert stalls.steps.total == pytest.approx(7.5211)


def test_a_timer_that_comes_late_is_a_stall_unless_a_step_explains_it() -> None:
    stalls = Stalls()
    stalls.was_due(due_at=1.0, began_at=1.019)
    assert stalls.report().count == 0
    stalls.was_due(due_at=2.0, began_at=2.05)
    assert stalls.report().count == 1
    stalls.stepped(2.99, 3.03)
    stalls.was_due(due_at=3.0, began_at=3.03)
    assert stalls.report().count == 2
    assert stalls.report().longest_s == pytest.approx(0.05)
    assert stalls.steps.count == 1


def test_a_long_stall_is_logged_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    stalls = Stalls()
    stalls.stepped(0.0, 0.09)
    assert caplog.messages == []
    for began_at in (1.0, 2.0, 10.0, 12.0):
        stalls.stepped(began_at, began_at + 0.15)
    assert len(caplog.messages) == 2
    assert "duration_ms=150 cause=a step of consensus stalls=2" in caplog.messages[0]
    assert "stalls=5" in caplog.messages[1]


def test_a_node_reports_what_held_up_its_loop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        cluster = NodeCluster()
        await cluster.start()
        await cluster.append(100)
        leader = cluster.leader
        before = leader.log.status().stalls
        assert before.count == 0
        assert leader.group.stalls.steps.count > 10
        # Something outside of consensus keeps the loop while an append waits for it.
        appended = asyncio.ensure_future(cluster.append(100))
        await asyncio.sleep(0)
        cluster.loop.advance(0.3)
        await appended
        after = leader.log.status().stalls
        assert after.count == 1
        assert after.longest_s == pytest.approx(0.3)
        await cluster.stop()

    on_virtual_time(main)
    assert "cause=other work, or the process did not run stalls=1" in caplog.text


def test_many_topics_are_described_in_parts() -> None:
    async def main() -> None:
        cluster = NodeCluster()
        await cluster.start()
        log = cluster.leader.log
        limits = SegmentLimits(1 << 16, 1 << 8)
        await asyncio.gather(*[log.create_topic(f"t{number:02}", limits) for number in range(24)])
        names = [f"t{number:02}" for number in range(24)]
        assert log.status(with_topics=False).topics == ()
        pages = log.topic_pages(10)
        first = next(pages)
        assert [topic.name for topic in first] == ["default", *names[:9]]
        await log.delete_topic("t10")
        await log.create_topic("t105", limits)
        rest = [topic.name for page in pages for topic in page]
        assert rest == [*names[9:10], *names[11:]], "what is gone is left out, what is new too"
        await cluster.stop()

    on_virtual_time(main)
