"""Nodes with real agents of their own: killed agents, killed nodes, keys, names, and programs that are in the way."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from distlog.discovery.serf.agent import RPC_HOST
from distlog.discovery.serf.client import SerfClient
from distlog.discovery.serf.discovery import SerfSettings
from distlog.discovery.serf.errors import AgentFailed
from distlog.discovery.serf.values import AgentMember
from distlog.discovery.view import MemberStatus
from tests.discovery.serf.real_agents import HOST, free_port, needs_serf, real_agent, until
from tests.discovery.serf.world import SerfNode
from tests.discovery.worlds import description_of, moved

pytestmark = needs_serf

ALIVE, FAILED = MemberStatus.ALIVE, MemberStatus.FAILED


class Nodes:
    """Nodes with agents, which are all ended at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.all: list[SerfNode] = []

    def make(
        self, node_id: str, *join: SerfNode, port: int = 0, key: str = "", run: int | None = None
    ) -> SerfNode:
        seeds = [each.agent.gossip_address for each in join]
        made = SerfNode(
            self._directory / node_id,
            description_of(node_id),
            port or free_port(),
            seeds,
            encrypt_key=key,
            run=run,
        )
        self.all.append(made)
        return made

    async def start(self, node_id: str, *join: SerfNode, port: int = 0, key: str = "") -> SerfNode:
        made = self.make(node_id, *join, port=port, key=key)
        await made.start()
        return made

    async def pair(self) -> tuple[SerfNode, SerfNode]:
        n1 = await self.start("n1")
        n2 = await self.start("n2", n1)
        await until(lambda: sees(n1, "n2") and sees(n2, "n1"), "they see each other")
        return n1, n2


def with_nodes(directory: Path, story: Callable[[Nodes], Awaitable[None]]) -> None:
    async def run() -> None:
        nodes = Nodes(directory)
        try:
            async with asyncio.timeout(90):
                await story(nodes)
        finally:
            for each in nodes.all:
                await each.discovery.close()

    asyncio.run(run())


def status(node: SerfNode, node_id: str) -> MemberStatus | None:
    member = node.discovery.members().get(node_id)
    return member.status if member else None


def sees(node: SerfNode, node_id: str) -> bool:
    return status(node, node_id) is ALIVE


async def raw_members(node: SerfNode) -> list[AgentMember]:
    assert node.agent.address is not None
    client = await SerfClient.open(node.network, node.agent.address)
    try:
        return await client.members()
    finally:
        client.close()


def test_an_agent_that_is_killed_is_back_before_anybody_misses_it(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        n1, n2 = await nodes.pair()
        seen: list[MemberStatus | None] = []
        n1.discovery.changed = lambda: seen.append(status(n1, "n2"))
        first = n2.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: n2.agent.running is not None and n2.pid != first, "another agent")
        n2.discovery.announce(moved(description_of("n2"), "elsewhere"))
        await until(
            lambda: n1.discovery.members()["n2"].description.peer_address == "elsewhere:8401",
            "what is said through the next agent is heard",
        )
        await until(lambda: n2.discovery.age_s() < 1.5 and sees(n2, "n1"), "n2 has a view again")
        assert set(seen) == {ALIVE}
        assert n2.agent.restart_count == 1

    with_nodes(tmp_path, story)


def test_the_view_stays_and_ages_while_there_is_no_agent(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        n1, _ = await nodes.pair()
        stopped = n1.pid
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: n1.discovery.age_s() > 2, "the view ages")
        await until(lambda: sees(n1, "n2"), "n2 is seen")
        os.kill(stopped, signal.SIGCONT)
        await until(lambda: n1.discovery.age_s() < 1.5, "the view is true again")

    with_nodes(tmp_path, story)


