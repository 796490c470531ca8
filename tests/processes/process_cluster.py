"""Real nodes: `python -m distlog serve` processes on loopback, started, killed, paused, and looked at from outside.

Every cluster has a random address of 127.0.0.0/8 to itself and ports that were found free there, so runs beside each other
do not meet.  Everything is awaited as a condition with a deadline, and a node that ends meanwhile without having been asked
to fails the test at once.  Nodes are ended by the handle of their process, never by name; what they say goes to a file.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.client.tls import tls_credentials

Found = TypeVar("Found")

NODE_IDS = ("n1", "n2", "n3")
DISTLOG = (sys.executable, "-m", "distlog")
# Where the log of the default topic is, below a node's data directory.
DEFAULT_TOPIC = Path("groups", "0", "topics", f"{1:020d}")
# The machine may be busy with everything else; a healthy cluster needs a tenth of it.
TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 15.0
CALL_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.02
# By host.  Two nodes of one in a thousand clusters were given one port, and the second ended at its start, as it should.
GIVEN_PORTS: dict[str, set[int]] = {}
CHANNEL_OPTIONS = (
    # Otherwise a channel inherits the back-off of another test's connection to a dead node.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
)


def environment() -> dict[str, str]:
    """Return this process's environment without what would configure a node or a command, or gRPC in their place."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DISTLOG_", "GRPC_", "OTEL_"))
    }
    # Nodes beside each other would want the same port for monitoring; what a test reads of a log is text.
    ours = {"DISTLOG_HTTP_LISTEN": "none", "DISTLOG_LOG_FORMAT": "text"}
    return {**kept, **ours, "PYTHONUNBUFFERED": "1"}


def tls_flags(certificates: Path, name: str) -> list[str]:
    """Return the flags that name the files of one of those whom `distlog certs` has made certificates for."""
    stem = certificates / name
    ca = certificates / "ca.pem"
    return ["--tls-ca", str(ca), "--tls-cert", f"{stem}.pem", "--tls-key", f"{stem}.key"]


def random_host() -> str:
    """Return an address of this machine that nobody else is likely to use."""
    octets = random.SystemRandom().choices(range(2, 255), k=3)
    return "127." + ".".join(str(octet) for octet in octets)


def free_ports(host: str, count: int) -> list[int]:
    """Return ports of `host` that nothing listens on, and that this did not return before: whose they are may not listen yet."""
    given = GIVEN_PORTS.setdefault(host, set())
    sockets: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            sockets.append(socket.socket())
            sockets[-1].bind((host, 0))
            port = int(sockets[-1].getsockname()[1])
            if port not in given:
                ports.append(port)
    finally:
        for each in sockets:
            each.close()
    given.update(ports)
    return ports


async def until(
    condition: Callable[[], Awaitable[Found | None]],
    what: str,
    *,
    timeout_s: float = TIMEOUT_S,
    describe: Callable[[], Awaitable[str]] | None = None,
) -> Found:
    """Return the first result of `condition` that is neither None nor False.  Fails after `timeout_s` in words."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    never = asyncio.Event()
    while True:
        found = await condition()
        if found is not None and found is not False:
            return found
        if loop.time() > end:
            state = f": {await describe()}" if describe else ""
            raise AssertionError(f"not within {timeout_s:g} s: {what}{state}")
        try:
            async with asyncio.timeout(POLL_INTERVAL_S):
                await never.wait()
        except TimeoutError:
            continue


class NodeProcess:
    """One node: its place, its addresses, and its process while it runs."""

    def __init__(self, node_id: str, directory: Path, host: str, output: Path) -> None:
        self.node_id = node_id
        self.data_dir = directory
        self.host = host
        self.client_port, self.peer_port, self.http_port = free_ports(host, 3)
        # Everything that its processes said, in order.
        self.output = output
        self.arguments: list[str] = []
        # A command that starts it, as prlimit(1) with other limits; and variables that it is started with.
        self.prefix: tuple[str, ...] = ()
        self.variables: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def place(self, directory: Path) -> None:
        """Have its data elsewhere from the next start on."""
        assert self.arguments[0] == "--data-dir"
        self.data_dir, self.arguments[1] = directory, str(directory)

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"{self.host}:{self.client_port}"

    @property
    def peer_address(self) -> str:
        return f"{self.host}:{self.peer_port}"

    @property
    def http_address(self) -> str:
        """Where it is monitored, if its arguments say so."""
        return f"{self.host}:{self.http_port}"

    @property
    def log_directory(self) -> Path:
        return self.data_dir / DEFAULT_TOPIC

    @property
    def is_running(self) -> bool:
        """Tell whether it was started and has not been ended by the test.  Fails if it ended by itself."""
        if self._process is None:
            return False
        status = self._process.poll()
        if status is not None:
            raise AssertionError(f"{self.node_id} ended by itself with {status}: {self.says()}")
        return True

    def says(self) -> str:
        """Return what its processes wrote so far."""
        return self.output.read_text("utf-8", "replace") if self.output.exists() else ""

    def start(self) -> None:
        """Start it on its directory, whatever is there."""
        assert self._process is None, f"{self.node_id} runs already"
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.prefix, *DISTLOG, "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment() | self.variables,
            )

    def kill(self) -> None:
        """End it with -9, now."""
        process = self._taken()
        process.kill()
        process.wait(EXIT_TIMEOUT_S)

    async def terminate(self, timeout_s: float = EXIT_TIMEOUT_S) -> int:
        """Ask it to stop; return its exit status."""
        return await self._exit(signal.SIGTERM, timeout_s)

    async def wait_for_exit(self, timeout_s: float = EXIT_TIMEOUT_S) -> int:
        """Return the exit status of a node that ends by itself."""
        return await self._exit(None, timeout_s)

    async def _exit(self, number: signal.Signals | None, timeout_s: float) -> int:
        assert self._process is not None, f"{self.node_id} does not run"
        process = self._process
        if number is not None:
            process.send_signal(number)

        async def ended() -> int | None:
            return process.poll()

        status = await until(ended, f"{self.node_id} ends", timeout_s=timeout_s)
        self._process = None
        return status

    def pause(self) -> None:
        """Stop it where it stands, as a virtual machine does that is moved away."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    @property
    def process_id(self) -> int:
        assert self._process is not None, f"{self.node_id} does not run"
        return self._process.pid

    def wipe(self) -> None:
        """Lose its disk."""
        assert self._process is None, f"{self.node_id} runs"
        shutil.rmtree(self.data_dir)

    def signal(self, number: signal.Signals) -> None:
        assert self.is_running
        assert self._process is not None
        self._process.send_signal(number)

    def _taken(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.node_id} does not run"
        process, self._process = self._process, None
        return process

    def end(self) -> None:
        """End its process, if it has one, without waiting for that."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Leave no process behind, in whatever state it is."""
        if self._process is not None:
            self.kill()


