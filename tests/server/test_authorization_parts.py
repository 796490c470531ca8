"""Where the policy of a node comes from: never from two places, and that there is none is said where it matters."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from distlog.errors import ConfigurationInvalid
from distlog.runtime import SystemClock, ThreadWorker
from distlog.security.audit import AuditLog
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import PolicyDecider
from distlog.security.files import RealFiles
from distlog.security.policy import Action, Permission, Policy
from distlog.security.rotated_file import RotatedFile
from distlog.server.authorization import Authorization, AuthorizationSettings
from distlog.server.gate import Access, Gate, NoAudit
from distlog.server.permissions import NEEDS
from tests.server.fake_replicated_log import FakePolicy

ROOT = Permission("root", "*", "*")


def authorized(
    tmp_path: Path,
    settings: AuthorizationSettings,
    body: Callable[[Authorization, FakePolicy], None],
) -> None:
    """Run `body`, which may not wait."""

    async def run() -> None:
        policy, worker = FakePolicy(), ThreadWorker("audit")
        lines = RotatedFile(str(tmp_path / "audit.log"), size_max=1 << 20, count_max=2)
        audit = AuditLog(lines, worker, SystemClock(), str)
        authorization = Authorization(
            policy, settings, RealFiles(), audit, lambda size: bytes(size)
        )
        try:
            body(authorization, policy)
        finally:
            assert await authorization.stop(5.0)
            worker.close()

    asyncio.run(run())


def with_file(tmp_path: Path) -> AuthorizationSettings:
    path = tmp_path / "policy.csv"
    path.write_text("p, root, *, *\n")
    return AuthorizationSettings(policy_path=str(path))


def test_a_node_with_a_file_in_a_cluster_with_a_policy_does_not_start(tmp_path: Path) -> None:
    def body(authorization: Authorization, policy: FakePolicy) -> None:
        policy.put(Policy((ROOT,)))
        with pytest.raises(ConfigurationInvalid, match="start without --acl-policy"):
            authorization.start()

    authorized(tmp_path, with_file(tmp_path), body)


def test_a_policy_that_appears_beside_a_file_is_complained_of_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def body(authorization: Authorization, policy: FakePolicy) -> None:
        authorization.start()
        policy.put(Policy((Permission("eve", "*", "*"),)))
        assert not authorization.authorizer.is_allowed("eve", Action.CONSUME, "x")
        assert authorization.authorizer.is_allowed("root", Action.CONSUME, "x")

    authorized(tmp_path, with_file(tmp_path), body)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("topic_count", [1, 50])
def test_after_a_change_a_step_of_the_loop_asks_no_more_than_it_has_time_for(
    topic_count: int,
) -> None:
    class Counted(PolicyDecider):
        asked_count = 0

        def decide(self, subject: str, action: Action, topic: str) -> bool:
            self.asked_count += 1
            return super().decide(subject, action, topic)

    async def run() -> None:
        rules = [ROOT, Permission("*", "*", "consume")]
        authorizer = Authorizer(PolicyDecider(Policy(rules)))
        gate = Gate(authorizer, NoAudit(), bytes)
        need = NEEDS["log.v1.Log.ConsumeStream"]
        async with contextlib.AsyncExitStack() as streams:
            for number in range(100 // topic_count):
                access = Access(gate, "", need, f"subject-{number}", "", is_stream=True)
                for topic in range(topic_count):
                    access.check(f"topic-{topic}")
                await streams.enter_async_context(access.watched())
            decider = Counted(Policy(rules))
            authorizer.replace(decider)
            steps = [0]
            while steps[-1] < 100:
                await asyncio.sleep(0)
                steps.append(decider.asked_count)
        assert max(after - before for before, after in itertools.pairwise(steps)) <= 10

    asyncio.run(run())


@pytest.mark.parametrize("is_reachable", [False, True])
def test_a_node_that_others_reach_says_that_there_is_no_policy(
    tmp_path: Path, is_reachable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        policy, worker = FakePolicy(), ThreadWorker("audit")
        lines = RotatedFile(str(tmp_path / "audit.log"), size_max=1 << 20, count_max=2)
        authorization = Authorization(
            policy,
            AuthorizationSettings(is_reachable=is_reachable),
            RealFiles(),
            AuditLog(lines, worker, SystemClock(), str),
            lambda size: bytes(size),
        )
        authorization.start()
        for _ in range(3):
            await asyncio.sleep(0)
            policy.put(Policy())
        assert await authorization.stop(5.0)
        worker.close()

    asyncio.run(run())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == is_reachable
    assert all("distlog acl add" in each for each in said)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("URI:distlog://node/{node}", "distlog://node/n1"),
        ("CN:node-{node}", "node-n1"),
        ("OU:nodes", ""),
        ("any", ""),
        ("", ""),
    ],
)
def test_a_node_is_known_by_its_certificate_where_that_names_it(
    tmp_path: Path, name: str, subject: str
) -> None:
    def body(authorization: Authorization, policy: FakePolicy) -> None:
        assert authorization.gate.node_subject("n1") == subject
        assert authorization.gate.node_subject("") == ""

    authorized(tmp_path, AuthorizationSettings(node_name=name), body)
