"""One node as samples of the table of metrics: everything is read when it is asked for, on the event loop, in one step.

What is counted anywhere in a node is a plain integer or a `Histogram` there; here alone it gets its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from distlog import __version__
from distlog.consensus.group import Group
from distlog.consensus.state_machine import StateMachine
from distlog.consensus.topics import Topic
from distlog.consensus.views import STATES
from distlog.discovery.view import MemberStatus
from distlog.errors import DistlogError
from distlog.logs import LogMemory
from distlog.measures import Histogram
from distlog.monitoring import metrics
from distlog.node import Node
from distlog.server.calls import Calls, Ended
from distlog.server.limits import ServerLimits
from distlog.tracing.counts import SpanCounts

# Topics with a label of their own: the oldest, so that a new one changes no series.
TOPIC_COUNT_MAX = 100
# So many others are looked at each time that somebody asks.
LOOK_COUNT = 250
# The label of all others together: no name of a topic.
OTHERS = "*"
PEER_COUNTED = {"bytes_sent", "bytes_received", "frames_sent", "frames_received"}

Labels = tuple[str, ...]


class Served(Protocol):
    """The port for clients, as far as it is counted here: a `Listener` is one."""

    @property
    def calls(self) -> Calls: ...
    @property
    def limits(self) -> ServerLimits: ...
    @property
    def tail_count(self) -> int: ...
    @property
    def unread_size(self) -> int: ...
    @property
    def answered(self) -> Mapping[str, Ended]: ...


class Certificates(Protocol):
    """The certificates of a node: `security.tls.Credentials`."""

    @property
    def expires_at_s(self) -> tuple[float, float]: ...
    @property
    def renewal_counts(self) -> Mapping[str, int]: ...


class Handshakes(Protocol):
    """A port that is encrypted: `security.network.TlsNetwork`."""

    @property
    def handshake_count(self) -> int: ...
    @property
    def failures(self) -> Mapping[str, int]: ...


class Decisions(Protocol):
    """Who may do what: `server.authorization.Authorization`."""

    @property
    def decision_counts(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def audit_counts(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Defences:
    """What keeps out of a node who does not belong there; None, and nothing: it is not there."""

    certificates: Certificates | None = None
    # By the name of the port.
    handshakes: Mapping[str, Handshakes] = field(default_factory=dict)
    decisions: Decisions | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What the metrics of one node are read from."""

    node: Node
    served: Served
    log: LogMemory
    started_at_s: float
    defences: Defences
    # None: nothing is traced.
    spans: SpanCounts | None = None


class Samples:
    """Values by metric and labels, as they are found."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[Labels, float | Histogram]]] = {}

    def put(self, name: str, value: float | Histogram, *labels: str) -> None:
        """Add one value.  name: without `distlog_`, as it is in the table."""
        metric = metrics.METRICS[f"distlog_{name}"]
        assert len(labels) == len(metric.labels), f"{name} has the labels {metric.labels}"
        self.values.setdefault(metric.name, []).append((labels, value))

    def families(self) -> Iterator[Metric]:
        """Yield what has values, in the order of the table."""
        for name, metric in metrics.METRICS.items():
            if name in self.values:
                yield _family(metric, self.values[name])


def _family(metric: metrics.Metric, values: Iterable[tuple[Labels, float | Histogram]]) -> Metric:
    if metric.kind == metrics.HISTOGRAM:
        histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in values:
            assert isinstance(value, Histogram)
            histograms.add_metric(labels, list(_buckets(value)), value.total)
        return histograms
    made = CounterMetricFamily if metric.kind == metrics.COUNTER else GaugeMetricFamily
    family = made(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    """Yield (upper bound, how many values were up to it), as the format has it."""
    count = 0
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    for bound, more in zip(bounds, histogram.counts, strict=True):
        count += more
        yield bound, count


class NodeCollector(Collector):
    """The metrics of one node."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._topics = Topics()

    def collect(self) -> Iterator[Metric]:
        samples = Samples()
        _node(samples, self._sources)
        _defences(samples, self._sources.defences)
        if self._sources.spans is not None:
            _spans(samples, self._sources.spans)
        _calls(samples, self._sources.served)
        _peers(samples, self._sources.node)
        _disk(samples, self._sources.node)
        group = self._sources.node.group
        if group is not None:
            _records(samples, self._sources.node, group.state_machine)
            self._topics.put(samples, list(group.state_machine.topics()))
            _on_their_way(samples, self._sources.node, group)
            _consensus(samples, self._sources.node, group)
            _journal(samples, self._sources.node, group)
            _loop(samples, group)
        _files(samples, self._sources.node)
        return samples.families()


def _node(samples: Samples, sources: Sources) -> None:
    log = sources.node.replicated_log
    standing, status = log.standing(), log.status(with_topics=False)
    samples.put("build_info", 1, __version__)
    samples.put("node_info", 1, status.node_id, status.cluster_id)
    samples.put("start_time_seconds", sources.started_at_s)
    samples.put("ready", standing.is_ready)
    for state in STATES:
        samples.put("state", state == standing.state, state)
    for (package, level), count in list(sources.log.counts.items()):
        samples.put("log_messages_total", count, package, level)


