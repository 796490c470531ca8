"""The service `grpc.health.v1.Health`, computed when asked, so that it is never out of date.

    ""            the process lives
    log.v1.Log    this node is ready: it can prove reads and say where writes go (consensus/standing.py has the states)
    leader        this node is the leader

Grpcio's own servicer keeps a table that somebody has to keep true; asking is simpler.  A watcher is woken by a change of
role, and looks for itself once a second, since losing the connection to the leader is no change of role.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from distlog.server.open_streams import OpenStreams
from distlog.server.served_log import ServedLog

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

ALIVE, READY, LEADER = "", "log.v1.Log", "leader"
WATCH_INTERVAL_S = 1.0


class Health:
    """One method for each rpc.  It answers until the connection closes, also while the node stops."""

    def __init__(
        self, log: ServedLog, streams: OpenStreams, watch_interval_s: float = WATCH_INTERVAL_S
    ) -> None:
        self._log = log
        self._streams = streams
        self._watch_interval_s = watch_interval_s
        self._stopping = False
        # Set once, on the next change; then there is another one.
        self._changed = asyncio.Event()
        log.on_role_change(self._wake_watchers)

    def stop(self) -> None:
        """Be alive and not ready from now on."""
        self._stopping = True
        self._wake_watchers()

    async def check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:
        """Return the state of a service now; NOT_FOUND for one that is not known, as the protocol has it."""
        state = self.state(request.service)
        if state == SERVICE_UNKNOWN:
            text = f"known services: {ALIVE!r}, {READY!r}, {LEADER!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        return health_pb2.HealthCheckResponse(status=state)

    async def watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Send the state of a service now and whenever it changes."""
        sent = None
        async with self._streams.open():
            while True:
                changed = self._changed
                state = self.state(request.service)
                if state != sent:
                    await context.write(health_pb2.HealthCheckResponse(status=state))
                    sent = state
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._watch_interval_s):
                        await changed.wait()

    async def list(self, request: Any, context: Any) -> Any:
        """Return the states of all services."""
        return health_pb2.HealthListResponse(
            statuses={
                service: health_pb2.HealthCheckResponse(status=self.state(service))
                for service in (ALIVE, READY, LEADER)
            }
        )

    def state(self, service: str) -> Any:
        """Return the state of a service now."""
        if service == ALIVE:
            return SERVING
        if service == READY:
            serving = self._log.standing().is_ready
        elif service == LEADER:
            serving = self._log.is_leader and self._log.standing().is_ready
        else:
            return SERVICE_UNKNOWN
        return SERVING if serving and not self._stopping else NOT_SERVING

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
