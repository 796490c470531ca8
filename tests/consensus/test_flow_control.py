"""Overload is answered at once and costs no memory; a slow voter slows nobody, and a paused one catches up without a storm."""

from __future__ import annotations

import asyncio
import gc
import statistics
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from distlog.block import Block
from distlog.consensus import group as group_module
from distlog.consensus.commands import COMMAND_COUNT_MAX
from distlog.consensus.messages import LeadershipQuery, encode
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.errors import Overloaded
from distlog.peer.frames import FrameDecoder
from distlog.peer.limits import PeerLimits
from distlog.runtime import Network
from distlog.storage import simulated_disk, simulated_medium
from tests.consensus.nodes import DISK_DELAY_S, NodeCluster, Place, on_virtual_time
from tests.simulation.simulated_network import SimulatedNetwork

RECORD_SIZE = 10_000
RESERVE_SIZE = 32 << 20


class _Meter(asyncio.Protocol):
    """Passes on what arrives at a node, and counts it."""

    def __init__(self, inner: asyncio.Protocol, counts: Counter[str]) -> None:
        self._inner = inner
        self._counts = counts
        self._decoder = FrameDecoder(PeerLimits().payload_size_max())
        self.connection_made = inner.connection_made  # type: ignore[method-assign]
        self.connection_lost = inner.connection_lost  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self._counts["bytes"] += len(data)
        self._decoder.receive_data(data)
        while self._decoder.next_frame() is not None:
            self._counts["frames"] += 1
        self._inner.data_received(data)


