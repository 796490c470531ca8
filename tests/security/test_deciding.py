"""What the model makes of rules, that giving Casbin fewer of them changes no answer, and what is remembered."""

from __future__ import annotations

import gc

import pytest
from casbin.rbac.default_role_manager.role_manager import Role
from hypothesis import given
from hypothesis import strategies as st

from distlog.errors import ConfigurationInvalid, NoLeader
from distlog.security import deciding
from distlog.security.authorizer import ANSWER_COUNT_MAX, Authorizer
from distlog.security.deciding import (
    MODEL,
    SUBJECT_COUNT_MAX,
    ModelDecider,
    PolicyDecider,
    enforcer,
)
from distlog.security.policy import Action, Membership, Permission, Policy, Rule

POLICY = Policy(
    (
        Permission("alice", "orders-*", "produce"),
        Permission("bob", "orders", "*"),
        Permission("*", "public", "consume"),
        Permission("keepers", "*", "administer"),
        Membership("carol", "keepers"),
        Membership("dave", "seniors"),
        Membership("seniors", "keepers"),
    )
)


@pytest.mark.parametrize(
    ("subject", "action", "topic", "is_allowed"),
    [
        ("alice", "produce", "orders-1", True),
        ("alice", "produce", "orders-", True),
        ("alice", "produce", "orders", False),
        ("alice", "consume", "orders-1", False),
        ("alice", "describe", "orders-1", True),
        ("alice", "describe", "orders", False),
        ("alice", "describe", "*", False),
        ("alice", "produce", "*", False),
        ("bob", "administer", "orders", True),
        ("bob", "administer", "orders-1", False),
        ("bob", "administer", "*", False),
        ("", "consume", "public", True),
        ("", "consume", "publi", False),
        ("", "produce", "public", False),
        ("*", "consume", "public", True),
        ("carol", "administer", "*", True),
        ("carol", "administer", "orders", True),
        ("carol", "describe", "*", True),
        ("carol", "produce", "orders", False),
        ("dave", "administer", "orders", True),
        # Names of roles are no names of subjects.
        ("keepers", "administer", "orders", False),
        ("seniors", "administer", "orders", False),
        ("seniors", "consume", "public", True),
        ("Alice", "produce", "orders-1", False),
    ],
)
def test_what_rules_mean(subject: str, action: str, topic: str, is_allowed: bool) -> None:
    assert PolicyDecider(POLICY).decide(subject, Action(action), topic) is is_allowed


NAMES = st.sampled_from(["a", "b", "c", "d", "r", "s", "*"])
TOPICS = st.sampled_from(["x", "xy", "x*", "*", "z"])
PERMISSIONS = st.builds(Permission, NAMES, TOPICS, st.sampled_from([*Action, "*"]).map(str))
MEMBERSHIPS = st.builds(
    Membership, st.sampled_from(["a", "b", "r"]), st.sampled_from(["s", "t", "r"])
)


@given(st.lists(st.one_of(PERMISSIONS, MEMBERSHIPS), max_size=12), NAMES, TOPICS)
def test_the_rules_that_concern_a_subject_give_the_answers_of_all_rules(
    rules: list[Rule], subject: str, topic: str
) -> None:
    policy = Policy(rules)
    if policy.structure_problem or any(getattr(rule, "role", "") == subject for rule in rules):
        return
    everything = enforcer(MODEL, [rule.row for rule in policy.rules])
    decider = PolicyDecider(policy)
    for action in Action:
        assert decider.decide(subject, action, topic) is everything.enforce(
            subject, topic, str(action)
        )


def test_without_rules_everybody_may_do_everything_and_with_one_nobody_else_may() -> None:
    authorizer = Authorizer.open_to_all()
    assert authorizer.is_open
    assert authorizer.is_allowed("", Action.ADMINISTER, "*")
    authorizer.replace(PolicyDecider(Policy([Permission("root", "*", "*")])))
    assert not authorizer.is_open
    assert not authorizer.is_allowed("", Action.DESCRIBE, "*")
    assert authorizer.is_allowed("root", Action.ADMINISTER, "*")


