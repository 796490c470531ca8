"""Which changes of the replicated policy are accepted: by the leader that proposes them, and by every node that applies them."""

from __future__ import annotations

from distlog.consensus.commands import ChangePolicy
from distlog.errors import DistlogError, InvalidRequest
from distlog.security.policy import RULE_COUNT_MAX, Policy, problem_of


def check_change(policy: Policy, command: ChangePolicy) -> DistlogError | None:
    """Tell why a change of the policy is refused; None: it is not."""
    added, removed = command.added, command.removed
    if not added and not removed:
        return InvalidRequest("rules", "nothing is to be changed: name a rule")
    if max(len(added), len(removed)) > RULE_COUNT_MAX:
        return InvalidRequest("rules", f"more than {RULE_COUNT_MAX} at once")
    for rule in added:
        if problem := problem_of(rule):
            return InvalidRequest("rule", problem)
    changed = policy.changed(added, removed)
    if policy.rules and not changed.rules and not command.may_open:
        problem = "no rule would be left, and then everybody may do everything: say so (--open) if that is meant"
        return InvalidRequest("rules", problem)
    if problem := changed.problem:
        return InvalidRequest("rules", problem)
    return None
