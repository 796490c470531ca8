"""The address where clients find this node: bind it, serve it, stop serving in order.

Use: `listener = Listener(log, ...)`, `port = await listener.start()`, and at the end `await listener.stop()`, before the
replicated log is closed, so that writes in flight still get their answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from distlog import __version__
from distlog.addresses import address_text, is_loopback
from distlog.api.log.v1 import log_pb2
from distlog.discovery.view import NOTHING_SEEN, Member, Sight
from distlog.errors import AddressUnavailable, ConfigurationInvalid
from distlog.security.authorizer import Authorizer
from distlog.server.about import NOTHING_KNOWN, About
from distlog.server.calls import Calls, Ended
from distlog.server.cluster_service import ClusterService
from distlog.server.gate import Gate, NoAudit
from distlog.server.health import Health
from distlog.server.limits import ServerLimits
from distlog.server.log_service import LogService
from distlog.server.open_streams import OpenStreams
from distlog.server.policy_calls import PolicyCalls
from distlog.server.reflection import Reflection
from distlog.server.served_log import ServedLog
from distlog.tracing.spans import NO_TRACER, Tracer

LOG = log_pb2.DESCRIPTOR.services_by_name["Log"]
CLUSTER = log_pb2.DESCRIPTOR.services_by_name["Cluster"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

# What in-flight calls get at a stop; with what follows, a node is gone within 5 s.
STOP_TIMEOUT_S = 4.0
# A client whose machine vanished holds its tails until a ping fails.
KEEPALIVE_INTERVAL_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
# A client may ping this often, also while it has no call; one that pings more is disconnected.
CLIENT_PING_INTERVAL_MIN_MS = 10_000


class Listener:
    """Serves a replicated log to clients at one address."""

    def __init__(
        self,
        log: ServedLog,
        *,
        host: str,
        port: int,
        insecure: bool,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], float],
        gate: Gate | None = None,
        credentials: grpc.ServerCredentials | None = None,
        limits: ServerLimits | None = None,
        itself: Callable[[], Member | None] = lambda: None,
        view: Callable[[], Sight] = lambda: NOTHING_SEEN,
        about: Callable[[], About] = lambda: NOTHING_KNOWN,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Prepare to listen; must be called with the loop running.

        insecure: whether an address beyond loopback is meant, although nothing is encrypted and anybody may call.
        random_bytes: makes the ids of incidents.  now(): a clock in seconds that never goes back.
        gate: who may do what; None: everybody may do everything.
        credentials: with what connections are encrypted, and clients trusted; None: they are not.
        itself(): how this node sees itself; None: it has only begun to start.  view(): the others as well.
        about(): of its process.  tracer: records what becomes of calls.
        """
        self._host = host
        self._port = port
        self._insecure = insecure
        self._credentials = credentials
        self.limits = limits or ServerLimits()
        self._streams = OpenStreams(self.limits.tail_count_max)
        self._gate = gate or Gate(Authorizer.open_to_all(), NoAudit(), random_bytes)
        self._tracer = tracer
        self.calls = Calls(random_bytes, now, self._gate, tracer)
        self._itself, self._view, self._about = itself, view, about
        self._health = Health(log, self._streams)
        self._service = LogService(
            log, self.limits, self._streams, self.calls.refused, self._tracer
        )
        self._server = grpc.aio.server(
            handlers=self._handlers(log),
            options=server_options(self.limits),
            maximum_concurrent_rpcs=self.limits.call_count_max,
        )

    async def start(self) -> int:
        """Listen; return the port, which matters when 0 was asked for.

        Raises ConfigurationInvalid beyond loopback unless `insecure`, AddressUnavailable when the address cannot be bound.
        """
        if self._credentials is None and not self._insecure and not is_loopback(self._host):
            raise ConfigurationInvalid(
                key="listen",
                problem=f"{self._host} can be reached from other machines, and nothing is encrypted and anybody may "
                "call: give it certificates, listen on 127.0.0.1, or say --insecure if that is what you want",
            )
        address = socket_address(self._host, self._port)
        try:
            if self._credentials is None:
                self._port = int(self._server.add_insecure_port(address))
            else:
                self._port = int(self._server.add_secure_port(address, self._credentials))
        except RuntimeError:
            self._port = 0
        if self._port == 0:
            # gRPC does not say which it is.
            problem = "it is in use, or it is not an address of this machine"
            raise AddressUnavailable(address=address, problem=problem, flag="--listen")
        await self._server.start()
        return self._port

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Refuse new calls, end every stream, let calls in flight end within `timeout_s`, then cut what is left.

        A write that is cut has an unknown outcome, and its client takes it so.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        self._health.stop()
        self._streams.end_all()
        await self.calls.drain(timeout_s)
        await self._server.stop(max(0.0, end - loop.time()))

    @property
    def tail_count(self) -> int:
        """How many tails are open."""
        return self._streams.tail_count

    @property
    def unread_size(self) -> int:
        """Bytes that were read for consumers that have not taken them."""
        return self._service.unread_size

    @property
    def answered(self) -> Mapping[str, Ended]:
        """The requests of streams to produce that were answered, by the method of the stream."""
        return self._streams.answered

    def _handlers(self, log: ServedLog) -> list[grpc.GenericRpcHandler]:
        # In the order in which a call looks for its handler: what has to be fast first.
        policy = PolicyCalls(log, self.limits, self._gate.authorizer)
        cluster = ClusterService(
            log, self.limits, __version__, policy, self._itself, self._view, self._about
        )
        return [
            self.calls.handlers(LOG, self._service),
            self.calls.handlers(CLUSTER, cluster),
            self.calls.handlers(HEALTH, self._health, while_stopping=True),
            self.calls.handlers(
                REFLECTION, Reflection((LOG, CLUSTER, HEALTH, REFLECTION), self._streams)
            ),
        ]


def server_options(limits: ServerLimits) -> list[tuple[str, int]]:
    """Return the options of the gRPC server."""
    return [
        # Two nodes on one port would each get some of the connections, and neither would say so.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_size_max),
        # What is sent was taken, so it may be sent.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_allowed_incoming_connections", limits.connection_count_max),
        ("grpc.max_concurrent_streams", limits.connection_stream_count_max),
        ("grpc.server_handshake_timeout_ms", round(1000 * limits.handshake_timeout_s)),
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_INTERVAL_MIN_MS),
    ]


def socket_address(host: str, port: int) -> str:
    """Return host and port as gRPC takes them."""
    # One address: with both, gRPC is content when one of the two can be bound.
    name = "127.0.0.1" if host == "localhost" else host
    return address_text(name, port)
