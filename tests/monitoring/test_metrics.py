"""The metrics: their list, their names, and that each of them says what it is about."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distlog.block import Block
from distlog.measures import Histogram
from distlog.monitoring.collector import LOOK_COUNT, OTHERS, TOPIC_COUNT_MAX, Samples, Topics
from distlog.monitoring.metrics import COUNTER, GAUGE, HISTOGRAM, METRICS, Metric
from distlog.server.calls import Ended
from distlog.storage.segment_files import SegmentLimits
from tests.consensus.nodes import NodeCluster
from tests.monitoring.document import PAGE, written
from tests.monitoring.nodes import Monitored, monitored

# Those that a node on virtual time has not: it has no process of its own, no certificate, nobody who decides, and exports no spans.
DEFENCES = {
    "distlog_certificate_expiry_timestamp_seconds",
    "distlog_certificate_authority_expiry_timestamp_seconds",
    "distlog_certificate_renewals_total",
    "distlog_tls_handshakes_total",
    "distlog_tls_handshake_failures_total",
    "distlog_authorization_decisions_total",
    "distlog_audit_lines_total",
}
ELSEWHERE = DEFENCES | {
    name for name in METRICS if name.startswith(("distlog_process_", "distlog_spans"))
}
UNITS = {"seconds", "bytes"}
OTHER_UNITS = re.compile(r"_(ms|us|milliseconds|minutes|kb|kib|mib|gib|percent)(_|$)")


def test_the_page_is_written_from_the_table() -> None:
    assert PAGE.read_text("utf-8") == written(), "if the change is meant: make metrics"


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_a_metric_is_named_as_the_others_and_explained(metric: Metric) -> None:
    assert re.fullmatch(r"distlog_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.kind in (COUNTER, GAUGE, HISTOGRAM)
    assert metric.name.endswith("_total") == (metric.kind == COUNTER)
    assert not OTHER_UNITS.search(metric.name)
    assert metric.help.endswith(".")
    assert len(metric.help) > 10


def bases(samples: dict[str, list[object]]) -> set[str]:
    """Return the names of the metrics that these are samples of."""
    return {
        name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name) for name in samples
    }


def test_three_nodes_in_one_process_have_all_metrics_and_each_its_own() -> None:
    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        await cluster.append(100, 2000, 30000)
        await cluster.loop.pass_time(1.0)
        (leader,) = [node for node in nodes.values() if node.place.log.is_leader]
        await leader.place.log.read("", 0, size_max=1 << 20)
        leader.served.calls.ended["log.v1.Log.Produce"] = ended()
        leader.served.answered["log.v1.Log.ProduceBatch"] = ended()
        leader.served.calls.refused["NOT_LEADER"] += 1
        found = [bases(node.samples()) for node in nodes.values()]  # type: ignore[arg-type]
        assert set().union(*found) == METRICS.keys() - ELSEWHERE
        for node in nodes.values():
            (labels, value), *more = node.samples()["distlog_node_info"]
            assert (labels["node_id"], value, more) == (node.name, 1, [])
            assert node.value("distlog_raft_is_leader") == (node is leader)
            assert node.value("distlog_raft_is_voter") == 1
            assert node.value("distlog_appended_records_total") == 3
            assert node.value("distlog_topic_high_watermark", topic="default") == 3
            is_read = node is leader
            assert node.value("distlog_read_records_total") == 3 * is_read
            lags = node.samples().get("distlog_raft_follower_lag_entries", [])
            assert len(lags) == (2 if node is leader else 0)
        assert leader.value("distlog_journal_sync_duration_seconds_count") > 0  # type: ignore[operator]
        assert leader.value("distlog_entry_commands_sum") == 3
        for metric, method in (("calls", "Produce"), ("stream_requests", "ProduceBatch")):
            labels = {"method": f"log.v1.Log.{method}"}
            counted = [
                leader.value(f"distlog_{metric}_total", code=code, **labels)
                for code in ("OK", "INTERNAL", "DATA_LOSS", "UNAVAILABLE")
            ]
            assert counted == [1, 0, 0, None]
        assert leader.value("distlog_commit_duration_seconds_count") > 0  # type: ignore[operator]

    monitored(body)


def ended() -> Ended:
    calls = Ended()
    calls.add("OK", 0.003)
    return calls


def test_a_histogram_counts_a_value_with_the_bound_that_it_equals() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.add(value)
    assert (histogram.counts, histogram.total, histogram.count) == ([2, 2, 1], 7.5, 5)


def test_topics_beyond_the_limit_have_no_label_of_their_own_and_are_added_up() -> None:
    more = 7

    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        (leader,) = [node for node in nodes.values() if node.place.log.is_leader]
        log = leader.place.log
        limits = SegmentLimits(store_size_max=4096, row_count_max=16)
        # `default` is the oldest of all.
        names = [f"t{number}" for number in range(TOPIC_COUNT_MAX - 1 + more)]
        for name in names:
            await log.create_topic(name, limits)
            await log.propose_append(name, Block.from_records([b"1234567890"] * 2))
        found = leader.samples()
        labels = [labels["topic"] for labels, _ in found["distlog_topic_high_watermark"]]
        assert labels == ["default", *names[: TOPIC_COUNT_MAX - 1]]
        assert leader.value("distlog_topics") == len(names) + 1
        assert leader.value("distlog_topic_records", topic="*") == 2 * more
        size = sum(log.topic(name).size for name in names[-more:])
        assert leader.value("distlog_topic_size_bytes", topic="*") == size > 0
        assert len(leader.status()["topics"]) == TOPIC_COUNT_MAX
        assert leader.status()["topic_count"] == len(names) + 1

    monitored(body)


class Kept:
    """A topic that takes ten bytes, and notes that somebody looked."""

    def __init__(self, number: int, looked_at: list[int]) -> None:
        self.name = f"t{number}"
        self.log = self
        self.start_offset, self.next_offset = 0, 2
        self._number = number
        self._looked_at = looked_at

    @property
    def size(self) -> int:
        self._looked_at.append(self._number)
        return 10


def test_a_scrape_looks_at_some_of_many_topics_and_shows_all_others_when_it_has_seen_them() -> None:
    looked_at: list[int] = []
    count = TOPIC_COUNT_MAX + 2 * LOOK_COUNT + 1
    topics: Any = [Kept(number, looked_at) for number in range(count)]
    shown = Topics()
    for scrape in range(1, 5):
        looked_at.clear()
        samples = Samples()
        shown.put(samples, topics)
        assert len(looked_at) <= TOPIC_COUNT_MAX + LOOK_COUNT
        sizes = {labels[0]: value for labels, value in samples.values["distlog_topic_size_bytes"]}
        assert sizes.get(OTHERS) == (None if scrape < 3 else 10 * (count - TOPIC_COUNT_MAX))
        assert len(sizes) == TOPIC_COUNT_MAX + (scrape >= 3)


def test_the_loss_of_a_follower_shows_as_its_lag_and_a_missing_connection() -> None:
    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        (leader,) = [node for node in nodes.values() if node.place.log.is_leader]
        lost, stays = [node for node in nodes.values() if node is not leader]
        lost.place.node.abandon()
        for _ in range(5):
            await cluster.append(10)
            await cluster.loop.pass_time(0.1)
        await cluster.loop.until(
            lambda: leader.value("distlog_member_connected", member=lost.name) == 0
        )
        assert leader.value("distlog_raft_follower_lag_entries", follower=lost.name) == 5
        assert leader.value("distlog_raft_follower_lag_entries", follower=stays.name) == 0
        assert leader.value("distlog_member_connected", member=stays.name) == 1
        members = {each["node_id"]: each["connected"] for each in leader.status()["members"]}
        assert members == {leader.name: True, stays.name: True, lost.name: False}

    monitored(body)
