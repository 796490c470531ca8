"""Who may do what, on real nodes with certificates and through the command line: one policy for all, at once and after restarts."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.client import Client, Rule
from distlog.client.tls import tls_credentials
from distlog.errors import InvalidRequest, NotAuthorized, OutcomeUnknown
from tests.processes.commands import Finished, run
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import (
    CALL_TIMEOUT_S,
    CHANNEL_OPTIONS,
    NodeProcess,
    ProcessCluster,
    tls_flags,
    until,
)

SUBJECTS = ("admin", "alice", "nobody")
# Subjects that have their rules at a time while those change.
KEPT_COUNT = 20
# Of two administrators who are at odds.
ROUND_COUNT = 30


class Certified:
    """A cluster with certificates, and clients with each of the subjects."""

    def __init__(self, cluster: ProcessCluster, directory: Path) -> None:
        self.cluster = cluster
        self._directory = directory

    @classmethod
    async def made(cls, cluster: ProcessCluster, directory: Path) -> Certified:
        """Give a cluster that does not run yet its certificates."""
        host = next(iter(cluster)).host
        names = ("--clients", ",".join(SUBJECTS), "--nodes", ",".join(cluster.nodes))
        made = await run("certs", str(directory), *names, "--hosts", host)
        assert made.status == 0, made.errors
        cluster.secure(directory, "admin")
        return cls(cluster, directory)

    def client(self, subject: str) -> Client:
        ca, cert, key = tls_flags(self._directory, subject)[1::2]
        return Client(self.cluster.addresses, credentials=tls_credentials(ca, cert, key))

    async def say(self, subject: str, *arguments: str, given: bytes | None = None) -> Finished:
        """Run a command as a subject."""
        server = ("--server", self.cluster.addresses)
        return await run(*arguments, *server, *tls_flags(self._directory, subject), given=given)

    async def code(self, node: NodeProcess, subject: str, topic: str) -> grpc.StatusCode:
        """Return what this very node says when a subject consumes."""
        ca, cert, key = tls_flags(self._directory, subject)[1::2]
        credentials = tls_credentials(ca, cert, key)
        async with grpc.aio.secure_channel(node.address, credentials, CHANNEL_OPTIONS) as channel:
            call: Any = log_pb2_grpc.LogStub(channel).Consume(
                log_pb2.ConsumeRequest(topic=topic), timeout=CALL_TIMEOUT_S
            )
            return await call.code()

    async def start(self) -> None:
        """Start the nodes, and wait until each takes calls."""
        self.cluster.start()

        codes: dict[str, grpc.StatusCode] = {}

        async def answered() -> bool:
            for node in self.cluster:
                codes[node.node_id] = await self.code(node, "admin", "default")
            return grpc.StatusCode.UNAVAILABLE not in codes.values()

        async def describe() -> str:
            return repr(codes)

        await until(answered, "every node takes calls", describe=describe)

    async def everywhere(self, subject: str, topic: str, expected: grpc.StatusCode) -> None:
        """Wait until every node answers so."""

        async def answered() -> bool:
            codes = [await self.code(node, subject, topic) for node in self.cluster]
            return all(code is expected for code in codes)

        await until(answered, f"{expected} for {subject} at every node")


def test_one_policy_for_all_nodes_at_once_and_after_a_restart(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_cluster()
        certified = await Certified.made(cluster, tmp_path / "certs")
        await certified.start()
        assert (await certified.say("admin", "acl", "add", "admin", "*", "*")).status == 0
        assert (await certified.say("admin", "topic", "create", "orders")).status == 0
        rule = ("alice", "produce,consume", "orders")
        assert (await certified.say("admin", "acl", "add", *rule)).status == 0
        produced = await certified.say("alice", "produce", "--topic", "orders", given=b"one\n")
        assert produced.status == 0, produced.errors
        await certified.everywhere("alice", "orders", grpc.StatusCode.OK)
        await certified.everywhere("nobody", "orders", grpc.StatusCode.PERMISSION_DENIED)
        denied = await certified.say("nobody", "produce", "--topic", "orders", given=b"two\n")
        assert denied.status == 1
        assert "'nobody' may not produce" in denied.errors

        removed = await certified.say("admin", "acl", "remove", "alice", "consume", "orders")
        assert removed.status == 0
        await certified.everywhere("alice", "orders", grpc.StatusCode.PERMISSION_DENIED)
        await cluster.terminate()
        await certified.start()
        for subject in ("alice", "nobody"):
            await certified.everywhere(subject, "orders", grpc.StatusCode.PERMISSION_DENIED)
        listed = await certified.say("admin", "acl", "list")
        assert listed.output == b"p, admin, *, *\np, alice, orders, produce\n"
        for node in cluster:
            check_audit(node.data_dir / "audit.log")
            assert " casbin" not in node.says()

    asyncio.run(scenario())


def test_rules_that_were_acknowledged_outlive_leaders_that_are_killed_while_they_change(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Of each change that was not acknowledged either all rules are there, on every node, or none."""

    async def scenario() -> None:
        cluster = make_cluster()
        certified = await Certified.made(cluster, tmp_path / "certs")
        await certified.start()
        certain, doubtful = {Rule("admin", "*", "*")}, list[set[Rule]]()
        is_over = asyncio.Event()

        async def change() -> int:
            count = 0
            async with certified.client("admin") as client:
                await client.change_policy(add=list(certain))
                while not is_over.is_set():
                    pair = {Rule(f"s{count}", "orders", each) for each in ("consume", "produce")}
                    gone = {rule for rule in certain if rule.subject == f"s{count - KEPT_COUNT}"}
                    certain.difference_update(gone)
                    try:
                        await client.change_policy(add=list(pair), remove=list(gone))
                        certain.update(pair)
                    except OutcomeUnknown:
                        doubtful.extend((pair, gone))
                    count += 1
            return count

        changing = asyncio.create_task(change())
        for _ in range(3):
            leader = cluster[await cluster.leader()]
            await asyncio.wait([changing], timeout=0.7)
            leader.kill()
            leader.start()
        is_over.set()
        count = await changing
        for node in cluster:
            node.kill()
        await certified.start()
        async with certified.client("admin") as client:
            rules = set(await client.policy())
        print(
            f"{count} pairs of rules, {len(doubtful)} changes in doubt, {len(rules)} rules at the end"
        )
        assert certain <= rules
        found = rules - certain
        assert all(each <= found or not each & found for each in doubtful)
        assert found <= set().union(*doubtful)
        assert count > KEPT_COUNT
        listed = await certified.say("admin", "acl", "list")
        assert len(listed.output.splitlines()) == len(rules)

    asyncio.run(scenario())


