"""Programs that a node runs, with the machine's own processes: what they say, how they end, and that none is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from distlog import programs
from distlog.programs import OUTPUT_SIZE_MAX, SystemPrograms

SHELL = "/bin/sh"


def run_shell(script: str, output: Path) -> int:
    async def run() -> int:
        async with asyncio.timeout(20):
            running = await SystemPrograms().start([SHELL, "-c", script], str(output))
            return await running.wait()

    return asyncio.run(run())


def test_what_a_program_says_is_appended_to_its_file_and_its_status_is_returned(
    tmp_path: Path,
) -> None:
    output = tmp_path / "output"
    assert run_shell("echo one; echo two >&2; exit 3", output) == 3
    assert run_shell("echo three; echo; kill -9 $$", output) == -signal.SIGKILL
    assert output.read_text() == "one\ntwo\nthree\n\n"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert SystemPrograms().last_words(str(output)) == "three"
    assert SystemPrograms().last_words(str(tmp_path / "none")) == ""


def test_a_program_that_cannot_be_run_ends_at_once(tmp_path: Path) -> None:
    async def run() -> int:
        running = await SystemPrograms().start([str(tmp_path / "none")], str(tmp_path / "output"))
        return await running.wait()

    assert asyncio.run(run()) != 0
    assert "No such file" in SystemPrograms().last_words(str(tmp_path / "output"))


def test_a_program_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "GRACE_S", 0.05)
    ready = tmp_path / "ready"
    os.mkfifo(ready)

    async def run() -> int:
        script = f"trap '' TERM; echo > {ready}; while :; do sleep 1; done"
        running = await SystemPrograms().start([SHELL, "-c", script], str(tmp_path / "output"))
        await asyncio.to_thread(ready.read_text)
        await running.stop()
        await running.stop()
        return await running.wait()

    assert asyncio.run(run()) == -signal.SIGKILL


def test_a_terminals_interrupt_does_not_reach_it(tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert run_shell("ps -o sid= -p $$; echo $$", output) == 0
    session, pid = output.read_text().split()
    assert session == pid


PARENT = """
import asyncio, os, sys
from distlog.programs import SystemPrograms

async def main():
    script = f"echo $$ >{sys.argv[2]}; exec sleep 1000"
    running = await SystemPrograms().start(["/bin/sh", "-c", script], sys.argv[1])
    await running.wait()

asyncio.run(main())
"""


def test_a_program_ends_with_its_node_also_when_that_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    arguments = [sys.executable, "-c", PARENT, str(tmp_path / "output"), str(ready)]
    with subprocess.Popen(arguments) as parent:
        child = os.pidfd_open(int(ready.read_text()))
        parent.kill()

    readable, _, _ = select.select([child], [], [], 20)
    if not readable:
        signal.pidfd_send_signal(child, signal.SIGKILL)
    os.close(child)
    assert readable, "the program lives on"


def test_a_program_whose_node_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    nobody = [sys.executable, "-ISc", programs.BEGIN, "1", SHELL, "-c", f"echo >{tmp_path}/begun"]
    assert subprocess.run(nobody, check=False).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_secret_can_be_read_by_this_user_alone_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "below" / "secret"
    SystemPrograms().write_secret(str(path), b"one")
    path.chmod(0o644)
    SystemPrograms().write_secret(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert SystemPrograms().read(str(path), 2) == b"tw"
    assert SystemPrograms().read(str(path.parent), 2) == b""
    assert list(path.parent.iterdir()) == [path]


def test_output_is_bounded_while_the_program_goes_on(tmp_path: Path) -> None:
    output, said, go = (tmp_path / name for name in ("output", "said", "go"))
    os.mkfifo(said)
    os.mkfifo(go)

    async def run() -> None:
        script = f"head -c {OUTPUT_SIZE_MAX + 5} /dev/zero; echo >{said}; read x <{go}; echo z"
        running = await SystemPrograms().start([SHELL, "-c", script], str(output))
        await asyncio.to_thread(said.read_text)
        SystemPrograms().limit_output(str(output))
        assert output.stat().st_size == 0
        assert (tmp_path / "output.1").stat().st_size == OUTPUT_SIZE_MAX
        await asyncio.to_thread(go.write_text, "\n")
        await running.wait()

    asyncio.run(run())
    assert output.read_bytes() == b"z\n"
    SystemPrograms().limit_output(str(output))
    assert (tmp_path / "output.1").stat().st_size == OUTPUT_SIZE_MAX
    SystemPrograms().limit_output(str(tmp_path / "none"))


def test_programs_are_found_along_the_path_or_by_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    assert SystemPrograms().find("program") is None
    program.chmod(0o755)
    assert SystemPrograms().find("program") == str(program)
    assert SystemPrograms().find(str(program)) == str(program)
    assert SystemPrograms().find(str(tmp_path)) is None
    monkeypatch.chdir(tmp_path)
    assert SystemPrograms().find("./program") == str(program)


def test_a_port_of_another_machine_is_not_free_here() -> None:
    assert SystemPrograms().free_port("127.0.0.1") > 0
    with pytest.raises(OSError, match="assign"):
        SystemPrograms().free_port("192.0.2.1")
