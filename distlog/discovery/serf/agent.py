"""The agent that a node runs: started with it, watched, started again when it ends, and never left behind.

    start -> [ write its configuration -> start it -> RPC answers to our key ] -> watch -> it ended -> wait 0.2 s .. 15 s -> [ ... ]

The configuration is a file that only this user may read, so that no key is on a command line.  The port of the RPC and the key for it are
new for each process: whoever answers there without knowing the key is another program, and is left alone.  Every end that nobody asked
for is unexpected, also with exit status 0: an agent that finds its name taken ends like that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from distlog.discovery.serf.client import AgentAddress, SerfClient
from distlog.discovery.serf.errors import (
    AgentFailed,
    AgentProgramUnusable,
    AgentSilent,
    AgentUnreachable,
)
from distlog.errors import DistlogError
from distlog.programs import Programs, RunningProgram
from distlog.runtime import Clock, Network

logger = logging.getLogger("distlog.discovery.serf")

# Names in the directory of the agent.
CONFIGURATION_NAME = "agent.json"
OUTPUT_NAME = "output.log"
PEERS_NAME = "peers.json"
# Gossip addresses that are remembered, and bytes of a file.
PEER_COUNT_MAX = 32
FILE_SIZE_MAX = 64 << 10
# Only programs of this machine reach the RPC, which is not encrypted.
RPC_HOST = "127.0.0.1"
RPC_KEY_SIZE = 16

# How long agents remember who has left.
TOMBSTONE_TIMEOUT = "30m"

# From the start of the process to its first answer; 15 ms as a rule.
READY_TIMEOUT_S = 10.0
READY_INTERVAL_S = 0.02
# How often a first start is tried before the node gives up.
FIRST_TRIES = 3
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.2, 15.0
# An agent that has lived so long was all right: when it ends the next one does not have to wait.
SETTLED_AFTER_S = 30.0
# Between two looks whether it answers; one that does not at so many looks in a row is killed.
LOOK_INTERVAL_S = 10.0
SILENT_LOOKS_MAX = 3
AGAIN = "starting the Serf agent again: look at its output if that goes on in_s=%.1f count=%d problem=%s"


def log_mistake(task: asyncio.Task[None]) -> None:
    """Log why a task has ended that never should."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical(
            "discovery by Serf has ended by a mistake of ours: restart the node, and report it",
            exc_info=error,
        )


class Agent(Protocol):
    """Where a node's agent comes from."""

    # Called when `address` is another one.
    changed: Callable[[], None]

    @property
    def address(self) -> AgentAddress | None:
        """Where its RPC is now; None while there is none."""

    @property
    def is_own(self) -> bool:
        """Tell whether the agent is this node's alone, and ends with it."""

    async def start(self, tags: Mapping[str, str]) -> None:
        """Begin, with these tags if the agent is started.  Raises DistlogError if it cannot."""

    def keep_tags(self, tags: Mapping[str, str]) -> None:
        """Have the agent come back with these tags."""

    def keep_peers(self, addresses: Sequence[str]) -> None:
        """Have the agent come back to the agents at these HOST:PORT, also after a restart of the node."""

    async def close(self) -> None:
        """End an agent of one's own, without a good-bye."""


class ExternalAgent:
    """An agent that somebody else runs."""

    is_own = False

    def __init__(self, address: AgentAddress, network: Network) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._address = address
        self._network = network

    @property
    def address(self) -> AgentAddress | None:
        return self._address

    async def start(self, tags: Mapping[str, str]) -> None:
        """Look who answers: nobody may yet, but it must not be a stranger.  Raises AgentNotAuthenticated, AgentAnswerInvalid."""
        try:
            client = await SerfClient.open(self._network, self._address)
        except (AgentUnreachable, AgentSilent) as problem:
            logger.warning(
                "going on without the Serf agent until it answers: start it, or mend --discovery problem=%s",
                problem,
            )
            return
        client.close()

    def keep_tags(self, tags: Mapping[str, str]) -> None:
        """Nothing: they are set again when the agent has lost them."""

    def keep_peers(self, addresses: Sequence[str]) -> None:
        """Nothing: who runs the agent says whom it joins."""

    async def close(self) -> None:
        """Nothing: the agent goes on."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent of one's own is started with."""

    # A name that is looked for along PATH, or a path.
    program: str
    # The name in the gossip, which no other member may have.
    name: str
    # Where other agents reach it; port 0: any, and the same one for as long as this node runs.
    host: str
    port: int
    # HOST:PORT of other agents.
    join: Sequence[str]
    # Where its files are.
    directory: str
    # 32 bytes in base64, or "": the gossip is not encrypted.
    encrypt_key: str = ""

    def __repr__(self) -> str:
        return f"AgentSettings({self.name} at {self.host}:{self.port})"


