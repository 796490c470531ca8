"""What every backend of discovery does, and what one of them cannot: the same stories for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distlog.discovery.view import Discovery, MemberStatus
from tests.discovery.serf.real_agents import needs_serf
from tests.discovery.serf.world import on_real_time
from tests.discovery.worlds import (
    CLUSTER_ID,
    DnsWorld,
    GossipWorld,
    StaticWorld,
    World,
    description_of,
    moved,
    on_virtual_time,
)

ALIVE, FAILED, LEFT = MemberStatus.ALIVE, MemberStatus.FAILED, MemberStatus.LEFT
Story = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend and how a story about it is run."""

    name: str
    run: Callable[[Story], None]


def virtual(name: str, world: Callable[[], World]) -> Backend:
    return Backend(name, lambda story: on_virtual_time(world, story))


BACKENDS = {
    "static": virtual("static", StaticWorld),
    "dns": virtual("dns", DnsWorld),
    "gossip": virtual("gossip", GossipWorld),
}


@pytest.fixture(params=[*BACKENDS, pytest.param("serf", marks=needs_serf)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    found = BACKENDS.get(request.param)
    # The world of the last one is made of processes and files, and of real time.
    return found or Backend("serf", lambda story: on_real_time(tmp_path, story))


def status(discovery: Discovery, node_id: str) -> MemberStatus | None:
    member = discovery.members().get(node_id)
    return member.status if member is not None else None


def statuses_of(discovery: Discovery, node_id: str) -> list[MemberStatus | None]:
    """Return a list to which each status that a node gets from now on is added, by looking when a change is told."""
    seen = [status(discovery, node_id)]

    def look() -> None:
        if status(discovery, node_id) != seen[-1]:
            seen.append(status(discovery, node_id))

    discovery.changed = look
    return seen


async def started(world: World, *node_ids: str) -> list[Discovery]:
    """Start nodes, and wait until each sees all of them."""
    nodes = [await world.start(node_id) for node_id in node_ids]

    def is_complete() -> bool:
        return all(status(each, node_id) is ALIVE for each in nodes for node_id in node_ids)

    await world.until(is_complete, "all see all")
    return nodes


def test_a_node_sees_itself_at_once(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1 = await world.start("n1")
        own = n1.members()["n1"]
        assert own.status is ALIVE
        assert own.description == description_of("n1")
        assert own.run > 0
        assert n1.age_s() < 60
        assert n1.conflicts() == {}

    backend.run(story)


def test_a_node_that_starts_is_seen_by_the_others_and_they_are_told(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, _ = await started(world, "n1", "n2")
        seen = statuses_of(n1, "n3")
        n3 = await world.start("n3")
        await world.until(lambda: status(n1, "n3") is ALIVE, "n1 sees n3")
        assert seen == ([None, ALIVE] if world.powers.sees_joins else [ALIVE])
        await world.until(lambda: status(n3, "n1") is ALIVE, "n3 sees n1")
        if world.powers.hears_others:
            assert n1.members()["n3"].description == description_of("n3")
            assert n1.members()["n3"].run == n3.members()["n3"].run
        else:
            assert n1.members()["n3"].description.peer_address == "n3:8401"
            assert n1.members()["n3"].description.directory_id == ""

    backend.run(story)


def test_what_a_node_announces_is_seen_by_the_others_and_is_no_change_of_status(
    backend: Backend,
) -> None:
    async def story(world: World) -> None:
        n1, n2 = await started(world, "n1", "n2")
        changes = []
        n1.changed = lambda: changes.append(n1.members())
        before = n1.members()["n2"]
        n2.announce(moved(description_of("n2"), "elsewhere"))
        assert n2.members()["n2"].description.peer_address == "elsewhere:8401"
        if not world.powers.hears_others:
            await world.elapse(60)
            assert n1.members()["n2"] == before
            assert changes == []
            return

        def is_seen() -> bool:
            return n1.members()["n2"].description == n2.members()["n2"].description

        await world.until(is_seen, "n1 sees the new address")
        assert changes[-1] == n1.members()
        after = n1.members()["n2"]
        assert (after.status, after.since) == (before.status, before.since)
        assert before.description.peer_address == "n2:8401", "a view that was given does not change"

    backend.run(story)


def test_a_node_that_is_killed_is_failed_and_never_left(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2, _ = await started(world, "n1", "n2", "n3")
        seen, since = statuses_of(n1, "n3"), n1.members()["n3"].since
        await world.kill("n3")
        if not world.powers.sees_failures:
            await world.elapse(10_000)
            assert seen == [ALIVE]
            return
        await world.until(lambda: status(n1, "n3") is FAILED, "n1 misses n3")
        await world.until(lambda: status(n2, "n3") is FAILED, "n2 misses n3")
        assert seen == [ALIVE, FAILED]
        assert n1.members()["n3"].since > since
        assert n1.members()["n3"].description.directory_id == "directory-n3"
        assert status(n1, "n2") is ALIVE

    backend.run(story)


def test_a_node_that_comes_back_is_alive_in_a_greater_run(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2 = await started(world, "n1", "n2")
        run, own_run = n1.members()["n2"].run, n2.members()["n2"].run
        await world.kill("n2")
        if world.powers.sees_failures:
            await world.until(lambda: status(n1, "n2") is FAILED, "n1 misses n2")
        n2 = await world.start("n2")
        await world.until(lambda: status(n1, "n2") is ALIVE, "n1 sees n2 again")
        await world.until(lambda: status(n2, "n1") is ALIVE, "n2 sees n1 again")
        assert n2.members()["n2"].run > own_run
        if world.powers.hears_others:
            assert n1.members()["n2"].run > run

    backend.run(story)


def test_a_restart_before_anybody_misses_the_node_shows_as_another_run(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, _ = await started(world, "n1", "n2")
        run, seen = n1.members()["n2"].run, statuses_of(n1, "n2")
        await world.kill("n2")
        await world.start("n2")
        if world.powers.hears_others:
            await world.until(lambda: n1.members()["n2"].run > run, "n1 sees the next run")
        assert FAILED not in seen or seen[-1] is ALIVE
        assert LEFT not in seen

    backend.run(story)


def test_a_node_that_leaves_has_left_and_may_come_again(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2, n3 = await started(world, "n1", "n2", "n3")
        seen = statuses_of(n1, "n3")
        await n3.leave()
        await world.kill("n3")
        if world.powers.sees_leaving:
            await world.until(lambda: status(n1, "n3") is LEFT, "n1 sees n3 leave")
            await world.until(lambda: status(n2, "n3") is LEFT, "n2 sees n3 leave")
            assert FAILED not in seen
        elif world.powers.sees_failures:
            await world.until(lambda: status(n1, "n3") is FAILED, "n1 misses n3")
            assert LEFT not in seen
        else:
            assert status(n1, "n3") is ALIVE
        await world.start("n3")
        await world.until(lambda: status(n1, "n3") is ALIVE, "n3 is back")

    backend.run(story)


def test_a_failed_node_can_be_forgotten_and_an_alive_one_cannot(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2, _ = await started(world, "n1", "n2", "n3")
        n1.forget("n2")
        n1.forget("nobody")
        assert status(n1, "n2") is ALIVE
        assert "nobody" not in n1.members()
        await world.kill("n3")
        if not world.powers.sees_failures:
            n1.forget("n3")
            assert status(n1, "n3") is ALIVE
            return
        await world.until(lambda: status(n1, "n3") is FAILED, "n1 misses n3")
        await world.until(lambda: status(n2, "n3") is FAILED, "n2 misses n3")
        n1.forget("n3")
        if world.powers.forgets:
            await world.until(lambda: status(n1, "n3") is LEFT, "n1 counts it as left")
        if world.powers.forgets_everywhere:
            await world.until(lambda: status(n2, "n3") is LEFT, "n2 hears that it counts as left")
        else:
            assert status(n2, "n3") is FAILED
        await world.start("n3")
        await world.until(lambda: status(n1, "n3") is ALIVE, "it was not gone after all")

    backend.run(story)


def test_the_view_ages_while_its_source_is_away_and_nobody_leaves_by_that(
    backend: Backend,
) -> None:
    async def story(world: World) -> None:
        n1, _ = await started(world, "n1", "n2")
        seen = statuses_of(n1, "n2")
        world.cut_off("n1")
        if not world.powers.ages:
            await world.elapse(100)
            assert n1.age_s() == 0
            return
        await world.until(lambda: n1.age_s() > 12, "the view ages")
        assert status(n1, "n1") is ALIVE
        assert status(n1, "n2") is (FAILED if world.powers.fails_alone else ALIVE)
        world.reconnect("n1")
        await world.until(lambda: n1.age_s() < 2, "the view is true again")
        await world.until(lambda: status(n1, "n2") is ALIVE, "n2 was there all the time")
        assert LEFT not in seen

    backend.run(story)


def test_a_backend_that_is_closed_tells_nothing_more(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2 = await started(world, "n1", "n2")
        changes = []
        n1.changed = lambda: changes.append("changed")
        await world.kill("n1")
        n2.announce(moved(description_of("n2"), "elsewhere"))
        await n1.close()
        await world.start("n3")
        await world.until(lambda: status(n2, "n3") is ALIVE, "n2 sees n3")
        assert changes == []

    backend.run(story)


def test_two_nodes_with_one_id_are_an_error_that_names_both(backend: Backend) -> None:
    async def story(world: World) -> None:
        n1, n2, _ = await started(world, "n1", "n2", "n3")
        twin = await world.start_twin("n2")
        if not world.powers.sees_conflicts:
            await world.elapse(100)
            assert not any(each.conflicts() for each in (n1, n2, twin))
            return
        await world.until(lambda: "n2" in twin.conflicts(), "the later one is told")
        await world.until(lambda: "n2" in n1.conflicts(), "others see it")
        for each in (twin, n1):
            assert list(each.conflicts()) == ["n2"]
            assert "directory-n2-twin" in each.conflicts()["n2"]
            assert "--node-id" in each.conflicts()["n2"]
        assert status(n1, "n3") is ALIVE
        assert {each.description.cluster_id for each in n1.members().values()} == {CLUSTER_ID}

    backend.run(story)
