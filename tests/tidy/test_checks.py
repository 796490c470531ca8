"""Every check finds what it is there to find, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy import checks
from tests.tidy.checks import (
    CHECKS,
    FILE_LINES_MAX,
    FUNCTION_LINES_MAX,
    Problems,
    Source,
    unused_test_directories,
)

# Split, so that this file does not say them itself.
LATER = "TO" + "DO"
MACHINE = "/wor" + "k/main"
SCRATCH = "/tm" + "p/x"

PLANTED = [
    (checks.ports, "distlog/storage/log.py", "import os"),
    (checks.ports, "distlog/storage/log.py", "from os import path"),
    (checks.ports, "distlog/storage/log.py", "import os.path"),
    (checks.ports, "distlog/storage/segment.py", "import mmap"),
    (checks.ports, "distlog/cli/verify.py", "import mmap"),
    (checks.ports, "distlog/server/log_service.py", "import time"),
    (checks.ports, "distlog/consensus/raft.py", "def late():\n    from time import monotonic"),
    (checks.ports, "distlog/peer/network.py", "import random"),
    (checks.ports, "distlog/peer/network.py", "from random import choice"),
    (checks.ports, "distlog/peer/network.py", "from random import Random\nshared = Random(1)"),
    (checks.ports, "distlog/consensus/group.py", "import threading"),
    (checks.ports, "distlog/consensus/group.py", "from concurrent.futures import Future"),
    (checks.ports, "distlog/peer/network.py", "import socket"),
    (
        checks.ports,
        "distlog/peer/network.py",
        "import asyncio\nasyncio.open_connection('localhost', 1)",
    ),
    (checks.ports, "distlog/peer/network.py", "async def f(loop): await loop.create_server(f)"),
    (checks.ports, "distlog/storage/log.py", "import asyncio\nasyncio.to_thread(len)"),
    (checks.ports, "distlog/node.py", "import secrets"),
    (checks.ports, "distlog/discovery/serf/agent.py", "import subprocess"),
    (
        checks.ports,
        "distlog/discovery/serf/agent.py",
        "import asyncio\nasyncio.create_subprocess_exec('serf')",
    ),
    (checks.ports, "distlog/storage/log.py", "open('name')"),
    (checks.ports, "distlog/peer/frames.py", "import pickle"),
    (checks.ports, "distlog/consensus/group.py", "from pysyncobj import SyncObj"),
    (checks.words, "docs/page.md", f"{LATER}: the rest"),
    (checks.words, "distlog/block.py", "# FIX" + "ME later"),
    (checks.words, "Makefile", f"cd {MACHINE}"),
    (checks.words, "tests/storage/test_log.py", f"path = '{SCRATCH}'"),
    (checks.words, "distlog/block.py", "# as DESIG" + "N 3.2 says"),
    (checks.words, "distlog/block.py", "# see RAF" + "T.md"),
    (checks.words, "distlog/block.py", "raise NotImplemente" + "dError"),
    (checks.prints, "distlog/node.py", "print('started')"),
    (checks.sleeps, "tests/server/test_calls.py", "import time\ntime.sleep(0.1)"),
    (checks.sleeps, "tests/server/test_calls.py", "async def f():\n    await asyncio.sleep(delay)"),
    (checks.sleeps, "tests/server/test_calls.py", "sleep(seconds=1)"),
    (checks.sleeps, "tests/simulation/test_a.py", "import time\ntime.sleep(1)"),
    (checks.mocks, "tests/server/test_calls.py", "from unittest.mock import Mock"),
    (checks.silences, "tests/server/test_calls.py", "@pytest.mark.skip\ndef test_a(): ..."),
    (checks.silences, "tests/server/test_calls.py", "@pytest.mark.skipif(True)\ndef test_a(): ..."),
    (checks.silences, "tests/server/test_calls.py", "def test_a(): pytest.skip()"),
    (checks.names, "distlog/utils.py", ""),
    (checks.names, "distlog/server/error_handler.py", ""),
    (checks.names, "tests/common/test_a.py", ""),
    (checks.names, "distlog/server/tails.py", "class TailManager: ..."),
    (checks.file_lengths, "distlog/block.py", "a = 1\n" * (FILE_LINES_MAX + 1)),
    (
        checks.function_lengths,
        "distlog/block.py",
        "def f():\n" + "    a = 1\n" * FUNCTION_LINES_MAX,
    ),
    (
        checks.function_lengths,
        "distlog/block.py",
        "class A:\n    async def f():\n" + "        a = 1\n" * FUNCTION_LINES_MAX,
    ),
    (checks.package_docstrings, "distlog/storage/__init__.py", ""),
]

ALLOWED = [
    (checks.ports, "distlog/storage/disk.py", "import fcntl, mmap, os"),
    (checks.ports, "distlog/runtime.py", "import time\nloop.create_server(f)"),
    (checks.ports, "distlog/serve.py", "import os, random, secrets, time"),
    (checks.ports, "distlog/cli/produce.py", "import os\nopen('name')"),
    (checks.ports, "distlog/programs.py", "import os, subprocess\nopen('name')"),
    (
        checks.ports,
        "distlog/peer/network.py",
        "from random import Random\ndef f(random: Random): random.random()",
    ),
    (checks.ports, "distlog/storage/log.py", "disk.open('name')\nfrom posixpath import join"),
    (checks.ports, "distlog/consensus/library.py", "import pysyncobj.syncobj as library"),
    (checks.ports, "tests/storage/test_log.py", "import os, time"),
    (checks.words, "distlog/block.py", "# /proc/self, homes/work/x, the network/work/load"),
    (checks.prints, "distlog/cli/main.py", "print('hello')"),
    (checks.prints, "distlog/serve.py", "printer = fingerprint(1)"),
    (checks.sleeps, "tests/server/test_calls.py", "async def f():\n    await asyncio.sleep(0)"),
    (checks.sleeps, "distlog/client/producer.py", "async def f():\n    await asyncio.sleep(delay)"),
    (checks.sleeps, "tests/simulation/test_a.py", "async def f():\n    await asyncio.sleep(1)"),
    (checks.mocks, "tests/server/test_calls.py", "from tests.server.fakes import Fake"),
    (
        checks.silences,
        "tests/server/test_calls.py",
        "@pytest.mark.skipif(True, reason='root may write')\ndef test_a(): ...",
    ),
    (checks.silences, "tests/server/test_calls.py", "def test_a(): pytest.skip('no disk')"),
    (checks.names, "distlog/server/interceptors.py", "class Interceptor: ..."),
    (checks.file_lengths, "distlog/block.py", "a = 1\n" * FILE_LINES_MAX),
    (
        checks.function_lengths,
        "distlog/block.py",
        "def f():\n" + "    a = 1\n" * (FUNCTION_LINES_MAX - 1),
    ),
    (checks.package_docstrings, "distlog/storage/__init__.py", '"""Files."""'),
]


def name_of_case(value: object) -> str | None:
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize(("check", "path", "text"), PLANTED, ids=name_of_case)
def test_a_planted_violation_is_found(check: object, path: str, text: str) -> None:
    assert callable(check)
    assert len(list(check(Source(path, text)))) == 1


@pytest.mark.parametrize(("check", "path", "text"), ALLOWED, ids=name_of_case)
def test_what_is_allowed_is_not_reported(check: object, path: str, text: str) -> None:
    assert callable(check)
    assert list(check(Source(path, text))) == []


@pytest.mark.parametrize("check", CHECKS, ids=name_of_case)
def test_every_check_has_a_planted_violation_and_something_allowed(check: Problems) -> None:
    assert any(planted[0] is check for planted in PLANTED)
    assert any(allowed[0] is check for allowed in ALLOWED)


def test_a_directory_without_a_test_is_found(tmp_path: Path) -> None:
    for name, text in {
        "used/test_a.py": "def test_a(): ...",
        "used/deep/b.py": "",
        "unused/c.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    assert unused_test_directories(tmp_path) == ["unused", "used/deep"]
