"""When a voter campaigns, and when it must not: pre-vote, lost connections, terms, and a leader without a majority."""

from __future__ import annotations

from typing import Any

import pytest

from distlog.consensus.messages import (
    AppendEntries,
    PreVoteReply,
    PreVoteRequest,
    TermNotice,
    VoteRequest,
)
from distlog.consensus.rules import complete_rules
from distlog.consensus.rules.pre_vote import PreVote
from tests.consensus.missing_rules import without
from tests.consensus.voters import ELECTION_S, Voters, directory_of

TICK_S = 0.025


def led_by_a(rules: Any = complete_rules, names: str = "abc") -> Voters:
    cluster = Voters(names, rules=rules)
    cluster.elect("a", *names[1:])
    cluster.settle("a", *names[1:])
    return cluster


def run(cluster: Voters, seconds: float, *names: str, cut_off: str = "") -> float:
    """Let time pass in small steps, `names` act and talk, and nobody hear `cut_off`; stop at a new leader.

    Returns how long it took.
    """
    leaders = [name for name in cluster.names if cluster[name].raft.is_leader]
    passed = 0.0
    while passed < seconds:
        passed += TICK_S
        cluster.clock.now += TICK_S
        for name in names:
            cluster[name].raft.tick()
            cluster[name].sync()
        cluster.lose(*cut_off)
        for one in names:
            for other in names:
                if one < other:
                    cluster.exchange(one, other)
        if any(cluster[name].raft.is_leader for name in names if name not in leaders):
            break
    return passed


def terms(cluster: Voters) -> set[int]:
    return {cluster[name].raft.term for name in cluster.names}


def sent(cluster: Voters, sender: str, receiver: str, kind: type) -> list[Any]:
    messages = cluster.decoded(cluster.queues[sender, receiver])
    return [message for message in messages if isinstance(message, kind)]


# --- A voter that was cut off ---------------------------------------------------------------------


def a_voter_that_was_cut_off_and_comes_back(rules: Any) -> tuple[Voters, int]:
    cluster = led_by_a(rules)
    term = cluster["a"].raft.term
    run(cluster, 10 * ELECTION_S, "a", "b", "c", cut_off="c")
    run(cluster, 10 * ELECTION_S, "a", "b", "c")
    return cluster, term


def test_a_voter_that_was_cut_off_comes_back_without_disturbing_the_leader() -> None:
    cluster, term = a_voter_that_was_cut_off_and_comes_back(complete_rules)
    assert cluster["a"].raft.is_leader
    assert terms(cluster) == {term}


def test_without_the_pre_vote_the_leader_is_deposed_by_whoever_comes_back() -> None:
    cluster, term = a_voter_that_was_cut_off_and_comes_back(without("pre_vote"))
    assert min(terms(cluster)) > term


def test_a_voter_that_hears_nothing_but_is_heard_does_not_disturb_the_leader() -> None:
    cluster = led_by_a()
    term = cluster["a"].raft.term
    for _ in range(400):
        run(cluster, TICK_S, "a", "b", cut_off="")
        cluster["c"].raft.tick()
        for receiver in "ab":
            cluster.queues[receiver, "c"].clear()
            cluster.deliver("c", receiver)
    assert cluster["a"].raft.is_leader
    assert terms(cluster) == {term}


# --- A leader that is gone ------------------------------------------------------------------------


def test_when_the_connections_to_the_leader_break_another_one_leads_at_once() -> None:
    cluster = led_by_a()
    for follower in "bc":
        cluster[follower].raft.peer_disconnected("a")
    assert run(cluster, 10.0, "b", "c") < 0.2
    assert cluster["b"].raft.is_leader or cluster["c"].raft.is_leader


def test_a_leader_that_falls_silent_is_replaced_after_the_election_time_out() -> None:
    cluster = led_by_a()
    passed = run(cluster, 10.0, "b", "c")
    assert 0.6 <= passed < 0.6 + ELECTION_S


