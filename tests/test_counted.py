"""What the tests of several workers counted is one sum at the end of the run."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import execnet
import pytest

from tests import counted
from tests.counted import Counted
from tests.crash_tally import CrashTally


def a_worker(cases: int, crashes: int, failures: list[str]) -> Counted:
    made = Counted(full_matrix=False)
    made.crashes.count("log", "cut", cases)
    made.schedules.add(SimpleNamespace(counts=Counter(runs=1, crashes=crashes), failures=failures))
    made.figures.append(f"{cases} ms")
    return made


def test_the_counts_of_two_workers_are_added_up() -> None:
    total = Counted(full_matrix=False)
    for worker in (a_worker(2, 5, []), a_worker(3, 7, ["lost a record"])):
        total.add(execnet.loads(execnet.dumps(worker.content())))
    assert total.crashes.cases("log", "cut") == 5
    assert total.schedules.counts == {"runs": 2, "crashes": 12}
    assert total.schedules.failed_count == 1
    assert total.figures == ["2 ms", "3 ms"]
    sections = dict(total.sections())
    assert sections["cases of the crash matrix"][-1].split() == ["all", "5"]
    assert "| runs | 2 | 1.0 |" in sections["simulated schedules"]


def test_a_run_in_which_nothing_was_counted_says_nothing() -> None:
    assert list(Counted(full_matrix=False).sections()) == []


def test_a_worker_that_was_lost_has_counted_nothing() -> None:
    config = SimpleNamespace(stash=pytest.Stash())
    config.stash[counted.COUNTED] = Counted(full_matrix=False)
    counted.pytest_testnodedown(SimpleNamespace(config=config))
    finished = SimpleNamespace(
        config=config, workeroutput={counted.SENT: a_worker(1, 0, []).content()}
    )
    counted.pytest_testnodedown(finished)
    assert counted.of(config).crashes.cases("log", "cut") == 1  # type: ignore[arg-type]


def test_the_tests_of_this_run_are_counted_here(
    request: pytest.FixtureRequest, tally: CrashTally
) -> None:
    assert counted.of(request.config).crashes is tally
