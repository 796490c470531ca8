"""`distlog topic`: what it asks for, what it prints, and what it does not do without being told twice."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from distlog.cli import topic
from distlog.cli.main import main
from distlog.errors import ConfigurationInvalid, OffsetOutOfRange, TopicExists, TopicNotFound
from tests.cli.commands import distlog, parsed
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run


async def said(cluster: FakeCluster, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run an action; return what it printed."""
    server = ("--server", ",".join(cluster.addresses))
    await topic.act(parsed(topic, None, *arguments, *server))
    return capsys.readouterr().out


async def said_json(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Any:
    return json.loads(await said(cluster, capsys, *arguments, "--json"))


def test_a_topic_lives_from_its_creation_to_its_deletion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            options = ("--segment-size", "1MiB", "--retention-age", "7d")
            created = await said(cluster, capsys, "create", "orders", *options)
            assert created == "created orders; it keeps 7d\n"
            request = cluster.topics["orders"].created
            assert (request.segment_size_max, request.segment_record_count_max) == (1 << 20, 0)
            assert (request.retention_size, request.retention_age_ms) == (0, 604_800_000)
            configured = await said(
                cluster, capsys, "configure", "orders", "--retention-size", "1GiB"
            )
            assert configured == "configured orders; it keeps 1.0 GiB, 7d\n"
            configured = await said(
                cluster, capsys, "configure", "orders", "--retention-age", "forever"
            )
            assert configured == "configured orders; it keeps 1.0 GiB\n"
            cluster.fill([b"a", b"b", b"c"], "orders")
            trimmed = await said(cluster, capsys, "trim", "orders", "--before", "2")
            assert trimmed == "orders begins at offset 2 now\n"
            deleted = await said(cluster, capsys, "delete", "orders", "--yes")
            assert deleted == "deleted orders\n"
            assert list(cluster.topics) == ["default"]

    run(scenario())


def test_the_list_and_the_description_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"x" * 1016, b"y" * 1016])
            cluster.topics["default"].start_offset = 1
            await said(cluster, capsys, "create", "few", "--retention-size", "3KiB")
            listed = await said(cluster, capsys, "list")
            assert listed.splitlines() == [
                "TOPIC    START OFFSET  HIGH WATERMARK  SIZE     LAST RECORD               KEEPS",
                "default  1             2               2.0 KiB  2023-11-14T22:13:20.000Z  everything",
                "few      0             0               0 B      -                         3.0 KiB",
            ]
            described = await said(cluster, capsys, "describe")
            assert described.splitlines() == [
                "topic:          default",
                "id:             1",
                "start offset:   1",
                "high watermark: 2",
                "size:           2.0 KiB",
                "last record:    2023-11-14T22:13:20.000Z",
                "keeps:          everything",
                "segments:       64.0 MiB or 1048576 records",
            ]

    run(scenario())


def test_json_has_plain_numbers_and_null_for_everything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            created = await said_json(
                cluster, capsys, "create", "orders", "--retention-size", "64KiB"
            )
            assert created == {
                "name": "orders",
                "topic_id": 2,
                "start_offset": 0,
                "high_watermark": 0,
                "size": 0,
                "last_timestamp_ms": None,
                "segment_size_max": 64 << 20,
                "segment_record_count_max": 1 << 20,
                "retention_size": 64 << 10,
                "retention_age_ms": None,
            }
            assert await said_json(cluster, capsys, "describe", "orders") == created
            listed = await said_json(cluster, capsys, "list")
            assert [each["name"] for each in listed["topics"]] == ["default", "orders"]
            assert listed["topics"][1] == created
            cluster.fill([b"a"], "orders")
            trimmed = await said_json(cluster, capsys, "trim", "orders", "--before", "end")
            assert trimmed == {"name": "orders", "start_offset": 1}
            deleted = await said_json(cluster, capsys, "delete", "orders", "--yes")
            assert deleted == {"name": "orders", "deleted": True}

    run(scenario())


@pytest.mark.parametrize(
    ("before", "start_offset"),
    [("0", 0), ("2", 2), ("end", 3), ("2023-11-14T22:13:25Z", 1), ("2023-11-14T23:00:00Z", 3)],
)
def test_a_trim_goes_to_an_offset_to_the_end_or_to_a_time(
    before: str, start_offset: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            cluster.fill([b"a", b"b", b"c"])
            cluster.interval_ms = 10_000
            await said(cluster, capsys, "trim", "default", "--before", before)
            assert cluster.topics["default"].start_offset == start_offset

    run(scenario())


def test_refusals_are_the_errors_that_the_cluster_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            with pytest.raises(TopicExists):
                await said(cluster, capsys, "create", "default")
            with pytest.raises(TopicNotFound):
                await said(cluster, capsys, "describe", "orders")
            with pytest.raises(TopicNotFound):
                await said(cluster, capsys, "delete", "orders", "--yes")
            with pytest.raises(OffsetOutOfRange):
                await said(cluster, capsys, "trim", "default", "--before", "1")

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("create", "no good"), "NAME: must be 1 to 249 of"),
        (("create", ".."), "NAME: must be 1 to 249 of"),
        (("create", "a" * 250), "NAME: must be 1 to 249 of"),
        (("create", "a", "--segment-size", "1KiB"), "--segment-size: must be from 4KiB to 1GiB"),
        (("create", "a", "--segment-records", "15"), "--segment-records: must be a number from 16"),
        (("create", "a", "--retention-size", "0"), "--retention-size: must be from 1"),
        (("create", "a", "--retention-age", "7"), "--retention-age: must be a number with d, h"),
        (("configure", "a"), "nothing is to be changed"),
        (("trim", "a"), "required: --before"),
        (("trim", "a", "--before", "x"), "--before: must be an offset, end or a time"),
        (("delete", "a"), "--yes: a deletion cannot be undone"),
        (("remove", "a"), "invalid choice: 'remove'"),
        ((), "required: ACTION"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said_before_anybody_is_called(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topic", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("distlog: error: ")
    assert problem in error
    assert error.count("\n") == 1


class Terminal(io.StringIO):
    """Where a person types, and reads."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "is_meant"),
    [("orders\n", True), ("order\n", False), ("y\n", False), ("", False)],
)
def test_a_person_types_the_name_of_what_is_to_be_deleted(
    typed: str, is_meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", shown)
    assert topic.is_meant("orders") is is_meant
    assert shown.getvalue() == (
        "This deletes 'orders' with all its records. Type its name to go on:\n"
    )


def test_where_nobody_can_be_asked_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("orders\n"))
    with pytest.raises(ConfigurationInvalid, match="say --yes"):
        topic.is_meant("orders")


def test_a_deletion_that_was_not_meant_fails_and_calls_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    monkeypatch.setattr("sys.stderr", shown)
    assert main(["topic", "delete", "orders", "--server", "127.0.0.1:1"]) == 1
    assert "that is not the name: 'orders' was not deleted" in shown.getvalue()


# --- As a process ---


def test_exit_codes_and_errors_of_a_process() -> None:
    async def scenario() -> None:
        async with FakeCluster() as cluster:
            server = ("--server", cluster.addresses[1])
            created = await distlog("topic", "create", "orders", *server)
            assert (created.code, created.error) == (0, "")
            assert created.output == b"created orders; it keeps everything\n"
            again = await distlog("topic", "create", "orders", *server)
            assert (again.code, again.output) == (1, b"")
            assert again.error.startswith("distlog: error: ")
            assert "orders" in again.error
            asked = await distlog("topic", "delete", "orders", *server)
            assert (asked.code, asked.output) == (2, b"")
            assert "orders" in cluster.topics

    run(scenario())
