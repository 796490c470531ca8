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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

from distlog.api.log.v1 import log_pb2, log_pb2_grpc

# Of this process alone, so that nobody takes a port that was found free: on 127.0.0.1 every connection of the machine takes one.
HOST = "127." + ".".join(str(octet) for octet in SystemRandom().choices(range(2, 255), k=3))
START_DEADLINE_S = 20.0
NAMES = ("n1", "n2", "n3")
DISTLOG = ("-m", "distlog")


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Return ports of an address of loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]


class BenchCluster:
    """Three nodes on fresh directories below `root`, each a process that can be killed and started again."""

    def __init__(
        self,
        root: Path,
        program: Callable[[str], Sequence[str]] = lambda name: DISTLOG,
        settings: Sequence[str] = (),
        *,
        with_tls: bool = False,
        with_http: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """program(name): what runs distlog as this node: modules and arguments of Python before those of distlog.

        settings: further arguments of every node.  with_tls: they and their clients have certificates.  with_http: they have a port for
        monitoring.  variables: of the environment of every node.
        """
        self._certificates = root / "certificates" if with_tls else None
        if self._certificates is not None:
            made = [sys.executable, *DISTLOG, "certs", str(self._certificates), "--hosts", HOST]
            subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        self._program = program
        ports = free_ports(3 * len(NAMES))
        peer_ports, http_ports = ports[len(NAMES) : 2 * len(NAMES)], ports[2 * len(NAMES) :]
        self._http = dict(zip(NAMES, (f"127.0.0.1:{port}" for port in http_ports), strict=True))
        self._with_http = with_http
        # Nothing of whoever measures is for the nodes to trace.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self._environment = kept | dict(variables or {})
        self._root = root
        self._settings = settings
        self._peers = ",".join(
            f"{name}={HOST}:{port}" for name, port in zip(NAMES, peer_ports, strict=True)
        )
        self._addresses = {
            name: f"{HOST}:{port}" for name, port in zip(NAMES, ports[: len(NAMES)], strict=True)
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def addresses(self) -> list[str]:
        """Where clients reach the nodes."""
        return list(self._addresses.values())

    @property
    def pids(self) -> dict[str, int]:
        """The processes of the nodes that run."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self, name: str) -> None:
        """Start a node that does not run."""
        command = [sys.executable, *self._program(name), "serve", "--node-id", name]
        command += ["--peers", self._peers, "--data-dir", str(self._root / name)]
        command += ["--listen", self._addresses[name]]
        command += ["--http-listen", self._http[name] if self._with_http else "none"]
        command += ["--log-format", "text", *self._settings, *self._tls_flags(name)]
        with (self._root / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=self._environment
            )

    @property
    def http_addresses(self) -> list[str]:
        """Where the nodes are monitored, if they are."""
        return list(self._http.values())

    @property
    def client_flags(self) -> list[str]:
        """What a command needs beside the addresses."""
        return self._tls_flags("admin")

    @property
    def credentials(self) -> Any:
        """What `Client` needs beside the addresses; None: nothing."""
        from distlog.client.tls import tls_credentials

        flags = self.client_flags
        return tls_credentials(*flags[1::2]) if flags else None

    def _tls_flags(self, name: str) -> list[str]:
        if self._certificates is None:
            return []
        stem = self._certificates / name
        authority = str(self._certificates / "ca.pem")
        return ["--tls-ca", authority, "--tls-cert", f"{stem}.pem", "--tls-key", f"{stem}.key"]

    def directory(self, name: str) -> Path:
        """Return where a node keeps its data."""
        return self._root / name

    def address(self, name: str) -> str:
        """Return where clients reach a node."""
        return self._addresses[name]

    def kill(self, name: str) -> None:
        """End a node with -9."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """Stop the nodes that run."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            process.wait(timeout=10)


@contextlib.contextmanager
def running_cluster(
    directory: Path | None = None,
    program: Callable[[str], Sequence[str]] = lambda name: DISTLOG,
    settings: Sequence[str] = (),
    *,
    with_tls: bool = False,
    with_http: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[BenchCluster]:
    """Run three nodes on fresh directories, which are removed afterwards; the others as `BenchCluster` has them."""
    root = Path(tempfile.mkdtemp(prefix="distlog-bench-", dir=directory))
    cluster = BenchCluster(
        root, program, settings, with_tls=with_tls, with_http=with_http, variables=variables
    )
    try:
        for name in NAMES:
            cluster.start(name)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(root)


@contextlib.contextmanager
def three_nodes(directory: Path | None = None) -> Iterator[list[str]]:
    """Run three nodes on fresh directories and yield their client addresses, the leader's first."""
    with running_cluster(directory) as cluster:
        yield leader_first(cluster.addresses)


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
