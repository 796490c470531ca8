"""A three-node cluster of real processes on loopback, for measuring."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from distlog.api.log.v1 import log_pb2, log_pb2_grpc

START_DEADLINE_S = 20.0


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def three_nodes(directory: Path | None = None) -> Iterator[list[str]]:
    """Run three nodes on fresh directories and yield their client addresses, the leader's first."""
    ports = free_ports(6)
    names = ("n1", "n2", "n3")
    peers = ",".join(
        f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports[3:], strict=True)
    )
    root = Path(tempfile.mkdtemp(prefix="distlog-bench-", dir=directory))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, port in zip(names, ports[:3], strict=True):
            command = [
                sys.executable,
                "-m",
                "distlog",
                "serve",
                "--node-id",
                name,
                "--peers",
                peers,
            ]
            command += ["--data-dir", str(root / name), "--listen", f"127.0.0.1:{port}"]
            with (root / f"{name}.out").open("wb") as output:
                processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        addresses = [f"127.0.0.1:{port}" for port in ports[:3]]
        yield leader_first(addresses)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(timeout=10)
        shutil.rmtree(root)


def leader_first(addresses: list[str]) -> list[str]:
    """Wait for a leader and return the addresses with its own in front."""
    import grpc

    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        for address in addresses:
            try:
                with grpc.insecure_channel(address) as channel:
                    stub = log_pb2_grpc.LogStub(channel)
                    answer = stub.GetServers(log_pb2.GetServersRequest(), timeout=1)
                    stub.Produce(log_pb2.ProduceRequest(record=b"warm-up"), timeout=1)
            except grpc.RpcError:
                continue
            leaders = [server.rpc_addr for server in answer.servers if server.is_leader]
            if leaders == [address]:
                return [address, *(other for other in addresses if other != address)]
        time.sleep(0.05)
    raise SystemExit(f"no leader within {START_DEADLINE_S} s")


def machine() -> str:
    """Say what this machine is, in one line."""
    model = "unknown processor"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} x {model}, Python {sys.version.split()[0]}"
