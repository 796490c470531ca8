"""What docs/operations.md tells an operator to type does what it says, in the state that it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.client.client import Client
from tests.processes.commands import run
from tests.processes.process_cluster import ProcessCluster, free_ports, until
from tests.processes.runbooks import FOLLOWED, Steps, books, filled, follows, node_lines
from tests.processes.test_catch_up import JOURNAL, MIB, check_equal, copies, flip, load
from tests.processes.test_membership import all_vote

LOST = "Replace a node: its disk is lost, or cannot be trusted"
ALONE = "Most voters are lost for ever"
# Sections whose state needs a disk that fails, and the tests that have one.
ELSEWHERE = {
    "The disk is full": "test_full_disks.py",
    "An fsync failed": "test_failing_disks.py",
    "The file system turned read-only": "test_failing_disks.py",
}
RECORD_COUNT = 50


async def write(cluster: ProcessCluster) -> list[tuple[int, bytes]]:
    """Append some records; return all that the log has then."""
    async with Client(cluster.addresses) as client:
        for number in range(RECORD_COUNT):
            await client.produce(b"record %d" % number)
    leader = await cluster.leader_of_any()
    end = await cluster.high_watermark(leader)
    assert end is not None
    return await cluster.read_log(leader, end)


async def have(cluster: ProcessCluster, records: list[tuple[int, bytes]], *node_ids: str) -> None:
    """Each of these nodes comes to have these records, and takes more together with the others."""
    await cluster.reach(len(records), *node_ids)
    for node_id in node_ids:
        assert await cluster.read_log(node_id, len(records)) == records
    more = await write(cluster)
    assert more[: len(records)] == records
    await cluster.reach(len(more), *node_ids)


@follows("Begin, with the same command on every node")
async def test_nodes_that_are_started_alike_become_a_cluster(steps: Steps) -> None:
    cluster = steps.stopped()
    command = steps.left[0]
    for node_id in ("n1", "n2", "n3"):
        steps.left[0] = command
        steps.serve(node_id, HOST_PORT=cluster.addresses)
        steps.left.insert(0, command)
    del steps.left[0]
    waited = await steps.run()
    assert b"leads" in waited.output
    await all_vote(cluster, "n1", "n2", "n3")
    listed = (await steps.run()).output.decode().splitlines()
    assert [line.split()[0] for line in listed] == ["NODE", "n1", "n2", "n3"]
    assert "cluster formed" in cluster["n1"].says()
    await have(cluster, await write(cluster), "n1", "n2", "n3")


@follows("A node leaves for good")
async def test_the_leader_leaves_and_its_process_ends(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    gone = await cluster.leader()
    left = await steps.run(HOST_PORT=cluster[gone].address)
    assert left.output.decode().startswith(f"{gone} is no member any more, and stops.")
    assert await cluster[gone].wait_for_exit() == 0
    others = sorted({"n1", "n2", "n3"} - {gone})
    await all_vote(cluster, *others)
    await have(cluster, records, *others)


@follows("A dead node is replaced")
async def test_a_spare_takes_the_place_of_a_dead_node(steps: Steps) -> None:
    cluster = await steps.grown("--dead-after-s", "2", spares=("n4",))
    records = await write(cluster)
    await steps.run()
    steps.serve("n4", HOST_PORT=",".join(cluster[each].address for each in ("n1", "n2", "n3")))

    async def is_spare() -> bool:
        status = await cluster.status(await cluster.leader())
        return status is not None and "a place:" in " ".join(
            each.waits_for for each in status.planned
        )

    await until(is_spare, "n4 has everything", describe=cluster.describe)
    shown = (await steps.run()).output.decode()
    assert "a place: 3 of 3 voters are there" in shown
    dead = next(each for each in await cluster.followers() if each != "n4")
    cluster.kill(dead)
    left = sorted({"n1", "n2", "n3", "n4"} - {dead})
    await all_vote(cluster, *left)
    await have(cluster, records, *left)


@follows("Grow")
async def test_a_cluster_of_one_grows_to_three(steps: Steps) -> None:
    cluster = steps.stopped()
    first = cluster["n1"]
    steps.serve("n1")
    await cluster.leader("n1")
    records = await write(cluster)
    steps.serve("n2", HOST_PORT=first.address)
    await all_vote(cluster, "n1", "n2")
    nobody = f"{first.host}:{free_ports(first.host, 1)[0]}"
    steps.serve("n3", HOST_PORT=nobody)

    async def waits() -> bool:
        said = cluster["n3"].says().splitlines()
        lines = [line for line in said if "cannot join yet" in line]
        return len(lines) >= 3 and all(nobody in line for line in lines)

    await until(waits, "its --join reaches nobody, and it goes on trying")
    address = cluster["n3"].peer_address
    added = await steps.run(HOST_PEERPORT=address)
    assert added.output == b"n3 is a voter now\n"
    again = await run("cluster", "add", "n3", "--peer", address, "--server", first.address)
    assert (again.status, "n3 is a member already" in again.complaint) == (1, True)
    lines = node_lines((await steps.run()).output)
    roles = sorted(line.split()[1] for line in lines.values())
    assert (list(lines), roles) == (["n1", "n2", "n3"], ["follower", "follower", "leader"])
    await have(cluster, records, "n1", "n2", "n3")


@follows("Shrink, or remove a node")
async def test_the_leader_is_removed_and_the_others_go_on(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    gone = await cluster.leader()
    await steps.run(NODE_ID=gone)

    async def says_so() -> bool:
        return "it was removed from the cluster" in cluster[gone].says()

    await until(says_so, "the removed node says so")
    await cluster.terminate(gone)
    left = sorted({"n1", "n2", "n3"} - {gone})
    await all_vote(cluster, *left)
    await have(cluster, records, *left)


@follows(LOST)
async def test_a_node_whose_disk_is_lost_comes_back_with_an_empty_one(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    node = cluster["n2"]
    cluster.kill("n2")
    node.wipe()
    await until(lambda: _is_missed(cluster, "n2"), "it is missed")
    # With two of three up, the third is not given away.
    other = (await cluster.followers())[0]
    refused = await run("cluster", "remove", other, "--server", cluster.addresses)
    assert (refused.status, "which is no majority" in refused.complaint) == (1, True)
    await steps.run(NODE_ID="n2")
    empty = node.data_dir.with_name("another-disk")
    member = cluster[await cluster.leader_of_any()].address
    steps.serve("n2", EMPTY_DIR=str(empty), HOST_PORT=member)
    await all_vote(cluster, "n1", "n2", "n3")
    assert empty.is_dir()
    await have(cluster, records, "n1", "n2", "n3")


async def _is_missed(cluster: ProcessCluster, node_id: str) -> bool:
    status = await cluster.status(await cluster.leader_of_any())
    members = status.members if status is not None else ()
    return any(each.node_id == node_id and not each.connected for each in members)


@follows(LOST, 1)
async def test_a_node_whose_journal_cannot_be_read_comes_back_with_its_segments(
    steps: Steps,
) -> None:
    cluster = await steps.grown("--checkpoint-interval-s", "0.5")
    await load(cluster, 3 * MIB)
    node = cluster["n2"]
    await cluster.reach(await _end(cluster), "n2")
    await cluster.terminate("n2")
    for journal in (node.data_dir / "groups/0/journal").iterdir():
        flip(journal, 60)
    refused = await run("serve", *node.arguments)
    assert refused.status == 1
    assert "This node may have promised what it lost, so it does not start" in refused.complaint
    assert "its files are kept. Run `distlog cluster rejoin`" in refused.complaint
    done = await steps.run(DATA_DIR=str(node.data_dir), typed="n2")
    assert b"is the directory of a new member n2" in done.output
    (backup,) = node.data_dir.glob("backup-*")
    assert any(backup.rglob("*.journal"))
    kept = (node.data_dir / "groups/0/incoming/topics").glob("*/*.log")
    assert sum(path.stat().st_size for path in kept) >= 3 * MIB
    await steps.run(NODE_ID="n2")
    steps.serve("n2", HOST_PORT=cluster[await cluster.leader_of_any()].address)
    await all_vote(cluster, "n1", "n2", "n3")
    await load(cluster, MIB)
    await check_equal(cluster)


async def _end(cluster: ProcessCluster) -> int:
    end = await cluster.high_watermark(await cluster.leader())
    assert end is not None
    return end


@follows("Move a node to another address")
async def test_a_node_that_moved_is_found_at_its_new_address(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    node = cluster["n2"]
    await cluster.terminate("n2")
    node.client_port, node.peer_port = free_ports(node.host, 2)
    steps.serve("n2", HOST_PORT=node.address, HOST_PEERPORT=node.peer_address)

    async def is_known() -> bool:
        status = await cluster.status(await cluster.leader())
        if status is None:
            return False
        (known,) = (member for member in status.members if member.node_id == "n2")
        return (known.client_address, known.peer_address) == (node.address, node.peer_address)

    await until(is_known, "the new address is known", describe=cluster.describe)
    # All others forget what they heard; the log has it.
    cluster.kill()
    cluster.start()
    await cluster.leader()
    await until(is_known, "the new address is remembered", describe=cluster.describe)
    await have(cluster, records, "n1", "n2", "n3")


@follows("A node that was away for long")
async def test_a_node_that_was_away_copies_and_says_how_far_it_is(steps: Steps) -> None:
    cluster = await steps.grown(*JOURNAL, "--copy-rate-max", "4MiB")
    away = (await cluster.followers())[0]
    await cluster.terminate(away)
    await load(cluster, 14 * MIB)
    cluster.start(away)
    await copies(cluster, away)
    shown = (await steps.run()).output
    assert b"COPY" in shown
    assert " MiB from n" in node_lines(shown)[away]
    await check_equal(cluster)
    said = cluster[away].says()
    assert "this node is too far behind for the leader's journal and copies a checkpoint" in said
    assert "going over to a copied checkpoint" in said


@follows("Rot: bytes that the disk has changed")
async def test_rot_is_shown_until_a_peer_has_given_the_segment(steps: Steps) -> None:
    cluster = await steps.grown("--scrub-interval-s", "1", "--checkpoint-interval-s", "0.5")
    server = ("--server", cluster.addresses)
    created = await run("topic", "create", "events", "--segment-size", "300KiB", *server)
    assert created.status == 0, created
    await load(cluster, 3 * MIB, "events")
    victim = (await cluster.followers())[0]
    node = cluster[victim]
    others = [each for each in cluster.nodes if each != victim]

    async def stores() -> list[Path] | None:
        found = sorted((node.data_dir / "groups/0/topics").glob("*/*.log"))
        return found if len(found) > 8 else None

    store = (await until(stores, "it has them all"))[3]
    # Nobody is left who could give the segment, and no majority.
    cluster.kill(*others)
    flip(store, 150_000)

    async def is_found() -> bool:
        return "a segment is damaged, it is fetched from a peer" in node.says()

    async def is_alone() -> bool:
        status = await cluster.status(victim)
        return status is not None and not status.leader_id

    await until(is_found, "it is found")
    await until(is_alone, "it knows that nobody leads")
    # The command ends with 1 as nobody does.
    assert "damaged" in node_lines((await steps.run(status=1)).output)[victim]
    cluster.start(*others)

    async def is_replaced() -> bool:
        return "a damaged segment was replaced" in node.says()

    await until(is_replaced, "it is replaced", describe=cluster.describe)
    again = await run("cluster", "status", "--server", cluster.addresses)
    # The log goes on to say that it was.
    assert not any("damaged" in line for line in node_lines(again.output).values())
    await check_equal(cluster)


@follows(ALONE)
async def test_the_last_node_goes_on_alone(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    await cluster.reach(len(records))
    cluster.kill("n2", "n3")
    for node_id in ("n2", "n3"):
        cluster[node_id].wipe()
    await cluster.terminate("n1")
    directory = cluster["n1"].data_dir
    inspected = await steps.run(DATA_DIR=str(directory))
    assert str(len(records)).encode() in inspected.output
    await steps.run(DATA_DIR=str(directory), typed="n1")
    assert any(directory.glob("backup-*"))
    verified = await run("verify", str(directory))
    assert verified.status == 0, verified
    steps.serve("n1")
    await cluster.leader("n1")
    await have(cluster, records, "n1")


@follows(ALONE, 1)
async def test_a_node_that_comes_back_to_the_new_cluster_joins_it(steps: Steps) -> None:
    cluster = await steps.grown()
    records = await write(cluster)
    await cluster.reach(len(records))
    cluster.kill()
    directory = str(cluster["n1"].data_dir)
    forced = await run("recover", "--force-new-cluster", "--data-dir", directory, "--yes")
    assert forced.status == 0, forced
    cluster.start("n1")
    await cluster.leader("n1")
    await steps.run(DATA_DIR=str(cluster["n2"].data_dir), typed="n2")
    steps.serve("n2", HOST_PORT=cluster["n1"].address)
    await all_vote(cluster, "n1", "n2")
    await have(cluster, records, "n1", "n2")


def test_every_command_of_the_page_is_run() -> None:
    places = {place for place in books() if place[0] not in ELSEWHERE}
    assert places == FOLLOWED.keys()
    for section, file in ELSEWHERE.items():
        assert (section, 0) in books()
        assert (Path(__file__).parent / file).exists()


def test_a_place_that_nothing_was_put_in_is_seen() -> None:
    command = "distlog serve --node-id NODE_ID --join HOST:PORT[,HOST:PORT] ...  # said"
    places = {"NODE_ID": "n1", "HOST:PORT": "127.0.0.1:1"}
    expected = ["serve", "--node-id", "n1", "--join", "127.0.0.1:1", "--x"]
    assert filled(command, places, ["--x"]) == expected
    with pytest.raises(AssertionError, match="HOST:PORT"):
        filled(command, {"NODE_ID": "n1"})