class MeteredHost:
    """A host of the simulated network that counts what arrives there."""

    def __init__(self, host: Any, counts: Counter[str]) -> None:
        self._host = host
        self._counts = counts

    def _metered(self, factory: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        return lambda: _Meter(factory(), self._counts)

    async def listen(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> Any:
        return await self._host.listen(self._metered(factory), host, port)

    def objection(self, transport: asyncio.BaseTransport, node_id: str | None) -> str | None:
        return None

    async def connect(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        await self._host.connect(self._metered(factory), host, port)


def block(size: int = RECORD_SIZE) -> Block:
    return Block.from_records([b"x" * size])


def on_its_way(place: Place, others: list[Place]) -> int:
    """Return the bytes that wait for other nodes in the queues of this one."""
    return sum(int(place.node.peers.waiting_size(each.name)) for each in others)


# --- Overload ------------------------------------------------------------------------------------


def test_overload_is_refused_at_once_and_nothing_grows() -> None:
    """Followers that do not answer, and a client that does not care: round after round the same memory."""
    limit = 1 << 20

    async def main() -> list[int]:
        cluster = NodeCluster(replicated_log=ReplicatedLogSettings(proposals_size_max=limit))
        await cluster.start()
        leader, followers = cluster.leader, cluster.followers
        for place in cluster.places.values():
            # What is kept of the journal in memory has a limit of its own: let it be there soon.
            place.group.journal._cache_size_max = 1 << 20
        sizes = []
        for _ in range(6):
            # The network holds everything back, until just before the leader would give up.
            cluster.network.partition([leader.name], [each.name for each in followers])
            taken, refused, refusals = [], 0, set()
            for _ in range(400):
                try:
                    taken.append(leader.log.propose_append("", block()))
                except Overloaded as error:
                    refusals.add(error.queue)
                    refused += 1
            assert refusals == {"bytes of proposals waiting"}
            assert len(taken) * RECORD_SIZE <= limit
            assert refused == 400 - len(taken) > 200
            await asyncio.sleep(0)
            assert on_its_way(leader, followers) <= 2 * (limit + (1 << 16))
            await cluster.loop.pass_time(0.3)
            cluster.network.heal()
            await asyncio.gather(*taken)
            sizes.append(memory_beside_the_disks())
        await cluster.stop()
        return sizes

    tracemalloc.start()
    try:
        sizes = on_virtual_time(main)
    finally:
        tracemalloc.stop()
    assert max(sizes[2:]) - min(sizes[2:]) < 1 << 20, sizes


def memory_beside_the_disks() -> int:
    """Return the bytes in use, without what the simulated disks hold."""
    gc.collect()
    disks = [
        tracemalloc.Filter(False, each.__file__) for each in (simulated_disk, simulated_medium)
    ]
    snapshot = tracemalloc.take_snapshot().filter_traces(disks)
    return sum(each.size for each in snapshot.statistics("filename"))


def test_many_small_records_are_limited_by_their_number() -> None:
    async def main() -> None:
        cluster = NodeCluster()
        await cluster.start()
        leader = cluster.leader
        cluster.network.partition([leader.name], [each.name for each in cluster.followers])
        refusals: Counter[str] = Counter()
        for _ in range(COMMAND_COUNT_MAX + 100):
            try:
                leader.log.propose_append("", block(1)).add_done_callback(forget)
            except Overloaded as error:
                refusals[error.queue] += 1
        assert refusals == {"proposals waiting": 100}
        cluster.network.heal()
        await cluster.stop()

    on_virtual_time(main)


def forget(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()


# --- A slow voter ----------------------------------------------------------------------------------


def median_of_appends(slowness: float, count: int = 300) -> float:
    """Return the median time of an append, one at a time, while one follower's disk is so much slower."""

    async def main() -> float:
        cluster = NodeCluster()
        await cluster.start()
        cluster.followers[0].disk_delay_s = slowness * DISK_DELAY_S
        log, times = cluster.leader.log, []
        for _ in range(count):
            began_at = cluster.loop.time()
            await log.propose_append("", block(1000))
            times.append(cluster.loop.time() - began_at)
        assert cluster.leader.log is log
        await cluster.stop()
        return statistics.median(times)

    median: float = on_virtual_time(main)
    return median


def test_a_follower_with_a_disk_a_hundred_times_slower_slows_nobody() -> None:
    even, slow = median_of_appends(1), median_of_appends(100)
    assert slow < 1.5 * even, f"{1000 * slow:.2f} ms with it, {1000 * even:.2f} ms without"


def test_a_slow_follower_slows_no_stream_either() -> None:
    """Much in flight at a time: the window of the slow one is full, and the others go on."""

    def duration(slowness: float) -> float:
        async def main() -> float:
            cluster = NodeCluster(in_flight_size_max=64 << 10)
            await cluster.start()
            cluster.followers[0].disk_delay_s = slowness * DISK_DELAY_S
            began_at = cluster.loop.time()
            for _ in range(40):
                await cluster.append(*[RECORD_SIZE] * 20)
            took = cluster.loop.time() - began_at
            slow, leader = cluster.followers[0], cluster.leader
            assert on_its_way(leader, [slow]) < 1 << 20
            await cluster.stop()
            return took

        took: float = on_virtual_time(main)
        return took

    even, slow = duration(1), duration(100)
    assert slow < 1.5 * even, f"{slow:.3f} s with it, {even:.3f} s without"


# --- A paused voter --------------------------------------------------------------------------------


@pytest.mark.parametrize("pause_s", [3, 20], ids=["connection kept", "connection lost"])
def test_a_paused_follower_catches_up_without_a_storm(pause_s: int) -> None:
    arrived: dict[str, Counter[str]] = {}

    def host(network: SimulatedNetwork, name: str) -> Network:
        arrived[name] = Counter()
        return MeteredHost(network.host(name), arrived[name])

    async def main() -> None:
        # As in a node that runs, a message is small beside the reserve: otherwise it would be taken in parts.
        cluster = NodeCluster(host=host, reserve_size=RESERVE_SIZE)
        await cluster.start()
        await cluster.append(100)
        await cluster.loop.pass_time(1)
        paused, leader = cluster.followers[0], cluster.leader
        before = paused.group.journal.last_index
        cluster.network.pause(paused.name)
        arrived[paused.name].clear()
        for _ in range(200):
            await cluster.append(*[RECORD_SIZE] * 5)
        await cluster.loop.pass_time(pause_s)
        end = leader.group.journal.last_index
        lacks = sum(
            len(leader.group.journal.entry(index).payload) for index in range(before + 1, end + 1)
        )
        assert lacks > 10_000_000 - RECORD_SIZE
        began_at = cluster.loop.time()
        cluster.network.resume(paused.name)
        await cluster.loop.until(lambda: paused.group.raft.last_applied >= end, limit_s=20)
        took_s = cluster.loop.time() - began_at
        counts = arrived[paused.name]
        assert counts["bytes"] <= 1.2 * lacks, f"{counts['bytes']} bytes for {lacks}"
        # Entries, and the heartbeats and news of the time it took and of the time that it was away.
        allowed = 1.2 * (end - before) + 100 * took_s + 25 * pause_s + 50
        assert counts["frames"] <= allowed, f"{counts['frames']} frames for {end - before} entries"
        assert cluster.leader is leader, "nobody lost the leadership over it"
        await cluster.stop()

    on_virtual_time(main)


def test_what_waits_for_a_peer_that_reads_nothing_is_bounded() -> None:
    async def main() -> None:
        cluster = NodeCluster(in_flight_size_max=256 << 10)
        await cluster.start()
        leader, paused = cluster.leader, cluster.followers[0]
        cluster.network.pause(paused.name)
        most = 0
        for _ in range(300):
            await cluster.append(*[RECORD_SIZE] * 5)
            most = max(most, on_its_way(leader, [paused]))
        assert most < 2 << 20, "a window, one message more, and heartbeats"
        cluster.network.resume(paused.name)
        await cluster.loop.until(
            lambda: paused.group.raft.last_applied == leader.group.raft.last_applied, limit_s=20
        )
        await cluster.stop()

    on_virtual_time(main)


def test_overload_ends_when_there_is_room_again() -> None:
    async def main() -> None:
        limit = 1 << 20
        cluster = NodeCluster(replicated_log=ReplicatedLogSettings(proposals_size_max=limit))
        await cluster.start()
        log = cluster.leader.log
        taken = [log.propose_append("", block()) for _ in range(limit // RECORD_SIZE)]
        with pytest.raises(Overloaded):
            log.propose_append("", block())
        await asyncio.gather(*taken)
        await log.propose_append("", block())
        await cluster.stop()

    on_virtual_time(main)


def test_a_step_takes_a_part_of_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "INBOX_SIZE_PER_STEP", 100)

    async def main() -> None:
        cluster = NodeCluster()
        await cluster.start()
        group, sender = cluster.leader.group, cluster.followers[0].name
        question = encode(LeadershipQuery(1, 1))
        for _ in range(50):
            group.frame_received(sender, question)
        waiting = len(group.inbox)
        group._step_unguarded()
        taken = waiting - len(group.inbox)
        assert 100 <= taken * len(question) < 100 + len(question)
        await cluster.loop.until(lambda: not len(group.inbox))
        await cluster.stop()

    on_virtual_time(main)
