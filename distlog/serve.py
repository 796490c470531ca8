"""One node as a process: the real ports, the gRPC server, signals, logs, and the line that says what to type next."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from random import Random

import uvloop

from distlog import __version__
from distlog.catch_up.scrub import ScrubSettings
from distlog.client.members import members_at, node_at, remove_member_at
from distlog.config import ServeConfig
from distlog.config.key_files import read_gossip_key, read_secret
from distlog.config.kinds import Address
from distlog.consensus.commands import COMMAND_COUNT_MAX
from distlog.consensus.durability import Durability
from distlog.consensus.group import GroupSettings
from distlog.consensus.library import RaftSettings
from distlog.consensus.replicated_log import ReplicatedLogSettings
from distlog.consensus.space import commands_cost
from distlog.consensus.state_machine import TOPIC_COUNT_MAX
from distlog.discovery.serf.options import SerfOptions
from distlog.discovery.view import Description
from distlog.errors import ConfigurationInvalid, DistlogError
from distlog.node import Node
from distlog.node_settings import (
    RESERVE_SIZE,
    DiscoverySettings,
    MemberIdentity,
    NodePorts,
    NodeSettings,
)
from distlog.peer.limits import ChannelLimits, PeerLimits
from distlog.programs import SystemPrograms
from distlog.runtime import SystemClock, TcpNetwork, ThreadWorker, resolve
from distlog.server.limits import ServerLimits
from distlog.server.listen import Listener
from distlog.storage.disk import RealDisk

logger = logging.getLogger(__name__)

# Together below the 5 s that a stop may take: another leader, calls in flight, then the last fsync and checkpoint.
HAND_OVER_TIMEOUT_S = 1.0
CALLS_STOP_TIMEOUT_S = 1.7
NODE_STOP_TIMEOUT_S = 2.0
# File descriptors without which a node does not start: those of a few clients, and of the files of a few topics.
DESCRIPTORS_MIN = 256
# With --leave-on-stop, before that.
LEAVE_TIMEOUT_S = 10.0
# New objects that may hold others between two looks for cycles among them.
GARBAGE_THRESHOLD = 20_000
MIB = 1 << 20
# What a node that cannot go on says of what it has acknowledged.
LOST_BY_FAILURE = {
    Durability.FSYNC: "nothing acknowledged is lost",
    Durability.OS: "what it acknowledged in the last second may be on the other nodes alone",
}
OS_DURABILITY_WARNING = (
    "durability=os: this node acknowledges what it has written and not synced yet. If its machine loses power it loses up to a "
    "second of that, and records that no other node has are lost then, although they were acknowledged; a kill of the process "
    "loses nothing. Without --durability os nothing is acknowledged before it is synced"
)


def run_node(config: ServeConfig, announce: Callable[[str], None]) -> int:
    """Run a node until SIGTERM or SIGINT; return the process's exit code.

    announce: gets the line that a person should see once the node is ready.
    Raises DistlogError for what keeps a node from starting; nothing was lost then.
    """
    configure_logging(config.log_level, config.log_format)
    open_max = _raise_descriptor_limit()
    _tune_garbage_collector()
    return uvloop.run(_run(config, announce, open_max))


def _tune_garbage_collector() -> None:
    """Look for cycles seldom, and never among what was loaded at start: nothing on the path of a record makes any."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 100)