def test_one_voter_that_lost_its_connection_waits_while_the_others_hear_the_leader() -> None:
    cluster = led_by_a()
    term = cluster["a"].raft.term
    cluster["b"].raft.peer_disconnected("a")
    for _ in range(200):
        cluster.clock.now += TICK_S
        for name in "acb":
            cluster[name].raft.tick()
        assert cluster.exchange("a", "c") is None
        cluster.lose("a")
        cluster.exchange("b", "c")
    assert terms(cluster) == {term}
    assert cluster["b"].raft.leader_id is None
    assert cluster["c"].raft.leader_id == "a"


def test_of_two_that_ask_at_the_same_moment_one_goes_on() -> None:
    cluster = led_by_a()
    for follower in "bc":
        cluster[follower].raft.peer_disconnected("a")
    cluster.clock.now += 0.06
    for follower in "bc":
        cluster[follower].raft.tick()
        assert sent(cluster, follower, "c" if follower == "b" else "b", PreVoteRequest)
    cluster.exchange("b", "c")
    for follower in "bc":
        cluster[follower].raft.tick()
        cluster[follower].sync()
    assert sent(cluster, "b", "c", VoteRequest)
    assert not sent(cluster, "c", "b", VoteRequest)
    cluster.exchange("b", "c")
    assert cluster["b"].raft.is_leader


def test_a_voter_that_lacks_entries_is_not_elected_and_the_one_that_has_them_is() -> None:
    cluster = led_by_a()
    cluster.propose("a", b"acknowledged")
    cluster.settle("a", "b", rounds=2)
    cluster.lose("c")
    assert cluster.acknowledged() == [b"acknowledged"]
    for follower in "bc":
        cluster[follower].raft.peer_disconnected("a")
    term = cluster["b"].raft.term
    run(cluster, 10.0, "b", "c")
    assert cluster["b"].raft.is_leader
    assert cluster["b"].raft.term == term + 1, "the other one did not even campaign"


def test_a_leader_that_is_heard_again_ends_the_question() -> None:
    cluster = led_by_a()
    cluster["b"].raft.peer_disconnected("a")
    cluster["c"].raft.peer_disconnected("a")
    cluster.clock.now += 0.06
    cluster["b"].raft.tick()
    cluster.exchange("b", "c")
    cluster["b"].raft.peer_connected("a", directory_of("a"))
    cluster.tick("a")
    assert sent(cluster, "a", "b", AppendEntries)
    cluster.deliver("a", "b")
    term = cluster["b"].raft.term
    cluster["b"].raft.tick()
    assert cluster["b"].raft.term == term


def test_a_voter_that_has_just_started_does_not_help_to_depose_a_leader_it_may_have_followed() -> (
    None
):
    cluster = led_by_a()
    cluster.restart("c", cluster["c"].disk.kill())
    cluster["b"].raft.peer_disconnected("a")
    question = PreVoteRequest(cluster["b"].raft.term, 1, 1 << 40, 1 << 40)
    cluster["c"].raft.receive("b", question)
    assert not sent(cluster, "c", "b", PreVoteReply)
    cluster.clock.now += 0.61
    cluster["c"].raft.receive("b", question)
    assert sent(cluster, "c", "b", PreVoteReply)


def test_a_leader_answers_no_question_about_its_successor() -> None:
    cluster = led_by_a()
    cluster.clock.now += 0.61
    cluster["a"].raft.receive("b", PreVoteRequest(cluster["a"].raft.term, 1, 1 << 40, 1 << 40))
    assert not sent(cluster, "a", "b", PreVoteReply)


