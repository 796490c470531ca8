"""The policy as replicated state: what is refused, what a change comes to, and that it survives restarts and checkpoints."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlog.consensus.commands import ChangePolicy, DeleteTopic, decode_entry, encode_entry
from distlog.consensus.results import PolicyChanged
from distlog.errors import EntryCorrupt, EntryUnknown, InvalidRequest
from distlog.security.policy import NO_POLICY, Membership, Permission, Policy, Rule
from tests.consensus.states import Replica

ROOT = Permission("root", "*", "*")
ALICE = Permission("alice", "orders-*", "produce")
ROLE = Membership("bob", "writers")


def change(*added: Rule, removed: tuple[Rule, ...] = (), may_open: bool = False) -> ChangePolicy:
    return ChangePolicy(added, removed, may_open)


def test_rules_are_added_and_taken_away_together_and_each_stands_once() -> None:
    replica = Replica()
    assert replica.machine.policy == NO_POLICY
    assert replica.apply(change(ROOT, ALICE, ROOT)) == [PolicyChanged(2, 2, 0)]
    assert replica.apply(change(ROLE, ALICE, removed=(ALICE,))) == [PolicyChanged(2, 1, 1)]
    assert replica.machine.policy.rules == (ROOT, ROLE)
    assert replica.apply(change(ROOT, removed=(ALICE,))) == [PolicyChanged(2, 0, 0)]


def test_whoever_wants_to_know_is_told_of_each_change_and_of_nothing_else() -> None:
    replica, told = Replica(), []
    replica.machine.policy_changed = lambda: told.append(replica.machine.policy.rules)
    replica.apply(change(ALICE), DeleteTopic(1))
    replica.apply(change(ROOT), change(ALICE))
    assert told == [(ROOT,), (ROOT, ALICE)]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (change(), "nothing is to be changed"),
        (change(ALICE), "nobody could change it"),
        (change(Permission("root", "orders-*", "*")), "nobody could change it"),
        (change(ROOT, Permission("a", "x/y", "produce")), "a topic is"),
        (change(ROOT, Permission("", "x", "produce")), "a subject has"),
        (change(ROOT, Membership("a", "")), "a role has"),
        (change(ROOT, Membership("a", "b"), Membership("b", "a")), "in a circle"),
        (change(ROOT, Membership("a", "a")), "in a circle"),
        (change(ROOT, *(Membership(f"r{n}", f"r{n + 1}") for n in range(9))), "8 deep"),
        (change(*(Permission(f"s{n}", "*", "*") for n in range(1001))), "more than 1000"),
    ],
)
def test_a_policy_that_nobody_should_have_is_refused_and_nothing_changes(
    command: ChangePolicy, problem: str
) -> None:
    replica = Replica()
    refused = replica.machine.check(command)
    assert isinstance(refused, InvalidRequest)
    assert problem in str(refused)
    (result,) = replica.apply(command)
    assert isinstance(result, InvalidRequest)
    assert replica.machine.policy == NO_POLICY


@pytest.mark.parametrize(
    "name",
    ["\u0378", "n\U0001face", "\U0001fae9", "\U000323b0"],
    ids=["no character yet", "since Unicode 15", "since 16", "since 15, far"],
)
def test_what_a_name_may_hold_depends_on_no_version_of_python(name: str) -> None:
    """Two nodes that know different versions of Unicode must not differ about a rule: their policies would part."""
    replica = Replica()
    rules = (ROOT, Permission(name, "orders", "produce"), Membership(name, name + "s"))
    assert replica.apply(change(*rules)) == [PolicyChanged(3, 3, 0)]


def test_eight_roles_above_each_other_are_fine() -> None:
    chain = [Membership(f"r{n}", f"r{n + 1}") for n in range(8)]
    assert Replica().apply(change(ROOT, *chain)) == [PolicyChanged(9, 9, 0)]


def test_the_thousandth_rule_is_the_last_one() -> None:
    replica = Replica()
    many = [Permission(f"s{n}", "*", "*") for n in range(1000)]
    assert replica.apply(change(*many)) == [PolicyChanged(1000, 1000, 0)]
    (result,) = replica.apply(change(ROOT))
    assert isinstance(result, InvalidRequest)
    assert replica.apply(change(ROOT, removed=(many[0],))) == [PolicyChanged(1000, 1, 1)]


def test_the_last_rule_goes_only_when_everybody_is_meant_to_do_everything() -> None:
    replica = Replica()
    replica.apply(change(ROOT))
    (refused,) = replica.apply(change(removed=(ROOT,)))
    assert isinstance(refused, InvalidRequest)
    assert "--open" in str(refused)
    assert replica.apply(change(removed=(ROOT,), may_open=True)) == [PolicyChanged(0, 0, 1)]


def test_a_restart_and_a_checkpoint_keep_the_policy() -> None:
    replica = Replica()
    replica.apply(change(ROOT, ALICE, ROLE))
    again = Replica(journal=replica.journal)
    assert again.machine.policy.rules == (ROOT, ALICE, ROLE)
    assert again.state() == replica.state()
    replica.checkpoint()
    replica.machine.close()
    restored = Replica(replica.disk, replica.journal)
    assert restored.image is not None
    assert restored.machine.policy == Policy((ROOT, ALICE, ROLE))
    assert restored.state() == replica.state()


def test_a_rule_of_a_kind_that_is_not_known_stops_the_node_in_words() -> None:
    payload = bytearray(encode_entry([change(ROOT)], 0))
    position = payload.index(b"\x01\x04\x00root")
    payload[position] = 3
    with pytest.raises(EntryUnknown, match="rule of kind 3"):
        decode_entry(bytes(payload))


@given(st.data())
def test_a_changed_change_raises_nothing_but_the_errors_of_an_entry(data: st.DataObject) -> None:
    payload = bytearray(encode_entry([change(ROOT, ALICE, removed=(ROLE,))], 0))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(17, len(payload) - 1))] = data.draw(st.integers(0, 255))
    # Anything else that it raises fails the test.
    with suppress(EntryUnknown, EntryCorrupt):
        decode_entry(bytes(payload))
