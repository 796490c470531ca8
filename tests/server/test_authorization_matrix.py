"""Every call, by every kind of subject, on topics of theirs and of others: who gets through and who does not.

The table is written by hand, from what the page about authorization promises.  It knows nothing of the product's own table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.api.status import DETAILS_KEY, error_from_message, error_from_status
from distlog.block import Block
from distlog.errors import DistlogError, NotAuthorized
from distlog.security.policy import Membership, Permission, Rule
from distlog.server.listen import CLUSTER, HEALTH, LOG, REFLECTION
from distlog.server.permissions import NEEDS
from tests.server.secured import Secured, secured

# nobody has no rule; guest is in the role guests, of which nobody has heard anything but consume.
POLICY = (
    Permission("root", "*", "*"),
    Permission("writer", "orders-*", "produce"),
    Permission("readers", "orders-*", "consume"),
    Membership("reader", "readers"),
    Permission("keeper", "orders-*", "administer"),
    Permission("watcher", "*", "describe"),
    Permission("exact", "orders-1", "produce"),
)
SUBJECTS = ("nobody", "writer", "reader", "keeper", "watcher", "exact", "root")
# In the order of the subjects.  A call without a topic stands once.
TABLE = """
Produce orders-1                - + - - - + +
Produce orders-2                - + - - - - +
Produce bills                   - - - - - - +
Produce nowhere                 - - - - - - +
ProduceStream orders-1          - + - - - + +
ProduceStream orders-2          - + - - - - +
ProduceStream bills             - - - - - - +
ProduceStream nowhere           - - - - - - +
ProduceBatch orders-1           - + - - - + +
ProduceBatch orders-2           - + - - - - +
ProduceBatch bills              - - - - - - +
ProduceBatch nowhere            - - - - - - +
OpenProducer                    - + - - - + +
Consume orders-1                - - + - - - +
Consume orders-2                - - + - - - +
Consume bills                   - - - - - - +
Consume nowhere                 - - - - - - +
ConsumeStream orders-1          - - + - - - +
ConsumeStream orders-2          - - + - - - +
ConsumeStream bills             - - - - - - +
ConsumeStream nowhere           - - - - - - +
ConsumeBatch orders-1           - - + - - - +
ConsumeBatch orders-2           - - + - - - +
ConsumeBatch bills              - - - - - - +
ConsumeBatch nowhere            - - - - - - +
OffsetForTime orders-1          - + + + + + +
OffsetForTime orders-2          - + + + + - +
OffsetForTime bills             - - - - + - +
OffsetForTime nowhere           - - - - + - +
DescribeTopic orders-1          - + + + + + +
DescribeTopic orders-2          - + + + + - +
DescribeTopic bills             - - - - + - +
DescribeTopic nowhere           - - - - + - +
CreateTopic orders-new          - - - + - - +
CreateTopic orders-1            - - - + - - +
CreateTopic bills               - - - - - - +
ConfigureTopic orders-1         - - - + - - +
ConfigureTopic bills            - - - - - - +
ConfigureTopic nowhere          - - - - - - +
TrimTopic orders-1              - - - + - - +
TrimTopic bills                 - - - - - - +
TrimTopic nowhere               - - - - - - +
DeleteTopic orders-1            - - - + - - +
DeleteTopic bills               - - - - - - +
DeleteTopic nowhere             - - - - - - +
Status                          - - - - + - +
ListTopics                      - - - - + - +
TransferLeadership              - - - - - - +
AddMember                       - - - - - - +
RemoveMember                    - - - - - - +
SetTarget                       - - - - - - +
Leave                           - - - - - - +
GetPolicy                       - - - - - - +
ChangePolicy                    - - - - - - +
Members                         + + + + + + +
GetServers                      + + + + + + +
Check                           + + + + + + +
List                            + + + + + + +
Watch                           + + + + + + +
ServerReflectionInfo            + + + + + + +
"""
# Older versions of grpcio-health-checking have no List, and so neither has the service.
ABSENT: set[str] = set() if hasattr(health_pb2, "HealthListRequest") else {"List"}
ACTIONS = {
    "produce": "Produce ProduceStream ProduceBatch OpenProducer",
    "consume": "Consume ConsumeStream ConsumeBatch",
    "describe": "OffsetForTime DescribeTopic Status ListTopics",
    "administer": "CreateTopic ConfigureTopic TrimTopic DeleteTopic TransferLeadership AddMember RemoveMember SetTarget Leave "
    "GetPolicy ChangePolicy",
}


@dataclass(frozen=True)
class Row:
    method: str
    # "" for a call without one.
    topic: str
    allowed: dict[str, bool]


def rows() -> list[Row]:
    found = []
    for line in TABLE.split("\n"):
        words = line.split()
        if words and words[0] not in ABSENT:
            cells = dict(zip(SUBJECTS, words[-len(SUBJECTS) :], strict=True))
            name, *topic = words[: -len(SUBJECTS)]
            allowed = {subject: cell == "+" for subject, cell in cells.items()}
            found.append(Row(name, "".join(topic), allowed))
    return found


ROWS = rows()
BLOCK = Block.from_records([b"y"]).encode()
# What each call sends, as it is called by everybody; those that stream are below.
REQUESTS: dict[str, Callable[[str], Any]] = {
    "Produce": lambda topic: log_pb2.ProduceRequest(topic=topic, record=b"y"),
    "OpenProducer": lambda topic: log_pb2.OpenProducerRequest(),
    "Consume": lambda topic: log_pb2.ConsumeRequest(topic=topic),
    "GetServers": lambda topic: log_pb2.GetServersRequest(),
    "OffsetForTime": lambda topic: log_pb2.OffsetForTimeRequest(topic=topic),
    "DescribeTopic": lambda topic: log_pb2.DescribeTopicRequest(topic=topic),
    "ListTopics": lambda topic: log_pb2.ListTopicsRequest(),
    "CreateTopic": lambda topic: log_pb2.CreateTopicRequest(topic=topic),
    "ConfigureTopic": lambda topic: log_pb2.ConfigureTopicRequest(topic=topic, retention_size=1),
    "TrimTopic": lambda topic: log_pb2.TrimTopicRequest(topic=topic),
    "DeleteTopic": lambda topic: log_pb2.DeleteTopicRequest(topic=topic),
    "Status": lambda topic: log_pb2.StatusRequest(),
    "Members": lambda topic: log_pb2.MembersRequest(),
    "TransferLeadership": lambda topic: log_pb2.TransferLeadershipRequest(),
    "AddMember": lambda topic: log_pb2.AddMemberRequest(node_id="n9", peer_address="h:1"),
    "RemoveMember": lambda topic: log_pb2.RemoveMemberRequest(node_id="n9"),
    "SetTarget": lambda topic: log_pb2.SetTargetRequest(voter_count=3),
    "Leave": lambda topic: log_pb2.LeaveRequest(node_id="n1"),
    "GetPolicy": lambda topic: log_pb2.GetPolicyRequest(),
    "ChangePolicy": lambda topic: log_pb2.ChangePolicyRequest(
        add=[log_pb2.Rule(subject="root", topic="*", action="*")]
    ),
    "Check": lambda topic: health_pb2.HealthCheckRequest(service="log.v1.Log"),
    "List": lambda topic: health_pb2.HealthListRequest(),
    "ConsumeStream": lambda topic: log_pb2.ConsumeRequest(topic=topic),
    "ConsumeBatch": lambda topic: log_pb2.ConsumeBatchRequest(topic=topic),
    "Watch": lambda topic: health_pb2.HealthCheckRequest(),
    "ProduceStream": lambda topic: log_pb2.ProduceRequest(topic=topic, record=b"y"),
    "ProduceBatch": lambda topic: log_pb2.ProduceBatchRequest(topic=topic, block=BLOCK),
    "ServerReflectionInfo": lambda topic: reflection_pb2.ServerReflectionRequest(list_services=""),
}
ANSWER_STREAMS = ("ConsumeStream", "ConsumeBatch", "Watch")
BOTH_STREAMS = ("ProduceStream", "ProduceBatch", "ServerReflectionInfo")
STUBS = (
    log_pb2_grpc.LogStub,
    log_pb2_grpc.ClusterStub,
    health_pb2_grpc.HealthStub,
    reflection_pb2_grpc.ServerReflectionStub,
)


async def outcome(channel: grpc.aio.Channel, method: str, topic: str) -> Any:
    """Call; return the answer, the first one of a stream, or what it is refused with."""
    stubs: list[Any] = [stub(channel) for stub in STUBS]
    call = next(getattr(stub, method) for stub in stubs if hasattr(stub, method))
    request = REQUESTS[method](topic)
    try:
        if method in BOTH_STREAMS:
            return await first(call(iter([request])))
        if method in ANSWER_STREAMS:
            return await first(call(request))
        return await call(request)
    except grpc.aio.AioRpcError as error:
        failure = error
    trailers = failure.trailing_metadata() or ()
    refusal = error_from_status(dict(trailers).get(DETAILS_KEY))
    if isinstance(refusal, NotAuthorized):
        assert failure.code() is grpc.StatusCode.PERMISSION_DENIED
        assert failure.details() == str(refusal)
    return refusal


async def first(call: Any) -> Any:
    answer = await call.read()
    if answer is grpc.aio.EOF:
        # The status, which is raised.
        await call
    call.cancel()
    if isinstance(answer, log_pb2.ProduceBatchResponse) and answer.HasField("error"):
        return error_from_message(answer.error)
    return answer


def fill_anew(server: Secured) -> None:
    """Have every cell find the same topics."""
    server.fake.topics = {"default": server.fake.topics["default"]}
    for topic in ("orders-1", "orders-2", "bills"):
        server.fill(topic)
    server.put(POLICY)


def test_the_table_has_every_call_of_every_service() -> None:
    services = (LOG, CLUSTER, HEALTH, REFLECTION)
    methods = {method.name for service in services for method in service.methods}
    assert {row.method for row in ROWS} == methods == set(REQUESTS) - ABSENT
    known = {name for name in NEEDS if name.rpartition(".")[2] not in ABSENT}
    assert known == {m.full_name for service in services for m in service.methods}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_call_is_allowed_or_denied_as_the_table_says(subject: str) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), secured(POLICY) as server:
            for row in ROWS:
                fill_anew(server)
                answer = await outcome(server.channel(subject), row.method, row.topic)
                where = f"{subject} {row.method} {row.topic}: {answer!r}"
                if row.allowed[subject]:
                    assert not isinstance(answer, NotAuthorized), where
                    # Others refuse for reasons of their own only where the topic is not there, or is there already.
                    is_odd = row.topic == "nowhere" or row.method == "CreateTopic"
                    assert is_odd or not isinstance(answer, DistlogError), where
                    assert answer is not None, where
                else:
                    assert isinstance(answer, NotAuthorized), where
                    action = next(
                        a for a, methods in ACTIONS.items() if row.method in methods.split()
                    )
                    expected = (subject, action, row.topic or "*")
                    assert (answer.subject, answer.action, answer.resource) == expected, where

    asyncio.run(run())


def test_who_is_denied_does_not_learn_whether_the_topic_exists() -> None:
    async def run() -> None:
        async with asyncio.timeout(60), secured(POLICY) as server:
            fill_anew(server)
            for method in ("Produce", "Consume", "ConsumeStream", "DescribeTopic", "DeleteTopic"):
                there, not_there = [
                    await outcome(server.channel("nobody"), method, topic)
                    for topic in ("bills", "nowhere")
                ]
                assert str(there).replace("bills", "X") == str(not_there).replace("nowhere", "X")
            assert server.fake.asked["read"] == 0
            assert server.fake.asked["topic"] == 0

    asyncio.run(run())


def test_without_a_policy_everybody_may_do_everything() -> None:
    async def run() -> None:
        async with asyncio.timeout(60), secured() as server:
            for row in ROWS:
                fill_anew(server)
                server.put(())
                answer = await outcome(server.channel("nobody"), row.method, row.topic)
                assert not isinstance(answer, NotAuthorized), row

    asyncio.run(run())


def test_parity_b12_a_subject_without_permission_may_neither_produce_nor_consume() -> None:
    async def run() -> None:
        async with asyncio.timeout(30), secured(POLICY) as server:
            fill_anew(server)
            for method in ("Produce", "Consume"):
                denied = await outcome(server.channel("nobody"), method, "")
                assert isinstance(denied, NotAuthorized)
                assert denied.resource == "default"

    asyncio.run(run())


@pytest.mark.parametrize("rules", [(), POLICY], ids=["without a policy", "with one"])
def test_parity_b13_health_says_serving_also_to_a_subject_without_permission(
    rules: Sequence[Rule],
) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), secured(rules) as server:
            answer = await outcome(server.channel("nobody"), "Check", "")
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(run())
