"""Status and DescribeTopic, and what reflection tells of the services."""

from __future__ import annotations

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from distlog import __version__
from distlog.api.log.v1 import log_pb2
from distlog.client.members import members_at, node_at
from distlog.consensus import views
from distlog.discovery.view import Description, Member, MemberStatus
from distlog.errors import Unreachable
from distlog.server.cluster_service import seen_message
from tests.server.fake_replicated_log import TIMESTAMP_MS
from tests.server.serving import Serving, serve


def test_status_shows_everything_that_the_node_knows() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x", b"y")
        server.fake.members = (
            views.MemberStatus("n1", "127.0.0.1:8400", True, True, 8, 0),
            views.MemberStatus("n2", "127.0.0.1:8410", False, False, None, None),
        )
        response = await server.cluster.Status(log_pb2.StatusRequest())
        assert response == log_pb2.StatusResponse(
            node_id="n1",
            cluster_id="c0ffee",
            role="leader",
            term=3,
            leader_id="n1",
            leader_address="127.0.0.1:8400",
            commit_index=7,
            applied_index=6,
            last_index=8,
            checkpoint_index=5,
            journal_size=4096,
            stall_max_ms=41.5,
            stall_count=3,
            durability="os",
            ready=True,
            state="leading",
            scrub=log_pb2.ScrubStatus(),
            version=__version__,
            topics=[
                log_pb2.TopicStatus(
                    name="default",
                    topic_id=1,
                    high_watermark=2,
                    last_timestamp_ms=TIMESTAMP_MS,
                    size=18,
                    segment_size_max=64 << 20,
                    segment_record_count_max=1 << 20,
                )
            ],
            members=[
                log_pb2.MemberStatus(
                    node_id="n1",
                    client_address="127.0.0.1:8400",
                    is_leader=True,
                    connected=True,
                    match_index=8,
                    lag=0,
                ),
                log_pb2.MemberStatus(node_id="n2", client_address="127.0.0.1:8410"),
            ],
        )
        # A leader's own lag is 0 and known; the other one's is not known.
        assert [member.HasField("lag") for member in response.members] == [True, False]

    serve(body)


def test_status_answers_without_a_leader() -> None:
    async def body(server: Serving) -> None:
        server.fake.has_leader, server.fake.silent = False, True
        assert (await server.cluster.Status(log_pb2.StatusRequest())).node_id == "n1"

    serve(body)


def test_a_node_between_two_states_says_so_and_never_that_there_are_no_topics() -> None:
    async def body(server: Serving) -> None:
        server.fake.has_state = False
        status = await server.cluster.Status(log_pb2.StatusRequest())
        assert (status.node_id, list(status.topics)) == ("n1", [])
        with pytest.raises(grpc.aio.AioRpcError, match="between two states") as caught:
            await server.cluster.ListTopics(log_pb2.ListTopicsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    serve(body)


def test_leadership_goes_to_the_node_that_is_named_or_to_any_other() -> None:
    async def body(server: Serving) -> None:
        request = log_pb2.TransferLeadershipRequest(node_id="n3")
        assert (await server.cluster.TransferLeadership(request)).leader_id == "n3"
        assert not server.fake.is_leader
        anybody = log_pb2.TransferLeadershipRequest()
        assert (await server.cluster.TransferLeadership(anybody)).leader_id == "n2"

    serve(body)


def test_the_members_are_said_without_a_leader_and_without_topics() -> None:
    async def body(server: Serving) -> None:
        server.fake.members = (
            views.MemberStatus("n1", "h:1", True, True, 8, 0, peer_address="h:2"),
            views.MemberStatus("n2", "", False, True, 3, 5, is_voter=False),
        )
        server.fake.has_leader, server.fake.silent = False, True
        response = await server.cluster.Members(log_pb2.MembersRequest())
        assert (response.cluster_id, response.leader_id) == ("c0ffee", "n1")
        assert [(each.node_id, each.peer_address) for each in response.members] == [
            ("n1", "h:2"),
            ("n2", ""),
        ]
        assert [each.learner for each in response.members] == [False, True]

    serve(body)


def test_what_discovery_sees_is_said_beside_the_members() -> None:
    async def body(server: Serving) -> None:
        response = await server.cluster.Members(log_pb2.MembersRequest())
        assert not response.HasField("seen_age_s")
        description = Description("n4", "d4", "h4:8401", "h4:8400", expect=3, version="1")
        seen = Member(description, MemberStatus.FAILED, 7, 10.0)
        said = seen_message(seen, 12.5)
        assert (said.status, said.for_s) == ("failed", 2.5)
        assert said.description.node_id == "n4"
        assert (said.description.expect, said.description.run) == (3, 7)

    serve(body)


def test_what_is_planned_is_part_of_the_status_and_the_target_can_be_set() -> None:
    async def body(server: Serving) -> None:
        server.fake.planned = (
            views.PlannedChange("remove", "n3", "it failed", "a node in its place"),
        )
        await server.cluster.SetTarget(log_pb2.SetTargetRequest(voter_count=3))
        status = await server.cluster.Status(log_pb2.StatusRequest())
        assert status.target == 3
        (planned,) = status.planned
        assert (planned.change, planned.node_id) == ("remove", "n3")
        assert (planned.why, planned.waits_for) == ("it failed", "a node in its place")

    serve(body)


def test_only_the_node_that_is_meant_leaves() -> None:
    async def body(server: Serving) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="this is n1, and n2 was named"):
            await server.cluster.Leave(log_pb2.LeaveRequest(node_id="n2"))
        assert not server.fake.has_left
        await server.cluster.Leave(log_pb2.LeaveRequest(node_id="n1"))
        assert server.fake.has_left

    serve(body)


