"""What Raft relies on, under any faults: one live connection per pair, prefixes in order, and everybody back in the end.

Each node numbers what it sends to a peer from the moment that it is told `peer_connected`, and names that period.  Whatever
happens, each period of a receiver holds the first messages of one period of the sender, each period at most once.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.peer.nodes import PeerNode, World, simulate

NAMES = ("n1", "n2", "n3")
FAULTS_S = 20.0


class Talker:
    """A node that keeps talking to everybody it is connected with."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.processes: list[PeerNode] = []

    @property
    def node(self) -> PeerNode:
        return self.processes[-1]

    async def start(self) -> None:
        self.processes.append(await self.world.started(self.name))
        # How many messages of the present period went to each peer.
        self.sent = dict.fromkeys(NAMES, (0, 0))

    def talk(self, random: Random) -> None:
        """Send some messages to each connected peer."""
        for peer in NAMES:
            if peer not in self.node.owner.connected:
                continue
            period = len(self.node.owner.received[peer])
            known_period, number = self.sent[peer]
            number = number if known_period == period else 0
            for _ in range(random.randint(0, 4)):
                text = f"{self.name} {len(self.processes)} {period} {number}"
                if self.node.send(peer, text.encode() + b"." * random.choice([0, 0, 0, 3000])):
                    number += 1
            self.sent[peer] = (period, number)


def check(talkers: list[Talker]) -> int:
    """Look at everything that was received; return how many messages it was."""
    count = 0
    for talker in talkers:
        seen: set[tuple[str, ...]] = set()
        for process in talker.processes:
            for peer, periods in process.owner.received.items():
                for period in periods:
                    words = [frame[2].rstrip(b".").decode().split() for frame in period]
                    assert [int(word[3]) for word in words] == list(range(len(words)))
                    origins = {tuple(word[:3]) for word in words}
                    assert len(origins) <= 1, "two periods of the sender in one"
                    assert not origins & seen, "one period of the sender in two"
                    assert {origin[0] for origin in origins} <= {peer}
                    seen |= origins
                    count += len(words)
    return count


async def fault(world: World, talkers: list[Talker], random: Random) -> None:
    """Do one thing that goes wrong in life."""
    network = world.network
    talker, other = random.sample(talkers, 2)
    pair = (talker.name, other.name)
    match random.randrange(10):
        case 0 | 1:
            noticed_by = random.choice([None, None, [pair[0]], [pair[1]], []])
            network.break_connections(*pair, noticed_by=noticed_by)
        case 2:
            network.block(*pair)
            world.loop.call_later(random.uniform(0, 8), network.unblock, *pair)
        case 3:
            network.partition([talker.name], [name for name in NAMES if name != talker.name])
            world.loop.call_later(random.uniform(0, 3), network.heal)
        case 4:
            network.pause(talker.name)
            world.loop.call_later(random.uniform(0, 3), network.resume, talker.name)
        case 5:
            network.set_delay(*pair, 0.0, random.choice([0.001, 0.05, 0.5]))
        case 6:
            network.refuse(*pair)
            world.loop.call_later(random.uniform(0, 2), network.allow, *pair)
        case 7:
            talker.node.peers.restart_connections()
        case 8:
            (network.host_down if random.random() < 0.5 else network.kill)(talker.name)
            talker.node.peers.abandon()
            await world.loop.pass_time(random.choice([0.0, 0.01, 1.0]))
            network.host_up(talker.name)
            await talker.start()
        case 9:
            await talker.node.peers.stop()
            await talker.start()


async def run_faults(world: World) -> tuple[int, dict[str, int]]:
    random = Random(world.seed)
    talkers = [Talker(world, name) for name in NAMES]
    for talker in talkers:
        await talker.start()
    while world.loop.time() < FAULTS_S:
        for _ in range(random.randint(1, 30)):
            await world.loop.pass_time(random.expovariate(200))
            random.choice(talkers).talk(random)
        await fault(world, talkers, random)
    world.network.heal()
    for name in NAMES:
        world.network.resume(name)
        for other_name in NAMES:
            world.network.allow(name, other_name)
            world.network.set_delay(name, other_name, 0.0002, 0.001)
    # Long enough for what was held to arrive, for dead connections to be given up, and for the last dials.
    await world.loop.pass_time(12)
    for talker in talkers:
        assert talker.node.owner.connected == set(NAMES) - {talker.name}
    changes = [len(talker.node.owner.changes) for talker in talkers]
    for _ in range(50):
        await world.loop.pass_time(0.05)
        for talker in talkers:
            talker.talk(random)
    await world.loop.pass_time(1)
    assert [len(talker.node.owner.changes) for talker in talkers] == changes, "it stays quiet"
    for talker in talkers:
        for other in talkers:
            if other is not talker:
                _, number = talker.sent[other.name]
                assert len(other.node.owner.received[talker.name][-1]) == number
    assert world.network.connection_count == 3
    return check(talkers), dict(talkers[0].node.peers.counters)


@pytest.mark.seeds(20)
def test_each_period_of_a_receiver_is_the_beginning_of_one_of_the_sender(seed: int) -> None:
    received, _ = simulate(run_faults, seed, piece_size_max=4000 if seed % 2 else None)
    assert received > 500


def test_a_seed_repeats_a_run_exactly() -> None:
    assert simulate(run_faults, 3) == simulate(run_faults, 3)
    assert simulate(run_faults, 3) != simulate(run_faults, 4)
