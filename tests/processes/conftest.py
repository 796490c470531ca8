"""Clusters of processes for a test, ended after it whatever happens, their output shown when it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest

from tests import counted
from tests.processes.file_systems import FileSystems, require_root
from tests.processes.process_cluster import NODE_IDS, ProcessCluster

OUTPUT_SHOWN_MAX = 4000
shared_key = pytest.StashKey[ProcessCluster]()
clusters_key = pytest.StashKey[list[ProcessCluster]]()

MakeCluster = Callable[..., ProcessCluster]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[FileSystems]:
    """Make small file systems, gone after the test.  Name it before what makes nodes: they must be ended first."""
    require_root()
    made = FileSystems(tmp_path / "disks")
    yield made
    made.close()


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeCluster]:
    """Make clusters, not started.  Afterwards none of their nodes may have shown a traceback."""
    clusters: list[ProcessCluster] = request.node.stash.setdefault(clusters_key, [])

    def make(node_ids: Sequence[str] = NODE_IDS, *settings: str) -> ProcessCluster:
        cluster = ProcessCluster(tmp_path / f"cluster-{len(clusters) + 1}", node_ids, settings)
        clusters.append(cluster)
        return cluster

    yield make
    for cluster in clusters:
        cluster.close()
    for cluster in clusters:
        check_no_traceback(cluster)


def check_no_traceback(cluster: ProcessCluster) -> None:
    for node in cluster:
        assert "Traceback" not in node.says(), node.says()


@pytest.fixture(scope="module")
def shared_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    cluster = ProcessCluster(tmp_path_factory.mktemp("shared"))
    request.config.stash[shared_key] = cluster
    yield cluster
    cluster.close()
    check_no_traceback(cluster)


@pytest.fixture
def running_cluster(shared_cluster: ProcessCluster) -> ProcessCluster:
    """Three nodes that run, for tests that only talk to them: others have written to them, and will."""
    shared_cluster.start_missing()
    return shared_cluster


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ProcessCluster:
    """Three nodes, not started."""
    return make_cluster()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show under a failure what the nodes said last."""
    report = yield
    if report.failed:
        clusters = item.stash.get(clusters_key, [])
        if "running_cluster" in getattr(item, "fixturenames", ()):
            clusters = [*clusters, item.config.stash[shared_key]]
        for cluster in clusters:
            for node in cluster:
                said = node.says()[-OUTPUT_SHOWN_MAX:]
                report.sections.append((f"{node.node_id} of {node.data_dir.parent.name}", said))
    return report


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a measured figure in the summary of the run; nothing depends on it."""
    return counted.of(request.config).figures.append
