"""The calls that look at the policy and change it, and who brings it into force here.

A change after which its own caller could not change anything more is a mistake nearly always, so it is refused unless the caller
insists.  That is no rule of the replicated state: only here is known who calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from distlog.api.log.v1 import log_pb2
from distlog.errors import DistlogError, InvalidRequest
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import PolicyDecider
from distlog.security.policy import (
    ANY,
    RULE_COUNT_MAX,
    Action,
    Membership,
    Permission,
    Policy,
    Rule,
    rule_of,
)
from distlog.server.deadlines import read_deadline, write_deadline
from distlog.server.limits import ServerLimits
from distlog.server.served_log import ServedLog, ServedPolicy

LEARN_TIMEOUT_S = 5.0
LEARN_PAUSE_S = 0.2


class PolicyCalls:
    """What `ClusterService` does about the policy."""

    def __init__(self, log: ServedLog, limits: ServerLimits, authorizer: Authorizer) -> None:
        self._log = log
        self._limits = limits
        self._authorizer = authorizer

    async def get(self) -> log_pb2.GetPolicyResponse:
        """Return the replicated policy, with every change that was acknowledged before.

        Raises InvalidRequest where another one is in force, NoLeader when nobody can say whether this node knows the newest.
        """
        self._require_replicated()
        async with read_deadline(self._limits.read_timeout_s):
            await self._log.policy.learn()
        return log_pb2.GetPolicyResponse(
            rules=[rule_message(rule) for rule in self._log.policy.current.rules]
        )

    async def change(
        self, request: log_pb2.ChangePolicyRequest, subject: str
    ) -> log_pb2.ChangePolicyResponse:
        """Change it for `subject`, "" for nobody known."""
        self._require_replicated()
        added, removed = rules_of("add", request.add), rules_of("remove", request.remove)
        if not request.force:
            self._require_way_back(self._log.policy.current.changed(added, removed), subject)
        async with write_deadline(self._limits.write_timeout_s):
            changed = await self._log.policy.change(added, removed, may_open=request.open)
        return log_pb2.ChangePolicyResponse(
            rule_count=changed.rule_count,
            added_count=changed.added_count,
            removed_count=changed.removed_count,
        )

    def _require_replicated(self) -> None:
        if self._authorizer.file:
            problem = f"this node acts on the file {self._authorizer.file}: change it there, on every node"
            raise InvalidRequest(field="policy", problem=problem)

    def _require_way_back(self, policy: Policy, subject: str) -> None:
        if (
            not policy.rules
            or policy.problem
            or subject in self._authorizer.administrators
            or PolicyDecider(policy).decide(subject, Action.ADMINISTER, ANY)
        ):
            return
        who = subject or "a caller without a certificate, as this one,"
        problem = (
            f"{who} could change nothing more afterwards: let that subject administer {ANY} as well, or say so (--force) "
            "if that is meant"
        )
        raise InvalidRequest(field="rules", problem=problem)


def rules_of(field: str, messages: Sequence[log_pb2.Rule]) -> list[Rule]:
    """Return the rules that a request names.  Raises InvalidRequest."""
    if len(messages) > RULE_COUNT_MAX:
        raise InvalidRequest(field=field, problem=f"at most {RULE_COUNT_MAX} rules at once")
    return [rule_of(row_of(each)) for each in messages]


def row_of(message: log_pb2.Rule) -> tuple[str, ...]:
    """Return a message as a row of text.  Raises InvalidRequest if it would be two rules."""
    if not message.role:
        return "p", message.subject, message.topic, message.action
    if message.topic or message.action:
        problem = "a rule with a role makes its subject a member of that, and names no topic and no action"
        raise InvalidRequest(field="rule", problem=problem)
    return "g", message.subject, message.role


def rule_message(rule: Rule) -> log_pb2.Rule:
    """Return a rule as a message."""
    match rule:
        case Membership(subject, role):
            return log_pb2.Rule(subject=subject, role=role)
        case Permission(subject, topic, action):
            return log_pb2.Rule(subject=subject, topic=topic, action=action)


async def follow_policy(policy: ServedPolicy, authorizer: Authorizer, *, is_strict: bool) -> None:
    """Keep the replicated policy in force on this node, from the first moment.  Ends when this node knows it; then it goes on by itself.

    A node that starts knows an old policy, or none.  An old one is in force until the node has caught up.  None means that everybody
    may do everything, which is believed only after the leader has confirmed it, if `is_strict`; until then nothing is allowed.
    """
    is_learned = not is_strict

    def use() -> None:
        if is_learned or policy.current.rules:
            authorizer.replace(PolicyDecider(policy.current))

    policy.changed.append(use)
    use()
    while not is_learned:
        try:
            async with asyncio.timeout(LEARN_TIMEOUT_S):
                await policy.learn()
            is_learned = True
        except (DistlogError, TimeoutError):
            await asyncio.sleep(LEARN_PAUSE_S)
    use()
