"""inspect, verify and import: what they say, what they find, and that they leave everything as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from distlog.block import Block
from distlog.cli.import_seed import adopt
from distlog.cli.main import main
from distlog.cli.stopped_node import look_at
from distlog.consensus.recovery import recover
from distlog.errors import DataDirectoryUnusable
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

SEED = Path(__file__).parents[1] / "data" / "seed"
LIMITS = SegmentLimits(store_size_max=64 << 10, row_count_max=16)
RECORDS = [
    b"Hello, gRPC!",
    b"This is record 2",
    b"Testing the distributed log",
    b"Fourth record here",
] * 2

Capture = pytest.CaptureFixture[str]


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def node(tmp_path: Path, capsys: Capture) -> Path:
    """The data directory of a node that never ran, with the seed's records."""
    path = tmp_path / "n1"
    assert main(["import", str(SEED), "--data-dir", str(path)]) == 0
    capsys.readouterr()
    return path


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """The directory of one log: 20 records in two segments."""
    log = Log.create(RealDisk(), f"{tmp_path}/log", LIMITS)
    for number in range(20):
        block = Block.from_records([b"record %d" % number])
        log.append(block, timestamp_ms=number, raft_index=number, term=1)
    log.close()
    return tmp_path / "log"


def topic_path(node: Path) -> Path:
    return node / "groups" / "0" / "topics" / f"{1:020d}"


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)


