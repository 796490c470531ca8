"""The table of all metrics: their names, kinds, labels, and what each says.  docs/metrics.md is written from it.

Units are base units: seconds, bytes, and counts of what the name says.  A metric whose part of the node is not there, as the lag of
followers on a node that does not lead, has no sample then: that is no zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of samples."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chapter:
    """Metrics that belong together."""

    title: str
    metrics: tuple[Metric, ...]


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"distlog_{name}_total", COUNTER, help, labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"distlog_{name}", GAUGE, help, labels)


def _histogram(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"distlog_{name}", HISTOGRAM, help, labels)


CHAPTERS = (
    Chapter(
        "The node",
        (
            _gauge("build_info", "Always 1: which version runs.", "version"),
            _gauge(
                "node_info",
                "Always 1: which node of which cluster this is; an empty cluster_id: it belongs to none yet.",
                "node_id",
                "cluster_id",
            ),
            _gauge(
                "start_time_seconds", "When the process started, in seconds since the Unix epoch."
            ),
            _gauge("ready", "Whether it serves its clients, as /readyz says."),
            _gauge(
                "state",
                "1 for the state that the node is in, as /readyz names it, 0 for the others.",
                "state",
            ),
            _gauge(
                "recovery_target_index",
                "The raft index that the node has to apply before it is ready after a start; 0: it has not heard of it yet.",
            ),
            _counter(
                "log_messages",
                "Lines that the node has logged, by the part of distlog that they are of. Every warning and every error says what to do, "
                "and is counted whether --log-level lets it through or not.",
                "package",
                "level",
            ),
        ),
    ),
    Chapter(
        "Who gets in",
        (
            _gauge(
                "certificate_expiry_timestamp_seconds",
                "When the certificate of the node ends, in seconds since the Unix epoch. Absent without TLS.",
            ),
            _gauge(
                "certificate_authority_expiry_timestamp_seconds",
                "When the first of the authorities ends that the node trusts. Absent without TLS.",
            ),
            _counter(
                "certificate_renewals",
                "How often files with certificates had changed, and were taken, or refused because they were no good.",
                "outcome",
            ),
            _counter(
                "tls_handshakes",
                "Handshakes of TLS with other nodes (peer) and at the port for monitoring (http); of clients only gRPC knows.",
                "port",
            ),
            _counter(
                "tls_handshake_failures", "Of these, those that failed, by why.", "port", "reason"
            ),
            _counter(
                "authorization_decisions",
                "Requests that a policy has allowed or denied. Without a policy only what administers is asked about, and streams.",
                "action",
                "outcome",
            ),
            _counter(
                "audit_lines",
                "Lines of the audit log: written; left out, since there were too many in a second; lost, since the disk took none.",
                "outcome",
            ),
        ),
    ),
    Chapter(
        "Traces",
        (
            _counter(
                "spans",
                "Spans that have ended, by what became of them: exported; dropped, since the queue was full; failed, since the "
                "exporter could not send them. Absent, as the other two, where nothing is traced.",
                "outcome",
            ),
            _gauge("spans_waiting", "Spans that wait for their exporter, or are being sent."),
            _gauge("spans_waiting_max", "The limit of spans_waiting."),
        ),
    ),
    Chapter(
        "Calls of clients",
        (
            _counter(
                "calls",
                "Calls that are over, by their gRPC code; a stream counts once, when it ends. INTERNAL and DATA_LOSS begin at 0 with the "
                "process, so that a first one is an increase; the other codes appear when they occur.",
                "method",
                "code",
            ),
            _histogram(
                "call_duration_seconds", "How long calls took that have one answer.", "method"
            ),
            _counter(
                "stream_requests",
                "Requests of streams to produce that were answered, by the code in the answer; in ProduceBatch each is a batch. One that "
                "ends its stream is in calls_total instead.",
                "method",
                "code",
            ),
            _histogram(
                "stream_request_duration_seconds",
                "How long these took: from when one was read to when its answer was written.",
                "method",
            ),
            _counter(
                "refusals",
                "Requests that were refused, by the reason of the error; those of a batch stream, which goes on, included.",
                "reason",
            ),
            _gauge("calls_running", "Calls that are open now, streams included."),
            _gauge("calls_max", "The limit of calls_running."),
            _gauge("tails_open", "Streams that follow a topic."),
            _gauge("tails_max", "The limit of tails_open."),
            _gauge(
                "unread_bytes", "Bytes that were read for consumers which have not taken them yet."
            ),
            _gauge(
                "unread_max_bytes",
                "The limit of unread_bytes. At it tails wait, and are ended after a while: OVERLOADED.",
            ),
            _gauge("tails_waiting", "Reads that wait at the end of a topic for it to grow."),
        ),
    ),
    Chapter(
        "Records",
        (
            _counter(
                "appended_records",
                "Records that were written to the logs of this node, replays after a start included.",
            ),
            _counter("appended_bytes", "Bytes of these, as they are stored."),
            _counter("appended_batches", "Batches of these."),
            _counter("reads", "Reads from the logs for clients."),
            _counter("read_records", "Records in the batches that were read for clients."),
            _counter("read_bytes", "Bytes of these."),
            _gauge("topics", "Topics that there are."),
            _gauge(
                "topic_start_offset",
                "First offset that is kept. The 100 oldest topics have a label each.",
                "topic",
            ),
            _gauge(
                "topic_high_watermark", "One past the last readable offset on this node.", "topic"
            ),
            _gauge(
                "topic_size_bytes",
                'Bytes of store that the topic takes on this node; topic="*": all but the 100 oldest topics together.',
                "topic",
            ),
            _gauge(
                "topic_records",
                'Records that are kept; topic="*": all but the 100 oldest topics together.',
                "topic",
            ),
            _gauge(
                "producers", "Producers that the table knows; the oldest is forgotten at its limit."
            ),
            _gauge("producers_max", "The limit of producers."),
        ),
    ),
    Chapter(
        "Writes on their way",
        (
            _gauge("proposals_waiting", "Commands that wait for the next entry, on the leader."),
            _gauge(
                "proposals_bytes",
                "Bytes of commands that are waiting or in an entry that is not applied.",
            ),
            _gauge(
                "proposals_max_bytes",
                "The limit of proposals_bytes. Beyond it a write is refused: OVERLOADED.",
            ),
            _histogram("entry_commands", "Commands in each entry that this node has proposed."),
            _histogram("entry_size_bytes", "Bytes of each entry that this node has proposed."),
            _histogram(
                "commit_duration_seconds",
                "From when an entry was made to when it was applied: a majority has it then.",
            ),
            _gauge("inbox_messages", "Messages of other nodes that wait for the next step."),
            _gauge("inbox_bytes", "Bytes of these."),
            _gauge("inbox_max_bytes", "The limit of inbox_bytes. Who exceeds it is hung up on."),
        ),
    ),
    Chapter(
        "Consensus",
        (
            _gauge("raft_term", "The term that the node is in."),
            _gauge("raft_is_leader", "Whether this node leads and takes writes."),
            _gauge("raft_has_leader", "Whether this node leads, or hears a node that does."),
            _gauge("raft_is_voter", "Whether this node votes, and counts for a majority."),
            _gauge(
                "raft_commit_index",
                "The last entry that a majority has, as far as this node knows.",
            ),
            _gauge("raft_applied_index", "The last entry that is applied here."),
            _gauge("raft_last_index", "The last entry of the journal."),
            _gauge("raft_checkpoint_index", "The entry up to which a restart needs no journal."),
            _counter(
                "raft_elections", "Elections that this node has begun, since its state was opened."
            ),
            _counter(
                "raft_leader_changes",
                "How often this node has found another leader, or the same one in a newer term, since its state was opened.",
            ),
            _gauge(
                "raft_follower_lag_entries",
                "Entries that a follower has not acknowledged yet; only the leader knows it.",
                "follower",
            ),
            _gauge("members", "Members of the cluster, by whether they vote.", "kind"),
            _gauge("member_connected", "Whether this node has a connection to that one.", "member"),
            _gauge(
                "membership_changes_planned",
                "Changes of the members that the leader has to make; 0 on the others.",
            ),
        ),
    ),
    Chapter(
        "Journal and disk",
        (
            _histogram(
                "journal_sync_duration_seconds",
                "How long the journal's fsyncs took: every acknowledgement waits for one.",
            ),
            _histogram(
                "journal_write_size_bytes",
                "Bytes of each write of the journal: what one fsync serves.",
            ),
            _gauge("journal_size_bytes", "Bytes of journal on disk."),
            _gauge("journal_max_size_bytes", "The limit of journal_size_bytes."),
            _gauge(
                "journal_unsynced_bytes",
                "Bytes that are written and not synced: what --durability os may lose with the power.",
            ),
            _gauge(
                "disk_free_bytes",
                "Bytes that the node may still write to the file system of its data directory.",
            ),
            _gauge(
                "storage_full",
                "Whether the node takes no writes for want of space, or of open files.",
            ),
            _gauge(
                "reserve_bytes", "What is left of the space that is kept for what was promised."
            ),
            _gauge("reserve_max_bytes", "That space when it is whole."),
        ),
    ),
    Chapter(
        "Damage and copies",
        (
            _counter(
                "corruption_found",
                "Damaged segments that were found, by reading all again or by a client's read.",
            ),
            _counter(
                "corruption_repaired", "Of these, those that were replaced from another node."
            ),
            _counter("corruption_repairs_failed", "Attempts to do so that failed."),
            _gauge("damaged_segments", "Segments that are damaged now, and refused."),
            _counter("scrub_passes", "How often all segments were read again, to the end."),
            _counter("scrub_checked_bytes", "Bytes that were read again."),
            _gauge(
                "copy_size_bytes",
                "Bytes of the copy of another node's state that is under way; 0: none is.",
            ),
            _gauge("copy_done_bytes", "Of these, those that are here."),
            _counter(
                "copies",
                "Copies of another node's state: begun, finished, and rounds that failed.",
                "event",
            ),
            _counter("copy_sent_bytes", "Bytes that were sent to nodes that copy from this one."),
        ),
    ),
    Chapter(
        "Other nodes",
        (
            _counter("peer_bytes", "Bytes to and from the other nodes.", "direction"),
            _counter("peer_frames", "Frames to and from the other nodes.", "direction"),
            _counter("peer_events", "What happened to connections with other nodes.", "event"),
            _gauge("peer_queue_bytes", "Bytes that wait to be sent to a member.", "member"),
            _gauge("peer_queue_max_bytes", "The limit of peer_queue_bytes."),
            _gauge(
                "discovery_nodes",
                "Nodes that discovery sees, this one included, by status.",
                "status",
            ),
            _gauge(
                "discovery_view_age_seconds",
                "How long ago the view of discovery was certainly true. Absent before it has seen anything.",
            ),
            _gauge("discovery_conflicts", "Names under which discovery sees more than one node."),
        ),
    ),
    Chapter(
        "The event loop",
        (
            _counter(
                "loop_stalls",
                "How often the event loop was held up for 20 ms or more, since the state was opened.",
            ),
            _gauge("loop_stall_max_seconds", "The longest of these."),
            _histogram(
                "step_duration_seconds",
                "How long steps of consensus took: nothing else runs meanwhile.",
            ),
        ),
    ),
    Chapter(
        "The process",
        (
            _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            _gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            _gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            _counter("process_cpu_seconds", "Total user and system CPU time spent in seconds."),
            _gauge("process_open_fds", "Number of open file descriptors."),
            _gauge("process_max_fds", "Maximum number of open file descriptors."),
        ),
    ),
)

METRICS = {metric.name: metric for chapter in CHAPTERS for metric in chapter.metrics}


def document() -> Iterator[str]:
    """Yield the lines of docs/metrics.md."""
    yield from (
        "# Metrics",
        "",
        "What a node tells at `/metrics` of its `--http-listen` address, in the format of Prometheus. This page is written from",
        "`distlog/monitoring/metrics.py` by `make metrics`.",
        "",
        "A metric whose part of the node is not there, as the lag of followers on a node that does not lead, has no sample then: that is",
        "no zero. Counters begin at 0 with the process, and those of consensus again when a node goes over to a copied state.",
    )
    for chapter in CHAPTERS:
        yield from (
            "",
            f"## {chapter.title}",
            "",
            "| metric | kind | labels | |",
            "|---|---|---|---|",
        )
        for metric in chapter.metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
