"""Runs a scenario on a simulated cluster, and tells what is to be seen after each block."""

from __future__ import annotations

import asyncio

from distlog.block import Block as RecordBlock
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.errors import DistlogError, OutcomeUnknown
from tests.scenarios.language import Block, Command
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.virtual_loop import VirtualLoop

# How long a single attempt may take, and a client that repeats.
ATTEMPT_S = 5.0
PATIENCE_S = 30.0
# No checkpoint: what a node has applied it has to learn again after a restart.
CHECKPOINT_INTERVAL_S = 10_000.0
FULL_LEFT = 1000


def run_scenario(blocks: list[Block]) -> list[list[str]]:
    """Return for each block the lines below its dashes."""

    async def run() -> list[list[str]]:
        story = Story()
        return [await story.run(block) for block in blocks]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


class Story:
    """One scenario under way."""

    def __init__(self) -> None:
        self._cluster: SimulatedCluster
        # Records that were given to the cluster, acknowledged or not.
        self._count = 0
        self._lines: list[str] = []

    async def run(self, block: Block) -> list[str]:
        """Carry out the commands of a block; return what they said, and the state of the cluster behind them."""
        self._lines = []
        for command in block.commands:
            await self._carry_out(command)
        # Long enough for what is healthy to hear of the last commit, and too short for anybody to be missed.
        await self._cluster.loop.pass_time(0.3)
        commands = [command for command in block.commands if command.word != "nodes"]
        named = {name for command in commands for name in command.arguments}
        problems = [f"VIOLATED: {failure}" for failure in self._cluster.failures]
        return [*self._lines, *problems, self._state(named)]

    async def _carry_out(self, command: Command) -> None:
        match command.word:
            case "nodes":
                await self._form(command.arguments)
            case "produce":
                await self._produce(command)
            case "try":
                await self._try(command)
            case "read":
                await self._read(command)
            case "transfer":
                await self._transfer(command)
            case "join":
                await self._join(command)
            case "remove":
                await self._remove(command)
            case "wait":
                await self._cluster.loop.pass_time(command.number(0))
            case "settle":
                await self._settle(command)
            case "heal":
                self._cluster.network.heal()
            case "cut-off":
                others = [name for name in self._cluster.machines if name not in command.arguments]
                self._cluster.network.partition(command.arguments, others)
            case _:
                for name in command.arguments:
                    await self._happen(command, self._cluster.machines[name])

    async def _happen(self, command: Command, machine: Machine) -> None:
        """Let something happen to one machine."""
        is_up = machine.node is not None
        if is_up == (command.word in ("start", "wipe")):
            raise command.fail(f"{machine.name} is {'up' if is_up else 'down'}")
        match command.word:
            case "power-cut":
                machine.crash()
            case "kill":
                machine.kill()
            case "stop":
                await machine.stop()
            case "start":
                await machine.start()
            case "wipe":
                machine.wipe()
            case "pause":
                machine.pause()
            case "resume":
                machine.resume()
            case "fill":
                machine.fill_disk(FULL_LEFT)
            case "free":
                machine.free_disk()
            case "slow":
                machine.slow_disk = True
            case _:
                raise AssertionError(command.word)

    def _say(self, command: Command, what: str) -> None:
        self._lines.append(f"{command}: {what}")

    async def _form(self, names: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._cluster = SimulatedCluster(
            loop, 1, names=names, checkpoint_interval_s=CHECKPOINT_INTERVAL_S
        )
        await self._cluster.start()
        await self._cluster.wait_until(lambda: self._cluster.leader() is not None, "a leader")
        leader = self._cluster.leader()
        if leader is not None and leader.name != names[0]:
            await leader.ask(lambda log: log.transfer_leadership(names[0]))
            await self._cluster.wait_until(
                lambda: (found := self._cluster.leader()) is not None and found.name == names[0],
                "the first one leads",
            )

    # --- What a client does ---------------------------------------------------------------------

    def _next_record(self, size: int = 0) -> bytes:
        self._count += 1
        return (b"record %d " % (self._count - 1)).ljust(size, b".")

    async def _produce(self, command: Command) -> None:
        options = command.options(1, ("of", "within"))
        loop = self._cluster.loop
        begun = loop.time()
        offsets: list[int] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(command.number(0)):
                    offsets.append(await self._produce_one(self._next_record(options.get("of", 0))))
        except TimeoutError:
            self._say(command, f"refused, after {len(offsets)}")
            return
        except OutcomeUnknown:
            self._say(command, f"outcome unknown, after {len(offsets)}")
            return
        is_late = loop.time() - begun > options.get("within", PATIENCE_S)
        self._say(command, f"offsets [{offsets[0]}, {offsets[-1] + 1}){', late' * is_late}")

    async def _produce_one(self, record: bytes) -> int:
        while True:
            leader = self._cluster.leader()
            try:
                if leader is not None:
                    return int((await self._append(leader, record)).base_offset)
            except OutcomeUnknown:
                raise
            except (DistlogError, ConnectionError):
                # Nothing was written, so it may be sent again.
                pass
            await self._cluster.loop.pass_time(0.02)

    async def _append(self, machine: Machine, record: bytes) -> object:
        return await machine.ask(
            lambda log: log.propose_append("", RecordBlock.from_records([record]))
        )

    async def _try(self, command: Command) -> None:
        machine = self._cluster.machines[command.arguments[0]]
        await self._attempt(command, machine, self._append(machine, self._next_record()))

    async def _read(self, command: Command) -> None:
        machine, offset = self._cluster.machines[command.arguments[0]], command.number(1)

        async def read(log: ReplicatedLog) -> str:
            batches = await log.read("", offset, size_max=1)
            return list(batches[0].records())[offset - batches[0].base_offset].decode().rstrip(" .")

        await self._attempt(command, machine, machine.ask(read))

    async def _join(self, command: Command) -> None:
        cluster = self._cluster
        for name in command.arguments:
            if name not in cluster.machines:
                cluster.machines[name] = Machine(cluster, name)
                cluster.watch.add(name)
            machine = cluster.machines[name]
            if machine.node is not None:
                raise command.fail(f"{name} is up")
            machine.way = "join"
            await machine.start()

    async def _remove(self, command: Command) -> None:
        leader, name = self._cluster.leader(), command.arguments[0]
        if leader is None:
            raise command.fail("nobody leads")

        async def remove(log: ReplicatedLog) -> str:
            await log.remove_member(name)
            return "done"

        await self._attempt(command, leader, leader.ask(remove))

    async def _transfer(self, command: Command) -> None:
        leader = self._cluster.leader()
        if leader is None:
            raise command.fail("nobody leads")
        target = command.arguments[0] if command.arguments else None

        async def transfer(log: ReplicatedLog) -> str:
            await log.transfer_leadership(target)
            return "done"

        await self._attempt(command, leader, leader.ask(transfer))
        if target is not None:
            # Who has won leads when an entry of its own is committed.
            await self._cluster.loop.pass_time(0.5)

    async def _attempt(self, command: Command, machine: Machine, answer: object) -> None:
        """Say what one request comes to."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                result = await answer  # type: ignore[misc]
        except (DistlogError, ConnectionError) as error:
            self._say(command, type(error).__name__)
        except TimeoutError:
            self._say(command, "no answer")
        else:
            self._say(
                command, result if isinstance(result, str) else f"offset {result.base_offset}"
            )

    # --- What is to be seen ---------------------------------------------------------------------

    def _running(self) -> list[Machine]:
        return [m for m in self._cluster.machines.values() if m.log is not None]

    async def _settle(self, command: Command) -> None:
        def equal() -> bool:
            states = [m.log.status() for m in self._running() if m.log is not None]
            ends = {state.applied_index for state in states if state.role != "forming"}
            return len(ends) == 1 and self._cluster.leader() is not None

        if not await self._cluster.wait_until(equal, f"line {command.line}: settle", PATIENCE_S):
            self._say(command, "never")

    def _members(self, leader: Machine | None) -> list[str]:
        """Describe the members as the leader sees them, if they are not those that the cluster was formed with."""
        configuration = self._cluster.configuration()
        if leader is None or leader.log is None or configuration is None:
            return []
        if configuration.raft_index == 1:
            return []
        members = leader.log.status().members
        voters = " ".join(each.node_id for each in members if each.is_voter)
        learners = " ".join(f"{m.node_id} lag={m.lag}" for m in members if not m.is_voter)
        return [f"voters {voters}", *([f"learners {learners}"] if learners else [])]

    def _state(self, named: set[str]) -> str:
        """Describe the cluster in a line; who has won an election of equals is no part of a promise."""
        cluster, running = self._cluster, self._running()
        states = {m.name: m.log.status() for m in running if m.log is not None}
        leader = cluster.leader()
        if leader is None:
            led_by = "none"
        elif leader.name in named or leader.name == cluster.names[0]:
            led_by = leader.name
        else:
            led_by = "another"
        ends = {
            name: state.topics[0].high_watermark for name, state in states.items() if state.topics
        }
        parts = [f"leader {led_by}", f"up {' '.join(states) or '-'}"]
        full = [name for name, state in states.items() if state.is_storage_full]
        outside = [name for name, state in states.items() if state.role == "forming"]
        parts += [f"full {' '.join(full)}"] * bool(full)
        parts += [f"no voter {' '.join(outside)}"] * bool(outside)
        parts += self._members(leader)
        if len(set(ends.values())) == 1:
            parts.append(f"logs identical [0, {next(iter(ends.values()))})")
        else:
            parts += [f"log of {name} [0, {end})" for name, end in ends.items()]
        return " | ".join(parts)