def test_administrators_who_take_each_other_s_rules_away_at_once_leave_one(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Each change alone is fine; both together would open the cluster to everybody."""

    async def scenario() -> None:
        cluster = make_cluster()
        certified = await Certified.made(cluster, tmp_path / "certs")
        await certified.start()
        rules = {name: Rule(name, "*", "administer") for name in ("admin", "alice")}
        async with certified.client("admin") as admin, certified.client("alice") as alice:
            clients = {"admin": admin, "alice": alice}
            await admin.change_policy(add=list(rules.values()))
            for _ in range(ROUND_COUNT):
                outcomes = await asyncio.gather(
                    admin.change_policy(remove=[rules["alice"]]),
                    alice.change_policy(remove=[rules["admin"]]),
                    return_exceptions=True,
                )
                refusals = [each for each in outcomes if isinstance(each, BaseException)]
                assert [type(each) in (NotAuthorized, InvalidRequest) for each in refusals] == [
                    True
                ]
                winner = "admin" if outcomes[1] in refusals else "alice"
                assert list(await clients[winner].policy()) == [rules[winner]]
                await clients[winner].change_policy(add=list(rules.values()))

    asyncio.run(scenario())


def check_audit(path: Path) -> None:
    """The file is for its owner alone, and has the calls that were denied there."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    denied = {(line["subject"], line["topic"]) for line in lines if line["outcome"] == "DENIED"}
    assert {("nobody", "orders"), ("alice", "orders")} <= denied
    assert "two" not in path.read_text()


def test_a_policy_file_is_read_again_and_never_beside_a_replicated_policy(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_cluster(("n1",))
        certified = await Certified.made(cluster, tmp_path / "certs")
        policy = tmp_path / "policy.csv"
        policy.write_text("p, admin, *, *\n")
        node = cluster["n1"]
        plain = list(node.arguments)
        node.arguments += ["--acl-policy", str(policy)]
        await certified.start()
        await certified.everywhere("alice", "default", grpc.StatusCode.PERMISSION_DENIED)
        policy.write_text("p, admin, *, *\np, alice, default, consume\n")
        # There is nothing to be read yet.
        await certified.everywhere("alice", "default", grpc.StatusCode.OUT_OF_RANGE)
        policy.write_text("p, admin, *")
        await until(lambda: said(node, "stays what it was"), "the node complains")
        await certified.everywhere("alice", "default", grpc.StatusCode.OUT_OF_RANGE)
        refused = await certified.say("admin", "acl", "add", "bob", "*", "*")
        assert refused.status == 1
        assert "policy.csv" in refused.errors
        await cluster.terminate()

        node.arguments = plain
        await certified.start()
        assert (await certified.say("admin", "acl", "add", "admin", "*", "*")).status == 0
        await cluster.terminate()
        policy.write_text("p, admin, *, *\n")
        both = await run("serve", *plain, "--acl-policy", str(policy))
        assert both.status == 2
        assert "start without --acl-policy" in both.errors

    asyncio.run(scenario())


async def said(node: NodeProcess, text: str) -> bool:
    return text in node.says()