NODE = """
import asyncio, sys
from pathlib import Path
from tests.discovery.serf.real_agents import free_port
from tests.discovery.serf.world import SerfNode
from tests.discovery.worlds import description_of

async def main():
    node = SerfNode(Path(sys.argv[1]), description_of("n1"), free_port(), [])
    await node.start()
    print(node.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_node_leaves_no_agent_behind(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", NODE, str(tmp_path / "n1")]
    root = Path(__file__).parents[3]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root) as node:
        assert node.stdout is not None
        agent = os.pidfd_open(int(node.stdout.readline()))
        node.kill()
    readable, _, _ = select.select([agent], [], [], 20)
    os.close(agent)
    assert readable, "the agent lives on"


def test_no_key_is_on_a_command_line_and_all_files_are_this_users_alone(tmp_path: Path) -> None:
    key = base64.b64encode(secrets.token_bytes(32)).decode()

    async def story(nodes: Nodes) -> None:
        n1 = await nodes.start("n1", key=key)
        assert n1.agent.address is not None
        arguments = command_line(n1.pid)
        assert key not in arguments
        assert n1.agent.address.auth_key not in arguments
        configuration = json.loads((tmp_path / "n1" / "agent.json").read_text())
        assert configuration["encrypt_key"] == key
        assert "[INFO]" in (tmp_path / "n1" / "output.log").read_text()
        for path in (tmp_path / "n1").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    with_nodes(tmp_path, story)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_only_who_has_the_key_of_the_gossip_is_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, other = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))

    async def story(nodes: Nodes) -> None:
        n1 = await nodes.start("n1", key=key)
        n2 = await nodes.start("n2", n1, key=key)
        n3 = await nodes.start("n3", n1, key=other)
        n4 = await nodes.start("n4", n1)
        await until(lambda: sees(n1, "n2") and sees(n2, "n1"), "those with the key")
        for words in ("No installed keys could decrypt", "encryption is not configured"):
            await until(lambda words=words: words in caplog.text, words)  # type: ignore[misc]
        assert [len(each.discovery.members()) for each in (n3, n4)] == [1, 1]
        assert key not in caplog.text
        assert list(n1.discovery.members()) == ["n1", "n2"]

    with_nodes(tmp_path, story)


@pytest.mark.parametrize("is_missed", [False, True], ids=["at once", "after it was missed"])
def test_the_name_of_an_earlier_run_has_left_and_no_agent_is_held_up_by_that(
    tmp_path: Path, is_missed: bool
) -> None:
    async def story(nodes: Nodes) -> None:
        n1, n2 = await nodes.pair()
        port = int(n2.agent.gossip_address.rpartition(":")[2])
        assert n2.agent.running is not None
        n2.agent.running.kill()
        await n2.discovery.close()
        if is_missed:
            await until(lambda: status(n1, "n2") is FAILED, "n2 is missed")
        again = await nodes.start("n2", n1, port=0 if is_missed else port)
        await until(lambda: n1.discovery.members()["n2"].run == again.run, "the next run is seen")
        names = {f"n1.{n1.run}": "alive", f"n2.{n2.run}": "left", f"n2.{again.run}": "alive"}

        async def is_clean() -> bool:
            assert n1.discovery.age_s() < 4, "the agent of n1 is held up"
            members = await raw_members(n1)
            return {member.name: member.status.value for member in members} == names

        await until(is_clean, "the earlier name has left")
        assert sees(n1, "n2")

    with_nodes(tmp_path, story)


def test_two_agents_of_one_name_harm_nobody_else(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        n1, n2 = await nodes.pair()
        twin = SerfNode(
            tmp_path / "twin",
            description_of("n2", "elsewhere"),
            free_port(),
            [n1.agent.gossip_address],
            run=n2.run,
        )
        nodes.all.append(twin)
        await twin.start()
        # It finds its name taken and ends, with status 0.
        await until(lambda: twin.agent.restart_count > 0, "the twin gives up")
        await until(lambda: sees(n1, "n2"), "n2 is seen")
        assert n1.discovery.members()["n2"].description == description_of("n2")
        assert (n1.agent.restart_count, n2.agent.restart_count) == (0, 0)

    with_nodes(tmp_path, story)


def test_a_gossip_port_that_is_taken_keeps_the_node_from_starting_in_words(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            taken.listen()
            port = int(taken.getsockname()[1])
            with pytest.raises(AgentFailed, match=r"address already in use.*output\.log"):
                await nodes.start("n1", port=port)

    with_nodes(tmp_path, story)


def test_another_agent_at_the_port_of_the_rpc_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(nodes: Nodes) -> None:
        with real_agent(tmp_path, "foreign", rpc_host=RPC_HOST) as foreign:
            (await foreign.client()).close()
            n1 = nodes.make("n1")
            choose = n1.programs.free_port
            chosen = iter([foreign.address.port])
            monkeypatch.setattr(n1.programs, "free_port", lambda host: next(chosen, choose(host)))
            await n1.start()
            assert n1.agent.address is not None
            assert n1.agent.address.port != foreign.address.port
            client = await foreign.client()
            assert [each.name for each in await client.members()] == ["foreign"]
            client.close()

    with_nodes(tmp_path, story)


def test_seeds_may_come_later_and_be_gone_after_that(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        later = free_port()
        n1 = SerfNode(tmp_path / "n1", description_of("n1"), free_port(), [f"{HOST}:{later}"])
        nodes.all.append(n1)
        await n1.start()
        n2 = await nodes.start("n2", port=later)
        await until(lambda: sees(n1, "n2") and sees(n2, "n1"), "they see each other")
        n3 = await nodes.start("n3", n2)
        await until(lambda: sees(n1, "n3") and sees(n3, "n1"), "all see all")
        await n2.discovery.close()
        await n1.discovery.close()
        # Its only seed is gone, and it knows another one by now.
        again = SerfNode(tmp_path / "n1", description_of("n1"), free_port(), [f"{HOST}:{later}"])
        nodes.all.append(again)
        await again.start()
        await until(lambda: sees(again, "n3"), "n1 finds n3 again")

    with_nodes(tmp_path, story)


def test_a_seed_that_was_not_there_is_tried_again_although_others_are(tmp_path: Path) -> None:
    async def story(nodes: Nodes) -> None:
        n2, later = await nodes.start("n2"), free_port()
        seeds = [n2.agent.gossip_address, f"{HOST}:{later}"]
        often = SerfSettings(rejoin_interval_s=0.5)
        n1 = SerfNode(tmp_path / "n1", description_of("n1"), free_port(), seeds, settings=often)
        nodes.all.append(n1)
        await n1.start()
        await until(lambda: sees(n1, "n2"), "the seed that is there")
        # The agent by itself looks for no more, and the newcomer knows nobody.
        await nodes.start("n3", port=later)
        await until(lambda: sees(n1, "n3"), "the seed that came later")

    with_nodes(tmp_path, story)
