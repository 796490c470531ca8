"""PeerNetwork on virtual time: connections come, stay single, are replaced, and end; frames travel in order."""

from __future__ import annotations

from functools import partial

import pytest

from distlog.errors import AddressUnavailable, PeerRefused
from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.peer.limits import ChannelLimits
from tests.peer.nodes import PORT, PeerNode, World, limits, simulate

MIB = 1 << 20


@pytest.mark.seeds(20)
def test_nodes_that_dial_each_other_at_once_end_up_with_one_connection(seed: int) -> None:
    async def main(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            await world.started(name)
        await world.connected("n1", "n2", "n3")
        # SYN, its answer, two greetings, Accepted: nobody had to dial twice.
        assert world.loop.time() <= 5 * 0.05
        await world.loop.pass_time(5)
        for node in world.nodes.values():
            assert len(node.owner.changes) == 2, "nobody was disconnected on the way"
            assert node.peers.counters["connections_opened"] == 2
        assert world.network.connection_count == 3

    simulate(main, seed, delay_s=(0.0001, 0.05))


def test_frames_arrive_in_order_on_their_channel_and_group() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        frames = [
            (Channel((i % 3) + 1), i * 1_000_003 % 2**32, b"%d" % i * (i % 50)) for i in range(500)
        ]
        for frame in frames:
            assert first.peers.send("n2", *frame)
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 500)
        assert second.owner.received["n1"] == [frames]
        assert second.peers.counters["frames_received"] == 500
        assert first.peers.counters["frames_sent"] == 500

    simulate(main, piece_size_max=100)


def test_what_is_sent_in_one_step_leaves_in_one_write() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        arrivals: list[float] = []
        second.owner.on_frame = lambda *_: arrivals.append(world.loop.time())
        for number in range(100):
            first.send("n2", b"%d" % number)
        await world.loop.until(lambda: len(arrivals) == 100)
        assert len(set(arrivals)) == 1

    simulate(main)


def test_flush_does_not_wait_for_the_end_of_the_step() -> None:
    async def main(world: World) -> None:
        first, _ = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        before = first.peers.counters["bytes_sent"]
        first.send("n2", b"x" * 84)
        assert first.peers.counters["bytes_sent"] == before
        first.peers.flush()
        assert first.peers.counters["bytes_sent"] == before + 100

    simulate(main)


def test_send_never_calls_back_and_says_when_nobody_is_there() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        assert not first.send("n2", b"too early")
        await world.connected("n1", "n2")
        assert not first.send("n1", b"to itself")
        assert not first.send("n9", b"to nobody")

        def echo(node_id: str, payload: bytes) -> None:
            assert second.send(node_id, b"echo " + payload)

        second.owner.on_frame = echo
        first.send("n2", b"one")
        first.send("n2", b"two")
        await world.loop.until(lambda: len(first.owner.payloads("n2")) == 2)
        assert first.owner.payloads("n2") == [b"echo one", b"echo two"]
        await second.peers.stop()
        await world.loop.until(lambda: not first.owner.connected)
        assert not first.send("n2", b"too late")

    simulate(main)


def test_a_peer_that_died_without_a_word_is_replaced_at_once_when_it_dials_again() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        await world.loop.pass_time(2)
        world.network.host_down("n2")
        second.peers.abandon()
        await world.loop.pass_time(1)
        assert first.owner.connected == {"n2"}, "nobody told n1"
        world.network.host_up("n2")
        back = await world.started("n2")
        started_at = world.loop.time()
        await world.loop.until(lambda: back.owner.connected == {"n1"})
        await world.connected("n1", "n2")
        assert world.loop.time() - started_at < 0.05
        assert first.owner.changes == [
            ("connected", "n2"),
            ("disconnected", "n2"),
            ("connected", "n2"),
        ]
        first.send("n2", b"to the new one")
        await world.loop.until(lambda: back.owner.payloads("n1") == [b"to the new one"])
        assert not second.owner.payloads("n1")

    for seed in range(5):
        simulate(main, seed)


