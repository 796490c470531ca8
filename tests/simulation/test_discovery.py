"""A simulated cluster whose nodes find each other: by gossip, of which much is lost, and by a name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from distlog.discovery.backend import Backend
from distlog.discovery.view import MemberStatus
from distlog.node_settings import DiscoverySettings
from distlog.peer.frames import Channel
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.simulated_machine import CLIENT_PORT
from tests.simulation.stories import block, led, log_of, simulated
from tests.simulation.test_leadership import Load
from tests.simulation.test_membership import GROWING, SPARES, join, remove, voters

ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT
BY_NAME = DiscoverySettings(Backend.DNS, "distlog.example", CLIENT_PORT)


def statuses(machine: Machine) -> dict[str, MemberStatus]:
    """Return what the node that runs there sees."""
    assert machine.node is not None
    return {node_id: each.status for node_id, each in machine.node.finding.members().items()}


async def all_see(cluster: SimulatedCluster, *names: str) -> None:
    def is_seen() -> bool:
        return all(
            statuses(cluster.machines[name]) == dict.fromkeys(sorted(names), ALIVE)
            for name in names
        )

    assert await cluster.wait_until(is_seen, f"{names} see each other")


def lose_gossip(machine: Machine, share: float) -> None:
    """Lose a share of the frames of gossip that a node sends from now on; unless it is all, never three to one node in a row.

    By chance alone one run of 60 s in twenty loses so many in a row, directly and by the third node, that a node is rightly missed.
    """
    assert machine.node is not None
    peers, random = machine.node.finding._peers, machine.cluster.random
    lost_in_a_row: Counter[str] = Counter()

    def lossy(send: Callable[..., bool]) -> Callable[..., bool]:
        def sent(node_id: str, channel: Channel, group: int, *payload: bytes) -> bool:
            if channel is Channel.GOSSIP:
                machine.cluster.counts["gossip"] += 1
                is_lost = random.random() < share and (share == 1 or lost_in_a_row[node_id] < 2)
                lost_in_a_row[node_id] = lost_in_a_row[node_id] + 1 if is_lost else 0
                if is_lost:
                    machine.cluster.counts["gossip lost"] += 1
                    return True
            return send(node_id, channel, group, *payload)

        return sent

    peers.send = lossy(peers.send)  # type: ignore[method-assign]
    peers.send_later = lossy(peers.send_later)  # type: ignore[method-assign]


def test_members_see_each_other_as_they_come_go_and_are_killed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        await all_see(cluster, "n1")
        for name in ("n2", "n3"):
            await join(cluster, name)
        await all_see(cluster, "n1", "n2", "n3")
        own = cluster.machines["n3"].node
        assert own is not None
        itself = own.finding.itself()
        assert itself is not None
        seen = cluster.machines["n1"].node.finding.members()["n3"]  # type: ignore[union-attr]
        assert seen.description == itself.description
        assert seen.description.cluster_id == log_of(cluster.machines["n1"]).status().cluster_id
        cluster.machines["n3"].kill()
        killed_at = cluster.loop.time()
        others = [cluster.machines[name] for name in ("n1", "n2")]
        assert await cluster.wait_until(
            lambda: all(statuses(each)["n3"] is FAILED for each in others), "n3 is missed"
        )
        assert 3.5 < cluster.loop.time() - killed_at < 8.0
        await cluster.machines["n3"].start()
        await all_see(cluster, "n1", "n2", "n3")

    simulated(story, **GROWING)


def test_gossip_of_which_a_third_is_lost_changes_nothing_for_writes_and_blames_nobody() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        await all_see(cluster, *cluster.names)
        term, load = log.status().term, Load(cluster, pause_s=0.05)
        working = asyncio.ensure_future(load.run())
        for machine in cluster.machines.values():
            lose_gossip(machine, 0.35)
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert {
                status for each in cluster.machines.values() for status in statuses(each).values()
            } == {ALIVE}
        await load.stop(working)
        assert len(load.acknowledged) > 100
        assert not load.unknown
        assert log.status().term == term
        assert 0.2 < cluster.counts["gossip lost"] / cluster.counts["gossip"] < 0.4

    simulated(story)


def test_without_any_gossip_the_cluster_elects_writes_and_changes_its_members_as_before() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        for machine in cluster.machines.values():
            if machine.node is not None:
                lose_gossip(machine, 1.0)
        await asyncio.sleep(10.0)
        leader = cluster.leader()
        assert leader is not None
        assert sorted(set(statuses(leader).values())) == [ALIVE, FAILED], "it sees nobody else"
        await join(cluster, "n4")
        await remove(cluster, next(name for name in cluster.names if name != leader.name))
        leader.crash()
        log = await led(cluster)
        await log.propose_append("", block(b"after"))

    simulated(story, spares=SPARES)


def test_a_node_that_flaps_is_a_member_throughout() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        flapping = next(each for each in cluster.machines.values() if each is not cluster.leader())
        term = log.status().term
        group = cluster.leader().group  # type: ignore[union-attr]
        index = group.configuration.raft_index
        for number in range(10):
            flapping.kill()
            await asyncio.sleep(1.0 + number)
            await flapping.start()
            await log.propose_append("", block(b"x"))
            await asyncio.sleep(1.0)
        await all_see(cluster, *cluster.names)
        assert log.status().term == term
        assert group.configuration.raft_index == index, "nobody was removed, nobody added"

    simulated(story)


def test_a_second_node_with_an_id_that_is_taken_is_not_in_the_view(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        original = next(each for each in cluster.machines.values() if each is not cluster.leader())
        await all_see(cluster, *cluster.names)
        term = log.status().term
        twin = Machine(cluster, "twin", node_id=original.name)
        twin.way = "join"
        cluster.watch.add("twin")
        await twin.start()
        await asyncio.sleep(20.0)
        assert log.status().term == term
        for each in cluster.machines.values():
            assert each.node is not None
            members = each.node.finding.members()
            assert members[original.name].description.peer_address == f"{original.name}:8401"
            assert set(statuses(each).values()) == {ALIVE}
        await log.propose_append("", block(b"x"))

    simulated(story)
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert any("has this node id" in each and "--node-id" in each for each in told), told


# --- By a name --------------------------------------------------------------------------------------


def test_a_node_with_an_empty_directory_finds_the_members_by_a_name_and_joins() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        for name in ("n2", "n3"):
            machine = cluster.machines[name]
            machine.way = "found"
            cluster.unused.discard(name)
            await machine.start()
            assert await cluster.wait_until(lambda: name in voters(cluster), f"{name} votes")  # noqa: B023
        await all_see(cluster, "n1", "n2", "n3")

    simulated(story, discovery=BY_NAME, **GROWING)


def test_a_node_that_finds_nobody_waits_and_begins_no_cluster() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        cluster.lacks_name_server = True
        await led(cluster)
        machine = cluster.machines["n2"]
        machine.way = "found"
        cluster.unused.discard("n2")
        await machine.start()
        await asyncio.sleep(120.0)
        assert log_of(machine).status().role == "forming"
        cluster.lacks_name_server = False
        assert await cluster.wait_until(lambda: "n2" in voters(cluster), "n2 votes")

    simulated(story, discovery=BY_NAME, **GROWING)


def test_gossip_is_sent_to_none_but_those_who_say_that_they_take_it() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        silent = cluster.machines["n3"]
        silent.kill()
        cluster.discovery = DiscoverySettings(Backend.STATIC)
        await silent.start()
        cluster.discovery = DiscoverySettings(Backend.GOSSIP)
        for machine in cluster.machines.values():
            lose_gossip(machine, 0.0)
        await asyncio.sleep(10.0)
        assert statuses(cluster.machines["n1"])["n3"] is FAILED
        assert set(statuses(silent).values()) == {ALIVE}
        connected = cluster.machines["n1"].node.finding._peers.connected_ids  # type: ignore[union-attr]
        assert "n3" in connected, "it is not refused for that"

    simulated(story)


# --- What follows from it ----------------------------------------------------------------------------


def servers(machine: Machine) -> dict[str, str]:
    """Return what GetServers says there: the client address of each member."""
    return {
        each.node_id: each.client_address
        for each in log_of(machine).status(with_topics=False).members
    }


async def moved(cluster: SimulatedCluster, name: str, to: str) -> Machine:
    """Have a node come back on another machine, with its disk and at other addresses."""
    old = cluster.machines[name]
    if old.node is not None:
        old.kill()
    cluster.unused.add(name)
    machine = Machine(cluster, to, node_id=old.node_id)
    machine.way = "found" if cluster.discovery == BY_NAME else "join"
    machine.disk = old.disk
    cluster.machines[to] = machine
    cluster.watch.add(to)
    await machine.start()
    return machine


@pytest.mark.parametrize("seed", range(5))
def test_every_node_says_who_the_members_are_within_a_second_of_a_change(seed: int) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        await all_see(cluster, *cluster.names)

        async def known(expected: dict[str, str]) -> None:
            machines = [each for each in cluster.machines.values() if each.node is not None]
            machines = [each for each in machines if each.node_id in expected]
            first = lambda: any(servers(each) == expected for each in machines)  # noqa: E731
            assert await cluster.wait_until(first, f"{expected} is known")
            everywhere = lambda: all(servers(each) == expected for each in machines)  # noqa: E731
            assert await cluster.wait_until(everywhere, f"{expected} is known by all", 1.0)

        at = {name: f"{name}:{CLIENT_PORT}" for name in (*cluster.names, "n4")}
        cluster.machines["n4"].way = "join"
        cluster.unused.discard("n4")
        await cluster.machines["n4"].start()
        await known(at)
        await join(cluster, "n4")
        follower = next(
            name for name in cluster.names if cluster.machines[name] is not cluster.leader()
        )
        await moved(cluster, follower, "elsewhere")
        await known({**at, follower: f"elsewhere:{CLIENT_PORT}"})
        await remove(cluster, "n4")
        del at["n4"]
        await known({**at, follower: f"elsewhere:{CLIENT_PORT}"})

    simulated(story, seed=seed, spares=SPARES)


def test_a_member_that_moved_is_known_by_gossip_to_one_that_cannot_reach_it() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await led(cluster)
        await all_see(cluster, *cluster.names)
        leader = cluster.leader()
        assert leader is not None
        follower, other = (each for each in cluster.machines.values() if each is not leader)
        for source, destination in (("elsewhere", other.name), (other.name, "elsewhere")):
            cluster.network.block(source, destination)
        await moved(cluster, follower.name, "elsewhere")
        expected = f"elsewhere:{CLIENT_PORT}"
        # It finds the leader when it has given up the one that it cannot reach.
        assert await cluster.wait_until(
            lambda: servers(leader)[follower.name] == expected, "the leader knows"
        )
        assert await cluster.wait_until(
            lambda: servers(other)[follower.name] == expected, "the other one knows", 2.0
        )
        seen = other.node.finding.members  # type: ignore[union-attr]
        assert await cluster.wait_until(
            lambda: seen()[follower.node_id].description.client_address == expected,
            "it is in the view, and not only in the configuration",
            2.0,
        )
        assert follower.node_id not in other.node.finding._peers.connected_ids  # type: ignore[union-attr]

    simulated(story)


def test_a_whole_cluster_that_comes_back_at_other_addresses_is_found_by_its_name() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        log = await led(cluster)
        for name in ("n2", "n3"):
            await join(cluster, name)
        await log.propose_append("", block(b"kept"))
        for name in ("n1", "n2", "n3"):
            cluster.machines[name].kill()
        for name in ("n1", "n2", "n3"):
            await moved(cluster, name, f"{name}-elsewhere")
        log = await led(cluster)
        await log.propose_append("", block(b"more"))
        assert log.topic("").high_watermark == 2

    simulated(story, discovery=BY_NAME, **GROWING)