class ProcessCluster:
    """Nodes that know each other.  They are made stopped, with no data."""

    def __init__(
        self, directory: Path, node_ids: Sequence[str] = NODE_IDS, settings: Sequence[str] = ()
    ) -> None:
        """settings: further arguments of every node."""
        directory.mkdir(parents=True, exist_ok=True)
        host = random_host()
        self.nodes = {
            node_id: NodeProcess(node_id, directory / node_id, host, directory / f"{node_id}.out")
            for node_id in node_ids
        }
        peers = ",".join(f"{node.node_id}={node.peer_address}" for node in self)
        for node in self:
            node.arguments = [
                *("--data-dir", str(node.data_dir)),
                *("--node-id", node.node_id),
                *("--listen", node.address),
                *("--peer-listen", node.peer_address),
                *("--peers", peers),
                *settings,
            ]
        # With what the test connects to them; None: nothing is encrypted.
        self.credentials: grpc.ChannelCredentials | None = None

    def secure(self, certificates: Path, client: str) -> None:
        """Give every node its certificate out of a directory of `distlog certs`, and the test that of a client."""
        for node in self:
            node.arguments += tls_flags(certificates, node.node_id)
        ca, cert, key = tls_flags(certificates, client)[1::2]
        self.credentials = tls_credentials(ca, cert, key)

    def __iter__(self) -> Any:
        return iter(self.nodes.values())

    def __getitem__(self, node_id: str) -> NodeProcess:
        return self.nodes[node_id]

    @property
    def addresses(self) -> str:
        """Where clients reach the cluster, as `--server` takes it."""
        return ",".join(node.address for node in self)

    def start(self, *node_ids: str) -> None:
        """Start these nodes; none named: all."""
        for node_id in node_ids or self.nodes:
            self.nodes[node_id].start()

    def start_missing(self) -> None:
        """Start the nodes that do not run."""
        for node in self:
            if not node.is_running:
                node.start()

    def kill(self, *node_ids: str) -> None:
        """End these nodes with -9, one right after the other; none named: all."""
        for node_id in node_ids or self.nodes:
            self.nodes[node_id].kill()

    async def terminate(self, *node_ids: str) -> None:
        """Stop these nodes in order; none named: all.  Fails unless each exits with 0."""
        named = [self.nodes[node_id] for node_id in node_ids or self.nodes]
        statuses = await asyncio.gather(*(node.terminate() for node in named))
        assert statuses == [0] * len(named), statuses

    @property
    def running(self) -> list[NodeProcess]:
        return [node for node in self if node.is_running]

    def close(self) -> None:
        """Leave no process behind: all are ended before one is waited for, which somebody may interrupt."""
        for node in self:
            node.end()
        for node in self:
            node.close()

    # --- Looking at it --------------------------------------------------------------------------

    async def status(self, node_id: str) -> log_pb2.StatusResponse | None:
        """Return what the node knows; None while it does not answer."""
        answer: log_pb2.StatusResponse | None = await self._call(
            node_id, lambda _, cluster: cluster.Status(log_pb2.StatusRequest(), **CALL)
        )
        return answer

    async def servers(self, node_id: str) -> list[log_pb2.Server] | None:
        """Return the nodes as this one lists them; None while it does not answer."""
        answer = await self._call(
            node_id, lambda log, _: log.GetServers(log_pb2.GetServersRequest(), **CALL)
        )
        return None if answer is None else list(answer.servers)

    async def _call(self, node_id: str, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async with self.channel(node_id) as channel:
            try:
                return await call(log_pb2_grpc.LogStub(channel), log_pb2_grpc.ClusterStub(channel))
            except grpc.aio.AioRpcError:
                return None

    def channel(self, node_id: str) -> grpc.aio.Channel:
        """Return a new connection to the node's client port."""
        address = self.nodes[node_id].address
        if self.credentials is None:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, self.credentials, options=CHANNEL_OPTIONS)

    async def statuses(self, node_ids: Collection[str]) -> dict[str, log_pb2.StatusResponse | None]:
        answers = await asyncio.gather(*(self.status(node_id) for node_id in node_ids))
        return dict(zip(node_ids, answers, strict=True))

    async def all_answer(self, *node_ids: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until these nodes answer a client; none named: all that run."""

        async def answered() -> bool:
            wanted = node_ids or [node.node_id for node in self.running]
            return all((await self.statuses(wanted)).values())

        await until(answered, "the nodes answer", timeout_s=timeout_s, describe=self.describe)

    async def leader(self, *node_ids: str, timeout_s: float = TIMEOUT_S) -> str:
        """Wait until these nodes, or all that run, name the same of them as leader, which takes writes; return its id."""

        async def agreed() -> str | None:
            names = node_ids or [node.node_id for node in self.running]
            statuses = await self.statuses(names)
            leaders = {status.leader_id if status else "" for status in statuses.values()}
            if len(leaders) != 1 or leaders.isdisjoint(names):
                return None
            leader = leaders.pop()
            servers = await self.servers(leader)
            is_ready = any(server.is_leader and server.id == leader for server in servers or ())
            return leader if is_ready else None

        return await until(agreed, "one leader", timeout_s=timeout_s, describe=self.describe)

    async def leader_of_any(self) -> str:
        """Wait until a node that runs leads; return its id, whatever the others think."""

        async def found() -> str | None:
            statuses = await self.statuses([node.node_id for node in self.running])
            leading = [status for status in statuses.values() if status and status.role == "leader"]
            newest = max(leading, key=lambda status: status.term, default=None)
            return None if newest is None else newest.node_id

        return await until(found, "a leader", describe=self.describe)

    async def followers(self) -> list[str]:
        """Wait for a leader; return the others that run."""
        leader = await self.leader()
        return [node.node_id for node in self.running if node.node_id != leader]

    async def high_watermark(self, node_id: str) -> int | None:
        """Return how far the node has the default topic; None while it does not answer."""
        status = await self.status(node_id)
        marks = (
            [each.high_watermark for each in status.topics if each.name == "default"]
            if status
            else []
        )
        return marks[0] if marks else None

    async def reach(
        self, high_watermark: int, *node_ids: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Wait until these nodes, or all that run, have everything below `high_watermark`."""

        async def reached() -> bool:
            wanted = node_ids or [node.node_id for node in self.running]
            marks = await asyncio.gather(*(self.high_watermark(node_id) for node_id in wanted))
            return all(mark is not None and mark >= high_watermark for mark in marks)

        await until(
            reached,
            f"a high watermark of {high_watermark}",
            timeout_s=timeout_s,
            describe=self.describe,
        )

    async def describe(self) -> str:
        """Say in one line what each node that runs thinks."""
        parts = []
        for node in self:
            status = await self.status(node.node_id) if node.is_running else None
            marks = [topic.high_watermark for topic in status.topics] if status else []
            parts.append(
                f"{node.node_id} {status.role} term={status.term} leader={status.leader_id} {marks}"
                if status
                else f"{node.node_id} does not answer"
            )
        return "; ".join(parts)

    async def read_log(self, node_id: str, high_watermark: int) -> list[tuple[int, bytes]]:
        """Return (offset, value) of all records below `high_watermark` from this very node."""
        records: list[tuple[int, bytes]] = []
        if not high_watermark:
            return records
        async with self.channel(node_id) as channel:
            call = log_pb2_grpc.LogStub(channel).ConsumeStream(
                log_pb2.ConsumeRequest(), timeout=TIMEOUT_S
            )
            async for answer in call:
                records.append((answer.offset, answer.record))
                if len(records) == high_watermark:
                    call.cancel()
                    break
        return records


CALL = {"timeout": CALL_TIMEOUT_S}