@pytest.mark.parametrize("loser", ["n1", "n2"])
def test_a_peer_that_lost_its_end_is_taken_back_at_once(loser: str) -> None:
    keeper = "n2" if loser == "n1" else "n1"

    async def main(world: World) -> None:
        await world.started("n1")
        await world.started("n2")
        await world.connected("n1", "n2")
        await world.loop.pass_time(2)
        world.nodes[keeper].send(loser, b"lost" * 100_000)
        world.network.break_connections("n1", "n2", noticed_by=[loser], notice_s=0.0)
        broken_at = world.loop.time()
        await world.loop.until(lambda: len(world.nodes[keeper].owner.changes) == 3)
        assert world.loop.time() - broken_at < 0.1
        await world.connected("n1", "n2")
        world.nodes[keeper].send(loser, b"new")
        await world.loop.until(lambda: world.nodes[loser].owner.payloads(keeper)[-1:] == [b"new"])
        assert len(world.nodes[loser].owner.received[keeper]) == 2

    for seed in range(5):
        simulate(main, seed)


def test_nothing_of_an_older_connection_arrives_behind_one_of_a_newer() -> None:
    """The bytes of the old connection wait in the network while the peer connects anew."""

    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        world.network.block("n2", "n1")
        second.send("n1", b"old")
        await world.loop.pass_time(0.01)
        second.peers.restart_connections()
        await world.loop.pass_time(0.1)
        world.network.unblock("n2", "n1")
        await world.loop.until(lambda: second.owner.changes[2:] == [("connected", "n1")])
        second.send("n1", b"new")
        await world.loop.until(lambda: first.owner.payloads("n2")[-1:] == [b"new"])
        await world.loop.pass_time(5)
        # Old frames in the old period or not at all; the new period begins with what was sent in it.
        assert [frame[2] for frame in first.owner.received["n2"][-1]] == [b"new"]

    for seed in range(10):
        simulate(main, seed)


def test_a_dead_connection_is_given_up_after_a_while_of_silence() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        await world.loop.pass_time(60)
        assert len(first.owner.changes) == 1, "quiet connections stay"
        world.network.break_connections("n1", "n2", noticed_by=[])
        await world.loop.until(lambda: len(first.owner.changes) == 3, limit_s=10)
        await world.connected("n1", "n2")
        counters = (first.peers.counters, second.peers.counters)
        assert sum(each["connections_silent"] for each in counters) >= 1

    simulate(main)


def test_a_connection_outlives_a_short_stall_without_losing_anything() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        world.network.partition(["n1"], ["n2"])
        for number in range(40):
            first.send("n2", b"%d" % number)
            await world.loop.pass_time(0.1)
        world.network.heal()
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 40)
        assert second.owner.changes == [("connected", "n1")]

    simulate(main)


def test_a_peer_that_does_not_read_costs_its_queue_and_no_more() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        world.network.block("n1", "n2")
        chunk = b"x" * MIB
        accepted = 0
        for _ in range(100):
            accepted += first.send("n2", chunk)
            await world.loop.pass_time(0.001)
        # The queue's limit, and what the kernel's buffers would take.
        assert accepted == 32
        assert 31 * MIB < first.peers.waiting_size("n2") <= 32 * MIB
        assert first.peers.counters["frames_turned_away"] == 68
        assert first.peers.send("n2", Channel.RAFT, 0, b"small")
        assert not first.peers.send("n2", Channel.FILES, 0, b"small"), "bulk gives way to Raft"
        assert not first.peers.send("n2", Channel.GOSSIP, 0, b"small")
        world.network.unblock("n1", "n2")
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == accepted + 1)
        assert first.peers.waiting_size("n2") == 0
        assert first.send("n2", chunk)

    simulate(main)


def test_the_queue_is_limited_within_one_step_as_well() -> None:
    small = limits(raft=ChannelLimits(frame_size_max=1000, queue_size_max=10_000))

    async def main(world: World) -> None:
        first, second = await world.started("n1", limits=small), await world.started("n2")
        await world.connected("n1", "n2")
        assert sum(first.send("n2", b"x" * 984) for _ in range(20)) == 10
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 10)
        assert sum(first.send("n2", b"x" * 984) for _ in range(20)) == 10

    simulate(main)


