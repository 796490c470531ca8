"""What the policy does to calls under way: streams end, topics of one stream are told apart, and the policy can be changed by a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import pytest

from distlog.api.log.v1 import log_pb2
from distlog.api.log.v1.log_pb2_grpc import ClusterStub, LogStub
from distlog.api.status import error_from_message
from distlog.block import Block
from distlog.errors import InvalidRequest, NoLeader, NotAuthorized, RecordTooLarge
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import PolicyDecider
from distlog.security.policy import Membership, Permission, Policy, Rule
from distlog.server.gate import Gate
from distlog.server.policy_calls import follow_policy
from tests.server.fake_replicated_log import FakePolicy
from tests.server.secured import RecordedAudit, Secured, secured
from tests.server.serving import Serving, refusal, serve

ROOT = Permission("root", "*", "*")
WRITES = Permission("alice", "orders-*", "produce")
READS = Permission("alice", "orders-*", "consume")
# A rule that is taken away ends what it had allowed within this time.
END_TIMEOUT_S = 1.0


def run_secured(
    rules: Iterable[Rule],
    body: Callable[[Secured, Any, Any], Awaitable[None]],
    subject: str = "alice",
    administrators: Iterable[str] = (),
) -> None:
    """Run `body(server, log, cluster)` as a subject."""

    async def run() -> None:
        async with asyncio.timeout(30), secured(rules, administrators) as server:
            server.fill("orders-1")
            server.fill("orders-2")
            channel = server.channel(subject)
            await body(server, LogStub(channel), ClusterStub(channel))

    asyncio.run(run())


async def end_of(call: Any) -> Any:
    """Return the error that a stream ends with, soon."""

    async def read_all() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass
        await call

    async with asyncio.timeout(END_TIMEOUT_S):
        return (await refusal(read_all())).error


@pytest.mark.parametrize("method", ["ConsumeStream", "ConsumeBatch"])
def test_a_tail_ends_when_its_rule_is_taken_away(method: str) -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        request = {
            "ConsumeStream": log_pb2.ConsumeRequest(topic="orders-1"),
            "ConsumeBatch": log_pb2.ConsumeBatchRequest(topic="orders-1"),
        }[method]
        call = getattr(log, method)(request)
        await call.read()
        server.put((ROOT, WRITES))
        error = await end_of(call)
        assert isinstance(error, NotAuthorized)
        assert (error.action, error.resource) == ("consume", "orders-1")

    run_secured((ROOT, WRITES, READS), body)


def test_a_tail_goes_on_through_changes_that_do_not_concern_it() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        call = log.ConsumeStream(log_pb2.ConsumeRequest(topic="orders-1"))
        await call.read()
        for _ in range(20):
            server.put((ROOT, READS))
            server.put((ROOT, READS, WRITES))
        server.fake.propose_append("orders-1", Block.from_records([b"y"]))
        assert (await call.read()).record == b"y"
        call.cancel()

    run_secured((ROOT, READS), body)


def test_a_tail_that_began_without_a_policy_ends_with_the_first_one() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        call = log.ConsumeStream(log_pb2.ConsumeRequest(topic="orders-1"))
        await call.read()
        server.put((ROOT,))
        assert isinstance(await end_of(call), NotAuthorized)

    run_secured((), body)


def test_many_tails_end_within_a_second() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        calls = []
        for _ in range(90):
            call = log.ConsumeStream(log_pb2.ConsumeRequest(topic="orders-1"))
            await call.read()
            calls.append(call)
        server.put((ROOT,))
        ends = await asyncio.gather(*[end_of(call) for call in calls])
        assert all(isinstance(end, NotAuthorized) for end in ends)

    run_secured((ROOT, READS), body)


def test_an_idle_produce_stream_ends_and_what_it_was_sent_before_is_answered() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        server.fake.holding = True
        call = log.ProduceStream()
        await call.write(log_pb2.ProduceRequest(topic="orders-1", record=b"y"))
        await server.fake.until(lambda: bool(server.fake.held))
        server.put((ROOT,))
        await server.audit.noted.wait()
        server.fake.release()
        assert (await call.read()).offset == 1
        assert isinstance(await end_of(call), NotAuthorized)

    run_secured((ROOT, WRITES), body)


def test_a_call_that_waits_is_not_told_what_it_may_not_read_any_more() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        request = log_pb2.ConsumeRequest(topic="orders-1", offset=1, min_offset=1)
        for rules, is_told in (((ROOT, READS), True), ((ROOT, WRITES), False)):
            server.put((ROOT, READS, WRITES))
            call = log.Consume(request)
            await server.fake.until(lambda: bool(server.fake.waiting))
            server.put(rules)
            server.fake.propose_append("orders-1", Block.from_records([b"y"]))
            if is_told:
                assert (await call).record == b"y"
            else:
                assert isinstance((await refusal(call)).error, NotAuthorized)
            request.offset = request.min_offset = 2

    run_secured((ROOT, READS), body)


def test_a_write_that_was_taken_is_acknowledged_whatever_the_policy_says_meanwhile() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        server.fake.holding = True
        call = log.Produce(log_pb2.ProduceRequest(topic="orders-1", record=b"y"))
        await server.fake.until(lambda: bool(server.fake.held))
        server.put((ROOT,))
        server.fake.release()
        assert (await call).offset == 1

    run_secured((ROOT, WRITES), body)


def test_each_request_of_a_stream_is_asked_about_its_own_topic() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        call = log.ProduceStream()
        for topic in ("orders-1", "orders-2", "orders-1", "bills"):
            await call.write(log_pb2.ProduceRequest(topic=topic, record=b"y"))
        offsets = [(await call.read()).offset for _ in range(3)]
        assert offsets == [1, 1, 2]
        error = await end_of(call)
        assert isinstance(error, NotAuthorized)
        assert error.resource == "bills"

    run_secured((ROOT, WRITES), body)


def test_a_denied_block_ends_no_stream_of_blocks() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        block = Block.from_records([b"y"]).encode()
        call = log.ProduceBatch()
        for topic in ("bills", "orders-1"):
            await call.write(log_pb2.ProduceBatchRequest(topic=topic, block=block))
        denied = error_from_message((await call.read()).error)
        assert isinstance(denied, NotAuthorized)
        assert (await call.read()).base_offset == 1
        call.cancel()

    run_secured((ROOT, WRITES), body)


def test_nothing_but_the_topic_is_looked_at_before_the_policy_is_asked() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        large = b"x" * (2 << 20)
        for topic, expected in (("bills", NotAuthorized), ("orders-1", RecordTooLarge)):
            request = log_pb2.ProduceRequest(topic=topic, record=large)
            assert isinstance((await refusal(log.Produce(request))).error, expected)
        broken = log_pb2.ProduceBatchRequest(topic="bills", block=b"no block")
        answer = await log.ProduceBatch(iter([broken])).read()
        assert isinstance(error_from_message(answer.error), NotAuthorized)

    run_secured((ROOT, WRITES), body)


def test_a_subject_with_the_name_of_a_role_has_none_of_its_rights() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        denied = await refusal(log.Consume(log_pb2.ConsumeRequest(topic="orders-1")))
        assert isinstance(denied.error, NotAuthorized)

    rules = (ROOT, Permission("readers", "*", "consume"), Membership("alice", "readers"))
    run_secured(rules, body, subject="readers")


def test_a_node_may_have_itself_removed_and_no_other_one() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        await cluster.RemoveMember(log_pb2.RemoveMemberRequest(node_id="n2"))
        other = cluster.RemoveMember(log_pb2.RemoveMemberRequest(node_id="n3"))
        assert isinstance((await refusal(other)).error, NotAuthorized)
        nobody = cluster.RemoveMember(log_pb2.RemoveMemberRequest())
        assert isinstance((await refusal(nobody)).error, NotAuthorized)
        assert server.fake.removed == [("n2", False)]

    run_secured((ROOT,), body, subject="distlog://node/n2")


def test_a_node_is_no_client_that_may_do_what_nobody_has_allowed() -> None:
    """Peers are not clients: what a node's certificate may do at the port for clients, a policy says."""

    async def body(server: Secured, log: Any, cluster: Any) -> None:
        for call in (
            log.Produce(log_pb2.ProduceRequest(topic="orders-1", record=b"x")),
            log.Consume(log_pb2.ConsumeRequest(topic="orders-1")),
            cluster.ListTopics(log_pb2.ListTopicsRequest()),
            cluster.ChangePolicy(log_pb2.ChangePolicyRequest()),
        ):
            denied = (await refusal(call)).error
            assert isinstance(denied, NotAuthorized)
            assert denied.subject == "distlog://node/n2"

    run_secured((ROOT, WRITES, READS), body, subject="distlog://node/n2")


