"""Three nodes on virtual time with a monitor each, and what their pages say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from distlog.api.log.v1 import log_pb2
from distlog.logs import LogMemory
from distlog.monitoring.http import Page
from distlog.monitoring.monitor import Monitor
from distlog.monitoring.pages import livez, readyz, status
from distlog.security.authorizer import Authorizer
from distlog.server.calls import Calls, Ended
from distlog.server.gate import Gate, NoAudit
from distlog.server.health import ALIVE, LEADER, READY, SERVING, Health
from distlog.server.limits import ServerLimits
from distlog.server.open_streams import OpenStreams
from tests.consensus.nodes import NodeCluster, on_virtual_time
from tests.simulation.virtual_loop import VirtualClock

LOG = log_pb2.DESCRIPTOR.services_by_name["Log"]
# Labels and value.
Sample = tuple[dict[str, str], float]


@dataclass
class Served:
    """What a monitor looks at of a listener."""

    calls: Calls
    limits: ServerLimits
    tail_count: int = 0
    unread_size: int = 0
    answered: dict[str, Ended] = field(default_factory=dict)


class Monitored:
    """One node of a cluster."""

    def __init__(self, cluster: NodeCluster, name: str) -> None:
        self.name = name
        self.place = cluster[name]
        self.log = LogMemory()
        gate = Gate(Authorizer.open_to_all(), NoAudit(), Random(1).randbytes)
        self.health = Health(self.place.log, OpenStreams(1))
        # What a client is told by gRPC and a probe by HTTP in each state that was seen.
        self.seen: dict[str, set[tuple[str, ...]]] = {}
        self.served = Served(Calls(Random(1).randbytes, cluster.loop.time, gate), ServerLimits())
        self.monitor = Monitor(
            self.place.node,
            self.served,
            clock=VirtualClock(cluster.loop),
            log=self.log,
            with_process=False,
        )

    def samples(self) -> dict[str, list[Sample]]:
        """Return what /metrics says, by the name of the sample."""
        body, _ = self.monitor.exposition()
        found: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample; None if there is none."""
        for found, value in self.samples().get(name, []):
            if found == labels:
                return value
        return None

    def readyz(self) -> tuple[int, str]:
        answer = readyz(self.monitor)
        services = [self.health.state(service) == SERVING for service in (ALIVE, READY, LEADER)]
        told = (
            *(str(livez(self.monitor).status), str(answer.status)),
            *("yes" if is_serving else "no" for is_serving in services),
        )
        self.seen.setdefault(self.monitor.standing().state, set()).add(told)
        return _words(answer)

    def livez(self) -> tuple[int, str]:
        return _words(livez(self.monitor))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(status(self.monitor).body)
        return found


def _words(page: Page) -> tuple[int, str]:
    return page.status, page.body.decode().rstrip("\n")


Body = Callable[[NodeCluster, dict[str, Monitored]], Awaitable[None]]


def monitored(body: Body, *, formed: bool = True, **settings: Any) -> None:
    """Run a story with three nodes, of which one leads, or that were not started."""

    async def main() -> None:
        cluster = NodeCluster(**settings)
        if not formed:
            await body(cluster, {})
            return
        await cluster.start()
        await body(cluster, {name: Monitored(cluster, name) for name in cluster.places})
        for place in cluster.places.values():
            place.node.abandon()

    on_virtual_time(main)
