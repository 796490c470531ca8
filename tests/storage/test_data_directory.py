"""The data directory: one process, one node, one cluster; anything else is refused and left as
it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from distlog.errors import (
    DataDirectoryInUse,
    DataDirectoryUnusable,
    DistlogError,
    FormatUnsupported,
    StorageFull,
)
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from distlog.storage.simulated_disk import SimulatedDisk

VOTERS = {"n1": "11" * 16, "n2": "22" * 16}


def opened(disk: SimulatedDisk, node_id: str = "n1", seed: int = 1) -> DataDirectory:
    return DataDirectory.open(disk, "/data", node_id, Random(seed))


def text(disk: SimulatedDisk, name: str) -> str:
    return disk.open(f"/data/{name}", writable=False).read_at(0, 9999).decode()


def write(disk: SimulatedDisk, name: str, data: str) -> None:
    if disk.exists(f"/data/{name}"):
        disk.remove(f"/data/{name}")
    disk.open(f"/data/{name}", create=True).write_at(0, [data.encode()])


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def test_a_new_directory_gets_an_identity_that_stays() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    assert len(bytes.fromhex(directory.directory_id)) == 16
    assert (directory.cluster_id, directory.voters) == (None, None)
    assert text(disk, "FORMAT") == "1\n"
    first = directory.directory_id
    directory.close()
    again = opened(disk, seed=2)
    assert (again.node_id, again.directory_id) == ("n1", first)


def test_two_directories_have_different_ids() -> None:
    ids = {opened(SimulatedDisk(), seed=seed).directory_id for seed in range(5)}
    assert len(ids) == 5


def test_the_parts_of_a_group_have_their_places() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    assert directory.journal_path == "/data/groups/0/journal"
    assert directory.checkpoint_path == "/data/groups/0/checkpoint"
    assert directory.topics_path == "/data/groups/0/topics"
    assert directory.topic_path(17) == "/data/groups/0/topics/00000000000000000017"
    assert disk.is_directory(directory.journal_path)
    assert disk.is_directory(directory.topics_path)


def test_forming_is_durable_and_happens_once() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    directory.form("cluster", VOTERS)
    directory.form("cluster", VOTERS)
    with pytest.raises(AssertionError):
        directory.form("another", VOTERS)
    for seed in range(20):
        survivor = opened(disk.crash(Random(seed)))
        assert (survivor.cluster_id, survivor.voters) == ("cluster", VOTERS)


def test_what_was_proposed_is_durable_until_the_cluster_is_formed() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    assert directory.proposal == ({}, False)
    directory.propose(VOTERS, is_agreed=True)
    survivor = disk.crash(Random(1))
    again = opened(survivor)
    assert again.proposal == (VOTERS, True)
    again.form("abc", VOTERS)
    assert "proposal" not in text(survivor, "node.json")


@pytest.mark.parametrize("value", ['{"n1": "11"}', '[{"n1": 1}, true]', "[{}, 1]", "[]"])
def test_a_proposal_that_is_none_is_refused(value: str) -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    values = json.loads(text(disk, "node.json"))
    del values["crc32c"]
    write(disk, "node.json", json.dumps({**values, "proposal": json.loads(value)}))
    with pytest.raises(DataDirectoryUnusable, match="cannot be understood"):
        opened(disk)


def test_a_crash_at_any_operation_of_the_first_start_leaves_a_directory_that_starts() -> None:
    survivors: list[tuple[SimulatedDisk, str | None]] = []
    written: list[DataDirectory] = []

    def crash(operation: str, path: str) -> None:
        identity = written[0].directory_id if written else None
        survivors.extend((disk.crash(Random(seed)), identity) for seed in range(8))

    disk = SimulatedDisk(hook=crash)
    written.append(opened(disk))
    written[0].form("cluster", VOTERS)
    assert len(survivors) > 80
    for survivor, identity in survivors:
        directory = opened(survivor, seed=9)
        assert identity is None or directory.directory_id == identity
        assert directory.cluster_id in (None, "cluster")


def test_a_second_process_is_refused() -> None:
    disk = SimulatedDisk()
    directory = opened(disk)
    for second in (lambda: opened(disk), lambda: DataDirectory.open_offline(disk, "/data")):
        with pytest.raises(DataDirectoryInUse, match=r"^/data is in use"):
            second()
    directory.close()
    opened(disk).close()


def test_a_refused_start_does_not_keep_the_lock() -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    for _ in range(2):
        with pytest.raises(DataDirectoryUnusable, match="belongs to node n1, not n2"):
            opened(disk, "n2")
    opened(disk).close()


@pytest.mark.parametrize("found", ["2\n", "17"])
def test_a_newer_format_is_refused_and_nothing_is_changed(tmp_path: Path, found: str) -> None:
    DataDirectory.open(RealDisk(), str(tmp_path), "n1", Random(1)).close()
    (tmp_path / "FORMAT").write_text(found)
    before = tree(tmp_path)
    with pytest.raises(FormatUnsupported) as caught:
        DataDirectory.open(RealDisk(), str(tmp_path), "n1", Random(1))
    assert (caught.value.found, caught.value.supported) == (found.strip(), "1")
    assert tree(tmp_path) == before


def test_a_format_that_is_no_number_is_refused() -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    write(disk, "FORMAT", "one\n")
    with pytest.raises(DataDirectoryUnusable, match="'one'"):
        opened(disk)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: (path.mkdir(), (path / "thesis.tex").write_text("x")), "not empty"),
        (lambda path: (path.mkdir(), (path / f"{0:020d}.log").write_text("x")), "distlog import"),
    ],
)
def test_what_is_no_data_directory_is_refused_and_left_alone(
    tmp_path: Path, make: object, problem: str
) -> None:
    path = tmp_path / "data"
    assert callable(make)
    make(path)
    before = tree(tmp_path)
    for attempt in (
        lambda: DataDirectory.open(RealDisk(), str(path), "n1", Random(1)),
        lambda: DataDirectory.open_offline(RealDisk(), str(path)),
    ):
        with pytest.raises(DataDirectoryUnusable, match=problem):
            attempt()
    assert tree(tmp_path) == before


def test_a_mount_point_with_its_lost_and_found_is_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    DataDirectory.open(RealDisk(), str(tmp_path), "n1", Random(1)).close()
    assert (tmp_path / "node.json").exists()


def test_a_directory_that_cannot_be_written_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryUnusable, match="File exists"):
        DataDirectory.open(RealDisk(), f"{tmp_path}/file/data", "n1", Random(1))


def test_a_disk_that_fails_at_any_operation_is_a_clear_error_and_the_next_start_works() -> None:
    refused = 0
    for nth in range(1, 30):
        disk = SimulatedDisk()
        disk.fail_at = nth
        problem = ""
        try:
            opened(disk).close()
        except DataDirectoryUnusable as error:
            problem = error.problem
            refused += 1
        assert not problem or problem.endswith("Input/output error")
        disk.fail_at = None
        opened(disk).close()
    assert 10 < refused < 29


def test_a_full_disk_is_a_full_disk() -> None:
    with pytest.raises(StorageFull):
        opened(SimulatedDisk(capacity=20))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"node_id": "n1"}',
        '{"node_id": 1, "directory_id": "00", "cluster_id": null, "voters": null}',
        '{"node_id": "n1", "directory_id": "00", "cluster_id": null, "voters": null}',
        '{"node_id": "n1", "directory_id": "zz", "cluster_id": null, "voters": null}',
        json.dumps({"node_id": "n1", "directory_id": "0" * 32, "cluster_id": "c", "voters": None}),
        json.dumps(
            {"node_id": "n1", "directory_id": "0" * 32, "cluster_id": "c", "voters": {"n1": 1}}
        ),
        "\xff\x00",
    ],
)
def test_a_node_json_that_cannot_be_understood_is_refused_and_kept(content: str) -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    write(disk, "node.json", content)
    for attempt in (lambda: opened(disk), lambda: DataDirectory.open_offline(disk, "/data")):
        with pytest.raises(DataDirectoryUnusable, match=r"node\.json cannot be understood"):
            attempt()
    assert text(disk, "node.json") == content


def test_a_lost_node_json_is_not_replaced_by_a_new_identity() -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    disk.remove("/data/node.json")
    with pytest.raises(DataDirectoryUnusable, match=r"node\.json is missing"):
        opened(disk)
    assert not disk.exists("/data/node.json")


def test_looking_at_a_directory_changes_nothing_in_it(tmp_path: Path) -> None:
    directory = DataDirectory.open(RealDisk(), str(tmp_path), "n1", Random(1))
    directory.form("cluster", VOTERS)
    directory.close()
    (tmp_path / "LOCK").unlink()
    before = tree(tmp_path)
    offline = DataDirectory.open_offline(RealDisk(), str(tmp_path))
    assert (offline.node_id, offline.cluster_id, offline.voters) == ("n1", "cluster", VOTERS)
    offline.close()
    assert tree(tmp_path) == before


def test_there_is_nothing_to_look_at_where_no_node_was(tmp_path: Path) -> None:
    with pytest.raises(DistlogError, match="no node has used it"):
        DataDirectory.open_offline(RealDisk(), str(tmp_path))
    assert tree(tmp_path) == {}


# --- Filled before the first start ------------------------------------------------------------------


def test_a_directory_that_is_being_filled_is_started_on_only_when_it_is_finished() -> None:
    disk = SimulatedDisk()
    directory = DataDirectory.begin(disk, "/data", "n1", Random(1))
    directory.form("cluster", VOTERS)
    directory.close()
    for attempt in (lambda: opened(disk), lambda: DataDirectory.open_offline(disk, "/data")):
        with pytest.raises(DataDirectoryUnusable, match="remove it and begin anew"):
            attempt()
    unfinished = disk.crash(Random(1))
    with pytest.raises(DataDirectoryUnusable, match="not empty"):
        DataDirectory.begin(unfinished, "/data", "n1", Random(1))
    directory.finish()
    assert opened(disk.crash(Random(2))).cluster_id == "cluster"


def test_only_an_empty_directory_can_be_filled() -> None:
    disk = SimulatedDisk()
    opened(disk).close()
    with pytest.raises(DataDirectoryUnusable, match="not empty"):
        DataDirectory.begin(disk, "/data", "n1", Random(1))
