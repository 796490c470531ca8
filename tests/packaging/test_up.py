"""The Procfile, as `make up` starts it: three nodes, and a last line that says what to type next."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.discovery.serf.real_agents import needs_serf

ROOT = Path(__file__).parents[2]
NODES = ("n1", "n2", "n3")


@dataclass(frozen=True, slots=True)
class Up:
    """A copy of the Procfile on an address and in a directory of its own."""

    directory: Path
    procfile: str = "Procfile"

    @contextmanager
    def start(self, *names: str) -> Iterator[subprocess.Popen[str]]:
        """Run honcho; stop it at the end, and let nothing that it started live on."""
        scripts = sysconfig.get_path("scripts")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("DISTLOG_")
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "honcho", "-f", self.procfile, "start", *names],
            cwd=self.directory,
            env={**kept, "PATH": f"{scripts}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate()

    def pid(self, node: str) -> int:
        """Return the process id of a node of this directory."""
        (pid,) = (pid for pid in self.pids() if f"--node-id\0{node}\0" in arguments_of(pid))
        return pid

    def pids(self, command: str = "serve") -> list[int]:
        """Return the process ids of the nodes of this directory, or of others with that argument."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and f"\0{command}\0" in arguments_of(int(entry.name)):
                try:
                    if (entry / "cwd").readlink() == self.directory:
                        found.append(int(entry.name))
                except FileNotFoundError:
                    continue
        return found


def arguments_of(pid: int) -> str:
    """Return the command line of a process, its parts ended by NUL; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def up(tmp_path: Path) -> Up:
    shutil.copy(ROOT / "Procfile", tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    # The Procfile's own ports, on an address of 127.0.0.0/8 that nobody else has.
    address = (
        f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
    )
    deploy = tmp_path / "deploy"
    files = ("Procfile.serf", "Procfile.tls", "node.sh")
    for path in (tmp_path / "Procfile", *(deploy / name for name in files)):
        text = path.read_text("utf-8")
        assert "127.0.0.1" in text
        path.write_text(text.replace("127.0.0.1", address), "utf-8")
    return Up(tmp_path)


@pytest.fixture
def up_tls(up: Up) -> Up:
    """The same nodes with certificates, as `make up-tls` makes them first."""
    host = (up.directory / "Procfile").read_text("utf-8").partition("--server ")[2].split(":")[0]
    directory = str(up.directory / "data" / "pki")
    command = [sys.executable, "-m", "distlog", "certs", directory, "--hosts", host]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return replace(up, procfile="deploy/Procfile.tls")


def lines_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Return what was printed up to the line that holds `words`; fail with all of it when there is none."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if words in line:
            return lines
    pytest.fail(f"it ended without {words!r}:\n" + "\n".join(lines))


def test_the_last_line_says_what_to_type_next(up: Up) -> None:
    with up.start() as process:
        lines = lines_until(process, "Next, in another shell")
    assert "leads 3 nodes" in lines[-1]
    assert lines[-1].endswith("distlog produce FILE")
    for node in NODES:
        assert any(f"{node} is ready for clients" in line for line in lines)


def test_with_certificates_the_last_line_has_the_flags_that_are_needed(up_tls: Up) -> None:
    with up_tls.start() as process:
        lines = lines_until(process, "Next, in another shell")
        command = lines[-1].partition("distlog produce ")[2].removesuffix(" FILE")
        assert command.startswith("--tls-ca data/pki/ca.pem --tls-cert data/pki/admin.pem")
        addresses = (up_tls.directory / "Procfile").read_text("utf-8").partition("--server ")[2]
        produced = subprocess.run(
            [
                *(sys.executable, "-m", "distlog", "produce", *command.split()),
                *("--server", addresses.split()[0], "-"),
            ],
            cwd=up_tls.directory,
            input=b"a record\n",
            capture_output=True,
            check=False,
        )
        assert produced.returncode == 0, produced.stderr
        assert "leads 3 nodes" in lines[-1]
        os.kill(up_tls.pid("n1"), signal.SIGKILL)
        assert lines_until(process, "Start it again")[-1].endswith("make n1-tls")


def test_a_stop_ends_every_node_in_good_order(up: Up) -> None:
    with up.start() as process:
        lines_until(process, "Next, in another shell")
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert up.pids() == []
    assert "SIGKILL" not in printed
    assert "Traceback" not in printed


def test_a_killed_node_leaves_the_others_alone_and_is_started_again(up: Up) -> None:
    with up.start() as process:
        lines_until(process, "Next, in another shell")
        os.kill(up.pid("n1"), signal.SIGKILL)
        lines = lines_until(process, "Start it again")
        assert "n1 has ended (status 137)" in lines[-1]
        assert lines[-1].endswith("make n1")
        with up.start("n1") as again:
            lines_until(again, "n1 is ready for clients")
            assert len(up.pids()) == len(NODES)


@needs_serf
def test_nodes_that_find_each_other_by_serf_and_no_agent_that_outlives_its_node(up: Up) -> None:
    with replace(up, procfile="deploy/Procfile.serf").start() as process:
        lines = lines_until(process, "Next, in another shell")
        assert "leads 3 nodes" in lines[-1]
        assert len(up.pids("agent")) == len(NODES)
        agents = {parent_of(pid): os.pidfd_open(pid) for pid in up.pids("agent")}
        killed = up.pid("n2")
        os.kill(killed, signal.SIGKILL)
        lines = lines_until(process, "Start it again")
        assert lines[-1].endswith("make n2 PROCFILE=deploy/Procfile.serf")
        assert has_ended(agents.pop(killed))
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()
    assert "SIGKILL" not in printed
    assert "Traceback" not in printed
    assert all(has_ended(agent) for agent in agents.values())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_ended(process: int) -> bool:
    """Tell whether a process ends within some seconds, by its pidfd."""
    readable, _, _ = select.select([process], [], [], 20)
    os.close(process)
    return bool(readable)


def test_a_node_that_cannot_start_ends_everything(up: Up) -> None:
    (up.directory / "data").write_text("a file where the directory belongs", "utf-8")
    with up.start() as process:
        printed, _ = process.communicate()
    assert process.returncode == 1
    assert "data" in printed
    assert "Traceback" not in printed
