"""Without any one rule something is violated, and the schedules see it: each by the quickest that is known to."""

from __future__ import annotations

import dataclasses

import pytest

from distlog.consensus.rules import Rules, complete_rules
from tests.consensus.missing_rules import MISSING, without
from tests.simulation.ablation import DIRECTED, directed
from tests.simulation.schedule import simulate

# What random schedules find without a rule: a seed, and how the sentence begins.
QUICKEST = {
    "persistence_gate": (0, "committed means durable"),
    "commit_gate": (0, "committed means durable"),
    "append_filter": (0, "leader completeness"),
}


def test_every_rule_is_left_out_once() -> None:
    rules = {field.name for field in dataclasses.fields(Rules)}
    assert MISSING.keys() == QUICKEST.keys() | DIRECTED.keys() == rules


@pytest.mark.parametrize("rule", QUICKEST)
def test_without_a_rule_a_random_schedule_finds_a_violation(rule: str) -> None:
    number, violated = QUICKEST[rule]
    failures = simulate(number, without(rule)).failures
    assert any(failure.startswith(violated) for failure in failures), failures


@pytest.mark.parametrize("rule", DIRECTED)
def test_without_a_rule_its_directed_schedule_finds_a_violation(rule: str) -> None:
    assert directed(rule) is not None
    assert DIRECTED[rule](complete_rules) is None, "and with it none"
