"""verify: the file `synced` of a topic, beside a checkpoint that says how far the topic goes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.cli.main import main
from distlog.consensus.commands import Append, Command, CreateTopic
from distlog.storage.disk import RealDisk
from distlog.storage.segment_files import SegmentLimits
from tests.cli.directories import Capture, json_of
from tests.releases.node_files import NodeFiles

NAMES = ("empty", "few", "many")


@pytest.fixture
def marks(tmp_path: Path) -> dict[str, Path]:
    """The files of three topics of one node, by the topic's name; none has records of the same size."""
    node = NodeFiles(RealDisk(), str(tmp_path / "n1"), random=Random(1))
    topics: list[Command] = [CreateTopic(name, SegmentLimits()) for name in NAMES]
    node.commit(*topics, timestamp_ms=1)
    topic_ids = {topic.name: topic.topic_id for topic in node.machine.topics()}
    for name, count in (("few", 3), ("many", 9)):
        block = Block.from_records([name.encode()] * count)
        node.commit(Append(topic_ids[name], block), timestamp_ms=2)
    node.checkpoint()
    node.close()
    topics_path = Path(node.directory.topics_path)
    return {name: topics_path / f"{topic_ids[name]:020d}" / "synced" for name in NAMES}


def data_directory(marks: dict[str, Path]) -> str:
    return str(marks["few"].parents[4])


@pytest.mark.parametrize(("name", "other"), [(a, b) for a in NAMES for b in NAMES if a != b])
def test_the_mark_of_another_topic_is_a_fault(
    marks: dict[str, Path], capsys: Capture, name: str, other: str
) -> None:
    assert main(["verify", data_directory(marks)]) == 0
    capsys.readouterr()
    marks[name].write_bytes(marks[other].read_bytes())
    code, shown = json_of(capsys, "verify", data_directory(marks))
    (fault,) = shown["directories"][0]["faults"]
    assert (code, fault["invariant"], fault["path"]) == (1, "mark-fits", str(marks[name]))
    assert fault["remedy"].startswith("start the node: ")


@pytest.mark.parametrize("content", [b"", bytes(128)])
def test_a_mark_that_says_nothing_is_a_note(
    marks: dict[str, Path], capsys: Capture, content: bytes
) -> None:
    """A crash can leave an empty one, and a start needs none beside a checkpoint."""
    marks["many"].write_bytes(content)
    code, shown = json_of(capsys, "verify", data_directory(marks))
    (directory,) = shown["directories"]
    assert (code, directory["faults"]) == (0, [])
    (note,) = directory["notes"]
    assert note.startswith(f"{marks['many']} says nothing: ")