def _defences(samples: Samples, defences: Defences) -> None:
    certificates, decisions = defences.certificates, defences.decisions
    if certificates is not None:
        own_s, authorities_s = certificates.expires_at_s
        samples.put("certificate_expiry_timestamp_seconds", own_s)
        samples.put("certificate_authority_expiry_timestamp_seconds", authorities_s)
        for outcome, count in certificates.renewal_counts.items():
            samples.put("certificate_renewals_total", count, outcome)
    for port, handshakes in defences.handshakes.items():
        samples.put("tls_handshakes_total", handshakes.handshake_count, port)
        for reason, count in handshakes.failures.items():
            samples.put("tls_handshake_failures_total", count, port, reason)
    if decisions is not None:
        for (action, outcome), count in decisions.decision_counts.items():
            samples.put("authorization_decisions_total", count, action, outcome)
        for outcome, count in decisions.audit_counts.items():
            samples.put("audit_lines_total", count, outcome)


def _spans(samples: Samples, counts: SpanCounts) -> None:
    samples.put("spans_total", counts.exported, "exported")
    samples.put("spans_total", counts.dropped, "dropped")
    samples.put("spans_total", counts.failed, "failed")
    samples.put("spans_waiting", counts.waiting)
    samples.put("spans_waiting_max", counts.waiting_max)


def _calls(samples: Samples, listener: Served) -> None:
    _ended(samples, listener.calls.ended, "calls_total", "call_duration_seconds")
    _ended(
        samples,
        listener.answered,
        *("stream_requests_total", "stream_request_duration_seconds"),
    )
    for reason, count in listener.calls.refused.items():
        samples.put("refusals_total", count, reason)
    samples.put("calls_running", listener.calls.running_count)
    samples.put("calls_max", listener.limits.call_count_max)
    samples.put("tails_open", listener.tail_count)
    samples.put("tails_max", listener.limits.tail_count_max)
    samples.put("unread_bytes", listener.unread_size)
    samples.put("unread_max_bytes", listener.limits.unread_size_max)


def _ended(samples: Samples, by_method: Mapping[str, Ended], counter: str, histogram: str) -> None:
    for method, ended in by_method.items():
        for code, count in ended.codes.items():
            samples.put(counter, count, method, code)
        if ended.durations.count:
            samples.put(histogram, ended.durations, method)


def _records(samples: Samples, node: Node, state_machine: StateMachine) -> None:
    samples.put("appended_records_total", state_machine.appended_record_count)
    samples.put("appended_bytes_total", state_machine.appended_size)
    samples.put("appended_batches_total", state_machine.appended_batch_count)
    served = node.replicated_log.served
    samples.put("reads_total", served.read_count)
    samples.put("read_records_total", served.record_count)
    samples.put("read_bytes_total", served.size)
    samples.put("producers", len(state_machine.producers))
    samples.put("producers_max", state_machine.producers.count_max)


class Topics:
    """The topics of one node: some with a label each, and all others together."""

    def __init__(self) -> None:
        # Where the next look at the others begins; what it has added up since their beginning, and what all were when they were
        # looked at last: bytes and records.
        self._position = 0
        self._adding = (0, 0)
        self._others: tuple[int, int] | None = None

    def put(self, samples: Samples, topics: list[Topic]) -> None:
        """Add what there is to say of all topics; they come in the order of their creation."""
        samples.put("topics", len(topics))
        for topic in topics[:TOPIC_COUNT_MAX]:
            log, name = topic.log, topic.name
            samples.put("topic_start_offset", log.start_offset, name)
            samples.put("topic_high_watermark", log.next_offset, name)
            samples.put("topic_size_bytes", log.size, name)
            samples.put("topic_records", log.next_offset - log.start_offset, name)
        if len(topics) > TOPIC_COUNT_MAX:
            self._look_at_some(topics[TOPIC_COUNT_MAX:])
        if len(topics) > TOPIC_COUNT_MAX and self._others is not None:
            size, record_count = self._others
            samples.put("topic_size_bytes", size, OTHERS)
            samples.put("topic_records", record_count, OTHERS)

    def _look_at_some(self, topics: list[Topic]) -> None:
        """Look at the next of the others: at all of ten thousand each time would hold up the node."""
        logs = [topic.log for topic in topics[self._position : self._position + LOOK_COUNT]]
        size, record_count = self._adding
        size += sum(log.size for log in logs)
        record_count += sum(log.next_offset - log.start_offset for log in logs)
        self._position += LOOK_COUNT
        self._adding = (size, record_count)
        if self._position >= len(topics):
            self._others = self._adding
            self._position, self._adding = 0, (0, 0)


