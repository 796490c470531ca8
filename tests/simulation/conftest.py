"""The simulated schedules of one test run: on the cores that are free for it, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests import counted
from tests.simulation.campaign import start_pool, submit
from tests.simulation.schedule import Run
from tests.simulation.summary import Summary

SEED_COUNT = 200


class Campaign:
    """The seeds of this test run."""

    def __init__(self, seeds: range, summary: Summary, process_count: int) -> None:
        self.seeds = seeds
        self.summary = summary
        self._process_count = process_count
        self._pool: ProcessPoolExecutor | None = None
        self._futures: dict[int, Future[Run]] = {}
        self._runs: dict[int, Run] = {}

    def run(self, seed: int) -> Run:
        """Return one run; the first call starts all of them."""
        if self._pool is None:
            self._pool = start_pool(self._process_count)
            self._futures = submit(self._pool, self.seeds)
        if seed not in self._runs:
            run = self._runs[seed] = self._futures[seed].result()
            self.summary.add(run)
        return self._runs[seed]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


@pytest.fixture(scope="session")
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    config = request.config
    first = config.getoption("--first-seed")
    count = config.getoption("--seeds") or SEED_COUNT
    # Workers beside this one have a core each.
    cores = (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    made = Campaign(range(first, first + count), counted.of(config).schedules, max(1, cores))
    yield made
    made.close()
