"""Members change one at a time, by the log, and an identity is never taken for another one.

Each story is told with all rules; tests/simulation/ablation.py tells the same ones without the rule that it is about.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from distlog.consensus.configuration import Addresses
from distlog.consensus.rules import complete_rules
from distlog.discovery.view import Description, Member, MemberStatus, Sight
from distlog.errors import (
    InvalidRequest,
    MemberNotFound,
    MembershipChangeRefused,
    MembershipChangeUnderWay,
)
from tests.consensus.voters import ELECTION_S, RulesMaker, Voters, directory_of


def ignore(_result: Any, _code: int) -> None: ...


def led_by_a(names: str = "abc", rules: RulesMaker = complete_rules) -> Voters:
    cluster = Voters(names, rules=rules)
    cluster.elect("a", *names[1:])
    cluster.settle("a", *names[1:])
    cluster["a"].membership.step()
    return cluster


def voters_of(cluster: Voters, name: str) -> str:
    return "".join(cluster[name].raft.configuration.voters)


def learners_of(cluster: Voters, name: str) -> str:
    return "".join(cluster[name].raft.configuration.learners)


def grow(cluster: Voters, leader: str, name: str, *helpers: str) -> None:
    """Start a node and let it become a voter."""
    cluster.start_empty(name)
    cluster.add_learner(leader, name)
    cluster.settle(leader, *helpers, name)
    cluster.promote(leader, *helpers, name)


def remove(cluster: Voters, leader: str, name: str, *helpers: str) -> None:
    cluster[leader].membership.remove(name, force=False, done=ignore)
    cluster.settle(leader, *helpers)


# --- Growing and shrinking ------------------------------------------------------------------------


def test_a_node_learns_catches_up_and_votes() -> None:
    cluster = led_by_a("a")
    cluster.propose("a", b"before")
    cluster.settle("a")
    cluster.start_empty("b")
    cluster.add_learner("a", "b")
    cluster.settle("a", "b")
    assert (voters_of(cluster, "b"), learners_of(cluster, "b")) == ("a", "b")
    assert cluster["b"].applied == [(3, b"before")], "it is sent everything"
    cluster.promote("a", "b")
    assert (voters_of(cluster, "a"), learners_of(cluster, "a")) == ("ab", "")
    assert voters_of(cluster, "b") == "ab"
    cluster.propose("a", b"after")
    cluster.tick("a", "a")
    assert b"after" not in cluster.acknowledged(), "one of two is no majority"
    cluster.settle("a", "b")
    assert b"after" in cluster.acknowledged()


def test_a_learner_counts_for_nothing() -> None:
    cluster = led_by_a()
    cluster.start_empty("d")
    cluster.add_learner("a", "d")
    cluster.settle("a", "b", "c", "d")
    cluster.lose("b", "c")
    cluster.propose("a", b"x")
    cluster.settle("a", "d")
    assert cluster["d"].journal.last_index == cluster["a"].journal.last_index
    assert cluster.acknowledged() == []


def test_a_cluster_grows_from_one_to_five_and_shrinks_back_under_load() -> None:
    cluster = led_by_a("a")
    wanted = []
    for count, name in enumerate("bcde", 1):
        cluster.propose("a", b"before-" + name.encode())
        grow(cluster, "a", name, *"bcde"[: count - 1])
        wanted.append(b"before-" + name.encode())
    assert voters_of(cluster, "a") == "abcde"
    for count, name in reversed(list(enumerate("bcde"))):
        cluster.propose("a", b"after-" + name.encode())
        remove(cluster, "a", name, *"bcde"[:count])
        wanted.append(b"after-" + name.encode())
        assert name not in voters_of(cluster, "a")
    cluster.settle("a")
    assert cluster.acknowledged() == wanted
    assert [command for _, command in cluster["a"].applied] == wanted
    assert cluster["a"].raft.voters == frozenset()


def test_a_follower_that_was_a_voter_alone_goes_on_alone() -> None:
    """From two to one: nothing waits for an acknowledgement that nobody gives any more."""
    cluster = led_by_a("ab")
    cluster.lose("b")
    cluster.propose("a", b"x")
    cluster.tick("a")
    assert cluster.acknowledged() == []
    cluster["a"].membership.remove("b", force=True, done=ignore)
    cluster.settle("a")
    assert cluster.acknowledged() == [b"x"]
    assert voters_of(cluster, "a") == "a"


def test_a_member_that_moved_is_found_where_it_says_it_is() -> None:
    cluster = led_by_a("a")
    grow(cluster, "a", "b")
    before = cluster["a"].raft.configuration.addresses_of("b")
    cluster["a"].membership.heard_at = lambda name: (
        before._replace(peer="elsewhere:1") if name == "b" else None
    )
    cluster["a"].membership.step()
    cluster.settle("a", "b")
    assert cluster["b"].raft.configuration.addresses_of("b").peer == "elsewhere:1"
    index = cluster["a"].raft.configuration.raft_index
    cluster["a"].membership.step()
    cluster.settle("a", "b")
    assert cluster["a"].raft.configuration.raft_index == index, "it is said once"


# --- What is refused ------------------------------------------------------------------------------


def test_a_second_change_waits_for_the_first() -> None:
    cluster = led_by_a("abcde")
    membership = cluster["a"].membership
    membership.remove("e", force=False, done=ignore)
    with pytest.raises(MembershipChangeUnderWay):
        membership.remove("d", force=False, done=ignore)
    cluster.tick("a")
    with pytest.raises(MembershipChangeUnderWay):
        membership.remove("d", force=False, done=ignore)
    cluster.settle("a", "b", "c", "d")
    membership.remove("d", force=False, done=ignore)


def test_who_is_being_removed_is_a_member_until_that_is_committed() -> None:
    cluster = led_by_a()
    membership = cluster["a"].membership
    membership.remove("c", force=False, done=ignore)
    cluster.tick("a")
    assert voters_of(cluster, "a") == "ab"
    with pytest.raises(MembershipChangeUnderWay):
        membership.remove("c", force=False, done=ignore)
    # So it is told when it asks itself, and names its directory.
    with pytest.raises(MembershipChangeUnderWay):
        membership.check("c", "", directory_of("c"))
    with pytest.raises(MemberNotFound):
        membership.check("c", "", "another-directory")
    cluster.settle("a", "b")
    with pytest.raises(MemberNotFound):
        membership.remove("c", force=False, done=ignore)
    with pytest.raises(MemberNotFound):
        membership.check("c", "", directory_of("c"))


def test_a_new_leader_changes_nothing_before_it_has_committed_an_entry_of_its_own() -> None:
    cluster = Voters("abc")
    cluster.tick("a")
    cluster.deliver("a", "b")
    cluster.deliver("b", "a")
    assert cluster["a"].raft.is_leader
    with pytest.raises(MembershipChangeUnderWay):
        cluster["a"].membership.remove("c", force=True, done=ignore)


def test_a_removal_that_would_leave_no_majority_is_refused_unless_forced() -> None:
    cluster = led_by_a()
    cluster["a"].raft.peer_disconnected("b")
    membership = cluster["a"].membership
    with pytest.raises(MembershipChangeRefused, match=r"only 1 of the 2 voters.*--force"):
        membership.remove("c", force=False, done=ignore)
    membership.remove("b", force=False, done=ignore)
    cluster.settle("a", "c")
    assert voters_of(cluster, "a") == "ac", "who is down can be removed"


def test_a_voter_that_is_silent_is_taken_for_down() -> None:
    cluster = led_by_a()
    cluster.clock.now += 1.2 * ELECTION_S
    cluster.tick("a")
    cluster.lose("c")
    cluster.exchange("a", "b")
    with pytest.raises(MembershipChangeRefused, match="only 1 of the 2"):
        cluster["a"].membership.remove("b", force=False, done=ignore)


def test_nobody_is_removed_who_is_no_member_or_leads() -> None:
    cluster = led_by_a()
    with pytest.raises(MemberNotFound):
        cluster["a"].membership.remove("z", force=False, done=ignore)
    with pytest.raises(MembershipChangeRefused, match="hand over first"):
        cluster["a"].membership.remove("a", force=True, done=ignore)
    alone = led_by_a("a")
    with pytest.raises(MembershipChangeRefused, match="the only voter"):
        alone["a"].membership.remove("a", force=True, done=ignore)


def test_an_identity_that_was_removed_is_never_added_again() -> None:
    cluster = led_by_a("a")
    grow(cluster, "a", "b")
    remove(cluster, "a", "b")
    cluster.add_learner("a", "b")
    cluster.settle("a", "b")
    assert (voters_of(cluster, "a"), learners_of(cluster, "a")) == ("a", "")
    cluster.start_empty("b", "another-directory")
    cluster.add_learner("a", "b")
    cluster.settle("a", "b")
    assert learners_of(cluster, "a") == "b"


# --- The log decides ------------------------------------------------------------------------------


def test_a_configuration_that_is_cut_from_the_log_was_never_in_force() -> None:
    cluster = led_by_a()
    cluster.start_empty("d")
    cluster.lose(*"abcd")
    cluster.add_learner("a", "d")
    cluster.tick("a")
    assert learners_of(cluster, "a") == "d"
    cluster.lose("a")
    cluster.elect("b", "c")
    cluster.propose("b", b"x")
    cluster.settle("b", "a", "c")
    assert learners_of(cluster, "a") == ""
    assert cluster["a"].raft.replicas.others == {"b", "c"}
    assert cluster.acknowledged() == [b"x"]


def test_a_restart_finds_the_configuration_of_the_checkpoint_and_of_all_behind_it() -> None:
    cluster = led_by_a("a")
    grow(cluster, "a", "b")
    cluster.propose("a", b"x")
    cluster.settle("a", "b")
    middle = cluster["a"].raft.last_applied
    at_middle = cluster["a"].raft.configurations.at(middle)
    assert at_middle.raft_index < middle
    grow(cluster, "a", "c", "b")
    cluster.start_empty("d")
    cluster.add_learner("a", "d")
    cluster.tick("a")
    newest = cluster["a"].raft.configuration
    assert newest.raft_index > cluster["a"].raft.last_applied, "it is not committed"
    for point, configuration in ((None, None), (middle, at_middle)):
        restore_point = cluster.restore_point("a", point) if point else None
        cluster.restart("a", cluster["a"].disk, restore_point, configuration)
        assert cluster["a"].raft.configuration == newest
        assert cluster["a"].raft.voters == {"b", "c"}
        assert cluster["a"].raft.replicas.learners == {"d"}


def test_a_checkpoint_has_the_configuration_at_its_entry_and_no_newer_one() -> None:
    cluster = led_by_a()
    before = cluster["a"].raft.last_applied
    cluster.start_empty("d")
    cluster.add_learner("a", "d")
    cluster.settle("a", "b", "c", "d")
    configurations = cluster["a"].raft.configurations
    assert configurations.at(before) == cluster.configuration
    index = configurations.newest.raft_index
    assert configurations.at(index) is configurations.newest
    configurations.forget_before(index)
    assert configurations.at(index) is configurations.newest


def test_a_voter_that_joined_grants_votes_before_it_knows_who_asks() -> None:
    """Otherwise two voters that are up, of three, elect nobody."""
    cluster = led_by_a("ab")
    cluster.start_empty("c")
    cluster.add_learner("a", "c")
    cluster.settle("a", "b", "c")
    cluster.promote("a", "b", "c")
    # c has all but the entry that made it a voter.
    journal = cluster["c"].journal
    promoted = cluster["a"].raft.configuration.raft_index
    if journal.last_index >= promoted:
        disk = cluster["c"].disk
        journal.truncate_from(promoted)
        cluster["c"].sync()
        cluster.restart("c", disk)
    assert voters_of(cluster, "c") == "ab"
    cluster.lose("a")
    cluster.clock.now += 2 * ELECTION_S
    cluster.tick("c")
    assert not cluster.queues["c", "b"], "it is no voter by its own log, and asks nobody"
    cluster.elect("b", "c")
    assert cluster["b"].raft.is_leader


# --- Stories that need a rule; each returns what is violated ---------------------------------------


def two_majorities_without_a_common_voter(rules: RulesMaker) -> str | None:
    """V9.  A leader without its followers adds four voters, one after the other, and commits with them."""
    cluster = led_by_a("abc", rules)
    cluster.lose(*"abc")
    for name in "defg":
        cluster.start_empty(name)
    for name in "defg":
        cluster.add_learner("a", name)
        quickly(cluster, "a", *"defg")
    for _ in range(12):
        # Long enough to have caught up, and too short for the leader to miss its followers.
        cluster["a"].membership.step()
        quickly(cluster, "a", *"defg")
    cluster.propose("a", b"w")
    for _ in range(4):
        quickly(cluster, "a", *"defg")
    acknowledged = cluster.acknowledged()
    cluster.lose(*"abcdefg")
    cluster.elect("b", "c")
    if acknowledged and cluster["b"].raft.is_leader:
        return "leader completeness: b leads by the votes of b and c, and lacks what a acknowledged"
    return None


def quickly(cluster: Voters, leader: str, *others: str) -> None:
    """Let a leader and some others act within a few hundredths of a second."""
    cluster.clock.now += 0.06
    cluster[leader].raft.tick()
    cluster[leader].sync()
    for other in others:
        cluster.exchange(leader, other)


def a_restart_that_forgets_who_votes(rules: RulesMaker) -> str | None:
    """V10.  Two of five restart, and by what the cluster was formed with they are two of three."""
    cluster = led_by_a("abc", rules)
    for name in "de":
        grow(cluster, "a", name, *[each for each in "bcd" if each in cluster.voters])
    assert voters_of(cluster, "a") == "abcde"
    for name in "ab":
        cluster.restart(name, cluster[name].disk)
    cluster.lose(*"abcde")
    lead = [led(cluster, "a", "b"), led(cluster, "c", "d", "e")]
    if all(lead):
        return "one leader at a time: a leads by two of five, and c by the other three"
    return None


def led(cluster: Voters, candidate: str, *helpers: str) -> bool:
    """Tell whether a candidate wins with these helpers, and is told of nobody else."""
    try:
        cluster.elect(candidate, *helpers)
    except AssertionError:
        return False
    return cluster[candidate].raft.is_leader


def a_learner_that_hears_no_leader(rules: RulesMaker) -> str | None:
    """V15.  It has what the voters have, and one of them, which misses the leader as well, would vote for it."""
    cluster = led_by_a("ab", rules)
    cluster.start_empty("d")
    cluster.add_learner("a", "d")
    cluster.settle("a", "b", "d")
    cluster.lose("a", "b", "d")
    if led(cluster, "d", "b"):
        return "voters lead: d leads, which is a learner"
    return None


def a_wiped_voter_votes(rules: RulesMaker) -> str | None:
    """Two of three have acknowledged; one of them comes back with an empty disk, and votes for the third."""
    cluster = led_by_a("abc", rules)
    cluster.lose("c")
    cluster.propose("a", b"kept")
    cluster.settle("a", "b")
    assert cluster.acknowledged() == [b"kept"]
    cluster.start_empty("b", "a-new-disk")
    cluster.lose(*"abc")
    if led(cluster, "c", "b"):
        return (
            "leader completeness: c leads by the vote of a wiped b, and lacks what was acknowledged"
        )
    return None


def a_learner_that_has_nothing_is_made_a_voter(rules: RulesMaker) -> str | None:
    """A cluster of one takes a second node that is slow to catch up."""
    cluster = led_by_a("a", rules)
    cluster.start_empty("b")
    cluster.add_learner("a", "b")
    # All that is sent to b is lost: it has acknowledged nothing.
    for _ in range(20):
        cluster.settle("a")
        cluster.lose("b")
        cluster["a"].membership.step()
    cluster.propose("a", b"x")
    cluster.settle("a")
    if cluster.acknowledged() != [b"x"]:
        return "writes go on: a cluster of one waits for a new voter that has nothing"
    return None


STORIES = (
    two_majorities_without_a_common_voter,
    a_restart_that_forgets_who_votes,
    a_learner_that_hears_no_leader,
    a_wiped_voter_votes,
    a_learner_that_has_nothing_is_made_a_voter,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_with_all_rules_nothing_is_violated(story: Any) -> None:
    assert story(complete_rules) is None


# --- What discovery sees, and how many shall vote ---------------------------------------------------


def seen(cluster: Voters, name: str, status: MemberStatus, for_s: float) -> dict[str, Member]:
    described = Description(name, cluster[name].directory_id, f"{name}:8401", f"{name}:8400")
    return {name: Member(described, status, 1, cluster.clock.monotonic() - for_s)}


def test_the_target_is_an_entry_like_the_others_and_a_learner_beyond_it_stays_one() -> None:
    cluster = led_by_a()

    async def target() -> None:
        with pytest.raises(InvalidRequest):
            cluster["a"].membership.targeted(33)
        future = cluster["a"].membership.targeted(3)
        cluster.settle("a", "b", "c")
        await future

    asyncio.run(target())
    assert {cluster[name].raft.configuration.target for name in "abc"} == {3}
    cluster.start_empty("d")
    cluster.add_learner("a", "d")
    cluster.settle("a", "b", "c", "d")
    cluster.promote("a", "b", "c", "d")
    assert (voters_of(cluster, "a"), learners_of(cluster, "a")) == ("abc", "d")
    (planned,) = cluster["a"].membership.planned()
    assert planned.waits_for == "a place: 3 of 3 voters are there"


def test_whoever_leads_later_remembers_how_many_there_were_when_one_failed() -> None:
    cluster = led_by_a()
    for name in "ab":
        view = Sight(seen(cluster, "c", MemberStatus.FAILED, 1), 0.0, cluster.clock.monotonic())
        cluster[name].membership.view = lambda view=view: view  # type: ignore[misc]
        cluster[name].membership.step()
    cluster.lose("c")
    cluster["a"].raft.peer_disconnected("c")
    grow(cluster, "a", "d", "b")
    assert voters_of(cluster, "a") == "abcd"
    cluster.elect("b", "a", "d")
    cluster["b"].raft.peer_disconnected("c")
    cluster.settle("b", "a", "d")
    now = cluster.clock.monotonic()
    gone = Sight(seen(cluster, "c", MemberStatus.FAILED, 700), 0.0, now)
    cluster["b"].membership.view = lambda: gone
    cluster["b"].membership.step()
    cluster.settle("b", "a", "d")
    assert voters_of(cluster, "b") == "abd"


def test_what_is_under_way_and_what_waits_for_it_are_both_said() -> None:
    cluster = led_by_a()
    membership = cluster["a"].membership
    for name in "de":
        cluster.start_empty(name)
        membership.ask(name, cluster[name].directory_id, Addresses(f"{name}:8401", f"{name}:8400"))
    membership.step()
    first, second = membership.planned()
    assert (first.node_id, first.waits_for) == ("d", "")
    assert (second.node_id, second.waits_for) == ("e", "the change of members that is under way")
    cluster.settle("a", "b", "c")
    membership.step()
    assert [each.node_id for each in membership.planned() if not each.waits_for] == ["e"]
