"""How often a peer is dialled, and what is logged about it."""

from __future__ import annotations

import logging
from random import Random

import pytest

from distlog.peer.complaints import STRANGER, Complaints
from distlog.peer.dialling import Backoff
from distlog.peer.limits import PeerLimits


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(PeerLimits(), Random(1))


def test_the_first_dial_after_a_loss_comes_at_once(backoff: Backoff) -> None:
    assert all(0 <= backoff.next_delay_s() <= 0.05 for _ in range(100))


def test_failures_double_the_delay_up_to_a_second_with_jitter(backoff: Backoff) -> None:
    for longest in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        backoff.failed()
        delays = [backoff.next_delay_s() for _ in range(100)]
        assert longest / 2 <= min(delays) < max(delays) <= longest
    for _ in range(10_000):
        backoff.failed()
    assert backoff.next_delay_s() <= 1.0
    backoff.succeeded()
    assert backoff.next_delay_s() <= 0.05


def test_a_refusal_waits_at_least_a_second(backoff: Backoff) -> None:
    backoff.refused()
    delays = [backoff.next_delay_s() for _ in range(100)]
    assert 1.0 <= min(delays) < max(delays) <= 1.25


class SetClock:
    """A clock that shows what it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


def test_a_complaint_is_logged_once_a_minute_and_its_kind_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = SetClock()
    complaints = Complaints(clock)

    def logged(now: float, problem: str, node_id: str = "n2", event: str = "peer refused") -> bool:
        caplog.clear()
        clock.now = now
        complaints.log(logging.WARNING, event, node_id, problem)
        return bool(caplog.records)

    assert logged(0.0, "one")
    assert not logged(0.5, "one")
    assert not logged(0.9, "two"), "at most one line of a kind in a second"
    assert logged(0.9, "two", node_id="n3")
    assert logged(0.9, "two", event="peer not reached")
    assert not logged(30.0, "one")
    assert logged(31.0, "two")
    assert logged(61.0, "one")
    assert not logged(119.0, "one")
    assert logged(122.0, "one")
    complaints.forget("n2")
    assert not logged(122.1, "one"), "a peer that breaks the protocol may come back at any rate"
    assert logged(123.1, "one"), "it has been fine in between"


def test_what_passes_as_a_rule_is_logged_when_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    clock = SetClock()
    complaints = Complaints(clock, ("not known yet", "waits"))

    def logged(now: float, problem: str = "10.0.0.2: not known yet") -> bool:
        caplog.clear()
        clock.now = now
        complaints.log(logging.ERROR, "refused", "n2", problem)
        return bool(caplog.records)

    assert not any(logged(now) for now in (0.0, 1.0, 4.9))
    assert logged(4.9, "10.0.0.2: wiped")
    assert logged(6.0)
    complaints.forget("n2")
    assert not logged(8.0), "it has been fine in between"
    assert not logged(12.0)
    assert logged(13.0, "10.0.0.2: waits")
    assert not logged(30.0), "that is another time"


def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = SetClock()
    complaints = Complaints(clock)
    for number in range(10_000):
        clock.now = number / 1000
        complaints.log(logging.WARNING, "peer refused", STRANGER, f"10.0.0.{number}: garbage")
    assert len(caplog.records) == 10


def test_a_complaint_is_one_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    Complaints(SetClock()).log(logging.ERROR, "peer refused", "n2", "n2:8401: wiped")
    assert caplog.messages == ["peer refused peer=n2 problem=n2:8401: wiped"]
    assert caplog.records[0].levelno == logging.ERROR