def test_a_policy_that_is_not_known_allows_nothing_but_to_the_administrators_of_the_node() -> None:
    authorizer = Authorizer(administrators=("root",))
    assert authorizer.is_allowed("root", Action.ADMINISTER, "*")
    with pytest.raises(NoLeader, match="who may do what"):
        authorizer.is_allowed("alice", Action.CONSUME, "orders")


def test_answers_are_remembered_up_to_a_limit_and_forgotten_when_the_policy_changes() -> None:
    asked = 0

    class Counting(PolicyDecider):
        def decide(self, subject: str, action: Action, topic: str) -> bool:
            nonlocal asked
            asked += 1
            return True

    authorizer = Authorizer(Counting(POLICY))
    for _ in range(3):
        authorizer.is_allowed("alice", Action.PRODUCE, "orders-1")
    assert asked == 1
    for number in range(ANSWER_COUNT_MAX + 100):
        authorizer.is_allowed("alice", Action.PRODUCE, f"t{number}")
    assert authorizer.answer_count == ANSWER_COUNT_MAX
    authorizer.replace(Counting(POLICY))
    assert authorizer.answer_count == 0


def test_many_subjects_are_asked_about_and_few_are_kept_ready() -> None:
    decider = PolicyDecider(POLICY)
    for number in range(SUBJECT_COUNT_MAX + 10):
        assert not decider.decide(f"s{number}", Action.PRODUCE, "orders-1")
    assert len(decider._enforcers) == SUBJECT_COUNT_MAX


def test_a_model_of_the_operators_decides_in_its_own_way() -> None:
    model = MODEL.replace("p = sub, obj, act", "p = sub, obj, act, eft").replace(
        "e = some(where (p.eft == allow))",
        "e = some(where (p.eft == allow)) && !some(where (p.eft == deny))",
    )
    rows = [("p", "*", "*", "consume", "allow"), ("p", "eve", "*", "consume", "deny")]
    decider = ModelDecider(model, rows)
    assert decider.decide("alice", Action.CONSUME, "orders")
    assert not decider.decide("eve", Action.CONSUME, "orders")


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ("", []),
        ("[request_definition]\nr = sub", []),
        (MODEL.replace("keyMatch", "nothingLikeThat"), [("p", "a", "b", "c")]),
        (MODEL, [("p", "a", "b")]),
        (MODEL, [("q", "a", "b", "c")]),
        (MODEL, [("p", "a", "b", "c")] * 1001),
    ],
)
def test_a_model_or_rows_that_casbin_does_not_take_are_refused_in_words(
    model: str, rows: list[tuple[str, ...]]
) -> None:
    with pytest.raises(ConfigurationInvalid, match="--acl-"):
        ModelDecider(model, rows)


def test_what_a_model_cannot_decide_is_not_allowed_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = MODEL.replace("keyMatch(r.obj, p.obj)", '(r.obj == "*" || regexMatch("x", r.obj))')
    decider = ModelDecider(model, [("p", "*", "*", "*")])
    assert decider.decide("a", Action.CONSUME, "x")
    for _ in range(3):
        assert not decider.decide("a", Action.CONSUME, "(")
    assert len(caplog.records) == 1


def test_casbin_does_not_keep_the_names_that_it_is_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Topics have roles in this model, and whoever asks makes up their names."""
    monkeypatch.setattr(deciding, "QUESTION_COUNT_MAX", 50)
    model = MODEL.replace("g = _, _", "g = _, _\ng2 = _, _").replace(
        "keyMatch(r.obj, p.obj)", "g2(r.obj, p.obj)"
    )
    decider = ModelDecider(model, [("p", "*", "bills", "consume"), ("g2", "b1", "bills")])
    for number in range(500):
        assert not decider.decide("alice", Action.CONSUME, f"t{number}")
        assert decider.decide("alice", Action.CONSUME, "b1")
    gc.collect()
    roles = [each for each in gc.get_objects() if isinstance(each, Role)]
    assert len([role for role in roles if role.name.startswith("t")]) <= 50
