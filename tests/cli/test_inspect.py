"""inspect: what it shows, and that it leaves everything as it is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.cli.main import main
from distlog.consensus.commands import (
    Append,
    ChangePolicy,
    CreateTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.results import ProducerOpened
from distlog.security.policy import Membership, Permission
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits
from tests.cli.directories import (
    LIMITS,
    SEED,
    Capture,
    flip,
    json_of,
    topic_path,
    tree,
)
from tests.releases.node_files import NodeFiles


def test_inspect_shows_a_data_directory(node: Path, capsys: Capture) -> None:
    before = tree(node)
    assert main(["inspect", str(node)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("node n1, directory ")
    assert lines[1].endswith(", voters n1")
    assert lines[2].startswith("checkpoint: entry 2 of term 1, 2")
    assert lines[3].startswith("journal: entries 1 to 2, ")
    assert lines[5:] == [
        "topic default: offsets 0 to 7 in 1 segment, 210 B",
        f"  {0:020d}  8 records, 1 batch, 210 B, entry 1, term 0, {lines[2].split()[-1]}",
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
        f"  {0:020d}  16 records, 16 batches, 262 B, entries 0 to 15, term 1, "
        "1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.015Z",
        f"  {16:020d}  4 records, 4 batches, 68 B, entries 16 to 19, term 1, "
        "1970-01-01T00:00:00.016Z to 1970-01-01T00:00:00.019Z",
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


# --- What a flag asks for -------------------------------------------------------------------------


def structured(value: bytes) -> bytes:
    header = log_pb2.Header(name="trace", value=b"\xff\x00")
    return log_pb2.Record(key=b"k\n", headers=[header], value=value).SerializeToString()


@pytest.fixture
def structured_log(tmp_path: Path) -> Path:
    """A log with a batch of two plain records and one of two with a key and a header."""
    log = Log.create(RealDisk(), f"{tmp_path}/structured", LIMITS)
    log.append(Block.from_records([b"a", b"\x00b"]), timestamp_ms=0, raft_index=2, term=1)
    block = Block.from_records([structured(b"one"), structured(b"")], ATTRIBUTE_STRUCTURED)
    log.append(block, timestamp_ms=1_700_000_000_123, raft_index=5, term=3)
    log.close()
    return tmp_path / "structured"


def test_inspect_shows_batches(structured_log: Path, capsys: Capture) -> None:
    assert main(["inspect", str(structured_log), "--batches"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"offsets 0 to 1: 2 records, 19 B at byte 0 of {0:020d}.log, entry 2 of term 1, 1970-01-01T00:00:00.000Z",
        f"offsets 2 to 3: 2 records, 55 B at byte 19 of {0:020d}.log, entry 5 of term 3, "
        "2023-11-14T22:13:20.123Z, with keys or headers",
    ]


@pytest.mark.parametrize(
    ("text", "found"), [("0-1", [0]), ("1-2", [0, 2]), ("3", [2]), ("4-9", []), ("0-99", [0, 2])]
)
def test_inspect_shows_the_batches_of_some_offsets(
    structured_log: Path, capsys: Capture, text: str, found: list[int]
) -> None:
    _, shown = json_of(capsys, "inspect", str(structured_log), "--batches", "--offsets", text)
    assert [batch["base_offset"] for batch in shown["batches"]] == found


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batches", "--offsets", "x"],
        ["--batches", "--offsets", "5-1"],
        ["--batches", "--offsets", "5-1", "--json"],
        ["--offsets", "1"],
        ["--raw"],
    ],
)
def test_a_mistake_in_the_flags_is_said(
    structured_log: Path, capsys: Capture, arguments: list[str]
) -> None:
    assert main(["inspect", str(structured_log), *arguments]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_inspect_shows_a_record_with_key_and_headers(structured_log: Path, capsys: Capture) -> None:
    assert main(["inspect", str(structured_log), "--record", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a log, offset 2",
        f"  where: {structured_log}/{0:020d}.log, bytes 19 to 48",
        "  batch: offsets 2 to 3, entry 5 of term 3",
        "  time: 2023-11-14T22:13:20.123Z",
        "  checksum of the batch: right",
        r"  key: 'k\n'",
        r"  header trace: '\xff\x00'",
        "  value, 3 bytes: 'one'",
    ]
    _, shown = json_of(capsys, "inspect", str(structured_log), "--record", "2")
    record = shown["record"]
    assert (record["key"], record["value"], record["is_whole"]) == ("k\n", "one", True)
    assert record["headers"] == [{"name": "trace", "value_base64": "/wA="}]
    assert (record["byte"], record["batch"]["term"]) == (19, 3)


def test_a_record_can_be_had_as_it_is(
    structured_log: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["inspect", str(structured_log), "--record", "1", "--raw"]) == 0
    assert capfdbinary.readouterr().out == b"\x00b"


def test_a_damaged_record_is_shown_and_called_so(structured_log: Path, capsys: Capture) -> None:
    flip(structured_log / f"{0:020d}.log", 8)
    assert main(["inspect", str(structured_log), "--record", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "WRONG" in lines[4]
    assert lines[-1] == "  value, 1 byte: '!'"


def test_a_record_that_nothing_leads_to_is_an_error_in_words(
    structured_log: Path, capsys: Capture
) -> None:
    assert main(["inspect", str(structured_log), "--record", "4"]) == 1
    assert "offset 4 is not in [0, 4)" in capsys.readouterr().err
    flip(structured_log / f"{0:020d}.batch", 64)
    flip(structured_log / f"{0:020d}.log", 3)
    for offset, problem in ((2, "no row has the batch of offset 2"), (1, "cannot be told apart")):
        assert main(["inspect", str(structured_log), "--record", str(offset)]) == 1
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".idx", ".log", ".batch"])
def test_what_a_segment_without_one_of_its_files_still_has_is_shown(
    node: Path, capsys: Capture, suffix: str
) -> None:
    """The only segment of its topic: the survey has none then."""
    (topic_path(node) / f"{0:020d}{suffix}").unlink()
    assert main(["inspect", str(node), "--batches"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == (0 if suffix == ".batch" else 1)
    assert main(["inspect", str(node), "--record", "1"]) == (0 if suffix == ".idx" else 1)
    shown = capsys.readouterr()
    assert "internal error" not in shown.err
    assert ("This is record 2" in shown.out) == (suffix == ".idx")


def test_inspect_shows_a_record_of_a_seed(capsys: Capture) -> None:
    assert main(["inspect", str(SEED), "--record", "6"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "  value, 27 bytes: 'Testing the distributed log'"
    )
    assert main(["inspect", str(SEED), "--batches"]) == 0
    assert capsys.readouterr().out == "the seed system kept no batches\n"


def a_node_with_everything(tmp_path: Path) -> Path:
    """A node's directory with a second topic, a producer, a checkpoint, and an entry that was taken back."""
    path, now_ms = tmp_path / "everything", 1_700_000_000_000
    node = NodeFiles(RealDisk(), str(path), random=Random(1))
    limits = SegmentLimits(store_size_max=4096, row_count_max=16)
    opened = node.commit(CreateTopic("orders", limits), OpenProducer(0), timestamp_ms=now_ms)[1]
    assert isinstance(opened, ProducerOpened)
    stamp = ProducerStamp(opened.producer_id, opened.epoch, 0)
    node.commit(Append(2, Block.from_records([b"a", b"\x00b"]), stamp), timestamp_ms=now_ms)
    node.checkpoint()
    node.propose(TrimTopic(2, 1), timestamp_ms=now_ms)
    node.take_back()
    node.close()
    return path


