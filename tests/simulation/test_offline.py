"""Data directories of stopped nodes that cannot go on as the members that they were, and what becomes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from distlog.catch_up.offline import force_new_cluster, rejoin
from distlog.consensus.checkpoint import read_checkpoint
from distlog.consensus.recovery import recover
from distlog.errors import (
    CorruptBatch,
    CorruptCheckpoint,
    CorruptJournal,
    DataDirectoryInUse,
    DataDirectoryUnusable,
)
from distlog.storage.data_directory import DataDirectory
from distlog.storage.simulated_disk import SimulatedDisk
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import followers, led, log_of, records_of
from tests.simulation.stories import simulated as told
from tests.simulation.test_catch_up import LIMITS, SETTINGS, append_many, copies_of, simulated
from tests.simulation.test_membership import join, remove
from tests.storage.crash.damage import READING, files_of

NOW = "20260131T120000Z"
PATH = "data"


def again(
    disk: SimulatedDisk, now: str = NOW, node_id: str = ""
) -> tuple[str, int, tuple[str, ...]]:
    done = rejoin(
        disk, PATH, random=Random(now), now=now, node_id=node_id, progress=lambda size: None
    )
    return done.node_id, done.kept_count, done.damaged


async def with_a_lost_journal(cluster: SimulatedCluster) -> Machine:
    """Have a node, which is down, with a journal that lost what was durable."""
    log = await led(cluster)
    created = await log.create_topic("events", LIMITS)
    await append_many(log, "events", 30)
    victim = followers(cluster)[0]
    assert victim.log is not None
    await victim.log.confirm()
    assert created.topic_id == 3
    await victim.stop()
    journal = f"{PATH}/groups/0/journal"
    for name in victim.disk.list_directory(journal):
        victim.disk.open(f"{journal}/{name}").truncate(100)
    return victim


def test_a_node_whose_journal_is_lost_names_the_command_and_joins_with_what_it_kept() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_a_lost_journal(cluster)
        with pytest.raises(CorruptJournal, match="distlog cluster rejoin"):
            await victim.start()
        victim._end(victim.disk.kill())
        before = DataDirectory.open_offline(victim.disk, PATH)
        old_id = before.directory_id
        before.close()
        node_id, kept_count, damaged = again(victim.disk)
        assert (node_id, damaged) == (victim.name, ())
        assert kept_count >= 15
        after = DataDirectory.open_offline(victim.disk, PATH)
        assert after.cluster_id is None
        assert after.directory_id != old_id
        after.close()
        await remove(cluster, victim.name)
        cluster.watch.add(victim.name)
        # The others forget what it would have needed.
        await append_many(await led(cluster), "", 60)
        await join(cluster, victim.name)
        assert copies_of(victim) == 1
        assert victim.node is not None
        assert victim.node.files is not None
        sent = sum(
            machine.node.files.source.counters["bytes_sent"]
            for machine in cluster.machines.values()
            if machine.node is not None and machine.node.files is not None
        )
        assert victim.log is not None
        assert sent < victim.log.topic("events").size // 2 + victim.log.topic("").size + 50_000

    simulated(story)


def test_what_was_staged_is_removed_when_the_node_gets_on_without_it() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.create_topic("events", LIMITS)
        await append_many(log, "events", 8, size=5000)
        victim = followers(cluster)[0]
        await log_of(victim).confirm()
        await victim.stop()
        journal = f"{PATH}/groups/0/journal"
        for name in victim.disk.list_directory(journal):
            victim.disk.open(f"{journal}/{name}").truncate(100)
        _, kept_count, _ = again(victim.disk)
        assert kept_count == 3
        await remove(cluster, victim.name)
        cluster.watch.add(victim.name)
        # The journals of the others have everything from the first entry on.
        await join(cluster, victim.name)
        assert copies_of(victim) == 0
        assert victim.node is not None
        files = victim.node.files
        assert files is not None
        assert not files.incoming.is_empty()
        assert await cluster.wait_until(files.incoming.is_empty, "it is removed", 100.0)
        assert files.leftovers.counters["cleared"] == 1

    simulated(story, checkpoint_interval_s=1000.0)


def test_a_node_that_lost_what_its_journal_goes_on_from_names_the_command_and_it_is_enough() -> (
    None
):
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        created = await log.create_topic("events", LIMITS)
        await append_many(log, "events", 31)
        victim = followers(cluster)[0]
        await log_of(victim).confirm()
        await victim.stop()
        written = f"{PATH}/groups/0/topics/{created.topic_id:020d}/{30:020d}.batch"
        victim.disk.remove(written)
        before = files_of(victim.disk, PATH)
        with pytest.raises(
            CorruptCheckpoint, match=r"(?s)\.batch.*missing.*distlog cluster rejoin"
        ):
            await victim.start()
        victim._end(victim.disk.kill())
        after = files_of(victim.disk, PATH)
        assert {path: after[path] for path in before} == before
        _, kept_count, damaged = again(victim.disk)
        assert (kept_count, damaged) == (15, (written.replace(".batch", ".log"),))
        await remove(cluster, victim.name)
        cluster.watch.add(victim.name)
        await join(cluster, victim.name)

    simulated(story)


def test_a_damaged_segment_goes_aside_and_everything_is_kept() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_a_lost_journal(cluster)
        disk = victim.disk
        store = f"{PATH}/groups/0/topics/{3:020d}/{2:020d}.log"
        file = disk.open(store)
        file.write_at(40, [b"\xff" * 8])
        before = files_of(disk, PATH)
        _, _, damaged = again(disk)
        assert damaged == (store,)
        after = set(files_of(disk, PATH).values())
        kept = {path: data for path, data in before.items() if "/LOCK" not in path}
        assert all(data in after for data in kept.values() if len(data) > 0)
        # Once more: it is the directory of nobody's member by now, and stays one.
        node_id, _, damaged = again(disk, now="20260131T120001Z")
        assert (node_id, damaged) == (victim.name, ())
        await cluster.machines[victim.name].start()
        assert cluster.machines[victim.name].log is not None

    told(story, replicated_log=SETTINGS)


def test_a_command_that_was_interrupted_anywhere_is_repeated_and_no_node_starts_meanwhile() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_a_lost_journal(cluster)
        whole = victim.disk.kill()
        _, kept_count, _ = again(whole)
        cases = 0
        interrupted = victim.disk.kill()

        def check(operation: str, path: str) -> None:
            nonlocal cases
            if operation in READING:
                return
            for survivor in (interrupted.kill(), interrupted.crash(Random(cases))):
                node_id, count, _ = again(survivor, now="20260131T130000Z")
                assert node_id == victim.name
                assert count <= kept_count
                DataDirectory.open(survivor, PATH, victim.name, Random(1)).close()
                cases += 1

        interrupted.hook = check
        again(interrupted)
        interrupted.hook = None
        assert cases > 100
        await victim.start()

    async def quiet(cluster: SimulatedCluster) -> None:
        try:
            await story(cluster)
        except CorruptJournal:
            # The one of the original disk, which nobody has mended.
            return

    told(quiet, replicated_log=SETTINGS)


def one_left(check: Callable[[SimulatedCluster, Machine, list[bytes]], Awaitable[None]]) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await log.create_topic("events", LIMITS)
        await append_many(log, "events", 30)
        await append_many(log, "", 3)
        machine = followers(cluster)[0]
        assert machine.log is not None
        await machine.log.confirm()
        records = await records_of(machine.log, "events")
        await machine.stop()
        await check(cluster, machine, records)

    told(story, replicated_log=SETTINGS)


def test_a_node_that_is_left_alone_becomes_a_cluster_with_all_that_it_has() -> None:
    async def check(cluster: SimulatedCluster, machine: Machine, records: list[bytes]) -> None:
        disk = machine.disk
        before = files_of(disk, PATH)
        done = force_new_cluster(disk, PATH, random=Random(5), now=NOW)
        directory = DataDirectory.open_offline(disk, PATH)
        assert directory.voters == {machine.name: directory.directory_id}
        assert directory.cluster_id == done.cluster_id != done.old_cluster_id
        image = read_checkpoint(disk, directory.checkpoint_path)
        assert image is not None
        assert image.configuration.cluster_id == done.cluster_id
        assert image.raft_index == done.last_index
        recovered = recover(
            disk,
            journal_path=directory.journal_path,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
        )
        topic = recovered.state_machine.topic_by_name("events")
        assert topic is not None
        found: list[bytes] = []
        while len(found) < len(records):
            for batch in topic.log.read(len(found), 1 << 20):
                found += list(batch.records())
        assert found == records
        recovered.state_machine.close()
        recovered.journal.close()
        directory.close()
        for name in ("node.json", "groups/0/checkpoint"):
            backup = files_of(disk, done.backup_path)[f"{done.backup_path}/{name.split('/')[-1]}"]
            assert backup == before[f"{PATH}/{name}"]

    one_left(check)


def test_a_node_that_is_left_alone_says_what_it_lost_and_has_the_rest() -> None:
    async def check(cluster: SimulatedCluster, machine: Machine, records: list[bytes]) -> None:
        store = f"{PATH}/groups/0/topics/{3:020d}/{4:020d}.log"
        machine.disk.remove(store)
        done = force_new_cluster(machine.disk, PATH, random=Random(5), now=NOW)
        assert done.damaged == (f"{store}: offsets 4 to 5",)
        directory = DataDirectory.open_offline(machine.disk, PATH)
        recovered = recover(
            machine.disk,
            journal_path=directory.journal_path,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
        )
        topic = recovered.state_machine.topic_by_name("events")
        assert topic is not None
        for offset, record in enumerate(records):
            if offset in (4, 5):
                with pytest.raises(CorruptBatch):
                    topic.log.read_record(offset)
            else:
                assert topic.log.read_record(offset) == record
        recovered.state_machine.close()
        recovered.journal.close()
        directory.close()

    one_left(check)


def test_a_recovery_that_was_interrupted_anywhere_is_repeated_and_no_node_starts_half_way() -> None:
    async def check(cluster: SimulatedCluster, machine: Machine, records: list[bytes]) -> None:
        interrupted = machine.disk.kill()
        old = DataDirectory.open_offline(machine.disk, PATH)
        old_id = old.directory_id
        old.close()
        cases = refused = 0

        def look(operation: str, path: str) -> None:
            nonlocal cases, refused
            if operation in READING:
                return
            cases += 1
            for survivor in (interrupted.kill(), interrupted.crash(Random(cases))):
                try:
                    started = DataDirectory.open(survivor, PATH, machine.name, Random(1))
                except DataDirectoryUnusable:
                    refused += 1
                else:
                    image = read_checkpoint(survivor, started.checkpoint_path)
                    assert image is not None
                    # What it was, or what it will be: never the one's identity with the other's state.
                    assert started.cluster_id == image.configuration.cluster_id
                    is_old = started.directory_id == old_id
                    started.close()
                    if not is_old:
                        continue
                done = force_new_cluster(survivor, PATH, random=Random(6), now="20260131T130000Z")
                assert done.node_id == machine.name

        interrupted.hook = look
        force_new_cluster(interrupted, PATH, random=Random(5), now=NOW)
        interrupted.hook = None
        assert cases > 20
        assert refused > 5

    one_left(check)


def test_what_a_node_keeps_when_it_rejoins_is_in_its_backup_too() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        victim = await with_a_lost_journal(cluster)
        before = {
            path: data
            for path, data in files_of(victim.disk, f"{PATH}/groups/0/topics").items()
            if data
        }
        again(victim.disk)
        backup = f"{PATH}/backup-{NOW}/topics"
        for path, data in before.items():
            kept = files_of(victim.disk, backup)[path.replace(f"{PATH}/groups/0/topics", backup)]
            # Without the space that was reserved beyond what is in it.
            assert data.startswith(kept)
            assert not any(data[len(kept) :])

    async def quiet(cluster: SimulatedCluster) -> None:
        await story(cluster)

    told(quiet, replicated_log=SETTINGS)


def test_the_others_never_speak_with_the_new_cluster() -> None:
    async def check(cluster: SimulatedCluster, machine: Machine, records: list[bytes]) -> None:
        force_new_cluster(machine.disk, PATH, random=Random(5), now=NOW)
        with DataDirectory.hold(machine.disk, PATH) as directory:
            mine = directory.identity_of([])
        assert mine is not None
        other = next(m for m in cluster.machines.values() if m is not machine)
        assert other.node is not None
        hello = other.node._neighbours.hello()
        assert hello.cluster_id != mine.cluster_id
        assert hello.voters[machine.name] != mine.directory_id

    one_left(check)


def test_neither_touches_the_directory_of_a_node_that_runs_or_what_is_none() -> None:
    disk = SimulatedDisk()
    running = DataDirectory.open(disk, PATH, "n1", Random(1))
    for command in (
        lambda: again(disk),
        lambda: force_new_cluster(disk, PATH, random=Random(1), now=NOW),
    ):
        with pytest.raises(DataDirectoryInUse):
            command()
    running.close()
    with pytest.raises(DataDirectoryUnusable, match="belongs to no cluster"):
        force_new_cluster(disk, PATH, random=Random(1), now=NOW)
    disk.make_directory("other")
    with pytest.raises(DataDirectoryUnusable, match="no data directory"):
        rejoin(disk, "other", random=Random(1), now=NOW, progress=lambda size: None)


def test_a_directory_that_does_not_say_whose_it_is_needs_the_name() -> None:
    disk = SimulatedDisk()
    DataDirectory.open(disk, PATH, "n1", Random(1)).close()
    disk.open(f"{PATH}/node.json").truncate(5)
    with pytest.raises(DataDirectoryUnusable, match="--node-id"):
        again(disk)
    assert again(disk, node_id="n7")[0] == "n7"