def _raise_descriptor_limit() -> int:
    """Take all the file descriptors that the system grants: each connection and each open segment needs some.

    Returns how many.  Raises ConfigurationInvalid if a node cannot live on them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < DESCRIPTORS_MIN:
        raise ConfigurationInvalid(
            key="open files",
            problem=f"the system lets this process open {hard}, and a node needs {DESCRIPTORS_MIN}: raise the limit (ulimit -n, "
            "or LimitNOFILE of a service)",
        )
    return hard


async def _run(config: ServeConfig, announce: Callable[[str], None], open_max: int) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    node = Node(node_settings(config), real_ports())
    listener = Listener(
        node.replicated_log,
        host=config.listen.host,
        port=config.listen.port,
        insecure=config.insecure,
        random_bytes=secrets.token_bytes,
        limits=server_limits(config, open_max),
        itself=node.finding.itself,
        view=node.finding.view,
    )
    port = await listener.start()
    address = str(config.advertise) if config.advertise else f"{config.listen.host}:{port}"
    logger.info(
        "starting version=%s node_id=%s data_dir=%s", __version__, config.node_id, config.data_dir
    )
    if Durability(config.durability) is Durability.OS:
        logger.warning(OS_DURABILITY_WARNING)
    try:
        await node.start(address)
    except BaseException:
        # gRPC complains with a traceback of a server that is left behind, below the line that says what is wrong.
        await listener.stop(0)
        raise
    _announce_when_ready(node, config.node_id, address, announce)
    await _first(stopping, node.failed, node.departure.left)
    if config.leave_on_stop and not node.failed.done():
        await _leave(node)
    return await _shut_down(node, listener, Durability(config.durability))


async def _first(
    stopping: asyncio.Event, failed: asyncio.Future[None], left: asyncio.Future[None]
) -> None:
    """Return when the process is told to stop, the node cannot go on, or it has left its cluster."""
    for reason in (failed, left):
        reason.add_done_callback(lambda _: stopping.set())
    await stopping.wait()


async def _leave(node: Node) -> None:
    """Have the node removed from its cluster, if that goes; it stops in any case."""
    if node.departure.left.done():
        return
    try:
        await node.departure.leave(LEAVE_TIMEOUT_S)
    except DistlogError as error:
        logger.warning("stopping as a member, since it could not leave problem=%s", error)


async def _shut_down(node: Node, listener: Listener, durability: Durability) -> int:
    failure = node.failed.exception() if node.failed.done() else None
    if failure is not None:
        what = str(failure) if isinstance(failure, DistlogError) else repr(failure)
        logger.critical(
            "stopping at once, since the node cannot go on; %s: mend the cause and start it again problem=%s",
            LOST_BY_FAILURE[durability],
            what,
            exc_info=None if isinstance(failure, DistlogError) else failure,
        )
        await listener.stop(0)
        return 1
    logger.info("stopping")
    await node.hand_over(HAND_OVER_TIMEOUT_S)
    node.replicated_log.refuse_new()
    await listener.stop(CALLS_STOP_TIMEOUT_S)
    try:
        async with asyncio.timeout(NODE_STOP_TIMEOUT_S):
            await node.stop()
    except TimeoutError:
        # Safe: the next start finds what is acknowledged in the journal, and repeats from there what the logs lack.
        logger.warning(
            "stopped without a last checkpoint, since the disk is slow: the next start reads more of the journal"
        )
        return 0
    logger.info("stopped")
    return 0


def _announce_when_ready(
    node: Node, node_id: str, address: str, announce: Callable[[str], None]
) -> None:
    """Say once, when this node first knows a leader, what to type next."""
    log = node.replicated_log
    announced = False

    def ready() -> None:
        nonlocal announced
        if announced or not log.has_leader:
            return
        announced = True
        announce(
            f"{node_id} is ready for clients at {address}. Type next: distlog produce --server {address} FILE"
        )

    log.on_role_change(ready)
    ready()


def real_ports() -> NodePorts:
    """Return the machine's own."""
    return NodePorts(
        disk=RealDisk(),
        clock=SystemClock(),
        random=Random(secrets.randbits(128)),
        network=TcpNetwork(),
        make_worker=ThreadWorker,
        ask_members=_ask_members,
        ask_node=_ask_node,
        remove_member=_remove_member,
        resolve=resolve,
        programs=SystemPrograms(),
        random_bytes=secrets.token_bytes,
    )


async def _ask_members(address: tuple[str, int]) -> Mapping[str, str]:
    return await members_at(str(Address(*address)))


async def _remove_member(address: tuple[str, int], member: MemberIdentity) -> None:
    await remove_member_at(str(Address(*address)), **member._asdict())


