"""The crash matrix of a log fails on a product that forgets a sync, or does things in the wrong order.

That the same runs pass without the fault is what test_log_matrix.py shows.
"""

from __future__ import annotations

import pytest

from tests.crash_tally import CrashTally
from tests.storage.crash.faulty_disks import (
    LateSync,
    NoDirectorySync,
    NoRewrite,
    NoSync,
    planted,
)
from tests.storage.crash.log_life import Life
from tests.storage.crash.test_log_matrix import cut_everywhere, fail_every_sync

FAULTS = {
    "the store is never synced": planted(NoSync, lambda path: path.endswith(".log")),
    "the batch table is never synced": planted(NoSync, lambda path: path.endswith(".batch")),
    "the mark is never synced": planted(NoSync, lambda path: path.endswith("/synced")),
    "the mark is written before the data is synced": planted(
        LateSync,
        lambda path: path.endswith((".log", ".batch", ".idx")),
        lambda path: path.endswith("/synced"),
    ),
    "the directory is not synced after a roll": planted(
        NoDirectorySync, lambda path: path == "/log"
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, tally: CrashTally) -> None:
    with pytest.raises(AssertionError):
        cut_everywhere(Life(through=FAULTS[fault]), 3, full=False)
    tally.count("log", "planted faults found")


def test_a_recovery_that_trusts_the_page_cache_is_found(tally: CrashTally) -> None:
    fail_every_sync(lambda disk: disk, 1)
    with pytest.raises(AssertionError):
        fail_every_sync(NoRewrite, 1)
    tally.count("log", "planted faults found")
