"""A name that stands for the nodes: what its server and the addresses may do wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest
import uvloop

from distlog.discovery.dns import DnsDiscovery, DnsSettings
from distlog.discovery.view import Description, MemberStatus
from distlog.errors import Unreachable
from distlog.runtime import resolve
from tests.discovery.worlds import description_of, pass_time
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

SETTINGS = DnsSettings()


class Names:
    """A name server, and the nodes at the addresses that it gives."""

    def __init__(self) -> None:
        self.hosts: list[str] = ["n1"]
        # Host -> the node that answers there; who is not here does not.
        self.nodes: dict[str, tuple[Description, int]] = {}
        self.problem: OSError | None = None
        self.delay_s = 0.001
        self.resolved_at: list[float] = []
        self.asked_now = 0
        self.asked_at_once_max = 0
        self.asked: list[str] = []

    async def resolve(self, name: str) -> Sequence[str]:
        assert name == "distlog.example"
        self.resolved_at.append(asyncio.get_running_loop().time())
        await pass_time(self.delay_s)
        if self.problem is not None:
            raise self.problem
        return self.hosts

    async def ask(self, address: tuple[str, int], known_as: str = "") -> tuple[Description, int]:
        host, port = address
        assert port == 8400
        assert known_as == "distlog.example", (
            "a certificate names hosts, and the addresses of a name change"
        )
        self.asked.append(host)
        self.asked_now += 1
        self.asked_at_once_max = max(self.asked_at_once_max, self.asked_now)
        await pass_time(0.01)
        self.asked_now -= 1
        if host not in self.nodes:
            raise Unreachable(addresses=host, problem="connection refused")
        return self.nodes[host]

    def put(self, *node_ids: str) -> None:
        """Let the name stand for these nodes, each at an address of its own, and let them answer."""
        self.hosts = list(node_ids)
        self.nodes = {node_id: (description_of(node_id), 7) for node_id in node_ids}


Story = Callable[[Names, DnsDiscovery], Awaitable[None]]


def told(story: Story, settings: DnsSettings = SETTINGS) -> None:
    """Tell a story about n1, on virtual time, from before its start."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        names = Names()
        backend = DnsDiscovery(
            description_of("n1"),
            "distlog.example",
            8400,
            resolve=names.resolve,
            ask=names.ask,
            clock=VirtualClock(loop),
            random=Random(1),
            run=7,
            settings=settings,
        )
        try:
            await story(names, backend)
        finally:
            await backend.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def alive(backend: DnsDiscovery) -> list[str]:
    return [
        node_id for node_id, each in backend.members().items() if each.status is MemberStatus.ALIVE
    ]


SAID = "no node is found by its name: see that the name of --discovery is right and resolves here name=distlog.example"


def test_a_name_server_that_is_away_changes_nothing_but_the_age(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2", "n3")
        await backend.start()
        await pass_time(1)
        assert alive(backend) == ["n1", "n2", "n3"]
        before = backend.members()
        for problem in (OSError("no answer"), OSError("no such name")):
            names.problem = problem
            await pass_time(60)
            assert backend.members() == before
            assert backend.age_s() > 50
        names.problem = None
        await pass_time(2)
        assert backend.age_s() < 2

    with caplog.at_level(logging.WARNING, "distlog.discovery"):
        told(story)
    assert [each.getMessage() for each in caplog.records] == [
        f"{SAID} problem=the name cannot be resolved: no answer",
        f"{SAID} problem=the name cannot be resolved: no such name",
    ]


def test_a_name_server_that_never_answers_is_given_up_and_asked_again() -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.delay_s = 1e6
        await backend.start()
        await pass_time(30)
        assert 4 <= len(names.resolved_at) <= 6
        assert alive(backend) == ["n1"]
        assert backend.age_s() > 29

    told(story)


@pytest.mark.parametrize("hosts", [[], ["n2", "n3"]])
def test_addresses_that_are_none_or_all_silent_say_nothing(hosts: list[str]) -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2", "n3")
        await backend.start()
        await pass_time(1)
        names.hosts, names.nodes = hosts, {}
        await pass_time(40)
        assert alive(backend) == ["n1", "n2", "n3"]
        assert backend.age_s() > 25

    told(story)


def test_who_is_not_found_any_more_or_does_not_answer_is_failed() -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2", "n3")
        await backend.start()
        await pass_time(1)
        names.hosts.remove("n2")
        del names.nodes["n3"]
        await pass_time(12)
        assert alive(backend) == ["n1"]
        assert {each.status for each in backend.members().values()} == {
            MemberStatus.ALIVE,
            MemberStatus.FAILED,
        }
        assert backend.age_s() < 12
        await pass_time(2_900)
        assert len(backend.members()) == 3
        await pass_time(200)
        assert list(backend.members()) == ["n1"]

    told(story, DnsSettings(forget_after_s=3_000.0))


def test_a_node_at_a_new_address_is_seen_there() -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2")
        await backend.start()
        await pass_time(1)
        names.hosts = ["n1", "10.0.0.7"]
        names.nodes["10.0.0.7"] = (description_of("n2", "10.0.0.7"), 8)
        await pass_time(12)
        assert backend.members()["n2"].description.peer_address == "10.0.0.7:8401"
        assert backend.members()["n2"].run == 8
        assert not backend.conflicts()

    told(story)


def test_the_name_is_resolved_every_ten_seconds_and_so_many_addresses_are_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put(*(f"n{number}" for number in range(1, 101)))
        await backend.start()
        await pass_time(60)
        looks = len(names.resolved_at)
        assert 6 <= looks <= 7
        assert len(names.asked) == looks * SETTINGS.address_count_max
        assert names.asked_at_once_max == SETTINGS.asked_at_once_max

    with caplog.at_level(logging.WARNING, "distlog.discovery"):
        told(story)
    assert len(caplog.records) == 1
    assert "it stands for 100 addresses: the first 64 are asked" in caplog.text


def test_the_system_resolves_names_and_says_what_is_none() -> None:
    async def resolved() -> None:
        assert await resolve("127.0.0.1") == ["127.0.0.1"]
        assert await resolve("::1") == ["::1"]
        assert {"127.0.0.1", "::1"} & set(await resolve("localhost"))
        for name in ("a..b", "x" * 64 + ".example"):
            with pytest.raises(OSError, match=r"[a-z]"):
                await resolve(name)

    asyncio.run(resolved())
    uvloop.run(resolved())


def test_one_node_at_two_addresses_is_one_node() -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2")
        names.hosts.append("::2")
        names.nodes["::2"] = names.nodes["n2"]
        await backend.start()
        await pass_time(1)
        assert alive(backend) == ["n1", "n2"]
        assert not backend.conflicts()

    told(story)


def test_two_nodes_with_one_id_are_said_until_one_of_them_is_gone() -> None:
    async def story(names: Names, backend: DnsDiscovery) -> None:
        names.put("n1", "n2")
        names.hosts.append("twin")
        names.nodes["twin"] = (description_of("n2", "twin"), 9)
        await backend.start()
        await pass_time(1)
        assert list(backend.conflicts()) == ["n2"]
        assert backend.members()["n2"].run == 9, "the later one counts"
        names.hosts.remove("twin")
        await pass_time(12)
        assert not backend.conflicts()

    told(story)
