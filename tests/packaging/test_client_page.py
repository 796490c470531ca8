"""The program on the page about the client runs as it stands there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from tests.client.fake_cluster import FakeCluster
from tests.client.running import run

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
ADDRESSES = "127.0.0.1:8400,127.0.0.1:8410,127.0.0.1:8420"


def test_the_program_on_the_page_runs() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert ADDRESSES in program

    async def scenario() -> None:
        async with FakeCluster() as cluster:
            text = program.replace(ADDRESSES, ",".join(cluster.addresses))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", text, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            output, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"")
            assert output.splitlines() == [b"b'one record'", b"1 range(2, 4) 100003"]
            assert len(cluster.log) == 100_004

    run(scenario())