def test_a_frame_as_large_as_the_queue_passes_when_the_queue_is_empty() -> None:
    small = limits(raft=ChannelLimits(frame_size_max=32 * MIB, queue_size_max=1000))

    async def main(world: World) -> None:
        first, second = await world.started("n1", limits=small), await world.started("n2")
        await world.connected("n1", "n2")
        assert first.send("n2", b"x" * (32 * MIB))
        assert not first.send("n2", b"y")
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 1)

    simulate(main)


def test_an_address_that_does_not_answer_is_dialled_less_and_less_often() -> None:
    async def main(world: World) -> None:
        node = await world.started("n1", "n1 n2")
        await world.loop.pass_time(1)
        assert 4 <= node.peers.counters["dials_failed"] <= 9
        await world.loop.pass_time(20)
        before = node.peers.counters["dials_failed"]
        await world.loop.pass_time(20)
        assert 20 <= node.peers.counters["dials_failed"] - before <= 41
        # The peer that comes up dials by itself: nobody waits for the other's delay.
        await world.started("n2")
        await world.loop.until(lambda: node.owner.connected == {"n2"}, limit_s=0.1)

    simulate(main)


def test_a_dial_into_silence_is_given_up_in_time() -> None:
    async def main(world: World) -> None:
        world.network.block("n1", "n2")
        await world.started("n2", "n2")
        node = await world.started("n1", "n1 n2")
        await world.loop.pass_time(10)
        assert 3 <= node.peers.counters["dials_failed"] <= 5

    simulate(main)


def test_a_peer_that_accepts_and_hangs_up_is_not_hammered() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        second.owner.peer_connected = lambda node_id: second.peers.refuse(  # type: ignore[method-assign]
            node_id, PeerRefused(node_id, "I am leaving")
        )
        second.owner.peer_disconnected = lambda node_id: None  # type: ignore[method-assign]
        await world.loop.pass_time(20)
        assert len(first.owner.changes) <= 2 * 40
        assert first.peers.counters["refused_by_peer"] >= 10

    simulate(main)


def test_a_refused_peer_is_told_and_hears_nothing_more() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")

        def on_frame(node_id: str, payload: bytes) -> None:
            second.peers.refuse(node_id, PeerRefused(node_id, "no such group"))
            assert node_id in second.owner.connected, "told in the next step, not in this event"

        second.owner.on_frame = on_frame
        for number in range(10):
            first.send("n2", b"%d" % number)
        await world.loop.until(lambda: len(first.owner.changes) == 2)
        assert second.owner.payloads("n1") == [b"0"]
        assert second.owner.changes[-1] == ("disconnected", "n1")
        assert first.peers.counters["refused_by_peer"] == 1
        refused_at = world.loop.time()
        await world.connected("n1", "n2")
        assert 0.9 < world.loop.time() - refused_at < 1.5

    simulate(main)


def test_stop_sends_what_is_queued_closes_everything_and_says_so() -> None:
    async def main(world: World) -> None:
        first, second, third = [await world.started(name) for name in ("n1", "n2", "n3")]
        await world.connected("n1", "n2", "n3")
        for number in range(100):
            first.send("n2", b"x" * 10_000 + b"%d" % number)
        began_at = world.loop.time()
        await first.peers.stop()
        assert world.loop.time() - began_at <= 1.0
        assert not first.owner.connected
        assert not first.peers.connected_ids
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 100)
        await world.loop.pass_time(5)
        assert second.owner.connected == third.owner.connected - {"n2"} | {"n3"}
        assert world.network.connection_count == 1

    simulate(main)


def test_stop_does_not_wait_for_a_peer_that_does_not_read() -> None:
    async def main(world: World) -> None:
        first, _ = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        world.network.block("n1", "n2")
        first.send("n2", b"x" * (4 * MIB))
        began_at = world.loop.time()
        await first.peers.stop()
        assert world.loop.time() - began_at <= 1.0
        assert not first.owner.connected

    simulate(main)


