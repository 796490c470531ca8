"""What is secret stays so: it is in the file that the operator gave and in the agent's own, and nowhere that others can look."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.discovery.serf.real_agents import needs_serf
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import ProcessCluster
from tests.processes.test_membership import MakeGrowing, all_vote
from tests.processes.test_membership import make_growing as make_growing
from tests.processes.test_serf import agent_of, key_file, with_agents


@contextmanager
def open_umask() -> Iterator[None]:
    """Make files that a process creates readable to everybody, unless it sees to that itself."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def readable_by_others(directory: Path) -> list[str]:
    return [
        f"{path} {stat.S_IMODE(path.lstat().st_mode):04o}"
        for path in (directory, *directory.rglob("*"))
        if stat.S_IMODE(path.lstat().st_mode) & 0o007
    ]


def test_nothing_that_a_node_keeps_is_readable_by_others_whatever_the_umask(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(("n1",), "--checkpoint-interval-s", "0.2")

    async def main() -> None:
        with open_umask():
            cluster.start()
        server = cluster["n1"].address
        assert (await run("produce", "--server", server, given=b"secret record\n")).status == 0
        await cluster.terminate()
        # A checkpoint, and the files of a restart.
        with open_umask():
            cluster.start()
        await cluster.leader()
        assert readable_by_others(cluster["n1"].data_dir) == []
        await cluster.terminate()

    asyncio.run(main())


@needs_serf
def test_no_key_is_in_a_log_a_process_table_an_answer_or_a_file_that_others_may_read(
    make_growing: MakeGrowing, tmp_path: Path
) -> None:
    cluster, key = make_growing(("n1",)), key_file(tmp_path)
    with_agents(cluster, key)
    for node in cluster:
        node.arguments += ["--log-level", "debug"]

    async def main() -> None:
        with open_umask():
            cluster.start()
        node = cluster["n1"]
        await all_vote(cluster, "n1")
        shown = node.says() + said_of(node.process_id) + said_of(agent_of(node))
        assert "DEBUG" in node.says()
        for command in ("members", "status"):
            shown += str(await run("cluster", command, "--server", node.address, "--json"))
        secrets = (key.read_text(), rpc_key(cluster, "n1"))
        assert not any(secret in shown for secret in secrets)
        assert readable_by_others(node.data_dir) == []
        holding = [path for path in files_of(node.data_dir) if holds(path, secrets)]
        assert [path.name for path in holding] == ["agent.json"]
        assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
        await cluster.terminate()

    asyncio.run(main())


def said_of(pid: int) -> str:
    """Return what everybody on the machine, and the user, may see of a process."""
    return "".join(
        Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
        for name in ("cmdline", "environ", "comm")
    )


def files_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def holds(path: Path, secrets: tuple[str, ...]) -> bool:
    data = path.read_bytes()
    return any(secret.encode() in data for secret in secrets)


def rpc_key(cluster: ProcessCluster, node_id: str) -> str:
    """Return the key that a node and its agent share, which nobody gave them."""
    (path,) = cluster[node_id].data_dir.rglob("agent.json")
    key = json.loads(path.read_text())["rpc_auth"]
    assert isinstance(key, str)
    assert len(key) >= 16
    return key


def test_a_key_that_is_refused_is_not_shown(tmp_path: Path) -> None:
    async def main() -> None:
        for text, mode in (("not-a-key-of-32-bytes", 0o600), ("too open a key", 0o644)):
            path = key_file(tmp_path, text, mode)
            flags = ("--discovery", "serf", "--serf-key-file", str(path), "--node-id", "n1")
            finished = await run("serve", "--data-dir", str(tmp_path / "n1"), *flags)
            assert finished.status != 0
            assert str(path) in finished.complaint
            assert text not in str(finished)

    asyncio.run(main())
