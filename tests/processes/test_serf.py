"""Real nodes with real Serf agents: a cluster that they found by them, agents and nodes that are killed, and what people get wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
from pathlib import Path

from tests.discovery.serf.real_agents import RealAgent, free_port, needs_serf, real_agent
from tests.processes.commands import run
from tests.processes.process_cluster import NodeProcess, ProcessCluster, until
from tests.processes.test_bad_input import EXIT_FAILED, EXIT_USAGE, complaint, taken_port
from tests.processes.test_discovery import move
from tests.processes.test_leadership import Writers
from tests.processes.test_membership import MakeGrowing, all_vote, come_by, same_records
from tests.processes.test_membership import make_growing as make_growing

THREE = ("n1", "n2", "n3")


def key_file(directory: Path, text: str = "", mode: int = 0o600) -> Path:
    path = directory / f"key-{secrets.token_hex(4)}"
    path.write_text(text or base64.b64encode(secrets.token_bytes(32)).decode())
    path.chmod(mode)
    return path


def with_agents(cluster: ProcessCluster, key: Path) -> None:
    """Have each node start an agent of its own, and all but n1 find the cluster by them alone."""
    ports = {node.node_id: free_port(node.host) for node in cluster}
    seeds = ",".join(f"{cluster[node_id].host}:{port}" for node_id, port in ports.items())
    for node_id, port in ports.items():
        way = ["--bootstrap"] if node_id == "n1" else []
        listen = f"{cluster[node_id].host}:{port}"
        way += ["--discovery", "serf", "--serf-listen", listen, "--serf-join", seeds]
        come_by(cluster, node_id, *way, "--serf-key-file", str(key))


def agent_of(node: NodeProcess) -> int:
    """Return the process id of a node's agent."""
    (pid,) = Path(f"/proc/{node.process_id}/task/{node.process_id}/children").read_text().split()
    return int(pid)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@needs_serf
def test_nodes_find_each_other_by_their_agents_and_again_when_all_have_moved(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster, key = make_growing(THREE), key_file(tmp_path)
        with_agents(cluster, key)
        cluster.start("n2", "n3")
        await until_said(cluster["n2"], "problem=none was found yet")
        cluster.start("n1")
        await all_vote(cluster, *THREE)
        agents = [agent_of(node) for node in cluster]
        secret = key.read_text()
        assert all(secret not in command_line(pid) for pid in agents)
        await cluster.terminate()
        assert not any(is_there(pid) for pid in agents)
        for node_id in THREE:
            move(cluster, node_id)
        cluster.start()
        await all_vote(cluster, *THREE)
        assert all(secret not in node.says() for node in cluster)

    asyncio.run(scenario())


@needs_serf
def test_killed_agents_cost_a_cluster_nothing_and_killed_nodes_leave_none(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_growing(THREE)
        with_agents(cluster, key_file(tmp_path))
        cluster.start()
        await all_vote(cluster, *THREE)
        term = await term_of(cluster)
        async with Writers(cluster) as writers:
            for node in cluster:
                os.kill(agent_of(node), signal.SIGKILL)
                await until_said(node, "the Serf agent answers again")
            await writers.more(500)
            assert await term_of(cluster) == term
            killed = agent_of(cluster["n3"])
            cluster.kill("n3")

            async def is_gone() -> bool:
                return not is_there(killed)

            await until(is_gone, "the agent of a killed node ends")
            cluster.start("n3")
            await writers.more(200)
        await all_vote(cluster, *THREE)
        await same_records(cluster, writers, *THREE)

    asyncio.run(scenario())


async def term_of(cluster: ProcessCluster) -> int:
    status = await cluster.status(await cluster.leader())
    assert status is not None
    return int(status.term)


async def until_said(node: NodeProcess, words: str) -> None:
    async def said() -> bool:
        return words in node.says()

    await until(said, f"{node.node_id} says {words}")


@needs_serf
def test_agents_that_others_run_are_used_and_left_alone(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    async def scenario() -> None:
        cluster = make_growing(("n1", "n2"))
        with (
            real_agent(tmp_path, "east") as east,
            real_agent(tmp_path, "west", retry_join=[east.gossip]) as west,
        ):
            for node_id, agent, way in (("n1", east, ["--bootstrap"]), ("n2", west, [])):
                auth = key_file(tmp_path, agent.address.auth_key)
                url = f"serf://{agent.address}"
                flags = ["--discovery", url, "--serf-rpc-auth-file", str(auth)]
                come_by(cluster, node_id, *way, *flags)
            cluster.start()
            await all_vote(cluster, "n1", "n2")
            await cluster.terminate()
            assert await states(west) == {"east": "stopped", "west": "stopped"}

    asyncio.run(scenario())


async def states(agent: RealAgent) -> dict[str, str]:
    client = await agent.client()
    members = await client.members()
    client.close()
    return {member.name: member.tags["distlog.state"] for member in members}


SERVE = (
    "--node-id",
    "n1",
    "--listen",
    "127.0.0.1:0",
    "--peer-listen",
    "127.0.0.1:0",
    "--bootstrap",
)


async def serve(data_dir: Path, *flags: str, status: int) -> str:
    return complaint(await run("serve", *SERVE, "--data-dir", str(data_dir), *flags), status)


def test_what_people_get_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        data = tmp_path / "data"
        serf = ("--discovery", "serf", "--serf-listen", "127.0.0.1:0")
        line = await serve(data, *serf, "--serf-program", "surf", status=EXIT_FAILED)
        assert "cannot run surf (there is no such program): install Serf" in line
        open_file = key_file(tmp_path, mode=0o644)
        line = await serve(data, *serf, "--serf-key-file", str(open_file), status=EXIT_USAGE)
        assert f"--serf-key-file: others may read {open_file}" in line
        short = key_file(tmp_path, "c2VjcmV0")
        line = await serve(data, *serf, "--serf-key-file", str(short), status=EXIT_USAGE)
        assert "must hold 32 bytes in base64" in line
        assert "c2VjcmV0" not in line
        url = ("--discovery", f"serf://127.0.0.1:{free_port()}")
        line = await serve(data, *url, "--serf-rpc-auth-file", "absent", status=EXIT_USAGE)
        assert "--serf-rpc-auth-file: absent cannot be read" in line
        long = ("--advertise", "h" * 200 + ":1", "--peer-advertise", "p" * 200 + ":1")
        line = await serve(data, *serf, *long, status=EXIT_FAILED)
        assert "512 are the limit: shorten --node-id" in line

    asyncio.run(scenario())


@needs_serf
def test_an_agent_that_does_not_start_or_does_not_know_the_node_is_said_in_one_line(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        data = tmp_path / "data"
        with taken_port() as taken:
            flags = ("--discovery", "serf", "--serf-listen", taken)
            line = await serve(data, *flags, status=EXIT_FAILED)
        assert "address already in use" in line
        assert f"{data}/serf/output.log has what it said" in line
        with real_agent(tmp_path, "east") as east:
            (await east.client()).close()
            auth = key_file(tmp_path, "wrong")
            url = ("--discovery", f"serf://{east.address}", "--serf-rpc-auth-file", str(auth))
            line = await serve(data, *url, status=EXIT_FAILED)
        assert "does not take the key" in line
        configuration = json.loads((data / "serf" / "agent.json").read_text())
        assert configuration["rpc_auth"] not in line

    asyncio.run(scenario())