def test_stop_during_dials_and_handshakes_leaves_nothing_behind() -> None:
    async def main(world: World) -> None:
        await world.started("n2")
        for delay_s in (0.0, 0.0005, 0.001, 0.0015, 0.002, 0.003):
            node = await world.started("n1")
            await world.loop.pass_time(delay_s)
            await node.peers.stop()
            assert not node.owner.connected
        await world.loop.pass_time(1)
        assert world.network.connection_count == 0

    simulate(main)


def test_an_abandoned_network_says_nothing_to_anybody() -> None:
    async def main(world: World) -> None:
        first, _ = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        first.peers.abandon()
        assert not first.send("n2", b"x")
        await world.loop.pass_time(5)
        assert first.owner.changes == [("connected", "n2")]
        first.owner.connected.clear()

    simulate(main)


@pytest.mark.parametrize(
    "event", ["hello_received", "peer_connected", "peer_disconnected", "frame_received"]
)
@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_network_may_be_abandoned_within_any_event(event: str, name: str) -> None:
    async def main(world: World) -> None:
        nodes = [world.node("n1"), world.node("n2")]
        node = world.nodes[name]
        abandoned_at: list[int] = []

        def abandon(*_: object) -> None:
            node.peers.abandon()
            abandoned_at.append(len(node.owner.changes))

        setattr(node.owner, event, abandon)
        for each in nodes:
            await each.peers.start()
        for _ in range(3):
            await world.loop.pass_time(0.5)
            for sender, receiver in (("n1", "n2"), ("n2", "n1")):
                world.nodes[sender].send(receiver, b"one")
                world.nodes[sender].send(receiver, b"two")
            await world.loop.pass_time(0.5)
            world.network.break_connections("n1", "n2")
        assert abandoned_at == [len(node.owner.changes)], "abandoned once, and silent from then on"
        node.owner.connected.clear()

    simulate(main)


def test_an_address_in_use_says_what_to_do() -> None:
    async def main(world: World) -> None:
        await world.started("n1")
        with pytest.raises(AddressUnavailable) as raised:
            await world.started("n1")
        assert f"n1:{PORT}" in str(raised.value)
        assert "--peer-listen" in str(raised.value)

    simulate(main)


# --- forming ----------------------------------------------------------------------------------------


def test_nodes_without_a_cluster_hear_of_each_other_and_do_not_speak() -> None:
    async def main(world: World) -> None:
        nodes = [await world.started(name, cluster_id="") for name in ("n1", "n2", "n3")]
        await world.loop.pass_time(5)
        for node in nodes:
            assert {hello.node_id for hello in node.owner.hellos} == {"n1", "n2", "n3"} - {
                node.hello.node_id
            }
            assert not node.owner.changes
            assert not node.send("n1", b"x")
        assert nodes[0].peers.hello_of("n2") == nodes[1].hello
        assert world.network.connection_count == 3

    simulate(main)


@pytest.mark.seeds(20)
def test_a_cluster_that_forms_by_its_hellos_connects_everybody(seed: int) -> None:
    """Each node forms within `hello_received` as soon as it has heard all, or one that is formed."""

    def form(node: PeerNode, _: Hello) -> None:
        heard = {hello.node_id for hello in node.owner.hellos}
        formed = any(hello.cluster_id for hello in node.owner.hellos)
        if (len(heard) == 2 or formed) and not node.hello.cluster_id:
            node.become(cluster_id="c")
            node.peers.restart_connections()

    async def main(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            node = world.node(name, cluster_id="")
            node.owner.on_hello = partial(form, node)
            await world.loop.pass_time(world.random.random())
            await node.peers.start()
        began_at = world.loop.time()
        await world.connected("n1", "n2", "n3")
        assert world.loop.time() - began_at < 0.5
        await world.loop.pass_time(5)
        assert world.network.connection_count == 3

    simulate(main, seed)


def test_restart_shakes_hands_again_with_what_the_node_says_now() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        first.become(client_address="elsewhere:8400")
        first.peers.restart_connections()
        await world.loop.until(lambda: len(first.owner.changes) == 3)
        await world.connected("n1", "n2")
        hello = second.peers.hello_of("n1")
        assert hello is not None
        assert hello.client_address == "elsewhere:8400"
        assert second.owner.hellos[-1] == first.hello

    simulate(main)
