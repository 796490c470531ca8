"""The simulated schedules of one test run: on all cores, each once, with one table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.simulation.campaign import Summary, start_pool, submit
from tests.simulation.schedule import Run

SEED_COUNT = 200
SUMMARY = pytest.StashKey[Summary]()


class Campaign:
    """The seeds of this test run."""

    def __init__(self, seeds: range) -> None:
        self.seeds = seeds
        self.summary = Summary()
        self._pool: ProcessPoolExecutor | None = None
        self._futures: dict[int, Future[Run]] = {}
        self._runs: dict[int, Run] = {}

    def run(self, seed: int) -> Run:
        """Return one run; the first call starts all of them."""
        if self._pool is None:
            self._pool = start_pool()
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
    made = Campaign(range(first, first + count))
    config.stash[SUMMARY] = made.summary
    yield made
    made.close()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what all schedules together came to."""
    summary = config.stash.get(SUMMARY, None)
    if summary is not None and summary.counts["runs"]:
        terminalreporter.section("simulated schedules")
        for line in summary.table():
            terminalreporter.write_line(line)
