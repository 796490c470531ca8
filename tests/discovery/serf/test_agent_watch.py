"""How an agent is started, watched and started again: on virtual time, with programs that run nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import msgpack
import pytest

from distlog.discovery.serf.agent import AgentSettings, ManagedAgent
from distlog.discovery.serf.errors import AgentFailed, AgentProgramUnusable
from tests.discovery.serf.fake_agent import header
from tests.discovery.worlds import pass_time
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

KEY = "c2VjcmV0" * 4


class FakeProgram:
    """A process that ends when it is told to."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    async def stop(self) -> None:
        self.end(0)

    def kill(self) -> None:
        self.end(-9)


class FakeMachine:
    """Programs and a network: an agent answers at the port that its configuration names, unless it is told not to."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.files: dict[str, bytes] = {}
        self.started: list[tuple[float, FakeProgram]] = []
        self.ports = 1000
        # What becomes of each agent that is started: how long it lives, None for ever.
        self.lifetime_s: float | None = None
        self.answers = True
        # Ports at which somebody else answers, who does not know our key.
        self.strangers: set[int] = set()

    # Programs

    def find(self, program: str) -> str | None:
        return f"/bin/{program}" if program == "serf" else None

    async def start(self, arguments: Sequence[str], output_path: str) -> FakeProgram:
        program = FakeProgram(len(self.started) + 1)
        self.started.append((self.loop.time(), program))
        self.arguments = list(arguments)
        if self.lifetime_s == 0:
            program.end(1)
        elif self.lifetime_s is not None:
            self.loop.call_later(self.lifetime_s, program.end, 1)
        return program

    def write_secret(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def read(self, path: str, size_max: int) -> bytes:
        return self.files.get(path, b"")[:size_max]

    def limit_output(self, path: str) -> None:
        pass

    def last_words(self, path: str) -> str:
        return "its last words"

    def free_port(self, host: str) -> int:
        self.ports += 1
        return self.ports

    # Network

    async def listen(self, *_: object) -> asyncio.AbstractServer:
        raise AssertionError("nobody listens")

    async def connect(
        self, protocol_factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> None:
        is_up = bool(self.started) and not self.started[-1][1].ended.done()
        if port not in self.strangers and not (is_up and port == self.configuration["port"]):
            raise ConnectionRefusedError("nobody listens there")
        FakeTransport(self, protocol_factory(), port)

    @property
    def configuration(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.files["data/serf/agent.json"])
        content["port"] = int(content["rpc_addr"].rpartition(":")[2])
        return content


class FakeTransport(asyncio.Transport):
    """The agent's end of a connection, which knows a handshake and its key."""

    def __init__(self, machine: FakeMachine, protocol: asyncio.Protocol, port: int) -> None:
        super().__init__()
        self._machine, self._protocol, self._port = machine, protocol, port
        self._requests: list[Any] = []
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        unpacker = msgpack.Unpacker()
        unpacker.feed(bytes(data))
        request, body = unpacker.unpack(), unpacker.unpack()
        if not self._machine.answers:
            return
        is_known = body.get("AuthKey") == self._machine.configuration["rpc_auth"]
        is_refused = request["Command"] == "auth" and (
            self._port in self._machine.strangers or not is_known
        )
        error = "Invalid authentication token" if is_refused else ""
        self._machine.loop.call_soon(self._protocol.data_received, header(request["Seq"], error))

    def abort(self) -> None:
        self._machine.loop.call_soon(self._protocol.connection_lost, None)


