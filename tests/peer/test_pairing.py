"""Which connection of a pair counts."""

from __future__ import annotations

from dataclasses import dataclass

from distlog.peer.handshake import Greeting
from distlog.peer.pairing import Pairing
from tests.peer.exchanges import hello


@dataclass(eq=False)
class Link:
    """A connection with the greetings that were exchanged on it."""

    own: Greeting | None = None
    peer: Greeting | None = None


def said(attempt: int, incarnation: int = 1) -> Greeting:
    return Greeting(incarnation, attempt, hello())


def smaller() -> Pairing[Link]:
    """Return the pairing of n1 with n2: its own numbers decide."""
    return Pairing("n1", "n2")


def greater() -> Pairing[Link]:
    """Return the pairing of n2 with n1: the numbers of the other decide."""
    return Pairing("n2", "n1")


def test_a_dial_that_is_answered_counts() -> None:
    for pairing in (smaller(), greater()):
        link = Link(own=said(1))
        pairing.dial(link)
        assert not pairing.may_dial
        link.peer = said(1)
        assert pairing.answered(link) == []
        assert pairing.current is link
        assert pairing.opened(link) == []


def test_a_dial_that_comes_in_counts() -> None:
    for pairing in (smaller(), greater()):
        link = Link(own=said(1), peer=said(1))
        assert pairing.answer(link) == []
        assert pairing.current is link
        assert not pairing.may_dial


def test_a_node_dials_again_only_when_nothing_is_left() -> None:
    pairing = smaller()
    link = Link(own=said(1))
    pairing.dial(link)
    pairing.forget(link)
    assert pairing.may_dial
    pairing.answer(Link(own=said(2), peer=said(1)))
    pairing.forget(link)
    assert not pairing.may_dial, "a link that had lost before changes nothing"


def test_the_smaller_id_drops_its_dial_when_it_answers_another() -> None:
    pairing = smaller()
    own, inbound = Link(own=said(1)), Link(own=said(2), peer=said(1))
    pairing.dial(own)
    assert pairing.answer(inbound) == [own]
    assert pairing.current is inbound


def test_the_greater_id_keeps_both_until_the_other_has_spoken() -> None:
    pairing = greater()
    own, inbound = Link(own=said(1)), Link(own=said(2), peer=said(1))
    pairing.dial(own)
    assert pairing.answer(inbound) == []
    own.peer = said(2)
    assert pairing.answered(own) == [inbound], "the other greeted later on our dial"
    assert pairing.current is own


def test_the_greater_id_drops_its_dial_when_the_other_accepts_the_connection_that_came_in() -> None:
    pairing = greater()
    own, inbound = Link(own=said(1)), Link(own=said(2), peer=said(3))
    pairing.dial(own)
    pairing.answer(inbound)
    assert pairing.opened(inbound) == [own]
    assert pairing.current is inbound


def test_the_greater_id_drops_an_answer_that_is_older_than_the_connection_that_counts() -> None:
    pairing = greater()
    own, inbound = Link(own=said(1)), Link(own=said(2), peer=said(5))
    pairing.dial(own)
    pairing.answer(inbound)
    own.peer = said(4)
    assert pairing.answered(own) == [own]
    assert pairing.current is inbound


def test_both_ends_of_two_crossing_dials_choose_the_same_one() -> None:
    n1, n2 = smaller(), greater()
    # One object per end and connection: (n1's end, n2's end).
    first = (Link(own=said(1)), Link(peer=said(1)))
    second = (Link(peer=said(1)), Link(own=said(1)))
    n1.dial(first[0])
    n2.dial(second[1])
    second[0].own = said(2)
    assert n1.answer(second[0]) == [first[0]]
    first[1].own = said(2)
    assert n2.answer(first[1]) == []
    second[1].peer = said(2)
    assert n2.answered(second[1]) == [first[1]]
    assert n1.current is second[0]
    assert n2.current is second[1]


def test_a_peer_that_dials_anew_replaces_the_connection_that_looks_healthy() -> None:
    for pairing in (smaller(), greater()):
        old = Link(own=said(1), peer=said(4))
        pairing.answer(old)
        pairing.opened(old)
        assert not pairing.is_stale(said(5)), "the same process lost it and dials again"
        assert not pairing.is_stale(said(1, incarnation=2)), "a restarted process counts from one"
        new = Link(own=said(2), peer=said(5))
        assert pairing.answer(new) == [old]
        assert pairing.current is new


def test_a_dial_that_was_sent_before_the_connection_that_counts_is_stale() -> None:
    for pairing in (smaller(), greater()):
        link = Link(own=said(1))
        pairing.dial(link)
        link.peer = said(4)
        pairing.answered(link)
        assert pairing.is_stale(said(3))
        pairing.forget(link)
        assert not pairing.is_stale(said(3)), "better than nothing"