def test_inspect_shows_the_journal_operation_by_operation(tmp_path: Path, capsys: Capture) -> None:
    node = a_node_with_everything(tmp_path)
    assert main(["inspect", str(node), "--journal"]) == 0
    lines = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "term 0, vote -",
        "term 1, vote n1",
        "entry 1 of term 0: nothing, a leader began",
        "entry 2 of term 1, 2023-11-14T22:13:20.000Z: create topic (name orders); open producer (producer_id 0)",
        "entry 3 of term 1, 2023-11-14T22:13:20.000Z: append 2 records to topic 2, 19 B, "
        "producer 131073 epoch 0 sequence 0",
        "entry 4 of term 1, 2023-11-14T22:13:20.000Z: trim topic (topic_id 2, start_offset 1)",
        "entries from 4 on go",
    ]
    _, shown = json_of(capsys, "inspect", str(node), "--journal")
    kinds = [operation["kind"] for operation in shown["operations"]]
    assert kinds == ["term_vote"] * 2 + ["entry"] * 4 + ["truncate_from"]
    create, opened = shown["operations"][3]["commands"]
    assert (create["command"], create["name"]) == ("create topic", "orders")
    assert (opened["command"], opened["producer_id"]) == ("open producer", 0)
    assert shown["journal"]["last_index"] == 3