def test_who_has_no_certificate_may_do_what_everybody_may_and_is_called_anonymous() -> None:
    async def body(server: Serving) -> None:
        await server.log.Produce(log_pb2.ProduceRequest(topic="default", record=b"x"))
        denied = await refusal(server.log.Consume(log_pb2.ConsumeRequest()))
        assert isinstance(denied.error, NotAuthorized)
        assert denied.error.subject == "anonymous"
        await server.log.GetServers(log_pb2.GetServersRequest())

    authorizer = Authorizer(PolicyDecider(Policy((ROOT, Permission("*", "default", "produce")))))
    serve(body, gate=Gate(authorizer, RecordedAudit(), lambda size: bytes(size)))


# --- Changing the policy ----------------------------------------------------------------------------


def permission(subject: str, topic: str, action: str) -> log_pb2.Rule:
    return log_pb2.Rule(subject=subject, topic=topic, action=action)


def test_the_policy_is_changed_and_read_by_calls() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        rule = permission("alice", "orders-*", "produce")
        added = await cluster.ChangePolicy(log_pb2.ChangePolicyRequest(add=[rule, rule]))
        assert (added.rule_count, added.added_count) == (2, 1)
        role = log_pb2.Rule(subject="bob", role="writers")
        await cluster.ChangePolicy(log_pb2.ChangePolicyRequest(add=[role], remove=[rule]))
        policy = await cluster.GetPolicy(log_pb2.GetPolicyRequest())
        assert list(policy.rules) == [permission("root", "*", "*"), role]
        # A node that may be behind must not show an old one to who has just changed it.
        server.fake.policy.unknown = NoLeader(problem="an election is under way", retry_delay_s=0.1)
        behind = await refusal(cluster.GetPolicy(log_pb2.GetPolicyRequest()))
        assert isinstance(behind.error, NoLeader)

    run_secured((ROOT,), body, subject="root")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({}, "nothing is to be changed", id="nothing"),
        pytest.param({"add": [permission("a b", "*", "*")]}, "without a blank", id="a blank"),
        pytest.param({"add": [permission("a", "*x", "*")]}, "a topic is", id="no topic"),
        pytest.param({"add": [permission("a", "x", "reed")]}, "an action is", id="no action"),
        pytest.param(
            {"add": [log_pb2.Rule(subject="*", role="x")]}, "everybody", id="everybody in a role"
        ),
        pytest.param(
            {"add": [log_pb2.Rule(subject="a", topic="x", action="produce", role="b")]},
            "names no topic",
            id="two rules in one",
        ),
        pytest.param({"remove": [permission("root", "*", "*")]}, "--open", id="the last rule"),
        pytest.param(
            {"add": [permission("bob", "*", "*")], "remove": [permission("root", "*", "*")]},
            "root could change nothing",
            id="one's own right",
        ),
        pytest.param(
            {"add": [permission(f"s{n}", "*", "*") for n in range(1001)]}, "at most 1000", id="many"
        ),
        pytest.param(
            {"add": [permission(f"s{n}", "*", "*") for n in range(1000)]}, "1001 rules", id="more"
        ),
    ],
)
def test_a_change_that_is_not_acceptable_changes_nothing(
    change: dict[str, list[log_pb2.Rule]], problem: str
) -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        refused = await refusal(cluster.ChangePolicy(log_pb2.ChangePolicyRequest(**change)))
        assert isinstance(refused.error, InvalidRequest)
        assert problem in refused.text
        assert server.fake.policy.current == Policy((ROOT,))

    run_secured((ROOT,), body, subject="root")


