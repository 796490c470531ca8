"""What a leader would do about the members, case by case; tests/consensus/test_reconcile_schedules.py lets it do so for a while."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distlog.consensus.configuration import Addresses, Configuration
from distlog.consensus.reconcile import (
    Asking,
    Change,
    Intention,
    Policy,
    Situation,
    Standing,
    plan,
)
from distlog.discovery.view import Description, Member, MemberStatus, Sight

ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT
NOW = 10_000.0
WELL, SILENT = Standing(answers=True, lag=0), Standing(answers=False, lag=50)
CAUGHT_UP = Standing(answers=True, lag=0, has_caught_up=True)


def place(name: str, port: int = 1) -> Addresses:
    return Addresses(f"{name}:840{port}", f"{name}:8400")


def seen(
    name: str,
    status: MemberStatus,
    for_s: float = 1000.0,
    directory: str = "",
    cluster: str = "c",
    peer: str = "",
) -> Member:
    addresses = place(name)
    description = Description(
        name, directory or f"{name}-dir", peer or addresses.peer, addresses.client, cluster
    )
    return Member(description, status, 1, NOW - for_s)


def cluster_of(voters: str, learners: str = "", target: int = 0, **others: Any) -> Configuration:
    names = [*voters, *learners]
    return Configuration(
        "c",
        {name: f"{name}-dir" for name in voters},
        {name: f"{name}-dir" for name in learners},
        {name: place(name) for name in names},
        raft_index=others.get("raft_index", 9),
        target=target,
    )


def situation(configuration: Configuration, silent: str = "", **known: Any) -> Situation:
    """Return what the leader `a` knows if all but `silent` answer."""
    others = [each for each in configuration.members if each != "a"]
    made = Situation(
        node_id="a",
        configuration=configuration,
        held_up="",
        up=configuration.voters.keys() - set(silent),
        standings={each: SILENT if each in silent else WELL for each in others},
    )
    view = Sight(known.pop("view", {}), known.pop("view_age_s", 0.0), NOW)
    return replace(made, view=view, **known)


def action(made: Situation, policy: Policy | None = None) -> tuple[Change, str] | None:
    done = plan(made, policy or Policy()).action
    return (done.change, done.node_id) if done is not None else None


def intention(made: Situation, node_id: str) -> Intention:
    (found,) = [each for each in plan(made, Policy()).intentions if each.node_id == node_id]
    return found


# --- Who comes --------------------------------------------------------------------------------------


def asks(name: str, **others: Any) -> dict[str, Asking]:
    return {name: Asking(others.get("directory", f"{name}-dir"), others.get("at", place(name)))}


def test_who_asks_to_join_learns() -> None:
    made = situation(cluster_of("abc"), asking=asks("d"))
    assert action(made) == (Change.ADD_LEARNER, "d")
    done = plan(made, Policy()).action
    assert done is not None
    assert (done.directory_id, done.addresses) == ("d-dir", place("d"))


def test_who_is_only_seen_by_discovery_must_ask_by_itself() -> None:
    made = situation(cluster_of("abc"), view={"d": seen("d", ALIVE, cluster="")})
    assert action(made) is None
    assert intention(made, "d").waits_for == "it to ask by itself"


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (seen("d", ALIVE, cluster="other"), "an operator: it belongs to cluster other"),
        (
            seen("b", ALIVE, directory="wiped"),
            "an operator: the member of that name has another data directory",
        ),
    ],
)
def test_a_stranger_is_left_to_an_operator(member: Member, expected: str) -> None:
    name = member.description.node_id
    made = situation(cluster_of("abc"), view={name: member})
    assert action(made) is None
    assert intention(made, name).waits_for == expected


def test_a_node_that_is_only_configured_is_no_stranger() -> None:
    told = seen("b", ALIVE)
    configured = replace(told, description=replace(told.description, directory_id=""))
    assert not plan(situation(cluster_of("abc"), view={"b": configured}), Policy()).intentions


def test_an_identity_that_was_removed_never_comes_back() -> None:
    configuration = cluster_of("abcd").without("d")
    assert action(situation(configuration, asking=asks("d"), view={"d": seen("d", ALIVE)})) is None
    again = situation(configuration, asking=asks("d", directory="new"))
    assert action(again) == (Change.ADD_LEARNER, "d")


def test_two_nodes_at_one_address_are_left_to_an_operator_while_the_first_answers() -> None:
    asking = asks("d", at=place("b"))
    assert action(situation(cluster_of("abc"), asking=asking)) is None
    assert action(situation(cluster_of("abc"), "b", asking=asking)) == (Change.ADD_LEARNER, "d")


def test_a_cluster_takes_no_more_than_thirty_two_members() -> None:
    full = cluster_of("abc", "defghijklmnopqrstuvwxyzABCDEF")
    assert len(full.members) == 32
    assert action(situation(full, asking=asks("Z"))) is None


def test_a_learner_votes_when_it_has_caught_up() -> None:
    made = situation(cluster_of("ab", "c"), standings={"b": WELL, "c": WELL})
    assert action(made) is None
    assert intention(made, "c").waits_for.startswith("it to catch up")
    ready = replace(made, standings={"b": WELL, "c": CAUGHT_UP})
    assert action(ready) == (Change.PROMOTE, "c")


def test_beyond_the_target_a_learner_is_kept_as_one() -> None:
    standings = {"b": WELL, "c": WELL, "d": CAUGHT_UP}
    made = situation(cluster_of("abc", "d", target=3), standings=standings)
    assert action(made) is None
    assert intention(made, "d").waits_for == "a place: 3 of 3 voters are there"
    assert action(situation(cluster_of("abc", "d", target=5), standings=standings)) is not None


def test_a_cluster_that_was_formed_for_three_writes_that_down_once() -> None:
    formed = cluster_of("abc", raft_index=1)
    assert action(situation(formed, expect=3)) == (Change.SET_TARGET, "a")
    assert action(situation(formed.meant_for(3), expect=3)) is None
    assert action(situation(cluster_of("abc"), expect=3)) is None, "it means nothing later"
    assert action(situation(cluster_of("a", raft_index=1), expect=3)) is None


# --- Who moves --------------------------------------------------------------------------------------


def test_who_is_heard_elsewhere_is_written_down_there() -> None:
    moved = replace(WELL, heard_at=place("b", 9))
    made = situation(cluster_of("abc"), standings={"b": moved, "c": WELL})
    assert action(made) == (Change.LOCATE, "b")


def test_where_discovery_sees_a_silent_member_must_be_heard_there() -> None:
    view = {"b": seen("b", ALIVE, peer="elsewhere:1")}
    assert action(situation(cluster_of("abc"), "b", view=view)) is None
    found = intention(situation(cluster_of("abc"), "b", view=view), "b")
    assert found.waits_for == "it to answer there"
    assert not plan(situation(cluster_of("abc"), view=view), Policy()).intentions, "it answers"


# --- Who leaves -------------------------------------------------------------------------------------


def test_who_has_left_is_removed() -> None:
    made = situation(cluster_of("abc"), "c", view={"c": seen("c", LEFT)})
    assert action(made) == (Change.REMOVE, "c")


def test_who_has_left_and_still_answers_is_waited_for() -> None:
    made = situation(cluster_of("abc"), view={"c": seen("c", LEFT)})
    assert action(made) is None
    assert intention(made, "c").waits_for == "it to stop: it still answers"


def test_nobody_is_removed_whose_leaving_would_leave_no_majority() -> None:
    made = situation(cluster_of("abcde"), "cde", view={"c": seen("c", LEFT)})
    assert action(made) is None
    assert intention(made, "c").waits_for == "more voters to be up: without it 2 of 4 are"


def test_the_good_bye_of_another_directory_removes_nobody() -> None:
    made = situation(cluster_of("abc"), "c", view={"c": seen("c", LEFT, directory="old")})
    assert action(made) is None


def test_a_leader_that_leaves_hands_over_and_never_removes_itself() -> None:
    view = {"a": seen("a", LEFT)}
    assert action(situation(cluster_of("abc"), view=view)) == (Change.HAND_OVER, "a")
    alone = situation(cluster_of("a"), view=view)
    assert action(alone) is None
    assert intention(alone, "a").waits_for == "another voter that is up and can lead"


# --- Who has failed ---------------------------------------------------------------------------------


def test_who_has_failed_stays_however_long_it_is() -> None:
    view = {"c": seen("c", FAILED, 1e9)}
    for target in (0, 3):
        made = situation(cluster_of("abc", target=target), "c", view=view)
        assert action(made) is None
        expected = "a node in its place: fewer than 3 voters would be left"
        assert intention(made, "c").waits_for == expected


def test_who_has_failed_is_replaced_and_then_removed() -> None:
    view = {"c": seen("c", FAILED, 700)}
    standings = {"b": WELL, "c": SILENT, "d": CAUGHT_UP}
    spare = situation(cluster_of("abc", "d", target=3), "c", standings=standings, view=view)
    done = plan(spare, Policy()).action
    assert done is not None
    assert (done.change, done.node_id, done.why) == (Change.PROMOTE, "d", "it takes the place of c")
    promoted = situation(cluster_of("abcd", target=3), "c", view=view)
    assert action(promoted) == (Change.REMOVE, "c")


def test_before_its_time_who_has_failed_is_waited_for() -> None:
    view = {"c": seen("c", FAILED, 599)}
    made = situation(cluster_of("abcd", target=3), "c", view=view)
    assert action(made) is None
    assert intention(made, "c").waits_for == "it to come back, or 1 s more"
    assert action(made, Policy(dead_after_s=500)) == (Change.REMOVE, "c")


def test_without_a_target_who_joined_after_the_failure_takes_the_place() -> None:
    view = {"c": seen("c", FAILED, 700)}
    made = situation(cluster_of("abcd"), "c", view=view)
    assert action(replace(made, voters_at_failure={"c": 3})) == (Change.REMOVE, "c")
    assert action(replace(made, voters_at_failure={"c": 4})) is None
    assert action(made) is None, "nobody knows how many there were"


def test_only_one_voter_more_than_the_target_replaces_two_that_failed() -> None:
    view = {each: seen(each, FAILED, 700) for each in "de"}
    standings = {each: SILENT if each in "de" else CAUGHT_UP for each in "bcdefg"}
    made = situation(cluster_of("abcdef", "g", target=5), "de", standings=standings, view=view)
    assert action(made) == (Change.REMOVE, "d")


@pytest.mark.parametrize("status", [LEFT, FAILED])
def test_an_old_view_removes_nobody(status: MemberStatus) -> None:
    view = {"d": seen("d", status)}
    made = situation(cluster_of("abcd", target=3), "d", view=view, view_age_s=31)
    assert action(made) is None
    assert intention(made, "d").waits_for == "discovery, of which nothing is known for 31 s"


def test_who_seems_dead_to_discovery_alone_stays() -> None:
    made = situation(cluster_of("abcd", target=3), view={"d": seen("d", FAILED)})
    assert action(made) is None
    assert "it answers" in intention(made, "d").waits_for


def test_who_is_not_in_the_view_stays() -> None:
    assert not plan(situation(cluster_of("abcd", target=3), "d"), Policy()).intentions


def test_a_learner_that_has_failed_stays() -> None:
    made = situation(cluster_of("abc", "d"), "d", view={"d": seen("d", FAILED)})
    assert action(made) is None


def test_while_a_change_is_under_way_what_follows_is_only_said() -> None:
    made = situation(cluster_of("abc"), asking=asks("d"), held_up="the change under way")
    assert action(made) is None
    assert intention(made, "d").change is Change.ADD_LEARNER
