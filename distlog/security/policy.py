"""What subjects may do: the rules of a policy as values, what a rule may look like, and what must hold of all together.

    Permission   a subject or a role may do one action to the topics of a pattern      p, alice, orders-*, produce
    Membership   a subject, or a role, has the permissions of a role                   g, alice, writers

A policy without rules is no policy: everybody may do everything.  With the first rule everything is denied that no rule allows.
The limits here are part of the replicated format: all nodes must find the same policies acceptable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from distlog.errors import InvalidRequest
from distlog.security.subject import is_subject

RULE_COUNT_MAX = 1000
# How many roles may stand one above the other; Casbin itself follows ten.
ROLE_DEPTH_MAX = 8
# As a subject: everybody, also without a certificate.  As a topic: every topic, and the cluster itself.  As an action: every one.
ANY = "*"
# Topic names of the replicated format, as a pattern's first part; the pattern may end with an asterisk.
TOPIC_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,249}\*?|\*")


class Action(StrEnum):
    """What somebody does to a topic, or to the cluster."""

    PRODUCE = "produce"
    CONSUME = "consume"
    DESCRIBE = "describe"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """`subject`, which may be a role, may do `action` to each topic that fits `topic`."""

    subject: str
    topic: str
    action: str

    @property
    def row(self) -> tuple[str, ...]:
        return ("p", self.subject, self.topic, self.action)


@dataclass(frozen=True, slots=True, order=True)
class Membership:
    """`subject`, which may be a role, has what `role` has."""

    subject: str
    role: str

    @property
    def row(self) -> tuple[str, ...]:
        return ("g", self.subject, self.role)


Rule = Permission | Membership


def rule_of(row: Iterable[str]) -> Rule:
    """Return the rule that a row of text is, as it stands in a policy file.  Raises InvalidRequest, which names what is wrong."""
    kind, *values = row
    if kind == "p" and len(values) == 3:
        rule: Rule = Permission(*values)
    elif kind == "g" and len(values) == 2:
        rule = Membership(*values)
    else:
        problem = "a rule is `p, subject, topic, action` or `g, subject, role`"
        raise InvalidRequest(field="rule", problem=problem)
    if problem := problem_of(rule):
        raise InvalidRequest(field="rule", problem=problem)
    return rule


def problem_of(rule: Rule) -> str:
    """Return what is wrong with a rule by itself, "" if nothing is."""
    words = "1 to 255 printable characters without a blank"
    if not is_subject(rule.subject):
        return f"a subject has {words}"
    if isinstance(rule, Membership):
        if not is_subject(rule.role):
            return f"a role has {words}"
        if ANY in (rule.subject, rule.role):
            return "everybody is no member of a role, and no role: give everybody the permission itself"
        return ""
    if not TOPIC_PATTERN.fullmatch(rule.topic):
        return "a topic is a name, the beginning of one with * behind it, or * for every topic and the cluster itself"
    if rule.action != ANY and rule.action not in tuple(Action):
        return f"an action is one of {', '.join(Action)}, or * for all of them"
    return ""


class Policy:
    """Rules in the order in which they were added, each once.  Immutable."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules: tuple[Rule, ...] = tuple(dict.fromkeys(rules))
        # Made when they are first asked for: a policy that only passes through costs nothing.
        self._permissions: dict[str, list[Permission]] | None = None
        self._memberships: dict[str, list[Membership]] = {}
        self._roles: frozenset[str] = frozenset()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def changed(self, added: Iterable[Rule], removed: Iterable[Rule]) -> Policy:
        """Return the policy with rules added, then rules removed; what is there, or is not, changes nothing."""
        gone = set(removed)
        return Policy(rule for rule in (*self.rules, *added) if rule not in gone)

    @property
    def problem(self) -> str:
        """What must not be so of a replicated policy, "" if all is well: also nobody who could change it."""
        if problem := self.structure_problem:
            return problem
        if self.rules and not any(map(_is_for_administrators, self.rules)):
            return f"nobody could change it any more: let somebody administer {ANY}"
        return ""

    @property
    def structure_problem(self) -> str:
        """What must not be so of any policy, "" if all is well: too many rules, roles without end."""
        if len(self.rules) > RULE_COUNT_MAX:
            return f"it would have {len(self.rules)} rules, and {RULE_COUNT_MAX} are the limit: use roles and patterns"
        if self._is_too_deep():
            return f"roles would stand above each other more than {ROLE_DEPTH_MAX} deep, or in a circle"
        return ""

    def _is_too_deep(self) -> bool:
        roles_of: dict[str, list[str]] = {}
        for rule in self.rules:
            if isinstance(rule, Membership):
                roles_of.setdefault(rule.subject, []).append(rule.role)
        reached = set(roles_of)
        for _ in range(ROLE_DEPTH_MAX):
            reached = {role for subject in reached for role in roles_of.get(subject, ())}
        return bool(reached & roles_of.keys())

    # --- What concerns one subject ---------------------------------------------------------------

    def concerning(self, subject: str) -> Policy:
        """Return the rules that can matter to a subject: its own, those of its roles, and everybody's.

        A subject with the name of a role is nobody: a certificate must not be a way to a role that its holder was not given.
        """
        self._sort()
        names, rules = [subject, ANY], list[Rule]()
        if subject in self._roles:
            names = [ANY]
        known = set(names)
        for name in names:
            rules += (self._permissions or {}).get(name, ())
            for membership in self._memberships.get(name, ()):
                rules.append(membership)
                if membership.role not in known:
                    known.add(membership.role)
                    names.append(membership.role)
        return Policy(rules)

    def _sort(self) -> None:
        if self._permissions is not None:
            return
        self._permissions = {}
        for rule in self.rules:
            if isinstance(rule, Permission):
                self._permissions.setdefault(rule.subject, []).append(rule)
            else:
                self._memberships.setdefault(rule.subject, []).append(rule)
        self._roles = frozenset(r.role for r in self.rules if isinstance(r, Membership))


NO_POLICY = Policy()


def _is_for_administrators(rule: Rule) -> bool:
    # A role in the place of the subject has a member, or else it is no role.
    return (
        isinstance(rule, Permission)
        and rule.topic == ANY
        and rule.action in (Action.ADMINISTER, ANY)
    )