def test_whoever_insists_locks_themselves_out_and_an_administrator_of_the_node_mends_it() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        change = log_pb2.ChangePolicyRequest(
            add=[permission("bob", "*", "*")], remove=[permission("root", "*", "*")], force=True
        )
        await cluster.ChangePolicy(change)
        undo = log_pb2.ChangePolicyRequest(add=[permission("root", "*", "*")])
        assert isinstance((await refusal(cluster.ChangePolicy(undo))).error, NotAuthorized)
        await ClusterStub(server.channel("operator")).ChangePolicy(undo)
        await cluster.GetPolicy(log_pb2.GetPolicyRequest())

    run_secured((ROOT,), body, subject="root", administrators=("operator",))


def test_the_first_rule_is_not_made_by_who_has_no_certificate_and_would_be_shut_out() -> None:
    async def body(server: Any) -> None:
        change = log_pb2.ChangePolicyRequest(add=[permission("root", "*", "*")])
        refused = await refusal(server.cluster.ChangePolicy(change))
        assert isinstance(refused.error, InvalidRequest)
        assert "without a certificate" in refused.text

    serve(body)


def test_a_policy_of_a_file_is_not_changed_by_calls() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        server.gate.authorizer.file = "policy.csv"
        change = log_pb2.ChangePolicyRequest(add=[permission("bob", "*", "*")])
        for call in (
            cluster.ChangePolicy(change),
            cluster.GetPolicy(log_pb2.GetPolicyRequest()),
        ):
            refused = await refusal(call)
            assert isinstance(refused.error, InvalidRequest)
            assert "policy.csv" in refused.text

    run_secured((ROOT,), body, subject="root")