# --- Terms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old", [AppendEntries(1, 1, 1, 1, 0, 1), VoteRequest(1, 1, 0), PreVoteRequest(1, 1, 1, 0)]
)
def test_who_sends_in_an_older_term_is_told_the_newer_one(old: Any) -> None:
    cluster = led_by_a()
    cluster.elect("b", "c")
    cluster.lose("a", "b", "c")
    assert cluster["c"].raft.term > 1
    cluster["c"].raft.receive("a", old)
    assert sent(cluster, "c", "a", TermNotice) == [TermNotice(cluster["c"].raft.term)]


def test_a_leader_that_learns_of_a_newer_term_follows_and_votes_for_nobody() -> None:
    cluster = led_by_a()
    raft = cluster["a"].raft
    raft.receive("c", TermNotice(raft.term + 5))
    cluster["a"].sync()
    assert not raft.is_leader
    assert raft.leader_id is None
    raft.receive("c", TermNotice(raft.term - 1))
    assert not cluster.queues["a", "c"]


def test_a_voter_in_a_newer_term_does_not_stay_deaf() -> None:
    cluster = led_by_a()
    term = cluster["a"].raft.term
    cluster["c"].raft.receive("b", VoteRequest(term + 3, 0, 0))
    cluster["c"].sync()
    assert cluster["c"].raft.term == term + 3
    cluster.lose("c")
    cluster.settle("a", "b", "c", rounds=2)
    run(cluster, 10.0, "a", "b", "c")
    assert len(terms(cluster)) == 1
    assert min(terms(cluster)) > term + 3


# --- A leader without a majority ------------------------------------------------------------------


def test_a_leader_without_answers_steps_down_within_two_election_time_outs() -> None:
    cluster = led_by_a()
    raft = cluster["a"].raft
    passed = 0.0
    while raft.is_leader:
        assert passed < 2 * ELECTION_S + 0.1
        passed += TICK_S
        cluster.clock.now += TICK_S
        raft.tick()
        cluster.lose("a")
    assert passed > ELECTION_S, "a slow moment is no loss of the majority"
    assert raft.leader_id is None


def test_a_leader_with_the_answers_of_a_majority_stays() -> None:
    cluster = led_by_a()
    run(cluster, 10 * ELECTION_S, "a", "b", cut_off="c")
    assert cluster["a"].raft.is_leader


# --- The rule by itself ---------------------------------------------------------------------------


def test_a_round_is_won_by_a_majority_that_counts_each_voter_once() -> None:
    voters = frozenset("bcde")
    pre_vote = PreVote()
    number = pre_vote.begin(term=4)
    for _ in range(3):
        pre_vote.take("b", PreVoteReply(4, number))
    pre_vote.take("z", PreVoteReply(4, number))
    assert not pre_vote.is_won(4, voters)
    pre_vote.take("c", PreVoteReply(4, number))
    assert pre_vote.is_won(4, voters)
    assert not pre_vote.is_won(5, voters), "the term has changed since it was asked"
    pre_vote.abandon()
    assert not pre_vote.is_won(4, voters)


def test_an_answer_to_an_older_round_does_not_count() -> None:
    pre_vote = PreVote()
    old = pre_vote.begin(term=4)
    pre_vote.begin(term=4)
    pre_vote.take("b", PreVoteReply(4, old))
    assert not pre_vote.is_won(4, frozenset("bc"))


@pytest.mark.parametrize(
    ("request_of", "hears_leader", "is_granted"),
    [
        ((4, 7, 3), False, True),
        ((5, 7, 3), False, True),
        ((4, 8, 3), False, True),
        ((4, 1, 4), False, True),
        ((3, 7, 3), False, False),
        ((4, 6, 3), False, False),
        ((4, 9, 2), False, False),
        ((4, 7, 3), True, False),
    ],
)
def test_who_would_get_the_vote(
    request_of: tuple[int, int, int], hears_leader: bool, is_granted: bool
) -> None:
    term, last_index, last_term = request_of
    request = PreVoteRequest(term, 1, last_index, last_term)
    granted = PreVote().grants(
        request, term=4, last_index=7, last_term=3, hears_leader=hears_leader
    )
    assert granted is is_granted
