"""Peers that come, go and move while a network runs, and two processes that call themselves the same."""

from __future__ import annotations

import pytest

from tests.peer.nodes import PORT, World, simulate


def test_a_node_that_was_not_known_is_dialled_as_soon_as_it_is() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1 n2")
        second = await world.started("n2", "n2")
        second.expected["n1"] = ""
        third = await world.started("n3", "n3")
        third.expected["n1"] = first.expected["n3"] = ""
        await world.connected("n1", "n2")
        began_at = world.loop.time()
        first.peers.locate("n3", ("n3", PORT))
        await world.connected("n1", "n3")
        assert world.loop.time() - began_at < 0.1
        assert first.peers.directory_of("n3") == "directory-of-n3"

    simulate(main)


def test_a_node_that_moved_is_dialled_at_its_new_address() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1 n2", at={"n2": "nowhere"})
        second = await world.started("n2", "n2")
        second.expected["n1"] = ""
        await world.loop.pass_time(5)
        assert not first.owner.connected
        first.peers.locate("n2", ("n2", PORT))
        await world.connected("n1", "n2")
        opened = first.peers.counters["connections_opened"]
        first.peers.locate("n2", ("n2", PORT))
        first.peers.locate("n2", ("elsewhere", PORT))
        await world.loop.pass_time(5)
        assert first.peers.counters["connections_opened"] == opened, "what is connected stays"

    simulate(main)


def test_a_node_that_is_forgotten_is_not_dialled_any_more() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1 n2", at={"n2": "nowhere"})
        await world.loop.pass_time(2)
        first.peers.forget("n2")
        failed = first.peers.counters["dials_failed"]
        await world.loop.pass_time(10)
        assert first.peers.counters["dials_failed"] <= failed + 1
        first.peers.forget("n2")
        first.peers.forget("n9")

    simulate(main)


def test_a_node_that_waits_hears_at_once_what_a_member_says_now() -> None:
    async def main(world: World) -> None:
        member, waiting = await world.started("n1"), await world.started("n2", cluster_id="")
        await world.loop.pass_time(3)
        assert not waiting.owner.connected
        heard = len(waiting.owner.hellos)
        member.become(members={"n2": "directory-of-n2"})
        began_at = world.loop.time()
        member.peers.greet_again("n2")
        await world.loop.until(lambda: len(waiting.owner.hellos) > heard)
        assert waiting.owner.hellos[-1].members == {"n2": "directory-of-n2"}
        assert world.loop.time() - began_at < 0.1

    simulate(main)


def test_a_connection_that_is_open_is_not_greeted_again() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1")
        await world.started("n2")
        await world.connected("n1", "n2")
        first.peers.greet_again("n2")
        first.peers.greet_again("n9")
        await world.loop.pass_time(2)
        assert first.owner.changes == [("connected", "n2")]

    simulate(main)


def test_a_process_that_another_one_has_followed_is_refused_when_it_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(world: World) -> None:
        member = await world.started("n1")
        original = await world.started("n2")
        await world.connected("n1", "n2")
        copy = await world.started("n2b", node_id="n2", directory_id="directory-of-n2")
        await world.loop.until(lambda: "n1" in copy.owner.connected)
        await world.loop.pass_time(10)
        assert "n1" in copy.owner.connected, "the later one stays"
        assert "n1" not in original.owner.connected
        assert member.owner.changes.count(("connected", "n2")) == 2, "and nobody is let in in turns"
        await copy.peers.stop()
        del world.nodes["n2b"]
        await world.loop.pass_time(10)
        assert "n1" not in original.owner.connected, "only a new process may come now"

    simulate(main)
    told = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert any("one of the two directories is a copy" in each for each in told)


def test_a_process_that_is_started_again_is_taken_every_time() -> None:
    async def main(world: World) -> None:
        member = await world.started("n1")
        for count in range(1, 25):
            again = await world.started("n2")
            await world.connected("n1", "n2")
            assert member.owner.changes.count(("connected", "n2")) == count
            await again.peers.stop()
            await world.loop.until(lambda: not member.owner.connected)

    simulate(main)