class ManagedAgent:
    """The agent of one node, for as long as the node runs."""

    is_own = True

    def __init__(
        self,
        settings: AgentSettings,
        *,
        programs: Programs,
        network: Network,
        clock: Clock,
        random: Random,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """random_bytes: for keys, so from the system's generator of them."""
        self.changed: Callable[[], None] = lambda: None
        self._settings = settings
        self._programs, self._network = programs, network
        self._clock, self._random, self._random_bytes = clock, random, random_bytes
        self._path = ""
        self._tags: dict[str, str] = {}
        # Where others were last.  The agent's own memory of that will not do: under a new name it takes itself for another, and to
        # join itself for a success.
        self._peers: tuple[str, ...] = ()
        self._gossip_port = settings.port
        self._address: AgentAddress | None = None
        self._running: RunningProgram | None = None
        self._started_at = 0.0
        self._task: asyncio.Task[None] | None = None
        # How often it was started again.
        self.restart_count = 0

    @property
    def address(self) -> AgentAddress | None:
        return self._address

    @property
    def running(self) -> RunningProgram | None:
        """The process, while there is one."""
        return self._running

    @property
    def gossip_address(self) -> str:
        """HOST:PORT where other agents reach it, once it was started."""
        return str(AgentAddress(self._settings.host, self._gossip_port))

    @property
    def output_path(self) -> str:
        return f"{self._settings.directory}/{OUTPUT_NAME}"

    # --- Life ------------------------------------------------------------------------------------

    async def start(self, tags: Mapping[str, str]) -> None:
        """Return when the agent answers.  Raises AgentProgramUnusable, or AgentFailed after some tries."""
        self._tags = dict(tags)
        self._path = self._programs.find(self._settings.program) or ""
        if not self._path:
            raise AgentProgramUnusable(self._settings.program, "there is no such program")
        self._peers = self._read_peers()
        for delay_s in self._delays(FIRST_TRIES - 1):
            try:
                await self._begin()
                break
            except AgentFailed as problem:
                logger.warning(AGAIN, delay_s, self.restart_count, problem)
            await asyncio.sleep(delay_s)
        else:
            await self._begin()
        self._task = asyncio.create_task(self._keep_running())
        self._task.add_done_callback(log_mistake)

    def keep_tags(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        if self._address is not None:
            # The agent reads its file again at SIGHUP too.
            try:
                self._write_configuration(self._address)
            except OSError as error:
                logger.warning(
                    "the file of the Serf agent cannot be written: free space, or mend its directory problem=%s",
                    error,
                )

    def keep_peers(self, addresses: Sequence[str]) -> None:
        peers = tuple(addresses[:PEER_COUNT_MAX])
        # Those that were there last are better than none.
        if not peers or peers == self._peers:
            return
        self._peers = peers
        try:
            self._programs.write_secret(self._peers_path, json.dumps(peers).encode())
        except OSError as error:
            logger.warning(
                "the peers of the Serf agent cannot be written down: free space, or mend its directory problem=%s",
                error,
            )

    def _read_peers(self) -> tuple[str, ...]:
        """Return what the last run of the node wrote.  Whatever else is in the file is worth no more than a file that is not there."""
        content = self._programs.read(self._peers_path, FILE_SIZE_MAX)
        try:
            peers = json.loads(content or b"[]")
        except (ValueError, RecursionError):
            return ()
        if not isinstance(peers, list) or not all(isinstance(each, str) for each in peers):
            return ()
        return tuple(peers[:PEER_COUNT_MAX])

    @property
    def _peers_path(self) -> str:
        return f"{self._settings.directory}/{PEERS_NAME}"

    async def close(self) -> None:
        """End it: the others take that for a failure, and forget about it when it is back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._set_address(None)
        if self._running is not None:
            await self._running.stop()
            self._running = None

    # --- One process -------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Start a process and wait until it answers.  Raises AgentFailed; then nothing runs."""
        try:
            if not self._gossip_port:
                self._gossip_port = self._programs.free_port(self._settings.host)
            port = self._programs.free_port(RPC_HOST)
            address = AgentAddress(RPC_HOST, port, self._random_bytes(RPC_KEY_SIZE).hex())
            self._write_configuration(address)
            self._programs.limit_output(self.output_path)
            self._started_at = self._clock.monotonic()
            arguments = [self._path, "agent", f"-config-file={self._configuration_path}"]
            self._running = await self._programs.start(arguments, self.output_path)
        except OSError as error:
            problem = f"cannot be started: {error.strerror or error} ({error.filename or ''})"
            raise AgentFailed(problem, self.output_path) from error
        try:
            await self._wait_until_ready(self._running, address)
        except BaseException:
            await self._running.stop()
            self._running = None
            raise
        self._set_address(address)
        logger.info(
            "the Serf agent runs name=%s gossip=%s", self._settings.name, self.gossip_address
        )

    async def _wait_until_ready(self, running: RunningProgram, address: AgentAddress) -> None:
        ended = asyncio.ensure_future(running.wait())
        deadline = self._clock.monotonic() + READY_TIMEOUT_S
        try:
            while True:
                try:
                    client = await SerfClient.open(self._network, address)
                    client.close()
                    return
                except (AgentUnreachable, AgentSilent) as problem:
                    last: DistlogError = problem
                except DistlogError as problem:
                    # It has failed to listen, or will: somebody else has taken its port meanwhile.
                    what = "found another program at the port of its RPC"
                    raise AgentFailed(what, self.output_path) from problem
                await asyncio.wait([ended], timeout=READY_INTERVAL_S)
                if ended.done():
                    raise self._end_of(ended.result())
                if self._clock.monotonic() > deadline:
                    what = f"does not answer within {READY_TIMEOUT_S:g} s"
                    raise AgentFailed(what, self.output_path) from last
        finally:
            ended.cancel()

    def _end_of(self, status: int) -> AgentFailed:
        how = f"was ended by signal {-status}" if status < 0 else f"has ended with status {status}"
        words = self._programs.last_words(self.output_path)
        return AgentFailed(f"{how}, its last line: {words!r}", self.output_path)

    @property
    def _configuration_path(self) -> str:
        return f"{self._settings.directory}/{CONFIGURATION_NAME}"

    def _write_configuration(self, address: AgentAddress) -> None:
        settings = self._settings
        content: dict[str, object] = {
            "node_name": settings.name,
            "bind": self.gossip_address,
            "rpc_addr": str(address),
            "rpc_auth": address.auth_key,
            "tags": self._tags,
            # An agent that joins itself takes that for a success, and looks for nobody else.
            "retry_join": [
                each
                for each in dict.fromkeys((*settings.join, *self._peers))
                if each != self.gossip_address
            ],
            "retry_interval": "1s",
            # Every run of a node leaves a name behind.
            "tombstone_timeout": TOMBSTONE_TIMEOUT,
            # Ended is not gone: the node may be back in a moment.
            "leave_on_terminate": False,
            "skip_leave_on_interrupt": True,
        }
        if settings.encrypt_key:
            content["encrypt_key"] = settings.encrypt_key
        text = json.dumps(content, indent=2) + "\n"
        self._programs.write_secret(self._configuration_path, text.encode())

    # --- Watching ----------------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        delay_s = BACKOFF_MIN_S
        while True:
            if self._running is not None:
                problem: DistlogError = await self._watch(self._running)
                lived_s = self._clock.monotonic() - self._started_at
                delay_s = BACKOFF_MIN_S if lived_s > SETTLED_AFTER_S else delay_s
            self._running = None
            self._set_address(None)
            jittered_s = delay_s * self._random.uniform(0.7, 1.3)
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)
            self.restart_count += 1
            logger.warning(
                AGAIN,
                jittered_s,
                self.restart_count,
                problem,
            )
            await asyncio.sleep(jittered_s)
            try:
                await self._begin()
            except AgentFailed as failure:
                problem = failure

    async def _watch(self, running: RunningProgram) -> AgentFailed:
        """Return when the process has ended."""
        silent_count = 0
        while True:
            try:
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    return self._end_of(await running.wait())
            except TimeoutError:
                silent_count = 0 if await self._answers() else silent_count + 1
            try:
                self._programs.limit_output(self.output_path)
            except OSError as error:
                logger.warning(
                    "the output of the Serf agent cannot be shortened: free space, or mend its directory problem=%s",
                    error,
                )
            if silent_count >= SILENT_LOOKS_MAX:
                # Others still see it alive: only this node can tell.
                running.kill()
                await running.wait()
                return AgentFailed("does not answer any more and was killed", self.output_path)

    async def _answers(self) -> bool:
        assert self._address is not None
        try:
            client = await SerfClient.open(self._network, self._address)
        except DistlogError:
            return False
        client.close()
        return True

    def _set_address(self, address: AgentAddress | None) -> None:
        if address != self._address:
            self._address = address
            self.changed()

    def _delays(self, count: int) -> list[float]:
        return [BACKOFF_MIN_S * 2**number for number in range(count)]