def test_inspect_shows_all_of_the_checkpoint(tmp_path: Path, capsys: Capture) -> None:
    node = a_node_with_everything(tmp_path)
    assert main(["inspect", str(node), "--checkpoint"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "after entry 3 of term 1 (100 bytes)"
    assert lines[3] == "journal durable up to operation 5"
    assert lines[-7:] == [
        "topic orders, id 2",
        "  offsets from 0 to before 2, the last of 2023-11-14T22:13:20.000Z",
        f"  active segment {0:020d}, durable up to byte 19",
        "  segments of 4.0 KiB or 16 records",
        "  keeps everything",
        "1 producer",
        "policy of 0 rules",
    ]
    _, shown = json_of(capsys, "inspect", str(node))
    assert [topic["name"] for topic in shown["checkpoint"]["topics"]] == ["default", "orders"]
    assert shown["checkpoint"]["topics"][1]["mark"]["next_offset"] == 2


def test_inspect_shows_the_policy_of_the_checkpoint(tmp_path: Path, capsys: Capture) -> None:
    path, rules = str(tmp_path / "node"), (Permission("root", "*", "*"), Membership("eve", "ops"))
    node = NodeFiles(RealDisk(), path, random=Random(1))
    node.commit(ChangePolicy(rules, ()), timestamp_ms=1_700_000_000_000)
    node.checkpoint()
    node.close()
    assert main(["inspect", path, "--checkpoint"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["policy of 2 rules", "  p, root, *, *", "  g, eve, ops"]
    _, shown = json_of(capsys, "inspect", path)
    assert shown["checkpoint"]["policy"] == [["p", "root", "*", "*"], ["g", "eve", "ops"]]
    assert main(["inspect", path, "--journal"]) == 0
    assert "change policy (added p, root, *, *; added g, eve, ops)" in capsys.readouterr().out


def test_inspect_shows_the_producers(tmp_path: Path, capsys: Capture) -> None:
    node = a_node_with_everything(tmp_path)
    assert main(["inspect", str(node), "--producers"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "producer 131073, epoch 0, last used 2023-11-14T22:13:20.000Z",
        "  topic orders: next sequence 1; sequences 0 at 0",
    ]
    _, shown = json_of(capsys, "inspect", str(node), "--producers")
    (producer,) = shown["producers"]
    assert producer["windows"] == [{"topic_id": 2, "next_sequence": 1, "offsets": {"0": 0}}]


def test_a_topic_is_chosen_by_its_name(tmp_path: Path, capsys: Capture) -> None:
    node = a_node_with_everything(tmp_path)
    assert main(["inspect", str(node), "--topic", "orders", "--record", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == r"  value, 2 bytes: '\x00b'"
    assert main(["inspect", str(node), "--record", "1"]) == 1
    assert main(["inspect", str(node), "--topic", "none", "--record", "1"]) == 1
    assert "none" in capsys.readouterr().err


def test_a_log_without_a_node_has_no_journal(structured_log: Path, capsys: Capture) -> None:
    assert main(["inspect", str(structured_log), "--journal"]) == 1
    assert "has no journal" in capsys.readouterr().err
    assert main(["inspect", str(structured_log), "--checkpoint"]) == 0
    assert capsys.readouterr().out == "there is no checkpoint\n"
