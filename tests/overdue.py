"""A test that took longer than its time-out has failed, also where it did not notice.

pytest-timeout raises an exception wherever the test is.  Inside a callback, asyncio hands that to its log and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

BEGAN_S = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[BEGAN_S] = time.monotonic()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.passed:
        duration_s = time.monotonic() - item.stash[BEGAN_S]
        timeout_s = timeout_of(item)
        if 0 < timeout_s <= duration_s:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} took {duration_s:.1f} s and went on after its time-out of {timeout_s:g} s"
    return report


def timeout_of(item: pytest.Item) -> float:
    """Return the seconds that a test may take; 0: as long as it likes."""
    mark = item.get_closest_marker("timeout")
    if mark is not None:
        return float(mark.args[0] if mark.args else mark.kwargs["timeout"])
    return float(item.config.getini("timeout") or 0)
