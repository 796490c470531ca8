"""The monitoring of one node: its registry, its pages, and the port that they are on."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from distlog import __version__
from distlog.consensus.topic_descriptions import describe
from distlog.consensus.views import NodeStatus, Standing
from distlog.errors import DistlogError
from distlog.logs import LogMemory
from distlog.monitoring.collector import TOPIC_COUNT_MAX, Defences, NodeCollector, Served, Sources
from distlog.monitoring.http import HttpLimits, HttpServer
from distlog.monitoring.pages import GUARDED, pages_of
from distlog.node import Node
from distlog.runtime import Clock, Network
from distlog.server.about import About
from distlog.tracing.counts import SpanCounts


class Monitor:
    """What the port for monitoring shows of a node."""

    def __init__(
        self,
        node: Node,
        served: Served,
        *,
        clock: Clock,
        log: LogMemory,
        with_process: bool = True,
        defences: Defences | None = None,
        is_open: bool = False,
        spans: SpanCounts | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        """with_process: whether the node is its process, whose memory and time are shown.

        defences: what is counted of who is kept out.  is_open: strangers are shown everything also where connections are encrypted.
        spans: None: nothing is traced.
        """
        self._node = node
        self._log = log
        self._clock = clock
        self._began_at = clock.monotonic()
        self.registry = CollectorRegistry(auto_describe=False)
        sources = Sources(
            node=node,
            served=served,
            log=log,
            started_at_s=clock.wall_ms() / 1000,
            defences=defences or Defences(),
            spans=spans,
        )
        self.registry.register(NodeCollector(sources))
        if with_process:
            ProcessCollector(namespace="distlog", registry=self.registry)
        self._server = HttpServer(
            pages_of(self, self.exposition), clock, limits, () if is_open else GUARDED
        )

    async def start(self, network: Network, host: str, port: int) -> int:
        """Listen; return the port.  Raises AddressUnavailable."""
        return await self._server.start(network, host, port)

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.stop()

    def exposition(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # --- What the pages show --------------------------------------------------------------------

    def standing(self) -> Standing:
        return self._node.replicated_log.standing()

    def status(self) -> NodeStatus:
        return self._node.replicated_log.status(with_topics=False)

    @property
    def failure(self) -> str:
        failed = self._node.failed
        error = failed.exception() if failed.done() else None
        if error is None:
            return ""
        return str(error) if isinstance(error, DistlogError) else "an internal error: see its log"

    def about(self) -> About:
        """Return what the node says of its process."""
        node = self._node
        try:
            disk_free = node.disk_free_size()
        except DistlogError:
            disk_free = None
        return About(
            uptime_s=round(self._clock.monotonic() - self._began_at, 3),
            disk_free=disk_free,
            reserve=node.reserve.held,
            reserve_max=node.reserve.size,
            last_problems=self._log.last,
        )

    def extras(self) -> dict[str, Any]:
        group = self._node.group
        topics = group.state_machine.topics() if group is not None else ()
        # They come in the order of their creation.
        shown = sorted(islice(topics, TOPIC_COUNT_MAX), key=lambda topic: topic.name)
        return {
            "version": __version__,
            "topic_count": len(topics),
            "topics": [dataclasses.asdict(describe(topic)) for topic in shown],
            **dataclasses.asdict(self.about()),
        }
