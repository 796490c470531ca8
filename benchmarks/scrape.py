"""What it costs a node to be looked at: how long its event loop is held up by one scrape, and by one look at its status.

    python -m benchmarks.scrape [--runs 9] [--json]

One node, not served to anybody, with 100 and with 1,000 topics of which each has a record; no network.  A page is made in one step of the
event loop, so the greatest of these figures is how much later everything else is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence

from benchmarks.cluster import machine
from benchmarks.figures import Figure, table
from benchmarks.steps import Step, figures, us_each
from distlog.block import Block
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.logs import LogMemory
from distlog.monitoring.monitor import Monitor
from distlog.monitoring.pages import readyz, status
from distlog.node import Node
from distlog.node_settings import NodeSettings
from distlog.runtime import SystemClock
from distlog.serve import real_ports
from distlog.server.listen import Listener
from distlog.storage.segment_files import SegmentLimits

TOPIC_COUNTS = (100, 1000)
LIMITS = SegmentLimits(store_size_max=1 << 16, row_count_max=256)
RECORD = Block.from_records([b"x" * 100])
CREATED_AT_ONCE = 100
LOOKS = 20
# No step of the event loop may take longer.
STEP_AT_MOST_US = 20_000.0


async def grow(log: ReplicatedLog, first: int, end: int) -> None:
    """Create topics and append a record to each."""
    for begin in range(first, end, CREATED_AT_ONCE):
        names = [f"topic-{number}" for number in range(begin, min(begin + CREATED_AT_ONCE, end))]
        await asyncio.gather(*(log.create_topic(name, LIMITS) for name in names))
        await asyncio.gather(*(log.propose_append(name, RECORD) for name in names))


def looks(monitor: Monitor, count: int) -> Iterator[Step]:
    topics = f"with {count:,} topics"
    yield f"/metrics {topics}", us_each(LOOKS, monitor.exposition), STEP_AT_MOST_US
    yield f"/status {topics}", us_each(LOOKS, lambda: status(monitor)), STEP_AT_MOST_US
    yield f"/readyz {topics}", us_each(LOOKS, lambda: readyz(monitor)), STEP_AT_MOST_US


async def measured(run_count: int) -> list[Figure]:
    """Return the figures of one node, as its topics become more."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        place = ("127.0.0.1", 0)
        settings = NodeSettings(
            node_id="n1", data_dir=directory, peer_listen=place, peers={"n1": place}
        )
        node = Node(settings, real_ports())
        log, clock = node.replicated_log, SystemClock()
        listener = Listener(
            log,
            host="127.0.0.1",
            port=0,
            insecure=False,
            random_bytes=secrets.token_bytes,
            now=clock.monotonic,
        )
        monitor = Monitor(node, listener, clock=clock, log=LogMemory())
        leads = asyncio.Event()
        log.on_role_change(lambda: leads.set() if log.is_leader else None)
        await node.start("127.0.0.1:1")
        await leads.wait()
        for first, end in zip((0, *TOPIC_COUNTS), TOPIC_COUNTS, strict=False):
            await grow(log, first, end)
            found += figures(lambda end=end: looks(monitor, end), run_count)  # type: ignore[misc]
        await node.stop()
        await listener.stop(0)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    namespace = parser.parse_args(arguments)
    # That its loop is held up is what is looked for: the node need not say so.
    logging.getLogger("distlog").addHandler(logging.NullHandler())
    found = asyncio.run(measured(namespace.runs))
    if namespace.json:
        fields = {"machine": machine(), "figures": [figure.as_dict() for figure in found]}
        print(json.dumps(fields, indent=2))
    else:
        print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
