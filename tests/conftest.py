"""What every test may use: counts of seeds and rounds from the command line, and how to repeat a failure.

A test that takes `seed` runs once for each seed, so its id names the one that failed.  Data directories are pytest's
`tmp_path`; nothing here is shared between tests.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator

import hypothesis
import pytest

from tests import counted, overdue
from tests.crash_tally import CrashTally

# Clusters, of processes and simulated: most of the time of a run.
LONG = ("tests/processes/", "tests/benchmarks/", "tests/simulation/")

# No deadline: a test machine may stall.  A failing example prints the line that repeats it.
hypothesis.settings.register_profile("distlog", deadline=None, print_blob=True)
hypothesis.settings.load_profile("distlog")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("distlog")
    group.addoption(
        "--seeds",
        type=int,
        default=None,
        help="seeds for each simulated test (default: the test's own)",
    )
    group.addoption("--first-seed", type=int, default=0, help="the first seed (default: 0)")
    group.addoption(
        "--rounds",
        type=int,
        default=15,
        help="rounds of kill -9 in the process tests (default: 15)",
    )
    group.addoption(
        "--missed-mib",
        type=int,
        default=120,
        help="MiB that a node with a small disk falls behind in the process tests (default: 120)",
    )
    group.addoption(
        "--inputs",
        type=int,
        default=0,
        help="inputs for each fuzzed parser (default: as many as fit into a test run)",
    )
    group.addoption(
        "--rewrite",
        action="store_true",
        help="write what is seen into the scenario files; then read the difference",
    )
    group.addoption(
        "--full-matrix",
        action="store_true",
        help="the complete product of the crash matrix (minutes) instead of what fits into a test run",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(counted)
    config.pluginmanager.register(overdue)
    config.addinivalue_line(
        "markers", "seeds(count): how many seeds a test that takes `seed` runs by default (20)"
    )


def pytest_report_header() -> str:
    # Nodes reserve space: where there is hardly any, many tests fail, and for no other reason.
    place = tempfile.gettempdir()
    return f"space: {shutil.disk_usage(place).free / (1 << 30):.1f} GiB free in {place}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `seed` once for each seed; a test that parametrizes it itself is left alone."""
    marks = list(metafunc.definition.iter_markers("parametrize"))
    if "seed" not in metafunc.fixturenames or any("seed" in names_of(mark) for mark in marks):
        return
    mark = metafunc.definition.get_closest_marker("seeds")
    count = metafunc.config.getoption("--seeds") or (mark.args[0] if mark else 20)
    first = metafunc.config.getoption("--first-seed")
    metafunc.parametrize("seed", range(first, first + count), ids=lambda seed: f"seed={seed}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With workers, begin with what takes longest: the last one of them shall not be waited for by all others."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def names_of(mark: pytest.Mark) -> list[str]:
    """Return the argument names that a parametrize mark sets."""
    names = mark.args[0] if mark.args else mark.kwargs["argnames"]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds of kill -9 a process test runs: `--rounds`."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> CrashTally:
    """Where the cases of the crash matrix are counted."""
    return counted.of(request.config).crashes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say under every failure which command repeats it."""
    report = yield
    if report.failed:
        seeded = getattr(item, "callspec", None)
        seed = seeded.params.get("seed") if seeded else None
        selection = "" if seed is None else f" --first-seed {seed} --seeds 1"
        report.sections.append(("to repeat it", f"python -m pytest '{item.nodeid}'{selection}"))
    return report
