"""What the tests of a run counted, for the lines at its end: with several workers, each sends its own, and their sum is printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash_tally import CrashTally
from tests.simulation.summary import Summary

SENT = "counted"


class Counted:
    """Counts of one process, or of all that have reported to it."""

    def __init__(self, *, full_matrix: bool) -> None:
        self.crashes = CrashTally(full=full_matrix)
        self.schedules = Summary()
        # Measured; nothing depends on them.
        self.figures: list[str] = []

    def content(self) -> dict[str, Any]:
        """Return it as what a worker can send: lists, texts and numbers."""
        return {
            "crashes": self.crashes.content(),
            "schedules": dict(self.schedules.counts),
            "failed schedules": self.schedules.failed_count,
            "figures": self.figures,
        }

    def add(self, content: dict[str, Any]) -> None:
        """Add what a worker sent."""
        self.crashes.add(content["crashes"])
        self.schedules.counts.update(content["schedules"])
        self.schedules.failed_count += content["failed schedules"]
        self.figures += content["figures"]

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Yield a heading and its lines for everything that was counted."""
        if lines := list(self.crashes.table()):
            yield "cases of the crash matrix", lines
        if self.schedules.counts["runs"]:
            yield "simulated schedules", list(self.schedules.table())
        if self.figures:
            yield "figures", self.figures


COUNTED = pytest.StashKey[Counted]()


def of(config: pytest.Config) -> Counted:
    """Return what this process counts."""
    return config.stash[COUNTED]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTED] = Counted(full_matrix=bool(config.getoption("--full-matrix")))


def pytest_sessionfinish(session: pytest.Session) -> None:
    sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent[SENT] = of(session.config).content()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker counted.  One that was lost has sent nothing, and pytest says that it was lost."""
    sent: dict[str, Any] = getattr(node, "workeroutput", {})
    if SENT in sent:
        of(node.config).add(sent[SENT])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for heading, lines in of(config).sections():
        terminalreporter.section(heading)
        for line in lines:
            terminalreporter.write_line(line)