def json_of(capsys: Capture, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_shows_a_data_directory(node: Path, capsys: Capture) -> None:
    before = tree(node)
    assert main(["inspect", str(node)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("node n1, directory ")
    assert lines[1].endswith(", voters n1")
    assert lines[2] == "checkpoint: entry 2 of term 1"
    assert lines[3].startswith("journal: entries 1 to 2, ")
    assert lines[5:] == [
        "topic default: offsets 0 to 7 in 1 segment, 210 B",
        f"  {0:020d}  8 records, 1 batch, 210 B",
    ]
    assert tree(node) == before


def test_inspect_shows_a_data_directory_as_json(node: Path, capsys: Capture) -> None:
    code, shown = json_of(capsys, "inspect", str(node))
    assert code == 0
    assert shown["node"]["node_id"] == "n1"
    assert shown["node"]["voters"] == {"n1": shown["node"]["directory_id"]}
    assert (shown["checkpoint"]["raft_index"], shown["journal"]["last_index"]) == (2, 2)
    (topic,) = shown["topics"]
    assert (topic["name"], topic["topic_id"], topic["format"]) == ("default", 1, "distlog")
    assert (topic["start_offset"], topic["next_offset"], topic["synced_offset"]) == (0, 8, 8)
    (segment,) = topic["segments"]
    assert (segment["base_offset"], segment["batch_count"], segment["store_size"]) == (0, 1, 210)
    assert (shown["faults"], shown["notes"]) == ([], [])


def test_inspect_shows_one_log_and_a_seed(log_path: Path, capsys: Capture) -> None:
    before = tree(log_path)
    assert main(["inspect", str(log_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a log: offsets 0 to 19 in 2 segments, 330 B",
        f"  {0:020d}  16 records, 16 batches, 262 B",
        f"  {16:020d}  4 records, 4 batches, 68 B",
    ]
    assert tree(log_path) == before
    code, shown = json_of(capsys, "inspect", str(SEED))
    assert (code, shown["node"], shown["topics"][0]["format"]) == (0, None, "seed")
    assert shown["topics"][0]["next_offset"] == 8


def test_inspect_shows_what_a_killed_node_wrote_after_its_checkpoint(
    node: Path, capsys: Capture
) -> None:
    # Applied and never checkpointed: the file is reserved space beyond.
    log = Log.open(RealDisk(), str(topic_path(node)), LIMITS)
    log.append(Block.from_records([b"later"]), timestamp_ms=1 << 50, raft_index=3, term=1)
    code, shown = json_of(capsys, "inspect", str(node))
    topic = shown["topics"][0]
    assert (code, topic["synced_offset"], topic["next_offset"]) == (0, 8, 9)
    assert (shown["faults"], shown["notes"]) == ([], [])


# --- verify ---------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong_and_changes_nothing(
    node: Path, log_path: Path, capsys: Capture
) -> None:
    for path, records in ((node, 8), (log_path, 20), (SEED, 8)):
        before = tree(path)
        assert main(["verify", str(path)]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == f"nothing is wrong with {records} records"
        assert ": whole" in shown.out
        assert shown.err == "", "there is no terminal"
        assert tree(path) == before


@pytest.mark.parametrize("suffix", ["log", "idx", "batch"])
def test_verify_names_file_byte_offset_and_remedy(
    log_path: Path, capsys: Capture, suffix: str
) -> None:
    row = {"log": 16, "idx": 16, "batch": 64}[suffix]
    path = log_path / f"{0:020d}.{suffix}"
    flip(path, 3 * row + 9)
    assert main(["verify", str(log_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": damaged")
    assert lines[1].startswith(f"fault: {path} at byte {3 * row}, offset 3: ")
    assert ("rebuilds it" in lines[2]) == (suffix == "idx")
    assert lines[3] == "1 fault"
    code, shown = json_of(capsys, "verify", str(log_path))
    (fault,) = shown["directories"][0]["faults"]
    assert (code, fault["path"], fault["position"], fault["offset"]) == (1, str(path), 3 * row, 3)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda group: flip(group / "checkpoint", 60), "checksum is wrong"),
        (lambda group: flip(group / "checkpoint", 3), "no checkpoint"),
        (lambda group: flip(next((group / "journal").iterdir()), 60), "operation 2, which was"),
        (lambda group: shutil.rmtree(group / "journal"), "directory is missing"),
        (lambda group: next((group / "journal").iterdir()).unlink(), "files are missing"),
        (lambda group: shutil.rmtree(group / "topics" / f"{1:020d}"), "directory is missing"),
        (lambda group: (group / "topics" / f"{1:020d}" / f"{0:020d}.log").unlink(), "missing"),
    ],
)
def test_verify_checks_checkpoint_journal_and_topics(
    node: Path, capsys: Capture, damage: Callable[[Path], object], problem: str
) -> None:
    damage(node / "groups" / "0")
    before = tree(node)
    code, shown = json_of(capsys, "verify", str(node))
    faults = shown["directories"][0]["faults"]
    assert code == 1
    assert any(problem in fault["problem"] for fault in faults), faults
    assert all(fault["remedy"] for fault in faults)
    assert tree(node) == before


def test_verify_notices_a_checkpoint_of_another_node(node: Path, capsys: Capture) -> None:
    identity = json.loads((node / "node.json").read_text())
    identity["voters"]["n2"] = "00" * 16
    (node / "node.json").write_text(json.dumps(identity))
    code, shown = json_of(capsys, "verify", str(node))
    assert code == 1
    assert "voters" in shown["directories"][0]["faults"][0]["problem"]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_running_nodes_directory_is_refused(node: Path, capsys: Capture, command: str) -> None:
    running = DataDirectory.open(RealDisk(), str(node), "n1", Random(1))
    for path in (node, topic_path(node)):
        assert main([command, str(path)]) == 1
        assert "in use by another process" in capsys.readouterr().err
    running.close()
    assert main([command, str(topic_path(node))]) == 0


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_holds_no_log_is_refused(tmp_path: Path, capsys: Capture, command: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, problem in (
        ("none", "there is no such directory"),
        ("file", "it is a file"),
        ("empty", "there is no log in it"),
    ):
        assert main([command, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert problem in error
        assert error.count("\n") == 1


def test_verify_takes_one_directory_or_two_to_compare(node: Path, capsys: Capture) -> None:
    assert main(["verify"]) == 2
    assert "--compare" in capsys.readouterr().err
    assert main(["verify", str(node), "--compare", str(node), str(node)]) == 2


# --- verify --compare -----------------------------------------------------------------------------


def test_compare_says_that_copies_are_equal(node: Path, tmp_path: Path, capsys: Capture) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(node, twin)
    assert main(["verify", "--compare", str(node), str(twin)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note: topic default: compared offsets 0 to 7" in lines
    assert lines[-1] == "nothing is wrong with 16 records, and the two are equal"


def test_compare_finds_a_record_that_differs_though_both_copies_are_whole(
    tmp_path: Path, capsys: Capture
) -> None:
    for name, record in (("a", b"this"), ("b", b"that")):
        log = Log.create(RealDisk(), f"{tmp_path}/{name}", LIMITS)
        for value in (b"same", record):
            block = Block.from_records([value])
            log.append(block, timestamp_ms=1, raft_index=1, term=1)
        log.close()
    code, shown = json_of(capsys, "verify", "--compare", f"{tmp_path}/a", f"{tmp_path}/b")
    assert code == 1
    assert [directory["faults"] for directory in shown["directories"]] == [[], []]
    (difference,) = shown["differences"]
    # The row's checksum of the frames is what differs first.
    assert difference["path"] == f"{tmp_path}/a/{0:020d}.batch"
    assert (difference["position"], difference["offset"]) == (64 + 56, 1)
    assert main(["verify", "--compare", f"{tmp_path}/a", f"{tmp_path}/b"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 difference"


def test_compare_does_not_mix_kinds(node: Path, log_path: Path, capsys: Capture) -> None:
    assert main(["verify", "--compare", str(node), str(log_path)]) == 1
    assert "compare like with like" in capsys.readouterr().err


# --- import ---------------------------------------------------------------------------------------


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
            look = look_at(survivor, "/n1", deep=True)
        except DataDirectoryUnusable:
            outcomes.add("refused")
            continue
        assert look.all_faults() == []
        assert [topic.log.next_offset for topic in look.topics] == [8]
        outcomes.add("whole")
    assert outcomes == {"refused", "whole"}
    assert len(survivors) > 100
