"""Whole-cluster schedules: whatever happens, nothing acknowledged is lost, doubled, reordered or different anywhere."""

from __future__ import annotations

import pytest

from tests.simulation.campaign import describe
from tests.simulation.conftest import SEED_COUNT, Campaign
from tests.simulation.schedule import simulate


@pytest.mark.seeds(SEED_COUNT)
@pytest.mark.timeout(600)
def test_a_cluster_keeps_every_promise_under_any_schedule(seed: int, campaign: Campaign) -> None:
    run = campaign.run(seed)
    print(describe(run))
    assert not run.failures, "\n".join(run.failures)
    assert run.counts["acknowledged"] > 0


@pytest.mark.timeout(600)
def test_the_schedules_together_saw_enough_of_everything(campaign: Campaign) -> None:
    for each in campaign.seeds:
        campaign.run(each)
    assert not campaign.summary.below_floors()


@pytest.mark.parametrize("number", [2, 3])
def test_a_seed_reproduces_a_run_exactly(number: int, campaign: Campaign) -> None:
    """In this process and in another one, whose hashes are others."""
    again = simulate(campaign.seeds[0] + number)
    there = campaign.run(again.seed) if again.seed in campaign.seeds else simulate(again.seed)
    assert (again.trace, again.counts) == (there.trace, there.counts)
    assert simulate(again.seed + 1).trace != again.trace
