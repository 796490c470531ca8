"""When a learner may vote, by what one leader knows of it."""

from __future__ import annotations

from typing import Any

import pytest

from distlog.consensus.rules.caught_up import LAG_MAX, STEADY_S, CaughtUp

CLOSE: dict[str, Any] = {
    "is_silent": False,
    "match_index": 900,
    "needed_index": 1,
    "last_index": 1000,
}


def watched(rule: CaughtUp, now: float, **changes: Any) -> bool:
    return rule.watch("d", now=now, **{**CLOSE, **changes})


def test_a_learner_that_was_close_for_a_while_may_vote() -> None:
    rule = CaughtUp()
    assert not watched(rule, 10.0)
    assert not watched(rule, 10.0 + STEADY_S / 2)
    assert watched(rule, 10.0 + STEADY_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"match_index": 1000 - LAG_MAX - 1},
        {"match_index": 0},
        {"needed_index": 901},
        {"is_silent": True},
    ],
    ids=["too far behind", "has told nothing", "lacks what every voter has", "silent"],
)
def test_whatever_is_missing_for_a_moment_begins_the_while_anew(changes: dict[str, Any]) -> None:
    rule = CaughtUp()
    watched(rule, 10.0)
    assert not watched(rule, 10.0 + STEADY_S, **changes)
    assert not watched(rule, 10.1 + STEADY_S)
    assert watched(rule, 10.1 + 2 * STEADY_S)


def test_a_learner_that_was_away_or_of_another_term_begins_anew() -> None:
    for forget in (lambda rule: rule.drop("d"), lambda rule: rule.clear()):
        rule = CaughtUp()
        watched(rule, 10.0)
        forget(rule)
        assert not watched(rule, 10.0 + STEADY_S)
