"""/livez and /readyz in every state of a node; docs/monitoring.md has the table, and each row of it a test here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus.views import STATES, CopyStatus
from distlog.errors import DiskFailed, NoLeader
from distlog.storage.segment_files import SegmentLimits
from tests.consensus.nodes import NodeCluster
from tests.monitoring.nodes import Monitored, monitored

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"
ALIVE = (200, "alive")
MIB = 1 << 20


def leader_of(nodes: dict[str, Monitored]) -> Monitored:
    (leader,) = [node for node in nodes.values() if node.place.log.is_leader]
    return leader


def others(nodes: dict[str, Monitored], one: Monitored) -> list[Monitored]:
    return [node for node in nodes.values() if node is not one]


async def leading(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    assert leader_of(nodes).readyz() == (200, "ready: leading")
    assert leader_of(nodes).livez() == ALIVE


async def following(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    for node in others(nodes, leader_of(nodes)):
        await cluster.loop.until(lambda node=node: node.readyz()[0] == 200)  # type: ignore[misc]
        assert node.readyz() == (200, "ready: following")
        assert node.livez() == ALIVE


async def full_disk(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    (node, *_) = others(nodes, leader_of(nodes))
    await cluster.loop.until(lambda: node.readyz()[0] == 200)
    node.place.disk.capacity = node.place.disk.used
    node.place.node.reserve.give_up(1)
    assert node.readyz() == (200, "ready: following: it takes no writes: its disk is full")
    assert node.livez() == ALIVE
    assert node.value("distlog_storage_full") == 1
    node.place.disk.capacity = None
    await cluster.loop.until(lambda: node.readyz() == (200, "ready: following"))


async def forming(cluster: NodeCluster, _: dict[str, Monitored]) -> None:
    first, *missing = cluster.places
    await cluster.start_one(cluster[first])
    node = Monitored(cluster, first)
    waiting = f"not ready: forming: the cluster is not formed yet: waiting for {', '.join(missing)}"
    assert node.readyz() == (503, waiting)
    assert node.livez() == ALIVE
    cluster[first].node.abandon()


async def leaderless(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    leader = leader_of(nodes)
    for survivor in (leader, others(nodes, leader)[0]):
        gone = others(nodes, survivor)
        cluster.network.partition([survivor.name], [each.name for each in gone])
        await cluster.loop.until(lambda survivor=survivor: survivor.readyz()[0] == 503)  # type: ignore[misc]
        # A leader that hears nobody goes on for two election time-outs, and a connection that is silent for as long.
        _, words = survivor.readyz()
        assert words.startswith("not ready: leaderless: ")
        assert survivor.livez() == ALIVE
        await cluster.loop.until(lambda survivor=survivor: "no majority" in survivor.readyz()[1])  # type: ignore[misc]
        names = ", ".join(sorted(each.name for each in gone))
        assert f"1 of 3 voters are reached, 2 are needed; start {names}" in survivor.readyz()[1]
        cluster.network.heal()
        await cluster.loop.until(lambda: all(node.readyz()[0] == 200 for node in nodes.values()))


async def recovering(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    (away, *_) = others(nodes, leader_of(nodes))
    await cluster.loop.until(lambda: away.readyz()[0] == 200)
    await away.place.node.stop()
    for _ in range(40):
        await leader_of(nodes).place.log.propose_append("", Block.from_records([b"x" * MIB]))
    await cluster.start_one(away.place)
    again = Monitored(cluster, away.name)
    assert again.readyz()[0] == 503
    await cluster.loop.until(lambda: "recovering" in again.readyz()[1])
    _, words = again.readyz()
    found = re.fullmatch(r"not ready: recovering: (\d+) of (\d+) entries are applied", words)
    assert found is not None, words
    assert int(found[1]) < int(found[2])
    assert int(found[2]) == again.value("distlog_recovery_target_index")
    assert again.livez() == ALIVE
    await cluster.loop.until(lambda: again.readyz() == (200, "ready: following"))
    assert again.place.group.raft.last_applied >= int(found[2])


async def copying(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    (node, *_) = others(nodes, leader_of(nodes))
    copy = CopyStatus("n9", 70, 8 * MIB, 2 * MIB, MIB, "")
    node.place.log.files_status = lambda: {"copy": copy}
    assert node.readyz() == (503, "not ready: copying: 2.0 of 8.0 MiB are copied from n9")
    # The moment between the two states.
    node.place.log.detach("this node goes over to a copied checkpoint")
    assert node.readyz() == (503, "not ready: copying: this node goes over to a copied checkpoint")
    assert node.livez() == ALIVE


async def starting(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    (node, *_) = others(nodes, leader_of(nodes))
    limits = SegmentLimits(store_size_max=4096, row_count_max=16)
    for name in ("one", "two"):
        await leader_of(nodes).place.log.create_topic(name, limits)
    await cluster.loop.until(lambda: node.value("distlog_topics") == 3)
    await cluster.loop.until(lambda: node.readyz()[0] == 200)
    await node.place.node.stop()
    # Its disk takes its time.
    node.place.disk_delay_s = 3.0
    begun = asyncio.ensure_future(cluster.start_one(node.place))
    await cluster.loop.pass_time(1.0)
    assert not begun.done()
    again = Monitored(cluster, node.name)
    assert again.readyz() == (503, "not ready: starting: its files are opened")
    assert again.livez() == ALIVE
    with pytest.raises(NoLeader, match="its files are opened"):
        await again.place.log.read("", 0, size_max=1)
    shown, tell = [], again.place.node._tell

    def noted(words: str) -> None:
        tell(words)
        shown.append(again.readyz()[1])

    again.place.node._tell = noted  # type: ignore[method-assign]
    await begun
    progress = [f"not ready: starting: {number} of 3 topics are opened" for number in range(3)]
    assert [each for each in shown if "topics" in each] == progress
    assert "starting" not in again.readyz()[1]
    again.place.disk_delay_s = 0.001
    await cluster.loop.until(lambda: again.readyz()[0] == 200)


async def removed(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    (node, *_) = others(nodes, leader_of(nodes))
    # As a node sees it that was removed and has received the entry which says so.
    group = node.place.group
    before = group.configuration
    identity = (node.name, before.directory_of(node.name))
    voters = {name: each for name, each in before.voters.items() if name != node.name}
    without = replace(before, voters=voters, removed=(*before.removed, identity))
    group.raft.configurations.begin(without)
    assert node.readyz() == (
        503,
        "not ready: removed: this node is no member of its cluster any more",
    )
    assert node.value("distlog_raft_is_voter") == 0
    assert node.livez() == ALIVE


async def stopping(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    node = leader_of(nodes)
    node.place.log.refuse_new()
    assert node.readyz() == (503, "not ready: stopping: this node stops")
    assert node.livez() == ALIVE


async def failed(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
    node = leader_of(nodes)
    node.place.node._fail(DiskFailed(path="p", operation="sync", problem="an I/O error"))
    for status, words in (node.livez(), node.readyz()):
        assert status == 503
        assert "this node stops, since" in words
        assert "an I/O error" in words
    node.place.node.failed.exception()


ROWS: dict[str, Callable[[NodeCluster, dict[str, Monitored]], Awaitable[None]]] = {
    "leading": leading,
    "following": following,
    "leading or following, with a full disk": full_disk,
    "starting": starting,
    "forming": forming,
    "recovering": recovering,
    "copying": copying,
    "leaderless": leaderless,
    "removed": removed,
    "stopping": stopping,
    "failed": failed,
}


def table() -> dict[str, tuple[str, ...]]:
    """Return what the page says is answered in each state: by HTTP two codes, by gRPC yes or no for three services."""
    lines = PAGE.read_text("utf-8").partition("| state |")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[2:]]
    return {row[0]: tuple(row[1:6]) for row in rows}


@pytest.mark.parametrize("row", ROWS)
def test_health_is_true_in_every_state(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Monitored] = []
    made_as_ever = Monitored.__init__

    def noted(self: Monitored, *arguments: Any) -> None:
        made_as_ever(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Monitored, "__init__", noted)
    monitored(ROWS[row], formed=row != "forming")
    told: set[tuple[str, ...]] = set()
    for node in made:
        for state in row.partition(", with")[0].split(" or "):
            told |= node.seen.get(state, set())
    if row == "failed":
        # It has the state that it had, and its process ends at once.
        told = set().union(*(each for node in made for each in node.seen.values()))
        assert {each[:2] for each in told} == {table()[row][:2]}
    elif "full disk" in row:
        # Whoever leads does so for a moment more.
        assert {each[:4] for each in told} == {table()[row][:4]}
    else:
        assert told == {table()[row]}


def test_the_page_has_a_row_for_each_state_and_each_row_a_test() -> None:
    assert list(table()) == list(ROWS)
    assert set(STATES) <= set(table())


class NoSpares:
    """Files that are kept for when no other can be opened, all of them in use."""

    is_used_up = True
    held, count = 0, 4

    def refresh(self) -> bool:
        return False


def test_a_node_that_can_open_no_file_does_not_say_that_its_disk_is_full() -> None:
    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        (node, *_) = others(nodes, leader_of(nodes))
        await cluster.loop.until(lambda: node.readyz()[0] == 200)
        reserve: Any = node.place.node.reserve
        reserve.spares = NoSpares()
        words = "it takes no writes: no file can be opened, raise its limit"
        assert node.readyz() == (200, f"ready: following: {words}")
        assert node.status()["problem"] == words
        assert node.value("distlog_storage_full") == 1
        reserve.spares = None
        assert node.readyz() == (200, "ready: following")

    monitored(body)


def test_a_new_leader_that_has_much_to_apply_says_how_far_it_is() -> None:
    async def body(cluster: NodeCluster, nodes: dict[str, Monitored]) -> None:
        leader = leader_of(nodes)
        assert leader.readyz() == (200, "ready: leading")
        group = leader.place.group
        library = group.raft._library

        class Behind:
            """The library of a leader that has committed what it has not applied."""

            commit_index = library.commit_index
            last_applied = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(library, name)

        group.raft._library = Behind()
        words = f"not ready: recovering: 0 of {library.commit_index} entries are applied"
        assert leader.readyz() == (503, words)
        Behind.last_applied = Behind.commit_index = 0
        assert "leaderless: it leads, and is not ready yet" in leader.readyz()[1]
        group.raft._library = library

    monitored(body)