# --- Before the policy is known -----------------------------------------------------------------------


def test_nothing_is_allowed_before_the_policy_is_known_and_an_old_one_counts_until_then() -> None:
    async def run() -> None:
        policy, authorizer = FakePolicy(), Authorizer()
        policy.unknown = NoLeader(problem="an election is under way", retry_delay_s=0.1)
        following = asyncio.ensure_future(follow_policy(policy, authorizer, is_strict=True))
        await asyncio.sleep(0)
        assert not authorizer.is_known
        policy.put(Policy((ROOT,)))
        assert authorizer.is_known
        assert not authorizer.is_open
        following.cancel()

    asyncio.run(run())


def test_that_there_is_no_policy_is_believed_only_when_the_leader_says_so() -> None:
    async def run() -> None:
        policy, authorizer = FakePolicy(), Authorizer()
        policy.unknown = NoLeader(problem="an election is under way", retry_delay_s=0.1)
        following = asyncio.ensure_future(follow_policy(policy, authorizer, is_strict=True))
        policy.put(Policy())
        await asyncio.sleep(0)
        assert not authorizer.is_known
        policy.unknown = None
        async with asyncio.timeout(5):
            await following
        assert authorizer.is_open

    asyncio.run(run())


def test_on_loopback_without_certificates_nobody_has_to_confirm_that_there_is_no_policy() -> None:
    async def run() -> None:
        policy, authorizer = FakePolicy(), Authorizer()
        policy.unknown = NoLeader(problem="an election is under way", retry_delay_s=0.1)
        await follow_policy(policy, authorizer, is_strict=False)
        assert authorizer.is_open

    asyncio.run(run())


# --- What is taken note of ------------------------------------------------------------------------------


def test_denied_and_administrative_calls_are_noted_with_who_and_what_and_nothing_else() -> None:
    async def body(server: Secured, log: Any, cluster: Any) -> None:
        await log.Produce(log_pb2.ProduceRequest(topic="orders-1", record=b"secret"))
        denied = await refusal(log.Produce(log_pb2.ProduceRequest(topic="bills", record=b"secret")))
        await refusal(cluster.DeleteTopic(log_pb2.DeleteTopicRequest(topic="orders-1")))
        root = ClusterStub(server.channel("root"))
        await root.TrimTopic(log_pb2.TrimTopicRequest(topic="orders-1"))
        await refusal(root.TrimTopic(log_pb2.TrimTopicRequest(topic="nowhere")))
        notes = [(n["subject"], n["method"], n["topic"], n["outcome"]) for n in server.audit.notes]
        assert notes == [
            ("alice", "log.v1.Log.Produce", "bills", "DENIED"),
            ("alice", "log.v1.Cluster.DeleteTopic", "orders-1", "DENIED"),
            ("root", "log.v1.Cluster.TrimTopic", "orders-1", "DONE"),
            ("root", "log.v1.Cluster.TrimTopic", "nowhere", "TOPIC_NOT_FOUND"),
        ]
        assert "secret" not in repr(server.audit.notes)
        assert all(":" in note["peer"] for note in server.audit.notes)
        assert isinstance(denied.error, NotAuthorized)
        assert denied.error.request_id == server.audit.notes[0]["request_id"] != ""
        counted = {key: count for key, count in server.gate.decision_counts.items() if count}
        assert counted == {
            ("produce", "allowed"): 1,
            ("produce", "denied"): 1,
            ("administer", "denied"): 1,
            ("administer", "allowed"): 2,
        }

    run_secured((ROOT, WRITES), body)
