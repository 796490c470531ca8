"""Unpickling runs whatever the pickle says, and pysyncobj has code that unpickles: nodes live without it.

Every node of the cluster is a process in which to unpickle anything is to end at once.  It elects, replicates, forgets its journal, is
copied, and is sent pickles on both of its ports.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from distlog.api.log.v1.log_pb2 import DESCRIPTOR
from distlog.peer.frames import CONTROL, Channel, encode_frame
from tests.fuzz.pickles import pickles
from tests.processes.commands import run
from tests.processes.conftest import MakeCluster
from tests.processes.http2 import RST_STREAM, BadClient, message
from tests.processes.process_cluster import DISTLOG, NodeProcess, ProcessCluster, until
from tests.processes.test_catch_up import JOURNAL, MIB, load

EXIT_UNPICKLED = 77
# Run by Python before anything else: it has no way around the functions, and the audit event comes from the C code as well.
GUARD = f"""
import os, pickle, sys, _pickle

def refuse(*_, **__):
    os.write(2, b"UNPICKLED\\n")
    os._exit({EXIT_UNPICKLED})

for module in (pickle, _pickle):
    for name in ("load", "loads", "_load", "_loads"):
        if hasattr(module, name):
            setattr(module, name, refuse)
pickle.Unpickler = pickle._Unpickler.load = _pickle.Unpickler = refuse
sys.addaudithook(lambda event, _: refuse() if event == "pickle.find_class" else None)
"""


@pytest.fixture
def guard(tmp_path: Path) -> tuple[str, ...]:
    """What a process is started with so that it ends when it unpickles."""
    directory = tmp_path / "guard"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(GUARD)
    return ("env", f"PYTHONPATH={directory}")


def test_the_guard_ends_a_process_that_unpickles(guard: Sequence[str]) -> None:
    async def status_of(code: str) -> int | None:
        process = await asyncio.create_subprocess_exec(*guard, sys.executable, "-c", code)
        return await process.wait()

    async def main() -> None:
        for code in (
            "import pickle; pickle.loads(pickle.dumps(1))",
            "import io, pickle; pickle.Unpickler(io.BytesIO(pickle.dumps(1))).load()",
            "import pysyncobj.pickle as p; p.loads(p.dumps({}))",
        ):
            assert await status_of(code) == EXIT_UNPICKLED, code
        assert await status_of("import pickle; pickle.dumps(1)") == 0

    asyncio.run(main())


def test_a_cluster_lives_without_unpickling_anything(
    make_cluster: MakeCluster, guard: tuple[str, ...], tmp_path: Path
) -> None:
    cluster = make_cluster(("n1", "n2", "n3"), *JOURNAL)
    for node in cluster:
        node.prefix = guard
    assert DISTLOG[0] == sys.executable, "the guard is of the nodes' Python"

    async def main() -> None:
        cluster.start()
        await load(cluster, 2 * MIB)
        first = await cluster.leader()
        away = (await cluster.followers())[-1]
        await cluster.terminate(away)
        # Beyond what the journals keep: the node that is away is copied when it is back.
        await load(cluster, 24 * MIB)
        cluster.start(away)
        high_watermark = await cluster.high_watermark(first)
        assert high_watermark
        await cluster.reach(high_watermark, away)
        cluster.kill(first)
        await cluster.leader()
        cluster.start(first)
        await feed(cluster, tmp_path / "harm")
        given = b"still at work\n"
        finished = await run("produce", "--server", cluster.addresses, given=given)
        assert finished.status == 0
        await cluster.reach(high_watermark + 1)
        assert not any("UNPICKLED" in node.says() for node in cluster)
        assert not (tmp_path / "harm").exists()

    asyncio.run(main())


async def feed(cluster: ProcessCluster, path: Path) -> None:
    """Send pickles to both ports of every node, bare and in the frames of each protocol."""
    await cluster.all_answer()
    paths = [
        f"/{service.full_name}/{method.name}"
        for service in DESCRIPTOR.services_by_name.values()
        for method in service.methods
        # It would have the node go, if a pickle were such a request.
        if method.name != "Leave"
    ]
    for node in cluster:
        for data in pickles(path):
            channels = (CONTROL, *Channel)
            for sent in (data, *(encode_frame(channel, 0, data) for channel in channels)):
                await asyncio.to_thread(send, node, sent)
        client = await BadClient.connect(node.host, node.client_port)
        calls = [(each, data) for each in paths for data in pickles(path)]
        for number, (each, data) in enumerate(calls):
            stream = 2 * number + 1
            client.begin_call(stream, each)
            client.send_data(stream, message(data), end=True)
            if number % 50 == 49:
                await asyncio.wait_for(answered(client, stream), 20)
        await client.close()


def send(node: NodeProcess, data: bytes) -> None:
    with socket.create_connection((node.host, node.peer_port), 5) as connection:
        connection.sendall(data)


async def answered(client: BadClient, stream: int) -> None:
    """Return when a call is over, however it ended."""

    async def is_over() -> bool:
        return client.is_closed or bool({1, RST_STREAM} & client.kinds(stream))

    await until(is_over, "a call with a pickle is answered")
