"""Frames that are in no hurry: they wake nobody, arrive in time, and are in nobody's way."""

from __future__ import annotations

from distlog.peer.frames import Channel
from distlog.peer.limits import PeerLimits
from tests.peer.nodes import World, simulate

MIB = 1 << 20


def test_a_frame_in_no_hurry_goes_with_the_next_one_and_alone_after_a_while() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        assert first.peers.send_later("n2", Channel.GOSSIP, 0, b"when you can")
        await world.loop.pass_time(0.1)
        assert second.owner.payloads("n1") == []
        assert first.send("n2", b"now")
        await world.loop.until(lambda: second.owner.payloads("n1") == [b"when you can", b"now"])
        assert first.peers.send_later("n2", Channel.GOSSIP, 0, b"alone")
        queued_at = world.loop.time()
        await world.loop.until(lambda: second.owner.payloads("n1")[-1] == b"alone")
        assert world.loop.time() - queued_at <= PeerLimits().silence_max_s / 4 + 0.1
        assert not first.peers.send_later("n3", Channel.GOSSIP, 0, b"to nobody")

    simulate(main)


def test_a_frame_in_no_hurry_is_in_nobodys_way() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        assert first.peers.send_later("n2", Channel.GOSSIP, 0, b"small")
        assert first.send("n2", b"x" * (32 * MIB)), "as it would be with an empty queue"
        await world.loop.until(lambda: len(second.owner.payloads("n1")) == 2)

    simulate(main)