def with_agent(story: Callable[[FakeMachine, ManagedAgent], Awaitable[None]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        machine = FakeMachine(loop)
        agent = ManagedAgent(
            AgentSettings("serf", "n1.7", "127.0.0.1", 7946, ["127.0.0.1:7946", "10.0.0.2:7946"],
                          "data/serf", KEY),
            programs=machine, network=machine, clock=VirtualClock(loop), random=Random(1),
            random_bytes=lambda size: machine.ports.to_bytes(size, "big"),
        )  # fmt: skip
        await story(machine, agent)
        await agent.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def starts_of(machine: FakeMachine) -> list[float]:
    """Return the pauses between the starts."""
    times = [at for at, _ in machine.started]
    return [after - before for before, after in pairwise(times)]


def test_keys_are_in_the_file_and_not_on_the_command_line() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        await agent.start({"distlog.id": "n1"})
        configuration = machine.configuration
        assert configuration["encrypt_key"] == KEY
        assert configuration["tags"] == {"distlog.id": "n1"}
        assert machine.arguments == ["/bin/serf", "agent", "-config-file=data/serf/agent.json"]
        assert agent.address is not None
        assert agent.address.auth_key == configuration["rpc_auth"] != ""
        agent.keep_tags({"distlog.id": "n2"})
        assert machine.configuration["tags"] == {"distlog.id": "n2"}

    with_agent(story)


def test_a_seed_that_is_the_agent_itself_is_left_out_and_peers_of_before_are_tried_too() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.files["data/serf/peers.json"] = b'["10.0.0.3:7946", "127.0.0.1:7946"]'
        await agent.start({})
        assert machine.configuration["retry_join"] == ["10.0.0.2:7946", "10.0.0.3:7946"]
        agent.keep_peers([])
        agent.keep_peers(["10.0.0.4:7946"])
        assert json.loads(machine.files["data/serf/peers.json"]) == ["10.0.0.4:7946"]

    with_agent(story)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b"\xff", b'"text"', b"[" * 100_000])
def test_a_damaged_file_of_peers_is_as_good_as_none(content: bytes) -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.files["data/serf/peers.json"] = content
        await agent.start({})
        assert machine.configuration["retry_join"] == ["10.0.0.2:7946"]

    with_agent(story)


def test_an_agent_that_ends_again_and_again_is_started_more_and_more_seldom() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.lifetime_s = 0.05
        await agent.start({})
        await pass_time(120)
        pauses = starts_of(machine)
        assert 0.14 <= pauses[0] <= 0.32
        assert all(pause <= 15 * 1.3 + 0.1 for pause in pauses)
        assert pauses[-1] >= 15 * 0.7
        assert agent.restart_count == len(machine.started) - 1 + (agent.address is None)

    with_agent(story)


def test_an_agent_that_has_lived_for_a_while_is_back_at_once() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.lifetime_s = 40.0
        await agent.start({})
        changes: list[bool] = []
        agent.changed = lambda: changes.append(agent.address is not None)
        await pass_time(200)
        pauses = starts_of(machine)
        assert len(pauses) == 4
        assert all(40.14 <= pause <= 40.33 for pause in pauses)
        assert changes == [False, True] * 4
        assert agent.address is not None
        assert agent.address.auth_key == machine.configuration["rpc_auth"]

    with_agent(story)


def test_an_agent_that_does_not_answer_any_more_is_killed_and_started_again() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        await agent.start({})
        await pass_time(100)
        assert len(machine.started) == 1
        machine.answers = False
        first = machine.started[0][1]
        await asyncio.wait([first.ended], timeout=60)
        assert first.ended.result() == -9
        machine.answers = True
        await pass_time(60)
        assert agent.address is not None

    with_agent(story)


def test_a_port_at_which_somebody_else_answers_is_left_for_another() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.strangers = {machine.ports + 1}
        await agent.start({})
        assert agent.address is not None
        assert agent.address.port not in machine.strangers
        assert [program.ended.done() for _, program in machine.started] == [True, False]

    with_agent(story)


def test_an_agent_that_never_comes_up_keeps_the_node_from_starting_and_nothing_runs() -> None:
    async def story(machine: FakeMachine, agent: ManagedAgent) -> None:
        machine.lifetime_s = 0.0
        with pytest.raises(AgentFailed, match="has ended with status 1, its last line: 'its last"):
            await agent.start({})
        machine.lifetime_s, machine.answers = None, False
        with pytest.raises(AgentFailed, match="does not answer within 10 s"):
            await agent.start({})
        assert all(program.ended.done() for _, program in machine.started)

    with_agent(story)


def test_a_program_that_is_not_there_is_said_with_what_to_do() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        machine = FakeMachine(loop)
        settings = AgentSettings("surf", "n1.7", "127.0.0.1", 7946, [], "data/serf")
        agent = ManagedAgent(
            settings, programs=machine, network=machine, clock=VirtualClock(loop),
            random=Random(1), random_bytes=bytes,
        )  # fmt: skip
        with pytest.raises(AgentProgramUnusable, match="install Serf"):
            await agent.start({})

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_no_key_is_in_a_description_of_the_settings() -> None:
    settings = AgentSettings("serf", "n1.7", "127.0.0.1", 7946, [], "data/serf", KEY)
    assert KEY not in repr(settings) + str(settings)
