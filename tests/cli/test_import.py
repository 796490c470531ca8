"""import: a directory of the seed system becomes a node's."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from distlog.cli.import_seed import adopt
from distlog.cli.main import main
from distlog.cli.stopped_node import look_at
from distlog.consensus.recovery import recover
from distlog.errors import DataDirectoryUnusable
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from distlog.storage.simulated_disk import SimulatedDisk
from tests.cli.directories import (
    RECORDS,
    SEED,
    Capture,
    tree,
)


def test_import_makes_a_directory_that_a_node_starts_from(tmp_path: Path, capsys: Capture) -> None:
    before = tree(SEED)
    path = tmp_path / "new" / "n7"
    arguments = ["import", str(SEED), "--data-dir", str(path), "--node-id", "n7"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"imported 8 records into topic default of {path}",
        f"start it with: distlog serve --node-id n7 --data-dir {path}",
    ]
    assert tree(SEED) == before
    directory = DataDirectory.open(RealDisk(), str(path), "n7", Random(1))
    assert directory.voters == {"n7": directory.directory_id}
    recovered = recover(
        RealDisk(),
        journal_path=directory.journal_path,
        checkpoint_path=directory.checkpoint_path,
        topics_path=directory.topics_path,
    )
    topic = recovered.state_machine.topic_by_name("default")
    assert topic is not None
    assert [topic.log.read_record(offset) for offset in range(8)] == RECORDS
    assert (recovered.journal.last_index, recovered.state_machine.last_applied_index) == (2, 2)
    assert recovered.image is not None
    assert recovered.image.configuration.cluster_id == directory.cluster_id
    recovered.state_machine.close()
    recovered.journal.close()
    directory.close()


def test_import_refuses_a_directory_that_is_not_empty(node: Path, capsys: Capture) -> None:
    before = tree(node)
    assert main(["import", str(SEED), "--data-dir", str(node)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert tree(node) == before


def test_import_refuses_what_is_no_seed_and_makes_nothing(
    node: Path, log_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "target"
    for path in (node, log_path, tmp_path / "none"):
        assert main(["import", str(path), "--data-dir", str(target)]) == 1
        assert not target.exists()
    assert "No such file" in capsys.readouterr().err


def test_import_does_not_write_into_the_directory_that_it_adopts(
    tmp_path: Path, capsys: Capture
) -> None:
    seed = tmp_path / "seed"
    shutil.copytree(SEED, seed)
    before = tree(seed)
    for target in (seed, seed / "data", seed / ".." / "seed" / "n1"):
        assert main(["import", str(seed), "--data-dir", str(target)]) == 1
        assert "must stay as it is" in capsys.readouterr().err
    assert tree(seed) == before


def test_import_takes_the_node_id_that_serve_would_take(tmp_path: Path, capsys: Capture) -> None:
    target = str(tmp_path / "target")
    assert main(["import", str(SEED), "--data-dir", target, "--node-id", "no good"]) == 2
    assert "node-id" in capsys.readouterr().err
    assert not Path(target).exists()


def test_a_power_cut_at_any_operation_of_an_import_leaves_all_of_it_or_nothing_that_starts() -> (
    None
):
    disk = SimulatedDisk()
    disk.make_directory("/seed")
    for suffix, name in ((".log", "log"), (".idx", "idx")):
        data = (SEED / f"{0:020d}{suffix}").read_bytes()[: 1000 if name == "log" else 160]
        file = disk.open(f"/seed/{0:020d}{suffix}", create=True)
        file.write_at(0, [data])
        file.sync()
    disk.sync_directory("/seed")
    survivors: list[SimulatedDisk] = []
    random = Random(3)
    disk.hook = lambda operation, path: survivors.extend(disk.crash(random) for _ in range(3))
    adopt(disk, "/seed", "/n1", "n1", random=Random(1), now_ms=5)
    disk.hook = None
    survivors.append(disk.crash(random))
    outcomes = set()
    for survivor in survivors:
        try:
            look_at(survivor, "/n1", deep=False)
        except DataDirectoryUnusable:
            outcomes.add("refused")
            continue
        look = look_at(survivor, "/n1", deep=True)
        assert look.all_faults() == []
        assert [topic.log.next_offset for topic in look.topics] == [8]
        outcomes.add("whole")
    assert outcomes == {"refused", "whole"}
    assert len(survivors) > 100
