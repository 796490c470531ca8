"""The health check of the image, run against nodes, and against what is none."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest

from distlog.cli.main import main
from tests.deploy.containers import read_image
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import environment, until

IMAGE = read_image()


async def check(address: str) -> tuple[int, str]:
    """Return the exit status of the health check of what listens at an address, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *IMAGE.health(),
        env={**environment(), "DISTLOG_HTTP_LISTEN": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert errors == b""
    assert process.returncode is not None
    return process.returncode, said.decode()


def test_a_node_whose_certificate_does_not_name_the_loopback_and_that_knows_nobody_is_healthy(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(["n1"])
    node = cluster["n1"]
    node.arguments += ["--http-listen", node.http_address]
    # Nobody may do anything: whoever asks for the status is refused.
    policy = tmp_path / "policy.csv"
    policy.write_text("p, somebody-else, *, *\n", "utf-8")
    node.arguments += ["--acl-policy", str(policy)]

    async def scenario() -> None:
        pki = tmp_path / "pki"
        named = ("--nodes", "n1", "--hosts", "n1.example.com", "--clients", "somebody")
        assert main(["certs", str(pki), *named]) == 0
        cluster.secure(pki, "somebody")
        cluster.start()

        async def healthy() -> bool:
            return await check(node.http_address) == (0, "ready: leading\n")

        await until(healthy, "it is healthy", describe=cluster.describe)
        await cluster.terminate()
        status, said = await check(node.http_address)
        assert status == 1
        assert said.startswith("it does not answer: ")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("listen", "asked"), [("0.0.0.0", "127.0.0.1"), ("[::]", "::1"), ("127.0.0.1", "127.0.0.1")]
)
def test_what_is_listened_on_is_asked_where_it_is_reached(listen: str, asked: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        try:
            server = await asyncio.start_server(answer, asked, 0)
        except OSError:
            pytest.skip(f"there is no {asked} here")
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert await check(f"{listen}:{port}") == (0, "ready\n")

    asyncio.run(scenario())


def test_who_accepts_and_says_nothing_is_given_up_before_the_image_gives_the_check_up() -> None:
    ((_, rest),) = [each for each in IMAGE.instructions if each[0] == "HEALTHCHECK"]
    (timeout_s,) = map(float, re.findall(r"--timeout=(\d+)s", rest))
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def scenario() -> None:
            async with asyncio.timeout(timeout_s):
                status, said = await check(f"127.0.0.1:{silent.getsockname()[1]}")
            assert status == 1
            assert said.endswith("timed out\n")

        asyncio.run(scenario())
