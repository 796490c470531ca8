"""What may wait for a step is limited by count and by bytes, and a peer that is gone leaves nothing."""

from __future__ import annotations

import pytest

from distlog.consensus import inbox
from distlog.consensus.inbox import Inbox
from distlog.consensus.messages import VoteReply
from distlog.errors import PeerRefused


def test_messages_come_out_in_the_order_of_their_arrival() -> None:
    waiting = Inbox(100)
    waiting.put("b", VoteReply(1), 10)
    waiting.put("c", VoteReply(2), 20)
    assert (len(waiting), waiting.size) == (2, 30)
    assert waiting.take() == ("b", VoteReply(1))
    assert (len(waiting), waiting.size) == (1, 20)


def test_who_fills_it_is_refused_by_bytes_and_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Inbox(100)
    waiting.put("b", VoteReply(1), 90)
    with pytest.raises(PeerRefused, match="floods"):
        waiting.put("c", VoteReply(1), 11)
    waiting.put("c", VoteReply(1), 10)
    monkeypatch.setattr(inbox, "COUNT_MAX", 3)
    waiting.put("c", VoteReply(1), 0)
    with pytest.raises(PeerRefused, match="floods"):
        waiting.put("b", VoteReply(1), 0)


def test_an_empty_inbox_takes_a_message_of_any_size() -> None:
    waiting = Inbox(100)
    waiting.put("b", VoteReply(1), 1000)
    with pytest.raises(PeerRefused):
        waiting.put("b", VoteReply(1), 1)


def test_what_a_lost_peer_has_sent_is_forgotten() -> None:
    waiting = Inbox(100)
    for number, sender in enumerate("bcbc"):
        waiting.put(sender, VoteReply(number), 10)
    waiting.drop("b")
    assert (len(waiting), waiting.size) == (2, 20)
    assert [waiting.take()[1].sender_term for _ in range(2)] == [1, 3]
    waiting.put("c", VoteReply(1), 10)
    waiting.clear()
    assert (len(waiting), waiting.size) == (0, 0)
