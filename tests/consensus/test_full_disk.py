"""A voter whose disk is full takes no entries and says so; everything else goes on, and it catches up when there is space."""

from __future__ import annotations

from distlog.consensus.messages import AppendEntries, AppendReply
from tests.consensus.voters import Voter, Voters

RESERVE_SIZE = 1 << 20
# The zeros stand where an entry has the number of its commands.
LARGE = [bytes(8) + bytes([number]) * 50_000 for number in range(20)]


def fill_disk(voter: Voter) -> None:
    """Fill the disk, as another program would, and let writes use up what they may."""
    voter.disk.capacity = voter.disk.used
    assert voter.reserve.give_up(RESERVE_SIZE // 2)


def free_disk(voter: Voter) -> None:
    voter.disk.capacity = None
    assert voter.reserve.restore()


def led_by_a() -> Voters:
    cluster = Voters(reserve_size=RESERVE_SIZE)
    cluster.elect("a", "b", "c")
    cluster.propose("a", b"first")
    cluster.settle("a", "b", "c")
    return cluster


def replies(cluster: Voters, sender: str) -> list[AppendReply]:
    decoded = cluster.decoded(cluster.queues[sender, "a"])
    return [message for message in decoded if isinstance(message, AppendReply)]


def test_a_full_follower_answers_without_acknowledging() -> None:
    cluster = led_by_a()
    fill_disk(cluster["b"])
    before = cluster["b"].journal.last_index
    cluster.lose("b")
    cluster.propose("a", b"second")
    cluster.tick("a")
    cluster.deliver("a", "b")
    reply = replies(cluster, "b")[-1]
    assert (reply.next_index, reply.success, reply.is_full) == (before + 1, True, True)
    assert cluster["b"].journal.last_index == before
    cluster.deliver("b", "a")
    assert cluster["a"].raft.followers.lacking_space == {"b"}
    assert cluster["a"].raft.matched["b"] == before


def test_the_majority_goes_on_without_a_full_follower() -> None:
    cluster = led_by_a()
    fill_disk(cluster["b"])
    for number in range(10):
        cluster.propose("a", b"%d" % number)
        cluster.settle("a", "b", "c")
    assert len(cluster.acknowledged()) == 11
    assert [command for _, command in cluster["b"].applied] == [b"first"]
    assert cluster["b"].raft.leader_id == "a", "heartbeats keep it from campaigning"


def test_a_full_follower_is_not_sent_entries_again_and_again() -> None:
    cluster = led_by_a()
    fill_disk(cluster["b"])
    cluster.propose("a", b"second")
    cluster.settle("a", "b", "c")
    sent = 0
    for _ in range(20):
        cluster.tick("a")
        sent += sum(
            bool(message.entries)
            for message in cluster.decoded(cluster.queues["a", "b"])
            if isinstance(message, AppendEntries)
        )
        cluster.exchange("a", "b")
    assert sent == 0


def test_a_follower_catches_up_when_there_is_space_again() -> None:
    cluster = led_by_a()
    fill_disk(cluster["b"])
    commands = [b"%d" % number for number in range(10)]
    cluster.propose("a", *commands)
    cluster.settle("a", "b", "c")
    free_disk(cluster["b"])
    cluster.settle("a", "b", "c", rounds=8)
    assert cluster["a"].raft.followers.lacking_space == set()
    assert cluster["b"].applied == cluster["a"].applied


def test_more_than_the_reserve_pays_for_is_taken_in_parts() -> None:
    """The entries are not committed yet, so their space stays promised; the leader goes on from where the part ends."""
    cluster = led_by_a()
    cluster.lose("b", "c")
    cluster.propose("a", *LARGE)
    cluster.tick("a")
    cluster.deliver("a", "b")
    taken = cluster["b"].journal.last_index - 2
    assert 0 < taken < len(LARGE)
    assert any(
        reply.success and reply.reset and not reply.is_full for reply in replies(cluster, "b")
    )
    cluster.settle("a", "b", "c", rounds=30)
    assert cluster["b"].applied == cluster["a"].applied
    assert [command for _, command in cluster["c"].applied][1:] == LARGE


def test_a_part_that_was_taken_is_acknowledged_only_as_far_as_it_goes() -> None:
    cluster = led_by_a()
    cluster.lose("b", "c")
    cluster.propose("a", *LARGE)
    cluster.tick("a")
    cluster.deliver("a", "b")
    claimed = max(reply.next_index - 1 for reply in replies(cluster, "b") if reply.success)
    assert claimed == cluster["b"].journal.last_index


def test_entries_beyond_what_is_left_of_the_reserve_wait_to_be_applied() -> None:
    cluster = led_by_a()
    cluster.propose("a", *LARGE[:4])
    cluster.tick("a")
    cluster.deliver("a", "b")
    b = cluster["b"]
    b.disk.capacity = b.disk.used
    assert b.reserve.give_up(RESERVE_SIZE)
    b.disk.capacity = b.disk.used
    cluster.settle("a", "b", "c")
    assert len(cluster["a"].applied) == 5, "a and c commit and apply"
    assert b.raft.commit_index > b.raft.last_applied
    assert not b.raft.can_apply
    assert not b.raft.has_work, "there is nothing that a step could do about it"
    free_disk(b)
    cluster.settle("a", "b", "c", rounds=8)
    assert b.applied == cluster["a"].applied


def test_what_was_proposed_before_is_taken_while_half_of_the_reserve_is_left() -> None:
    cluster = led_by_a()
    b = cluster["b"]
    b.disk.capacity = b.disk.used
    assert b.reserve.give_up(4096)
    cluster.propose("a", *LARGE[:2])
    cluster.settle("a", "b", "c", rounds=8)
    assert b.applied == cluster["a"].applied
    assert cluster["a"].raft.followers.full == set(), "it takes what is sent to it"
    assert cluster["a"].raft.followers.lacking_space == {"b"}, "and it had better not lead"
    cluster.propose("a", *LARGE)
    cluster.settle("a", "b", "c", rounds=8)
    assert cluster["a"].raft.followers.lacking_space == {"b"}
    assert b.reserve.held >= RESERVE_SIZE // 2, "the other half is for what must not be refused"


def test_full_voters_still_vote_and_one_may_lead() -> None:
    cluster = led_by_a()
    fill_disk(cluster["b"])
    fill_disk(cluster["c"])
    cluster.lose("a")
    cluster.elect("b", "c")
    cluster.settle("b", "c")
    assert cluster["b"].raft.is_ready_leader, (
        "the entry of its own term is one that it promised nobody"
    )
    assert [command for _, command in cluster["b"].applied] == [b"first"]


def test_a_new_leader_is_not_refused_what_its_first_entry_lies_behind() -> None:
    """Nothing that is in the journals is known to be committed, so nothing can be applied to make room."""
    cluster = led_by_a()
    cluster.propose("a", *LARGE[:8])
    cluster.tick("a")
    cluster.deliver("a", "b")
    assert cluster["b"].journal.last_index < cluster["a"].journal.last_index, "all the room is used"
    cluster.lose("a")
    cluster.elect("a", "b")
    cluster.settle("a", "b")
    assert cluster["a"].applied == cluster["b"].applied
    assert len(cluster["b"].applied) == 9
