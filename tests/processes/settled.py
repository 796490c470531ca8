"""The end of a run: what every node has, over gRPC and, after a clean stop, in its files, against what clients were told."""

from __future__ import annotations

from tests.processes.checker import History, NodeLog, problems_of_run
from tests.processes.process_cluster import ProcessCluster
from tests.processes.stored_log import differences, read_stored_log


async def check_over_grpc(cluster: ProcessCluster, history: History, high_watermark: int) -> None:
    """Read the whole log from every node, and fail on any broken promise."""
    await cluster.reach(high_watermark)
    logs = [
        NodeLog(f"{node.node_id} (gRPC)", await cluster.read_log(node.node_id, high_watermark))
        for node in cluster.running
    ]
    problems = problems_of_run(history, logs)
    assert problems == [], "\n".join(problems)


async def check_files(
    cluster: ProcessCluster, history: History | None = None
) -> list[tuple[int, bytes]]:
    """Stop all nodes, read their files, and fail on a difference or, given a history, on any broken promise.

    Return (offset, value) of all records.
    """
    await cluster.terminate()
    stored = [read_stored_log(f"{node.node_id} (files)", node.log_directory) for node in cluster]
    problems = [problem for log in stored for problem in log.problems]
    if history is not None:
        problems += problems_of_run(history, [log.as_node_log() for log in stored])
    problems += differences(stored)
    assert problems == [], "\n".join(problems)
    return stored[0].records
