"""Casbin, asked about one subject, one action and one topic.

The model is the ancestor's, with roles and patterns.  Casbin looks at every rule for every question, 5 us each, so a decider of our
own model gives it only the rules that concern the subject; the answer is the same.  A model of the operator's gets all rules, since
nobody knows what its matcher makes of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import casbin
from casbin.model import Model

from distlog.errors import ConfigurationInvalid
from distlog.security.policy import ANY, Action, Permission, Policy

logger = logging.getLogger(__name__)

# Every permission includes that to describe what it is about.
MODEL = """
[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = keyMatch(r.obj, p.obj) && (r.act == p.act || p.act == "*" || r.act == "describe") && (p.sub == "*" || g(r.sub, p.sub))
"""
# Subjects whose rules are kept ready.
SUBJECT_COUNT_MAX = 256
ROW_COUNT_MAX = 1000
# Questions that Casbin answers by a model of the operator's before it is made anew: it keeps each name that it was asked about for ever.
QUESTION_COUNT_MAX = 10_000


class Decider(Protocol):
    """One policy that never changes; another one is another decider."""

    # No rule at all: everybody may do everything.
    is_empty: bool

    def decide(self, subject: str, action: Action, topic: str) -> bool:
        """Tell whether the policy allows it; 0.1 ms and more."""

    def topics(self, subject: str, action: Action) -> Iterator[str]:
        """Yield every pattern that may let `subject` do `action` to something."""


class PolicyDecider:
    """Decides by a policy of ours and the model above."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.is_empty = not policy.rules
        self._enforcers: dict[str, tuple[Any, Policy]] = {}

    def decide(self, subject: str, action: Action, topic: str) -> bool:
        return bool(self._concerning(subject)[0].enforce(subject, topic, str(action)))

    def topics(self, subject: str, action: Action) -> Iterator[str]:
        for rule in self._concerning(subject)[1].rules:
            if isinstance(rule, Permission) and rule.action in (action, ANY):
                yield rule.topic

    def _concerning(self, subject: str) -> tuple[Any, Policy]:
        found = self._enforcers.get(subject)
        if found is None:
            policy = self._policy.concerning(subject)
            found = enforcer(MODEL, (rule.row for rule in policy.rules)), policy
            if len(self._enforcers) >= SUBJECT_COUNT_MAX:
                del self._enforcers[next(iter(self._enforcers))]
            self._enforcers[subject] = found
        return found


class ModelDecider:
    """Decides by a model and rows of the operator's own, which no one here understands."""

    def __init__(self, model: str, rows: Sequence[Sequence[str]]) -> None:
        """Raises ConfigurationInvalid for what Casbin does not take."""
        self.is_empty = not rows
        self._model = model
        self._rows = rows
        self._asked_count = 0
        self._has_failed = False
        if len(rows) > ROW_COUNT_MAX:
            problem = f"has {len(rows)} rules, and {ROW_COUNT_MAX} are the limit"
            raise ConfigurationInvalid(key="--acl-policy", problem=problem)
        try:
            self._enforcer = enforcer(model, rows)
            # A matcher that cannot be computed is found now.
            self._enforcer.enforce("", ANY, str(Action.DESCRIBE))
        except Exception as error:
            problem = (
                f"Casbin does not take the model or the policy: {type(error).__name__}: {error}"
            )
            raise ConfigurationInvalid(key="--acl-model", problem=problem) from error

    def decide(self, subject: str, action: Action, topic: str) -> bool:
        self._asked_count += 1
        if self._asked_count > QUESTION_COUNT_MAX:
            self._asked_count = 1
            self._enforcer = enforcer(self._model, self._rows)
        try:
            return bool(self._enforcer.enforce(subject, topic, str(action)))
        except Exception:
            # Of a matcher of the operator's anything can be expected.  What it cannot decide is not allowed.
            if not self._has_failed:
                self._has_failed = True
                logger.exception(
                    "the model of --acl-model fails for some calls, which are denied: mend its matchers"
                )
            return False

    def topics(self, subject: str, action: Action) -> Iterator[str]:
        yield from dict.fromkeys(row[2] for row in self._rows if row[0] == "p" and len(row) > 2)


def enforcer(model_text: str, rows: Iterable[Sequence[str]]) -> Any:
    """Return Casbin with a model and rows of text.  Raises whatever it raises."""
    model = Model()
    model.load_model_from_text(model_text)
    found = casbin.Enforcer(model)
    # A subject may have been given a role twice, by two names for it; Casbin's own check for that is quadratic.
    for kind, *values in rows:
        assertion = model.model[kind[0]][kind]
        if len(values) != len(assertion.tokens) and kind[0] == "p":
            raise ValueError(
                f"a row {kind} has {len(values)} values where {len(assertion.tokens)} belong"
            )
        assertion.policy.append(values)
    found.build_role_links()
    return found
