"""Nodes that promise what is written and not synced yet: whoever is killed keeps every promise, and a power cut is seen by the checks.

Beyond that, whatever a power cut takes, no term has two leaders and nodes that go on have the same log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import cache

import pytest

from distlog.consensus.durability import Durability
from distlog.consensus.journal_sync import FLUSH_INTERVAL_S
from distlog.consensus.library import Library
from tests.simulation.campaign import describe
from tests.simulation.schedule import Run, simulate
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import (
    THREE,
    block,
    followers,
    led,
    log_of,
    records_of,
    settled,
    simulated,
)
from tests.simulation.virtual_loop import VirtualLoop

FIVE = ("n1", "n2", "n3", "n4", "n5")
OS, FSYNC = Durability.OS, Durability.FSYNC
# Of all nodes; the first and the third of them; all but the first.
DURABILITIES = ((OS,), (OS, FSYNC), (FSYNC, OS, OS))
# Schedules in which power cuts take promises.
CUT_SEEDS = range(20)
# What must not be said of any run, and what a power cut of promises that were not synced may lead to.
NEVER = (
    "one leader per term",
    "log matching",
    "equal:",
    "the schedule failed",
    "doubled",
    "reordered",
)
LOST = "is not there"
# "the leader conflicts with", "the leader disagrees about"
REFUSED = "applied entry"


# --- Random schedules -----------------------------------------------------------------------------


@cache
def killed(seed: int) -> Run:
    return simulate(seed, durabilities=DURABILITIES[seed % len(DURABILITIES)], power_cuts=False)


@cache
def cut(seed: int) -> Run:
    return simulate(seed, durabilities=(OS,))


@pytest.mark.seeds(30)
def test_a_cluster_that_is_only_ever_killed_keeps_every_promise(seed: int) -> None:
    run = killed(seed)
    print(describe(run))
    assert not run.failures, "\n".join(run.failures)
    assert run.counts["acknowledged"] > 0


def test_the_schedules_kill_nodes_that_have_promised_what_they_have_not_synced() -> None:
    counts = [killed(seed).counts["crashes with unsynced promises"] for seed in range(6)]
    assert sum(counts) > 6


def harm(run: Run) -> list[str]:
    """Return what went wrong that no loss of records explains."""
    return [
        failure
        for failure in run.failures
        if any(each in failure for each in NEVER)
        or ("stopped itself" in failure and REFUSED not in failure)
    ]


@pytest.mark.parametrize("seed", CUT_SEEDS)
def test_whatever_power_cuts_take_no_term_has_two_leaders_and_logs_stay_equal(seed: int) -> None:
    assert harm(cut(seed)) == []


def test_power_cuts_take_promises_and_the_checks_see_it() -> None:
    failures = [failure for seed in CUT_SEEDS for failure in cut(seed).failures]
    assert any(LOST in failure for failure in failures)
    assert any("state machine safety" in failure for failure in failures)


# --- Stories --------------------------------------------------------------------------------------


def story(
    body: Callable[[SimulatedCluster], Awaitable[None]], names: tuple[str, ...] = THREE
) -> list[str]:
    """Run a story of nodes that promise what is written; return what the cluster's own checks saw."""

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        # Checkpoints are the test's.
        cluster = SimulatedCluster(
            loop, 1, names=names, durabilities=(OS,), checkpoint_interval_s=1000.0
        )
        await cluster.start()
        await body(cluster)
        return cluster.failures

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


async def append(cluster: SimulatedCluster, *records: bytes) -> None:
    """Have the cluster acknowledge records, one by one."""
    for record in records:
        log = await led(cluster)
        await log.propose_append("", block(record))


async def until_synced(cluster: SimulatedCluster) -> None:
    """Wait until nobody has promised what a power cut could take; the timer of the sync must be enough for that."""
    watch = cluster.watch
    synced_by = cluster.loop.time() + 2 * FLUSH_INTERVAL_S
    assert await cluster.wait_until(
        lambda: not any(watch.is_unsynced(name) for name in cluster.names), "all is synced"
    )
    assert cluster.loop.time() < synced_by


def lose_everything_unsynced(machines: Iterable[Machine]) -> None:
    """Cut the power of machines whose disks keep nothing but what was synced."""
    for machine in machines:
        machine._die(machine.disk.crash_keeping([]))


async def restarted(cluster: SimulatedCluster) -> list[list[bytes]]:
    """Bring everybody back; return the records of each, when all have the same number."""
    await cluster.restart_all()
    await append(cluster, b"after")

    def is_level() -> bool:
        logs = [machine.log for machine in cluster.machines.values()]
        return len({log.status().applied_index if log else -1 for log in logs}) == 1

    assert await cluster.wait_until(is_level, "all have applied the same")
    return [await records_of(log_of(machine)) for machine in cluster.machines.values()]


def test_a_power_cut_of_all_within_the_interval_takes_an_acknowledged_record_everywhere() -> None:
    async def body(cluster: SimulatedCluster) -> None:
        await append(cluster, b"early")
        await until_synced(cluster)
        await append(cluster, b"late")
        lose_everything_unsynced(cluster.machines.values())
        assert await restarted(cluster) == [[b"early", b"after"]] * 3

    failures = story(body)
    assert failures, "what was applied before and after differs"
    assert all("state machine safety" in failure for failure in failures)


