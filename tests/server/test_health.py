"""grpc.health.v1: alive, ready, leader; never out of date."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from distlog import errors
from distlog.api.log.v1 import log_pb2
from distlog.server.health import ALIVE, LEADER, READY, Health
from distlog.server.open_streams import OpenStreams
from tests.server.fake_replicated_log import FakeReplicatedLog
from tests.server.serving import Serving, refusal, serve

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def health(server: Serving) -> Any:
    return health_pb2_grpc.HealthStub(server.channel)


async def state(server: Serving, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health(server).Check(request)).status  # type: ignore[no-any-return]


def test_parity_b13_health_says_serving() -> None:
    async def body(server: Serving) -> None:
        assert await state(server, ALIVE) == SERVING

    serve(body)


@pytest.mark.parametrize(
    ("is_leader", "has_leader", "expected"),
    [
        (True, True, (SERVING, SERVING, SERVING)),
        (False, True, (SERVING, SERVING, NOT_SERVING)),
        (False, False, (SERVING, NOT_SERVING, NOT_SERVING)),
    ],
    ids=["leader", "follower", "no leader"],
)
def test_health_tells_alive_ready_and_leader_apart(
    is_leader: bool, has_leader: bool, expected: tuple[int, int, int]
) -> None:
    async def body(server: Serving) -> None:
        # Nobody is told of the change: it is seen when asked.
        server.fake.is_leader, server.fake.has_leader = is_leader, has_leader
        found = tuple([await state(server, service) for service in (ALIVE, READY, LEADER)])
        assert found == expected

    serve(body)


@pytest.mark.skipif(
    not hasattr(health_pb2, "HealthListRequest"),
    reason="this version of grpcio-health-checking has no List yet, so neither has the service",
)
def test_health_lists_all_its_services() -> None:
    async def body(server: Serving) -> None:
        server.fake.is_leader = False
        listed = await health(server).List(health_pb2.HealthListRequest())
        assert {name: each.status for name, each in listed.statuses.items()} == {
            ALIVE: SERVING,
            READY: SERVING,
            LEADER: NOT_SERVING,
        }

    serve(body)


def test_an_unknown_service_is_not_found() -> None:
    async def body(server: Serving) -> None:
        request = health_pb2.HealthCheckRequest(service="typo")
        refused = await refusal(health(server).Check(request))
        assert refused.code == grpc.StatusCode.NOT_FOUND
        assert (await health(server).Watch(request).read()).status == SERVICE_UNKNOWN

    serve(body)


def test_a_watcher_is_told_of_every_change() -> None:
    async def body(server: Serving) -> None:
        watch = health(server).Watch(health_pb2.HealthCheckRequest(service=LEADER))
        for is_leader in (True, False, True):
            server.fake.change_role(is_leader=is_leader, has_leader=True)
            assert (await watch.read()).status == (SERVING if is_leader else NOT_SERVING)

    serve(body)


class Sent:
    """The part of a call's context that a watcher uses; what was sent waits here."""

    def __init__(self) -> None:
        self.states: asyncio.Queue[int] = asyncio.Queue()

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        self.states.put_nowait(response.status)


def test_a_watcher_notices_a_change_that_nobody_tells_of() -> None:
    async def body() -> None:
        fake, sent = FakeReplicatedLog(), Sent()
        health = Health(fake, OpenStreams(1), watch_interval_s=0.001)
        request = health_pb2.HealthCheckRequest(service=READY)
        watching = asyncio.ensure_future(health.watch(request, sent))
        assert await sent.states.get() == SERVING
        fake.has_leader = False
        assert await sent.states.get() == NOT_SERVING
        watching.cancel()

    asyncio.run(body())


def test_a_stopping_node_is_alive_and_not_ready_and_its_watchers_are_ended() -> None:
    async def body(server: Serving) -> None:
        watch = health(server).Watch(health_pb2.HealthCheckRequest(service=READY))
        assert (await watch.read()).status == SERVING
        server.fake.holding = True
        write = server.log.Produce(log_pb2.ProduceRequest(record=b"in flight"))
        await server.fake.until(lambda: len(server.fake.held) == 1)
        stopping = asyncio.ensure_future(server.listener.stop(timeout_s=20))
        assert (await watch.read()).status == NOT_SERVING
        assert isinstance((await refusal(watch.read())).error, errors.ShuttingDown)
        found = [await state(server, service) for service in (ALIVE, READY, LEADER)]
        assert found == [SERVING, NOT_SERVING, NOT_SERVING]
        server.fake.release()
        await write
        await stopping

    serve(body)
