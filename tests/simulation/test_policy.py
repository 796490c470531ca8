"""The replicated policy on whole clusters: one for all nodes, whatever restarts and whoever was away."""

from __future__ import annotations

import asyncio

from distlog.consensus.replicated_log import ReplicatedLog
from distlog.errors import DistlogError
from distlog.security.authorizer import Authorizer
from distlog.security.policy import Action, Membership, Permission, Policy
from distlog.server.policy_calls import follow_policy
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.stories import led
from tests.simulation.test_catch_up import left_behind, simulated

ROOT = Permission("root", "*", "*")
ALICE = Permission("alice", "orders-*", "produce")
ROLE = Membership("bob", "writers")


def policy_of(machine: Machine) -> Policy:
    assert machine.log is not None
    return machine.log.policy.current


async def agreed(cluster: SimulatedCluster, policy: Policy) -> None:
    """Wait until all nodes have this policy."""
    await cluster.wait_until(
        lambda: all(policy_of(each) == policy for each in cluster.machines.values()),
        "one policy everywhere",
    )


async def changed(cluster: SimulatedCluster, *added: Permission | Membership) -> ReplicatedLog:
    log = await led(cluster)
    await log.policy.change(added, ())
    return log


def test_all_nodes_have_the_same_policy_and_keep_it_through_a_restart_of_all() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await changed(cluster, ROOT, ALICE)
        await log.policy.change((ROLE,), (ALICE,))
        await agreed(cluster, Policy((ROOT, ROLE)))
        await cluster.restart_all()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        await agreed(cluster, Policy((ROOT, ROLE)))

    simulated(story)


def test_a_node_that_copies_a_checkpoint_has_the_policy_and_acts_on_later_changes() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await changed(cluster, ROOT)
        log, away = await left_behind(cluster)
        await log.policy.change((ALICE,), ())
        await away.start()
        await agreed(cluster, Policy((ROOT, ALICE)))
        await log.policy.change((ROLE,), ())
        await agreed(cluster, Policy((ROOT, ALICE, ROLE)))

    simulated(story)


def test_every_node_denies_what_was_taken_away_as_soon_as_it_has_applied_that() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await changed(cluster, ROOT, ALICE)
        authorizers = []
        for machine in cluster.machines.values():
            assert machine.log is not None
            authorizer = Authorizer()
            await follow_policy(machine.log.policy, authorizer, is_strict=True)
            authorizers.append(authorizer)
        question = ("alice", Action.PRODUCE, "orders-1")
        assert all(each.is_allowed(*question) for each in authorizers)
        await log.policy.change((), (ALICE,))
        await cluster.wait_until(
            lambda: not any(each.is_allowed(*question) for each in authorizers), "denied by all"
        )

    simulated(story)


def test_a_change_that_is_repeated_after_the_leader_was_lost_comes_to_the_same() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await changed(cluster, ROOT)
        leader = cluster.leader()
        assert leader is not None
        assert leader.log is not None
        pending = [asyncio.ensure_future(leader.log.policy.change((ALICE,), ())) for _ in range(3)]
        # Proposed, and nothing more.
        await asyncio.sleep(0)
        await leader.stop()
        for each in pending:
            try:
                await each
            except DistlogError:
                # Refused, or nobody knows.
                continue
        await changed(cluster, ALICE)
        await leader.start()
        await agreed(cluster, Policy((ROOT, ALICE)))

    simulated(story)