def test_a_node_says_who_it_is_when_it_knows_that_and_whoever_asks_reads_the_same() -> None:
    async def body(server: Serving) -> None:
        address = f"127.0.0.1:{server.port}"
        with pytest.raises(Unreachable, match="it does not say yet who it is"):
            await node_at(address)
        description = Description("n1", "d1", "h:8401", "h:8400", "c1", 3, "1.2")
        server.itself = Member(description, MemberStatus.ALIVE, run=77, since=0.0)
        assert await node_at(address) == (description, 77)
        assert await members_at(address) == {}

    serve(body)


def test_members_are_added_and_removed_by_name() -> None:
    async def body(server: Serving) -> None:
        added = log_pb2.AddMemberRequest(node_id="n4", peer_address="h:8431")
        await server.cluster.AddMember(added)
        await server.cluster.RemoveMember(log_pb2.RemoveMemberRequest(node_id="n2", force=True))
        assert server.fake.added == [("n4", "h:8431")]
        assert server.fake.removed == [("n2", True)]
        with pytest.raises(grpc.aio.AioRpcError, match="name the member"):
            await server.cluster.RemoveMember(log_pb2.RemoveMemberRequest())

    serve(body)


def test_a_topic_is_described_with_proof() -> None:
    async def body(server: Serving) -> None:
        server.fake.append(b"x", b"y")
        server.fake.topics["default"].start_offset = 1
        response = await server.cluster.DescribeTopic(log_pb2.DescribeTopicRequest())
        topic = response.topic
        assert (topic.name, topic.start_offset, topic.high_watermark) == ("default", 1, 2)
        assert server.fake.asked["confirmed_topic"] == 1

    serve(body)


def test_reflection_lists_the_services_and_gives_the_whole_proto_file() -> None:
    async def body(server: Serving) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="log.v1.Log"),
        ]
        names, file = [response async for response in stub.ServerReflectionInfo(iter(requests))]
        assert {service.name for service in names.list_services_response.service} == {
            "log.v1.Log",
            "log.v1.Cluster",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        (data,) = file.file_descriptor_response.file_descriptor_proto
        described = FileDescriptorProto.FromString(data)
        assert [service.name for service in described.service] == ["Log", "Cluster"]
        assert [method.name for method in described.service[0].method] == [
            "Produce",
            "Consume",
            "ProduceStream",
            "ConsumeStream",
            "ProduceBatch",
            "ConsumeBatch",
            "GetServers",
            "OffsetForTime",
            "OpenProducer",
        ]

    serve(body)
