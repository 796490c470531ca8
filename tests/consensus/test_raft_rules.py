"""Each rule around pysyncobj: the schedule that breaks the library alone must be harmless, and break it again without the rule."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from distlog.consensus import messages
from distlog.consensus.commands import ENTRY_TYPE_OPAQUE
from distlog.consensus.journal_view import RestorePoint
from distlog.consensus.messages import AppendEntries, AppendReply, VoteReply
from distlog.consensus.rules import ConsensusViolated, complete_rules
from tests.consensus.missing_rules import without
from tests.consensus.voters import Voters, directory_of

COMMANDS = [b"c%d" % number for number in range(6)]


def test_three_voters_elect_replicate_and_apply_the_same() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.settle("a", "b", "c")
    assert cluster.acknowledged() == COMMANDS
    assert [command for _, command in cluster["a"].applied] == COMMANDS
    assert cluster["a"].applied == cluster["b"].applied == cluster["c"].applied


# --- V1: what is not durable is not promised ----------------------------------------------------


def a_leader_whose_fsync_is_slow(rules: Any) -> Voters:
    cluster = Voters(rules=rules)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster.sync_at_once = False
    cluster.propose("a", b"z")
    cluster.tick("a")
    for follower in "bc":
        cluster.deliver("a", follower)
        cluster[follower].sync()
        cluster.deliver(follower, "a")
    cluster.tick("a")
    return cluster


def test_v01_a_leader_does_not_count_itself_before_its_own_fsync() -> None:
    cluster = a_leader_whose_fsync_is_slow(complete_rules)
    assert cluster.acknowledged() == []
    cluster["a"].sync()
    cluster.tick("a")
    assert cluster.acknowledged() == [b"z"]


def test_v01_without_the_commit_gate_the_leader_acknowledges_too_early() -> None:
    cluster = a_leader_whose_fsync_is_slow(without("commit_gate"))
    assert cluster.acknowledged() == [b"z"]
    assert cluster["a"].journal.durable_index < cluster["a"].journal.last_index


def a_follower_whose_fsync_is_slow(rules: Any) -> Voters:
    cluster = Voters(rules=rules)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster.lose("a")
    cluster.propose("a", b"y")
    cluster.tick("a")
    cluster.sync_at_once = False
    cluster.deliver("a", "b")
    assert cluster["b"].journal.sequence > cluster["b"].journal.durable_sequence
    return cluster


def highest_claim(cluster: Voters) -> int:
    """Return up to which entry b's answers on their way claim to have a's log."""
    replies = [messages.decode(payload, "b") for payload in cluster.queues["b", "a"]]
    return max(
        (reply.next_index - 1 for reply in replies if isinstance(reply, AppendReply)), default=0
    )


def test_v01_a_follower_answers_only_after_its_fsync() -> None:
    cluster = a_follower_whose_fsync_is_slow(complete_rules)
    assert highest_claim(cluster) <= cluster["b"].journal.durable_index
    cluster["b"].sync()
    assert highest_claim(cluster) == cluster["b"].journal.last_index


def test_v01_without_the_persistence_gate_a_follower_promises_what_it_can_lose() -> None:
    cluster = a_follower_whose_fsync_is_slow(without("persistence_gate"))
    assert highest_claim(cluster) > cluster["b"].journal.durable_index


def test_v01_a_vote_leaves_only_after_its_fsync() -> None:
    cluster = Voters(sync_at_once=False)
    cluster.clock.now += 2
    cluster["a"].raft.tick()
    assert not cluster.queues["a", "b"], "a candidate votes for itself durably before it asks"
    cluster["a"].sync()
    cluster.deliver("a", "b")
    assert not cluster.queues["b", "a"]
    cluster["b"].sync()
    assert len(cluster.queues["b", "a"]) == 1


def test_v01_a_single_voter_waits_for_its_own_fsync() -> None:
    cluster = Voters("a", sync_at_once=False)
    cluster["a"].sync()
    for _ in range(3):
        cluster.clock.now += 2
        cluster["a"].raft.tick()
        cluster["a"].sync()
    cluster.tick("a")
    cluster.propose("a", b"q")
    cluster.tick("a", "a", "a")
    assert cluster.acknowledged() == []
    cluster["a"].sync()
    cluster.tick("a")
    assert cluster.acknowledged() == [b"q"]


# --- V2: only a real conflict deletes -----------------------------------------------------------


def a_follower_that_is_sent_old_entries_again(rules: Any) -> tuple[Voters, int]:
    cluster = Voters(rules=rules)
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.tick("a")
    cluster.exchange("a", "b")
    journal = cluster["b"].journal
    last_index = journal.last_index
    again = AppendEntries(
        sender_term=cluster["a"].raft.term,
        number=500,
        commit_index=2,
        previous_index=2,
        previous_term=journal.term_at(2) or 0,
        retain_from=1,
        entries=[tuple(journal.entry(3)), tuple(journal.entry(4))],  # type: ignore[list-item]
    )
    cluster.queues["b", "a"].clear()
    cluster["b"].raft.receive("a", again)
    cluster["b"].sync()
    return cluster, last_index


def test_v02_entries_that_are_sent_again_delete_nothing_and_prove_only_themselves() -> None:
    cluster, last_index = a_follower_that_is_sent_old_entries_again(complete_rules)
    assert cluster["b"].journal.last_index == last_index
    before = dict(cluster["a"].raft.matched)
    cluster.deliver("b", "a")
    assert cluster["a"].raft.matched == before


def test_v02_without_the_append_filter_acknowledged_entries_are_deleted() -> None:
    cluster, last_index = a_follower_that_is_sent_old_entries_again(without("append_filter"))
    assert cluster["b"].journal.last_index < last_index


def test_v02_a_real_conflict_deletes_from_the_first_entry_that_differs() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster.propose("a", b"lost1", b"lost2")
    cluster.tick("a")
    cluster.lose("a")
    cluster.elect("b", "c")
    cluster.propose("b", *COMMANDS)
    cluster.settle("b", "c")
    cluster.lose("a")
    cluster.settle("b", "a", "c", rounds=8)
    assert [command for _, command in cluster["a"].applied] == COMMANDS
    assert (b"lost1", 0) not in cluster.outcomes
    assert cluster["a"].applied == cluster["b"].applied


def test_v02_a_leader_that_disagrees_about_an_applied_entry_stops_the_node() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.settle("a", "b", "c")
    raft = cluster["b"].raft
    wrong = AppendEntries(
        sender_term=raft.term + 1,
        number=1,
        commit_index=1,
        previous_index=2,
        previous_term=raft.journal.term_at(2) or 0,
        retain_from=1,
        entries=[(bytes([ENTRY_TYPE_OPAQUE]) + b"other", 3, raft.term + 1)],
    )
    with pytest.raises(ConsensusViolated, match="applied entry 3"):
        raft.receive("a", wrong)


# --- V4: an acknowledgement counts in its own term ----------------------------------------------


def a_leader_that_gets_an_old_acknowledgement(rules: Any) -> Voters:
    cluster = Voters(rules=rules)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster.propose("a", b"x")
    cluster.tick("a")
    cluster.lose("a")
    last_index = cluster["a"].journal.last_index
    old = AppendReply(cluster["a"].raft.term - 1, 1, last_index + 1, success=True, reset=False)
    cluster["a"].raft.receive("b", old)
    cluster.tick("a")
    return cluster


def test_v04_an_acknowledgement_of_an_older_term_does_not_count() -> None:
    assert a_leader_that_gets_an_old_acknowledgement(complete_rules).acknowledged() == []


def test_v04_without_the_filter_an_old_acknowledgement_commits() -> None:
    cluster = a_leader_that_gets_an_old_acknowledgement(without("acknowledgements"))
    assert cluster.acknowledged() == [b"x"]


# --- V6: a checkpoint newer than the journal's beginning never empties it ------------------------


def test_v06_a_restart_from_a_checkpoint_keeps_every_entry_of_the_journal() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.settle("a", "b", "c")
    journal = cluster["b"].journal
    last_index = journal.last_index
    point = RestorePoint(journal.entry(4), journal.entry(5))
    cluster.restart("b", cluster["b"].disk.crash(Random(1)), point)
    restarted = cluster["b"]
    assert restarted.raft.last_applied == 5
    assert (restarted.journal.first_index, restarted.journal.last_index) == (1, last_index)
    cluster.settle("a", "b", "c", rounds=6)
    assert [index for index, _ in restarted.applied] == list(range(6, last_index + 1))


def test_v06_a_checkpoint_that_the_journal_does_not_hold_is_refused() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.settle("a", "b", "c")
    journal = cluster["b"].journal
    other = journal.entry(5)._replace(payload=bytes([ENTRY_TYPE_OPAQUE]) + b"other")
    with pytest.raises(ConsensusViolated, match="checkpoint"):
        cluster.restart(
            "b", cluster["b"].disk.crash(Random(1)), RestorePoint(journal.entry(4), other)
        )


# --- V8: a conflicting last entry is found once --------------------------------------------------


def a_follower_with_a_conflicting_tail_and_a_pipelining_leader(rules: Any) -> Voters:
    cluster = Voters(rules=rules, in_flight_size_max=64 << 20)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster.propose("a", *[b"lost%d" % number for number in range(5)])
    cluster.tick("a")
    cluster.lose("a")
    cluster.elect("b", "c")
    # More than fits into one message, so that several are on their way at once.
    cluster.propose("b", *[bytes([65 + number]) * 900_000 for number in range(8)])
    cluster.settle("b", "c")
    cluster.lose("a")
    cluster["b"].raft.peer_disconnected("a")
    cluster["b"].raft.peer_connected("a", directory_of("a"))
    return cluster


def test_v08_a_follower_with_a_conflicting_last_entry_catches_up() -> None:
    cluster = a_follower_with_a_conflicting_tail_and_a_pipelining_leader(complete_rules)
    cluster.settle("b", "a", rounds=9)
    assert cluster["a"].applied == cluster["b"].applied
    assert len(cluster["a"].applied) == 8


# --- V11: one vote per voter ---------------------------------------------------------------------


def a_candidate_that_gets_a_vote_twice(rules: Any) -> Voters:
    cluster = Voters("abcde", rules=rules)
    cluster.clock.now += 2
    cluster["a"].raft.tick()
    cluster["a"].sync()
    for _ in range(2):
        cluster["a"].raft.receive("b", VoteReply(cluster["a"].raft.term))
    return cluster


def test_v11_a_vote_that_arrives_twice_counts_once() -> None:
    cluster = a_candidate_that_gets_a_vote_twice(complete_rules)
    assert not cluster["a"].raft.is_leader
    cluster["a"].raft.receive("c", VoteReply(cluster["a"].raft.term))
    assert cluster["a"].raft.is_leader


def test_v11_without_the_vote_filter_one_vote_elects_twice() -> None:
    cluster = a_candidate_that_gets_a_vote_twice(without("vote_filter"))
    assert cluster["a"].raft.is_leader


# --- Flow ----------------------------------------------------------------------------------------


def test_a_lagging_follower_gets_its_backlog_in_windows_and_catches_up() -> None:
    cluster = Voters(in_flight_size_max=2 << 20)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster["a"].raft.peer_disconnected("c")
    for number in range(30):
        cluster.propose("a", bytes([65 + number]) * 500_000)
        cluster.settle("a", "b", rounds=2)
    cluster["a"].raft.peer_connected("c", directory_of("c"))
    cluster.lose("c")
    in_flight_max = 0
    for _ in range(200):
        cluster.tick("a")
        in_flight_max = max(in_flight_max, sum(map(len, cluster.queues["a", "c"])))
        cluster.deliver("a", "c", 1)
        cluster.deliver("c", "a")
        cluster.tick("c")
    assert cluster["c"].applied == cluster["a"].applied
    assert in_flight_max < 5 << 20, "the window bounds what is on its way"


def test_every_voter_learns_below_which_entry_nobody_needs_the_journal() -> None:
    cluster = Voters()
    cluster.elect("a", "b", "c")
    cluster.propose("a", *COMMANDS)
    cluster.settle("a", "b")
    assert cluster["a"].raft.retain_from == cluster["a"].raft.matched["c"]
    assert cluster["a"].raft.retain_from < cluster["a"].journal.last_index
    cluster.settle("a", "b", "c", rounds=6)
    last_index = cluster["a"].journal.last_index
    assert {cluster[name].raft.retain_from for name in "abc"} == {last_index}


# --- Elections ------------------------------------------------------------------------------------


def test_a_follower_that_was_held_up_itself_does_not_campaign_at_once() -> None:
    cluster = Voters(step_time_max_s=0.1)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    # The whole machine stood still for a minute: nobody could send anything.
    cluster.clock.now += 60
    cluster["b"].raft.tick()
    assert not cluster.queues["b", "c"]
    for _ in range(20):
        cluster.clock.now += 0.1
        cluster["b"].raft.tick()
    assert cluster.queues["b", "c"], "but silence while it runs is silence of the leader"


def test_a_leader_that_was_held_up_is_in_touch_again_with_the_first_answers() -> None:
    cluster = Voters(step_time_max_s=0.1)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    assert cluster["a"].raft.is_in_touch
    cluster.clock.now += 60
    cluster.settle("a", "b", "c")
    assert cluster["a"].raft.is_in_touch
    for _ in range(10):
        cluster.tick("a")
    assert not cluster["a"].raft.is_in_touch, "nobody has answered for half a second"


def test_a_voter_is_not_called_far_behind_for_a_guess_that_goes_too_far_back() -> None:
    """Its last term began long before the leader's journal does, and all have restarted since."""
    cluster = Voters(journal_file_size_max=2000)
    cluster.elect("a", "b", "c")
    for number in range(40):
        cluster.propose("a", b"x%d" % number * 20)
        cluster.settle("a", "b", "c", rounds=1)
    cluster.settle("a", "b", "c")
    applied = cluster["b"].raft.last_applied
    remove_files = cluster["b"].journal.compact(min(applied - 1, cluster["b"].raft.retain_from))
    assert remove_files is not None
    remove_files()
    cluster.propose("a", b"tail")
    cluster.tick("a")
    cluster.lose("a")
    points = {"a": cluster.restore_point("a", 5)}
    points |= {name: cluster.restore_point(name, applied) for name in "bc"}
    for name, point in points.items():
        cluster.restart(name, cluster[name].disk.crash(Random(1)), point)
    for leader, follower in (("b", "c"), ("c", "b"), ("b", "c")):
        cluster.elect(leader, follower)
        cluster.settle(leader, follower)
        cluster.lose("a")
    cluster.settle("b", "a", rounds=8)
    assert cluster["b"].raft.stranded == set()
    assert cluster["a"].journal.last_index == cluster["b"].journal.last_index