def test_a_power_cut_of_all_after_the_interval_takes_nothing() -> None:
    async def body(cluster: SimulatedCluster) -> None:
        await append(cluster, b"early", b"late")
        await until_synced(cluster)
        lose_everything_unsynced(cluster.machines.values())
        assert await restarted(cluster) == [[b"early", b"late", b"after"]] * 3

    assert story(body) == []


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_power_cut_of_one_takes_nothing_and_it_is_sent_again_what_it_had_acknowledged(
    role: str,
) -> None:
    async def body(cluster: SimulatedCluster) -> None:
        records = [b"%d" % number for number in range(50)]
        await append(cluster, *records)
        await settled(cluster, len(records))
        leader = cluster.leader()
        assert leader is not None
        victim = leader if role == "leader" else followers(cluster)[0]
        assert cluster.watch.is_unsynced(victim.name)
        lose_everything_unsynced([victim])
        assert await restarted(cluster) == [[*records, b"after"]] * 3

    assert story(body) == []


def test_a_node_that_kept_what_the_others_lost_stops_rather_than_differ_and_follows_them_after_a_restart() -> (
    None
):
    """A record on two of three, the power cut of one of them, and the other one cut off."""

    async def body(cluster: SimulatedCluster) -> None:
        await append(cluster, b"early")
        await settled(cluster, 1)
        await until_synced(cluster)
        leader = cluster.leader()
        assert leader is not None
        behind, cut = followers(cluster)
        cluster.network.partition([behind.name], [leader.name, cut.name])
        await append(cluster, b"late")
        cluster.network.heal()
        cluster.network.partition([leader.name], [behind.name, cut.name])
        lose_everything_unsynced([cut])
        await cut.start()
        others = [behind, cut]

        def is_succeeded() -> bool:
            return any(machine.log is not None and machine.log.is_leader for machine in others)

        assert await cluster.wait_until(is_succeeded, "another leader")
        (successor,) = [each for each in others if each.log is not None and each.log.is_leader]
        await log_of(successor).propose_append("", block(b"instead"))
        assert leader.node is not None
        failed = leader.node.failed
        cluster.network.heal()
        assert await cluster.wait_until(failed.done, "the old leader stops")
        assert REFUSED in str(failed.exception())
        leader.kill()
        assert await restarted(cluster) == [[b"early", b"instead", b"after"]] * 3

    assert harm_of(story(body)) == []


async def an_acknowledgement_of_what_is_lost(cluster: SimulatedCluster) -> None:
    """Five nodes: one acknowledges an entry and loses it, and is cut off; then another one acknowledges it, the third with the leader."""
    await append(cluster, b"early")
    await settled(cluster, 1)
    await until_synced(cluster)
    leader = cluster.leader()
    assert leader is not None
    victim, other, *rest = followers(cluster)
    apart = [[each.name] for each in (other, *rest)]
    cluster.network.partition([leader.name, victim.name], *apart)
    late = log_of(leader).propose_append("", block(b"late"))
    raft = leader.group.raft
    index = raft.commit_index + 1

    def has_acknowledged(machine: Machine) -> bool:
        return bool(raft.followers.matched.get(machine.name, 0) >= index)

    assert await cluster.wait_until(lambda: has_acknowledged(victim), "it acknowledges")
    lose_everything_unsynced([victim])
    cluster.network.partition([victim.name], [leader.name])
    cluster.network.break_connections(victim.name, leader.name)
    assert await cluster.wait_until(
        lambda: victim.name not in raft.replicas.reachable, "the leader sees that it is gone"
    )
    await victim.start()
    cluster.network.heal()
    cluster.network.partition([leader.name, other.name], [victim.name], *apart[1:])
    assert await cluster.wait_until(lambda: has_acknowledged(other), "another one acknowledges")
    assert await cluster.wait_until(
        lambda: late.done() or not raft.is_leader, "it is committed, or the leader gives up"
    )
    cluster.network.heal()
    assert await cluster.wait_until(late.done, "its fate is known")
    # Whoever leads next, it is there or not, and with all of them.
    late.exception()


def test_a_leader_does_not_count_what_a_voter_acknowledged_before_it_was_lost_from_sight() -> None:
    async def body(cluster: SimulatedCluster) -> None:
        await an_acknowledgement_of_what_is_lost(cluster)
        records = await restarted(cluster)
        assert records == [records[0]] * len(cluster.machines)

    assert story(body, FIVE) == []


def test_a_leader_that_goes_on_counting_it_commits_what_two_of_five_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Library, "forget_match", lambda *_: None)
    failures = story(an_acknowledgement_of_what_is_lost, FIVE)
    assert any("which 2 of 5 disks have" in failure for failure in failures), failures


def harm_of(failures: list[str]) -> list[str]:
    run = Run(0)
    run.failures = failures
    return harm(run)


def test_a_checkpoint_of_a_loaded_node_waits_for_the_sync_of_what_it_rests_on() -> None:
    """Also where records come all the time, so that there is always something that is only written."""

    async def body(cluster: SimulatedCluster) -> None:
        machines = cluster.machines.values()
        await append(cluster, *(b"%d" % number for number in range(400)))
        indexes = [log_of(machine).status().checkpoint_index for machine in machines]
        assert min(indexes) > 1
        assert all(cluster.watch.is_unsynced(machine.name) for machine in machines)
        lose_everything_unsynced(machines)
        await cluster.restart_all()
        # A checkpoint beyond its journal would keep a node from starting.
        assert [machine.node is not None for machine in machines] == [True] * 3

    simulated(body, durabilities=(OS,), checkpoint_interval_s=0.2)


def test_a_node_that_stops_in_order_leaves_nothing_unsynced() -> None:
    async def body(cluster: SimulatedCluster) -> None:
        await append(cluster, b"early", b"late")
        for machine in cluster.machines.values():
            await machine.stop()
            machine.disk = machine.disk.crash_keeping([])
        assert await restarted(cluster) == [[b"early", b"late", b"after"]] * 3

    assert story(body) == []