def _on_their_way(samples: Samples, node: Node, group: Group) -> None:
    log = node.replicated_log
    proposals = log.proposals
    samples.put("tails_waiting", log.tails.count)
    samples.put("proposals_waiting", proposals.waiting_count)
    samples.put("proposals_bytes", proposals.size)
    samples.put("proposals_max_bytes", proposals.size_max)
    samples.put("entry_commands", proposals.counts)
    samples.put("entry_size_bytes", proposals.sizes)
    samples.put("commit_duration_seconds", proposals.durations)
    samples.put("inbox_messages", len(group.inbox))
    samples.put("inbox_bytes", group.inbox.size)
    samples.put("inbox_max_bytes", group.inbox.size_max)


def _consensus(samples: Samples, node: Node, group: Group) -> None:
    raft, configuration = group.raft, group.configuration
    own = raft.replicas.node_id
    samples.put("recovery_target_index", raft.catch_up_target)
    samples.put("raft_term", raft.term)
    samples.put("raft_is_leader", node.replicated_log.is_leader)
    samples.put("raft_has_leader", raft.is_led)
    samples.put("raft_is_voter", own in configuration.voters)
    samples.put("raft_commit_index", raft.commit_index)
    samples.put("raft_applied_index", raft.last_applied)
    samples.put("raft_last_index", group.journal.last_index)
    samples.put("raft_checkpoint_index", group.checkpoints.index)
    samples.put("raft_elections_total", raft.campaign_count)
    samples.put("raft_leader_changes_total", group.leader_change_count)
    voter_count = len(configuration.voters)
    samples.put("members", voter_count, "voter")
    samples.put("members", len(configuration.members) - voter_count, "learner")
    samples.put("membership_changes_planned", len(group.membership.planned()))
    for member in configuration.members:
        if member == own:
            continue
        samples.put("member_connected", member in raft.replicas.reachable, member)
        samples.put("peer_queue_bytes", node.peers.waiting_size(member), member)
        if raft.is_leader:
            known = raft.followers.last_matched.get(member, 0)
            samples.put("raft_follower_lag_entries", group.journal.last_index - known, member)


def _journal(samples: Samples, node: Node, group: Group) -> None:
    samples.put("journal_sync_duration_seconds", group.journal_sync.durations)
    samples.put("journal_write_size_bytes", group.journal_sync.sizes)
    samples.put("journal_size_bytes", group.journal.size)
    samples.put("journal_max_size_bytes", node.settings.replicated_log.journal_size_max)
    samples.put("journal_unsynced_bytes", group.journal.unsynced_size)
    samples.put("storage_full", group.space.is_full)


def _disk(samples: Samples, node: Node) -> None:
    try:
        samples.put("disk_free_bytes", node.disk_free_size())
        samples.put("reserve_bytes", node.reserve.held)
    except DistlogError:
        # A disk that does not even answer that: the node says so itself when it needs it.
        pass
    samples.put("reserve_max_bytes", node.reserve.size)


def _files(samples: Samples, node: Node) -> None:
    files = node.files
    if files is None:
        return
    scrub, counters = files.scrub, files.scrub.counters
    samples.put("corruption_found_total", counters["faults_found"])
    samples.put("corruption_repaired_total", counters["segments_repaired"])
    samples.put("corruption_repairs_failed_total", counters["repairs_failed"])
    samples.put("damaged_segments", len(scrub.damaged))
    samples.put("scrub_passes_total", counters["passes"])
    samples.put("scrub_checked_bytes_total", counters["bytes_checked"])
    progress = files.catch_up.progress
    samples.put("copy_size_bytes", progress.size if progress else 0)
    samples.put("copy_done_bytes", progress.done_size if progress else 0)
    for event, count in files.catch_up.counters.items():
        samples.put("copies_total", count, event)
    samples.put("copy_sent_bytes_total", files.source.counters["bytes_sent"])


def _peers(samples: Samples, node: Node) -> None:
    counters = node.peers.counters
    for direction in ("sent", "received"):
        samples.put("peer_bytes_total", counters[f"bytes_{direction}"], direction)
        samples.put("peer_frames_total", counters[f"frames_{direction}"], direction)
    for event, count in counters.items():
        if event not in PEER_COUNTED:
            samples.put("peer_events_total", count, event)
    samples.put("peer_queue_max_bytes", node.settings.peer_limits.raft.queue_size_max)
    view = node.finding.view()
    statuses = [member.status for member in view.members.values()]
    for status in MemberStatus:
        samples.put("discovery_nodes", statuses.count(status), status.value)
    if view.age_s != float("inf"):
        samples.put("discovery_view_age_seconds", view.age_s)
    discovery = node.finding.discovery
    samples.put("discovery_conflicts", len(discovery.conflicts()) if discovery else 0)


def _loop(samples: Samples, group: Group) -> None:
    report = group.stalls.report()
    samples.put("loop_stalls_total", report.count)
    samples.put("loop_stall_max_seconds", report.longest_s)
    samples.put("step_duration_seconds", group.stalls.steps)
