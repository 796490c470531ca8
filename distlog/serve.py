"""One node as a process: the real ports, the gRPC server, signals, logs, and the line that says what to type next."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import resource
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from random import Random

import grpc
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
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.space import commands_cost
from distlog.consensus.state_machine import TOPIC_COUNT_MAX
from distlog.discovery.serf.options import SerfOptions
from distlog.discovery.view import Description
from distlog.errors import ConfigurationInvalid, DistlogError
from distlog.logs import LogMemory, configure_logging
from distlog.monitoring.collector import Defences
from distlog.monitoring.monitor import Monitor
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
from distlog.runtime import Network, SystemClock, TcpNetwork, ThreadWorker, resolve
from distlog.security.audit import AuditLog
from distlog.security.certificates import TlsPaths
from distlog.security.files import RealFiles
from distlog.security.network import HTTP, TlsNetwork
from distlog.security.peer_name import peer_name_problem
from distlog.security.rotated_file import RotatedFile
from distlog.security.tls import Credentials
from distlog.server.authorization import Authorization, AuthorizationSettings
from distlog.server.limits import ServerLimits
from distlog.server.listen import Listener
from distlog.storage.disk import RealDisk
from distlog.tracing.process import ProcessTracing

logger = logging.getLogger(__name__)

# Together below the 5 s that a stop may take: another leader, calls in flight, then the last fsync and checkpoint.
HAND_OVER_TIMEOUT_S = 1.0
CALLS_STOP_TIMEOUT_S = 1.7
NODE_STOP_TIMEOUT_S = 2.0
# Of what is left of it, lines of the audit log and spans that wait for their exporter get so much, and in any case the least.
STOP_TIMEOUT_S = 4.8
AUDIT_STOP_TIMEOUT_S, SPANS_STOP_TIMEOUT_S, STOP_TIMEOUT_MIN_S = 0.5, 1.0, 0.1
# File descriptors without which a node does not start: those of a few clients, and of the files of a few topics.
DESCRIPTORS_MIN = 256
# With --leave-on-stop, before that.
LEAVE_TIMEOUT_S = 10.0
# New objects that may hold others between two looks for cycles among them.
GARBAGE_THRESHOLD = 20_000
MIB = 1 << 20
# In the data directory, unless the operator puts it elsewhere.
AUDIT_FILE = "audit.log"
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
    levels = config.log_level
    log = configure_logging(levels.level, dict(levels.packages), config.log_format)
    open_max = _raise_descriptor_limit()
    _tune_garbage_collector()
    return uvloop.run(_run(config, announce, open_max, log))


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


async def _run(
    config: ServeConfig, announce: Callable[[str], None], open_max: int, log: LogMemory
) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    credentials = tls_credentials(config)
    tracing = ProcessTracing(os.environ, config.node_id, ThreadWorker)
    peers, http = networks(credentials, config.tls_peer_name)
    ports = dataclasses.replace(real_ports(credentials, peers), tracer=tracing.tracer)
    node = Node(node_settings(config), ports)
    audit_worker = ThreadWorker(f"{config.node_id}-audit")
    authorization = make_authorization(config, node.replicated_log, audit_worker)
    listener = Listener(
        node.replicated_log,
        host=config.listen.host,
        port=config.listen.port,
        insecure=config.insecure,
        random_bytes=secrets.token_bytes,
        now=SystemClock().monotonic,
        gate=authorization.gate,
        credentials=credentials.server_credentials() if credentials else None,
        limits=server_limits(config, open_max),
        itself=node.finding.itself,
        view=node.finding.view,
        about=lambda: monitor.about(),
        tracer=tracing.tracer,
    )
    monitor = Monitor(
        node,
        listener,
        clock=SystemClock(),
        log=log,
        defences=defences(credentials, authorization, peer=peers, http=http),
        is_open=config.http_open,
        spans=tracing.counts,
    )
    port = await listener.start()
    address = str(config.advertise) if config.advertise else f"{config.listen.host}:{port}"
    _say_what_starts(config)
    try:
        if config.http_listen is not None:
            # Before the node: a probe must be answered while it starts, however long that takes.
            await monitor.start(http, config.http_listen.host, config.http_listen.port)
        await node.start(address)
        authorization.start()
    except BaseException:
        # gRPC complains with a traceback of a server that is left behind, below the line that says what is wrong.
        await listener.stop(0)
        monitor.stop()
        raise
    flags = f" --tls-ca {config.tls_ca} --tls-cert CERT --tls-key KEY" if credentials else ""
    _announce_when_ready(node, config.node_id, address, flags, announce)
    watching = _watch(credentials, loop)
    await _first(stopping, node.failed, node.departure.left)
    if config.leave_on_stop and not node.failed.done():
        await _leave(node)
    if watching is not None:
        watching.cancel()
    stops_at = loop.time() + STOP_TIMEOUT_S
    try:
        return await _shut_down(node, listener, Durability(config.durability))
    finally:
        monitor.stop()
        left_s = max(STOP_TIMEOUT_MIN_S, stops_at - loop.time())
        if await authorization.stop(min(AUDIT_STOP_TIMEOUT_S, left_s)):
            audit_worker.close()
        left_s = max(STOP_TIMEOUT_MIN_S, stops_at - loop.time())
        await tracing.stop(min(SPANS_STOP_TIMEOUT_S, left_s))


def _say_what_starts(config: ServeConfig) -> None:
    logger.info(
        "starting version=%s node_id=%s data_dir=%s reached_by=%s",
        __version__,
        config.node_id,
        config.data_dir,
        reached_by(config),
    )
    if Durability(config.durability) is Durability.OS:
        logger.warning(OS_DURABILITY_WARNING)


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
        logger.warning(
            "stopping as a member, since it could not leave: remove it by another node (distlog cluster remove) problem=%s",
            error,
        )


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
    node: Node, node_id: str, address: str, flags: str, announce: Callable[[str], None]
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
            f"{node_id} is ready for clients at {address}. Type next: distlog produce --server {address}{flags} FILE"
        )

    log.on_role_change(ready)
    ready()


def networks(credentials: Credentials | None, peer_name: str) -> tuple[Network, Network]:
    """Return how other nodes are reached, and how those who monitor this one reach it.

    credentials: with what both are encrypted; None: they are not.  peer_name: what the certificates of nodes must say.
    """
    if credentials is None:
        return TcpNetwork(), TcpNetwork()
    clock = SystemClock()
    peers = TlsNetwork(TcpNetwork(), credentials.peer_context, clock, peer_name=peer_name)
    http = TlsNetwork(TcpNetwork(), lambda _: credentials.http_context(), clock, what=HTTP)
    return peers, http


def real_ports(credentials: Credentials | None = None, peers: Network | None = None) -> NodePorts:
    """Return the machine's own.

    credentials: with what this node asks others as their client; None: nothing is encrypted.  peers: how it reaches them as a peer.
    """
    clock = SystemClock()

    def own() -> grpc.ChannelCredentials | None:
        return credentials.channel_credentials() if credentials else None

    async def ask_members(address: tuple[str, int]) -> Mapping[str, str]:
        return await members_at(str(Address(*address)), own())

    async def ask_node(address: tuple[str, int], known_as: str = "") -> tuple[Description, int]:
        return await node_at(str(Address(*address)), own(), known_as)

    async def remove_member(address: tuple[str, int], member: MemberIdentity) -> None:
        await remove_member_at(str(Address(*address)), own(), **member._asdict())

    return NodePorts(
        disk=RealDisk(),
        clock=clock,
        random=Random(secrets.randbits(128)),
        network=peers or TcpNetwork(),
        make_worker=ThreadWorker,
        ask_members=ask_members,
        ask_node=ask_node,
        remove_member=remove_member,
        resolve=resolve,
        programs=SystemPrograms(),
        random_bytes=secrets.token_bytes,
    )


def defences(
    credentials: Credentials | None, authorization: Authorization, **networks: Network
) -> Defences:
    """Return what is counted of who is kept out.  networks: by the name of the port."""
    secured = {port: each for port, each in networks.items() if isinstance(each, TlsNetwork)}
    return Defences(credentials, secured, authorization)


def tls_credentials(config: ServeConfig) -> Credentials | None:
    """Read the certificates; None: there are none to be.  Raises ConfigurationInvalid, also if they would make this node nobody."""
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None
    paths = TlsPaths(config.tls_cert, config.tls_key, config.tls_ca, config.tls_peer_ca or "")
    credentials = Credentials(paths, RealFiles(), SystemClock())
    problem = peer_name_problem(config.tls_peer_name, credentials.identity.names, config.node_id)
    if problem is not None:
        raise ConfigurationInvalid(
            key="--tls-cert",
            problem=f"with {config.tls_cert} this node would be refused by the others: {problem}",
        )
    return credentials


def make_authorization(
    config: ServeConfig, log: ReplicatedLog, audit_worker: ThreadWorker
) -> Authorization:
    """Return what decides who may do what.  Raises ConfigurationInvalid for a policy file that cannot be used."""
    lines = RotatedFile(
        config.audit_log or f"{config.data_dir}/{AUDIT_FILE}",
        size_max=config.audit_size_max,
        count_max=config.audit_count_max,
    )
    lines.check_place()
    return Authorization(
        log.policy,
        AuthorizationSettings(
            policy_path=config.acl_policy or "",
            model_path=config.acl_model or "",
            is_strict=config.acl_replicated,
            administrators=config.acl_administrators,
            node_name=config.tls_peer_name if config.tls_peer_ca is None else "",
            is_reachable=not config.listen.is_loopback,
        ),
        RealFiles(),
        AuditLog(lines, audit_worker, SystemClock(), time_text),
        secrets.token_bytes,
    )


def time_text(milliseconds: int) -> str:
    """Return a moment since the Unix epoch as 2026-01-31T12:00:00.123Z."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{moment}.{milliseconds % 1000:03d}Z"


def _watch(
    credentials: Credentials | None, loop: asyncio.AbstractEventLoop
) -> asyncio.Task[None] | None:
    """Have the certificates read again when they change, and at once at SIGHUP."""
    if credentials is None:
        return None
    loop.add_signal_handler(signal.SIGHUP, credentials.read_again)
    return asyncio.create_task(credentials.watch())


def reached_by(config: ServeConfig) -> str:
    """Return who can reach the ports for clients and nodes, in one word of the log."""
    if config.tls_cert is not None:
        return "certificates"
    is_here = config.listen.is_loopback and config.peer_listen.is_loopback
    return "loopback" if is_here else "anybody"


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