async def _ask_node(address: tuple[str, int]) -> tuple[Description, int]:
    return await node_at(str(Address(*address)))


def server_limits(config: ServeConfig, open_max: int) -> ServerLimits:
    """Return the limits of the client side: a quarter of the descriptors is for connections, so that files always have room."""
    limits = ServerLimits(record_size_max=config.record_size_max)
    connection_count_max = min(limits.connection_count_max, open_max // 4)
    return dataclasses.replace(limits, connection_count_max=connection_count_max)


def node_settings(config: ServeConfig) -> NodeSettings:
    """Return what the node needs of the configuration."""
    peers = config.peers or {config.node_id: config.peer_listen}
    entry_size_max = max(8 * MIB, config.record_size_max + MIB)
    # A message holds at least one entry, whatever its size.
    frame_size_max = max(32 * MIB, entry_size_max + MIB)
    return NodeSettings(
        reserve_size=_reserve_size(config.disk_reserve_size, entry_size_max),
        durability=Durability(config.durability),
        node_id=config.node_id,
        data_dir=config.data_dir,
        peer_listen=(config.peer_listen.host, config.peer_listen.port),
        peers={node_id: (address.host, address.port) for node_id, address in peers.items()},
        bootstrap=config.bootstrap,
        join=tuple((address.host, address.port) for address in config.join or ()),
        expect=config.expect or 0,
        dead_after_s=config.dead_after_s,
        discovery=DiscoverySettings(
            config.discovery.backend,
            config.discovery.host,
            config.discovery.port,
            _serf_options(config),
        ),
        peer_advertise=(config.peer_advertise.host, config.peer_advertise.port)
        if config.peer_advertise
        else None,
        group=GroupSettings(
            raft=RaftSettings(
                election_timeout_min_s=config.election_timeout_min_s,
                election_timeout_max_s=config.election_timeout_max_s,
                heartbeat_interval_s=config.heartbeat_interval_s,
                entry_size_max=entry_size_max,
            ),
            checkpoint_interval_s=config.checkpoint_interval_s,
            checkpoint_journal_size=config.checkpoint_journal_size,
        ),
        replicated_log=ReplicatedLogSettings(
            journal_size_max=config.journal_size_max,
            retention_interval_s=config.retention_interval_s,
        ),
        copy_rate_max=config.copy_rate_max,
        scrub=ScrubSettings(config.scrub_interval_s, config.scrub_rate_max),
        peer_limits=PeerLimits(raft=ChannelLimits(frame_size_max, frame_size_max)),
    )


def _serf_options(config: ServeConfig) -> SerfOptions:
    """Return what concerns the Serf agent, with the secrets themselves.  Raises ConfigurationInvalid for their files."""
    key_file, auth_file = config.serf_key_file, config.serf_rpc_auth_file
    return SerfOptions(
        program=config.serf_program,
        listen=(config.serf_listen.host, config.serf_listen.port),
        encrypt_key=read_gossip_key("--serf-key-file", key_file) if key_file else "",
        rpc_auth=read_secret("--serf-rpc-auth-file", auth_file) if auth_file else "",
        join=tuple(str(address) for address in config.serf_join or ()),
    )


def _reserve_size(configured: int | None, entry_size_max: int) -> int:
    """Return the size of the reserve.  Raises ConfigurationInvalid if the largest entry would use up more."""
    needed = commands_cost(entry_size_max, COMMAND_COUNT_MAX, TOPIC_COUNT_MAX)
    if configured is None:
        return max(RESERVE_SIZE, needed)
    if configured < needed:
        problem = f"is {configured} bytes, and the largest records that are allowed need {needed}"
        raise ConfigurationInvalid(key="disk_reserve_size", problem=problem)
    return configured


# --- Logs ----------------------------------------------------------------------------------------


def configure_logging(level: str, log_format: str) -> None:
    """Send the process's log to the standard output, one line an event."""
    output = logging.StreamHandler(sys.stdout)
    output.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[output], force=True)


class _TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO distlog.node text key=value`."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self.converter = time.gmtime


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
