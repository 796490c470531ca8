"""What an older version wrote is opened, checked, shown and served by this one, byte for byte."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from distlog import __version__
from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.cli.main import main
from distlog.cli.producer_rows import producer_of
from distlog.cli.stopped_node import Look, look_at
from distlog.cli.stored_records import record_of
from distlog.consensus.recovery import recover
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from tests.cli.directories import tree
from tests.processes.process_cluster import NodeProcess, random_host, until
from tests.releases.write_release import RELEASES, write

VERSIONS = sorted(path.stem for path in RELEASES.glob("*.json"))


@pytest.fixture(params=VERSIONS)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a release's directory: what opens it may change it."""
    path = tmp_path / request.param
    shutil.copytree(RELEASES / request.param, path)
    shutil.copy(RELEASES / f"{request.param}.json", tmp_path)
    return path


def holds(release: Path) -> dict[str, Any]:
    """Return what was put in."""
    found: dict[str, Any] = json.loads(release.with_name(release.name + ".json").read_text())
    return found


def test_there_is_a_directory_of_this_version_that_this_code_writes(tmp_path: Path) -> None:
    """Until the version is released, write_release.py writes it anew; afterwards it never changes."""
    assert __version__ in VERSIONS, "python -m tests.releases.write_release"
    path = tmp_path / __version__
    assert write(path) == holds(RELEASES / __version__)
    written, kept = tree(path), tree(RELEASES / __version__)
    assert sorted(written) == sorted(kept)
    for name in kept:
        assert written[name] == kept[name], name


def test_a_release_is_small() -> None:
    for version in VERSIONS:
        assert sum(map(len, tree(RELEASES / version).values())) < 300_000


def test_a_release_is_whole_and_looking_at_it_changes_nothing(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(release)
    assert main(["verify", str(release)]) == 0
    for flag in ([], ["--checkpoint"], ["--journal"], ["--producers"], ["--batches"], ["--json"]):
        assert main(["inspect", str(release), *flag]) == 0
    capsys.readouterr()
    assert tree(release) == before


def test_a_release_holds_what_was_put_in(release: Path) -> None:
    look = look_at(RealDisk(), str(release), deep=True)
    assert (look.all_faults(), look.all_notes()) == ([], [])
    expected = holds(release)
    assert {topic.name: topic.topic_id for topic in look.topics} == {
        name: topic["topic_id"] for name, topic in expected["topics"].items()
    }
    assert look.journal is not None
    assert (look.journal.last_index, look.journal.term) == (
        expected["last_index"],
        expected["term"],
    )
    for name, topic in expected["topics"].items():
        assert shown_records(look, name, topic["start_offset"]) == topic["records"]


def shown_records(look: Look, name: str, start_offset: int) -> list[dict[str, Any]]:
    (log,) = (topic.log for topic in look.topics if topic.name == name)
    shown = []
    for offset in range(start_offset, log.next_offset):
        record = record_of(RealDisk(), log, offset)
        assert record.is_whole
        fields: dict[str, Any] = {"offset": offset, "timestamp_ms": record.batch.timestamp_ms}
        fields["value"] = record.value.hex()
        if record.key is not None:
            fields["key"] = record.key.hex()
        if record.batch.attributes:
            fields["headers"] = {each: content.hex() for each, content in record.headers}
        shown.append(fields)
    return shown


def test_a_release_opens_at_its_checkpoint(release: Path) -> None:
    disk = RealDisk()
    directory = DataDirectory.open_offline(disk, str(release))
    recovered = recover(
        disk,
        journal_path=directory.journal_path,
        checkpoint_path=directory.checkpoint_path,
        topics_path=directory.topics_path,
    )
    image = recovered.image
    assert image is not None
    producers = {str(producer_of(row).producer_id) for row in image.producer_rows}
    assert producers == set(holds(release)["producers"])
    assert recovered.journal.last_index == holds(release)["last_index"]
    marks = {topic.topic_id: topic.mark for topic in image.topics}
    logs = {topic.topic_id: topic.log.mark() for topic in recovered.state_machine.topics()}
    assert logs == marks
    recovered.state_machine.close()
    recovered.journal.close()
    directory.close()


# --- Served by a node -----------------------------------------------------------------------------


def test_a_node_that_is_started_on_a_release_serves_it(release: Path, tmp_path: Path) -> None:
    node = NodeProcess("n1", release, random_host(), tmp_path / "n1.out")
    node.arguments = ["--data-dir", str(release), "--node-id", "n1"]
    node.arguments += ["--listen", node.address, "--peer-listen", node.peer_address]
    try:
        asyncio.run(read_all(node, holds(release)))
    finally:
        node.close()


async def read_all(node: NodeProcess, expected: dict[str, Any]) -> None:
    node.start()

    async def is_ready() -> bool:
        return node.is_running and "is ready for clients" in node.says()

    await until(is_ready, "n1 leads")
    async with grpc.aio.insecure_channel(node.address) as channel:
        stub = log_pb2_grpc.LogStub(channel)
        for name, topic in expected["topics"].items():
            found = []
            for record in topic["records"]:
                request = log_pb2.ConsumeRequest(offset=record["offset"], topic=name)
                found.append(served_fields(await stub.Consume(request), record))
            assert found == topic["records"]
            if topic["start_offset"]:
                before = log_pb2.ConsumeRequest(offset=topic["start_offset"] - 1, topic=name)
                with pytest.raises(grpc.aio.AioRpcError, match="is not in"):
                    await stub.Consume(before)
        for producer_id, producer in expected["producers"].items():
            for name, sequence in producer["next_sequence"].items():
                answer = await stub.Produce(
                    log_pb2.ProduceRequest(
                        record=b"sent again",
                        topic=name,
                        producer_id=int(producer_id),
                        producer_epoch=producer["epoch"],
                        sequence=sequence - 1,
                    )
                )
                assert answer.duplicate, "the producer is remembered"
    assert await node.terminate() == 0


def served_fields(answer: log_pb2.ConsumeResponse, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as the release's page has records."""
    fields: dict[str, Any] = {"offset": answer.offset, "timestamp_ms": answer.timestamp_ms}
    fields["value"] = answer.record.hex()
    if answer.HasField("key"):
        fields["key"] = answer.key.hex()
    if answer.headers or "headers" in wanted:
        fields["headers"] = {header.name: header.value.hex() for header in answer.headers}
    return fields