def test_a_paused_voter_goes_on_behind_what_it_has_confirmed_since_it_was_set_back() -> None:
    """What it has confirmed its leader may have forgotten: to go on before that would strand it for ever."""
    cluster = Voters(in_flight_size_max=1, journal_file_size_max=2000)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    leader = cluster["a"].raft
    for number in range(40):
        cluster.propose("a", b"x%d" % number * 20)
        cluster.settle("a", "b", "c", rounds=1)
    # Two entries, one message at a time: the second one waits for the window.
    for _ in range(2):
        cluster.propose("a", b"tail")
        cluster.tick("a")
    cluster.deliver("a", "c")
    # A refusal of something old is before the acknowledgements in the queue.
    refusal = AppendReply(leader.term, leader.outgoing.sent_count, 3, success=False, reset=True)
    leader.receive("c", refusal)
    cluster.exchange("a", "b")
    cluster.deliver("c", "a")
    assert leader.matched["c"] > 40
    remove_files = cluster["a"].journal.compact(min(leader.last_applied - 1, leader.retain_from))
    assert remove_files is not None
    remove_files()
    assert cluster["a"].journal.first_index > 3
    cluster.settle("a", "b", "c")
    assert leader.stranded == set()
    assert cluster["c"].applied == cluster["a"].applied
