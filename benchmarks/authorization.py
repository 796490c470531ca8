"""What it costs to ask whether a call may go on.

    python -m benchmarks.authorization [--runs 9] [--json]

One process, no network: the questions that a node asks itself for a call. `remembered` was asked before; `whole` is all that a unary
call pays, the name in its certificate included; `first` is asked of Casbin, for a subject that has been here and a topic that
has not; `change` is what the node pays when the policy changes: everything remembered is forgotten, and the first question of a
subject.  Policies have 10, 100 and 1,000 rules, of which five concern the subject.  Beside it stands a call of an empty Python function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from benchmarks.steps import Step, print_figures, us_each
from distlog.security.authorizer import Authorizer
from distlog.security.deciding import PolicyDecider
from distlog.security.policy import Action, Membership, Permission, Policy, Rule
from distlog.server.gate import Gate, NoAudit
from distlog.server.permissions import NEEDS

RULE_COUNTS = (10, 100, 1000)
CACHED_AT_MOST_US = 20.0
METHOD = "log.v1.Log.Produce"
REMEMBERED_CALLS, FIRST_CALLS, CHANGE_CALLS = 20_000, 500, 50


class Context:
    """What gRPC gives for a call with a certificate."""

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {
            "transport_security_type": [b"ssl"],
            "x509_common_name": [b"alice"],
            "x509_subject_alternative_name": [b"alice"],
        }

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"


def policy(rule_count: int) -> Policy:
    """Return a policy of which a twentieth at least concerns alice: three permissions, and a role with one."""
    own: list[Rule] = [
        Permission("alice", "orders-*", "produce"),
        Permission("alice", "bills", "consume"),
        Permission("alice", "audit", "describe"),
        Membership("alice", "writers"),
        Permission("writers", "shared-*", "produce"),
    ]
    others = [
        Permission(f"subject-{number}", f"topic-{number}-*", "produce")
        for number in range(rule_count - len(own))
    ]
    return Policy((*own, *others))


def measured(rule_count: int) -> Iterator[Step]:
    authorizer = Authorizer(PolicyDecider(policy(rule_count)))
    gate = Gate(authorizer, NoAudit(), lambda size: bytes(size))
    need, context, numbers = NEEDS[METHOD], Context(), count()

    def remembered() -> None:
        authorizer.is_allowed("alice", Action.PRODUCE, "orders-1")

    def whole() -> None:
        access = gate.enter(METHOD, need, context, is_stream=False)
        assert access is not None
        access.check("orders-1")

    def first() -> None:
        authorizer.is_allowed("alice", Action.PRODUCE, f"orders-{next(numbers)}")

    def change() -> None:
        authorizer.replace(PolicyDecider(policy(rule_count)))
        remembered()

    of = f", {rule_count:,} rules"
    remembered()
    yield f"remembered{of}", us_each(REMEMBERED_CALLS, remembered), CACHED_AT_MOST_US
    yield f"whole{of}", us_each(REMEMBERED_CALLS, whole), CACHED_AT_MOST_US
    yield f"first{of}", us_each(FIRST_CALLS, first), None
    yield f"change{of}", us_each(CHANGE_CALLS, change), None


def run() -> Iterator[Step]:
    yield "an empty function", us_each(REMEMBERED_CALLS, lambda: None), None
    for rule_count in RULE_COUNTS:
        yield from measured(rule_count)


def main(arguments: Sequence[str] | None = None) -> None:
    print_figures(__doc__, run, arguments)


if __name__ == "__main__":
    main()
